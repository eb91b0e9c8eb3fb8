//! Traffic: who reaches whom by which source, what a stream loses, when the first answer comes.

mod echo;
mod first_answer;
mod stream;

pub use echo::Echo;
pub use first_answer::FirstAnswers;
pub use stream::{PacketStream, StreamReport};

use crate::error::Result;
use crate::host::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One datagram there and back; sent again every 200 ms.
    Udp,
    /// A connection, one message there and back.
    Tcp,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Udp, Self::Tcp];
}

/// Why there was no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// The host could not be entered.
    Host(String),
    /// The source address cannot be used there.
    Source(ErrorKind),
    /// An error came instead: no route, refused, reset.
    Failed(ErrorKind),
    /// Nothing came in time.
    NoAnswer,
    /// Something else came than was asked for.
    WrongAnswer,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => f.write_str(error),
            Self::Source(kind) => write!(f, "the source address cannot be used: {kind}"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::WrongAnswer => f.write_str("a wrong answer"),
        }
    }
}

impl std::error::Error for ProbeError {}

impl From<io::Error> for ProbeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::NoAnswer,
            kind => Self::Failed(kind),
        }
    }
}

impl From<rustix::io::Errno> for ProbeError {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

const MESSAGE: &[u8] = b"is this line plugged in?";
const AGAIN: Duration = Duration::from_millis(200);

/// Asks an [`Echo`] from a host, bound to a source address where one is given, and says how long
/// the answer took.
///
/// # Errors
///
/// Where none came in time, or something else did.
pub fn probe(
    from: &Host,
    source: Option<IpAddr>,
    to: SocketAddr,
    transport: Transport,
    timeout: Duration,
) -> Result<Duration, ProbeError> {
    let kind = match transport {
        Transport::Udp => SocketType::DGRAM,
        Transport::Tcp => SocketType::STREAM,
    };
    let began = Instant::now();
    let opened = from.run(|| open(source, to.ip(), kind));
    let socket = opened.map_err(|error| ProbeError::Host(error.to_string()))??;
    let deadline = began + timeout;
    match transport {
        Transport::Udp => ask_by_datagram(UdpSocket::from(socket), to, deadline)?,
        Transport::Tcp => ask_by_connection(socket, to, deadline)?,
    }
    Ok(began.elapsed())
}

/// A socket that does not block, bound where a source is given.
fn open(source: Option<IpAddr>, to: IpAddr, kind: SocketType) -> Result<OwnedFd, ProbeError> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::new(source, 0))
            .map_err(|error| ProbeError::Source(io::Error::from(error).kind()))?;
    }
    Ok(socket)
}

fn ask_by_datagram(socket: UdpSocket, to: SocketAddr, end: Instant) -> Result<(), ProbeError> {
    socket.connect(to)?;
    let mut answer = [0; 64];
    while Instant::now() < end {
        socket.send(MESSAGE)?;
        if is_ready(&socket, PollFlags::IN, end.min(Instant::now() + AGAIN))? {
            let length = socket.recv(&mut answer)?;
            return check(answer.get(..length));
        }
    }
    Err(ProbeError::NoAnswer)
}

fn ask_by_connection(socket: OwnedFd, to: SocketAddr, end: Instant) -> Result<(), ProbeError> {
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    if !is_ready(&socket, PollFlags::OUT, end)? {
        return Err(ProbeError::NoAnswer);
    }
    sockopt::socket_error(&socket)??;
    let mut stream = TcpStream::from(socket);
    stream.write_all(MESSAGE)?;
    let mut answer = Vec::new();
    while answer.len() < MESSAGE.len() {
        if !is_ready(&stream, PollFlags::IN, end)? {
            return Err(ProbeError::NoAnswer);
        }
        let mut part = [0; 64];
        let length = stream.read(&mut part)?;
        if length == 0 {
            return Err(ProbeError::Failed(ErrorKind::UnexpectedEof));
        }
        answer.extend_from_slice(part.get(..length).unwrap_or_default());
    }
    check(Some(&answer))
}

fn check(answer: Option<&[u8]>) -> Result<(), ProbeError> {
    if answer == Some(MESSAGE) { Ok(()) } else { Err(ProbeError::WrongAnswer) }
}

/// Waits until a socket is ready or the time has come, and says which.
fn is_ready(
    socket: &impl std::os::fd::AsFd,
    what: PollFlags,
    until: Instant,
) -> rustix::io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(socket, what)], timeout.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives a socket room for all that comes while its thread is not let run, as on a busy machine:
/// what is lost there was not lost on the way.
fn make_room(socket: &OwnedFd) {
    const ROOM: usize = 8 << 20;
    if sockopt::set_socket_recv_buffer_size_force(socket, ROOM).is_err() {
        // In a user namespace: as much as the machine gives everybody.
        let _ = sockopt::set_socket_recv_buffer_size(socket, ROOM);
    }
}

/// Sends without waiting; an error is as good as a packet that was lost.
fn try_send(socket: &OwnedFd, bytes: &[u8], to: SocketAddr) -> bool {
    rustix::net::sendto(socket, bytes, SendFlags::empty(), &to).is_ok()
}
