//! One thin synchronous rtnetlink socket: batches and dumps.

use netlink_packet_core::Emitable;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::Result;
use crate::wire::{
    self, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_HEADER_LEN, NLMSG_NOOP, NLMSG_OVERRUN,
};
use crate::{Error, Namespace, Refusal};

/// Messages in one send. The kernel answers at most 256 acknowledged messages of one send before
/// it says ENOBUFS (seen on Linux 6.18); this stays well below.
pub const CHUNK: usize = 200;

/// Octets in one send, well under the socket's send buffer.
const CHUNK_OCTETS: usize = 64 * 1024;

/// The kernel fills dump answers up to 32 KiB.
const RECEIVE_OCTETS: usize = 32 * 1024;

/// A list that changes while it is read is read again, so often.
const DUMP_TRIES: u32 = 10;

/// One rtnetlink request that is answered by an acknowledgement. Made by the methods of what it is
/// about, for example [`crate::Route::add`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn new(kind: u16, flags: u16, body: &impl Emitable) -> Self {
        let mut bytes = vec![0; body.buffer_len()];
        body.emit(&mut bytes);
        Request { kind, flags, body: bytes }
    }

    pub(crate) fn raw(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        Request { kind, flags, body }
    }

    fn write(&self, sequence: u32, flags: u16, out: &mut Vec<u8>) {
        let length = NLMSG_HEADER_LEN + self.body.len();
        // A message is far smaller than 4 GiB: it is built from bounded attributes.
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&0u32.to_ne_bytes());
        out.extend_from_slice(&self.body);
        out.resize(out.len() + wire::aligned(length) - length, 0);
    }
}

/// A socket that speaks rtnetlink to the kernel, for the network namespace in which it was opened,
/// wherever the thread that uses it moves later.
pub struct Rtnetlink {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
    writes: u64,
}

impl Rtnetlink {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// Where the kernel has no rtnetlink socket left to give.
    pub fn open() -> Result<Self> {
        Self::of_protocol(NETLINK_ROUTE)
    }

