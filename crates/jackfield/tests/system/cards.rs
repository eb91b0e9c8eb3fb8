//! Several network cards, and as many interfaces as the largest hosts have.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_lab::Plug;
use jackfield_lab::emulator::Connections;
use jackfield_lab::probe::{Echo, Transport, probe};

use crate::harness::*;
use crate::kernel_state::Observer;
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

/// 79 secondaries on 16 cards, each with so many addresses and a prefix of each family.
fn seventy_nine(stage: &Stage, addresses: u32) -> Vec<Attached> {
    let plug = |number: u8| {
        // A subnet for each card.
        let (card, device) = (number / 5, number % 5);
        let subnet = 2 + card;
        let attached = plug(stage, subnet, card.into(), u32::from(device) + 1, addresses);
        let ipv4 = format!("10.0.{subnet}.{}/28", 176 + 16 * device);
        let ipv6 = format!("2001:db8:0:{subnet:x}:{}::/80", 1 + device);
        for prefix in [ipv4, ipv6] {
            stage.lab.add_prefix(attached.mac, prefix.parse().unwrap()).unwrap();
        }
        attached
    };
    (1..80).map(plug).collect()
}

#[test]
#[ignore = "long: 80 interfaces with 64 addresses each are made, asked and pulled"]
fn eighty_interfaces_with_sixty_four_addresses_each_answer() {
    let stage = stage();
    let before = NetworkState::of(&stage.a);
    let interfaces = seventy_nine(&stage, 32);
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

/// What there is of a network but for where in the tree its rules are, which is where there was room:
/// which source leads to which table, and all that is no rule.
fn but_for_the_tree(state: &NetworkState) -> BTreeSet<String> {
    let of_a_rule = |line: &str| {
        let (_, rule) = line.strip_prefix("rule -")?.split_once(": ")?;
        Some(rule.split_once(": ").map_or(rule, |(_, rule)| rule).to_owned())
    };
    let inner = |line: &&str| {
        line.starts_with("rule ") && (line.contains(" goto ") || line.contains(" nop"))
    };
    let lines = state.lines().filter(|line| !inner(line));
    lines.map(|line| of_a_rule(line).unwrap_or_else(|| line.to_owned())).collect()
}

#[track_caller]
fn becomes_again(before: &BTreeSet<String>, stage: &Stage, when: &str) {
    let mut now = BTreeSet::new();
    let end = Instant::now() + 3 * PATIENCE;
    while now != *before && Instant::now() < end {
        now = but_for_the_tree(&NetworkState::of(&stage.a));
    }
    let lost: Vec<&String> = before.difference(&now).collect();
    let new: Vec<&String> = now.difference(before).collect();
    assert!(lost.is_empty() && new.is_empty(), "{when}: lost {lost:#?}, new {new:#?}");
}

#[test]
#[ignore = "long: 80 interfaces, of which one after the other comes and goes"]
fn among_eighty_interfaces_each_comes_and_goes_as_if_it_were_alone() {
    let stage = stage();
    let (lab, a) = (&stage.lab, &stage.a);
    lab.cloud().set_connections(Connections::Kept);
    let untouched = NetworkState::of(a);
    let interfaces = seventy_nine(&stage, 4);
    let agent = Agent::start(a);
    let all_configured = || {
        for interface in &interfaces {
            configured_within(a, interface, Duration::from_secs(60));
        }
    };
    all_configured();
    let settled = NetworkState::settled(a);
    let before = but_for_the_tree(&settled);
    assert!(settled.lines().any(|line| line.contains(" goto ")), "there is a tree");

    // One more comes and goes, in a subnet of four others and in the primary's.
    for subnet in [2, 1] {
        let one = plug(&stage, subnet, 0, 1, 4);
        configured_within(a, &one, PATIENCE);
        each_answers(&stage, std::slice::from_ref(&one), |one| one.addresses.clone());
        lab.detach(one.mac).unwrap();
        becomes_again(&before, &stage, "one more came and went");
    }

    // A link goes down and up.
    let settled = NetworkState::settled(a);
    for interface in [&interfaces[0], &interfaces[40], &interfaces[78]] {
        a.set_up(&interface.name, false).unwrap();
        becomes(&settled, a);
        each_answers(&stage, std::slice::from_ref(interface), |one| one.addresses.clone());
    }

    // A second pass writes nothing.
    agent.stop();
    let watch = IpMonitor::start(a);
    assert_eq!(succeed(a, &["scan"]), "nothing to do: no netlink write was sent\n");
    assert_eq!(succeed(a, &["plan"]), "nothing would change\n");
    let told = watch.finish();
    assert!(told.is_empty(), "something was changed: {told:#?}");

    // The agent is killed at random while they come and go.
    let seed = std::env::var("JACKFIELD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("JACKFIELD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut observer = Observer::new(a);
    let mut gone: Vec<usize> = Vec::new();
    let reattach = |which: usize| {
        let (card, device) = ((which + 1) / 5, (which + 1) % 5 + 1);
        let device = u32::try_from(device).unwrap();
        let place = Plug::new(device).on_card(u32::try_from(card).unwrap());
        lab.attach(a, interfaces[which].mac, &place.named(&interfaces[which].name)).unwrap();
    };
    for _ in 0..12 {
        let agent = Agent::start(a);
        std::thread::sleep(Duration::from_millis(random.u64(..600)));
        if gone.len() > 2 {
            reattach(gone.remove(0));
        } else {
            let which = random.usize(..interfaces.len());
            if !gone.contains(&which) {
                lab.detach(interfaces[which].mac).unwrap();
                gone.push(which);
            }
        }
        std::thread::sleep(Duration::from_millis(random.u64(..30)));
        drop(agent);
        assert_eq!(observer.look().wrong_paths(), Vec::<String>::new());
    }
    gone.into_iter().for_each(reattach);
    let agent = Agent::start(a);
    all_configured();
    // Those that came back are other devices.
    eventually("nothing is left to do", 3 * PATIENCE, || jackfield(a, &["plan"]).status.success());
    each_answers(&stage, &interfaces, |interface| {
        let addresses = &interface.addresses;
        vec![addresses[0], addresses[addresses.len() - 1]]
    });
    for interface in &interfaces {
        lab.detach(interface.mac).unwrap();
    }
    becomes(&untouched, a);
    agent.stop();
}
