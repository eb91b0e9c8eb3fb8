//! Who is at the other end of a Unix socket.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use crate::error::{Error, Result};

/// Who is at the other end of a Unix socket: who connected, or who began to listen (`SO_PEERCRED`,
/// unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The process; `None` where it is in a process namespace that the caller's does not see.
    pub process: Option<u32>,
    /// Its effective user, as the caller's user namespace calls it.
    pub user: u32,
}

impl Peer {
    /// Asks for it. rustix has this too, and no process of number 0, which the kernel gives for one of
    /// another namespace.
    ///
    /// # Errors
    /// Where it is no Unix socket.
    pub fn of(socket: impl AsFd) -> Result<Self> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` octets to `credentials`, which has as many, and
        // whatever it writes there is a valid value of three integers.
        #[allow(unsafe_code)]
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &raw mut length,
            )
        };
        if result != 0 || length as usize != size_of::<libc::ucred>() {
            let error = std::io::Error::last_os_error();
            return Err(Error::system("ask who is at the other end of a socket", error));
        }
        let process = u32::try_from(credentials.pid).ok().filter(|process| *process != 0);
        Ok(Peer { process, user: credentials.uid })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_ends_of_a_pair_are_this_process() {
        let (one, other) = UnixStream::pair().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let this = Peer { process: Some(std::process::id()), user };
        assert_eq!((Peer::of(&one).unwrap(), Peer::of(&other).unwrap()), (this, this));
        assert!(Peer::of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
