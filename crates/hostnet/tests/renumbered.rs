//! Interfaces that work get tables of other numbers while traffic goes on: tried on a model of the
//! kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use jackfield_hostnet::config::Config;
use jackfield_hostnet::{Memory, Plan, Scope};
use jackfield_kernel::{Family, RouteKind, Rule, RuleAction};
use jackfield_metadata::{InterfaceFacts, Known, Listing};
use proptest::prelude::*;
use world::case::{Case, PRIMARY, Round, Without, learn};
use world::dice::{Dice, tapes};
use world::kernel::Kernel;
use world::lookup::Lookup;

fn configured() -> ProptestConfig {
    let said = std::env::var("JACKFIELD_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: said.unwrap_or(40),
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(configured())]

    /// Wherever the interface has a way out before and after, it has one after each single change: the
    /// new table is whole before rules lead to it, and the old one goes when none leads to it.
    #[test]
    fn an_interface_whose_table_gets_another_number_works_at_every_instant(
        tape in tapes(), more in 0..30_u32,
    ) {
        let mut dice = Dice::new(tape);
        let mut case =
            Case::draw(&mut dice, Without { history: true, noise: true, ..<_>::default() });
        let mut config = Config::default();
        config.agent.device_kinds = case.now.config.agent.device_kinds.clone();
        case.now.config = config;
        add_addresses(&mut case.now, more);
        let mut scene = case.scene();
        scene.settle();
        // The way into a tree has two places.
        for _ in 0..3 {
            renumber(&mut case.now, &mut dice);
            // So that the tree gets another shape besides.
            change_addresses(&mut case.now, &mut dice);
            scene.cloud = learn(&mut Memory::new(), &scene.kernel, &case.now, Instant::now());
            scene.config = case.now.config.clone();
            let (_, _, plan) = scene.think(&Scope::Everything);
            let mut after = scene.kernel.clone();
            after.make(&plan);
            let both: BTreeSet<_> =
                working(&scene.kernel).intersection(&working(&after)).copied().collect();
            for (at, change) in plan.changes.iter().enumerate() {
                let _ = scene.kernel.change(change);
                let now = working(&scene.kernel);
                let lost: Vec<_> = both.difference(&now).collect();
                prop_assert!(
                    lost.is_empty(),
                    "{lost:?} after {at} of {}: {change}\n{}",
                    plan.changes.len(),
                    plan.changes.iter().map(|change| format!("{change}\n")).collect::<String>()
                );
            }
            let rest = scene.settle();
            prop_assert!(rest.len() <= 1, "{rest:#?}");
        }
    }

    /// Killed on that way, and metadata does not list it when the next agent starts, or an address of it:
    /// what works stays so, whichever of its tables it works by.
    #[test]
    fn an_interface_that_was_on_its_way_keeps_what_works_while_metadata_lags(tape in tapes()) {
        let mut dice = Dice::new(tape);
        let mut case =
            Case::draw(&mut dice, Without { history: true, noise: true, ..<_>::default() });
        let mut scene = case.scene();
        scene.settle();
        renumber(&mut case.now, &mut dice);
        scene.cloud = learn(&mut Memory::new(), &scene.kernel, &case.now, Instant::now());
        scene.config = case.now.config.clone();
        let (_, _, plan) = scene.think(&Scope::Everything);
        let mut whole = scene.clone();
        whole.settle();
        let meant = working(&whole.kernel);
        if dice.chance(50) {
            secondaries(&mut case.now).for_each(forget_an_address);
        } else {
            let primary = case.now.primary;
            let others = case.now.facts.iter_mut().filter(|(mac, _)| Some(*mac) != primary);
            others.for_each(|(_, listing)| *listing = Listing::NotListed);
        }
        case.now.said = 1;
        for kill in 0..=plan.changes.len() {
            let mut next = scene.clone();
            next.kernel.make(&Plan { changes: plan.changes[..kill].to_vec() });
            next.cloud = learn(&mut Memory::new(), &next.kernel, &case.now, Instant::now());
            let before = working(&next.kernel);
            let rest = next.settle();
            let now = working(&next.kernel);
            let lost: Vec<_> = before.intersection(&meant).filter(|is| !now.contains(is)).collect();
            prop_assert!(lost.is_empty(), "{lost:?} after {kill} of\n{plan:#?}\nby\n{rest:#?}");
        }
    }
}

