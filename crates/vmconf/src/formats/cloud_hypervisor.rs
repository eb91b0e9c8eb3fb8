//! Cloud Hypervisor's `--net`, with one value an interface: the tap, the MAC and the MTU.
//!
//! It describes the device; what the guest configures goes another way. Cloud Hypervisor has to run
//! in the interface's `netns_path`.

use crate::conf::{StaticNetworkConf, VmConf};
use crate::render::Rendered;

/// The arguments, one an entry: `--net`, then a value for each interface.
#[must_use]
pub fn arguments(vm: &VmConf) -> Vec<String> {
    let flag = std::iter::once("--net".to_owned());
    flag.chain(vm.interfaces().iter().map(net)).collect()
}

/// The arguments in one line. No shell reads anything into them.
pub fn render(vm: &VmConf) -> Rendered {
    Rendered { text: arguments(vm).join(" ") + "\n", warnings: Vec::new() }
}

/// Two queues are one of each direction: a tap that was not made for several takes no more.
fn net(conf: &StaticNetworkConf) -> String {
    let mac = conf.vm_mac.map_or(String::new(), |mac| format!(",mac={mac}"));
    let mtu = conf.vm_mtu.map_or(String::new(), |mtu| format!(",mtu={mtu}"));
    format!("tap={}{mac}{mtu},num_queues=2", conf.tap_name)
}
