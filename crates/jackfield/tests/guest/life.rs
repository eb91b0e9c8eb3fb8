//! The life of a VM's network: up, check, traffic through the tap, down, nothing left.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::conf::FORMATS;
use crate::machine::Machine;
use crate::responder::{Guest, reaches};

/// How long a guest may take to answer the first time: duplicate address detection is part of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The addresses of an interface, without prefix lengths.
fn addresses(interface: &Value) -> Vec<IpAddr> {
    let ips = interface["vm_ips"].as_array().unwrap();
    let parse = |ip: &Value| ip["address"].as_str().unwrap().split('/').next()?.parse().ok();
    ips.iter().map(|ip| parse(ip).unwrap()).collect()
}

/// Each interface answers as the guest that was configured with what was printed.
fn assert_traffic(machine: &Machine, interfaces: &[Value]) {
    let guests: Vec<_> = (interfaces.iter())
        .map(|it| {
            let mac = it["vm_mac"].as_str().unwrap();
            Guest::start(machine.open_tap(it), mac, addresses(it))
        })
        .collect();
    for interface in interfaces {
        for address in addresses(interface) {
            let mtu = usize::try_from(interface["vm_mtu"].as_u64().unwrap()).unwrap();
            let headers = if address.is_ipv4() { 28 } else { 48 };
            for octets in [1, mtu - headers] {
                let reached = reaches(&machine.network, address, octets, PATIENCE);
                assert!(reached, "{address}, {octets} octets");
            }
        }
    }
    drop(guests);
}

#[test]
fn a_vm_is_up_answers_through_its_tap_and_leaves_nothing() {
    let machine = Machine::new();
    let before = machine.state();
    let conf = machine.json(&["up", "vm1", "--network", "one"]);
    let interface = &conf["interfaces"][0];
    assert_eq!(conf["version"], 1);
    assert_eq!(interface["netns_path"], "/var/run/netns/vm1");
    assert_eq!(interface["vm_if_name"], "eth0");
    assert_eq!(interface["vm_mtu"], 1500);
    assert_eq!(interface["vm_ips"], json!([{"address": "10.80.0.2/16", "gateway": "10.80.0.1"}]));
    assert_eq!(interface["vm_nameservers"], json!(["1.1.1.1", "8.8.8.8"]));
    assert_traffic(&machine, conf["interfaces"].as_array().unwrap());
    assert_eq!(machine.succeed(&["check", "vm1"]), "VM vm1 is as it was made\n");
    assert_eq!(machine.succeed(&["down", "vm1"]), "");
    machine.assert_is(&before, "up and down");
}

#[test]
fn several_networks_are_several_interfaces_of_both_families() {
    let machine = Machine::new();
    // Makes the bridge, which stays.
    machine.succeed(&["up", "first", "--network", "bridged"]);
    machine.succeed(&["down", "first"]);
    let before = machine.state();
    let up = ["up", "vm1", "--network", "dual", "--network", "bridged", "--vm-ifname", "ens3"];
    let conf = machine.json(&up);
    let interfaces = conf["interfaces"].as_array().unwrap();
    let [dual, bridged] = &interfaces[..] else { panic!("{conf}") };
    assert_eq!((&dual["vm_if_name"], &bridged["vm_if_name"]), (&json!("ens3"), &json!("eth1")));
    assert_eq!((&dual["vm_mtu"], &bridged["vm_mtu"]), (&json!(1400), &json!(1500)));
    assert_eq!((addresses(dual).len(), addresses(bridged).len()), (2, 2));
    assert_traffic(&machine, interfaces);
    machine.succeed(&["check", "vm1"]);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "up and down");
}

#[test]
fn the_tap_belongs_to_whom_the_flags_say_and_is_called_as_they_say() {
    let machine = Machine::new();
    let up = [
        "up",
        "vm1",
        "--network",
        "one",
        "--uid",
        "1234",
        "--gid",
        "1235",
        "--arg",
        "TC_REDIRECT_TAP_NAME=mytap",
        "--ifname",
        "veth9",
        "--mtu",
        "1280",
    ];
    let conf = machine.json(&up);
    assert_eq!(conf["interfaces"][0]["tap_name"], "mytap");
    assert_eq!(conf["interfaces"][0]["vm_mtu"], 1280);
    let tap = machine.shell("ip netns exec vm1 ip -details link show mytap");
    assert!(tap.contains("user 1234 group 1235"), "{tap}");
    machine.shell("ip netns exec vm1 ip link show veth9");
    machine.succeed(&["check", "vm1"]);
    machine.succeed(&["down", "vm1"]);
}