    /// A socket that speaks another protocol of netlink, of which batches are no part.
    pub(crate) fn of_protocol(protocol: isize) -> Result<Self> {
        let failed = |error| Error::system("open a netlink socket", error);
        let mut socket = Socket::new(protocol).map_err(failed)?;
        let port = socket.bind_auto().map_err(failed)?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed)?;
        // Short acknowledgements with the kernel's explanation; dumps that the kernel filters, and
        // that it refuses rather than answers unfiltered.
        socket.set_cap_ack(true).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_netlink_get_strict_chk(true).map_err(failed)?;
        // A chunk's acknowledgements and the largest dump message fit many times over.
        socket.set_rx_buf_sz(1_048_576_i32).map_err(failed)?;
        Ok(Rtnetlink { socket, port, sequence: 0, buffer: Vec::new(), writes: 0 })
    }

    /// Opens a socket in another namespace.
    ///
    /// # Errors
    /// As [`Rtnetlink::open`], and where the namespace cannot be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Self> {
        namespace.run(Self::open)?
    }

    /// The socket's port: notifications of changes that were made through it carry this number.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// How many requests that write were sent through this socket so far.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Sends the requests in order, in chunks, and returns each one's answer at its position. The
    /// kernel goes on after a request that it refuses.
    ///
    /// # Errors
    /// Where the conversation itself failed; how many of the requests took effect is then unknown.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Result<(), Refusal>>> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests;
        while !rest.is_empty() {
            let mut bytes = Vec::new();
            let mut count = 0;
            let first = self.sequence.wrapping_add(1);
            for request in rest.iter().take(CHUNK) {
                if count > 0 && bytes.len() + request.body.len() > CHUNK_OCTETS {
                    break;
                }
                self.sequence = self.sequence.wrapping_add(1);
                request.write(self.sequence, NLM_F_ACK, &mut bytes);
                count += 1;
            }
            self.send(&bytes)?;
            self.writes += count as u64;
            answers.extend(self.acknowledgements(first, count)?);
            rest = rest.get(count..).unwrap_or_default();
        }
        Ok(answers)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// [`Error::Refused`] with `attempt` where the kernel says no.
    pub fn request(&mut self, attempt: impl Into<String>, request: Request) -> Result<()> {
        match self.batch(std::slice::from_ref(&request))?.into_iter().next() {
            Some(Err(refusal)) => Err(Error::Refused { attempt: attempt.into(), refusal }),
            _ => Ok(()),
        }
    }

    /// Asks for one object: the first answer that `read` understands, or the kernel's 'no'.
    pub(crate) fn get<T>(
        &mut self,
        what: &str,
        request: &Request,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Result<T, Refusal>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        request.write(self.sequence, 0, &mut bytes);
        self.send(&bytes)?;
        loop {
            self.receive()?;
            for message in wire::messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.kind != NLMSG_ERROR {
                    let object = read(&message);
                    return object.map(Ok).ok_or_else(|| malformed(what, "it makes no sense"));
                }
                return match wire::acknowledgement(&message) {
                    Some((0, _)) => Err(malformed(what, "it is empty")),
                    Some((errno, message)) => Ok(Err(Refusal { errno, message })),
                    None => Err(malformed(what, "an acknowledgement is cut short")),
                };
            }
        }
    }

    fn acknowledgements(&mut self, first: u32, count: usize) -> Result<Vec<Result<(), Refusal>>> {
        let mut answers: Vec<Option<Result<(), Refusal>>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            self.receive()?;
            for message in wire::messages(&self.buffer) {
                if message.kind == NLMSG_OVERRUN {
                    return Err(malformed("batch", "the kernel reports an overrun"));
                }
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                let Some((errno, text)) = wire::acknowledgement(&message) else {
                    return Err(malformed("batch", "an acknowledgement is cut short"));
                };
                let position = message.sequence.wrapping_sub(first) as usize;
                // An answer to an earlier conversation that was given up is not ours to count.
                if let Some(slot @ None) = answers.get_mut(position) {
                    *slot = Some(match errno {
                        0 => Ok(()),
                        errno => Err(Refusal { errno, message: text }),
                    });
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Sends messages that take effect together or not at all, and their `end`. Of a message that
    /// is refused the kernel tells, whether it was asked or not.
    pub(crate) fn transaction(
        &mut self,
        messages: &[Request],
        end: &Request,
    ) -> Result<Result<(), Refusal>> {
        let mut bytes = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let last = number + 1 == messages.len();
            message.write(self.sequence, if last { NLM_F_ACK } else { 0 }, &mut bytes);
        }
        let last = self.sequence;
        let first = last.wrapping_sub(messages.len() as u32);
        self.sequence = self.sequence.wrapping_add(1);
        end.write(self.sequence, 0, &mut bytes);
        self.send(&bytes)?;
        self.writes += 1;
        loop {
            self.receive()?;
            for message in wire::messages(&self.buffer) {
                if message.kind != NLMSG_ERROR
                    || message.sequence.wrapping_sub(first) > messages.len() as u32 + 1
                {
                    continue;
                }
                match wire::acknowledgement(&message) {
                    None => return Err(malformed("transaction", "an answer is cut short")),
                    Some((0, _)) if message.sequence == last => return Ok(Ok(())),
                    Some((0, _)) => {}
                    Some((errno, text)) => return Ok(Err(Refusal { errno, message: text })),
                }
            }
        }
    }

    /// Lists objects: sends `request` as a dump and gives every answer's payload to `read`. When
    /// the kernel says that the list changed under the dump, it is read again from the start, so
    /// `read` must collect into what [`Rtnetlink::dump`] hands it.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        request: &Request,
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            request.write(self.sequence, NLM_F_DUMP, &mut bytes);
            self.send(&bytes)?;
            if let Some(list) = self.dump_answers(what, &mut read)? {
                return Ok(list);
            }
        }
        Err(Error::Unsettled { what, tries: DUMP_TRIES })
    }

    /// `None`: interrupted by a change.
    fn dump_answers<T>(
        &mut self,
        what: &'static str,
        read: &mut impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let mut list = Vec::new();
        let mut interrupted = false;
        loop {
            self.receive()?;
            for message in wire::messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                let (errno, text) = match message.kind {
                    NLMSG_NOOP => continue,
                    NLMSG_DONE => match wire::dump_end(&message) {
                        (0, _) => return Ok((!interrupted).then_some(list)),
                        failure => failure,
                    },
                    NLMSG_ERROR => match wire::acknowledgement(&message) {
                        Some((0, _)) => continue,
                        Some(failure) => failure,
                        None => return Err(malformed(what, "an acknowledgement is cut short")),
                    },
                    _ => {
                        list.extend(read(&message));
                        continue;
                    }
                };
                // What a filter names and the kernel does not have is an empty list: a table that
                // was never used (IPv4 says ENOENT), a device that just went.
                let refusal = Refusal { errno, message: text };
                if refusal.already_gone() {
                    return Ok(Some(Vec::new()));
                }
                return Err(Error::Refused { attempt: format!("list {what}"), refusal });
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("send to the kernel", error)),
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(RECEIVE_OCTETS);
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("receive from the kernel", error)),
            }
        }
    }
}

fn malformed(attempt: &str, reason: &str) -> Error {
    Error::Malformed { attempt: attempt.to_owned(), reason: reason.to_owned() }
}
