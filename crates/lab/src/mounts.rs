//! A mount namespace for one host: a /run and a /sys of its own.
//!
//! What runs in an instance sees the devices of the instance in /sys, and not the machine's own
//! systemd-udevd in /run, which knows nothing of them.

use crate::error::{Attempt, Result};
use jackfield_kernel::{MountNamespace, Namespace};
use rustix::mount::{MountFlags, mount};

/// A copy of the machine's mounts, but for /run and /sys.
pub(crate) fn of_instance(network: &Namespace) -> Result<MountNamespace> {
    let made = MountNamespace::anonymous(network, || {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", "/run", "tmpfs", flags, Some(c"mode=755"))?;
        // Refused to an unprivileged user where parts of /sys are covered, as in some containers.
        // All but udev works without.
        let _ = mount("sysfs", "/sys", "sysfs", flags | MountFlags::NOEXEC, None);
        Ok(())
    });
    made.attempt(|| "give an instance mounts of its own".to_owned())
}
