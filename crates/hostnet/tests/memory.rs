//! What is believed of metadata that lags, fails and contradicts itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_hostnet::{MAIN, Memory, OURS, Slot, Snapshot};
use jackfield_kernel::{Address, AddressFlags, Route};
use jackfield_metadata::{InterfaceFacts, Known, Listing, MacAddr, Problem};
use world::kernel::{Kernel, link};

const SECONDS: Duration = Duration::from_secs(1);

fn mac(number: u8) -> MacAddr {
    MacAddr::from([2, 0xec, 0x20, 0, 0, number])
}

fn ips(texts: &[&str]) -> BTreeSet<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A machine with a primary (1) and two secondaries (2 and 3), all just arrived.
struct Host {
    memory: Memory,
    snapshot: Snapshot,
    start: Instant,
}

impl Host {
    fn new() -> Self {
        let mut kernel = Kernel::new();
        for (number, index) in [(1, 2), (2, 3), (3, 4)] {
            let name = format!("ens{index}");
            kernel.links.push(link(index, &name, Some("veth"), Some(mac(number).octets())));
        }
        let snapshot = kernel.view(&Default::default(), &Default::default());
        let mut memory = Memory::new();
        memory.see(&snapshot);
        memory.learn_primary(mac(1));
        let mut host = Host { memory, snapshot, start: Instant::now() };
        host.told(0, &facts(1, 0, &["10.0.0.10"]));
        host
    }

    /// Metadata says so, that many seconds after the start.
    fn told(&mut self, seconds: u32, facts: &InterfaceFacts) {
        let at = self.start + SECONDS * seconds;
        self.memory.learn(at, [(facts.mac, &Listing::Listed(facts.clone()))]);
    }

    fn addresses(&self, number: u8) -> BTreeSet<IpAddr> {
        self.memory.cloud().interfaces[&mac(number)].addresses.clone()
    }

    fn slot(&self, number: u8) -> Option<Slot> {
        self.memory.cloud().interfaces[&mac(number)].slot
    }
}

/// Complete facts of a single-card instance.
fn facts(number: u8, device: u32, ipv4: &[&str]) -> InterfaceFacts {
    InterfaceFacts {
        mac: mac(number),
        interface_id: Known::Value(format!("eni-{number}").parse().unwrap()),
        device_number: Known::Value(device),
        network_card: Known::Absent,
        ipv4_addresses: Known::Value(ipv4.iter().map(|text| text.parse().unwrap()).collect()),
        ipv6_addresses: Known::Absent,
        ipv4_prefixes: Known::Absent,
        ipv6_prefixes: Known::Absent,
        ipv4_subnet: Known::Value("10.0.0.0/20".parse().unwrap()),
        ipv6_subnets: Known::Absent,
        problems: Vec::new(),
    }
}

fn nothing_read(number: u8) -> InterfaceFacts {
    InterfaceFacts {
        interface_id: Known::Unknown,
        device_number: Known::Unknown,
        network_card: Known::Unknown,
        ipv4_addresses: Known::Unknown,
        ipv6_addresses: Known::Unknown,
        ipv4_prefixes: Known::Unknown,
        ipv6_prefixes: Known::Unknown,
        ipv4_subnet: Known::Unknown,
        ipv6_subnets: Known::Unknown,
        problems: vec![Problem { key: "local-ipv4s", reason: "no answer".to_owned() }],
        ..facts(number, 1, &[])
    }
}

#[test]
fn an_address_goes_after_three_absences_half_a_minute_apart() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20", "10.0.0.21"]));
    let less = facts(2, 1, &["10.0.0.20"]);
    let both = ips(&["10.0.0.20", "10.0.0.21"]);
    // Rounds that follow each other sooner count once.
    for seconds in [1, 2, 20, 30, 31, 45, 60] {
        host.told(seconds, &less);
        assert_eq!(host.addresses(2), both, "after {seconds} s");
    }
    host.told(61, &less);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
}

#[test]
fn a_round_that_was_not_read_counts_for_nothing() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20", "10.0.0.21"]));
    let less = facts(2, 1, &["10.0.0.20"]);
    let both = ips(&["10.0.0.20", "10.0.0.21"]);
    host.told(30, &less);
    for seconds in [60, 90, 120] {
        host.told(seconds, &nothing_read(2));
    }
    host.told(150, &less);
    assert_eq!(host.addresses(2), both);
    host.told(180, &less);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
}

