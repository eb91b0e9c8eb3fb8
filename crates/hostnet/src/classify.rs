//! From the addresses and prefixes of interfaces to the rules that lead their packets to the
//! interfaces' tables: a pure function.
//!
//! The kernel asks rules one after the other, so few may stand in the way of a packet. Where all
//! local addresses within a prefix are one table's, one rule is enough for them ([`separate`]).
//! Where more than [`FLAT`] are left, they are asked as a [`tree`]. The more specific of two rules
//! is asked first, so that the order in which others come and go does not matter.

mod prefix;
mod separate;
mod tree;
mod walk;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::{Family, Rule, RuleAction};

use prefix::Prefix;
use separate::{Entry, Selector, separate};
use tree::Range;
pub(crate) use walk::Walk;

/// How many rules may stand in a row; more become a tree.
pub const FLAT: usize = 32;
/// How far behind the first rule those of the interfaces are; between them there is room for more.
const SOURCE_RULES: u32 = 100;
/// How far behind the first rule the tree is.
const TREE: u32 = 298;
/// The name of the interface by which packets that are made here come in.
const LOOPBACK: &str = "lo";

/// The sources that shall be told apart, and whose they are.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    planned: BTreeMap<IpNet, Selector>,
    held: BTreeMap<IpNet, Selector>,
    /// What rules that stay stand for.
    led: BTreeMap<IpNet, Selector>,
    others: BTreeSet<IpNet>,
    /// How far rules of a table may reach: the subnets of its interface.
    subnets: BTreeMap<u32, BTreeSet<IpNet>>,
}

impl Selectors {
    /// An address of this host: only packets that are made here have it as source.
    pub fn address(&mut self, ip: IpAddr, table: u32) {
        self.planned.insert(IpNet::from(ip), Selector { table: Some(table), local: true });
    }

    /// A delegated prefix: packets that are forwarded have its addresses as source, and packets
    /// that are made here. Addresses of others within it are the table's too.
    pub fn prefix(&mut self, net: IpNet, table: u32) {
        self.planned.insert(net.trunc(), Selector { table: Some(table), local: false });
    }

    /// An address that is in no table of ours. No rule of ours ever matches it.
    pub fn other(&mut self, ip: IpAddr) {
        let net = IpNet::from(ip);
        // What is planned comes first anyway.
        if !self.planned.contains_key(&net) {
            self.others.insert(net);
        }
    }

    /// A subnet of the table's interface: a rule for several addresses may be as wide as this.
    pub fn subnet(&mut self, net: IpNet, table: u32) {
        self.subnets.entry(table).or_default().insert(net.trunc());
    }

    /// An address that is there and stays, unless it is planned for another table.
    pub fn hold_address(&mut self, ip: IpAddr, table: u32) {
        self.held.insert(IpNet::from(ip), Selector { table: Some(table), local: true });
    }

    /// What is led to the table now stays so, as far as it is nobody else's.
    pub(crate) fn hold(&mut self, walk: &Walk<'_>, table: u32) {
        for rule in walk.rules() {
            let (Some(net), RuleAction::Table(of)) = (rule.source, rule.action) else { continue };
            if of != table {
                continue;
            }
            if rule.input_interface.is_some() {
                // What a rule for several addresses stands for is told by its ends.
                self.subnet(net, table);
                let ends = [net.network(), net.broadcast()].into_iter();
                let led = ends.filter(|ip| walk.table_of(*ip) == Some(table)).map(IpNet::from);
                self.led.extend(led.map(|net| (net, Selector { table: Some(table), local: true })));
            } else if walk.table_of_prefix(net) == Some(table) {
                let local = net.prefix_len() == net.max_prefix_len();
                self.led.entry(net).or_insert(Selector { table: Some(table), local });
            }
        }
    }

    /// The address or prefix is not planned for the table after all.
    pub fn forget(&mut self, net: IpNet, table: u32) {
        if self.planned.get(&net).is_some_and(|is| is.table == Some(table)) {
            self.planned.remove(&net);
        }
    }

    /// The address families in which something leads to a table.
    pub fn families(&self) -> BTreeSet<Family> {
        let led = self.led.keys().filter(|net| !self.others.contains(net));
        let known = self.planned.keys().chain(self.held.keys()).chain(led);
        known.map(|net| Family::of(net.addr())).collect()
    }

    /// Whose is what, in one family. What is planned comes before what is there: an address may be
    /// on two devices. What only a rule tells comes last.
    fn of_family(&self, family: Family) -> Vec<(Prefix, Selector)> {
        let others = self.others.iter().map(|net| (net, &Selector { table: None, local: true }));
        let last_wins = self.led.iter().chain(others).chain(&self.held).chain(&self.planned);
        let mut all: Vec<(Prefix, Selector)> = last_wins
            .filter(|(net, _)| Family::of(net.addr()) == family)
            .map(|(net, is)| (Prefix::of(*net), *is))
            .collect();
        // What is equal keeps its order, and of that the first is kept.
        all.reverse();
        all.sort_by_key(|(prefix, _)| *prefix);
        all.dedup_by_key(|(prefix, _)| *prefix);
        all
    }
}

