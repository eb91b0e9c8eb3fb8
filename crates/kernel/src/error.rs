//! What can go wrong when talking to the kernel.

use std::fmt;
use std::io;

/// A failed conversation with the kernel. A request that the kernel *refused* is not one of these
/// when it was part of a batch: see [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed; `attempt` says what it was for.
    #[error("cannot {attempt}: {source}")]
    System {
        /// What was tried, as the rest of a sentence that starts with "cannot".
        attempt: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a single request or a dump.
    #[error("the kernel refused to {attempt}: {refusal}")]
    Refused {
        /// What was asked, as the rest of a sentence that starts with "refused to".
        attempt: String,
        /// The kernel's answer.
        refusal: Refusal,
    },
    /// The kernel's answer could not be read.
    #[error("cannot read the kernel's answer to '{attempt}': {reason}")]
    Malformed {
        /// What was asked.
        attempt: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// The kernel's tables changed during each of several tries to list them.
    #[error("the kernel's list of {what} changed while it was read, {tries} times in a row")]
    Unsettled {
        /// What was listed.
        what: &'static str,
        /// How often it was tried.
        tries: u32,
    },
}

impl Error {
    pub(crate) fn system(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::System { attempt: attempt.into(), source: source.into() }
    }

    /// The error number, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::System { source, .. } => source.raw_os_error(),
            Error::Refused { refusal, .. } => Some(refusal.errno),
            Error::Malformed { .. } | Error::Unsettled { .. } => None,
        }
    }

    /// True where the reason is a missing privilege.
    pub fn is_permission(&self) -> bool {
        self.errno()
            .is_some_and(|errno| errno == Refusal::NOT_PERMITTED || errno == Refusal::ACCESS_DENIED)
    }
}

/// The kernel's 'no' to one request: the error number and, where the kernel gave one, the text of
/// its extended acknowledgement (NLMSGERR_ATTR_MSG).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A positive `errno` value.
    pub errno: i32,
    /// The kernel's own explanation.
    pub message: Option<String>,
}

impl Refusal {
    /// `EPERM`.
    pub const NOT_PERMITTED: i32 = 1;
    /// `ENOENT`.
    pub const NO_ENTRY: i32 = 2;
    /// `ESRCH`: what routes and rules that are not there are answered with.
    pub const NO_SUCH: i32 = 3;
    /// `EACCES`.
    pub const ACCESS_DENIED: i32 = 13;
    /// `EEXIST`.
    pub const EXISTS: i32 = 17;
    /// `ENODEV`.
    pub const NO_DEVICE: i32 = 19;
    /// `EINVAL`.
    pub const INVALID: i32 = 22;
    /// `EADDRNOTAVAIL`: what an address that is not there is answered with.
    pub const NO_ADDRESS: i32 = 99;
    /// `EXDEV`: what a packet is answered with that the reverse path filter drops (before Linux
    /// 6.14, which says `EINVAL`).
    pub const CROSS_DEVICE: i32 = 18;
    /// `ENETUNREACH`.
    pub const NETWORK_UNREACHABLE: i32 = 101;
    /// `EHOSTUNREACH`.
    pub const HOST_UNREACHABLE: i32 = 113;
    /// `EOPNOTSUPP`.
    pub const UNSUPPORTED: i32 = 95;

    /// True where it says that what was to be added is there already.
    pub fn already_there(&self) -> bool {
        self.errno == Self::EXISTS
    }

    /// True where it says that what was to be removed or changed is not there (any more).
    pub fn already_gone(&self) -> bool {
        [Self::NO_ENTRY, Self::NO_SUCH, Self::NO_DEVICE, Self::NO_ADDRESS].contains(&self.errno)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.message {
            Some(message) => write!(f, "{message} ({error})"),
            None => write!(f, "{error}"),
        }
    }
}

/// A result of this crate.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
