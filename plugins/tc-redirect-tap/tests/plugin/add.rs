//! ADD: what it makes, what it says, and what it refuses. What is named after a row of the odd
//! inputs that the Go plugin gets wrong says what is right.

use std::io::Write;

use jackfield_kernel::{LinkChange, Namespace, Tap};
use serde_json::{Value, json};

use crate::harness::*;

#[test]
fn a_tap_stands_in_the_interfaces_place() {
    let mut place = Place::new();
    place.call("ADD").args("TC_REDIRECT_TAP_UID=1000;TC_REDIRECT_TAP_GID=1001").succeed();
    let (tap, settings) = place.tap();
    assert_eq!((tap.name.as_str(), tap.up, tap.mtu), ("tap0", true, MTU));
    assert_eq!((settings.owner, settings.group), (Some(1000), Some(1001)));
    assert!(settings.persistent && settings.virtio_net_header && !settings.multi_queue);
    let interface = place.link("eth0");
    for (from, to) in [(&tap, &interface), (&interface, &tap)] {
        let filters = place.filters(&from.name);
        let [filter] = filters.as_slice() else { panic!("{filters:?}") };
        assert_eq!(filter.kind, "u32");
        assert!(filter.matches_everything);
        assert_eq!(filter.redirects_to, Some(to.index));
    }
}

#[test]
fn without_ids_the_tap_belongs_to_whom_the_plugin_runs_as() {
    let mut place = Place::new();
    place.add();
    let (_, settings) = place.tap();
    assert_eq!((settings.owner, settings.group), (Some(0), Some(0)));
}

#[test]
fn the_result_has_the_tap_then_the_guests_interface_then_its_addresses() {
    let mut place = Place::new();
    let result = place.add();
    let (tap, _) = place.tap();
    let tap_mac = tap.address.unwrap().map(|octet| format!("{octet:02x}")).join(":");
    let mut expected = place.prev_result();
    let interfaces = expected["interfaces"].as_array_mut().unwrap();
    interfaces.push(json!({"name": "tap0", "mac": tap_mac, "sandbox": place.netns()}));
    interfaces.push(json!({"name": "tap0", "mac": MAC_TEXT, "sandbox": "vm-1"}));
    let ips = expected["ips"].as_array_mut().unwrap();
    ips.push(json!({"interface": 3, "address": ADDRESS, "gateway": GATEWAY}));
    assert_eq!(result, expected);
}

#[test]
fn the_result_is_in_the_configurations_version() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let place = Place::new();
        let mut before = place.prev_result();
        before["cniVersion"] = version.into();
        if version.starts_with('0') {
            before["ips"][0]["version"] = "4".into();
        }
        let call = place.call("ADD").field("cniVersion", version.into()).prev_result(&before);
        let result = call.result();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][1]["interface"], 3, "{version}");
        assert_eq!(result["ips"][1]["version"].is_string(), version.starts_with('0'), "{version}");
        assert_eq!(result["interfaces"][2]["mtu"].is_u64(), version == "1.1.0", "{version}");
    }
}

#[test]
fn frames_of_every_size_go_through_the_tap_both_ways() {
    let mut place = Place::new();
    place.add();
    let (tap, _) = place.tap();
    let guest = place.guest(&tap.name, MAC_TEXT, ip("10.0.0.2"));
    // The guest is in the interface's place: the namespace itself does not answer any more.
    for octets in [1, 100, 1372] {
        assert!(place.reaches(ip("10.0.0.2"), octets), "{octets} octets");
    }
    drop(guest);
}

#[test]
fn a_stable_tap_name_on_request() {
    let mut place = Place::new();
    let result = place.call("ADD").args("IgnoreUnknown=1;TC_REDIRECT_TAP_NAME=fc-vm0").result();
    assert_eq!(place.tap().0.name, "fc-vm0");
    assert_eq!(result["interfaces"][2]["name"], "fc-vm0");
    assert_eq!(result["interfaces"][3]["name"], "fc-vm0");
}

