//! One connection: requests read, answers written, faults played.

use super::answer::{self, Answer, Request};
use super::cloud::Connections;
use super::fault::{Asked, Effect, Strike};
use super::server::Control;
use super::{Cloud, ConnectionUse, RequestRecord};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// The longest head of a request that is read.
const LONGEST_HEAD: usize = 16 * 1024;
const MOST_HEADERS: usize = 32;
const CHUNK: usize = 4096;

pub(super) struct Connection<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) cloud: &'a Cloud,
    pub(super) control: &'a Control,
}

/// A request with what concerns its connection.
struct Incoming {
    request: Request,
    /// Whether the client wants the connection closed.
    close: bool,
    /// The bytes of head and body together.
    length: usize,
}

/// What is to be done with a request.
struct Verdict {
    answer: Answer,
    strike: Strike,
    close: bool,
    announce: bool,
}

impl Connection<'_> {
    /// Serves until either side closes.
    pub(super) fn serve(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)?;
        let mut buffer = Vec::with_capacity(1024);
        let mut answered = 0;
        loop {
            let Some(incoming) = self.read(&mut buffer)? else { return Ok(()) };
            buffer.drain(..incoming.length.min(buffer.len()));
            let verdict = self.decide(&incoming, answered)?;
            answered += 1;
            if self.respond(&verdict)?.is_closed() || verdict.close {
                return Ok(());
            }
        }
    }

    /// Reads one request into the buffer; none where the client is done.
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Incoming>> {
        let mut chunk = [0; CHUNK];
        let mut stream = self.stream;
        loop {
            if let Some(incoming) = parse(buffer)? {
                if buffer.len() >= incoming.length {
                    return Ok(Some(incoming));
                }
            } else if buffer.len() > LONGEST_HEAD {
                return Ok(None);
            }
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Ok(None);
            }
            buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
    }

    /// Decides on the answer and logs the request, under one lock.
    fn decide(&self, incoming: &Incoming, answered: u64) -> io::Result<Verdict> {
        let (peer, local) = (self.stream.peer_addr()?, self.stream.local_addr()?);
        let request = &incoming.request;
        let now = Instant::now();
        let mut state = self.cloud.state();
        let instance = state.instance_of(peer.ip()).map(str::to_owned);
        let asked =
            Asked { method: &request.method, path: &request.path, instance: instance.as_deref() };
        let strike = state.faults.strike(&asked, now);
        let token = answer::token_kind(&state, request, instance.as_deref(), now);
        let answer = match &strike.effect {
            Some(Effect::Status(status)) => Answer::of_status(*status),
            Some(Effect::Body(body)) => Answer::of_body(body.clone()),
            Some(Effect::GarbageBody) => Answer::of_body(garbage()),
            Some(Effect::Oversize(_) | Effect::EndlessLines | Effect::EndlessLine) => {
                Answer::of_status(200)
            }
            _ => answer::answer(&mut state, request, instance.as_deref(), now),
        };
        let (close, announce) = match state.connections {
            Connections::Closed => (true, true),
            Connections::Kept => (incoming.close, incoming.close),
            Connections::ClosedUnannounced(most) => {
                (incoming.close || answered + 1 >= most, incoming.close)
            }
        };
        let status = strike.effect.as_ref().and_then(Effect::status);
        let record = RequestRecord {
            at: now,
            instance,
            peer,
            local,
            method: request.method.clone(),
            path: request.path.clone(),
            status: status.unwrap_or(Some(answer.status)),
            token,
            connection: if answered == 0 { ConnectionUse::New } else { ConnectionUse::Reused },
            faulty: strike != Strike::default(),
        };
        self.cloud.record(&mut state, record);
        Ok(Verdict { answer, strike, close, announce })
    }

    fn respond(&self, verdict: &Verdict) -> io::Result<Fate> {
        let Verdict { answer, strike, announce, .. } = verdict;
        self.control.sleep(strike.delay)?;
        let body = answer.body.as_slice();
        let whole = answer.head(Some(body.len() as u64), *announce);
        let mut stream = self.stream;
        match &strike.effect {
            None
            | Some(Effect::Delay(_) | Effect::Status(_) | Effect::Body(_) | Effect::GarbageBody) => {
                stream.write_all(&[whole.as_bytes(), body].concat())?;
                return Ok(Fate::Open);
            }
            Some(Effect::Drip(pause)) => {
                self.drip(&[whole.as_bytes(), body].concat(), *pause)?;
                return Ok(Fate::Open);
            }
            Some(Effect::Hang) => self.await_end()?,
            Some(Effect::Reset) => {
                rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
                return Ok(Fate::Closed);
            }
            Some(Effect::Close) => {}
            Some(Effect::Truncate(keep)) => {
                let kept = body.get(..*keep).unwrap_or(body);
                // Of an empty body, or one that is not longer, there must be something to miss.
                let length = (body.len() as u64).max(kept.len() as u64 + 1);
                let head = answer.head(Some(length), true);
                stream.write_all(&[head.as_bytes(), kept].concat())?;
            }
            Some(Effect::TruncateSilently(keep)) => {
                let kept = body.get(..*keep).unwrap_or(body);
                stream.write_all(&[answer.head(None, true).as_bytes(), kept].concat())?;
            }
            Some(Effect::GarbageStatusLine) => {
                stream.write_all(
                    &[b"\x16\x03\x01 no HTTP\x00\r\n\r\n", garbage().as_slice()].concat(),
                )?;
            }
            Some(Effect::Oversize(length)) => {
                stream.write_all(answer.head(Some(*length), true).as_bytes())?;
                self.flood(b"02:ec:20:ff:ff:ff/\n", *length)?;
            }
            Some(Effect::EndlessLines) => {
                stream.write_all(answer.head(None, true).as_bytes())?;
                self.flood(b"02:ec:20:ff:ff:ff/\n", u64::MAX)?;
            }
            Some(Effect::EndlessLine) => {
                stream.write_all(answer.head(None, true).as_bytes())?;
                self.flood(b"0123456789abcdef", u64::MAX)?;
            }
            Some(Effect::EndlessHeader) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Endless: ")?;
                self.flood(b"0123456789abcdef", u64::MAX)?;
            }
        }
        stream.shutdown(Shutdown::Write)?;
        Ok(Fate::Closed)
    }

    fn drip(&self, bytes: &[u8], pause: Duration) -> io::Result<()> {
        let mut stream = self.stream;
        for byte in bytes {
            self.control.sleep(pause)?;
            stream.write_all(std::slice::from_ref(byte))?;
        }
        Ok(())
    }

    /// Writes a pattern over and over until this many bytes are out or the client is gone.
    fn flood(&self, pattern: &[u8], mut left: u64) -> io::Result<()> {
        let block: Vec<u8> = pattern.iter().copied().cycle().take(pattern.len() * 1024).collect();
        let mut stream = self.stream;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            stream.write_all(block.get(..part).unwrap_or(&block))?;
            left -= part as u64;
        }
        Ok(())
    }

    /// Waits until the client closes.
    fn await_end(&self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        let mut stream = self.stream;
        while stream.read(&mut chunk)? > 0 {}
        Ok(())
    }
}

