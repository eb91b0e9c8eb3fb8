//! Many VMs: one after another, and several at a time.

use std::collections::BTreeSet;

use crate::machine::Machine;

/// Takes so many VMs up and down in each of so many threads, all of which share the networks.
fn up_and_down(threads: usize, each: usize, networks: [&str; 2]) {
    let machine = Machine::new();
    // Makes the bridge, which stays.
    machine.succeed(&["up", "first", "--network", "bridged"]);
    machine.succeed(&["down", "first"]);
    let before = machine.state();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let machine = &machine;
            scope.spawn(move || {
                for number in 0..each {
                    let vm = format!("vm-{thread}-{number}");
                    let [first, second] = networks;
                    let up = ["up", &vm, "--network", first, "--network", second];
                    let conf = machine.json(&up);
                    assert_eq!(conf["interfaces"].as_array().unwrap().len(), 2);
                    machine.succeed(&["check", &vm]);
                    machine.succeed(&["down", &vm]);
                }
            });
        }
    });
    machine.assert_is(&before, "all are down");
}

#[test]
fn eight_at_a_time_leave_nothing() {
    up_and_down(8, 2, ["dual", "bridged"]);
}

#[test]
#[ignore = "long: some minutes"]
fn five_hundred_eight_at_a_time_leave_nothing() {
    up_and_down(8, 63, ["dual", "bridged"]);
}

#[test]
#[ignore = "long: some minutes"]
fn five_hundred_one_after_another_leave_nothing() {
    up_and_down(1, 500, ["one", "other"]);
}

#[test]
fn eight_that_are_up_at_once_have_eight_addresses() {
    let machine = Machine::new();
    let before = machine.state();
    let vms: Vec<_> = (0..8).map(|number| format!("vm{number}")).collect();
    let addresses: Vec<_> = std::thread::scope(|scope| {
        let up = |vm: &String| {
            let (machine, vm) = (&machine, vm.clone());
            scope.spawn(move || {
                let conf = machine.json(&["up", &vm, "--network", "one"]);
                conf["interfaces"][0]["vm_ips"][0]["address"].to_string()
            })
        };
        let threads: Vec<_> = vms.iter().map(up).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 8, "{addresses:?}");
    assert_eq!(machine.json(&["list", "--json"])["vms"].as_array().unwrap().len(), 8);
    vms.iter().for_each(|vm| drop(machine.succeed(&["down", vm])));
    machine.assert_is(&before, "all are down");
}

#[test]
fn one_vm_that_many_bring_up_and_take_down_is_whole_or_gone() {
    let machine = Machine::new();
    let before = machine.state();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| drop(machine.succeed(&["up", "vm1", "--network", "one"])));
            scope.spawn(|| drop(machine.succeed(&["down", "vm1"])));
            scope.spawn(|| drop(machine.succeed(&["gc"])));
        }
    });
    let list = machine.json(&["list", "--json"]);
    let is_up = |vm: &serde_json::Value| vm["state"] == "up";
    assert!(list["vms"].as_array().unwrap().iter().all(is_up), "{list}");
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "down at last");
}
