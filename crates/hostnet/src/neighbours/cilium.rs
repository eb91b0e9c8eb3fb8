//! Cilium: devices `cilium_host` and `cilium_net`. Interfaces are its own where it gives pods the
//! addresses of cloud interfaces (ENI mode): then it has a rule from each pod's address to the table
//! of its interface, 10 + number, at 111 (110 in old versions), of protocol kernel, or the one that
//! keeps node ports away from those, at 109 with mark 0x80/0x80
//! (pkg/datapath/linux/linux_defaults/linux_defaults.go).

use jackfield_kernel::{Link, Mark, RuleAction};

use super::Hold;
use crate::snapshot::{MAIN, Snapshot};

const DEVICES: [&str; 2] = ["cilium_host", "cilium_net"];
const EGRESS: [u32; 2] = [110, 111];
const NODE_PORT: u32 = 109;
const NODE_PORT_MARK: u32 = 0x80;
const FIRST_TABLE: u32 = 10;
/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    let there = |name: &&str| snapshot.links.iter().any(|link| link.name == **name);
    DEVICES.iter().all(there).then(|| format!("devices {}", DEVICES.join(", ")))
}

pub(super) fn hold(snapshot: &Snapshot, _: &Link) -> Option<Hold> {
    presence(snapshot)?;
    let mark = Some(Mark { value: NODE_PORT_MARK, mask: NODE_PORT_MARK });
    snapshot
        .rules
        .iter()
        .find(|rule| {
            let of_pod = EGRESS.contains(&rule.priority)
                && rule.source.is_some()
                && rule.protocol == KERNEL
                && matches!(rule.action, RuleAction::Table(FIRST_TABLE..MAIN));
            of_pod || rule.priority == NODE_PORT && rule.mark == mark
        })
        .map(|rule| Hold::Owns(format!("rule {} of ENI mode", rule.priority)))
}
