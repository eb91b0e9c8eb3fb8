//! What a refusal of the kernel does to the rest of a plan.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use jackfield_hostnet::{Applied, Change, Edit, InterfaceRef, Journal, OURS, Plan, apply};
use jackfield_kernel::{Family, Link, Namespace, Rtnetlink, Rule, RuleAction, VethEnd, veth_pair};

const JOURNAL: &str = "jackfield: table=10001 mtu=1500 group=0 up=0";

/// Makes the changes to a device `eth1` of a namespace of its own.
fn applied_to_eth1(edits: impl IntoIterator<Item = Edit>) -> (Applied, Link) {
    let namespace = Namespace::anonymous().expect("this test needs the right to make namespaces");
    let mut kernel = Rtnetlink::open_in(&namespace).unwrap();
    let end = |name| VethEnd { name, address: None, mtu: None, namespace: None };
    kernel.request("make a pair", veth_pair(end("eth1"), end("other"))).unwrap();
    let eth1 = |kernel: &mut Rtnetlink| {
        let links = Link::list(kernel).unwrap();
        links.into_iter().find(|link| link.name == "eth1").unwrap()
    };
    let index = eth1(&mut kernel).index;
    let change = |edit| {
        let interface = InterfaceRef { index, name: "eth1".to_owned(), mac: None };
        Change { interface: Some(interface), edit }
    };
    let plan = Plan { changes: edits.into_iter().map(change).collect() };
    let applied = apply(&mut kernel, &plan).unwrap();
    let link = eth1(&mut kernel);
    (applied, link)
}

fn alias(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_device_whose_journal_is_refused_is_not_changed() {
    let too_long = format!("{JOURNAL} alias={}", "x".repeat(300));
    assert!(Journal::read(&too_long).is_some());
    let (applied, eth1) = applied_to_eth1([
        Edit::Alias { from: None, to: Some(too_long) },
        Edit::Mtu { from: 1500, to: 1400 },
        Edit::Up { from: false, to: true },
    ]);
    assert_eq!((eth1.mtu, eth1.up, eth1.alias), (1500, false, None));
    assert_eq!((applied.done, applied.refused.len(), applied.withheld.len()), (0, 1, 2));
}

#[test]
fn a_journal_is_kept_where_what_it_tells_cannot_be_put_back() {
    let (applied, eth1) = applied_to_eth1([
        Edit::Alias { from: None, to: alias(JOURNAL) },
        Edit::Mtu { from: 1500, to: 100_000 },
        Edit::Group { from: 0, to: 7 },
        Edit::Alias { from: alias(JOURNAL), to: None },
    ]);
    assert_eq!((eth1.mtu, eth1.group, eth1.alias), (1500, 7, alias(JOURNAL)));
    assert_eq!((applied.done, applied.refused.len(), applied.withheld.len()), (2, 1, 1));
}

#[test]
fn a_journal_goes_when_all_that_it_tells_is_put_back() {
    let (applied, eth1) = applied_to_eth1([
        Edit::Alias { from: None, to: alias(JOURNAL) },
        Edit::Mtu { from: 1500, to: 1400 },
        Edit::Alias { from: alias(JOURNAL), to: alias("uplink") },
    ]);
    assert_eq!((eth1.mtu, eth1.alias), (1400, alias("uplink")));
    assert_eq!((applied.done, applied.refused.len(), applied.withheld.len()), (3, 0, 0));
}

#[test]
fn no_rule_goes_where_one_was_refused_that_may_be_in_its_place() {
    let rule = |family, action| Rule { protocol: OURS, ..Rule::new(family, 14_100, action) };
    let old = |family| rule(family, RuleAction::Table(10_001));
    // A goto leads forward only.
    let (applied, _) = applied_to_eth1([
        Edit::AddRule(old(Family::V4)),
        Edit::AddRule(old(Family::V6)),
        Edit::AddRule(rule(Family::V4, RuleAction::Goto(14_000))),
        Edit::AddRule(rule(Family::V6, RuleAction::Table(10_002))),
        Edit::RemoveRule(old(Family::V4)),
        Edit::RemoveRule(old(Family::V6)),
    ]);
    assert_eq!((applied.done, applied.refused.len()), (4, 1));
    let withheld: Vec<_> = applied.withheld.into_iter().map(|(change, _)| change.edit).collect();
    assert_eq!(withheld, [Edit::RemoveRule(old(Family::V4))]);
}
