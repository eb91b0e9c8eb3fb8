//! Forwarded connections are answered by the interface by which they came: which interface has
//! which mark, and the rules by which a marked packet takes the interface's table. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_kernel::{ConnectionMarks, Family, Mark, MarksTable, Rule, RuleAction};

use crate::classify::Walk;
use crate::config::{AgentConfig, Containers};
use crate::desired::{Desired, Role};
use crate::forwarding::Forwarding;
use crate::journal::Journal;
use crate::problem::Problem;
use crate::snapshot::{OURS, Snapshot};

/// How far behind the first rule those for marks are: behind main's routes to containers, before
/// the rules for sources, of which a container's address could be one.
const MARK_RULES: u32 = 11;
/// How far behind the first rule the one is that lets packets without a mark skip them.
const SKIP: u32 = 10;
/// How far behind the first rule packets without a mark go on.
const WITHOUT_MARK: u32 = 99;
/// More rules than these are skipped by packets without a mark.
const FEW: usize = 2;
/// `rp_filter`: what arrives may come by any interface.
const LOOSE: i32 = 2;
/// `rp_filter`: what arrives must come by the interface that leads back to its source.
const STRICT: i32 = 1;

/// Whether the connections that come in by an interface are to be marked.
pub(crate) fn wanted(containers: Containers, forwarding: &Forwarding) -> bool {
    match containers {
        Containers::Auto => forwarding.on && forwarding.destination_nat,
        Containers::On => true,
        Containers::Off => false,
    }
}

/// What an interface's `rp_filter` shall be, where that is for us to say. Before destination NAT is
/// undone, nothing leads back by the interface: strict, the kernel would drop what is to be
/// forwarded. What it was is in the journal, as long as it is something else.
pub(crate) fn reverse_path_filter(
    journal: &mut Journal,
    is: Option<i32>,
    marked: bool,
    forwarding: &Forwarding,
) -> Option<i32> {
    let before = journal.reverse_path_filter.or(is)?;
    if marked && before.max(forwarding.reverse_path_filter) == STRICT {
        journal.reverse_path_filter = Some(before);
        return Some(LOOSE);
    }
    if is == journal.reverse_path_filter {
        journal.reverse_path_filter = None;
    }
    journal.reverse_path_filter
}

/// Gives the plugged interfaces in `wanting`, and those that are held and have one, a mark and its
/// rules.
pub(crate) fn mark(
    snapshot: &Snapshot,
    agent: &AgentConfig,
    wanting: &BTreeSet<u32>,
    walk: &Walk<'_>,
    desired: &mut Desired,
) {
    let mask = agent.mark_mask;
    let priority = agent.rule_priority.saturating_add(MARK_RULES);
    // The rules tell which mark leads where: connections that have it go on.
    let mut has: BTreeMap<u32, (u32, BTreeSet<Family>)> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for rule in snapshot.rules.iter().filter(|rule| rule.protocol == OURS) {
        let (Some(mark), RuleAction::Table(table)) = (rule.mark, rule.action) else { continue };
        if mark.mask == mask && mark.value != 0 && mark.value & !mask == 0 {
            let (value, families) = has.entry(table).or_insert((mark.value, BTreeSet::new()));
            if *value == mark.value {
                families.insert(rule.family);
            }
            taken.insert(mark.value);
        }
    }
    let mut given = BTreeSet::new();
    let mut marks = ConnectionMarks { mask, ..ConnectionMarks::default() };
    let mut free = (1..).map_while(|number| spread(number, mask)).filter(|is| !taken.contains(is));
    for interface in &mut desired.interfaces {
        let Some(table) = interface.table else { continue };
        let families: BTreeSet<Family> = match interface.role {
            Role::Plugged if wanting.contains(&interface.index) => {
                interface.addresses.iter().flatten().map(|ip| Family::of(*ip)).collect()
            }
            // As far as it has a mark already.
            Role::Held => has.get(&table).map_or_else(BTreeSet::new, |(_, families)| {
                let served = snapshot.served_addresses(interface.index, walk).map(Family::of);
                families.iter().copied().chain(served).collect()
            }),
            _ => BTreeSet::new(),
        };
        if families.is_empty() {
            continue;
        }
        let old = has.get(&table).map(|(value, _)| *value).filter(|mark| given.insert(*mark));
        let Some(value) = old.or_else(|| free.next()) else {
            interface.problems.push(Problem::no_mark_left(mask));
            continue;
        };
        marks.marks.insert(interface.index, value);
        for family in families {
            desired.rules.insert(Rule {
                mark: Some(Mark { value, mask }),
                protocol: OURS,
                ..Rule::new(family, priority, RuleAction::Table(table))
            });
        }
    }
    if marks.marks.len() > FEW {
        skip(snapshot, agent, desired);
    }
    desired.marks = (!marks.marks.is_empty()).then_some(marks);
}

