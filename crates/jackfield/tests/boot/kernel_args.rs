//! `kernel-args`: the kernel itself configures the guest, before anything else runs in it.

use serde_json::json;

use crate::guest::{COMMAND_LINE, Guest, Machine, kernel};
use crate::host::{Addresses, Host};
use crate::initramfs::Initramfs;
use crate::seen;

/// Boots a guest on a network that this plugin makes, by its command line alone, with this form of
/// `ip=`.
fn a_guest_is_on_its_network(plugin: serde_json::Value, machine: Machine, form: &str) {
    if kernel().is_none() {
        return;
    }
    let outside = "192.0.2.1";
    let host = Host::new(&["192.0.2.1/32"]);
    let addresses = Addresses {
        subnets: vec!["10.61.0.0/24"],
        routes: json!([{ "dst": "0.0.0.0/0" }]),
        dns: json!({ "nameservers": ["9.9.9.9", "1.1.1.1"] }),
    };
    host.configure("alpha", plugin, &addresses);
    let options = ["--kernel-args", COMMAND_LINE, "--ip-form", form];
    let vm = host.up(&["alpha"], "kernel-args", &options);

    let mut guest = Guest::boot(&vm, machine, Initramfs::new(), vm.printed.trim_end());
    seen::has_what_the_plugins_said(&mut guest, &vm, 1400);
    let routes = guest.routes();
    let has = |route: &str| routes.lines().any(|line| line.trim_end() == route);
    assert!(has("default via 10.61.0.1 dev eth0"), "{routes}");
    assert!(has("10.61.0.0/24 dev eth0 proto kernel scope link src 10.61.0.2"), "{routes}");
    let pnp = guest.ask("cat /proc/net/pnp");
    let servers: Vec<&str> = pnp.lines().filter(|line| line.starts_with("nameserver")).collect();
    assert_eq!(servers, ["nameserver 9.9.9.9", "nameserver 1.1.1.1"], "{pnp}");
    seen::reaches(&mut guest, &["10.61.0.1", outside]);
    seen::is_reached(&guest, &vm);
    drop(guest);
    vm.down();
}

#[test]
#[ignore = "long: boots a guest"]
fn a_guest_on_a_point_to_point_link_is_configured_by_its_command_line() {
    a_guest_is_on_its_network(json!({ "type": "ptp", "mtu": 1400 }), Machine::Pc, "every-reader");
}

#[test]
#[ignore = "long: boots a guest"]
fn the_form_of_the_go_sdk_configures_a_guest_in_the_same_way() {
    a_guest_is_on_its_network(json!({ "type": "ptp", "mtu": 1400 }), Machine::Pc, "go-sdk");
}

#[test]
#[ignore = "long: boots a guest"]
fn a_guest_on_a_bridge_is_configured_by_its_command_line() {
    let bridge = json!({ "type": "bridge", "bridge": "br0", "isGateway": true, "mtu": 1400 });
    a_guest_is_on_its_network(bridge, Machine::Microvm, "every-reader");
}
