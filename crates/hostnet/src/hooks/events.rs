//! What there is to tell of interfaces, and what is left of it where it piles up. Pure.

use std::collections::VecDeque;

use serde::Serialize;

use super::facts::Facts;

/// What became of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// It works, and was not told of before.
    Ready,
    /// It works, and something of it is not what was told before.
    Changed,
    /// It is not there any more, or not for us.
    Gone,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Ready => "ready",
            Kind::Changed => "changed",
            Kind::Gone => "gone",
        }
    }
}

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: Kind,
    /// What the interface is like; of one that is gone, what was told of it last.
    pub(super) interface: Facts,
    /// What was told of it before; only of one that was changed.
    pub(super) before: Option<Facts>,
}

/// What waits to be told of one interface: at most that it is gone, and what it is like since.
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Event>);

impl Queue {
    /// Adds what is newer than everything in it. What nobody was told yet need not be told once it
    /// is out of date; that an interface was gone in between is told, since nothing of it is as it was.
    pub(super) fn push(&mut self, event: Event) {
        let Some(last) = self.0.back_mut() else { return self.0.push_back(event) };
        match (last.kind, event.kind) {
            (Kind::Gone, _) => self.0.push_back(event),
            (Kind::Ready, Kind::Gone) => {
                self.0.pop_back();
            }
            (Kind::Changed, Kind::Gone) => {
                // What it changed to nobody was told, and so nobody has to undo it.
                let told = last.before.take().unwrap_or(event.interface);
                *last = Event { kind: Kind::Gone, interface: told, before: None };
            }
            (Kind::Ready | Kind::Changed, Kind::Ready | Kind::Changed) => {
                last.interface = event.interface;
                if last.before.as_ref() == Some(&last.interface) {
                    self.0.pop_back();
                }
            }
        }
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(index: u32, addresses: &[&str]) -> Facts {
        Facts {
            name: Some(format!("eth{index}")),
            ifindex: Some(index),
            mac: Some(format!("02:ec:20:00:00:{index:02x}")),
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ..Facts::default()
        }
    }

    fn event(kind: Kind, interface: &Facts, before: Option<&Facts>) -> Event {
        Event { kind, interface: interface.clone(), before: before.cloned() }
    }

    fn queued(list: &[Event]) -> Vec<Event> {
        let mut queue = Queue::default();
        list.iter().for_each(|event| queue.push(event.clone()));
        queue.0.into()
    }

    #[test]
    fn what_piles_up_is_told_as_what_it_comes_to() {
        let (a, b, c) = (facts(1, &["a"]), facts(1, &["b"]), facts(1, &["c"]));
        let ready = |facts| event(Kind::Ready, facts, None);
        let gone = |facts| event(Kind::Gone, facts, None);
        let changed = |from, to| event(Kind::Changed, to, Some(from));
        // While 'ready' is run with a, or nothing was told yet.
        assert_eq!(queued(&[gone(&a), ready(&b)]), [gone(&a), ready(&b)]);
        assert_eq!(queued(&[gone(&a), ready(&b), gone(&b)]), [gone(&a)]);
        assert_eq!(queued(&[gone(&a), ready(&b), changed(&b, &c)]), [gone(&a), ready(&c)]);
        assert_eq!(queued(&[changed(&a, &b), changed(&b, &c)]), [changed(&a, &c)]);
        assert_eq!(queued(&[changed(&a, &b), changed(&b, &a)]), []);
        assert_eq!(queued(&[changed(&a, &b), gone(&b)]), [gone(&a)]);
        assert_eq!(queued(&[changed(&a, &b), changed(&b, &c), gone(&c)]), [gone(&a)]);
        assert_eq!(queued(&[ready(&a), gone(&a)]), []);
    }

    proptest! {
        /// Whatever happens while a program hangs: what is told in the end is what is the case.
        #[test]
        fn what_is_told_last_is_what_is(states in prop::collection::vec(prop::option::of(0..3_u32), 1..30)) {
            let mut known: Option<Facts> = None;
            let mut queue = Queue::default();
            // The first event is under way all the time.
            let mut under_way = None;
            for state in &states {
                let now = state.map(|state| facts(1, &[&state.to_string()]));
                let before = std::mem::replace(&mut known, now.clone());
                let new = match (&before, &now) {
                    (None, Some(now)) => event(Kind::Ready, now, None),
                    (Some(before), Some(now)) if before != now => {
                        event(Kind::Changed, now, Some(before))
                    }
                    (Some(before), None) => event(Kind::Gone, before, None),
                    _ => continue,
                };
                if under_way.is_none() {
                    under_way = Some(new);
                } else {
                    queue.push(new);
                }
                prop_assert!(queue.0.len() <= 2);
            }
            let mut last: Option<Facts> = None;
            for event in under_way.into_iter().chain(std::iter::from_fn(|| queue.pop())) {
                match event.kind {
                    Kind::Ready => prop_assert!(last.is_none()),
                    Kind::Changed => prop_assert_eq!(&last, &event.before),
                    Kind::Gone => prop_assert_eq!(last.as_ref(), Some(&event.interface)),
                }
                last = (event.kind != Kind::Gone).then_some(event.interface);
            }
            let is = states.last().copied().flatten().map(|state| facts(1, &[&state.to_string()]));
            prop_assert_eq!(last, is);
        }
    }
}