/// So many of both families, in turns with those of the others in the subnet.
fn add_addresses(round: &mut Round, more: u32) {
    for (number, facts) in secondaries(round).enumerate() {
        let number = u32::try_from(number).unwrap();
        let host = |at: u32| 600 + at * 4 + number;
        let subnet = facts.ipv4_subnet.value().copied();
        if let (Known::Value(list), Some(subnet)) = (&mut facts.ipv4_addresses, subnet) {
            let base = u32::from(subnet.network()) & !0xff;
            list.extend((0..more.min(60)).map(|at| Ipv4Addr::from(base + host(at) % 250)));
            list.sort();
            list.dedup();
        }
        let subnets = facts.ipv6_subnets.value().cloned();
        if let (Known::Value(list), Some(subnets)) = (&mut facts.ipv6_addresses, subnets) {
            let base = u128::from(subnets[0].network());
            list.extend((0..more).map(|at| Ipv6Addr::from(base + u128::from(host(at)))));
        }
    }
}

/// One goes, or some come, here and there.
fn change_addresses(round: &mut Round, dice: &mut Dice) {
    for facts in secondaries(round) {
        let Known::Value(list) = &mut facts.ipv6_addresses else { continue };
        let Some(ip) = list.first().copied() else { continue };
        if dice.chance(50) && list.len() > 1 {
            list.remove(dice.below(u32::try_from(list.len()).unwrap()) as usize);
        }
        for _ in 0..dice.below(10) {
            let other = u128::from(ip) ^ 1 << dice.below(60) ^ u128::from(facts.mac.octets()[5]);
            list.push(other.into());
        }
        list.sort();
        list.dedup();
    }
}

/// The first one, which DHCP gives.
fn forget_an_address(facts: &mut InterfaceFacts) {
    if let Known::Value(list) = &mut facts.ipv4_addresses
        && list.len() > 1
    {
        list.remove(0);
    }
}

/// Some device numbers, or the number of the first table.
fn renumber(round: &mut Round, dice: &mut Dice) {
    if dice.chance(30) {
        round.config.agent.table_base += 1_000;
        return;
    }
    for facts in secondaries(round) {
        if let (Known::Value(number), true) = (&mut facts.device_number, dice.chance(60)) {
            *number += 7;
        }
    }
}

fn secondaries(round: &mut Round) -> impl Iterator<Item = &mut InterfaceFacts> {
    let primary = round.primary;
    round.facts.iter_mut().filter_map(move |(mac, listing)| match listing {
        Listing::Listed(facts) if Some(*mac) != primary => Some(facts),
        _ => None,
    })
}

/// The addresses of secondaries, whoever gave them, from which packets to anywhere leave by their own
/// interface.
fn working(kernel: &Kernel) -> BTreeSet<(u32, IpAddr)> {
    let way_out = |table: u32, family: Family| {
        let routes = kernel.routes.iter();
        let routes = routes.filter(move |is| is.table == table && is.family() == family);
        routes.filter(move |is| is.destination == family.everything()).min_by_key(|is| is.metric)
    };
    let mut working = BTreeSet::new();
    for family in Family::BOTH {
        // Where a table has no way, the kernel asks the next rule.
        let asked = |rule: &&Rule| match rule.action {
            RuleAction::Table(table) => way_out(table, family).is_some(),
            _ => true,
        };
        let asked: Vec<Rule> = kernel.rules.iter().filter(asked).cloned().collect();
        let lookup = Lookup::new(&asked, family);
        let ours = |ip: IpAddr| Family::of(ip) == family;
        for is in &kernel.addresses {
            let ip = is.address.addr();
            let table = if ours(ip) { lookup.find(ip, true).table } else { None };
            let way = table.and_then(|table| way_out(table, family));
            let own = |route: &&jackfield_kernel::Route| {
                route.kind == RouteKind::Unicast && route.uses(is.interface)
            };
            if is.interface != PRIMARY && way.filter(own).is_some() {
                working.insert((is.interface, ip));
            }
        }
    }
    working
}
