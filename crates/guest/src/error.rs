//! Why something could not be done for a VM.

use std::path::PathBuf;
use std::time::Duration;

use jackfield_cni::{ContainerId, InterfaceName, NetworkName};
use jackfield_vmconf::{ResultError, VmConfError};

/// Why something could not be done for a VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A network, a plugin or the cache.
    #[error(transparent)]
    Cni(#[from] jackfield_cni::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] jackfield_kernel::Error),
    /// A file or directory.
    #[error("{attempt} {}: {source}", path.display())]
    File {
        /// What was tried, such as `lock`.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Something else is where the namespace should be.
    #[error("{} is there and is no network namespace", .0.display())]
    NoNamespace(PathBuf),
    /// The namespace was made for another VM, and will go with it.
    #[error("the network namespace {} is VM {vm}'s", path.display())]
    NamespaceOfOther {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        vm: ContainerId,
    },
    /// The namespace has such an interface, which undoing would remove.
    #[error("the network namespace {} has an interface {ifname} already", path.display())]
    InterfaceTaken {
        /// Where the namespace is.
        path: PathBuf,
        /// The interface.
        ifname: InterfaceName,
    },
    /// Somebody else works on this VM.
    #[error("another process has worked on VM {vm} for {} s", waited.as_secs_f32())]
    Busy {
        /// The VM.
        vm: ContainerId,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The VM has its network, and something uses it.
    #[error("VM {vm} runs: its tap {tap} is in use")]
    Running {
        /// The VM.
        vm: ContainerId,
        /// Its tap.
        tap: String,
    },
    /// There is nothing of this VM.
    #[error("there is no VM {0}")]
    NoSuchVm(ContainerId),
    /// The result of a network is not one for a VM.
    #[error("network {network}: {error}")]
    Result {
        /// The network.
        network: NetworkName,
        /// What is wrong with it.
        error: ResultError,
    },
    /// The interfaces do not make a VM.
    #[error(transparent)]
    Conf(#[from] VmConfError),
    /// Two networks were to get one interface name.
    #[error("two networks cannot both have the interface {0}")]
    SameInterface(InterfaceName),
    /// A path that has to be remembered as text.
    #[error("{} cannot be remembered: {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// A capability argument of a name that is used here.
    #[error("the capability argument {0} is jackfield's own")]
    ReservedCapability(&'static str),
}

pub(crate) fn file(
    attempt: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { attempt, path, source }
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
