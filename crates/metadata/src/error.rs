//! What can go wrong in asking a metadata service.

use std::time::Duration;

/// Why a metadata request gave no answer. None of the variants ever holds a session token or text
/// from the body of an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No connection could be made, or it broke before the whole answer was read.
    #[error("metadata {url}: {reason}")]
    Connection {
        /// What was asked.
        url: String,
        /// What the operating system said.
        reason: String,
    },
    /// The service did not answer in time.
    #[error("metadata {url}: no answer within {} ms", .after.as_millis())]
    Timeout {
        /// What was asked.
        url: String,
        /// How long this request was waited for.
        after: Duration,
    },
    /// The call's deadline passed, or would pass, before the request could be sent: while it
    /// waited for its share of the packet rate, for a throttled service or for a session.
    #[error("metadata {url}: the deadline passed before it could be asked")]
    Deadline {
        /// What was to be asked.
        url: String,
    },
    /// Status 404: there is no such key.
    #[error("metadata {url}: not found (404)")]
    NotFound {
        /// What was asked.
        url: String,
    },
    /// Status 401 twice in a row, the second time with a session made just before.
    #[error("metadata {url}: a new session token was refused (401)")]
    Unauthorized {
        /// What was asked.
        url: String,
    },
    /// A status that asking again does not change: 400, 403 where the service is switched off, a
    /// redirect, which is never followed.
    #[error("metadata {url}: refused with status {status}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Status 429 or 503: the service asks for fewer requests.
    #[error("metadata {url}: throttled (status {status})")]
    Throttled {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// Another 5xx status.
    #[error("metadata {url}: the service failed with status {status}")]
    Server {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what the service is documented to say: not HTTP, truncated or of unknown
    /// length, too large, or text that does not parse.
    #[error("metadata {url}: {reason}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// Every word that [`Error::kind`] knows.
    pub const KINDS: [&'static str; 9] = [
        "connection",
        "timeout",
        "deadline",
        "not-found",
        "unauthorized",
        "refused",
        "throttled",
        "server",
        "malformed",
    ];

    /// Which of the variants it is, in a word.
    pub fn kind(&self) -> &'static str {
        Self::KINDS.get(self.number()).copied().unwrap_or_default()
    }

    /// Its place in [`Error::KINDS`].
    pub(crate) fn number(&self) -> usize {
        match self {
            Error::Connection { .. } => 0,
            Error::Timeout { .. } => 1,
            Error::Deadline { .. } => 2,
            Error::NotFound { .. } => 3,
            Error::Unauthorized { .. } => 4,
            Error::Refused { .. } => 5,
            Error::Throttled { .. } => 6,
            Error::Server { .. } => 7,
            Error::Malformed { .. } => 8,
        }
    }

    /// Whether the same request may well be answered when it is sent again a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Connection { .. }
            | Error::Timeout { .. }
            | Error::Deadline { .. }
            | Error::Throttled { .. }
            | Error::Server { .. }
            | Error::Malformed { .. } => true,
            Error::NotFound { .. } | Error::Unauthorized { .. } | Error::Refused { .. } => false,
        }
    }
}

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: expected {expected}")]
pub struct ParseError {
    text: String,
    what: &'static str,
    expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, what: &'static str, expected: &'static str) -> Self {
        // Enough to recognise it by; the text may come from anywhere.
        let text = text.chars().take(80).collect();
        Self { text, what, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_word() {
        let url = String::new;
        let reason = String::new;
        let errors = [
            Error::Connection { url: url(), reason: reason() },
            Error::Timeout { url: url(), after: Duration::ZERO },
            Error::Deadline { url: url() },
            Error::NotFound { url: url() },
            Error::Unauthorized { url: url() },
            Error::Refused { url: url(), status: 403 },
            Error::Throttled { url: url(), status: 429 },
            Error::Server { url: url(), status: 500 },
            Error::Malformed { url: url(), reason: reason() },
        ];
        assert_eq!(errors.map(|error| error.kind()), Error::KINDS);
    }
}
