//! Tap devices: virtual Ethernet devices whose other end is a program, for example a virtual
//! machine monitor. See the kernel's `networking/tuntap` document.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::ioctl::{IntegerSetter, Opcode, Updater, opcode};

use crate::error::Result;
use crate::link::{self, Link};
use crate::wire::{self, Message};
use crate::{Error, EthernetAddress, Rtnetlink};

const DEVICE: &str = "/dev/net/tun";

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<i32>(b'T', 203);
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);
const TUNSETGROUP: Opcode = opcode::write::<i32>(b'T', 206);
const SIOCGIFHWADDR: Opcode = 0x8927;

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Refuse to attach to a device that exists.
const IFF_TUN_EXCL: u16 = 0x8000;

/// `IFNAMSIZ`.
const NAME_LEN: usize = 16;

const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_OWNER: u16 = 1;
const IFLA_TUN_GROUP: u16 = 2;
const IFLA_TUN_TYPE: u16 = 3;
const IFLA_TUN_VNET_HDR: u16 = 5;
const IFLA_TUN_PERSIST: u16 = 6;
const IFLA_TUN_MULTI_QUEUE: u16 = 7;
const TYPE_TAP: u8 = 2;

/// `struct ifreq`, with the two of its uses that are needed here.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_LEN],
    /// Flags in the first two octets, or a `struct sockaddr`.
    value: [u8; 24],
}

impl InterfaceRequest {
    /// `None`: the name is too long.
    fn new(name: &str) -> Option<Self> {
        let mut request = InterfaceRequest { name: [0; NAME_LEN], value: [0; 24] };
        // The last octet stays 0, which ends the name.
        let room = request.name.get_mut(..NAME_LEN - 1)?;
        room.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(request)
    }

    fn set_flags(&mut self, flags: u16) {
        let [first, second] = flags.to_ne_bytes();
        self.value[0] = first;
        self.value[1] = second;
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|octet| *octet == 0).unwrap_or(NAME_LEN);
        String::from_utf8_lossy(self.name.get(..end).unwrap_or_default()).into_owned()
    }
}

/// An open queue of a tap device, of which it is the only one: Ethernet frames, each behind a
/// `struct virtio_net_hdr`, are read from it and written to it.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
}

