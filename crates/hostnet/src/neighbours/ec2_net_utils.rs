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
    let made = format!("/run/systemd/network/70-{}.network", link.name);
    let evidence = if snapshot.neighbours.text(&made).is_some() { made } else { rule };
    Some(Hold::Owns(evidence))
}
