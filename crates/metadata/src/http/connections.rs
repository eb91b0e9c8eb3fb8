//! Connections to the service: made within a deadline, kept where the service keeps them.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Fault;
use super::answer::{self, Answer, Limits};

/// How long an unused connection is kept, so that a refresh after 30 s can still use it. Nothing
/// wakes up to close it: it is looked at when the next one is wanted.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Idle connections, last used last, and those that are to be closed.
#[derive(Debug)]
pub(crate) struct Connections {
    idle: Mutex<Vec<Idle>>,
    over: Mutex<Vec<TcpStream>>,
    most: usize,
}

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    address: SocketAddr,
    since: Instant,
}

/// What a request will travel on.
pub(crate) enum Link {
    /// A connection that was kept.
    Kept(TcpStream),
    /// One that is still to be made.
    New,
}

impl Connections {
    /// Keeps at most `most` connections.
    pub(crate) fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), over: Mutex::default(), most }
    }

    /// A kept connection that still looks open, or else a new one to be made.
    pub(crate) fn link(&self, address: SocketAddr) -> Link {
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|kept| kept.since.elapsed() < KEPT_FOR);
            let Some(at) = idle.iter().rposition(|kept| kept.address == address) else {
                return Link::New;
            };
            let kept = idle.remove(at);
            drop(idle);
            if is_quiet(&kept.stream) {
                return Link::Kept(kept.stream);
            }
        }
    }

    /// Takes back a link that was not used.
    pub(crate) fn unused(&self, link: Link, address: SocketAddr) {
        if let Link::Kept(stream) = link {
            self.keep(stream, address);
        }
    }

    /// Sends one request and reads its answer.
    pub(crate) fn exchange(
        &self,
        link: Link,
        address: SocketAddr,
        request: &[u8],
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Answer, Fault> {
        let stream = match link {
            Link::Kept(stream) => stream,
            Link::New => connect(address, deadline)?,
        };
        stream.set_write_timeout(Some(remaining(deadline)?)).map_err(Fault::Lost)?;
        (&stream).write_all(request).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Fault::Closed,
            _ => Fault::from_io(error),
        })?;
        let (answer, reusable) = answer::read(&stream, limits, deadline)?;
        if reusable {
            self.keep(stream, address);
        }
        Ok(answer)
    }

    /// Takes what is to be closed when there is time, as many as may be kept: more are closed at
    /// once…
    pub(crate) fn end(&self, stream: TcpStream) {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if over.len() < self.most {
            over.push(stream);
        }
    }

    /// …which is now.
    pub(crate) fn hang_up(&self) {
        let over = std::mem::take(&mut *self.over.lock().unwrap_or_else(PoisonError::into_inner));
        drop(over);
    }

    /// Keeps a connection on which nothing is under way.
    pub(super) fn keep(&self, stream: TcpStream, address: SocketAddr) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most {
            idle.push(Idle { stream, address, since: Instant::now() });
        }
    }
}

/// The time left, which is never zero.
pub(super) fn remaining(deadline: Instant) -> Result<Duration, Fault> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left),
        _ => Err(Fault::TimedOut),
    }
}

fn connect(address: SocketAddr, deadline: Instant) -> Result<TcpStream, Fault> {
    let stream =
        TcpStream::connect_timeout(&address, remaining(deadline)?).map_err(|error| match error
            .kind()
        {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Fault::TimedOut,
            _ => Fault::Connect(error),
        })?;
    stream.set_nodelay(true).map_err(Fault::Connect)?;
    Ok(stream)
}

/// Whether nothing has arrived on an idle connection: neither its end nor bytes nobody asked for.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let quiet = stream.set_nonblocking(true).is_ok()
        && matches!(stream.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock);
    quiet && stream.set_nonblocking(false).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_over_is_closed_when_there_is_time_but_for_what_is_too_much() {
        let service = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let stream = TcpStream::connect(service.local_addr().unwrap()).unwrap();
            (stream, service.accept().unwrap().0)
        };
        let ((first, mut end_of_first), (second, mut end_of_second)) = (connect(), connect());
        let connections = Connections::new(1);
        connections.end(first);
        connections.end(second);
        assert_eq!(end_of_second.read(&mut [0]).unwrap(), 0);
        end_of_first.set_nonblocking(true).unwrap();
        let before = end_of_first.read(&mut [0]).unwrap_err();
        assert_eq!(before.kind(), ErrorKind::WouldBlock);
        connections.hang_up();
        end_of_first.set_nonblocking(false).unwrap();
        assert_eq!(end_of_first.read(&mut [0]).unwrap(), 0);
    }
}
