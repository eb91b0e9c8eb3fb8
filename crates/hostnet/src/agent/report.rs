//! What the agent logs of interfaces, and counts. The fields of its messages are in `docs/day-two.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::{Agent, Made};
use crate::change::{Change, Edit};
use crate::contest::Left;
use crate::desired::Role;
use crate::machine::View;
use crate::plan::Plan;
use crate::transitions::{Ready, Transition};

impl Agent {
    /// Takes note of which interfaces have become ready, changed or gone.
    pub(super) fn take_transitions(&mut self, view: &View, made: Option<&Made>) {
        let now = Instant::now();
        for transition in self.transitions.take(view) {
            match &transition {
                Transition::Ready { interface, found } => {
                    // They were made before they were verified.
                    let since = made.map_or(now, |made| made.applied_at);
                    let took = self.schedule.age(since, interface.mac).filter(|_| !found);
                    if let Some(took) = took {
                        self.counts.plugged(took);
                    }
                    works(interface, took);
                }
                Transition::Changed { before, interface } => {
                    self.counts.changed();
                    changed(before, interface);
                }
                Transition::Gone { interface } => {
                    self.counts.unplugged();
                    gone(interface);
                }
            }
        }
        self.hooks.observe(self.machine.config(), view);
    }

    /// Says what became of changes, when it is seen what the machine is like after them.
    pub(super) fn verify(&mut self, made: &Made, after: &View) {
        for (change, reason) in &made.applied.refused {
            // A device that went, was renamed or moved meanwhile explains itself.
            if after.plan.changes.contains(change) {
                self.counts.refused(1);
                warn!(
                    event = "refused",
                    interface = name_of(change),
                    change:% = change;
                    "the kernel refused '{change}': {reason}"
                );
            } else {
                debug!("the kernel refused '{change}': {reason}; nothing of it is left to do");
            }
        }
        for (change, reason) in &made.applied.withheld {
            debug!("'{change}' was {reason}");
        }
        if !made.drift {
            tell(&made.plan, after);
        }
    }

    /// Says once what stands in the way of an interface, and once that it is over.
    pub(super) fn complain(&mut self, view: &View) {
        let mut complaints = BTreeSet::new();
        for interface in &view.desired.interfaces {
            // Every device that is no cloud interface is not listed: nothing to complain about.
            let expected = interface.role == Role::Waiting;
            for problem in &interface.problems {
                let text = format!("{}: {}; {}", interface.name, problem.text, problem.fix);
                if !self.complaints.contains(&text) {
                    let level = if expected { log::Level::Debug } else { log::Level::Warn };
                    log::log!(
                        level,
                        event = "problem",
                        interface = interface.name,
                        mac:% = interface.mac,
                        code = problem.code.as_ref();
                        "{text}"
                    );
                }
                complaints.insert(text);
            }
        }
        for over in self.complaints.difference(&complaints) {
            debug!("no longer: {over}");
        }
        self.complaints = complaints;
    }
}

/// An interface works from now on, for which it took so long; `None`: it did so already.
fn works(interface: &Ready, took: Option<Duration>) {
    let Some(took) = took else {
        info!(
            event = "found",
            interface = interface.name,
            mac:% = interface.mac;
            "{} works already: {}", interface.called(), interface.told()
        );
        return;
    };
    info!(
        event = "plugged",
        interface = interface.name,
        mac:% = interface.mac,
        duration_s = took.as_secs_f64();
        "{} works: {}; {:.1} ms after it appeared",
        interface.called(), interface.told(), took.as_secs_f64() * 1000.0
    );
}

fn changed(before: &Ready, interface: &Ready) {
    info!(
        event = "changed",
        interface = interface.name,
        mac:% = interface.mac;
        "{} works on: {}, before: {}", interface.called(), interface.told(), before.told()
    );
}

fn gone(interface: &Ready) {
    info!(
        event = "unplugged",
        interface = interface.name,
        mac:% = interface.mac;
        "{} is unplugged: nothing of it is left", interface.called()
    );
}

/// A change is left alone from now on.
pub(super) fn left_alone(left: &Left, view: &View) {
    let by = left.culprit.as_ref().map(|by| format!(", last by {by}")).unwrap_or_default();
    let link = left.interface.and_then(|index| view.snapshot.link(index));
    warn!(
        event = "left-alone",
        interface = link.map(|link| link.name.as_str()),
        change = left.change,
        by = left.culprit.as_deref();
        "undone again and again{by}, left alone: {}", left.change
    );
}

/// Somebody else's change is put back.
pub(super) fn repaired(change: &Change) {
    warn!(
        event = "repaired",
        interface = name_of(change),
        change:% = change;
        "changed by somebody else, put back: {change}"
    );
}

fn name_of(change: &Change) -> Option<&str> {
    change.interface.as_ref().map(|interface| interface.name.as_str())
}

/// Says what was done for interfaces that do not work by it alone.
fn tell(done: &Plan, after: &View) {
    let mut counts: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for change in &done.changes {
        if let Edit::Marks { to, .. } = &change.edit {
            let count = to.as_ref().map_or(0, |to| to.marks.len());
            info!("forwarded connections are answered by where they came in: {count} interfaces");
            continue;
        }
        *counts.entry(change.interface.as_ref().map(|about| about.index)).or_default() += 1;
    }
    for (index, count) in counts {
        let interface = after.desired.interfaces.iter().find(|i| Some(i.index) == index);
        let Some(interface) = interface else {
            debug!("{count} changes of what belongs to no interface");
            continue;
        };
        let (name, mac) = (&interface.name, interface.mac);
        let left = after.left.iter().any(|change| {
            change.interface.as_ref().is_some_and(|about| about.index == interface.index)
        });
        if left {
            let backend = interface.backend.name();
            info!("{name} ({mac}): {count} changes; the rest is left to {backend}");
        } else if interface.role == Role::Primary {
            info!("{name} ({mac}), the primary: {count} changes");
        } else {
            debug!("{name} ({mac}): {count} changes");
        }
    }
}
