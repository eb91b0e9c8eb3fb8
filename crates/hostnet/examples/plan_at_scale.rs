//! How long it takes to decide, on the largest instances and beyond: 80 interfaces × 64 addresses.
//!
//! `cargo run --release -p jackfield-hostnet --example plan_at_scale`

#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use jackfield_hostnet::config::Config;
use jackfield_hostnet::{
    Cloud, CloudInterface, Device, Edit, Plan, Scope, Slot, Snapshot, desired, plan,
};
use jackfield_kernel::Link;
use jackfield_metadata::MacAddr;

const INTERFACES: u32 = 80;
const ADDRESSES: u32 = 64;
const TIMES: usize = 15;

fn mac(interface: u32) -> MacAddr {
    let [_, _, high, low] = interface.to_be_bytes();
    MacAddr::from([2, 0xec, 0x20, 0, high, low])
}

/// The machine with nothing of ours on it; interface 0 is the primary.
fn machine(keeps_address_protocol: bool) -> Snapshot {
    let links = (0..=INTERFACES).map(|number| Link {
        index: number + 2,
        name: format!("ens{number}"),
        alternative_names: Vec::new(),
        kind: None,
        ethernet: true,
        address: Some(mac(number).octets()),
        up: number == 0,
        carrier: true,
        mtu: 9001,
        min_mtu: 128,
        max_mtu: 9216,
        group: 0,
        alias: None,
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    });
    Snapshot {
        links: links.collect(),
        device_kinds: vec!["physical".to_owned()],
        keeps_address_protocol,
        ..Snapshot::default()
    }
}

fn cloud() -> Cloud {
    let interface = |number: u32| {
        let subnet = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + (number << 8);
        let addresses: BTreeSet<IpAddr> =
            (0..ADDRESSES).map(|at| Ipv4Addr::from(subnet + 10 + at).into()).collect();
        let subnets = ipnet::Ipv4Net::new(subnet.into(), 24).map(ipnet::IpNet::V4);
        CloudInterface {
            interface_id: format!("eni-{number:017x}").parse().ok(),
            slot: Some(Slot { card: number / 16, device: number % 16 + u32::from(number > 0) }),
            subnets: subnets.into_iter().collect(),
            first: addresses.first().copied().into_iter().collect(),
            addresses,
            complete: true,
            unknown: Vec::new(),
        }
    };
    let interfaces: BTreeMap<MacAddr, CloudInterface> =
        (0..=INTERFACES).map(|number| (mac(number), interface(number))).collect();
    Cloud { primary: Some(mac(0)), interfaces }
}

/// The machine after the plan; settings apart, of which this one has none.
fn changed(before: &Snapshot, plan: &Plan) -> Snapshot {
    let mut after = before.clone();
    for change in &plan.changes {
        let index = change.interface.as_ref().map(|interface| interface.index);
        let mut with_link = |edit: &dyn Fn(&mut Link)| {
            after.links.iter_mut().filter(|link| Some(link.index) == index).for_each(edit);
        };
        match &change.edit {
            Edit::Up { to, .. } => with_link(&|link| link.up = *to),
            Edit::Mtu { to, .. } => with_link(&|link| link.mtu = *to),
            Edit::Group { to, .. } => with_link(&|link| link.group = *to),
            Edit::Alias { to, .. } => with_link(&|link| link.alias.clone_from(to)),
            Edit::AddName(name) => with_link(&|link| link.alternative_names.push(name.clone())),
            Edit::AddAddress(address) => after.addresses.push(address.clone()),
            Edit::AddRoute(route) => after.routes.push(route.clone()),
            Edit::AddRule(rule) => after.rules.push(rule.clone()),
            _ => {}
        }
    }
    after
}

fn median(mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .collect();
    times.sort();
    times.get(TIMES / 2).copied().unwrap_or_default()
}

fn main() {
    let (cloud, config) = (cloud(), Config::default());
    let silent = Cloud { primary: cloud.primary, ..Cloud::default() };
    let mut renumbered = config.clone();
    renumbered.agent.table_base = 100_000;
    renumbered.agent.rule_priority = 20_000;
    let decide = |snapshot: &Snapshot, cloud: &Cloud| {
        plan(snapshot, &desired(snapshot, cloud, &config, &Scope::Everything))
    };
    println!("{INTERFACES} interfaces x {ADDRESSES} addresses, medians of {TIMES}");
    for (keeps, kernel) in [(true, "address protocol kept"), (false, "markers")] {
        let empty = machine(keeps);
        let first = decide(&empty, &cloud);
        let full = changed(&empty, &first);
        let left = decide(&full, &cloud);
        let wanted = desired(&full, &cloud, &config, &Scope::Everything);
        let plugged =
            wanted.interfaces.iter().filter(|i| matches!(i.device, Device::Plugged(_))).count();
        println!("{kernel}: {plugged} plugged, {} changes", first.changes.len());
        let from_nothing = median(|| drop(decide(&empty, &cloud)));
        let at_rest = median(|| drop(decide(&full, &cloud)));
        let unknown = median(|| drop(decide(&full, &silent)));
        println!("  from nothing       {from_nothing:>10.1?}");
        println!("  nothing to do      {at_rest:>10.1?}  ({} changes)", left.changes.len());
        println!("  metadata is silent {unknown:>10.1?}");
        let moved = median(|| {
            drop(plan(&full, &desired(&full, &cloud, &renumbered, &Scope::Everything)));
        });
        println!("  all renumbered     {moved:>10.1?}");
    }
}
