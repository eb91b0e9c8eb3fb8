//! The log of requests.

use std::net::SocketAddr;
use std::time::Instant;

/// One request as it was seen, and what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// When it was read in whole.
    pub at: Instant,
    /// The instance that asked, where the source address tells.
    pub instance: Option<String>,
    /// Where it came from.
    pub peer: SocketAddr,
    /// The address of the service that was asked.
    pub local: SocketAddr,
    /// As in the request line.
    pub method: String,
    /// As in the request line.
    pub path: String,
    /// The status decided on; none where a fault gives no status line that could be read.
    pub status: Option<u16>,
    /// What the request showed as its token.
    pub token: TokenKind,
    /// Whether its connection had carried a request before.
    pub connection: ConnectionUse,
    /// Whether a fault was at work.
    pub faulty: bool,
}

/// What a request showed as its session token. Tokens themselves are not logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// No token.
    None,
    /// One that this instance was given and that has not expired.
    Valid,
    /// Any other.
    Invalid,
}

/// Whether a connection is used for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionUse {
    /// The first request of its connection.
    New,
    /// A later one.
    Reused,
}
