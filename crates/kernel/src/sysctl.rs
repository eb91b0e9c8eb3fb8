//! Settings of one interface under `/proc/sys/net`, in the namespace of the calling thread.
//!
//! The kernel names these files after the interface, and names change: each access makes sure that
//! the name belongs to the interface index that is meant, before and after.
//!
//! Container engines mount `/proc/sys` read-only, and let nothing be mounted over it: where `JACKFIELD_SYS_NET`
//! names a directory, that is `/proc/sys/net`. Whose namespace it shows depends on who looks, not on
//! who mounted it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

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

/// Reads settings of an interface: those that the kernel has (none of IPv6 where that is switched
/// off), or none where the interface is gone or has another name by now.
///
/// # Errors
/// Where a file is there and cannot be read as a number.
pub fn read(interface: u32, name: &str, settings: &[Setting]) -> Result<Vec<(Setting, i32)>> {
    let mut values = Vec::new();
    let names = Names::open();
    if !names.belongs(name, interface) {
        return Ok(values);
    }
    for setting in settings {
        let path = path(name, *setting);
        let attempt = || format!("read {}", path.display());
        match read_file(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(value) => values.push((*setting, value)),
                Err(_) => {
                    return Err(Error::Malformed {
                        attempt: attempt(),
                        reason: format!("{:?} is no number", text.trim()),
                    });
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system(attempt(), error)),
        }
    }
    // What was read belongs to another interface where the name was given away meanwhile.
    if !names.belongs(name, interface) {
        values.clear();
    }
    Ok(values)
}

/// Reads a setting that holds for all interfaces together (`conf/all`); `None` where the kernel does
/// not have it, or it cannot be read.
pub fn read_of_all(setting: Setting) -> Option<i32> {
    read_file(&path("all", setting)).ok()?.trim().parse().ok()
}

/// A setting is a few digits, and is read at once.
fn read_file(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 32];
    let length = File::open(path)?.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
}

/// Writes settings of an interface, and returns what became of each: it fails where the interface is
/// gone or has another name by now (`ENODEV`), or the kernel refuses.
pub fn write(interface: u32, name: &str, settings: &[(Setting, i32)]) -> Vec<Result<()>> {
    let names = Names::open();
    let mut written = Vec::new();
    if names.belongs(name, interface) {
        let write = |(setting, value): &(Setting, i32)| {
            std::fs::write(path(name, *setting), value.to_string())
        };
        written.extend(settings.iter().map(write));
    }
    // What was written reached another interface where the name was given away meanwhile.
    if !names.belongs(name, interface) {
        written.clear();
    }
    let gone = || io::Error::from_raw_os_error(crate::Refusal::NO_DEVICE);
    let written = written.into_iter().chain(std::iter::repeat_with(|| Err(gone())));
    let report = |((setting, value), written): (&(Setting, i32), io::Result<()>)| {
        written.map_err(|error| {
            let attempt = format!("write {value} to {}", path(name, *setting).display());
            let is_gone = error.kind() == ErrorKind::NotFound;
            Error::system(attempt, if is_gone { gone() } else { error })
        })
    };
    settings.iter().zip(written).map(report).collect()
}

fn path(name: &str, setting: Setting) -> PathBuf {
    let protocol = match setting.family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let named = std::env::var_os("JACKFIELD_SYS_NET").filter(|named| !named.is_empty());
        named.map_or_else(|| PathBuf::from("/proc/sys/net"), PathBuf::from)
    });
    // "." and ".." and names with a slash are no interface names: the kernel refuses them.
    [
        ROOT.as_os_str(),
        OsStr::new(protocol),
        OsStr::new("conf"),
        OsStr::new(name),
        OsStr::new(setting.name),
    ]
    .iter()
    .collect()
}

/// Tells whose a name is, in the namespace in which it was opened.
struct Names(Option<OwnedFd>);

impl Names {
    fn open() -> Self {
        Names(socket(AddressFamily::UNIX, SocketType::DGRAM, None).ok())
    }

    fn belongs(&self, name: &str, interface: u32) -> bool {
        let index = self.0.as_ref().and_then(|socket| name_to_index(socket, name).ok());
        index == Some(interface)
    }
}
