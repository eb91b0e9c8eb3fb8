//! Who else on this host thinks that its interfaces are his, and by which evidence that is known.
//!
//! [`Disk::read`] reads what neighbours leave on disk; everything else here is pure. What of it is
//! about an interface that has just appeared follows from files that were there before, so nothing
//! is read when one is plugged. Each neighbour is a file; what is looked for, and what is done about
//! it, is in `docs/neighbours.md`.

mod cilium;
mod cloud_init;
mod disk;
mod ec2_net_utils;
mod ecs;
mod ifupdown;
mod keyed;
mod network_manager;
mod networkd;
mod vpc_cni;

use std::borrow::Cow;
use std::collections::BTreeSet;

use jackfield_kernel::Link;
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

pub use disk::Disk;
pub(crate) use ec2_net_utils::networks as amazon_networks;
pub(crate) use networkd::has as networkd_has;

/// What a neighbour has to do with an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// It is its own: by its nature it takes every secondary interface, or somebody wrote a
    /// configuration for just this one. The evidence.
    Owns(String),
    /// It configures it too, by a configuration that matches whatever comes. The evidence.
    Joins(String),
}

/// One that is on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Its name.
    pub name: Cow<'static, str>,
    /// By what it is known to be here.
    pub evidence: String,
    /// The interfaces that it owns or configures too.
    pub interfaces: Vec<String>,
}

/// A hold of a neighbour on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The neighbour's name.
    pub name: &'static str,
    /// What it has to do with the interface.
    pub hold: Hold,
    /// How it is made to leave the interface alone.
    pub cure: &'static str,
    /// Whether it can be seen here that it does so.
    pub cure_is_seen: bool,
}

struct Neighbour {
    name: &'static str,
    cure: &'static str,
    /// By what it is known to be here.
    presence: fn(&Snapshot) -> Option<String>,
    /// What it has to do with an interface.
    hold: fn(&Snapshot, &Link) -> Option<Hold>,
}

/// In the order in which they are asked: who takes interfaces whatever else is configured comes
/// first.
const NEIGHBOURS: [Neighbour; 8] = [
    Neighbour {
        name: "vpc-cni",
        cure: "give the interface the tag node.k8s.amazonaws.com/no_manage=true before it is \
               attached",
        presence: vpc_cni::presence,
        hold: vpc_cni::hold,
    },
    Neighbour {
        name: "cilium",
        cure: "give the interface a tag that exclude-interface-tags of Cilium's ENI mode names",
        presence: cilium::presence,
        hold: cilium::hold,
    },
    Neighbour {
        name: "ecs",
        cure: "make sure that it is no interface of a task (ECS_ENABLE_TASK_ENI=false: there is none)",
        presence: ecs::presence,
        hold: ecs::hold,
    },
    Neighbour {
        name: "amazon-ec2-net-utils",
        cure: "take its interfaces over with 'jackfield import --remove', or mask its udev rule: ln -s \
               /dev/null /etc/udev/rules.d/99-vpc-policy-routes.rules",
        presence: ec2_net_utils::presence,
        hold: ec2_net_utils::hold,
    },
    Neighbour {
        name: "cloud-init",
        cure: "take 'hotplug' out of updates.network.when in cloud-init's configuration, and remove \
               its udev rule",
        presence: cloud_init::presence,
        hold: cloud_init::hold,
    },
    Neighbour {
        name: "systemd-networkd",
        cure: "have networkd leave the interface alone: a .network file before its own that matches \
               it, with Unmanaged=yes in [Link]",
        presence: networkd::presence,
        hold: networkd::hold,
    },
    Neighbour {
        name: "NetworkManager",
        cure: "have NetworkManager leave the interface alone: unmanaged-devices in [keyfile] of \
               /etc/NetworkManager/conf.d, and no profile for it",
        presence: network_manager::presence,
        hold: network_manager::hold,
    },
    Neighbour {
        name: "ifupdown",
        cure: "'ifdown' the interface and take it out of /etc/network/interfaces",
        presence: ifupdown::presence,
        hold: ifupdown::hold,
    },
];

