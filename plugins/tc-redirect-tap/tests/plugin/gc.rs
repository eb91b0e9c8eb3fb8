//! GC: what is not valid any more goes, in every namespace that can be seen. Each test has a network
//! of its own: the namespaces of the other tests are seen too.

use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::harness::*;

/// By a process in it a namespace is seen.
struct Inhabitant(Child);

impl Inhabitant {
    fn of(place: &Place) -> Self {
        let mut command = Command::new("sleep");
        place.sandbox.start_inside(command.arg("600"), None).unwrap();
        Inhabitant(command.spawn().unwrap())
    }
}

impl Drop for Inhabitant {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn add<'a>(place: &'a Place, network: &str) -> Call<'a> {
    place.call("ADD").field("name", json!(network))
}

fn gc<'a>(place: &'a Place, network: &str, valid: Value) -> Call<'a> {
    place
        .call("GC")
        .field("cniVersion", json!("1.1.0"))
        .field("name", json!(network))
        .field("prevResult", Value::Null)
        .field("cni.dev/valid-attachments", valid)
}

#[test]
fn what_is_valid_stays_and_all_else_of_the_network_goes() {
    let mut place = Place::new();
    let inhabitant = Inhabitant::of(&place);
    let network = "gc-valid";
    let before = place.state();
    add(&place, network).succeed();
    let added = place.state();
    let valid = json!([{"containerID": "vm-1", "ifname": "eth0"}]);
    gc(&place, network, valid).succeed();
    assert_eq!(place.state(), added);
    gc(&place, "gc-other-network", json!([])).succeed();
    assert_eq!(place.state(), added);
    gc(&place, network, json!([{"containerID": "vm-2", "ifname": "eth0"}])).succeed();
    assert_eq!(place.state(), before);
    drop(inhabitant);
}

#[test]
fn a_redirect_whose_tap_is_gone_goes_too() {
    let mut place = Place::new();
    let inhabitant = Inhabitant::of(&place);
    let before = place.state();
    add(&place, "gc-half").succeed();
    place.run("ip link del tap0");
    gc(&place, "gc-half", json!([])).succeed();
    assert_eq!(place.state(), before);
    drop(inhabitant);
}

#[test]
fn things_of_others_stay() {
    let mut place = Place::new();
    let inhabitant = Inhabitant::of(&place);
    place.run("tc qdisc add dev eth0 clsact");
    place.run("tc filter add dev eth0 ingress protocol ip pref 5 u32 match u32 0 0 classid 1:1");
    place.run("ip tuntap add dev theirs mode tap");
    let before = place.state();
    add(&place, "gc-others").succeed();
    gc(&place, "gc-others", json!([])).succeed();
    assert_eq!(place.state(), before);
    drop(inhabitant);
}

#[test]
fn without_a_list_of_valid_attachments_nothing_is_removed() {
    let mut place = Place::new();
    let inhabitant = Inhabitant::of(&place);
    add(&place, "gc-no-list").succeed();
    let added = place.state();
    let (code, message) = gc(&place, "gc-no-list", Value::Null).error();
    assert!(code == 7 && message.contains("valid-attachments"), "{code} {message}");
    assert_eq!(place.state(), added);
    drop(inhabitant);
}
