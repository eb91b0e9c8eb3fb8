//! However unlucky addresses lie, few rules stand in the way of a packet, and one more changes few.
//!
//! Addresses of IPv6 may be chosen at will, so that the trie of them is as deep as an address is long.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use jackfield_kernel::Family;
use world::lookup::{Lookup, change};
use world::sources::{Numbers, Sources, subnet};

/// A packet of 8,000 sources meets at most so many rules, wherever they lie.
const MOST_VISITED: usize = 60;
/// One source more or less: the blocks on the way to it, old and new.
const MOST_CHANGES: usize = 120;

/// How many of the addresses within a prefix lie in the smaller half of it.
#[derive(Debug, Clone, Copy)]
enum Split {
    /// Half of them.
    Even,
    /// One of so many.
    One(usize),
    /// So many: `Teeth(1)` is ::1, ::2, ::4, ::8…
    Teeth(usize),
    /// Each time another.
    Mixed,
}

const SPLITS: [Split; 8] = [
    Split::Even,
    Split::One(9),
    Split::One(20),
    Split::One(65),
    Split::Teeth(1),
    Split::Teeth(3),
    Split::Teeth(17),
    Split::Mixed,
];

/// Draws addresses with the first bits of `within` and this many others.
fn grow(
    numbers: &mut Numbers,
    (within, bits): (u128, u32),
    count: usize,
    split: Split,
    drawn: &mut BTreeSet<u128>,
) {
    if count <= 1 {
        let host = u128::from(numbers.next()) & ((1 << bits) - 1);
        drawn.extend((count == 1).then_some(within | host));
        return;
    }
    let fewer = match split {
        Split::Even => count / 2,
        Split::One(of) => count / of,
        Split::Teeth(size) => size.min(count / 2),
        Split::Mixed => count / [2, 4, 9, 33, count / 3 + 2, count][numbers.below(6) as usize],
    };
    let room = 1_usize.checked_shl(bits - 1).unwrap_or(usize::MAX);
    let fewer = fewer.max(1).max(count.saturating_sub(room));
    // What hangs on the way is itself even, or the same again.
    let inner = if let Split::Teeth(_) = split { Split::Even } else { split };
    let side = u128::from(numbers.below(2));
    let half = |side: u128| (within | side << (bits - 1), bits - 1);
    grow(numbers, half(side), fewer, inner, drawn);
    grow(numbers, half(1 - side), count - fewer, split, drawn);
}

/// So many addresses in each of so many subnets; neighbours are different tables'.
fn draw(numbers: &mut Numbers, family: Family, of: (u64, usize), split: Split) -> Sources {
    let (addresses, prefixes, tables) = <_>::default();
    let mut sources = Sources { family, addresses, prefixes, tables };
    for number in 0..of.0 {
        let net = subnet(family, number);
        let bits = u32::from(net.max_prefix_len() - net.prefix_len());
        let mut drawn = BTreeSet::new();
        grow(numbers, (bits_of(net.network()), bits), of.1, split, &mut drawn);
        for (at, ip) in drawn.into_iter().enumerate() {
            let table = 10_001 + 2 * number as u32 + (at % 2) as u32;
            sources.addresses.insert(address_of(family, ip), Some(table));
            sources.tables.insert(table, net);
        }
    }
    sources
}

fn bits_of(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address_of(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(u32::try_from(bits).unwrap()).into(),
        Family::V6 => Ipv6Addr::from(bits).into(),
    }
}

/// One that is there goes, or one comes that is next to one of them at some bit.
fn one_more_or_less(numbers: &mut Numbers, sources: &mut Sources) {
    let at = numbers.below(sources.addresses.len() as u64) as usize;
    let (ip, table) = sources.addresses.iter().nth(at).map(|(ip, table)| (*ip, *table)).unwrap();
    if numbers.below(2) == 0 {
        sources.addresses.remove(&ip);
        return;
    }
    let subnet = sources.tables[&table.unwrap()];
    let hosts = u64::from(subnet.max_prefix_len() - subnet.prefix_len());
    let other = bits_of(ip) ^ 1 << numbers.below(hosts);
    let next = table.map(|table| if table % 2 == 0 { table - 1 } else { table + 1 });
    sources.addresses.entry(address_of(sources.family, other)).or_insert(next);
}

#[test]
fn of_8000_sources_few_rules_are_visited_wherever_they_lie() {
    for (family, of) in [
        (Family::V4, (8, 1_000)),
        (Family::V4, (64, 125)),
        (Family::V6, (2, 4_000)),
        (Family::V6, (8, 1_000)),
        (Family::V6, (64, 125)),
    ] {
        for split in SPLITS {
            let mut numbers = Numbers(of.0);
            let sources = draw(&mut numbers, family, of, split);
            let about = format!("{family:?} {of:?} {split:?}");
            assert!(sources.addresses.len() > 7_900, "{about}");
            let mut rules = sources.compiled(&[]);
            rules.sort_by_key(|rule| rule.priority);
            let (wrong, most) = sources.judge(&rules, &mut numbers);
            assert_eq!(wrong, Vec::<String>::new(), "{about}");
            assert!(most <= MOST_VISITED, "{about}: {most}");
        }
    }
}

/// Each that is there before and after is led to its table after every single change.
#[test]
fn one_more_or_less_wherever_they_lie_is_led_right_at_every_instant() {
    for split in SPLITS {
        for of in [(1, 60), (1, 400), (8, 60)] {
            let mut numbers = Numbers(of.1 as u64);
            let mut sources = draw(&mut numbers, Family::V6, of, split);
            let mut rules = Vec::new();
            sources.apply(&mut rules);
            let mut most = 0;
            for _ in 0..12 {
                let before: BTreeMap<_, _> = sources.addresses.clone();
                one_more_or_less(&mut numbers, &mut sources);
                let plan = sources.plan(&rules);
                most = most.max(plan.changes.len());
                for edit in &plan.changes {
                    assert!(change(&mut rules, edit), "the kernel refuses {edit}");
                    let lookup = Lookup::new(&rules, sources.family);
                    for (ip, table) in &before {
                        let stays = sources.addresses.get(ip) == Some(table);
                        let found = lookup.find(*ip, true).table;
                        assert!(!stays || found == *table, "{ip}: {found:?} after {edit}");
                    }
                }
                assert!(sources.plan(&rules).is_empty(), "nothing is left to do");
            }
            let (wrong, visited) = sources.judge(&rules, &mut numbers);
            assert_eq!(wrong, Vec::<String>::new());
            assert!(visited <= MOST_VISITED, "{split:?} {of:?}: {visited}");
            assert!(most <= MOST_CHANGES, "{split:?} {of:?}: {most}");
        }
    }
}
