//! CHECK: each thing that can be wrong is found, and told by its name.

use jackfield_kernel::LinkChange;
use serde_json::{Value, json};

use crate::harness::*;

/// After this damage CHECK fails, and says these words.
fn finds(damage: &str, words: &[&str]) {
    let place = Place::new();
    let result = place.add();
    for command in damage.split(';').filter(|command| !command.is_empty()) {
        place.run(command);
    }
    let (code, message) = place.call("CHECK").prev_result(&result).error();
    assert_eq!(code, 100, "{damage}: {message}");
    for word in words {
        assert!(message.contains(word), "{damage}: {message:?} does not say {word:?}");
    }
}

#[test]
fn what_add_has_made_is_right() {
    let place = Place::new();
    let result = place.add();
    place.call("CHECK").prev_result(&result).succeed();
}

#[test]
fn row_check_finds_the_tap_down() {
    finds("ip link set tap0 down", &["tap0", "down"]);
}

#[test]
fn row_check_finds_a_wrong_mtu() {
    finds("ip link set tap0 mtu 1000", &["tap0", "1000", "1400"]);
}

#[test]
fn row_check_finds_a_filter_for_tcp_only() {
    finds(
        "tc filter del dev eth0 ingress;tc filter add dev eth0 ingress protocol ip pref 49152 \
         u32 match ip protocol 6 0xff action mirred egress redirect dev tap0",
        &["eth0 does not redirect everything"],
    );
}

#[test]
fn row_check_finds_a_mirror_for_the_redirect() {
    finds(
        "tc filter del dev tap0 ingress;tc filter add dev tap0 ingress protocol all pref 49152 \
         u32 match u32 0 0 action mirred egress mirror dev eth0",
        &["tap0 does not redirect everything"],
    );
}

#[test]
fn check_finds_a_redirect_to_the_wrong_device() {
    finds(
        "tc filter del dev tap0 ingress;tc filter add dev tap0 ingress protocol all pref 49152 \
         u32 match u32 0 0 action mirred egress redirect dev lo",
        &["tap0 does not redirect everything"],
    );
}

#[test]
fn check_finds_what_is_missing() {
    finds("ip link del tap0", &["found 0"]);
    finds("tc qdisc del dev eth0 ingress", &["eth0 does not redirect"]);
    finds("tc qdisc del dev tap0 ingress", &["tap0 does not redirect"]);
    finds("ip link del eth0", &["eth0 is gone"]);
}

#[test]
fn row_check_finds_a_wrong_mac() {
    finds("ip link set tap0 address 02:00:00:00:00:77", &["tap0", "02:00:00:00:00:77"]);
    finds("ip link set eth0 address 02:00:00:00:00:78", &["eth0", "02:00:00:00:00:78"]);
}

#[test]
fn row_check_finds_a_missing_address() {
    finds("ip address del 10.0.0.2/24 dev eth0", &["eth0", ADDRESS]);
    let place = Place::new();
    let mut result = place.add();
    result["ips"][1]["address"] = "10.0.0.9/24".into();
    let (code, message) = place.call("CHECK").prev_result(&result).error();
    assert!(code == 100 && message.contains("10.0.0.9"), "{code} {message}");
}

#[test]
fn row_check_finds_a_wrong_owner() {
    let place = Place::new();
    let result = place.call("ADD").args("TC_REDIRECT_TAP_UID=1000").result();
    let check = place.call("CHECK").prev_result(&result);
    check.clone().args("TC_REDIRECT_TAP_UID=1000").succeed();
    let (_, message) = check.clone().args("TC_REDIRECT_TAP_UID=1001").error();
    assert!(message.contains("user 1000") && message.contains("1001"), "{message}");
    let (_, message) = check.args("TC_REDIRECT_TAP_UID=1000;TC_REDIRECT_TAP_GID=5").error();
    assert!(message.contains("group 0"), "{message}");
}

#[test]
fn check_finds_a_wrong_name_and_a_result_without_the_pair() {
    let place = Place::new();
    let result = place.add();
    let check = place.call("CHECK").prev_result(&result);
    let (_, message) = check.clone().args("TC_REDIRECT_TAP_NAME=vm0").error();
    assert!(message.contains("tap0") && message.contains("vm0"), "{message}");
    let (_, message) = place.call("CHECK").error();
    assert!(message.contains("prevResult does not have"), "{message}");
    let mut half = result;
    half["ips"].as_array_mut().unwrap().pop();
    half["interfaces"].as_array_mut().unwrap().pop();
    let (_, message) = place.call("CHECK").prev_result(&half).error();
    assert!(message.contains("guest"), "{message}");
    place.call("CHECK").field("prevResult", Value::Null).is_refused(&["prevResult is missing"]);
}

#[test]
fn check_finds_a_tap_of_several_queues() {
    let mut place = Place::new();
    let result = place.add();
    let alias = place.tap().0.alias.unwrap();
    place.run("ip link del tap0");
    place.run("ip tuntap add dev tap0 mode tap multi_queue vnet_hdr user 0 group 0");
    let mac = result["interfaces"][2]["mac"].as_str().unwrap();
    place.run(&format!("ip link set tap0 up mtu {MTU} address {mac}"));
    place.change("tap0", LinkChange { alias: Some(&alias), ..LinkChange::default() });
    let (_, message) = place.call("CHECK").prev_result(&result).error();
    assert!(message.contains("single queue"), "{message}");
}

#[test]
fn check_is_from_version_0_4_0_on() {
    let place = Place::new();
    let mut before = place.add();
    before["cniVersion"] = "0.3.1".into();
    for ip in before["ips"].as_array_mut().unwrap() {
        ip["version"] = "4".into();
    }
    let call = place.call("CHECK").field("cniVersion", json!("0.3.1")).prev_result(&before);
    let (code, message) = call.error();
    assert!(code == 1 && message.contains("CHECK"), "{code} {message}");
}
