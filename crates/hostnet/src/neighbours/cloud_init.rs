//! cloud-init's hot-plug: where `updates.network.when` has `hotplug`, it installs a udev rule that
//! has each new interface configured (cloudinit/config/cc_install_hotplug.py; the rule began with 10-
//! up to 23, with 90- since).

use jackfield_kernel::Link;

use super::Hold;
use crate::snapshot::Snapshot;

const RULES: [&str; 2] = ["10-cloud-init-hook-hotplug.rules", "90-cloud-init-hook-hotplug.rules"];

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    RULES.iter().find_map(|rule| snapshot.neighbours.udev_rule(rule))
}

pub(super) fn hold(snapshot: &Snapshot, _: &Link) -> Option<Hold> {
    presence(snapshot).map(Hold::Owns)
}
