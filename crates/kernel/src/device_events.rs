//! Device events: the kernel's own, and those that systemd-udevd has finished with.
//!
//! udev may rename a device while it handles the kernel's event. It broadcasts the event again when
//! it is done, and until then there is no entry for the device in its database.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::Error;
use crate::error::Result;
use crate::monitor::{borrow, is_overrun};

/// Where udev keeps an entry for each device that it has handled: `n` and the index of an interface.
const DATABASE: &str = "/run/udev/data";

const KERNEL_GROUP: u32 = 1;
const UDEV_GROUP: u32 = 2;

/// systemd's `struct monitor_netlink_header`: "libudev\0", then at 8 the magic number (big endian),
/// at 16 the offset of the properties.
const UDEV_PREFIX: &[u8] = b"libudev\0";
const UDEV_MAGIC: u32 = 0xfeed_cafe;

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceAction {
    /// It appeared.
    Add,
    /// It is gone.
    Remove,
    /// It was renamed.
    Move,
    /// Anything else.
    Other,
}

/// An event of a network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEvent {
    /// What happened.
    pub action: DeviceAction,
    /// Interface index.
    pub interface: u32,
    /// Name after the event.
    pub name: String,
    /// True where udev says it, after it has handled the event; false where the kernel does.
    pub finished_by_udev: bool,
}

/// A socket on which events of network devices arrive, from the kernel and from udev.
///
/// An event is a hint: anybody with CAP_NET_ADMIN can send one. It only says 'look again'.
pub struct DeviceEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl DeviceEvents {
    /// Starts listening.
    ///
    /// # Errors
    /// Where the kernel has no socket to give.
    pub fn open() -> Result<Self> {
        let failed = |error| Error::system("listen to device events", error);
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP | UDEV_GROUP)).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        socket.set_rx_buf_sz(1_048_576_i32).map_err(failed)?;
        Ok(DeviceEvents { socket, buffer: Vec::new() })
    }

    /// Takes what has arrived, without waiting. `None` is told where events were lost.
    ///
    /// # Errors
    /// Where the socket fails for another reason than lost events.
    pub fn receive(&mut self, mut tell: impl FnMut(Option<DeviceEvent>)) -> Result<()> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(16 * 1024);
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => {
                    if let Some(event) = read(&self.buffer) {
                        tell(Some(event));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if is_overrun(&error) => tell(None),
                Err(error) => return Err(Error::system("receive device events", error)),
            }
        }
    }
}

impl AsFd for DeviceEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}

/// True where systemd-udevd runs on this system (in this mount namespace): libudev's own test.
pub fn udev_runs() -> bool {
    Path::new("/run/udev/control").exists()
}

/// True where udev has handled the interface's events: it has an entry in its database, and has
/// given the device the name that its rules say.
pub fn udev_has_finished(interface: u32) -> bool {
    let entry = Path::new(DATABASE).join(format!("n{interface}"));
    // Before it renames a device, udev says so in an entry, which it writes anew afterwards.
    let renaming = |line: &[u8]| line == b"E:ID_RENAMING=1";
    std::fs::read(entry).is_ok_and(|entry| !entry.split(|byte| *byte == b'\n').any(renaming))
}

/// Tells when udev writes an entry of its database about a network device: the first sign that it
/// has finished, several milliseconds before its event.
pub struct UdevEntries {
    watch: OwnedFd,
}

