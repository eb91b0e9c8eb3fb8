//! Where the rules that are there lead a source.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::{Family, Route, Rule, RuleAction};

use super::LOOPBACK;
use crate::snapshot::{MAIN, OURS};

/// Our rules, as the kernel asks them about packets that are made here.
pub(crate) struct Walk<'a> {
    rules: BTreeMap<(Family, u32), Vec<&'a Rule>>,
    /// Tables that have an end: in others the kernel finds no route, and asks the next rule.
    ending: BTreeSet<(Family, u32)>,
}

impl<'a> Walk<'a> {
    /// Of everybody's rules, in the kernel's order, and routes.
    pub(crate) fn new(present: &'a [Rule], routes: &[Route]) -> Self {
        let mut rules: BTreeMap<(Family, u32), Vec<&Rule>> = BTreeMap::new();
        // Marks are for forwarded packets.
        let asked =
            |rule: &&Rule| rule.protocol == OURS && rule.mark.is_none() && !rule.selects_further;
        for rule in present.iter().filter(asked) {
            rules.entry((rule.family, rule.priority)).or_default().push(rule);
        }
        let end = |route: &&Route| route.destination.prefix_len() == 0;
        let ending = routes.iter().filter(end).map(|route| (route.family(), route.table)).collect();
        Walk { rules, ending }
    }

    /// Our rules in their order.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &'a Rule> + Clone {
        self.rules.values().flatten().copied()
    }

    /// The table to which rules for exactly this prefix lead; where none of those that they name has
    /// routes, the first.
    pub(crate) fn table_of_prefix(&self, net: IpNet) -> Option<u32> {
        let family = Family::of(net.addr());
        let mut tables = self.rules().filter_map(|rule| match rule.action {
            RuleAction::Table(table) if rule.source == Some(net) => Some(table),
            _ => None,
        });
        let first = tables.clone().next();
        tables.find(|table| self.ending.contains(&(family, *table))).or(first)
    }

    /// The table of an interface to which packets from this address go; where none of those that the
    /// rules name has routes, the first.
    pub(crate) fn table_of(&self, source: IpAddr) -> Option<u32> {
        let family = Family::of(source);
        let mut from = 0;
        let mut first = None;
        'jumped: loop {
            for ((_, priority), rules) in self.rules.range((family, from)..=(family, u32::MAX)) {
                for rule in rules.iter().filter(|rule| matches(rule, source)) {
                    match rule.action {
                        RuleAction::Table(table) if table != MAIN => {
                            if self.ending.contains(&(family, table)) {
                                return Some(table);
                            }
                            first = first.or(Some(table));
                        }
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
            return first;
        }
    }
}

fn matches(rule: &Rule, source: IpAddr) -> bool {
    rule.source.is_none_or(|net| net.contains(&source))
        && rule.input_interface.as_deref().is_none_or(|name| name == LOOPBACK)
        && rule.output_interface.is_none()
        && rule.destination.is_none()
}
