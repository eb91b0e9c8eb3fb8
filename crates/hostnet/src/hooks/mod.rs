//! Programs of the administrator's that are run after an interface became ready, was changed and is
//! gone: what `post-up` and `pre-down` were used for.
//!
//! What is told follows from what was seen after changes were made and verified
//! ([`transitions`](crate::transitions)). Nothing that configures an interface waits for a program:
//! threads run them ([`crew`]), and end with the last one. Which programs count is in [`programs`];
//! what each is given, and what becomes of one that hangs, in [`run`]. For people it is in
//! `docs/hooks.md`.

mod crew;
mod events;
mod facts;
mod programs;
mod run;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::change::{Change, Edit};
use crate::config::Config;
use crate::machine::View;
use crate::transitions::{Transition, Transitions};

pub use programs::{Program, Programs, Refused};

use crew::Crew;
use events::{Event, Kind};
use facts::Facts;

/// The hooks of one process.
pub(crate) struct Hooks {
    transitions: Transitions,
    /// The directory that was there at the last look, whose programs were told of what there is.
    directory: Option<PathBuf>,
    crew: Crew,
}

impl Default for Hooks {
    fn default() -> Self {
        Hooks { transitions: Transitions::with_primary(), directory: None, crew: Crew::default() }
    }
}

impl Hooks {
    /// Tells of what a look showed to be new. Where there is no directory, nothing is worked out: who
    /// makes one later, or names another one, is told of everything that is there.
    pub(crate) fn observe(&mut self, config: &Config, view: &View) {
        let directory = &config.hooks.directory;
        if !directory.is_dir() {
            self.directory = None;
            return;
        }
        if self.directory.as_ref() != Some(directory) {
            self.directory = Some(directory.clone());
            self.transitions = Transitions::with_primary();
        }
        for transition in self.transitions.take(view) {
            self.add(config, event(transition, config.agent.table_base));
        }
    }

    /// Takes note of what there is before a command does anything, so that only what that changes is
    /// told of.
    pub(crate) fn begin(&mut self, view: &View) {
        self.transitions.begin(view);
    }

    /// As [`Hooks::observe`], for a command that made these changes. Of the primary nobody knew before
    /// metadata was asked, and of what has gone before anybody looked there is what was removed of it:
    /// `named` is the interface that was named and not found, and says who it was where it is the only
    /// one.
    pub(crate) fn observe_made(
        &mut self,
        config: &Config,
        view: &View,
        made: &[Change],
        named: Option<&str>,
    ) {
        self.tell_of_left_over(config, made, named);
        for transition in self.transitions.take(view) {
            let mut event = event(transition, config.agent.table_base);
            if event.kind == Kind::Ready && event.interface.primary {
                let about = |change: &&Change| {
                    let index = change.interface.as_ref().map(|about| about.index);
                    index == event.interface.ifindex
                };
                let told = |change: &Change| {
                    use Edit::{AddAddress, AddRoute, RemoveAddress, RemoveRoute};
                    matches!(
                        &change.edit,
                        AddAddress(_) | RemoveAddress(_) | AddRoute(_) | RemoveRoute(_)
                    )
                };
                if !made.iter().filter(about).any(told) {
                    continue;
                }
                event.kind = Kind::Changed;
            }
            self.add(config, event);
        }
    }

    /// Tells of interfaces that were gone before anybody looked, as far as what was removed of them
    /// says: their tables, and the addresses that rules led there.
    fn tell_of_left_over(&self, config: &Config, removed: &[Change], named: Option<&str>) {
        let table_base = config.agent.table_base;
        let mut gone: BTreeMap<u32, Facts> = BTreeMap::new();
        for change in removed {
            let Some(table) = change.table_of_gone(table_base) else { continue };
            let source = match &change.edit {
                Edit::RemoveRule(rule) => rule.source,
                _ => None,
            };
            let facts = gone.entry(table).or_insert_with(|| Facts::of_table(table, table_base));
            let alone = source.filter(|source| source.prefix_len() == source.max_prefix_len());
            facts.addresses.extend(alone.map(|address| address.to_string()));
        }
        let only = gone.len() == 1;
        for mut facts in gone.into_values() {
            if let Some(named) = named.filter(|_| only) {
                facts.name_as(named);
            }
            self.add(config, Event { kind: Kind::Gone, interface: facts, before: None });
        }
    }

    fn add(&self, config: &Config, event: Event) {
        self.crew.add(&config.hooks, event);
    }

    /// Waits until all programs have ended, each of which has its deadline.
    pub(crate) fn wait(&self) {
        self.crew.wait();
    }
}

fn event(transition: Transition, table_base: u32) -> Event {
    match transition {
        Transition::Ready { interface, .. } => {
            Event { kind: Kind::Ready, interface: Facts::of(&interface, table_base), before: None }
        }
        Transition::Changed { before, interface } => Event {
            kind: Kind::Changed,
            interface: Facts::of(&interface, table_base),
            before: Some(Facts::of(&before, table_base)),
        },
        Transition::Gone { interface } => {
            Event { kind: Kind::Gone, interface: Facts::of(&interface, table_base), before: None }
        }
    }
}
