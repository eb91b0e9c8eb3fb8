//! Sockets that are listened on, and how they are reached.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jackfield_kernel::Peer;
use rustix::fs::Mode;
use rustix::net::sockopt::{
    Timeout, set_ip_freebind, set_ipv6_freebind, set_socket_reuseaddr, set_socket_timeout,
};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};

use super::NAME;
use crate::config::MetricsAddress;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// What is spoken behind a [`Door`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// The API.
    Varlink,
    /// Metrics.
    Http,
}

/// A socket that is listened on. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Door {
    socket: OwnedFd,
    file: Option<PathBuf>,
    pub(super) speaks: Speaks,
}

impl Door {
    /// The abstract socket of the calling thread's network namespace, which one agent has.
    ///
    /// # Errors
    /// `AddrInUse` where there is an agent.
    pub(crate) fn abstract_name() -> io::Result<Self> {
        let socket = unix_socket(SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(NAME.as_bytes())?)?;
        listen(&socket, BACKLOG)?;
        Ok(Door { socket, file: None, speaks: Speaks::Varlink })
    }

    /// The API's socket at a path, for root alone.
    ///
    /// # Errors
    /// Where it cannot be made there, or somebody listens there.
    pub(crate) fn api(path: &Path) -> io::Result<Self> {
        Self::at(path, Mode::RUSR | Mode::WUSR, Speaks::Varlink)
    }

    /// The socket of metrics. At a path, it is for whoever may go there. An address need not be there yet.
    ///
    /// # Errors
    /// Where it cannot be made there, or somebody listens there.
    pub(crate) fn metrics(address: &MetricsAddress) -> io::Result<Self> {
        match address {
            MetricsAddress::Tcp(address) => {
                let socket = tcp_socket(*address)?;
                bind(&socket, address)?;
                listen(&socket, BACKLOG)?;
                Ok(Door { socket, file: None, speaks: Speaks::Http })
            }
            MetricsAddress::Unix(path) => {
                let everybody = Mode::from_raw_mode(0o666);
                Self::at(path, everybody, Speaks::Http)
            }
        }
    }

    fn at(path: &Path, mode: Mode, speaks: Speaks) -> io::Result<Self> {
        let address = SocketAddrUnix::new(path)?;
        let socket = unix_socket(SocketFlags::NONBLOCK)?;
        match bind(&socket, &address) {
            Err(rustix::io::Errno::ADDRINUSE) if is_left_over(path, &address) => {
                std::fs::remove_file(path)?;
                bind(&socket, &address)?;
            }
            result => result?,
        }
        let door = Door { socket, file: Some(path.to_owned()), speaks };
        // Nobody is let in before it is listened on.
        rustix::fs::chmod(path, mode)?;
        listen(&door.socket, BACKLOG)?;
        Ok(door)
    }

    /// The next who wants to come in; none where nobody does.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => Ok(Some(socket)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Where it is gone already, all is well.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Whether what is at the path is a socket on which nobody listens any more.
fn is_left_over(path: &Path, address: &SocketAddrUnix) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let refused = || {
        let socket = unix_socket(SocketFlags::NONBLOCK).ok()?;
        Some(connect(&socket, address) == Err(rustix::io::Errno::CONNREFUSED))
    };
    is_socket && refused().unwrap_or(false)
}

/// Connects to the agent of the calling thread's network namespace; whatever is done with the socket
/// ends in this time.
pub(super) fn reach(patience: Duration) -> io::Result<OwnedFd> {
    let socket = unix_socket(SocketFlags::empty())?;
    for timeout in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, timeout, Some(patience))?;
    }
    connect(&socket, &SocketAddrUnix::new_abstract_name(NAME.as_bytes())?)?;
    Ok(socket)
}

/// Whether a user may ask the agent: root, and who runs this process.
pub(super) fn is_trusted(peer: Peer) -> bool {
    peer.user == 0 || peer.user == rustix::process::geteuid().as_raw()
}

/// Whether who listens may be the agent: an abstract name may be taken by anybody, and what changes the
/// network is root's, or may change it.
pub(super) fn may_be_agent(peer: Peer) -> bool {
    if is_trusted(peer) {
        return true;
    }
    let Some(pid) = peer.process else { return false };
    let same_users = || {
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user"));
        Some(of(&pid.to_string()).ok()? == of("self").ok()?)
    };
    let status = || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // In a user namespace of one's own everybody has every capability.
    same_users() == Some(true) && has_net_admin(&status())
}

/// Whether a process that has this in /proc/PID/status may change the network (capabilities(7)).
fn has_net_admin(status: &str) -> bool {
    const NET_ADMIN: u64 = 1 << 12;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    effective.is_some_and(|set| set & NET_ADMIN != 0)
}

fn tcp_socket(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    set_socket_reuseaddr(&socket, true)?;
    match address {
        SocketAddr::V4(_) => set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => set_ipv6_freebind(&socket, true)?,
    }
    Ok(socket)
}

fn unix_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | flags;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("jackfield-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn who_may_change_the_network_is_known_by_the_effective_capabilities() {
        assert!(has_net_admin("Name:\tx\nCapPrm:\t0\nCapEff:\t0000000000001000\nCapBnd:\t0\n"));
        assert!(has_net_admin("CapEff:\t000001ffffffffff\n"));
        let bounding = "CapPrm:\t000001ffffffffff\nCapEff:\t0000000000000400\n";
        for status in [bounding, "", "CapEff:\tx\n"] {
            assert!(!has_net_admin(status), "{status}");
        }
    }

    #[test]
    fn a_socket_that_is_left_over_is_replaced_and_one_that_is_in_use_or_no_socket_is_not() {
        let directory = directory("doors");
        let path = directory.join("api");
        let first = Door::api(&path).unwrap();
        assert_eq!(Door::api(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // As a process that is killed leaves it.
        let kept = directory.join("kept");
        std::fs::hard_link(&path, &kept).unwrap();
        drop(first);
        assert!(!path.exists());
        std::fs::rename(&kept, &path).unwrap();
        let again = Door::api(&path).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(again);

        std::fs::write(&path, "somebody's").unwrap();
        assert_eq!(Door::api(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "somebody's");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