#[test]
fn capability_arguments_reach_the_plugins_that_ask_for_them() {
    let machine = Machine::new();
    machine.install(
        "recorder",
        "cat > /run/stdin.$CNI_COMMAND; [ $CNI_COMMAND = ADD ] || exit 0
         sed 's/.*\"prevResult\"://; s/}$//' /run/stdin.ADD | head -c 100000 > /run/rest
         echo '{\"cniVersion\":\"1.0.0\"}'",
    );
    machine.configure(
        "caps",
        vec![json!({
            "type": "recorder", "capabilities": {"mac": true, "ips": false},
        })],
    );
    // The result is none for a VM, which is not what this is about.
    let output = machine.vm(&[
        "up",
        "vm1",
        "--network",
        "caps",
        "--cap",
        "mac=\"02:00:00:00:00:07\"",
        "--cap",
        "ips=[]",
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stdin = machine.run(|| std::fs::read_to_string("/run/stdin.ADD").unwrap());
    let stdin: Value = serde_json::from_str(&stdin).unwrap();
    assert_eq!(stdin["runtimeConfig"], json!({"mac": "02:00:00:00:00:07"}));
}

#[test]
fn a_namespace_that_was_there_stays_as_it_was() {
    let machine = Machine::new();
    machine.shell("ip netns add mine; ip -n mine link add keep type bridge");
    let inside = "ip -n mine -details link | sed 's/qdisc.*//'; tc -n mine qdisc";
    let (before, state) = (machine.shell(inside), machine.state());
    let conf = machine.json(&["up", "vm1", "--network", "one", "--netns", "/run/netns/mine"]);
    assert_eq!(conf["interfaces"][0]["netns_path"], "/run/netns/mine");
    machine.succeed(&["check", "vm1"]);
    let list = machine.json(&["list", "--json"]);
    assert_eq!(list["vms"][0]["netns"], "given");
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&state, "up and down");
    assert_eq!(machine.shell(inside), before);
}

#[test]
fn two_vms_share_a_namespace_that_was_there() {
    let machine = Machine::new();
    // Without routes, which would be the same ones twice.
    for (name, subnet) in [("left", "10.94.0.0/24"), ("right", "10.95.0.0/24")] {
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": subnet}]]});
        let bridge = json!({"type": "bridge", "bridge": "br-plain", "ipam": ipam});
        machine.configure(name, vec![bridge, json!({"type": "tc-redirect-tap"})]);
    }
    machine.shell("ip netns add mine; ip link add br-plain address 02:00:00:00:00:94 type bridge");
    let before = machine.state();
    let up = |vm, network, ifname| {
        let netns = ["--netns", "/run/netns/mine", "--ifname", ifname];
        machine.json(&[&["up", vm, "--network", network], &netns[..]].concat())
    };
    let (one, two) = (up("vm1", "left", "eth1"), up("vm2", "right", "eth2"));
    assert_ne!(one["interfaces"][0]["tap_name"], two["interfaces"][0]["tap_name"]);
    // A third fails, and takes nothing of them away.
    let third =
        ["up", "vm3", "--network", "left", "--netns", "/run/netns/mine", "--ifname", "eth2"];
    machine.refuses(&third, 1, &["/run/netns/mine has an interface eth2 already", "--ifname"]);
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    machine.succeed(&["check", "vm1"]);
    machine.succeed(&["down", "vm1"]);
    machine.succeed(&["check", "vm2"]);
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    machine.succeed(&["down", "vm2"]);
    machine.assert_is(&before, "both are down");
    assert!(!machine.shell("ip -n mine link show lo").contains("alias"));
}

#[test]
fn what_up_was_given_is_found_again_without_it() {
    let machine = Machine::new();
    machine.shell(
        "mkdir -p /var/lib/elsewhere /etc/other; mv /opt/cni/bin /opt/plugins; \
         mv /etc/cni/conf.d/one.conflist /etc/other/",
    );
    machine.shell("ip netns add mine");
    let before = machine.state();
    for netns in ["/run/mynetns", "/run/netns/mine"] {
        let up = [
            "up",
            "vm1",
            "--network",
            "one",
            "--conf-dir",
            "/etc/other",
            "--plugin-dir",
            "/opt/plugins",
            "--plugin-dir",
            "/usr/lib/cni",
            "--cache-dir",
            "/var/lib/elsewhere/c",
            "--netns",
            netns,
        ];
        machine.succeed(&up);
        machine.succeed(&["check", "vm1"]);
        assert_eq!(machine.json(&["list", "--json"])["vms"][0]["state"], "up");
        assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
        machine.succeed(&["down", "vm1"]);
        machine.assert_is(&before, netns);
    }
}

#[test]
fn every_format_can_be_printed_by_up() {
    let machine = Machine::new();
    for format in FORMATS {
        let text = machine.succeed(&["up", "vm1", "--network", "one", "--format", format]);
        assert!(!text.is_empty(), "{format}");
        machine.succeed(&["down", "vm1"]);
    }
    // No address may be lost: then nothing is made.
    let before = machine.state();
    machine.refuses(
        &["up", "vm1", "--network", "dual", "--format", "ip"],
        1,
        &["IPv4", "networkd"],
    );
    let strict = ["up", "vm1", "--network", "one", "--format", "ip", "--strict"];
    machine.refuses(&strict, 1, &["MTU", "--strict"]);
    machine.assert_is(&before, "refused");
}

#[test]
fn a_vm_is_listed_with_what_it_has() {
    let machine = Machine::new();
    assert_eq!(machine.json(&["list", "--json"]), json!({"version": 1, "vms": []}));
    assert_eq!(machine.succeed(&["list"]), "no VM has a network here\n");
    let conf = machine.json(&["up", "vm1", "--network", "one"]);
    machine.succeed(&["up", "vm2", "--network", "one", "--network", "dual"]);
    let list = machine.json(&["list", "--json"]);
    let vms = list["vms"].as_array().unwrap();
    assert_eq!(vms.len(), 2, "{list}");
    let expected = json!({
        "id": "vm1", "state": "up", "busy": false, "netns_path": "/var/run/netns/vm1", "netns": "made",
        "networks": [{
            "network": "one", "ifname": "eth0", "interface": conf["interfaces"][0],
            "cache_dir": "/var/lib/cni",
        }],
        "problems": [],
    });
    assert_eq!(vms[0], expected);
    assert_eq!(vms[1]["networks"].as_array().unwrap().len(), 2);
    let text = machine.succeed(&["list"]);
    assert!(
        text.lines().any(|line| line.starts_with("vm1") && line.contains("10.80.0.2/16")),
        "{text}"
    );
    machine.succeed(&["down", "vm1"]);
    machine.succeed(&["down", "vm2"]);
}