#[test]
fn an_address_that_is_listed_again_is_held_for_three_rounds_anew() {
    let mut host = Host::new();
    let more = facts(2, 1, &["10.0.0.20", "10.0.0.21"]);
    let less = facts(2, 1, &["10.0.0.20"]);
    host.told(0, &more);
    host.told(30, &less);
    host.told(60, &less);
    host.told(90, &more);
    host.told(120, &less);
    host.told(150, &less);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20", "10.0.0.21"]));
    host.told(180, &less);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
}

#[test]
fn an_address_moves_when_it_is_listed_elsewhere_and_no_longer_here_whatever_is_heard_first() {
    let (giver, taker) = (facts(2, 1, &["10.0.0.20"]), facts(3, 2, &["10.0.0.30", "10.0.0.21"]));
    for order in [[&giver, &taker], [&taker, &giver]] {
        let mut host = Host::new();
        host.told(0, &facts(2, 1, &["10.0.0.20", "10.0.0.21"]));
        host.told(0, &facts(3, 2, &["10.0.0.30"]));
        host.told(1, order[0]);
        // Listed on both, it is still where it was.
        assert!(host.addresses(2).contains(&"10.0.0.21".parse().unwrap()));
        host.told(1, order[1]);
        assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
        assert_eq!(host.addresses(3), ips(&["10.0.0.21", "10.0.0.30"]));
    }
}

#[test]
fn an_address_does_not_move_while_its_old_interface_was_not_read() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20", "10.0.0.21"]));
    host.told(1, &facts(3, 2, &["10.0.0.30", "10.0.0.21"]));
    host.told(1, &nothing_read(2));
    assert_eq!(host.addresses(2), ips(&["10.0.0.20", "10.0.0.21"]));
}

#[test]
fn what_was_known_stays_when_it_cannot_be_read() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    let before = host.memory.cloud().interfaces[&mac(2)].clone();
    for seconds in [1, 31, 62, 93, 124] {
        host.told(seconds, &nothing_read(2));
    }
    host.memory.learn(host.start + SECONDS * 130, [(mac(2), &Listing::NotListed)]);
    let mut after = host.memory.cloud().interfaces[&mac(2)].clone();
    assert!(!after.complete && !after.unknown.is_empty());
    (after.complete, after.unknown) = (before.complete, before.unknown.clone());
    assert_eq!(after, before);
}

#[test]
fn a_subnet_that_is_not_listed_any_more_while_addresses_are_is_lag() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    host.told(1, &InterfaceFacts { ipv4_subnet: Known::Absent, ..facts(2, 1, &["10.0.0.20"]) });
    let cloud = host.memory.cloud();
    assert_eq!(cloud.interfaces[&mac(2)].subnets, ["10.0.0.0/20".parse().unwrap()]);
}

#[test]
fn a_device_number_of_zero_is_the_primarys_alone() {
    let mut host = Host::new();
    host.told(0, &facts(2, 0, &["10.0.0.20"]));
    assert_eq!(host.slot(2), None);
    assert_eq!(host.slot(1), Some(Slot { card: 0, device: 0 }));
    host.told(2, &facts(2, 1, &["10.0.0.20"]));
    assert_eq!(host.slot(2), Some(Slot { card: 0, device: 1 }));
}

#[test]
fn a_network_card_that_is_not_listed_is_believed_where_the_primary_has_none_either() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    assert_eq!(host.slot(2), Some(Slot { card: 0, device: 1 }));
    let of_several = |number, device, ipv4: &[&str], card| InterfaceFacts {
        network_card: card,
        ..facts(number, device, ipv4)
    };
    host.told(1, &of_several(1, 0, &["10.0.0.10"], Known::Value(0)));
    assert_eq!(host.slot(2), None);
    host.told(2, &of_several(2, 1, &["10.0.0.20"], Known::Value(1)));
    assert_eq!(host.slot(2), Some(Slot { card: 1, device: 1 }));
}

#[test]
fn no_place_is_believed_until_the_primary_is_known() {
    let mut host = Host::new();
    let mut memory = Memory::new();
    memory.see(&host.snapshot);
    memory.learn(host.start, [(mac(2), &Listing::Listed(facts(2, 1, &["10.0.0.20"])))]);
    assert_eq!(memory.cloud().interfaces[&mac(2)].slot, None);
    host.memory = memory;
    host.memory.learn_primary(mac(1));
    host.told(0, &facts(1, 0, &["10.0.0.10"]));
    assert_eq!(host.slot(2), Some(Slot { card: 0, device: 1 }));
}

