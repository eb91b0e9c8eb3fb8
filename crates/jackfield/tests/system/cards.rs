//! Several network cards, and as many interfaces as the largest hosts have.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_lab::Plug;
use jackfield_lab::probe::{Echo, Transport, probe};

use crate::harness::*;
use crate::lag::several_cards;

/// A host of a type with several cards.
fn stage() -> Stage {
    let stage = Stage::new();
    several_cards(&stage);
    stage
}

/// Plugs an interface with so many addresses of each family in subnet `subnet`, named after its
/// place.
fn plug(stage: &Stage, subnet: u8, card: u32, device: u32, addresses: u32) -> Attached {
    let record = stage.lab.interface(&stage.lab.subnet(subnet), addresses).unwrap();
    let name = format!("c{card}d{device}");
    let place = Plug::new(device).on_card(card).named(&name);
    stage.lab.attach(&stage.a, record.mac, &place).unwrap();
    Attached { name, ..Attached::of(&record, device) }
}

/// Each address leaves by its own interface, from a table of the number that its place has.
fn each_answers(
    stage: &Stage,
    interfaces: &[Attached],
    addresses: impl Fn(&Attached) -> Vec<IpAddr>,
) {
    for interface in interfaces {
        let some = addresses(interface);
        let _echo = Echo::start(&stage.a, &some).unwrap();
        for address in some {
            for transport in Transport::ALL {
                let patience = Duration::from_secs(3);
                probe(stage.lab.remote(), None, Echo::at(address), transport, patience)
                    .unwrap_or_else(|error| panic!("{} {address}: {error}", interface.name));
            }
        }
    }
    assert_eq!(stage.lab.violations(), []);
}

fn tables(stage: &Stage) -> Vec<u64> {
    let status = status(&stage.a);
    let interfaces = status["interfaces"].as_array().unwrap().iter();
    interfaces.filter_map(|interface| interface["table"].as_u64()).collect()
}

#[test]
fn three_interfaces_on_two_cards_have_a_table_each() {
    let stage = stage();
    let before = NetworkState::of(&stage.a);
    let agent = Agent::start(&stage.a);
    let interfaces =
        [(0, 1), (1, 1), (1, 2)].map(|(card, device)| plug(&stage, 2, card, device, 2));
    for interface in &interfaces {
        configured_within(&stage.a, interface, PATIENCE);
    }
    each_answers(&stage, &interfaces, |interface| interface.addresses.clone());
    assert_eq!(tables(&stage), [10_001, 10_101, 10_102]);
    for interface in &interfaces {
        stage.lab.detach(interface.mac).unwrap();
    }
    becomes(&before, &stage.a);
    agent.stop();
}

/// 79 secondaries on 16 cards, each with 64 addresses and a prefix of each family.
#[test]
#[ignore = "long: 80 interfaces with 64 addresses each are made, asked and pulled"]
fn eighty_interfaces_with_sixty_four_addresses_each_answer() {
    let stage = stage();
    let before = NetworkState::of(&stage.a);
    let interfaces: Vec<Attached> = (1..80_u8)
        .map(|number| {
            // A subnet for each card: 32 addresses of each family for each interface.
            let (card, device) = (number / 5, number % 5);
            let subnet = 2 + card;
            let attached = plug(&stage, subnet, card.into(), u32::from(device) + 1, 32);
            let ipv4 = format!("10.0.{subnet}.{}/28", 176 + 16 * device);
            let ipv6 = format!("2001:db8:0:{subnet:x}:{}::/80", 1 + device);
            for prefix in [ipv4, ipv6] {
                stage.lab.add_prefix(attached.mac, prefix.parse().unwrap()).unwrap();
            }
            attached
        })
        .collect();
    let began = Instant::now();
    let agent = Agent::start(&stage.a);
    for interface in &interfaces {
        configured_within(&stage.a, interface, Duration::from_secs(60));
    }
    eprintln!("80 interfaces with 64 addresses each were plugged in {:?}", began.elapsed());
    // The first and the last of each family.
    each_answers(&stage, &interfaces, |interface| {
        let of = |ipv4: bool| interface.addresses.iter().filter(move |ip| ip.is_ipv4() == ipv4);
        [of(true).next(), of(true).next_back(), of(false).next(), of(false).next_back()]
            .into_iter()
            .flatten()
            .copied()
            .collect()
    });
    let status = status(&stage.a);
    for interface in status["interfaces"].as_array().unwrap() {
        assert_eq!(interface["state"], "configured", "{interface}");
        let prefixes = interface["prefixes"].as_array().unwrap().len();
        assert_eq!(prefixes, if interface["primary"] == true { 0 } else { 2 }, "{interface}");
    }
    let mut used = tables(&stage);
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), interfaces.len());
    // The commands manage so many too, what is gone included.
    agent.stop();
    assert!(succeed(&stage.a, &["scan"]).contains("no netlink write"));
    for interface in &interfaces {
        stage.lab.detach(interface.mac).unwrap();
    }
    succeed(&stage.a, &["scan"]);
    becomes(&before, &stage.a);
}
