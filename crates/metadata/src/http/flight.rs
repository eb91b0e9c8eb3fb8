//! Requests that are under way side by side on one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use super::answer::{self, Answer, Limits};
use super::{Connections, Fault, Link};

/// What is read of one connection before the others have their turn, in bytes.
const TURN: usize = 64 * 1024;

/// A request on its way, and what has arrived of its answer. Has no `Debug`: both carry tokens.
pub(crate) struct Flight {
    stream: TcpStream,
    address: SocketAddr,
    request: Vec<u8>,
    sent: bool,
    received: Vec<u8>,
    ended: bool,
    limits: Limits,
    until: Instant,
    kept: bool,
}

impl Flight {
    /// Starts a request, without waiting for anything.
    pub(crate) fn start(
        link: Link,
        address: SocketAddr,
        request: Vec<u8>,
        limits: Limits,
        until: Instant,
    ) -> Result<Self, Fault> {
        let kept = matches!(link, Link::Kept(_));
        let stream = match link {
            Link::Kept(stream) => {
                stream.set_nonblocking(true).map_err(Fault::Lost)?;
                stream
            }
            Link::New => begin(address).map_err(|error| Fault::Connect(error.into()))?,
        };
        let (sent, received, ended) = (false, Vec::new(), false);
        let mut flight =
            Flight { stream, address, request, sent, received, ended, limits, until, kept };
        // On a link-local address the connection is often there by now.
        flight.send()?;
        Ok(flight)
    }

    /// Whether it travels on a connection that was kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    /// Goes on as far as it can without waiting. The answer where it is there; none where it is to
    /// be waited for. After either an answer or a fault it is over.
    pub(crate) fn advance(&mut self, connections: &Connections) -> Result<Option<Answer>, Fault> {
        if !self.sent {
            self.send()?;
        }
        if self.sent && self.receive()? {
            match answer::read_received(&self.received, self.ended, &self.limits) {
                Ok((answer, reusable)) => {
                    if reusable
                        && !self.ended
                        && self.stream.set_nonblocking(false).is_ok()
                        && let Ok(stream) = self.stream.try_clone()
                    {
                        connections.keep(stream, self.address);
                    }
                    return Ok(Some(answer));
                }
                Err(Fault::Incomplete) => {}
                Err(fault) => return Err(fault),
            }
        }
        if Instant::now() < self.until { Ok(None) } else { Err(Fault::TimedOut) }
    }

    /// What is to be waited for before it can go on…
    pub(crate) fn awaited(&self) -> PollFd<'_> {
        PollFd::new(&self.stream, if self.sent { PollFlags::IN } else { PollFlags::OUT })
    }

    /// …and until when at most.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// The connection, when it is over.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn send(&mut self) -> Result<(), Fault> {
        if let Ok(Err(error)) = sockopt::socket_error(&self.stream) {
            return Err(Fault::Connect(error.into()));
        }
        match self.stream.write(&self.request) {
            Ok(written) if written == self.request.len() => {
                self.sent = true;
                Ok(())
            }
            // Less than a packet, into an empty buffer.
            Ok(_) => Err(Fault::Lost(ErrorKind::WriteZero.into())),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
            {
                Err(Fault::Closed)
            }
            Err(error) => Err(Fault::Lost(error)),
        }
    }

    /// Whether anything new has arrived, the end included.
    fn receive(&mut self) -> Result<bool, Fault> {
        let before = self.received.len();
        let mut chunk = [0; 4096];
        while self.received.len() < before + TURN {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    self.ended = true;
                    return Ok(true);
                }
                Ok(read) => self.received.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error)
                    if error.kind() == ErrorKind::ConnectionReset && self.received.is_empty() =>
                {
                    return Err(Fault::Closed);
                }
                Err(error) => return Err(Fault::from_io(error)),
            }
        }
        Ok(self.received.len() > before)
    }
}

/// Waits until one of them can go on, or the time of one is over.
pub(crate) fn wait<'a>(flights: impl Iterator<Item = &'a Flight>) {
    let mut until: Option<Instant> = None;
    let mut polled: Vec<PollFd<'_>> = flights
        .map(|flight| {
            until = Some(until.map_or(flight.until, |until| until.min(flight.until)));
            flight.awaited()
        })
        .collect();
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Rounded up: what wakes up too early has nothing to do.
    let left = left.map(|left| left + Duration::from_micros(1));
    // Whatever goes wrong shows on the connections.
    let _ = poll(&mut polled, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
}

/// A connection that is being made.
fn begin(address: SocketAddr) -> Result<TcpStream, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}
