//! `down` with half of it gone, `up` that fails halfway, `check` of what was changed.

use crate::machine::Machine;
use serde_json::{Value, json};

/// A machine with a VM that is up, and what it was before.
fn with_vm(networks: &[&str]) -> (Machine, crate::machine::State) {
    let machine = Machine::new();
    let before = machine.state();
    let mut up = vec!["up", "vm1"];
    networks.iter().for_each(|network| up.extend(["--network", network]));
    machine.succeed(&up);
    (machine, before)
}

#[test]
fn a_deleted_namespace_keeps_nothing_from_being_taken_down() {
    let (machine, before) = with_vm(&["one", "dual"]);
    machine.shell("ip netns delete vm1");
    let output = machine.vm(&["check", "vm1"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stdout, b"VM vm1: its network namespace is gone\n");
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down");
}

#[test]
fn another_namespace_in_its_place_is_left_alone() {
    let (machine, _) = with_vm(&["one"]);
    machine.shell(
        "ip netns delete vm1; ip netns add vm1; ip -n vm1 link add eth0 type bridge; \
         ip -n vm1 link set eth0 up",
    );
    machine.succeed(&["down", "vm1"]);
    machine.shell("ip -n vm1 link show eth0");
    assert_eq!(machine.leases(), Vec::<String>::new());
}

#[test]
fn a_deleted_configuration_keeps_nothing_from_being_taken_down() {
    let (machine, before) = with_vm(&["one"]);
    machine.shell("rm -r /etc/cni");
    machine.succeed(&["check", "vm1"]);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down");
}

#[test]
fn a_configuration_that_was_changed_is_not_what_it_is_taken_down_with() {
    let (machine, before) = with_vm(&["one"]);
    machine.configure("one", vec![json!({"type": "bridge"})]);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down");
}

#[test]
fn an_uninstalled_plugin_is_told_of_and_the_rest_is_done() {
    let (machine, before) = with_vm(&["one", "dual"]);
    machine.shell("mv /opt/cni/bin/tc-redirect-tap /opt/");
    let said = ["VM vm1", "tc-redirect-tap", "not installed", "network one", "network dual"];
    machine.refuses(&["down", "vm1"], 1, &said);
    assert_eq!(machine.leases(), Vec::<String>::new());
    assert!(machine.vm(&["list"]).stdout.starts_with(b"VM"), "it is not forgotten");
    machine.shell("mv /opt/tc-redirect-tap /opt/cni/bin/");
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down");
}

#[test]
fn what_is_not_there_is_down_already() {
    let (machine, before) = with_vm(&["one"]);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down");
    for _ in 0..2 {
        let output = machine.vm(&["down", "vm1"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b""[..]));
        assert_eq!(stderr, "jackfield: there is no VM vm1: nothing to do\n");
    }
    let down = machine.json(&["down", "vm1", "--json"]);
    assert_eq!(down, json!({"version": 1, "id": "vm1", "was_there": false, "failed": []}));
    machine.assert_is(&before, "down twice");
}

#[test]
fn a_second_network_that_fails_undoes_the_first() {
    let machine = Machine::new();
    machine.configure(
        "full",
        vec![
            json!({"type": "ptp", "ipam": {"type": "host-local", "ranges": [[
            {"subnet": "10.90.0.0/29", "rangeStart": "10.90.0.2", "rangeEnd": "10.90.0.2"}]]}}),
            json!({"type": "tc-redirect-tap"}),
        ],
    );
    machine.succeed(&["up", "other", "--network", "full"]);
    let before = machine.state();
    let up = ["up", "vm1", "--network", "one", "--network", "full"];
    machine.refuses(&up, 1, &["network full", "ADD by plugin ptp", "no IP addresses available"]);
    machine.assert_is(&before, "failed");
    // Also in a namespace that was there.
    machine.shell("ip netns add mine");
    let before = machine.state();
    let up = [&up[..], &["--netns", "/run/netns/mine"]].concat();
    machine.refuses(&up, 1, &["no IP addresses available"]);
    machine.assert_is(&before, "failed in a namespace that was there");
    assert_eq!(machine.shell("ip -n mine -brief link").lines().count(), 1);
    assert!(!machine.shell("ip -n mine link show lo").contains("alias"));
}

#[test]
fn a_result_that_is_not_for_a_vm_is_undone() {
    let machine = Machine::new();
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.91.0.0/24"}]]});
    machine.configure("container", vec![json!({"type": "ptp", "ipam": ipam})]);
    let before = machine.state();
    let said = ["network container", "no interface for the VM", "tc-redirect-tap"];
    machine.refuses(&["up", "vm1", "--network", "container"], 1, &said);
    machine.assert_is(&before, "failed");
}

#[test]
fn a_result_that_cannot_be_printed_is_undone() {
    let machine = Machine::new();
    let before = machine.state();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut up = machine.command(crate::machine::JACKFIELD);
    let output = up.args(["vm", "up", "vm1", "--network", "one"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    machine.assert_is(&before, "not printed");
}

#[test]
fn a_vm_that_runs_is_not_replaced_and_one_that_does_not_is() {
    let (machine, before) = with_vm(&["one"]);
    let list = machine.json(&["list", "--json"]);
    let interface = list["vms"][0]["networks"][0]["interface"].clone();
    let tap = machine.open_tap(&interface);
    let up = machine.state();
    let said = ["VM vm1 runs", "tap0", "in use", "jackfield vm down"];
    machine.refuses(&["up", "vm1", "--network", "dual"], 1, &said);
    machine.assert_is(&up, "it runs");
    drop(tap);
    let conf = machine.json(&["up", "vm1", "--network", "dual"]);
    assert_eq!(conf["interfaces"][0]["vm_mtu"], 1400);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "replaced and down");
}

#[test]
fn what_was_changed_is_named_by_check() {
    let (machine, _) = with_vm(&["one"]);
    let differs = |change: &str, said: &str, back: &str| {
        machine.shell(change);
        let output = machine.vm(&["check", "vm1", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{change}: {output:?}");
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let differences = document["differences"].as_array().unwrap();
        let is_said = |it: &Value| it["text"].as_str().unwrap().contains(said);
        assert!(differences.iter().any(is_said), "{change}: {document}");
        machine.shell(back);
        machine.succeed(&["check", "vm1"]);
    };
    let vm1 = |command: &str| format!("ip -n vm1 {command}");
    differs(&vm1("link set tap0 down"), "the tap tap0 is down", &vm1("link set tap0 up"));
    differs(&vm1("link set tap0 mtu 1300"), "1300", &vm1("link set tap0 mtu 1500"));
    machine.shell(&vm1("link delete tap0"));
    let output = machine.vm(&["check", "vm1"]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("network one: the tap tap0 is gone\n"), "{text}");
    assert_eq!(machine.json(&["list", "--json"])["vms"][0]["state"], "incomplete");
}

#[test]
fn a_check_that_cannot_be_made_is_a_failure() {
    let (machine, _) = with_vm(&["one"]);
    machine.shell("rm /opt/cni/bin/tc-redirect-tap");
    machine.refuses(&["check", "vm1"], 1, &["tc-redirect-tap", "not installed"]);
    machine.refuses(&["check", "nobody"], 1, &["there is no VM nobody", "jackfield vm list"]);
}
