//! Programs of the administrator's that are run after an interface became ready, was changed and is
//! gone: what `post-up` and `pre-down` were used for.
//!
//! What is told is worked out from what was seen after changes were made and verified ([`events`],
//! pure). Nothing that configures an interface waits for a program: threads run them ([`crew`]), and
//! end with the last one. Which programs count is in [`programs`]; what each is given, and what
//! becomes of one that hangs, in [`run`]. For people it is in `docs/hooks.md`.

mod crew;
mod events;
mod facts;
mod programs;
mod run;

use std::collections::BTreeMap;

use crate::change::{Change, Edit};
use crate::cloud::Slot;
use crate::config::HooksConfig;
use crate::contest::Left;
use crate::machine::View;
use crate::snapshot::{MAIN, Snapshot};

use crew::Crew;
use events::{Event, Kind, Seen, events};
use facts::{Facts, seen};

/// The hooks of one process.
#[derive(Default)]
pub(crate) struct Hooks {
    /// What was told last of each interface, by its index.
    told: BTreeMap<u32, Facts>,
    /// What each device was like before anything was done, where that is what counts.
    before: BTreeMap<u32, Facts>,
    crew: Crew,
}

impl Hooks {
    /// Tells of what is new since the last time: of an interface as soon as nothing is left to do for
    /// it, and of one that is gone. What is left alone by the agent is not as it shall be.
    pub(crate) fn observe(&mut self, config: &HooksConfig, view: &View, left: &[Left]) {
        if !config.directory.is_dir() {
            // Who puts one there later is told of everything then.
            self.told.clear();
            return;
        }
        let seen = seen(view, left);
        for event in events(&mut self.told, &seen) {
            self.crew.add(config, event);
        }
    }

    /// Takes note of what is plugged before a command does anything, so that only what that changes
    /// is told of.
    pub(crate) fn begin(&mut self, snapshot: &Snapshot, table_base: u32) {
        self.before = facts::of_devices(snapshot, table_base);
        let works = |index: &u32| {
            let plugged = snapshot.journals().any(|(link, _)| link.index == *index);
            plugged && snapshot.our_addresses(*index).next().is_some()
        };
        self.told = self.before.clone().into_iter().filter(|(index, _)| works(index)).collect();
    }

    /// As [`Hooks::observe`], for a command: what differs from before it began.
    pub(crate) fn observe_after(&mut self, config: &HooksConfig, view: &View) {
        let seen = seen(view, &[]);
        for (index, is) in &seen {
            let Seen::Settled(now) = is else { continue };
            let Some(before) = self.before.remove(index) else { continue };
            // What metadata alone tells was not known before.
            if now.primary || self.told.contains_key(index) {
                self.told.insert(*index, before.with_identity_of(now));
            }
        }
        for event in events(&mut self.told, &seen) {
            self.crew.add(config, event);
        }
    }

    /// Tells of interfaces that were gone before anybody looked, as far as what was removed of them
    /// says: their tables, and the addresses that rules led there. `named`: who was named, where that
    /// is one.
    pub(crate) fn tell_of_left_over(
        &mut self,
        config: &HooksConfig,
        table_base: u32,
        removed: &[Change],
        named: Option<&str>,
    ) {
        let mut gone: BTreeMap<u32, Facts> = BTreeMap::new();
        for change in removed.iter().filter(|change| change.interface.is_none()) {
            let (table, source) = match &change.edit {
                Edit::RemoveRule(rule) => match rule.action {
                    jackfield_kernel::RuleAction::Table(table) => (table, rule.source),
                    _ => continue,
                },
                Edit::RemoveRoute(route) => (route.table, None),
                _ => continue,
            };
            if table == MAIN || table < table_base {
                continue;
            }
            let facts = gone.entry(table).or_insert_with(|| Facts {
                table: Some(table),
                ..Facts::in_slot(Slot::of_table(table, table_base))
            });
            let alone = source.filter(|source| source.prefix_len() == source.max_prefix_len());
            facts.addresses.extend(alone.map(|address| address.to_string()));
        }
        let only = gone.len() == 1;
        for (_, mut facts) in gone {
            if let Some(named) = named.filter(|_| only) {
                facts.name_as(named);
            }
            self.crew.add(config, Event { kind: Kind::Gone, interface: facts, before: None });
        }
    }

    /// Waits until all programs have ended, each of which has its deadline.
    pub(crate) fn wait(&self) {
        self.crew.wait();
    }
}
