//! Reading one HTTP answer, completely or not at all.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Fault;
use super::connections::remaining;

/// The longest head (status line and fields) that is read, in bytes.
const MAX_HEAD: usize = 8 * 1024;
/// The most fields in a head.
const MAX_FIELDS: usize = 64;
/// The longest line between chunks, in bytes.
const MAX_CHUNK_LINE: usize = 256;
/// The most trailer fields after the last chunk.
const MAX_TRAILERS: usize = 16;
/// Bodies of errors up to this size are read, and not looked at, to keep the connection.
const MAX_DRAINED: u64 = 4 * 1024;
/// How long such a body is waited for.
const DRAIN_WAIT: Duration = Duration::from_millis(50);

/// What an answer may be at most.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Size of the body, in bytes.
    pub(crate) body: usize,
    /// The field that the caller wants to see.
    pub(crate) field: Option<&'static str>,
}

/// An answer that was read completely. Has no `Debug`: the body may be a token.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body of a 200; empty for every other status.
    pub(crate) body: Vec<u8>,
    /// The value of the wanted field.
    pub(crate) field: Option<String>,
}

struct Head {
    status: u16,
    framing: Framing,
    keep: bool,
    field: Option<String>,
    length: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    /// Until the connection closes, so that a part looks like the whole.
    Unknown,
}

/// Reads an answer, and says whether the connection can carry another request.
pub(crate) fn read(
    stream: &TcpStream,
    limits: &Limits,
    deadline: Instant,
) -> Result<(Answer, bool), Fault> {
    read_from(Source::Stream { stream, deadline }, limits)
}

/// Reads an answer from what has arrived so far, which may be followed by more unless the peer has
/// `ended` it. [`Fault::Incomplete`] where more is needed.
pub(crate) fn read_received(
    bytes: &[u8],
    ended: bool,
    limits: &Limits,
) -> Result<(Answer, bool), Fault> {
    read_from(Source::Received { bytes, ended }, limits)
}

fn read_from(source: Source<'_>, limits: &Limits) -> Result<(Answer, bool), Fault> {
    let mut wire = Wire { source, bytes: Vec::new(), begun: false, consumed: 0 };
    let head = loop {
        wire.fill()?;
        if let Some(head) = parse_head(&wire.bytes, limits.field)? {
            break head;
        }
        if wire.bytes.len() >= MAX_HEAD {
            return Err(Fault::Malformed("the head of the answer is too large"));
        }
    };
    wire.consumed = head.length;
    let mut body = Vec::new();
    let complete = if head.status == 200 {
        match head.framing {
            Framing::Length(length) => wire.body(length, limits.body, &mut body)?,
            Framing::Chunked => wire.chunks(limits.body, &mut body)?,
            Framing::Unknown => {
                return Err(Fault::Malformed("the answer does not say how long it is"));
            }
        }
        true
    } else {
        // The status is the answer. What follows is read only for the connection's sake.
        if let Source::Stream { deadline, .. } = &mut wire.source {
            *deadline = (*deadline).min(Instant::now() + DRAIN_WAIT);
        }
        match head.framing {
            Framing::Length(length) if head.keep && length <= MAX_DRAINED => {
                let drained = wire.body(length, limits.body, &mut body).is_ok();
                body = Vec::new();
                drained
            }
            _ => false,
        }
    };
    let reusable = complete && head.keep && wire.consumed == wire.bytes.len();
    Ok((Answer { status: head.status, body, field: head.field }, reusable))
}

fn parse_head(bytes: &[u8], wanted: Option<&str>) -> Result<Option<Head>, Fault> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Fault::Malformed("the answer is not HTTP")),
    };
    let status = response.code.unwrap_or(0);
    // 1xx announces another answer, which no metadata service does.
    if !(200..600).contains(&status) {
        return Err(Fault::Malformed("the answer has an impossible status"));
    }
    let modern = response.version == Some(1);
    let mut keep = modern;
    let mut content_length: Option<u64> = None;
    let mut chunked = false;
    let mut field = None;
    for header in response.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = parse_length(value)?;
            if content_length.is_some_and(|other| other != length) {
                return Err(Fault::Malformed("the answer has two lengths"));
            }
            content_length = Some(length);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || chunked || !modern {
                return Err(Fault::Malformed("the answer has an unknown transfer coding"));
            }
            chunked = true;
        } else if header.name.eq_ignore_ascii_case("content-encoding") {
            if !value.eq_ignore_ascii_case(b"identity") {
                return Err(Fault::Malformed("the answer has a content coding"));
            }
        } else if header.name.eq_ignore_ascii_case("connection") {
            for option in value.split(|byte| *byte == b',') {
                let option = option.trim_ascii();
                if option.eq_ignore_ascii_case(b"close") {
                    keep = false;
                }
            }
        } else if wanted.is_some_and(|wanted| header.name.eq_ignore_ascii_case(wanted)) {
            field = std::str::from_utf8(value).ok().map(str::to_owned);
        }
    }
    let framing = match (content_length, chunked) {
        // RFC 9112, section 6.1: a sign of request smuggling.
        (Some(_), true) => return Err(Fault::Malformed("the answer has a length and chunks")),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (None, false) => Framing::Unknown,
    };
    Ok(Some(Head { status, framing, keep, field, length }))
}