#[test]
fn a_new_attachment_is_a_new_interface_of_which_nothing_is_known() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    assert!(host.memory.see(&host.snapshot).is_empty());
    // The same MAC on another device.
    let device = host.snapshot.links.iter_mut().find(|link| link.index == 3).unwrap();
    device.index = 9;
    let changed: BTreeSet<MacAddr> = host.memory.see(&host.snapshot).into_iter().collect();
    assert_eq!(changed, [mac(2)].into());
    assert!(!host.memory.cloud().interfaces.contains_key(&mac(2)));
    host.told(1, &facts(2, 4, &["10.0.0.25"]));
    assert_eq!(host.addresses(2), ips(&["10.0.0.25"]));
    assert_eq!(host.slot(2), Some(Slot { card: 0, device: 4 }));
}

#[test]
fn what_is_gone_is_forgotten_and_what_is_not_here_is_not_learned() {
    let mut host = Host::new();
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    host.snapshot.links.retain(|link| link.index != 3);
    assert_eq!(host.memory.see(&host.snapshot), [mac(2)]);
    // Metadata lists a detached interface for minutes.
    host.told(1, &facts(2, 1, &["10.0.0.20"]));
    assert!(!host.memory.cloud().interfaces.contains_key(&mac(2)));
}

#[test]
fn after_a_restart_our_addresses_are_held_until_their_list_was_read_three_times() {
    let mut host = Host::new();
    let flags = AddressFlags { no_prefix_route: true, permanent: true, ..<_>::default() };
    let address = "10.0.0.29/32".parse().unwrap();
    host.snapshot.addresses.push(Address { interface: 3, address, protocol: OURS, flags });
    host.memory = Memory::new();
    host.memory.see(&host.snapshot);
    host.memory.learn_primary(mac(1));
    let listed = facts(2, 1, &["10.0.0.20"]);
    for seconds in [0, 30] {
        host.told(seconds, &nothing_read(2));
        host.told(seconds, &listed);
        assert_eq!(host.addresses(2), ips(&["10.0.0.20", "10.0.0.29"]));
    }
    host.told(60, &listed);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
}

fn prefixes(host: &Host, number: u8) -> Vec<String> {
    let interface = &host.memory.cloud().interfaces[&mac(number)];
    interface.prefixes.iter().map(ToString::to_string).collect()
}

/// Complete facts of an interface that has this prefix.
fn delegated(number: u8, prefix: &str) -> InterfaceFacts {
    let prefixes = Known::Value(vec![prefix.parse().unwrap()]);
    let own = format!("10.0.0.{}0", number);
    InterfaceFacts { ipv4_prefixes: prefixes, ..facts(number, number.into(), &[&own]) }
}

#[test]
fn a_prefix_goes_after_three_absences_and_none_while_it_cannot_be_read() {
    let mut host = Host::new();
    let prefix = "10.0.0.64/28";
    host.told(0, &delegated(2, prefix));
    let unread = InterfaceFacts { ipv4_prefixes: Known::Unknown, ..facts(2, 2, &["10.0.0.20"]) };
    for seconds in [0, 40, 80, 120] {
        host.told(seconds, &unread);
        assert_eq!(prefixes(&host, 2), [prefix]);
    }
    // The key is absent where there is none.
    let without = facts(2, 2, &["10.0.0.20"]);
    for seconds in [121, 130, 151, 180] {
        host.told(seconds, &without);
        assert_eq!(prefixes(&host, 2), [prefix], "after {seconds} s");
    }
    host.told(181, &without);
    assert_eq!(prefixes(&host, 2), [""; 0]);
    assert_eq!(host.addresses(2), ips(&["10.0.0.20"]));
}

#[test]
fn a_prefix_moves_when_it_is_listed_elsewhere_and_no_longer_here() {
    let mut host = Host::new();
    let prefix = "10.0.0.64/28";
    host.told(0, &delegated(2, prefix));
    host.told(1, &delegated(3, prefix));
    assert_eq!(prefixes(&host, 2), [prefix], "it was not asked about since");
    host.told(1, &facts(2, 2, &["10.0.0.20"]));
    assert_eq!((prefixes(&host, 2), prefixes(&host, 3)), (vec![], vec![prefix.to_owned()]));
}

#[test]
fn after_a_restart_prefixes_that_have_a_route_are_held() {
    let mut host = Host::new();
    let prefix = "10.0.0.64/28";
    host.snapshot.routes.push(Route {
        protocol: OURS,
        metric: (1 << 31) + 3,
        ..Route::unreachable(prefix.parse().unwrap(), MAIN)
    });
    host.memory = Memory::new();
    host.memory.see(&host.snapshot);
    host.memory.learn_primary(mac(1));
    host.told(0, &facts(2, 1, &["10.0.0.20"]));
    host.told(0, &facts(3, 2, &["10.0.0.30"]));
    assert_eq!((prefixes(&host, 2), prefixes(&host, 3)), (vec![prefix.to_owned()], vec![]));
}