/// Lets packets without a mark of ours skip the rules for marks: they are most of all packets, and
/// rules are asked one after the other.
fn skip(snapshot: &Snapshot, agent: &AgentConfig, desired: &mut Desired) {
    let stays = |rule: &&Rule| match rule.action {
        RuleAction::Table(table) => rule.protocol == OURS && desired.kept_tables.contains(&table),
        _ => false,
    };
    let kept = snapshot.rules.iter().filter(stays);
    let families: BTreeSet<Family> = kept
        .chain(&desired.rules)
        .filter(|rule| rule.mark.is_some())
        .map(|rule| rule.family)
        .collect();
    let behind = agent.rule_priority.saturating_add(WITHOUT_MARK);
    for family in families {
        desired.rules.insert(Rule {
            mark: Some(Mark { value: 0, mask: agent.mark_mask }),
            protocol: OURS,
            ..Rule::new(family, agent.rule_priority.saturating_add(SKIP), RuleAction::Goto(behind))
        });
        desired.rules.insert(Rule { protocol: OURS, ..Rule::new(family, behind, RuleAction::Nop) });
    }
}

/// What is to be done about the table of marks: what is there that counts, and what shall be.
pub(crate) fn difference(
    snapshot: &Snapshot,
    desired: &Desired,
) -> Option<(Option<ConnectionMarks>, Option<ConnectionMarks>)> {
    let to = desired.marks.clone();
    match (snapshot.forwarding.marks.as_ref()?, &to) {
        (MarksTable::Absent, None) => None,
        (MarksTable::Present(is), Some(to)) if is == to => None,
        (MarksTable::Present(is), _) => Some((Some(is.clone()), to)),
        (MarksTable::Absent | MarksTable::Altered, _) => Some((None, to)),
    }
}

/// The bits of a number, in the places that the mask has; `None` where it has not enough of them.
fn spread(number: u32, mask: u32) -> Option<u32> {
    let places = (0..u32::BITS).filter(|bit| mask & (1 << bit) != 0);
    let bits = (0..u32::BITS).map(|bit| number >> bit & 1);
    let value = places.zip(bits).fold(0, |value, (place, bit)| value | bit << place);
    (number.checked_shr(mask.count_ones()).unwrap_or(0) == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_in_the_bits_of_the_mask() {
        let all = |mask| (1..).map_while(|number| spread(number, mask)).collect::<Vec<u32>>();
        assert_eq!(all(0x7f), (1..=127).collect::<Vec<u32>>());
        assert_eq!(all(0x8010), [0x10, 0x8000, 0x8010]);
        assert_eq!(all(0x8000_0000), [0x8000_0000]);
        assert_eq!(spread(u32::MAX, u32::MAX), Some(u32::MAX));
    }

    #[test]
    fn the_reverse_path_filter_is_loose_exactly_where_it_would_drop() {
        let journal = || Journal::read("jackfield: table=1 mtu=1500 group=0 up=0").unwrap();
        let decide = |before, is, marked, all| {
            let mut journal = Journal { reverse_path_filter: before, ..journal() };
            let forwarding = Forwarding { reverse_path_filter: all, ..Forwarding::default() };
            let shall = reverse_path_filter(&mut journal, is, marked, &forwarding);
            (shall, journal.reverse_path_filter)
        };
        // Nothing is filtered, or loosely already.
        assert_eq!(decide(None, Some(0), true, 0), (None, None));
        assert_eq!(decide(None, Some(0), true, 2), (None, None));
        assert_eq!(decide(None, Some(2), true, 1), (None, None));
        assert_eq!(decide(None, Some(1), false, 1), (None, None));
        // Strict by its own or by all.
        assert_eq!(decide(None, Some(1), true, 0), (Some(2), Some(1)));
        assert_eq!(decide(None, Some(0), true, 1), (Some(2), Some(0)));
        assert_eq!(decide(Some(0), Some(2), true, 1), (Some(2), Some(0)));
        // Put back, and then forgotten.
        assert_eq!(decide(Some(1), Some(2), false, 1), (Some(1), Some(1)));
        assert_eq!(decide(Some(1), Some(1), false, 1), (None, None));
        // A kernel without.
        assert_eq!(decide(None, None, true, 0), (None, None));
    }
}
