//! A mount namespace for one host: a /run and a /sys of its own.
//!
//! What runs in an instance sees the devices of the instance in /sys, and not the machine's own
//! systemd-udevd in /run, which knows nothing of them.

use crate::error::{Attempt, Result};
use jackfield_kernel::Namespace;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

#[derive(Debug)]
pub(crate) struct Mounts(File);

impl Mounts {
    /// A copy of the machine's mounts, but for /run and /sys.
    pub(crate) fn new(network: &Namespace) -> Result<Self> {
        let attempt = || "make a mount namespace".to_owned();
        let made = network.run(|| {
            unshare(UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV;
            mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=755"))?;
            // Refused to an unprivileged user where parts of /sys are covered, as in some
            // containers. All but udev works without.
            let _ = mount("sysfs", "/sys", "sysfs", flags | MountFlags::NOEXEC, None);
            File::open("/proc/thread-self/ns/mnt")
        });
        made.attempt(attempt)?.attempt(attempt).map(Self)
    }

    /// Moves the calling thread here for good.
    pub(crate) fn enter(&self) -> io::Result<()> {
        unshare(UnshareFlags::FS)?;
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Mount))?;
        Ok(())
    }
}

impl AsFd for Mounts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Gives the calling thread a copy of what it shared with others.
fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    // Deprecated because it is unsafe with the table of file descriptors, which no caller here
    // asks for.
    #[allow(deprecated)]
    rustix::thread::unshare(flags)
}
