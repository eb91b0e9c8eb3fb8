//! `networkd`: systemd's udevd and networkd read it in the guest, two interfaces of both families.

use serde_json::json;

use crate::guest::{COMMAND_LINE, Guest, Machine, kernel};
use crate::host::{Addresses, Host, Vm};
use crate::initramfs::Initramfs;
use crate::seen;

/// A host with a point-to-point network `alpha`, by which guests reach everything, and a bridge
/// `beta`, by which they reach 198.51.100.0/24 and 2001:db8:2::/48.
fn host_with_two_networks() -> Host {
    let outside = ["192.0.2.1/32", "198.51.100.1/32", "2001:db8:1::1/128", "2001:db8:2::1/128"];
    let host = Host::new(&outside);
    let alpha = Addresses {
        subnets: vec!["10.61.0.0/24", "fd61::/64"],
        routes: json!([{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }]),
        dns: json!({ "nameservers": ["9.9.9.9", "2620:fe::fe"], "search": ["alpha.example"] }),
    };
    host.configure("alpha", json!({ "type": "ptp", "mtu": 1400 }), &alpha);
    let beta = Addresses {
        subnets: vec!["10.62.0.0/24", "fd62::/64"],
        routes: json!([
            { "dst": "198.51.100.0/24", "gw": "10.62.0.1" },
            { "dst": "2001:db8:2::/48", "gw": "fd62::1" },
        ]),
        dns: json!({ "nameservers": ["10.62.0.1"], "search": ["beta.example", "example"] }),
    };
    let bridge = json!({ "type": "bridge", "bridge": "br0", "isGateway": true, "mtu": 1400 });
    host.configure("beta", bridge, &beta);
    host
}

/// Takes systemd's udevd and networkd along, as Debian has them.
fn add_networkd(initramfs: &mut Initramfs) {
    for program in ["/lib/systemd/systemd-udevd", "/lib/systemd/systemd-networkd", "/bin/udevadm"] {
        initramfs.program(program);
    }
    for rules in ["50-udev-default", "75-net-description", "80-net-setup-link"] {
        initramfs.copy(format!("/lib/udev/rules.d/{rules}.rules"));
    }
    initramfs.copy("/lib/systemd/network/99-default.link");
    let user = "systemd-network";
    let users = format!("root:x:0:0::/:/bin/sh\n{user}:x:998:998::/:/bin/sh\n");
    initramfs.file("/etc/passwd", 0o644, users.as_bytes());
    let groups = format!("root:x:0:\ntty:x:5:\n{user}:x:998:\n");
    initramfs.file("/etc/group", 0o644, groups.as_bytes());
    // Its DHCPv6 client, which waits for router advertisements, says who it is by this.
    initramfs.file("/etc/machine-id", 0o444, b"6a61636b6669656c6400000000000001\n");
    initramfs.file("/start/1-udev", 0o755, include_bytes!("guest/udev.sh"));
    initramfs.file("/start/3-networkd", 0o755, include_bytes!("guest/networkd.sh"));
}

/// The guest is on both networks of [`host_with_two_networks`], by networkd.
#[track_caller]
fn is_on_both_networks(guest: &mut Guest, vm: &Vm) {
    seen::has_what_the_plugins_said(guest, vm, 1400);
    let [alpha, beta] = [0, 1].map(|position| seen::name_of(guest, vm, position));

    // The first network's default route is the one that counts.
    for (outside, gateway, dev) in [
        ("192.0.2.1", "10.61.0.1", &alpha),
        ("2001:db8:1::1", "fd61::1", &alpha),
        ("198.51.100.1", "10.62.0.1", &beta),
        ("2001:db8:2::1", "fd62::1", &beta),
    ] {
        let way = (gateway.to_owned(), dev.clone());
        assert_eq!(seen::way_to(guest, outside), way, "{outside}: {}", guest.routes());
    }

    // What resolved would read.
    let expected = [
        (&alpha, "9.9.9.9 2620:fe::fe", "alpha.example"),
        (&beta, "10.62.0.1", "beta.example example"),
    ];
    for (name, servers, search) in expected {
        let state = guest
            .ask(&format!("cat /run/systemd/netif/links/$(cat /sys/class/net/{name}/ifindex)"));
        let lines: Vec<&str> = state.lines().collect();
        assert!(lines.contains(&format!("DNS={servers}").as_str()), "{name}: {state}");
        assert!(lines.contains(&format!("DOMAINS={search}").as_str()), "{name}: {state}");
    }

    seen::reaches(guest, &["10.61.0.1", "fd61::1", "10.62.0.1", "fd62::1"]);
    seen::reaches(guest, &["192.0.2.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1"]);
    seen::is_reached(guest, vm);
}

/// Writes the files into the guest that the printed text holds, each behind a line with its path.
fn add_files(initramfs: &mut Initramfs, printed: &str) {
    let mut files: Vec<(&str, String)> = Vec::new();
    for line in printed.lines() {
        match (line.strip_prefix("# "), files.last_mut()) {
            (Some(path), _) if path.starts_with('/') => files.push((path, String::new())),
            (_, Some((_, text))) => *text += &format!("{line}\n"),
            (_, None) => panic!("{line:?} is in no file"),
        }
    }
    assert!(!files.is_empty());
    for (path, text) in files {
        initramfs.file(path, 0o644, text.as_bytes());
    }
}

/// Boots a guest with two interfaces of both families on what `up` printed in a format, which
/// `furnish` puts into it, and has it tell.
pub(crate) fn boots_on_both_networks(format: &str, furnish: impl FnOnce(&mut Initramfs, &str)) {
    if kernel().is_none() {
        return;
    }
    let host = host_with_two_networks();
    let names = ["--vm-ifname", "front", "--vm-ifname", "back"];
    let vm = host.up(&["alpha", "beta"], format, &names);

    let mut initramfs = Initramfs::new();
    add_networkd(&mut initramfs);
    furnish(&mut initramfs, &vm.printed);
    let mut guest = Guest::boot(&vm, Machine::Pc, initramfs, COMMAND_LINE);
    is_on_both_networks(&mut guest, &vm);
    assert_eq!(seen::name_of(&mut guest, &vm, 0), "front");
    assert_eq!(seen::name_of(&mut guest, &vm, 1), "back");
    drop(guest);
    vm.down();
}

#[test]
#[ignore = "long: boots a guest"]
fn a_guest_with_two_interfaces_of_both_families_is_configured_by_networkd() {
    boots_on_both_networks("networkd", add_files);
}
