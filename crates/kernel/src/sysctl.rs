//! Settings of one interface under `/proc/sys/net`, in the namespace of the calling thread.
//!
//! The kernel names these files after the interface, and names change: each access makes sure that
//! the name belongs to the interface index that is meant, before and after.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use crate::error::Result;
use crate::{Error, Family};

/// A setting of an interface, for example `accept_ra_defrtr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Setting {
    /// Of which protocol.
    pub family: Family,
    /// The file's name below `/proc/sys/net/ipvX/conf/IFACE/`.
    pub name: &'static str,
}

/// Reads a setting; `None` where the kernel does not have it (IPv6 switched off), or the interface
/// is gone or has another name by now.
///
/// # Errors
/// Where the file is there and cannot be read as a number.
pub fn read(interface: u32, name: &str, setting: Setting) -> Result<Option<i32>> {
    if !is_named(interface, name) {
        return Ok(None);
    }
    let path = path(name, setting);
    let attempt = || format!("read {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(value) if is_named(interface, name) => Ok(Some(value)),
            Ok(_) => Ok(None),
            Err(_) => Err(Error::Malformed {
                attempt: attempt(),
                reason: format!("{:?} is no number", text.trim()),
            }),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::system(attempt(), error)),
    }
}

/// Writes a setting.
///
/// # Errors
/// Where the interface is gone or has another name by now (`ENODEV`), or the kernel refuses.
pub fn write(interface: u32, name: &str, setting: Setting, value: i32) -> Result<()> {
    let path = path(name, setting);
    let attempt = || format!("write {value} to {}", path.display());
    let renamed = || {
        let gone = io::Error::from_raw_os_error(crate::Refusal::NO_DEVICE);
        Error::system(attempt(), gone)
    };
    if !is_named(interface, name) {
        return Err(renamed());
    }
    std::fs::write(&path, value.to_string()).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            renamed()
        } else {
            Error::system(attempt(), error)
        }
    })?;
    if is_named(interface, name) { Ok(()) } else { Err(renamed()) }
}

fn path(name: &str, setting: Setting) -> PathBuf {
    let protocol = match setting.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    // "." and ".." and names with a slash are no interface names: the kernel refuses them.
    ["/proc/sys/net", protocol, "conf", name, setting.name].iter().collect()
}

fn is_named(interface: u32, name: &str) -> bool {
    let Ok(socket) =
        rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)
    else {
        return false;
    };
    rustix::net::netdevice::name_to_index(&socket, name).is_ok_and(|index| index == interface)
}