/// The neighbour whose own a secondary interface is.
pub(crate) fn owner(snapshot: &Snapshot, link: &Link) -> Option<Holder> {
    holders(snapshot, link).find(|holder| matches!(holder.hold, Hold::Owns(_)))
}

/// Everybody who has to do with an interface, owners and others.
pub fn holders<'a>(snapshot: &'a Snapshot, link: &'a Link) -> impl Iterator<Item = Holder> + 'a {
    NEIGHBOURS.iter().filter_map(|neighbour| {
        let hold = (neighbour.hold)(snapshot, link)?;
        let (name, cure) = (neighbour.name, neighbour.cure);
        let cure_is_seen = !["vpc-cni", "cilium", "ecs"].contains(&name);
        Some(Holder { name, hold, cure, cure_is_seen })
    })
}

/// Everybody who is here, and what they have to do with the interfaces that may be cloud interfaces.
/// Of the primary's, only what is known of itself counts: nobody takes it for being a secondary.
pub fn present(snapshot: &Snapshot, primary: Option<u32>) -> Vec<Presence> {
    let holds = |neighbour: &Neighbour, link: &Link| {
        let hold = (neighbour.hold)(snapshot, link);
        hold.is_some() && (Some(link.index) != primary || !takes_every(neighbour.name))
    };
    let present = NEIGHBOURS.iter().filter_map(|neighbour| {
        let candidates = snapshot.candidates().map(|candidate| candidate.link);
        Some(Presence {
            name: neighbour.name.into(),
            evidence: (neighbour.presence)(snapshot)?,
            interfaces: candidates
                .filter(|link| holds(neighbour, link))
                .map(|link| link.name.clone())
                .collect(),
        })
    });
    present.collect()
}

/// Whether it takes interfaces because they are secondary ones.
fn takes_every(name: &str) -> bool {
    ["vpc-cni", "cilium", "ecs", "amazon-ec2-net-utils", "cloud-init"].contains(&name)
}

/// Who on this host is known to delete rules or routes that are not its own, and how it is cured.
pub fn deleter(snapshot: &Snapshot) -> Option<(&'static str, String, &'static str)> {
    let what = networkd::deletes(&snapshot.neighbours)?;
    let text = format!(
        "systemd-networkd runs here, and deletes {what} that are not its own whenever it \
         configures an interface or starts"
    );
    let cure = "put ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no into [Network] of \
                /etc/systemd/networkd.conf.d/50-jackfield.conf (packaging/networkd), and restart \
                systemd-networkd";
    Some(("systemd-networkd", text, cure))
}

/// The names of an interface.
fn names(link: &Link) -> BTreeSet<&str> {
    std::iter::once(link.name.as_str())
        .chain(link.alternative_names.iter().map(String::as_str))
        .collect()
}

/// Whether the text is the MAC of the interface, however it is written.
fn is_mac_of(text: &str, link: &Link) -> bool {
    let digits = |text: &str| -> String {
        text.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_ascii_lowercase()).collect()
    };
    let mac = link.address.map(|mac| mac.map(|octet| format!("{octet:02x}")).concat());
    mac.is_some_and(|mac| mac == digits(text))
}

/// Whether the last part of a path says that jackfield wrote the file.
fn is_ours(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|name| name.contains("jackfield"))
}

#[cfg(test)]
pub(crate) mod tests {
    use jackfield_kernel::Link;

    pub(crate) fn link(index: u32, name: &str) -> Link {
        let last = u8::try_from(index).unwrap_or(0);
        Link {
            index,
            name: name.to_owned(),
            alternative_names: Vec::new(),
            kind: None,
            ethernet: true,
            address: Some([0x02, 0xec, 0x20, 0, 0, last]),
            up: true,
            carrier: true,
            mtu: 1500,
            min_mtu: 68,
            max_mtu: 0,
            group: 0,
            alias: None,
            controller: None,
            lower: None,
            lower_elsewhere: false,
            parent_device: None,
        }
    }
}
