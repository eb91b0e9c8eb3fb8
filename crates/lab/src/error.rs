//! What can go wrong in a lab.

use crate::emulator::CloudError;
use std::io;

/// Why the lab could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel said no.
    #[error("cannot {attempt}: {source}")]
    Kernel {
        /// What was tried, as the rest of a sentence that starts with "cannot".
        attempt: String,
        /// What the kernel said.
        #[source]
        source: jackfield_kernel::Error,
    },
    /// A system call failed.
    #[error("cannot {attempt}: {source}")]
    System {
        /// What was tried, as the rest of a sentence that starts with "cannot".
        attempt: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The cloud does not allow it.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// There is no such link in the namespace.
    #[error("'{host}' has no link '{link}'")]
    NoLink {
        /// The name of the host.
        host: String,
        /// The name of the link.
        link: String,
    },
    /// An instance cannot be what it was to be on this machine.
    #[error("{0}")]
    Unsupported(String),
}

/// What the lab's functions return.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Says what was tried.
pub(crate) trait Attempt<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Attempt<T> for std::result::Result<T, jackfield_kernel::Error> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::Kernel { attempt: what(), source })
    }
}

impl<T> Attempt<T> for io::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::System { attempt: what(), source })
    }
}

impl<T> Attempt<T> for rustix::io::Result<T> {
    fn attempt(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| LabError::System { attempt: what(), source: source.into() })
    }
}
