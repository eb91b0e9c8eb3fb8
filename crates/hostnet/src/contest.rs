//! Two who do not agree: a change of ours that somebody undoes again and again is left alone.
//!
//! Pure: time is passed in. What is here lives as long as the agent; whoever wants to know of it asks
//! the agent ([`api`](crate::api)).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::change::{Change, Edit};
use crate::desired::{Desired, DesiredInterface, Role};
use crate::plan::Plan;

/// In this time…
const SPAN: Duration = Duration::from_secs(60);
/// …a change is repaired so often, and after that left alone…
const REPAIRS: usize = 3;
/// …until this is over. Then it is repaired once; where that is undone within [`SPAN`] too, it is left
/// alone again.
const REST: Duration = Duration::from_secs(600);

/// What a change is about: an object of its own, or what of an interface.
type Key = (Option<u32>, String);

/// What somebody else and we do to each other.
#[derive(Debug, Default)]
pub(crate) struct Contest {
    entries: BTreeMap<Key, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What was made of it.
    value: String,
    interface: Option<u32>,
    text: String,
    /// When it was repaired, within the last [`SPAN`].
    repairs: Vec<Instant>,
    /// Since when it is left alone.
    left: Option<Instant>,
    /// It was left alone before.
    again: bool,
    /// Who undid it last, as far as is known.
    culprit: Option<String>,
}

/// A change that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// The interface that it is about.
    pub(crate) interface: Option<u32>,
    /// The change.
    pub(crate) change: String,
    /// Who undid it last, as far as is known.
    pub(crate) culprit: Option<String>,
}

impl Contest {
    /// Takes out of the plan what is left alone, and says what is so from now on.
    pub(crate) fn hold_back(&mut self, now: Instant, plan: &mut Plan) -> Vec<Left> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let mut new = Vec::new();
        let mut planned = BTreeSet::new();
        plan.changes.retain(|change| {
            let (key, value) = effect(change);
            let entry = self.entries.get_mut(&key).filter(|entry| entry.value == value);
            let Some(entry) = entry else { return true };
            entry.forget_old(now);
            let may_be_made = entry.may_be_repaired(now);
            if !may_be_made && entry.left.is_none() {
                entry.left = Some(now);
                new.push(entry.as_left());
            }
            planned.insert(key);
            may_be_made
        });
        // Of a device that is left down nothing works anyway.
        let down = self.entries.iter().filter(|(key, entry)| entry.left.is_some() && key.1 == UP);
        let down: Vec<Option<u32>> = down.map(|(key, _)| key.0).collect();
        plan.changes.retain(|change| down.is_empty() || !down.contains(&interface_of(change)));
        // What is not to be changed is as it shall be, whoever saw to it, or is not wanted any more.
        self.entries.retain(|key, entry| {
            entry.forget_old(now);
            planned.contains(key) || (entry.left.is_none() && !entry.repairs.is_empty())
        });
        new
    }

    /// Takes note of changes that were made. Those count that had been made before: what they make
    /// was wanted when nothing was left to do (`settled`, where that is known). What we ourselves made something else of since is new.
    /// Returns how many count.
    pub(crate) fn note<'c>(
        &mut self,
        now: Instant,
        made: impl Iterator<Item = &'c Change>,
        settled: Option<&Desired>,
        culprit: Option<&str>,
    ) -> usize {
        let mut repairs = 0;
        for change in made {
            let (key, value) = effect(change);
            if self.entries.get(&key).is_some_and(|entry| entry.value != value) {
                self.entries.remove(&key);
            }
            if !settled.is_some_and(|settled| is_repair(change, settled)) {
                continue;
            }
            let entry = self.entries.entry(key).or_insert_with(|| Entry {
                value,
                interface: interface_of(change),
                text: change.to_string(),
                repairs: Vec::new(),
                left: None,
                again: false,
                culprit: None,
            });
            entry.repairs.push(now);
            repairs += 1;
            if let Some(culprit) = culprit {
                entry.culprit = Some(culprit.to_owned());
            }
        }
        repairs
    }

    /// What is left alone now.
    pub(crate) fn left(&self) -> Vec<Left> {
        let left = self.entries.values().filter(|entry| entry.left.is_some());
        left.map(Entry::as_left).collect()
    }
}

impl Entry {
    fn forget_old(&mut self, now: Instant) {
        self.repairs.retain(|at| now.saturating_duration_since(*at) < SPAN);
    }

    fn may_be_repaired(&mut self, now: Instant) -> bool {
        match self.left {
            Some(since) if now.saturating_duration_since(since) < REST => false,
            Some(_) => {
                (self.left, self.again) = (None, true);
                true
            }
            None => self.repairs.len() < if self.again { 1 } else { REPAIRS },
        }
    }

    fn as_left(&self) -> Left {
        Left { interface: self.interface, change: self.text.clone(), culprit: self.culprit.clone() }
    }
}

/// What is administratively up or down.
const UP: &str = "up";