#[test]
fn addresses_of_both_families_and_all_of_them() {
    let place = Place::new();
    let mut before = place.prev_result();
    let ips = before["ips"].as_array_mut().unwrap();
    ips.push(json!({"interface": 1, "address": "fd00::2/64", "gateway": "fd00::1"}));
    ips.push(json!({"interface": 1, "address": "10.0.0.3/24"}));
    ips.push(json!({"interface": 0, "address": "10.0.0.1/24"}));
    let result = place.call("ADD").prev_result(&before).result();
    let guest: Vec<&Value> =
        result["ips"].as_array().unwrap().iter().filter(|ip| ip["interface"] == 3).collect();
    let addresses: Vec<&str> = guest.iter().map(|ip| ip["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, [ADDRESS, "fd00::2/64", "10.0.0.3/24"]);
    assert_eq!(guest[1]["gateway"], "fd00::1");
}

#[test]
fn no_address_is_fine_where_the_guest_uses_dhcp() {
    let place = Place::new();
    let mut before = place.prev_result();
    before["ips"] = json!([]);
    let result = place.call("ADD").prev_result(&before).result();
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 4);
    assert_eq!(result["ips"].as_array().map_or(0, Vec::len), 0);
}

#[test]
fn row_interface_index_out_of_range_negative_or_a_null_entry_is_a_clear_error() {
    let place = Place::new();
    for (index, named) in [(json!(2), "ips[0]"), (json!(-1), "ips[0]")] {
        let mut before = place.prev_result();
        before["ips"][0]["interface"] = index;
        place.call("ADD").prev_result(&before).is_refused(&[named, "interface"]);
    }
    for list in ["ips", "interfaces"] {
        let mut before = place.prev_result();
        before[list][0] = Value::Null;
        place.call("ADD").prev_result(&before).is_refused(&[list]);
    }
}

#[test]
fn row_address_without_interface_index_is_the_guests_where_that_is_unambiguous() {
    let place = Place::new();
    let mut before = place.prev_result();
    before["ips"][0].as_object_mut().unwrap().remove("interface");
    let result = place.call("ADD").prev_result(&before).result();
    assert_eq!(result["ips"][1]["interface"], 3);
    assert_eq!(result["ips"][1]["address"], ADDRESS);

    let place = Place::new();
    let mut before = place.prev_result();
    before["ips"][0].as_object_mut().unwrap().remove("interface");
    let other = json!({"name": "eth1", "sandbox": place.netns()});
    before["interfaces"].as_array_mut().unwrap().push(other);
    let result = place.call("ADD").prev_result(&before).result();
    assert_eq!(result["ips"].as_array().unwrap().len(), 1, "whose it is cannot be told");
}

/// A namespace with a name, which goes with its holder.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Namespace::delete_named(&self.0);
    }
}

#[test]
fn row_sandbox_by_another_path_is_the_same_namespace() {
    let mut place = Place::empty();
    let name = Named(format!("jackfield-tap-{}", std::process::id()));
    place.sandbox = Namespace::create_named(&name.0).unwrap();
    place.kernel = jackfield_kernel::Rtnetlink::open_in(&place.sandbox).unwrap();
    place.run("ip link add eth0 address 02:00:00:00:00:02 type veth peer other");
    let mut before = place.prev_result();
    before["interfaces"][1]["sandbox"] = format!("/run/netns/{}", name.0).into();
    let netns = format!("/var/run/netns/{}", name.0);
    let call = place.call("ADD").variable("CNI_NETNS", netns.as_str()).prev_result(&before);
    let result = call.result();
    assert_eq!(result["ips"][1]["interface"], 3, "{result}");
    assert_eq!(result["interfaces"][2]["sandbox"], netns);
    drop(name);
}

#[test]
fn row_the_taps_mac_is_in_the_result() {
    let mut place = Place::new();
    let result = place.add();
    let mac = place.tap().0.address.unwrap().map(|octet| format!("{octet:02x}")).join(":");
    assert_eq!(result["interfaces"][2]["mac"], mac);
}

#[test]
fn row_add_twice_gives_the_same_and_leaks_nothing() {
    let mut place = Place::new();
    let args = "TC_REDIRECT_TAP_NAME=vm0;TC_REDIRECT_TAP_UID=7";
    let first = place.call("ADD").args(args).result();
    let after_first = place.state();
    let second = place.call("ADD").args(args).result();
    assert_eq!(first, second);
    assert_eq!(place.state(), after_first);
    place.call("CHECK").args(args).prev_result(&second).succeed();
}