fn parse_length(value: &[u8]) -> Result<u64, Fault> {
    let error = Fault::Malformed("the answer has an impossible length");
    if value.is_empty() || value.len() > 18 {
        return Err(error);
    }
    let mut length = 0;
    for byte in value {
        match byte {
            b'0'..=b'9' => length = length * 10 + u64::from(byte - b'0'),
            _ => return Err(error),
        }
    }
    Ok(length)
}

fn parse_chunk_size(line: &[u8]) -> Result<u64, Fault> {
    let error = Fault::Malformed("the answer has an impossible chunk size");
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 {
        return Err(error);
    }
    let mut size = 0;
    for byte in digits {
        match char::from(*byte).to_digit(16) {
            Some(digit) => size = size * 16 + u64::from(digit),
            None => return Err(error),
        }
    }
    Ok(size)
}

/// Where the bytes of an answer come from.
enum Source<'a> {
    /// A connection, which is waited for.
    Stream { stream: &'a TcpStream, deadline: Instant },
    /// What has arrived, and whether it is all.
    Received { bytes: &'a [u8], ended: bool },
}

impl Source<'_> {
    /// At least one more byte; none at the end.
    fn read(&mut self, chunk: &mut [u8]) -> Result<usize, ReadError> {
        match self {
            Source::Stream { stream, deadline } => {
                // Set anew each time: the deadline holds for the answer, not for each byte of it.
                let left = remaining(*deadline).map_err(ReadError::Fault)?;
                let timeout = stream.set_read_timeout(Some(left));
                timeout.map_err(|error| ReadError::Fault(Fault::Lost(error)))?;
                stream.read(chunk).map_err(ReadError::Io)
            }
            Source::Received { bytes: [], ended: false } => {
                Err(ReadError::Fault(Fault::Incomplete))
            }
            Source::Received { bytes, .. } => bytes.read(chunk).map_err(ReadError::Io),
        }
    }
}

enum ReadError {
    Io(std::io::Error),
    Fault(Fault),
}

/// What has arrived, and how far it has been understood.
struct Wire<'a> {
    source: Source<'a>,
    bytes: Vec<u8>,
    /// Whether one byte of the answer has arrived.
    begun: bool,
    consumed: usize,
}

impl Wire<'_> {
    /// Waits for at least one more byte.
    fn fill(&mut self) -> Result<(), Fault> {
        let mut chunk = [0; 4096];
        let read = loop {
            match self.source.read(&mut chunk) {
                Ok(read) => break read,
                Err(ReadError::Io(error)) if error.kind() == ErrorKind::Interrupted => {}
                Err(ReadError::Io(error))
                    if error.kind() == ErrorKind::ConnectionReset && !self.begun =>
                {
                    return Err(Fault::Closed);
                }
                Err(ReadError::Io(error)) => return Err(Fault::from_io(error)),
                Err(ReadError::Fault(fault)) => return Err(fault),
            }
        };
        match chunk.get(..read) {
            Some([]) | None if !self.begun => Err(Fault::Closed),
            Some([]) | None => Err(Fault::Malformed("the answer is truncated")),
            Some(bytes) => {
                self.begun = true;
                self.bytes.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Moves `length` bytes into `body`, which may hold at most `limit`.
    fn body(&mut self, length: u64, limit: usize, body: &mut Vec<u8>) -> Result<(), Fault> {
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= limit.saturating_sub(body.len()))
            .ok_or(Fault::Malformed("the answer is too large"))?;
        let end = self.consumed + length;
        while self.bytes.len() < end {
            self.fill()?;
        }
        body.extend_from_slice(self.bytes.get(self.consumed..end).unwrap_or_default());
        self.consumed = end;
        Ok(())
    }

    /// Moves all chunks into `body`: RFC 9112, section 7.1.
    fn chunks(&mut self, limit: usize, body: &mut Vec<u8>) -> Result<(), Fault> {
        loop {
            let size = parse_chunk_size(&self.line()?)?;
            if size == 0 {
                break;
            }
            self.body(size, limit, body)?;
            if !self.line()?.is_empty() {
                return Err(Fault::Malformed("the answer has a broken chunk"));
            }
            // What was moved is not kept twice.
            self.bytes.drain(..self.consumed);
            self.consumed = 0;
        }
        for _ in 0..=MAX_TRAILERS {
            if self.line()?.is_empty() {
                return Ok(());
            }
        }
        Err(Fault::Malformed("the answer has too many trailers"))
    }

    /// The next line without its CR LF.
    fn line(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            let rest = self.bytes.get(self.consumed..).unwrap_or_default();
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
                let line = rest.get(..end).unwrap_or_default().to_vec();
                self.consumed += end + 2;
                return Ok(line);
            }
            if rest.len() > MAX_CHUNK_LINE {
                return Err(Fault::Malformed("the answer has a line that is too long"));
            }
            self.fill()?;
        }
    }
}