/// What a change is about, and what it makes of that.
fn effect(change: &Change) -> (Key, String) {
    let (what, value) = match &change.edit {
        Edit::Up { to, .. } => (UP.to_owned(), to.to_string()),
        Edit::Mtu { to, .. } => ("mtu".to_owned(), to.to_string()),
        Edit::Group { to, .. } => ("group".to_owned(), to.to_string()),
        Edit::Alias { to, .. } => ("alias".to_owned(), format!("{to:?}")),
        Edit::Setting { setting, to, .. } => {
            (format!("{:?} {}", setting.family, setting.name), to.to_string())
        }
        Edit::Marks { to, .. } => ("marks".to_owned(), format!("{to:?}")),
        _ => {
            // Without the sign. Whose interface it is may not be known any more when it is removed.
            let text = change.to_string();
            let object = text.split_once(' ').map_or("", |(_, object)| object).to_owned();
            return ((None, object), change.action().to_owned());
        }
    };
    ((interface_of(change), what), value)
}

fn interface_of(change: &Change) -> Option<u32> {
    change.interface.as_ref().map(|interface| interface.index)
}

/// Whether the change makes something as it was wanted before.
fn is_repair(change: &Change, settled: &Desired) -> bool {
    let index = interface_of(change);
    let interface = settled.interfaces.iter().find(|interface| Some(interface.index) == index);
    let is_plugged = |it: &DesiredInterface| matches!(it.role, Role::Plugged | Role::Held);
    match &change.edit {
        Edit::AddRule(rule) => settled.rules.contains(rule),
        Edit::AddRoute(route) => settled.routes.contains(route),
        Edit::AddAddress(address) => interface
            .and_then(|interface| interface.addresses.as_ref())
            .is_some_and(|addresses| addresses.contains(&address.address.addr())),
        Edit::RemoveRule(rule) => !settled.rules.contains(rule),
        Edit::RemoveRoute(route) => !settled.routes.contains(route),
        Edit::RemoveAddress(address) => interface
            .and_then(|interface| interface.addresses.as_ref())
            .is_some_and(|addresses| !addresses.contains(&address.address.addr())),
        Edit::Marks { to, .. } => settled.marks == *to,
        Edit::Carry(work) => settled.carried.iter().any(|carried| carried.mac == work.mac),
        // The primary is in the group as long as anything is plugged.
        Edit::Group { to, .. } if interface.is_some_and(|it| it.role == Role::Primary) => {
            settled.interfaces.iter().any(is_plugged) == (*to != 0)
        }
        _ => interface.is_some_and(is_plugged),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jackfield_kernel::{Family, Rule, RuleAction};

    use super::*;

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rule() -> Rule {
        Rule { protocol: 106, ..Rule::new(Family::V4, 14_100, RuleAction::Table(10_001)) }
    }

    fn missing() -> Plan {
        Plan { changes: vec![Change { interface: None, edit: Edit::AddRule(rule()) }] }
    }

    fn settled() -> Desired {
        Desired { rules: BTreeSet::from([rule()]), ..Desired::default() }
    }

    /// Somebody has removed it: whether it is repaired.
    fn repairs(contest: &mut Contest, now: Instant) -> bool {
        let mut plan = missing();
        contest.hold_back(now, &mut plan);
        contest.note(now, plan.changes.iter(), Some(&settled()), Some("deleter"));
        !plan.is_empty()
    }

    #[test]
    fn three_repairs_in_a_minute_and_no_more() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        for at in 0..3 {
            assert!(repairs(&mut contest, start + second(at)));
        }
        assert_eq!(contest.left(), []);
        for at in 3..300 {
            assert!(!repairs(&mut contest, start + second(at)), "after {at} s");
        }
        let left = Left {
            interface: None,
            change: "+ rule 14100: from all lookup 10001".to_owned(),
            culprit: Some("deleter".to_owned()),
        };
        assert_eq!(contest.left(), [left]);
    }

    #[test]
    fn what_is_undone_now_and_then_is_repaired_for_ever() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        for at in 0..100 {
            assert!(repairs(&mut contest, start + second(21 * at)));
        }
        contest.hold_back(start + second(10_000), &mut Plan::default());
        assert!(contest.entries.is_empty());
    }

    #[test]
    fn after_ten_minutes_it_is_tried_once() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        let made = (0..3600).filter(|at| repairs(&mut contest, start + second(*at)));
        // Left alone when it is undone the next time, a second later.
        assert_eq!(made.collect::<Vec<u64>>(), [0, 1, 2, 603, 1204, 1805, 2406, 3007]);
    }

    #[test]
    fn whoever_sees_to_it_ends_it() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        for at in 0..4 {
            repairs(&mut contest, start + second(at));
        }
        assert_eq!(contest.left().len(), 1);
        contest.hold_back(start + second(5), &mut Plan::default());
        assert_eq!(contest.left(), []);
        assert!(repairs(&mut contest, start + second(6)));
    }

    #[test]
    fn what_we_took_away_ourselves_in_between_is_no_repair() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        let removal = Change { interface: None, edit: Edit::RemoveRule(rule()) };
        for at in 0..20 {
            assert!(repairs(&mut contest, start + second(at)));
            contest.note(start + second(at), [&removal].into_iter(), Some(&settled()), None);
        }
    }

    #[test]
    fn what_is_newly_wanted_is_no_repair() {
        let (mut contest, start) = (Contest::default(), Instant::now());
        for _ in 0..10 {
            let mut plan = missing();
            contest.hold_back(start, &mut plan);
            assert!(!plan.is_empty());
            contest.note(start, plan.changes.iter(), Some(&Desired::default()), None);
        }
    }
}
