//! Each neighbour is known by its evidence: hosts that were recorded, or made from the neighbours'
//! sources, replayed from files. See `neighbours/README.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jackfield_hostnet::Snapshot;
use jackfield_hostnet::neighbours::{Disk, Hold, deleter, holders, present};
use jackfield_kernel::{Family, Link, Mark, Rule, RuleAction};
use serde_json::Value;

const PRIMARY: u32 = 2;

fn folder(host: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/neighbours").join(host)
}

/// A host as it was when it was recorded.
fn host(name: &str) -> Snapshot {
    let list = |file: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder(name).join(file)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let mut snapshot =
        Snapshot { links: list("links.json").iter().map(link).collect(), ..Snapshot::default() };
    let primary = snapshot.link(PRIMARY).unwrap().kind.clone();
    snapshot.device_kinds = vec![primary.unwrap_or("physical".to_owned())];
    for family in Family::BOTH {
        let rules = list(&format!("rules{}.json", family.number()));
        snapshot.rules.extend(rules.iter().map(|value| rule(value, family)));
    }
    let indices = snapshot.links.iter().map(|link| link.index).collect::<BTreeSet<u32>>();
    snapshot.neighbours = Disk::read(&folder(name).join("root"), &indices);
    snapshot
}

fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn link(value: &Value) -> Link {
    let text = |key: &str| value[key].as_str().map(ToOwned::to_owned);
    let flag = |flag: &str| value["flags"].as_array().unwrap().contains(&flag.into());
    let octets = text("address").unwrap();
    let octets = octets.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
    Link {
        index: number(&value["ifindex"]),
        name: text("ifname").unwrap(),
        alternative_names: Vec::new(),
        kind: value["linkinfo"]["info_kind"].as_str().map(ToOwned::to_owned),
        ethernet: value["link_type"] == "ether",
        address: octets.collect::<Vec<u8>>().try_into().ok(),
        up: flag("UP"),
        carrier: flag("LOWER_UP"),
        mtu: number(&value["mtu"]),
        min_mtu: 0,
        max_mtu: 0,
        group: 0,
        alias: text("ifalias"),
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    }
}

fn rule(value: &Value, family: Family) -> Rule {
    let hexadecimal = |key: &str| {
        let text = value[key].as_str()?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    };
    let net = |key: &str| -> Option<IpNet> {
        let text = value[key].as_str()?;
        text.parse().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()))
    };
    let table = value["table"].as_str().unwrap().parse().unwrap();
    Rule {
        source: net("src"),
        destination: net("dst"),
        mark: hexadecimal("fwmark")
            .map(|value| Mark { value, mask: hexadecimal("fwmask").unwrap() }),
        protocol: value["protocol"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0),
        ..Rule::new(family, number(&value["priority"]), RuleAction::Table(table))
    }
}

/// Who is there, by what, with which interfaces; and what each has to do with each secondary.
fn seen(name: &str) -> Vec<String> {
    let host = host(name);
    let mut seen: Vec<String> = present(&host, Some(PRIMARY))
        .iter()
        .map(|it| format!("{} by {}: {}", it.name, it.evidence, it.interfaces.join(" ")))
        .collect();
    for link in host.links.iter().filter(|link| link.name.starts_with("eth")) {
        for holder in holders(&host, link).filter(|_| link.index != PRIMARY) {
            let (what, evidence) = match holder.hold {
                Hold::Owns(evidence) => ("owns", evidence),
                Hold::Joins(evidence) => ("joins", evidence),
            };
            seen.push(format!("{} {what} {}: {evidence}", holder.name, link.name));
        }
    }
    seen
}

#[test]
fn systemd_networkd() {
    let links = "/run/systemd/netif/links";
    assert_eq!(
        seen("networkd"),
        [
            "systemd-networkd by /run/systemd/netif/state: eth0 eth1 eth2".to_owned(),
            format!(
                "systemd-networkd joins eth1: {links}/3: configured by \
                 /etc/systemd/network/90-all.network"
            ),
            format!(
                "systemd-networkd owns eth2: {links}/4: configured by \
                 /etc/systemd/network/60-eth2.network"
            ),
        ]
    );
}

/// What is only just there has no state yet: what is configured tells what becomes of it.
#[test]
fn systemd_networkd_is_known_before_it_has_seen_an_interface() {
    let mut host = host("networkd");
    for (index, name, hold) in [
        (9, "eth9", Some(Hold::Joins("/etc/systemd/network/90-all.network".to_owned()))),
        (8, "eth3", None),
        (7, "tap0", None),
    ] {
        let mut link = host.links[2].clone();
        (link.index, link.name) = (index, name.to_owned());
        link.address = Some([2, 0, 0, 0, 0, 9]);
        host.links.push(link.clone());
        assert_eq!(holders(&host, &link).next().map(|holder| holder.hold), hold, "{name}");
    }
    let mut moved = host.links[3].clone();
    moved.index = 10;
    let owned = Hold::Owns("/etc/systemd/network/60-eth2.network".to_owned());
    assert_eq!(holders(&host, &moved).next().map(|holder| holder.hold), Some(owned));
}

