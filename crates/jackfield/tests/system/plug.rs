//! Plugging in, and pulling out.

use crate::harness::*;

#[test]
fn an_interface_that_is_plugged_in_answers_and_leaves_nothing_when_it_is_pulled() {
    let stage = Stage::new();
    let before = NetworkState::of(&stage.a);
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 3);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    stage.lab.detach(attached.mac).unwrap();
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(&stage.a).has_ours());
    eventually("the network is as it was", PATIENCE, || before == NetworkState::of(&stage.a));
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}

#[test]
fn an_interface_that_is_plugged_and_unplugged_by_hand_is_as_it_was_before() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 3);
    let before = NetworkState::of(&stage.a);
    succeed(&stage.a, &["plug", "eth1"]);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert!(NetworkState::of(&stage.a).has_ours());
    assert!(succeed(&stage.a, &["plug", "eth1"]).contains("no netlink write"));
    succeed(&stage.a, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::of(&stage.a));
}