impl Tap {
    /// Makes a device in the namespace of the calling thread. It is down, and goes when it is
    /// closed unless [`Tap::persist`] was called. Without a name the kernel chooses `tapN`.
    ///
    /// # Errors
    /// Where the name is taken or is no interface's name, `/dev/net/tun` is missing, or the
    /// privilege (`CAP_NET_ADMIN`).
    pub fn create(name: Option<&str>) -> Result<Self> {
        let attempt = || match name {
            Some(name) => format!("make the tap device {name}"),
            None => "make a tap device".to_owned(),
        };
        // The kernel would number a name with a format in it.
        if name.is_some_and(|name| name.is_empty() || name.contains('%')) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not an interface name");
            return Err(Error::system(attempt(), source));
        }
        Self::attach(name.unwrap_or_default(), IFF_TUN_EXCL, attempt)
    }

    /// Opens a device that exists, as a virtual machine monitor does.
    ///
    /// # Errors
    /// Where it is no tap device with a single queue that is free, or belongs to somebody else.
    pub fn open(name: &str) -> Result<Self> {
        let attempt = || format!("open the tap device {name}");
        // A name that nobody has would make one.
        index_of(name).map_err(|error| Error::system(attempt(), error))?;
        Self::attach(name, 0, attempt)
    }

    fn attach(name: &str, flags: u16, attempt: impl Fn() -> String) -> Result<Self> {
        let Some(mut request) = InterfaceRequest::new(name) else {
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "a name has at most 15 octets");
            return Err(Error::system(attempt(), source));
        };
        request.set_flags(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(DEVICE)
            .map_err(|error| Error::system(format!("open {DEVICE}"), error))?;
        update::<TUNSETIFF>(&file, &mut request)
            .map_err(|error| Error::system(attempt(), error))?;
        Ok(Tap { file, name: request.name() })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its interface index. To be asked in the namespace in which it was made.
    ///
    /// # Errors
    /// Where the device is gone or has another name by now.
    pub fn index(&self) -> Result<u32> {
        index_of(&self.name).map_err(|error| {
            Error::system(format!("read the index of the tap device {}", self.name), error)
        })
    }

    /// Its link-layer address.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn address(&self) -> Result<EthernetAddress> {
        let mut request = InterfaceRequest { name: [0; NAME_LEN], value: [0; 24] };
        update::<SIOCGIFHWADDR>(&self.file, &mut request).map_err(|error| {
            Error::system(format!("read the address of the tap device {}", self.name), error)
        })?;
        let [_, _, a, b, c, d, e, f, ..] = request.value;
        Ok([a, b, c, d, e, f])
    }

    /// Lets a user open it without a privilege.
    ///
    /// # Errors
    /// Where the identifier is none in this user namespace.
    pub fn set_owner(&self, user: u32) -> Result<()> {
        set::<TUNSETOWNER>(&self.file, user).map_err(|error| {
            Error::system(format!("give the tap device {} to user {user}", self.name), error)
        })
    }

    /// Lets a group open it without a privilege.
    ///
    /// # Errors
    /// Where the identifier is none in this user namespace.
    pub fn set_group(&self, group: u32) -> Result<()> {
        set::<TUNSETGROUP>(&self.file, group).map_err(|error| {
            Error::system(format!("give the tap device {} to group {group}", self.name), error)
        })
    }

    /// Makes it stay when it is closed, until it is deleted.
    ///
    /// # Errors
    /// Where the device is gone.
    pub fn persist(&self) -> Result<()> {
        set::<TUNSETPERSIST>(&self.file, 1).map_err(|error| {
            Error::system(format!("make the tap device {} stay", self.name), error)
        })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl io::Read for Tap {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl io::Write for Tap {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a tap device is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapSettings {
    /// The user who may open it; `None`: nobody without a privilege.
    pub owner: Option<u32>,
    /// The group that may open it.
    pub group: Option<u32>,
    /// Whether it stays when nobody has it open.
    pub persistent: bool,
    /// Whether frames have a `struct virtio_net_hdr` before them.
    pub virtio_net_header: bool,
    /// Whether it takes several queues; a program that opens a single one is then refused.
    pub multi_queue: bool,
}

impl TapSettings {
    /// Lists every device of the namespace, tap devices with their settings.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink) -> Result<Vec<(Link, Option<TapSettings>)>> {
        kernel.dump("devices", &link::list_request(), |message| {
            Some((Link::read(message)?, TapSettings::read(message)))
        })
    }

    fn read(message: &Message<'_>) -> Option<TapSettings> {
        let details = wire::attributes(message.payload, link::IFINFO_LEN).flatten();
        let mut settings = TapSettings {
            owner: None,
            group: None,
            persistent: false,
            virtio_net_header: false,
            multi_queue: false,
        };
        let (mut is_tun, mut is_tap) = (false, false);
        for (_, details) in details.filter(|(kind, _)| *kind == IFLA_LINKINFO) {
            for (kind, value) in wire::attributes(details.value(), 0).flatten() {
                match kind {
                    IFLA_INFO_KIND => is_tun = value.value() == b"tun\0",
                    IFLA_INFO_DATA if is_tun => {
                        for (kind, value) in wire::attributes(value.value(), 0).flatten() {
                            is_tap |= settings.take(kind, value.value());
                        }
                    }
                    _ => {}
                }
            }
        }
        (is_tun && is_tap).then_some(settings)
    }

    /// True where the attribute says that it is a tap device.
    fn take(&mut self, kind: u16, value: &[u8]) -> bool {
        let flag = value.first().is_some_and(|flag| *flag != 0);
        match kind {
            IFLA_TUN_OWNER => self.owner = wire::read_u32(value, 0),
            IFLA_TUN_GROUP => self.group = wire::read_u32(value, 0),
            IFLA_TUN_TYPE => return value.first() == Some(&TYPE_TAP),
            IFLA_TUN_VNET_HDR => self.virtio_net_header = flag,
            IFLA_TUN_PERSIST => self.persistent = flag,
            IFLA_TUN_MULTI_QUEUE => self.multi_queue = flag,
            _ => {}
        }
        false
    }
}

/// The user and the group as which the process acts.
pub fn effective_user_and_group() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn index_of(name: &str) -> rustix::io::Result<u32> {
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    netdevice::name_to_index(socket(AddressFamily::UNIX, SocketType::DGRAM, None)?, name)
}

fn update<const CODE: Opcode>(
    file: &File,
    request: &mut InterfaceRequest,
) -> rustix::io::Result<()> {
    // SAFETY: CODE is one of TUNSETIFF and SIOCGIFHWADDR, for both of which the kernel reads and
    // writes a `struct ifreq` of 40 octets, which is what InterfaceRequest is on every
    // architecture with 64-bit pointers, and larger than it on others.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(file, Updater::<CODE, InterfaceRequest>::new(request))
    }
}

fn set<const CODE: Opcode>(file: &File, value: u32) -> rustix::io::Result<()> {
    // SAFETY: CODE is one of TUNSETOWNER, TUNSETGROUP and TUNSETPERSIST, which take a number and
    // touch no memory of the caller.
    #[allow(unsafe_code)]
    unsafe {
        rustix::ioctl::ioctl(file, IntegerSetter::<CODE>::new_usize(value as usize))
    }
}