#[test]
fn network_manager() {
    // What eth0 had before it came, it only watches.
    let connections = "/etc/NetworkManager/system-connections";
    assert_eq!(
        seen("NetworkManager"),
        [
            "NetworkManager by /run/NetworkManager/devices/1: eth1 eth2".to_owned(),
            "NetworkManager joins eth1: /run/NetworkManager/devices/3: managed".to_owned(),
            format!("NetworkManager owns eth2: {connections}/eth2.nmconnection"),
        ]
    );
}

#[test]
fn ifupdown() {
    assert_eq!(
        seen("ifupdown"),
        [
            "ifupdown by /run/network/ifstate: eth1 eth2",
            "ifupdown joins eth1: /run/network/interfaces.d/eth1: iface eth1",
            "ifupdown owns eth2: /etc/network/interfaces.d/eth2: iface eth2",
        ]
    );
}

/// Who takes every secondary interface does so before it has one.
#[track_caller]
fn takes_every(host: &str, name: &str, evidence: &str) {
    let seen: Vec<String> = seen(host).into_iter().filter(|line| line.starts_with(name)).collect();
    let of_interface = match name {
        "cilium" => "rule 109 of ENI mode",
        "amazon-ec2-net-utils" => "/run/systemd/network/70-eth1.network",
        _ => evidence,
    };
    let expected =
        [format!("{name} by {evidence}: eth1"), format!("{name} owns eth1: {of_interface}")];
    assert_eq!(seen, expected, "{host}");
}

#[test]
fn vpc_cni() {
    takes_every("vpc-cni", "vpc-cni", "rule 1024: fwmark 0x80/0x80 lookup main");
    takes_every("vpc-cni-external-snat", "vpc-cni", "/run/aws-node/ipam.json");
}

#[test]
fn ecs() {
    takes_every("ecs", "ecs", "device ecs-bridge");
    takes_every("ecs-before-its-first-task", "ecs", "/var/lib/ecs/data/agent.db");
}

#[test]
fn cilium() {
    takes_every("cilium-eni", "cilium", "devices cilium_host, cilium_net");
    assert_eq!(seen("cilium-overlay"), ["cilium by devices cilium_host, cilium_net: "]);
}

#[test]
fn amazon_ec2_net_utils() {
    let rule = "/usr/lib/udev/rules.d/99-vpc-policy-routes.rules";
    takes_every("amazon-ec2-net-utils", "amazon-ec2-net-utils", rule);
    assert_eq!(seen("amazon-ec2-net-utils-masked"), [""; 0]);
}

#[test]
fn cloud_init() {
    let rules = "/etc/udev/rules.d";
    let of = |number: u32| format!("{rules}/{number}-cloud-init-hook-hotplug.rules");
    takes_every("cloud-init-22", "cloud-init", &of(10));
    takes_every("cloud-init-24", "cloud-init", &of(90));
}

#[test]
fn configuration_of_a_manager_that_does_not_run_is_no_neighbour() {
    assert_eq!(seen("nobody"), [""; 0]);
    assert_eq!(deleter(&host("nobody")), None);
}

#[test]
fn systemd_networkd_deletes_what_is_not_its_own_unless_told_otherwise() {
    let deletes = |files: &[(&str, &str)]| {
        let root = std::env::temp_dir().join(format!("jackfield-networkd-{}", std::process::id()));
        for (path, text) in files.iter().chain(&[("run/systemd/netif/state", "")]) {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let neighbours = Disk::read(&root, &BTreeSet::new());
        std::fs::remove_dir_all(root).unwrap();
        deleter(&Snapshot { neighbours, ..Snapshot::default() }).map(|(_, text, _)| text)
    };
    let has = |text: Option<String>, what: &str| text.is_some_and(|text| text.contains(what));
    let ours = include_str!("../../../packaging/networkd/50-jackfield.conf");
    let rules_only = "[Network]\nManageForeignRoutingPolicyRules=no\n";
    assert!(has(deletes(&[]), "deletes rules and routes that"));
    assert_eq!(deletes(&[("usr/lib/systemd/networkd.conf.d/50-jackfield.conf", ours)]), None);
    assert_eq!(deletes(&[("etc/systemd/networkd.conf", ours)]), None);
    assert!(has(deletes(&[("etc/systemd/networkd.conf", rules_only)]), "deletes routes that"));
    // A later drop-in takes it back; one of the same name replaces ours.
    let back = "[Network]\nManageForeignRoutes=yes\n";
    let later = ("etc/systemd/networkd.conf.d/90-local.conf", back);
    let packaged = ("usr/lib/systemd/networkd.conf.d/50-jackfield.conf", ours);
    assert!(has(deletes(&[packaged, later]), "deletes routes that"));
    let masked = ("etc/systemd/networkd.conf.d/50-jackfield.conf", "");
    assert!(has(deletes(&[packaged, masked]), "deletes rules and routes that"));
}
