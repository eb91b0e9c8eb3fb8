//! Network namespaces: the current one, named ones, those at a path, and anonymous ones that live
//! as long as something holds them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::Error;
use crate::error::Result;

/// Where named namespaces are bind-mounted, as iproute2 does it.
const NAMED: &str = "/run/netns";

/// A network namespace that is kept alive by being held.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Where /proc is not there.
    pub fn current() -> Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that a file stands for: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// Where the file cannot be opened, or is no network namespace (`EINVAL`).
    pub fn at(path: &Path) -> Result<Self> {
        let attempt = || format!("open the network namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::system(attempt(), error))?;
        // Only a network namespace can be entered as one; where we already are in it, this is
        // harmless, and a thread of its own keeps it from changing anything for the caller.
        let namespace = Namespace { file: file.into() };
        match namespace.run(|| ()) {
            Ok(()) => Ok(namespace),
            Err(Error::System { source, .. })
                if source.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) =>
            {
                let source = io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the file is there but is no network namespace",
                );
                Err(Error::system(attempt(), source))
            }
            // Not allowed to enter: it still can be named and held.
            Err(Error::System { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(namespace)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file as a namespace without trying whether it is one, which [`Namespace::enter`] and
    /// [`Namespace::run`] will say (`EINVAL`): for processes that live too short to try.
    ///
    /// # Errors
    /// Where the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let attempt = || format!("open the network namespace {}", path.display());
        let file = File::open(path).map_err(|error| Error::system(attempt(), error))?;
        Ok(Namespace { file: file.into() })
    }

    /// The namespace of the calling thread, without /proc, which costs a short-lived process a good
    /// part of its time. `None` where the kernel does not tell (without `CAP_NET_ADMIN`).
    pub fn of_own_sockets() -> Option<Self> {
        use rustix::net::{AddressFamily, SocketType, socket};
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok()?;
        // SAFETY: SIOCGSKNS takes no argument, and returns a descriptor or fails: see SocketNamespace.
        #[allow(unsafe_code)]
        let file = unsafe { rustix::ioctl::ioctl(&socket, SocketNamespace) }.ok()?;
        Some(Namespace { file })
    }

    /// Makes a namespace without a name; it goes when the last holder, process and socket in it go.
    ///
    /// # Errors
    /// Without the privilege (`CAP_SYS_ADMIN` in the user namespace).
    pub fn anonymous() -> Result<Self> {
        in_thread(|| {
            unshare_network()?;
            Self::current()
        })?
    }

    /// Makes a named namespace, as `ip netns add` does.
    ///
    /// # Errors
    /// Where the name is no file name, is taken, or the privilege is missing.
    pub fn create_named(name: &str) -> Result<Self> {
        let path = named_path(name)?;
        Self::share_directory(Path::new(NAMED))?;
        OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
            Error::system(format!("make the network namespace {}", path.display()), error)
        })?;
        let made = Self::anonymous().and_then(|namespace| {
            namespace.mount(&path)?;
            Ok(namespace)
        });
        if made.is_err() {
            // Nothing but an empty file of ours is there.
            let _ = std::fs::remove_file(&path);
        }
        made
    }

    /// Takes a namespace's name away, as `ip netns del` does.
    ///
    /// # Errors
    /// Where there is none of that name, or the privilege is missing.
    pub fn delete_named(name: &str) -> Result<()> {
        Self::unmount(&named_path(name)?)
    }

    /// Runs `work` inside the namespace, in a thread of its own, and returns what it returns.
    ///
    /// # Errors
    /// Where the namespace cannot be entered; `work` has then not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        in_thread(|| {
            enter(self.as_fd())
                .map_err(|error| Error::system("enter a network namespace", error))?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into the namespace for good.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn enter(&self) -> Result<()> {
        enter(self.as_fd()).map_err(|error| Error::system("enter a network namespace", error))
    }

    /// Makes a command start inside the namespace and, where `mounts` is given, inside that mount
    /// namespace.
    ///
    /// # Errors
    /// Where the descriptors cannot be duplicated.
    pub fn start_inside(
        &self,
        command: &mut Command,
        mounts: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let attempt = "hold a namespace for a new process";
        let duplicate =
            |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| Error::system(attempt, e));
        let network = duplicate(self.as_fd())?;
        let mounts = mounts.map(duplicate).transpose()?;
        let before_exec = move || {
            if let Some(mounts) = &mounts {
                let kind = Some(LinkNameSpaceType::Mount);
                rustix::thread::move_into_link_name_space(mounts.as_fd(), kind)?;
            }
            enter(network.as_fd())?;
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes
        // two setns system calls on descriptors that it owns, and allocates nothing.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(before_exec);
        }
        Ok(())
    }

    /// Another handle on the same namespace.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn try_clone(&self) -> Result<Self> {
        let file = self.file.try_clone();
        file.map(|file| Namespace { file })
            .map_err(|error| Error::system("hold a network namespace", error))
    }

    /// True where both are the same namespace, by whatever path or handle.
    ///
    /// # Errors
    /// Where one of them cannot be looked at.
    pub fn is_same(&self, other: &Namespace) -> Result<bool> {
        let identity = |namespace: &Namespace| {
            rustix::fs::fstat(&namespace.file)
                .map(|stat| (stat.st_dev, stat.st_ino))
                .map_err(|error| Error::system("look at a network namespace", error))
        };
        Ok(identity(self)? == identity(other)?)
    }
}

/// `SIOCGSKNS`: the namespace in which a socket was opened, as a new descriptor.
struct SocketNamespace;

// SAFETY: the opcode is SIOCGSKNS, which takes no argument, touches no memory of the caller, and
// returns a new descriptor that nobody else has.
#[allow(unsafe_code)]
unsafe impl rustix::ioctl::Ioctl for SocketNamespace {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> rustix::ioctl::Opcode {
        0x894c
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(
        returned: rustix::ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: not an error, so it is the new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(returned) })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Moves the process into a new user namespace in which the caller is root, with network and mount
/// namespaces of its own. Must be called while the process has one thread.
///
/// # Errors
/// Where the system does not let this user make user namespaces, or the process has more threads.
pub fn create_user_namespace() -> Result<()> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: no flag of the file descriptor table is among these; the caller's threads, of which
    // the kernel accepts one, lose no resource that safe code relies on.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(flags) }
        .map_err(|error| Error::system("make a user namespace", error))?;
    let write = |file: &str, text: String| {
        std::fs::write(file, text).map_err(|error| Error::system(format!("write {file}"), error))
    };
    write("/proc/self/uid_map", format!("0 {} 1\n", user.as_raw()))?;
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/gid_map", format!("0 {} 1\n", group.as_raw()))
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|error| Error::system("start a thread", error))?;
        match thread.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn enter(namespace: BorrowedFd<'_>) -> rustix::io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
}

fn unshare_network() -> Result<()> {
    // SAFETY: the calling thread gets a network namespace of its own; descriptors stay shared.
    #[allow(unsafe_code)]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|error| Error::system("make a network namespace", error))
}

fn named_path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "not a file name");
        return Err(Error::system(format!("use {name:?} as a namespace's name"), source));
    }
    Ok(Path::new(NAMED).join(name))
}
