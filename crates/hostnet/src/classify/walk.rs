//! Where the rules that are there lead a source.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jackfield_kernel::{Family, Rule, RuleAction};

use super::LOOPBACK;
use crate::snapshot::{MAIN, OURS};

/// Our rules, as the kernel asks them about packets that are made here.
pub(crate) struct Walk<'a> {
    rules: BTreeMap<(Family, u32), Vec<&'a Rule>>,
}

impl<'a> Walk<'a> {
    /// Of everybody's rules, in the kernel's order.
    pub(crate) fn new(present: &'a [Rule]) -> Self {
        let mut rules: BTreeMap<(Family, u32), Vec<&Rule>> = BTreeMap::new();
        // Marks are for forwarded packets.
        let asked =
            |rule: &&Rule| rule.protocol == OURS && rule.mark.is_none() && !rule.selects_further;
        for rule in present.iter().filter(asked) {
            rules.entry((rule.family, rule.priority)).or_default().push(rule);
        }
        Walk { rules }
    }

    /// Our rules in their order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &'a Rule> {
        self.rules.values().flatten().copied()
    }

    /// The table of an interface to which packets from this address go.
    pub(crate) fn table_of(&self, source: IpAddr) -> Option<u32> {
        let family = Family::of(source);
        let mut from = 0;
        'jumped: loop {
            for ((_, priority), rules) in self.rules.range((family, from)..=(family, u32::MAX)) {
                for rule in rules.iter().filter(|rule| matches(rule, source)) {
                    match rule.action {
                        RuleAction::Table(table) if table != MAIN => return Some(table),
                        // One without its target is passed over.
                        RuleAction::Goto(to)
                            if to > *priority && self.rules.contains_key(&(family, to)) =>
                        {
                            from = to;
                            continue 'jumped;
                        }
                        _ => {}
                    }
                }
            }
            return None;
        }
    }
}

fn matches(rule: &Rule, source: IpAddr) -> bool {
    rule.source.is_none_or(|net| net.contains(&source))
        && rule.input_interface.as_deref().is_none_or(|name| name == LOOPBACK)
        && rule.output_interface.is_none()
        && rule.destination.is_none()
}
