//! QEMU's `-netdev` and `-device`: the tap, the MAC and the MTU.
//!
//! They describe the device; what the guest configures goes another way. QEMU has to run in the
//! interface's `netns_path`.

use crate::conf::VmConf;
use crate::render::Rendered;

/// Which device the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// `virtio-net-pci`, for machines with PCI.
    #[default]
    Pci,
    /// `virtio-net-device`, for the microvm machine.
    Mmio,
}

impl Device {
    fn name(self) -> &'static str {
        match self {
            Device::Pci => "virtio-net-pci",
            Device::Mmio => "virtio-net-device",
        }
    }
}

/// The arguments, one an entry.
#[must_use]
pub fn arguments(vm: &VmConf, device: Device) -> Vec<String> {
    let mut arguments = Vec::with_capacity(vm.interfaces().len() * 4);
    for (position, conf) in vm.interfaces().iter().enumerate() {
        let tap = &conf.tap_name;
        let mac = conf.vm_mac.map_or(String::new(), |mac| format!(",mac={mac}"));
        let mtu = conf.vm_mtu.map_or(String::new(), |mtu| format!(",host_mtu={mtu}"));
        arguments.extend([
            "-netdev".to_owned(),
            format!("tap,id=net{position},ifname={tap},script=no,downscript=no"),
            "-device".to_owned(),
            format!("{},netdev=net{position}{mac}{mtu}", device.name()),
        ]);
    }
    arguments
}

/// The arguments in one line. No shell reads anything into them.
pub fn render(vm: &VmConf, device: Device) -> Rendered {
    Rendered { text: arguments(vm, device).join(" ") + "\n", warnings: Vec::new() }
}
