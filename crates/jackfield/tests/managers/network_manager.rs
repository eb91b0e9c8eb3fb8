//! NetworkManager, which has the primary interface.

use std::time::Instant;

use jackfield_lab::Instance;
use serde_json::json;

use crate::enclosure::{Enclosure, Program, are_installed};
use crate::harness::*;
use crate::seen::{interface, problem, removed_while};

const NETWORK_MANAGER: Program =
    Program { file: "/usr/sbin/NetworkManager", package: "network-manager" };
const NMCLI: Program = Program { file: "/usr/bin/nmcli", package: "network-manager" };
const OUR_RULE: &str = include_str!("../../../../packaging/udev/86-jackfield.rules");
const PRIMARY: &str = "11111111-2222-4333-8444-555555555555";

/// A stage in whose instance udev runs with these rules. None where a program is missing, which is
/// said.
fn stage(rules: &[(&str, &str)]) -> Option<Stage> {
    if !are_installed(&[NETWORK_MANAGER, NMCLI]) {
        return None;
    }
    let mut stage = Stage::new();
    stage.a.start_udev(rules).unwrap();
    Some(stage)
}

/// NetworkManager with the primary, as DHCP would have left it.
fn network_manager(a: &Instance) -> Enclosure<'_> {
    let mut enclosure = Enclosure::new(a, &["/etc/NetworkManager", "/var/lib"]);
    let main = "[main]\nplugins=keyfile\ndns=none\n";
    enclosure.write("/etc/NetworkManager/NetworkManager.conf", main);
    let [four, six] = [true, false].map(|four| {
        let address = a.primary().addresses().find(|address| address.is_ipv4() == four);
        address.unwrap().to_string()
    });
    let profile = format!(
        "[connection]\nid=primary\nuuid={PRIMARY}\ntype=ethernet\ninterface-name=eth0\n\
         [ipv4]\nmethod=manual\naddress1={four}/24,10.0.1.1\n\
         [ipv6]\nmethod=manual\naddress1={six}/64,fe80:ec2::1\n"
    );
    let file = "/etc/NetworkManager/system-connections/primary.nmconnection";
    enclosure.write(file, &profile);
    // It reads no profile that others can read.
    shell(a, &format!("chmod 600 {file}; mkdir -p /var/lib/NetworkManager"));
    start(&mut enclosure, a);
    enclosure
}

/// Starts it, or starts it again, and waits until it has the primary.
fn start(enclosure: &mut Enclosure<'_>, a: &Instance) {
    enclosure.start(NETWORK_MANAGER.file, &["--no-daemon"]);
    let end = Instant::now() + PATIENCE;
    let activate = || {
        let up = ["--wait", "10", "connection", "up", "uuid", PRIMARY];
        a.command(NMCLI.file).unwrap().args(up).output().unwrap()
    };
    loop {
        let output = activate();
        if output.status.success() {
            return;
        }
        assert!(Instant::now() < end, "NetworkManager: {output:?}: {}", enclosure.log());
    }
}

/// What NetworkManager says of a device.
fn state(a: &Instance, device: &str) -> String {
    let arguments = ["--get-values", "GENERAL.STATE", "device", "show", device];
    let output = a.command(NMCLI.file).unwrap().args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// It reconfigures, and starts again. Nobody is there to repair anything.
fn survives(stage: &Stage, mut enclosure: Enclosure<'_>, attached: &Attached) {
    let a = &stage.a;
    let removed = removed_while(a, || {
        shell(a, "nmcli general reload");
        shell(a, "nmcli connection reload");
        shell(a, &format!("nmcli --wait 10 connection up uuid {PRIMARY}"));
        start(&mut enclosure, a);
    });
    assert_eq!(removed, [], "{}", enclosure.log());
    assert_eq!(jackfield(a, &["plan"]).status.code(), Some(0));
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    assert_eq!(stage.lab.violations(), []);
}

#[test]
fn with_our_udev_rule_it_leaves_a_new_interface_alone_when_it_reconfigures_and_starts_again() {
    // The lab's interfaces are of another driver.
    let rule = OUR_RULE.replace("\"ena|", "\"veth|ena|");
    let Some(stage) = stage(&[("86-jackfield.rules", &rule)]) else { return };
    let a = &stage.a;
    let enclosure = network_manager(a);
    // What the agent's unit has.
    shell(a, "mkdir /run/jackfield");
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 2);
    configured_within(a, &attached, PATIENCE);
    eventually("it works", PATIENCE, || interface(&status(a), "eth1")["state"] == "configured");
    eventually("it is left alone", PATIENCE, || state(a, "eth1") == "10 (unmanaged)");
    assert_eq!(state(a, "eth0"), "100 (connected)");
    let told = status(a);
    assert_eq!(interface(&told, "eth1")["problems"], json!([]), "{told:#}");
    assert_eq!(told["neighbours"][0]["name"], "NetworkManager", "{told:#}");
    assert_eq!(told["neighbours"][0]["interfaces"], json!(["eth0"]), "{told:#}");
    agent.stop();
    survives(&stage, enclosure, &attached);
    // Whatever event comes later: neither is taken for the other.
    shell(a, "udevadm trigger --action=change --subsystem-match=net");
    shell(a, "udevadm trigger --action=add --subsystem-match=net && udevadm settle");
    let properties = |device| shell(a, &format!("udevadm info /sys/class/net/{device}"));
    assert!(properties("eth1").contains("ID_NET_MANAGED_BY=org.jackfield"));
    assert!(!properties("eth0").contains("ID_NET_MANAGED_BY"));
}

#[test]
fn without_it_an_interface_that_was_plugged_first_is_only_watched() {
    let Some(stage) = stage(&[]) else { return };
    let a = &stage.a;
    let attached = stage.attach(2, 1, 2);
    succeed(a, &["plug", "eth1"]);
    let enclosure = network_manager(a);
    eventually("it has seen it", PATIENCE, || state(a, "eth1").starts_with("100 (connected"));
    let told = status(a);
    assert_eq!(interface(&told, "eth1")["problems"], json!([]), "{told:#}");
    survives(&stage, enclosure, &attached);
}

#[test]
fn an_interface_that_it_had_first_works_and_status_says_who_has_it_too() {
    let Some(stage) = stage(&[]) else { return };
    let a = &stage.a;
    let _enclosure = network_manager(a);
    let attached = stage.attach(2, 1, 2);
    // It asks for an address by DHCP, as it does on whatever comes.
    eventually("it configures it", PATIENCE, || state(a, "eth1").contains("getting IP"));
    let agent = Agent::start(a);
    configured_within(a, &attached, PATIENCE);
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    let told = status(a);
    let also = problem(&interface(&told, "eth1"), "also-managed").unwrap();
    assert!(also["text"].as_str().unwrap().starts_with("NetworkManager configures it too"));
    agent.stop();
}
