//! Network namespaces that a file stands for: bind-mounted, as `ip netns add` does it.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::error::Result;
use crate::{Error, Namespace};

/// How many mounts on one path are taken away: more than one where mounts were propagated twice.
const STACKED: u32 = 16;

impl Namespace {
    /// Bind-mounts the namespace on a file, which from then on stands for it and keeps it alive.
    ///
    /// # Errors
    /// Where the file is not there, or the privilege is missing (`CAP_SYS_ADMIN`).
    pub fn mount(&self, path: &Path) -> Result<()> {
        let handle = format!("/proc/self/fd/{}", self.as_raw_fd());
        rustix::mount::mount_bind(handle, path).map_err(|error| {
            Error::system(format!("mount the network namespace {}", path.display()), error)
        })
    }

    /// Takes the file away that stands for a namespace, with what is mounted on it.
    ///
    /// # Errors
    /// Where there is no such file, or the privilege is missing.
    pub fn unmount(path: &Path) -> Result<()> {
        let failed = |what: &str, error: std::io::Error| {
            Error::system(format!("{what} {}", path.display()), error)
        };
        for _ in 0..STACKED {
            match rustix::mount::unmount(path, UnmountFlags::DETACH) {
                Ok(()) => {}
                // A plain file, by now or from an interrupted creation.
                Err(Errno::INVAL) => break,
                Err(error) => return Err(failed("unmount the network namespace", error.into())),
            }
        }
        std::fs::remove_file(path).map_err(|error| failed("remove", error))
    }

    /// Every path on which a network namespace is mounted, as far as the mount namespace shows.
    ///
    /// # Errors
    /// Where /proc is not there.
    pub fn mounted() -> Result<Vec<PathBuf>> {
        const MOUNTS: &str = "/proc/thread-self/mountinfo";
        let text = std::fs::read(MOUNTS)
            .map_err(|error| Error::system(format!("read {MOUNTS}"), error))?;
        let mut paths: Vec<PathBuf> =
            text.split(|octet| *octet == b'\n').filter_map(network_mount).collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    /// Makes a directory of namespaces, and makes it a mount point that is shared, so that what is
    /// mounted in it appears in every mount namespace: what `ip netns add` does to /run/netns.
    ///
    /// # Errors
    /// Without the privilege.
    pub fn share_directory(directory: &Path) -> Result<()> {
        let failed = |error: std::io::Error| {
            Error::system(format!("share the mounts under {}", directory.display()), error)
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        // Two that find no mount point would both make one, and the second would cover what is
        // mounted in the first. iproute2 takes the same lock.
        let held = std::fs::File::open(directory).map_err(failed)?;
        flock(&held, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
        let mut shared = rustix::mount::mount_change(directory, flags);
        if shared == Err(Errno::INVAL) {
            shared = rustix::mount::mount_bind_recursive(directory, directory)
                .and_then(|()| rustix::mount::mount_change(directory, flags));
        }
        shared.map_err(|error| failed(error.into()))
    }
}

/// The mount point of a line of mountinfo (proc(5)) that mounts a network namespace.
fn network_mount(line: &[u8]) -> Option<PathBuf> {
    let mut fields = line.split(|octet| *octet == b' ');
    let root = fields.nth(3)?;
    let path = fields.next()?;
    // A separator ends the optional fields.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    (kind == b"nsfs" && root.starts_with(b"net:[")).then(|| unescaped(path))
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, behind @ ..] = rest {
        let number = match (first, behind) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        path.push(number.unwrap_or(*first));
        rest = if number.is_some() { behind.get(3..).unwrap_or_default() } else { behind };
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_of_network_namespaces_are_found() {
        let net =
            b"54 31 0:4 net:[4026532281] /run/netns/a\\040b rw shared:7 master:1 - nsfs nsfs rw";
        assert_eq!(network_mount(net), Some("/run/netns/a b".into()));
        let no_optional = b"54 31 0:4 net:[4026532281] /x rw - nsfs nsfs rw";
        assert_eq!(network_mount(no_optional), Some("/x".into()));
        let mount = b"55 31 0:4 mnt:[4026532282] /run/mnt rw - nsfs nsfs rw";
        assert_eq!(network_mount(mount), None);
        assert_eq!(network_mount(b"31 1 8:1 / / rw - ext4 /dev/vda1 rw"), None);
        assert_eq!(network_mount(b""), None);
    }

    #[test]
    fn paths_are_as_they_were_mounted() {
        assert_eq!(unescaped(br"/a\134b\011\012c\9"), PathBuf::from("/a\\b\t\nc\\9"));
    }
}
