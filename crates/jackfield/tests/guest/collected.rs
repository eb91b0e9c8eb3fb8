//! `gc`: leftovers go, and a VM that is up stays.

use serde_json::{Value, json};

use crate::machine::Machine;

#[test]
fn a_vm_that_is_up_is_left_alone() {
    let machine = Machine::new();
    machine.shell("ip netns add mine");
    machine.succeed(&["up", "vm1", "--network", "one", "--network", "dual"]);
    machine.succeed(&["up", "vm2", "--network", "one", "--netns", "/run/netns/mine"]);
    machine.succeed(&["up", "vm3", "--network", "one", "--cache-dir", "/var/lib/cache3"]);
    let up = machine.state();
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    machine.assert_is(&up, "gc");
    for vm in ["vm1", "vm2", "vm3"] {
        machine.succeed(&["check", vm]);
    }
    // Also where something of it is missing, as long as its namespace is there.
    machine.shell("rm /var/lib/cni/results/one-vm1-eth0; rm -r /var/lib/cache3/results");
    let up = machine.state();
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    machine.assert_is(&up, "gc of incomplete ones");
}

#[test]
fn networks_whose_namespace_is_gone_are_removed() {
    let machine = Machine::new();
    let before = machine.state();
    machine.succeed(&["up", "vm1", "--network", "one", "--network", "dual"]);
    machine.shell("ip netns delete vm1");
    assert_eq!(machine.succeed(&["gc"]), "removed what was left of VM vm1\n");
    machine.assert_is(&before, "gc");
}

#[test]
fn a_namespace_without_a_path_is_not_gone_while_a_process_is_in_it() {
    let machine = Machine::new();
    let before = machine.state();
    machine.succeed(&["up", "vm1", "--network", "one"]);
    let mut vmm = machine.command("ip");
    jackfield_kernel::end_with_parent(&mut vmm);
    let mut vmm = vmm.args(["netns", "exec", "vm1", "sleep", "1000"]).spawn().unwrap();
    // The process is in the namespace once it has become `sleep`.
    let is_sleep = || std::fs::read(format!("/proc/{}/comm", vmm.id())).unwrap() == b"sleep\n";
    while !is_sleep() {
        std::thread::yield_now();
    }
    machine.shell("ip netns delete vm1");
    let state = machine.state();
    let listed = machine.json(&["list", "--json"]);
    assert_eq!(listed["vms"][0]["state"], "incomplete", "{listed}");
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    machine.assert_is(&state, "gc");
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    assert_eq!(machine.succeed(&["gc"]), "removed what was left of VM vm1\n");
    machine.assert_is(&before, "gc after its end");
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let machine = Machine::new();
    machine.shell("ip netns add theirs; ip -n theirs link set lo alias 'jackfield of theirs'");
    machine.shell("touch /run/netns/file; mkdir -p /var/lib/cni/results");
    let entry = json!({
        "kind": "cniCacheV1", "containerId": "pod", "config": "e30=", "ifName": "eth0",
        "networkName": "one", "netns": "/run/netns/gone",
    });
    machine.write("/var/lib/cni/results/one-pod-eth0", &entry.to_string());
    let before = machine.state();
    assert_eq!(machine.succeed(&["gc"]), "nothing to do\n");
    assert_eq!(machine.succeed(&["list"]), "no VM has a network here\n");
    machine.succeed(&["down", "pod"]);
    machine.succeed(&["down", "theirs"]);
    machine.assert_is(&before, "gc and down");
}

#[test]
fn plugins_that_know_gc_get_all_valid_attachments() {
    let machine = Machine::new();
    let result = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "tap7", "sandbox": "NETNS"},
            {"name": "tap7", "mac": "02:00:00:00:00:07", "sandbox": "ID"},
        ],
        "ips": [{"address": "10.92.0.7/24", "interface": 1}],
    });
    machine.install(
        "vm",
        &format!(
            "case $CNI_COMMAND in
             GC) cat > /run/gc;;
             ADD) echo '{result}' | sed \"s#NETNS#$CNI_NETNS#; s#ID#$CNI_CONTAINERID#\";;
             esac"
        ),
    );
    machine.configure_version("modern", "1.1.0", vec![json!({"type": "vm"})]);
    machine.succeed(&["up", "vm1", "--network", "modern"]);
    machine.succeed(&["up", "vm2", "--network", "modern", "--cache-dir", "/var/lib/cache2"]);
    machine.succeed(&["up", "vm3", "--network", "modern"]);
    machine.shell("ip netns delete vm3");
    let gc = machine.json(&["gc", "--json"]);
    assert_eq!(
        gc,
        json!({"version": 1, "removed": ["vm3"], "networks": ["modern"], "failed": [], "remarks": []})
    );
    let asked: Value = serde_json::from_str(&machine.shell("cat /run/gc")).unwrap();
    let valid = json!([
        {"containerID": "vm1", "ifname": "eth0"},
        {"containerID": "vm2", "ifname": "eth0"},
    ]);
    assert_eq!(asked["cni.dev/valid-attachments"], valid);
    // With none valid, everything would go, whoever made it: never sent.
    machine.shell("rm /run/gc; ip netns delete vm1; ip netns delete vm2; rm -r /var/lib/cache2");
    let gc = machine.json(&["gc", "--json"]);
    assert_eq!((&gc["removed"], &gc["networks"]), (&json!(["vm1"]), &json!([])));
    assert!(gc["remarks"][0].as_str().unwrap().contains("were not asked"), "{gc}");
    machine.shell("! test -e /run/gc");
}
