//! A server that sends back what it is sent, by TCP and UDP, at addresses that need not be there
//! yet.

use crate::error::{Attempt, Result};
use crate::host::Host;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// The port that it listens on unless told otherwise: that of the echo service (RFC 862).
    pub const PORT: u16 = 7;

    /// Where the server at this address is asked.
    #[must_use]
    pub fn at(address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, Self::PORT)
    }

    /// Listens in a host at these addresses, TCP and UDP, on port [`Echo::PORT`]. An answer's
    /// source is always the address that was asked. An address that the host does not have yet is
    /// answered for as soon as it has.
    ///
    /// # Errors
    ///
    /// Where the port is taken.
    pub fn start(host: &Host, addresses: &[IpAddr]) -> Result<Self> {
        Self::start_at(host, addresses.iter().copied().map(Self::at))
    }

    /// Listens at these addresses and ports.
    ///
    /// # Errors
    ///
    /// Where a port is taken.
    pub fn start_at(host: &Host, addresses: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        let attempt = || format!("answer in '{}'", host.name());
        let opened: io::Result<Vec<_>> =
            host.run(|| addresses.iter().map(|address| open_once_free(*address)).collect())?;
        let mut sockets = Vec::new();
        for (tcp, udp) in opened.attempt(attempt)? {
            sockets.push(Socket::Listener(tcp));
            sockets.push(Socket::Datagram(udp));
        }
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).attempt(attempt)?);
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("echo".to_owned());
        let thread = builder.spawn(move || serve(sockets, &stopped)).attempt(attempt)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Socket {
    Listener(TcpListener),
    Connection(TcpStream),
    Datagram(UdpSocket),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(socket) => socket.as_fd(),
            Self::Connection(socket) => socket.as_fd(),
            Self::Datagram(socket) => socket.as_fd(),
        }
    }
}

/// How long an address may be in use by a server that was dropped.
const LINGERS: Duration = Duration::from_secs(1);

/// A process that another thread is just starting holds everything that is open until it executes
/// its program: also what was closed here meanwhile.
fn open_once_free(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let end = Instant::now() + LINGERS;
    loop {
        match open(address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

fn open(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let tcp = bind(address, SocketType::STREAM)?;
    rustix::net::listen(&tcp, 128)?;
    let udp = bind(address, SocketType::DGRAM)?;
    super::make_room(&udp);
    Ok((tcp.into(), udp.into()))
}

fn bind(address: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = if address.is_ipv4() {
        let socket = rustix::net::socket_with(AddressFamily::INET, kind, flags, None)?;
        sockopt::set_ip_freebind(&socket, true)?;
        socket
    } else {
        let socket = rustix::net::socket_with(AddressFamily::INET6, kind, flags, None)?;
        sockopt::set_ipv6_v6only(&socket, true)?;
        sockopt::set_ipv6_freebind(&socket, true)?;
        socket
    };
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn serve(mut sockets: Vec<Socket>, stop: &OwnedFd) {
    loop {
        let mut polled = vec![PollFd::new(stop, PollFlags::IN)];
        polled.extend(sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let mut ready = polled.iter().map(|fd| !fd.revents().is_empty());
        if ready.next() == Some(true) {
            return;
        }
        let ready: Vec<bool> = ready.collect();
        let mut accepted = Vec::new();
        let mut ready = ready.into_iter();
        sockets.retain_mut(|socket| match ready.next() {
            Some(true) => answer(socket, &mut accepted),
            _ => true,
        });
        sockets.extend(accepted);
    }
}

/// Does what a socket is ready for, and says whether it is still of use.
fn answer(socket: &mut Socket, accepted: &mut Vec<Socket>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match socket {
        Socket::Listener(listener) => {
            while let Ok((stream, _)) = listener.accept() {
                if stream.set_nodelay(true).is_ok() && stream.set_nonblocking(true).is_ok() {
                    accepted.push(Socket::Connection(stream));
                }
            }
            true
        }
        Socket::Connection(stream) => match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => stream.write_all(buffer.get(..length).unwrap_or_default()).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        },
        Socket::Datagram(socket) => {
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, peer)) => {
                        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), peer);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    // An earlier answer's ICMP error.
                    Err(_) => {}
                }
            }
        }
    }
}
