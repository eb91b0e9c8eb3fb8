//! DEL: it always ends clean, and touches nothing that is not ours.

use serde_json::{Value, json};

use crate::harness::*;

/// After an ADD, this DEL leaves the sandbox as it was before.
fn cleans(place: &mut Place, del: impl Fn(&Place)) {
    let before = place.state();
    place.add();
    assert_ne!(place.state(), before);
    del(place);
    assert_eq!(place.state(), before);
}

#[test]
fn everything_goes() {
    let mut place = Place::new();
    cleans(&mut place, |place| place.call("DEL").succeed());
    assert!(!place.has_qdisc("eth0"));
    place.call("DEL").succeed();
}

#[test]
fn row_del_without_prev_result_removes_the_tap() {
    let mut place = Place::new();
    cleans(&mut place, |place| place.call("DEL").field("prevResult", Value::Null).succeed());
}

#[test]
fn row_del_where_the_qdisc_is_not_ours_leaves_it() {
    for kind in ["ingress", "clsact"] {
        let mut place = Place::new();
        place.run(&format!("tc qdisc add dev eth0 {kind}"));
        cleans(&mut place, |place| place.call("DEL").succeed());
        assert!(place.has_qdisc("eth0"), "{kind}");
        place.call("DEL").succeed();
        assert!(place.has_qdisc("eth0"), "{kind}, nothing of ours there");
    }
}

#[test]
fn a_filter_that_somebody_added_to_our_qdisc_stays() {
    let mut place = Place::new();
    place.add();
    place.run("tc filter add dev eth0 ingress pref 9 protocol ip u32 match u32 0 0 classid 1:1");
    place.call("DEL").succeed();
    let filters = place.filters("eth0");
    assert!(filters.len() == 1 && filters[0].preference == 9, "{filters:?}");
    assert_eq!(place.taps(), []);
}

#[test]
fn row_del_with_a_trailing_semicolon_or_a_plain_file_for_a_namespace_succeeds() {
    let mut place = Place::new();
    cleans(&mut place, |place| place.call("DEL").args("TC_REDIRECT_TAP_NAME=vm0;").succeed());
    for path in ["/etc/hosts", "/nowhere/x", "/etc/hosts/x", "/", ""] {
        place.call("DEL").variable("CNI_NETNS", path).succeed();
    }
}

#[test]
fn row_del_with_an_unsupported_version_or_broken_input_cleans_by_our_mark() {
    let mut place = Place::new();
    for version in ["0.1.0", "0.2.0", "9.9.9", "x"] {
        cleans(&mut place, |place| place.call("DEL").field("cniVersion", json!(version)).succeed());
    }
    for result in [json!("broken"), json!({"cniVersion": "7"}), json!({"ips": [null]}), json!(1)] {
        cleans(&mut place, |place| place.call("DEL").prev_result(&result).succeed());
    }
    for args in ["broken", "=", "TC_REDIRECT_TAP_UID=-1;TC_REDIRECT_TAP_NAME=a/b"] {
        cleans(&mut place, |place| place.call("DEL").args(args).succeed());
    }
    for stdin in ["", "{", "{}", "null", "[1]", r#"{"name":"../x"}"#, "\u{0}"] {
        cleans(&mut place, |place| place.call("DEL").stdin(stdin).succeed());
    }
    cleans(&mut place, |place| place.call("DEL").field("name", json!("another")).succeed());
}

#[test]
fn what_a_del_is_about_has_to_be_said() {
    let mut place = Place::new();
    place.add();
    let before = place.state();
    for missing in ["CNI_CONTAINERID", "CNI_IFNAME"] {
        let (code, message) = place.call("DEL").variable(missing, "").error();
        assert!(code == 4 && message.contains(missing), "{code} {message}");
    }
    assert_eq!(place.state(), before);
}

#[test]
fn things_of_others_stay() {
    let mut place = Place::new();
    place.run("ip tuntap add dev theirs mode tap");
    place.run("ip link set theirs alias tc-redirect-tap");
    cleans(&mut place, |place| place.call("DEL").succeed());
    place.add();
    let with_ours = place.state();
    place.call("DEL").container("vm-2").succeed();
    place.call("DEL").variable("CNI_IFNAME", "eth1").succeed();
    assert_eq!(place.state(), with_ours);
}

#[test]
fn an_interface_that_is_gone_or_renamed_is_no_obstacle() {
    let mut place = Place::new();
    place.add();
    place.run("ip link del eth0");
    place.call("DEL").succeed();
    assert_eq!(place.taps(), []);

    let mut place = Place::new();
    place.add();
    place.run("ip link set eth0 name uplink");
    place.call("DEL").succeed();
    assert_eq!(place.taps(), []);
    assert!(!place.has_qdisc("uplink"));
}

#[test]
fn a_tap_that_is_gone_or_renamed_is_no_obstacle() {
    let mut place = Place::new();
    cleans(&mut place, |place| {
        place.run("ip link del tap0");
        place.call("DEL").succeed();
    });
    cleans(&mut place, |place| {
        place.run("ip link set tap0 down");
        place.run("ip link set tap0 name other");
        place.call("DEL").succeed();
    });
}

#[test]
fn a_tap_that_a_vm_still_has_open_goes() {
    let mut place = Place::new();
    cleans(&mut place, |place| {
        let open = place.sandbox.run(|| jackfield_kernel::Tap::open("tap0").unwrap()).unwrap();
        place.call("DEL").succeed();
        drop(open);
    });
}

#[test]
fn two_at_once_both_succeed() {
    for _ in 0..10 {
        let mut place = Place::new();
        let before = place.state();
        place.add();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| place.call("DEL").succeed());
            }
        });
        assert_eq!(place.state(), before);
    }
}