#[test]
fn a_half_made_one_is_repaired_by_an_add() {
    type Damage = fn(&mut Place);
    let damages: [Damage; 6] = [
        |place| place.change("tap0", LinkChange { up: Some(false), ..LinkChange::default() }),
        |place| place.change("tap0", LinkChange { mtu: Some(1000), ..LinkChange::default() }),
        |place| drop(place.run("tc qdisc del dev eth0 ingress")),
        |place| drop(place.run("tc qdisc del dev tap0 ingress")),
        |place| drop(place.run("tc filter del dev tap0 ingress")),
        |place| drop(place.run("ip link del tap0")),
    ];
    for damage in damages {
        let mut place = Place::new();
        place.add();
        damage(&mut place);
        let result = place.add();
        place.call("CHECK").prev_result(&result).succeed();
        assert_eq!(place.taps().len(), 1);
        assert_eq!(place.filters("eth0").len(), 1);
    }
}

#[test]
fn row_clsact_with_filters_of_others_is_left_as_it_is_and_used() {
    let mut place = Place::new();
    place.run("tc qdisc add dev eth0 clsact");
    let filter = "tc filter add dev eth0";
    place
        .run(&format!("{filter} ingress protocol ip pref 5 u32 match ip dst 10.9.9.9 classid 1:1"));
    place.run(&format!(
        "{filter} ingress protocol ip u32 match ip dst 10.9.9.8 action mirred egress mirror dev lo"
    ));
    place.run(&format!("{filter} egress protocol all pref 7 u32 match u32 0 0 classid 1:2"));
    let before = place.state();
    let result = place.add();
    let filters = place.filters("eth0");
    assert_eq!(filters.len(), 3, "{filters:?}");
    assert!(filters[2].cookie.is_some() && filters[2].matches_everything, "ours is not the last");
    place.call("CHECK").prev_result(&result).succeed();
    let guest = place.guest("tap0", MAC_TEXT, ip("10.0.0.2"));
    assert!(place.reaches(ip("10.0.0.2"), 100));
    drop(guest);
    place.call("DEL").succeed();
    assert_eq!(place.state(), before);
}

#[test]
fn row_a_tap_name_over_15_characters_is_refused() {
    let place = Place::new();
    let call = place.call("ADD").args("TC_REDIRECT_TAP_NAME=sixteen-bytes-xx");
    call.is_refused(&["TC_REDIRECT_TAP_NAME", "sixteen-bytes-xx", "15"]);
}

#[test]
fn row_a_tap_name_of_a_device_that_exists_is_refused() {
    let place = Place::new();
    place.run("ip tuntap add dev theirs mode tap user 1234");
    place.run("ip link property add dev eth0 altname other");
    for name in ["theirs", "eth0", "lo", "other"] {
        let call =
            place.call("ADD").args(&format!("TC_REDIRECT_TAP_NAME={name};TC_REDIRECT_TAP_UID=1"));
        call.is_refused(&[name]);
    }
}

#[test]
fn row_cni_args_with_a_trailing_semicolon_are_fine() {
    let mut place = Place::new();
    place.call("ADD").args("TC_REDIRECT_TAP_NAME=vm0;").succeed();
    assert_eq!(place.tap().0.name, "vm0");
}

#[test]
fn row_any_failure_after_the_tap_was_made_is_undone() {
    let place = Place::new();
    // Over what a tap takes, under what a veth takes.
    place.run("ip link set eth0 mtu 65535");
    place.call("ADD").is_refused(&["tap0", "mtu"]);

    let place = Place::new();
    place.run("tc qdisc add dev eth0 ingress_block 7 ingress");
    place.call("ADD").is_refused(&["redirect from eth0", "shared"]);

    let place = Place::new();
    place.call("ADD").field("classifier", json!("matchall")).is_refused(&["redirect"]);
}

#[test]
fn a_result_that_nobody_reads_is_undone_and_the_plugin_ends_in_order() {
    let mut place = Place::new();
    let before = place.state();
    let call = place.call("ADD");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = call.command(&[]).stdout(writer).spawn().unwrap();
    child.stdin.take().unwrap().write_all(call.config.to_string().as_bytes()).unwrap();
    // Not by a signal.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(place.state(), before);
}

