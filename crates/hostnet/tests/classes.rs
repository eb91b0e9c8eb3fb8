//! The rules that are compiled from sources lead each where it belongs, few stand in the way, and
//! while they change nothing goes astray.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::net::IpAddr;

use jackfield_hostnet::classify::FLAT;
use jackfield_hostnet::{Edit, OURS};
use jackfield_kernel::{Family, Rule};
use proptest::prelude::*;
use world::lookup::{Lookup, change};
use world::sources::{Numbers, Shape, Sources};

fn configured() -> ProptestConfig {
    let said = std::env::var("JACKFIELD_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: said.unwrap_or(40),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn shapes(most: usize) -> impl Strategy<Value = Shape> {
    let of = (0..2_usize, 1..4_u64, 1..8_u64, 1..most, any::<bool>(), 0..4_u64);
    of.prop_map(|(family, subnets, tables, count, interleaved, prefixes)| Shape {
        family: Family::BOTH[family],
        subnets,
        tables,
        count,
        interleaved,
        prefixes: [0, 2, 20, 60][prefixes as usize],
    })
}

proptest! {
    #![proptest_config(configured())]

    #[test]
    fn every_source_is_led_to_its_table(shape in shapes(1_000), seed in any::<u64>()) {
        let mut numbers = Numbers(seed);
        let sources = Sources::draw(&mut numbers, shape);
        let mut rules = Vec::new();
        sources.apply(&mut rules);
        let (wrong, _) = sources.judge(&rules, &mut numbers);
        prop_assert!(wrong.is_empty(), "{wrong:#?}\n{}", show(&rules));
        prop_assert!(sources.plan(&rules).is_empty(), "{:#?}", sources.plan(&rules).changes);
    }

    /// Whatever becomes of the sources: those that stay where they belong are led there after each
    /// single change, and so is no other.
    #[test]
    fn nothing_goes_astray_while_rules_change(
        shapes in prop::collection::vec(shapes(250), 1..4),
        seed in any::<u64>(),
    ) {
        let mut numbers = Numbers(seed);
        let mut shapes = shapes;
        let family = shapes[0].family;
        shapes.iter_mut().for_each(|shape| shape.family = family);
        let mut before = Sources::draw(&mut numbers, shapes[0]);
        let mut rules = Vec::new();
        before.apply(&mut rules);
        for step in 0..2 * shapes.len() {
            let shape = shapes[step / 2];
            let after = match step % 2 {
                0 => Sources::draw(&mut numbers, shape),
                _ => changed(&before, &mut numbers, shape),
            };
            go_over(&before, &after, &mut rules, &mut numbers)?;
            before = after;
        }
    }

    /// A run that is killed leaves blocks that nobody leads to, or two entries.
    #[test]
    fn rules_that_were_changed_by_half_end_right(
        one in shapes(300), two in shapes(300), seed in any::<u64>(), killed in 0..400_usize,
    ) {
        let mut numbers = Numbers(seed);
        let mut rules = Vec::new();
        Sources::draw(&mut numbers, one).apply(&mut rules);
        let other = Sources::draw(&mut numbers, Shape { family: one.family, ..two });
        let plan = other.plan(&rules);
        for edit in plan.changes.iter().take(killed) {
            change(&mut rules, edit);
        }
        let last = Sources::draw(&mut numbers, one);
        last.apply(&mut rules);
        let (wrong, _) = last.judge(&rules, &mut numbers);
        prop_assert!(wrong.is_empty(), "{wrong:#?}\n{}", show(&rules));
        // Two entries leave no room for a third: then a row is between the trees.
        if !last.plan(&rules).is_empty() {
            prop_assert!(rules.iter().all(|rule| rule.source.is_some()), "{}", show(&rules));
            last.apply(&mut rules);
            let (wrong, _) = last.judge(&rules, &mut numbers);
            prop_assert!(wrong.is_empty(), "{wrong:#?}\n{}", show(&rules));
        }
        prop_assert!(last.plan(&rules).is_empty(), "{:#?}", last.plan(&rules).changes);
    }
}

/// Some more and some less, and some move.
fn changed(before: &Sources, numbers: &mut Numbers, shape: Shape) -> Sources {
    let mut after = before.clone();
    after.addresses.retain(|_, _| numbers.below(20) > 0);
    after.prefixes.retain(|_, _| numbers.below(20) > 0);
    let tables: Vec<u32> = after.tables.keys().copied().collect();
    for owner in after.addresses.values_mut() {
        if numbers.below(20) == 0 {
            *owner = Some(tables[numbers.below(tables.len() as u64) as usize]);
        }
    }
    let shape = Shape { count: shape.count + 10, tables: tables.len() as u64, ..shape };
    for _ in 0..5 {
        after.add(numbers, shape);
    }
    after
}

fn go_over(
    before: &Sources,
    after: &Sources,
    rules: &mut Vec<Rule>,
    numbers: &mut Numbers,
) -> Result<(), TestCaseError> {
    let plan = after.plan(rules);
    let mut samples = before.samples(numbers);
    samples.extend(after.samples(numbers));
    samples.retain(|ip| before.owner(*ip) == after.owner(*ip));
    // What is neither before nor after may be anybody's for an instant: nothing is sent from it.
    let known = |ip: &IpAddr, in_it: &Sources| {
        in_it.addresses.contains_key(ip) || in_it.prefixes.keys().any(|net| net.contains(ip))
    };
    samples.retain(|ip| known(ip, before) && known(ip, after));
    for edit in &plan.changes {
        prop_assert!(change(rules, edit), "the kernel refuses {}", edit);
        let lookup = Lookup::new(rules, after.family);
        for ip in &samples {
            let found = lookup.find(*ip, true).table;
            prop_assert!(
                found == after.owner(*ip),
                "{ip} to {found:?}, not {:?}, after {edit} of\n{:#?}\n{}",
                after.owner(*ip),
                plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>(),
                show(rules)
            );
        }
    }
    let (wrong, _) = after.judge(rules, numbers);
    prop_assert!(wrong.is_empty(), "{wrong:#?}\n{}", show(rules));
    prop_assert!(after.plan(rules).is_empty());
    Ok(())
}

fn show(rules: &[Rule]) -> String {
    let lines = rules.iter().map(|rule| {
        let change =
            jackfield_hostnet::Change { interface: None, edit: Edit::AddRule(rule.clone()) };
        format!("{change}\n")
    });
    lines.collect()
}

/// As much as a host can have: 8,000 sources, of each family.
fn largest(family: Family, interleaved: bool, prefixes: u64) -> Shape {
    Shape { family, subnets: 6, tables: 80, count: 8_000, interleaved, prefixes }
}

/// Five blocks of a dozen rules; more only where addresses that are numbered from 1 and random ones
/// share a subnet, as of IPv6.
const MOST_VISITED: [usize; 2] = [40, 60];
/// The blocks on the way to it, old and new, where one becomes larger than it may be; mostly one
/// rule or none.
const MOST_CHANGES: usize = 120;

#[test]
fn of_8000_sources_few_rules_are_visited_and_one_more_changes_few() {
    for (number, family) in Family::BOTH.into_iter().enumerate() {
        for (interleaved, prefixes) in [(true, 0), (true, 50)] {
            let mut numbers = Numbers(number as u64);
            let shape = largest(family, interleaved, prefixes);
            let mut sources = Sources::draw(&mut numbers, shape);
            let mut rules = Vec::new();
            assert!(sources.apply(&mut rules) < 12_000);
            let (wrong, most) = sources.judge(&rules, &mut numbers);
            assert_eq!(wrong, Vec::<String>::new());
            let mut changes = Vec::new();
            for round in 0..20 {
                if round % 2 == 0 {
                    let one = Shape { count: usize::MAX, interleaved: true, prefixes: 0, ..shape };
                    sources.add(&mut numbers, one);
                } else {
                    let at = numbers.below(sources.addresses.len() as u64) as usize;
                    let ip = *sources.addresses.keys().nth(at).unwrap();
                    sources.addresses.remove(&ip);
                }
                changes.push(sources.apply(&mut rules));
            }
            let (wrong, most_later) = sources.judge(&rules, &mut numbers);
            assert_eq!(wrong, Vec::<String>::new());
            assert!(rules.iter().all(|rule| rule.protocol == OURS));
            assert!(most.max(most_later) <= MOST_VISITED[number], "{most} {most_later}");
            assert!(changes.iter().all(|count| *count <= MOST_CHANGES), "{changes:?}");
            changes.sort();
            assert!(changes[changes.len() / 2] <= 2, "{changes:?}");
        }
    }
}

#[test]
fn addresses_of_one_interface_in_a_subnet_are_one_rule() {
    let mut numbers = Numbers(1);
    let shape = Shape {
        family: Family::V4,
        subnets: 1,
        tables: 1,
        count: 0,
        interleaved: false,
        prefixes: 0,
    };
    let mut sources = Sources::draw(&mut numbers, shape);
    for host in 10..60_u8 {
        sources.addresses.insert(IpAddr::from([10, 0, 0, host]), Some(10_001));
    }
    let rules = sources.compiled(&[]);
    assert_eq!(show(&rules), "+ rule 14106: from 10.0.0.0/26 iif lo lookup 10001\n");
    // Another's among them parts it.
    sources.addresses.insert(IpAddr::from([10, 0, 0, 20]), None);
    let rules = sources.compiled(&[]);
    assert!(rules.len() > 1 && rules.len() < FLAT);
    let lookup = Lookup::new(&rules, Family::V4);
    assert_eq!(lookup.find(IpAddr::from([10, 0, 0, 20]), true).table, None);
    assert_eq!(lookup.find(IpAddr::from([10, 0, 0, 21]), true).table, Some(10_001));
}