impl UdevEntries {
    /// Starts watching; `None` where there is no database, because udev did not run so far.
    ///
    /// # Errors
    /// Where the kernel has no watch to give.
    pub fn open() -> Result<Option<Self>> {
        let failed = |error: Errno| Error::system("watch udev's database", io::Error::from(error));
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let watch = inotify::init(flags).map_err(failed)?;
        // An entry is written under another name, and renamed.
        match inotify::add_watch(&watch, DATABASE, inotify::WatchFlags::MOVED_TO) {
            Ok(_) => Ok(Some(UdevEntries { watch })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes what has arrived, without waiting: indices of interfaces. `None` is told where some
    /// were lost.
    ///
    /// # Errors
    /// Where the watch fails.
    pub fn receive(&mut self, mut tell: impl FnMut(Option<u32>)) -> Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut entries = inotify::Reader::new(&self.watch, &mut buffer);
        loop {
            match entries.next() {
                Ok(entry) if entry.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => {
                    tell(None);
                }
                Ok(entry) => {
                    let name = entry.file_name().and_then(|name| name.to_str().ok());
                    let index = name.and_then(|name| name.strip_prefix('n')?.parse().ok());
                    if let Some(index) = index {
                        tell(Some(index));
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => {
                    return Err(Error::system("watch udev's database", io::Error::from(error)));
                }
            }
        }
    }
}

impl AsFd for UdevEntries {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

fn read(bytes: &[u8]) -> Option<DeviceEvent> {
    let (properties, finished_by_udev) = if bytes.starts_with(UDEV_PREFIX) {
        let magic = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        if magic != UDEV_MAGIC {
            return None;
        }
        let offset = crate::wire::read_u32(bytes, 16)?;
        (bytes.get(usize::try_from(offset).ok()?..)?, true)
    } else {
        // "add@/devices/…\0", then the properties.
        let end = bytes.iter().position(|byte| *byte == 0)?;
        (bytes.get(end.checked_add(1)?..)?, false)
    };
    let (mut action, mut interface, mut name, mut network) =
        (DeviceAction::Other, None, None, false);
    for property in properties.split(|byte| *byte == 0) {
        let Some((key, value)) = std::str::from_utf8(property).ok().and_then(|p| p.split_once('='))
        else {
            continue;
        };
        match key {
            "ACTION" => {
                action = match value {
                    "add" => DeviceAction::Add,
                    "remove" => DeviceAction::Remove,
                    "move" => DeviceAction::Move,
                    _ => DeviceAction::Other,
                };
            }
            "SUBSYSTEM" => network = value == "net",
            "IFINDEX" => interface = value.parse().ok(),
            "INTERFACE" => name = Some(value.to_owned()),
            _ => {}
        }
    }
    network.then_some(DeviceEvent { action, interface: interface?, name: name?, finished_by_udev })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_event_of_a_network_device_is_read() {
        let bytes = b"add@/devices/virtual/net/eth1\0ACTION=add\0SUBSYSTEM=net\0INTERFACE=eth1\0IFINDEX=7\0SEQNUM=1\0";
        let expected = DeviceEvent {
            action: DeviceAction::Add,
            interface: 7,
            name: "eth1".to_owned(),
            finished_by_udev: false,
        };
        assert_eq!(read(bytes), Some(expected));
    }

    #[test]
    fn a_finished_event_of_udev_is_read() {
        let mut bytes = b"libudev\0".to_vec();
        bytes.extend_from_slice(&UDEV_MAGIC.to_be_bytes());
        for number in [40_u32, 40, 60, 0, 0, 0, 0] {
            bytes.extend_from_slice(&number.to_ne_bytes());
        }
        bytes.extend_from_slice(b"ACTION=move\0SUBSYSTEM=net\0INTERFACE=ens6\0IFINDEX=7\0");
        let expected = DeviceEvent {
            action: DeviceAction::Move,
            interface: 7,
            name: "ens6".to_owned(),
            finished_by_udev: true,
        };
        assert_eq!(read(&bytes), Some(expected));
    }

    #[test]
    fn other_subsystems_and_damaged_events_are_no_events() {
        assert_eq!(
            read(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=block\0IFINDEX=7\0INTERFACE=a\0"),
            None
        );
        assert_eq!(read(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(b"add@/devices/x\0SUBSYSTEM=net\0INTERFACE=a\0IFINDEX=x\0"), None);
    }
}
