//! Mount namespaces: a view of the file system that is changed for some processes only.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::mount::MountPropagationFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::error::Result;
use crate::{Error, Namespace};

/// A mount namespace that is kept alive by being held.
#[derive(Debug)]
pub struct MountNamespace {
    file: OwnedFd,
}

impl MountNamespace {
    /// Makes a copy of the calling thread's mounts, nothing of which is seen by others, and runs
    /// `prepare` in it, inside the network namespace: what is mounted as sysfs there shows that
    /// network's devices.
    ///
    /// # Errors
    /// Without the privilege, and where `prepare` fails.
    pub fn anonymous(
        network: &Namespace,
        prepare: impl FnOnce() -> std::io::Result<()> + Send,
    ) -> Result<Self> {
        let failed = |error| Error::system("make a mount namespace", error);
        network.run(|| {
            unshare(UnshareFlags::NEWNS)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).map_err(|error| failed(error.into()))?;
            prepare().map_err(failed)?;
            let file = File::open("/proc/thread-self/ns/mnt").map_err(failed)?;
            Ok(MountNamespace { file: file.into() })
        })?
    }

    /// Moves the calling thread here for good.
    ///
    /// # Errors
    /// Without the privilege.
    pub fn enter(&self) -> Result<()> {
        // A thread that shares its working directory with others cannot change its mounts.
        unshare(UnshareFlags::FS)?;
        let kind = Some(LinkNameSpaceType::Mount);
        rustix::thread::move_into_link_name_space(self.file.as_fd(), kind)
            .map_err(|error| Error::system("enter a mount namespace", error))
    }
}

impl AsFd for MountNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: neither flag that is used here concerns the file descriptor table, which is what
    // makes the call unsafe: the calling thread gets mounts and a working directory of its own.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|error| Error::system("make a mount namespace", error))
}
