//! What a guest has, against what the plugins said, and packets both ways.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guest::Guest;
use crate::host::Vm;

/// An interface of a guest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interface {
    mac: String,
    mtu: u64,
    /// With prefix lengths, without those that the kernel gives to a link by itself.
    addresses: BTreeSet<String>,
}

/// All interfaces that a guest has and that are up, but for the loopback.
fn interfaces(guest: &mut Guest) -> BTreeSet<Interface> {
    let list: Value = serde_json::from_str(&guest.ask("/usr/bin/ip -j address show up")).unwrap();
    // For one that is down there is an empty object.
    let is_up = |link: &&Value| link.get("ifname").is_some_and(|name| name != "lo");
    let list = list.as_array().unwrap().iter().filter(is_up);
    let of_link = |link: &Value| Interface {
        mac: text(&link["address"]),
        mtu: link["mtu"].as_u64().unwrap(),
        addresses: addresses(link),
    };
    list.map(of_link).collect()
}

fn addresses(link: &Value) -> BTreeSet<String> {
    let infos = link["addr_info"].as_array().unwrap().iter();
    let global = infos.filter(|info| info["scope"] != "link" && info["tentative"] != true);
    global.map(|info| format!("{}/{}", text(&info["local"]), info["prefixlen"])).collect()
}

/// What the plugins said that the VM has, with the MTU that all its networks have.
fn said(vm: &Vm, mtu: u64) -> BTreeSet<Interface> {
    let of_result = |result: &Value| {
        let list = result["interfaces"].as_array().unwrap();
        let position = list.iter().position(|it| it["sandbox"] == vm.id.as_str()).unwrap();
        let ips = result["ips"].as_array().unwrap().iter();
        let of_guest = ips.filter(|ip| ip["interface"] == position);
        let addresses = of_guest.map(|ip| text(&ip["address"])).collect();
        Interface { mac: text(&list[position]["mac"]), mtu, addresses }
    };
    vm.results.iter().map(of_result).collect()
}

/// Waits until the guest has what the plugins said, no more and no less.
#[track_caller]
pub(crate) fn has_what_the_plugins_said(guest: &mut Guest, vm: &Vm, mtu: u64) {
    let said = said(vm, mtu);
    assert!(said.iter().all(|interface| !interface.addresses.is_empty()), "{said:?}");
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        let seen = interfaces(guest);
        if seen == said {
            return;
        }
        if Instant::now() > end {
            let _ = guest.try_ask("tail -n 100 /run/*.log");
            guest.fail(&format!("the guest has {seen:#?}\nthe plugins said {said:#?}"));
        }
    }
}

/// The guest's name of the interface that a network gave it.
pub(crate) fn name_of(guest: &mut Guest, vm: &Vm, position: usize) -> String {
    let list = vm.results[position]["interfaces"].as_array().unwrap();
    let mac = &list.iter().find(|it| it["sandbox"] == vm.id.as_str()).unwrap()["mac"];
    let links: Value = serde_json::from_str(&guest.ask("/usr/bin/ip -j link show")).unwrap();
    let mut links = links.as_array().unwrap().iter();
    text(&links.find(|link| link["address"] == *mac).unwrap()["ifname"])
}

/// The gateway and the interface by which the guest sends to an address.
pub(crate) fn way_to(guest: &mut Guest, address: &str) -> (String, String) {
    let ways = guest.ask(&format!("/usr/bin/ip -j route get {address}"));
    let ways: Value = serde_json::from_str(&ways).unwrap();
    (text(&ways[0]["gateway"]), text(&ways[0]["dev"]))
}

/// The guest reaches each of these.
#[track_caller]
pub(crate) fn reaches(guest: &mut Guest, addresses: &[&str]) {
    for address in addresses {
        guest.eventually(&format!("ping -c 1 -W 2 {address}"));
    }
}

/// The guest is reached, at each of its addresses, from its host's network.
#[track_caller]
pub(crate) fn is_reached(guest: &Guest, vm: &Vm) {
    for address in said(vm, 0).iter().flat_map(|interface| &interface.addresses) {
        let address = address.split('/').next().unwrap();
        let mut ping = vm.host.command("busybox");
        let output = ping.args(["ping", "-c", "3", "-W", "10", address]).output().unwrap();
        if !output.status.success() {
            guest.fail(&format!("no answer from {address}: {output:?}"));
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}