/// What an answer leaves of its connection.
enum Fate {
    Open,
    Closed,
}

impl Fate {
    fn is_closed(&self) -> bool {
        matches!(self, Self::Closed)
    }
}

/// Bytes that are no text in any encoding that a client expects.
fn garbage() -> Vec<u8> {
    (0..512_u16).map(|number| number.wrapping_mul(37).to_le_bytes()[0] | 0x80).collect()
}

/// The request at the beginning of the buffer, or none where its head is not yet there in whole.
fn parse(buffer: &[u8]) -> io::Result<Option<Incoming>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(buffer) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    };
    let header = |name: &str| {
        let found = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(found.value).trim().to_owned())
    };
    let wants_close = header("connection").is_some_and(|text| text.eq_ignore_ascii_case("close"));
    let body: usize = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Some(Incoming {
        close: wants_close || parsed.version == Some(0),
        length: head.saturating_add(body.min(LONGEST_HEAD)),
        request: Request {
            method: parsed.method.unwrap_or_default().to_owned(),
            path: parsed.path.unwrap_or_default().to_owned(),
            token: header("x-aws-ec2-metadata-token"),
            life: header("x-aws-ec2-metadata-token-ttl-seconds"),
            forwarded: header("x-forwarded-for").is_some(),
        },
    }))
}