/// The rules of interfaces: at most [`FLAT`] in a row, or a tree. `present` are the rules that are
/// there now, of everybody; what can stay stays. `first` is the priority of our first rule, `last`
/// that of our last.
pub fn compile(selectors: &Selectors, present: &[Rule], first: u32, last: u32) -> BTreeSet<Rule> {
    let mut rules = Vec::new();
    for family in selectors.families() {
        let subnets = selectors
            .subnets
            .iter()
            .map(|(table, nets)| {
                let nets = nets.iter().filter(|net| Family::of(net.addr()) == family);
                (*table, nets.map(|net| Prefix::of(*net)).collect())
            })
            .collect();
        let entries = separate(&selectors.of_family(family), &subnets);
        let range = Range { family, first: first.saturating_add(TREE), last };
        let tree = (entries.len() > FLAT).then(|| tree::compile(&entries, present, range));
        match tree.flatten() {
            Some(tree) => rules.extend(tree),
            // Also where the tree has no room beside the one that is there: the next look finds it.
            None => rules.extend(entries.iter().map(|entry| flat(entry, family, first))),
        }
    }
    rules.into_iter().collect()
}

/// The more specific, the earlier: whichever others are there, the right one is asked first.
fn flat(entry: &Entry, family: Family, first: u32) -> Rule {
    let net = entry.prefix.net(family);
    let behind = u32::from(net.max_prefix_len().saturating_sub(net.prefix_len()));
    entry.rule(family, first.saturating_add(SOURCE_RULES).saturating_add(behind))
}

/// Sorts new rules into the order in which they are added: every packet finds either the old way
/// or the new one, whenever it comes. A tree grows from its leaves, and its entry comes last; in a
/// row the more specific come first.
pub(crate) fn order_added(rules: &mut [Rule], first: u32) {
    rules.sort_by_key(|rule| match stage(rule, first) {
        stage @ (Stage::End | Stage::Tree) => (stage, Reverse(rule.priority), 0),
        stage @ (Stage::Before | Stage::Flat) => (stage, Reverse(0), rule.priority),
    });
}

/// Sorts old rules, which are in the kernel's order, into the one in which they are removed: the way
/// of [`order_added`], back. What never came into effect because another stands before it goes first.
pub(crate) fn order_removed(rules: &mut [Rule], first: u32) {
    rules.reverse();
    rules.sort_by_key(|rule| match stage(rule, first) {
        stage @ Stage::Before => (0, stage, Reverse(0), rule.priority),
        stage @ Stage::Flat => (1, stage, Reverse(rule.priority), 0),
        stage @ Stage::Tree => (2, stage, Reverse(0), rule.priority),
        stage @ Stage::End => (3, stage, Reverse(0), rule.priority),
    });
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// In front of what is made here.
    Before,
    /// Where a tree ends, and what leads there.
    End,
    Tree,
    Flat,
}

fn stage(rule: &Rule, first: u32) -> Stage {
    let behind = rule.priority.saturating_sub(first);
    match rule.action {
        _ if rule.priority < first.saturating_add(SOURCE_RULES) => Stage::Before,
        _ if behind < TREE => Stage::Flat,
        RuleAction::Nop => Stage::End,
        RuleAction::Goto(_) if rule.source.is_none() && behind >= TREE + tree::ENTRIES => {
            Stage::End
        }
        _ => Stage::Tree,
    }
}

#[cfg(test)]
mod tests {
    use jackfield_kernel::Route;

    use super::*;
    use crate::snapshot::OURS;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rule(source: &str, priority: u32, table: u32) -> Rule {
        let source = net(source);
        let family = Family::of(source.addr());
        let rule = Rule::new(family, priority, RuleAction::Table(table));
        Rule { source: Some(source), protocol: OURS, ..rule }
    }

    fn default_route(table: u32) -> Route {
        Route { protocol: OURS, ..Route::unreachable(Family::V4.everything(), table) }
    }

    fn held(rules: &[Rule], routes: &[Route], table: u32) -> Selectors {
        let mut selectors = Selectors::default();
        selectors.hold(&Walk::new(rules, routes), table);
        selectors
    }

    #[test]
    fn a_rule_of_a_held_table_is_kept_whether_or_not_another_one_for_more_works() {
        let wide = Rule {
            input_interface: Some(LOOPBACK.to_owned()),
            ..rule("10.0.16.74/31", 14_101, 10_004)
        };
        let rules = [rule("10.0.16.75/32", 14_100, 10_002), wide];
        for routes in [vec![], vec![default_route(10_004)]] {
            let selectors = held(&rules, &routes, 10_002);
            let kept = compile(&selectors, &rules, 14_000, 15_000);
            assert_eq!(kept, [rules[0].clone()].into(), "{routes:?}");
        }
    }

    #[test]
    fn of_two_rules_for_the_same_the_one_that_works_is_kept() {
        let rules = [rule("10.0.0.9/32", 14_100, 10_001), rule("10.0.0.9/32", 14_100, 10_002)];
        let routes = [default_route(10_002)];
        assert!(held(&rules, &routes, 10_001).families().is_empty());
        let kept = compile(&held(&rules, &routes, 10_002), &rules, 14_000, 15_000);
        assert_eq!(kept, [rules[1].clone()].into());
    }

    #[test]
    fn a_family_in_which_only_others_have_addresses_has_no_rules() {
        let rules = [rule("2001:db8::30/128", 14_100, 10_002)];
        let mut selectors = held(&rules, &[], 10_002);
        assert_eq!(selectors.families(), [Family::V6].into());
        selectors.other(net("2001:db8::30/128").addr());
        assert_eq!(selectors.families(), [].into());
    }
}