#[test]
fn without_standard_output_and_error_no_other_file_is_taken_for_them() {
    let mut place = Place::new();
    let before = place.state();
    let output = place.call("ADD").output_under(&["sh", "-c", "exec \"$0\" >&- 2>&-"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    place.call("CHECK").prev_result(&place.add()).succeed();
    place.call("DEL").succeed();
    assert_eq!(place.state(), before);
}

#[test]
fn row_an_owner_that_is_none_is_refused() {
    let place = Place::new();
    for owner in ["-1", "4294967295", "4294967296", "root", "", "1e3", "+5", " 5"] {
        for key in ["TC_REDIRECT_TAP_UID", "TC_REDIRECT_TAP_GID"] {
            place.call("ADD").args(&format!("{key}={owner}")).is_refused(&[key]);
        }
    }
}

#[test]
fn row_the_plugin_is_given_its_own_namespace_is_an_error_before_anything_is_made() {
    let place = Place::new();
    let call = place.call("ADD").variable("CNI_NETNS", "/proc/self/ns/net");
    let (code, message) = call.error();
    assert!(code == 8 && message.contains("runs in"), "{code} {message}");
    let links = place.host.run(|| {
        jackfield_kernel::Link::list(&mut jackfield_kernel::Rtnetlink::open().unwrap()).unwrap()
    });
    assert_eq!(links.unwrap().len(), 2, "lo and host0");
}

#[test]
fn row_a_tap_name_with_a_format_is_refused() {
    let place = Place::new();
    place.call("ADD").args("TC_REDIRECT_TAP_NAME=vm%d").is_refused(&["vm%d"]);
}

#[test]
fn names_that_are_none_are_refused() {
    let place = Place::new();
    for name in ["a/b", "..", "a:b", "a b", "a\u{1}b"] {
        let call = place.call("ADD").args(&format!("TC_REDIRECT_TAP_NAME={name}"));
        call.is_refused(&["TC_REDIRECT_TAP_NAME"]);
    }
}

#[test]
fn no_interface_and_no_namespace_and_no_result_are_clear_errors() {
    let place = Place::new();
    place.call("ADD").variable("CNI_IFNAME", "eth7").is_refused(&["no interface eth7"]);
    place.call("ADD").variable("CNI_IFNAME", "lo").is_refused(&["no Ethernet interface"]);
    place.call("ADD").field("prevResult", Value::Null).is_refused(&["prevResult is missing"]);
    place.call("ADD").variable("CNI_NETNS", "/nowhere/x").is_refused(&["/nowhere/x"]);
    place.call("ADD").variable("CNI_NETNS", "/etc/hosts").is_refused(&["no network namespace"]);
    let long = "c".repeat(230);
    place.call("ADD").container(&long).is_refused(&["too long"]);
    place.call("ADD").field("classifier", json!("flower")).is_refused(&["classifier", "flower"]);
}

#[test]
fn an_interface_that_is_redirected_for_another_container_is_refused() {
    let place = Place::new();
    place.add();
    place.call("ADD").container("vm-2").is_refused(&["eth0 is redirected already"]);
}

#[test]
fn two_interfaces_of_one_container_have_a_tap_each() {
    let mut place = Place::new();
    place.run("ip link add eth1 type veth peer other");
    let mut before = place.prev_result();
    before["interfaces"][1]["name"] = "eth1".into();
    place.add();
    let second = place.call("ADD").variable("CNI_IFNAME", "eth1").prev_result(&before);
    assert_eq!(second.result()["interfaces"][2]["name"], "tap1");
    place.call("DEL").succeed();
    let (tap, _) = place.tap();
    assert_eq!(tap.name, "tap1");
    let check = place.call("CHECK").variable("CNI_IFNAME", "eth1");
    let (_, message) = check.error();
    assert!(message.contains("prevResult"), "{message}");
}

#[test]
fn a_classifier_on_request() {
    let mut place = Place::new();
    let result = place.call("ADD").field("classifier", json!("bpf")).result();
    assert_eq!(place.filters("eth0")[0].kind, "bpf");
    place.call("CHECK").prev_result(&result).succeed();
    let guest = place.guest("tap0", MAC_TEXT, ip("10.0.0.2"));
    assert!(place.reaches(ip("10.0.0.2"), 100));
    drop(guest);
}

#[test]
fn an_open_tap_is_no_obstacle_to_a_second_add() {
    let place = Place::new();
    let first = place.add();
    let open = place.sandbox.run(|| Tap::open("tap0").unwrap()).unwrap();
    assert_eq!(place.add(), first);
    drop(open);
}
