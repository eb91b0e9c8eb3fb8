//! As much of HTTP/1.1 as a metadata service on a link-local address needs.
//!
//! One request, one answer, within a deadline; connections are kept where the service keeps them.
//! Strict where a tolerant reader could take a part for the whole: an answer has a Content-Length
//! or is chunked (RFC 9112, section 6), and all of it arrives, or it is an error. Redirects are
//! not followed, proxies not used, names not resolved, and nothing of a request or an answer is
//! logged, because both carry session tokens.

mod answer;
mod connections;
mod endpoint;
mod flight;

pub(crate) use answer::{Answer, Limits};
pub(crate) use connections::{Connections, Link};
pub use endpoint::Endpoint;
pub(crate) use flight::{Flight, wait};

use std::io;

/// How one exchange failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// No connection was made: nothing has been sent.
    Connect(io::Error),
    /// The connection broke.
    Lost(io::Error),
    /// The peer closed the connection before it sent one byte of an answer: on a kept connection
    /// the usual sign that it had gone stale.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// What has arrived is not the whole answer yet.
    Incomplete,
    /// The answer is not acceptable HTTP.
    Malformed(&'static str),
}

impl Fault {
    /// The fault of a failed read or write.
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            // A socket time-out is EAGAIN on Linux.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::TimedOut,
            _ => Fault::Lost(error),
        }
    }
}
