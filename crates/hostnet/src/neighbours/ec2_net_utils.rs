//! amazon-ec2-net-utils: its udev rule starts `policy-routes@NAME.service` for each interface, which
//! links /run/systemd/network/70-NAME.network to its own file and has networkd read it
//! (udev/99-vpc-policy-routes.rules, lib/lib.sh).

use jackfield_kernel::Link;

use super::Hold;
use crate::snapshot::Snapshot;

const RULE: &str = "99-vpc-policy-routes.rules";

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    snapshot.neighbours.udev_rule(RULE)
}

pub(super) fn hold(snapshot: &Snapshot, link: &Link) -> Option<Hold> {
    let rule = presence(snapshot)?;
    let mut made = networks(&link.name).into_iter();
    let made = made.find(|path| snapshot.neighbours.text(path).is_some());
    Some(Hold::Owns(made.unwrap_or(rule)))
}

/// Where it has networkd read of an interface; the second is what Debian's package has made of it.
pub(crate) fn networks(interface: &str) -> [String; 2] {
    ["70", "07"].map(|order| format!("/run/systemd/network/{order}-{interface}.network"))
}
