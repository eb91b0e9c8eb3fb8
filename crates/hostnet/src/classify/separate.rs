//! The fewest prefixes that tell the tables' sources from one another and from all others.

use std::collections::BTreeMap;

use ipnet::IpNet;
use jackfield_kernel::{Family, Rule, RuleAction};

use super::LOOPBACK;
use super::prefix::Prefix;
use crate::snapshot::OURS;

/// Whose a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Selector {
    /// `None`: nobody's who has a table.
    pub(super) table: Option<u32>,
    /// True where only packets that are made here have it.
    pub(super) local: bool,
}

/// A source prefix that leads to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) prefix: Prefix,
    /// It is wider than what it stands for, and matches only packets that are made here: those have
    /// an address of this host as source, and the only ones within are the table's.
    pub(super) widened: bool,
    pub(super) table: u32,
}

impl Entry {
    pub(super) fn rule(&self, family: Family, priority: u32) -> Rule {
        let net: IpNet = self.prefix.net(family);
        Rule {
            source: Some(net),
            input_interface: self.widened.then(|| LOOPBACK.to_owned()),
            protocol: OURS,
            ..Rule::new(family, priority, RuleAction::Table(self.table))
        }
    }
}

type Selected = (Prefix, Selector);

/// `selectors` in their order, each prefix once. Returns entries in the order of prefixes: two of
/// them overlap only where one is a delegated prefix that lies around the other.
pub(super) fn separate(selectors: &[Selected], subnets: &BTreeMap<u32, Vec<Prefix>>) -> Vec<Entry> {
    let mut entries = Vec::new();
    let around = None;
    Separation { subnets, entries: &mut entries }.part(selectors, around);
    entries
}

struct Separation<'a> {
    subnets: &'a BTreeMap<u32, Vec<Prefix>>,
    entries: &'a mut Vec<Entry>,
}

impl Separation<'_> {
    /// `around`: whose prefix it is in which all of these lie.
    fn part(&mut self, selectors: &[Selected], around: Option<Selector>) {
        let (Some(((prefix, is), within)), Some((last, _))) =
            (selectors.split_first().map(|(first, rest)| (*first, rest)), selectors.last())
        else {
            return;
        };
        let common = prefix.common(*last);
        if prefix == common {
            let around_table = around.and_then(|around| around.table);
            match is.table {
                Some(table) if around_table != Some(table) => {
                    self.entries.push(Entry { prefix, widened: false, table });
                }
                _ => {}
            }
            // Others' addresses in a delegated prefix are the prefix's.
            let inner = if is.table.is_none() && around.is_some() { around } else { Some(is) };
            return self.part(within, inner);
        }
        if let (None, Some(table)) = (around, is.table)
            && selectors.iter().all(|(_, other)| *other == is)
            && is.local
            && self.subnets.get(&table).into_iter().flatten().any(|net| net.contains(common))
        {
            return self.entries.push(Entry { prefix: common, widened: true, table });
        }
        let at = selectors.partition_point(|(prefix, _)| !prefix.bit(common.len()));
        let (zero, one) = selectors.split_at(at);
        self.part(zero, around);
        self.part(one, around);
    }
}
