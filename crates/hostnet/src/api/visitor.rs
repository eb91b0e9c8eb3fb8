//! One connection: what comes in, what goes out, and when it has taken long enough.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::sockets::Speaks;
use super::{Reply, Request, http, varlink};

/// The longest request.
const LONGEST: usize = 16 * 1024;
/// What is read at once…
const CHUNK: usize = 4 * 1024;
/// …and so often before others have their turn.
const CHUNKS: usize = 4;
/// How long a request may take to come, or an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may stay without a request.
const IDLE: Duration = Duration::from_secs(300);
/// How long what comes after the last answer is taken and thrown away: a connection that is closed with
/// something unread loses the answer.
const LINGERING: Duration = Duration::from_secs(1);

/// Whether a connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Stays,
    Goes,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Visitor {
    socket: OwnedFd,
    pub(super) speaks: Speaks,
    /// Whether it may ask.
    pub(super) admitted: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// What waits for the agent's answer.
    request: Option<Pending>,
    /// Nothing is listened to after the answer.
    last: bool,
    /// The last answer was taken.
    lingering: bool,
    came: Instant,
    /// When it last got anywhere.
    pub(super) active: Instant,
}

#[derive(Debug)]
struct Pending {
    request: Request,
    /// Nobody waits for the answer, or for the body of it.
    without: bool,
}

impl Visitor {
    pub(super) fn new(socket: OwnedFd, speaks: Speaks, admitted: bool, now: Instant) -> Self {
        Visitor {
            socket,
            speaks,
            admitted,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            request: None,
            last: false,
            lingering: false,
            came: now,
            active: now,
        }
    }

    /// What is to be waited for before it gets anywhere, where nothing is asked of the agent.
    pub(super) fn awaits(&self) -> PollFlags {
        match self.output.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::OUT,
        }
    }

    /// When it has taken too long.
    pub(super) fn until(&self) -> Instant {
        let is_idle = self.input.is_empty() && self.output.is_empty() && self.request.is_none();
        match (self.lingering, self.speaks) {
            (true, _) => self.active + LINGERING,
            (false, Speaks::Http) => self.came + PATIENCE,
            (false, Speaks::Varlink) if is_idle && self.admitted => self.active + IDLE,
            (false, Speaks::Varlink) => self.active + PATIENCE,
        }
    }

    /// What the agent is asked.
    pub(super) fn request(&self) -> Option<&Request> {
        self.request.as_ref().map(|pending| &pending.request)
    }

    /// Answers what was asked.
    pub(super) fn answer(&mut self, reply: &Reply) {
        let Some(Pending { without, .. }) = self.request.take() else { return };
        match self.speaks {
            Speaks::Varlink if without => {}
            Speaks::Varlink => self.say(varlink::answer(reply)),
            Speaks::Http => {
                self.last = true;
                self.say(match reply {
                    Reply::Metrics(text) => http::metrics(text, without),
                    Reply::Error(_, text) => http::unavailable(text),
                    Reply::Object(_) => Vec::new(),
                });
            }
        }
    }

    fn say(&mut self, message: Vec<u8>) {
        self.output = message;
        self.sent = 0;
    }

    /// Sends, reads and understands as much as is possible without waiting, up to what only the agent can
    /// answer.
    pub(super) fn advance(&mut self, now: Instant) -> Fate {
        let mut chunks = 0;
        loop {
            if !self.output.is_empty() {
                match self.send(now) {
                    Ok(true) => continue,
                    Ok(false) => return Fate::Stays,
                    Err(()) => return Fate::Goes,
                }
            }
            if self.request.is_some() {
                return Fate::Stays;
            }
            if !self.lingering && self.understand() {
                continue;
            }
            if chunks == CHUNKS {
                return Fate::Stays;
            }
            chunks += 1;
            match self.receive(now) {
                Ok(true) => {}
                Ok(false) => return Fate::Stays,
                Err(()) => return Fate::Goes,
            }
        }
    }

    /// Whether something was sent; an error where nobody takes it any more.
    fn send(&mut self, now: Instant) -> Result<bool, ()> {
        let rest = self.output.get(self.sent..).unwrap_or_default();
        match send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => self.sent += count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(_) => return Err(()),
        }
        self.active = now;
        if self.sent >= self.output.len() {
            (self.output, self.sent) = (Vec::new(), 0);
            if self.last {
                self.lingering = true;
                self.input = Vec::new();
                shutdown(&self.socket, Shutdown::Write).map_err(|_| ())?;
            }
        }
        Ok(true)
    }

    /// Whether something came; an error where nothing more will.
    fn receive(&mut self, now: Instant) -> Result<bool, ()> {
        let mut chunk = [0; CHUNK];
        let count = match recv(&self.socket, &mut chunk[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return Err(()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
            Err(_) => return Err(()),
        };
        if !self.lingering {
            self.active = now;
            self.input.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
        Ok(true)
    }

    /// Whether what came so far leads to an answer or to a request.
    fn understand(&mut self) -> bool {
        if self.input.is_empty() {
            return false;
        }
        match self.speaks {
            Speaks::Varlink => self.understand_varlink(),
            Speaks::Http => self.understand_http(),
        }
    }

    fn understand_varlink(&mut self) -> bool {
        let Some(end) = self.input.iter().position(|octet| *octet == varlink::END) else {
            return self.is_too_long(varlink::too_long);
        };
        let rest = self.input.split_off(end + 1);
        let mut message = std::mem::replace(&mut self.input, rest);
        message.pop();
        if !self.admitted {
            self.last = true;
            self.say(varlink::denied());
            return true;
        }
        match varlink::understand(&message) {
            varlink::Understood::Request { request, oneway } => {
                self.request = Some(Pending { request, without: oneway });
            }
            varlink::Understood::Answer(answer) => self.say(answer.unwrap_or_default()),
            varlink::Understood::Garbage(answer) => {
                self.last = true;
                self.say(answer);
            }
        }
        true
    }

    fn understand_http(&mut self) -> bool {
        match http::understand(&self.input) {
            http::Understood::Incomplete => return self.is_too_long(http::too_long),
            http::Understood::Metrics { head } => {
                self.request = Some(Pending { request: Request::Metrics, without: head });
            }
            http::Understood::Answer(answer) => {
                self.last = true;
                self.say(answer);
            }
        }
        self.input = Vec::new();
        true
    }

    fn is_too_long(&mut self, answer: fn() -> Vec<u8>) -> bool {
        let is = self.input.len() > LONGEST;
        if is {
            self.last = true;
            self.say(answer());
        }
        is
    }
}

#[cfg(test)]
impl Visitor {
    /// How many octets it holds.
    pub(super) fn holds(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }
}

impl AsFd for Visitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
