//! Each interface, and what is left of those that are gone.

use std::collections::BTreeSet;

use jackfield_kernel::Link;
use jackfield_metadata::{InterfaceId, MacAddr};

use super::{Facts, Finding, some};
use crate::config::Mtu;
use crate::desired::{identity, names_of};
use crate::journal::Journal;
use crate::status::{InterfaceStatus, State};

const INTERFACE: &str = "interface";
/// What passes by itself, most likely.
const WAITS: [&str; 8] = [
    "metadata-incomplete",
    "metadata-silent",
    "no-subnet",
    "awaiting-udev",
    "awaiting-backend",
    "address-elsewhere",
    "also-managed",
    "rules-deleted-by-others",
];
/// Another check says it.
const ELSEWHERE: [&str; 4] =
    ["metadata-unreachable", "not-listed", "group-in-use", "rules-deleted-by-others"];

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        facts.status.iter().flat_map(|status| interface(facts, status)).collect();
    findings.extend([group(facts), left_over(facts)]);
    findings.extend(mtu(facts));
    findings
}

fn interface(facts: &Facts, status: &InterfaceStatus) -> Vec<Finding> {
    let name = &status.name;
    match status.state {
        State::Unmanaged => {
            let text = format!("{name} is configured not to be managed");
            return vec![Finding::not_applicable(INTERFACE, text)];
        }
        State::Foreign => {
            let text = format!("{name} is left to {}", status.owner);
            return vec![Finding::not_applicable(INTERFACE, text)];
        }
        _ => {}
    }
    let told = status.problems.iter().filter(|problem| !ELSEWHERE.contains(&problem.code.as_ref()));
    let mut findings: Vec<Finding> = told
        .map(|problem| {
            let text = format!("{name}: {} [{}]", problem.text, problem.code);
            // The agent is about to make them.
            let soon = problem.code == "not-as-desired" && facts.agent_runs;
            match soon || WAITS.contains(&problem.code.as_ref()) && status.state != State::Error {
                true => Finding::warning(INTERFACE, text, problem.fix.clone()),
                false => Finding::problem(INTERFACE, text, problem.fix.clone()),
            }
        })
        .collect();
    if findings.is_empty() {
        let table = status.table.map(|table| format!(", table {table}")).unwrap_or_default();
        let text = format!(
            "{name} is {}: {} addresses{table}",
            status.state.name(),
            status.addresses.len()
        );
        findings.push(match (status.state, status.problems.is_empty()) {
            (State::Configured, _) => Finding::ok(INTERFACE, text),
            // The check that says what is wrong says the rest.
            (_, false) => Finding::not_applicable(INTERFACE, text),
            (_, true) => Finding::warning(INTERFACE, text, "see 'jackfield status'"),
        });
    }
    findings
}

/// A device in the link group that is no cloud interface of ours.
fn group(facts: &Facts) -> Finding {
    const CHECK: &str = "link-group";
    let group = facts.config.agent.link_group;
    let primary = facts.primary().map(|primary| primary.index);
    let listed = |link: &Link| {
        let mac = link.address.map(MacAddr::from);
        mac.is_some_and(|mac| facts.listed.iter().flatten().any(|listed| *listed == mac))
    };
    let stranger = |link: &&Link| {
        let plugged = Journal::of(link).is_some();
        link.group == group && !plugged && Some(link.index) != primary && !listed(link)
    };
    let strangers: Vec<&str> =
        facts.snapshot.links.iter().filter(stranger).map(|link| link.name.as_str()).collect();
    if strangers.is_empty() {
        return Finding::ok(CHECK, format!("nothing else is in link group {group}"));
    }
    Finding::problem(
        CHECK,
        format!("link group {group} is used by {}, which is no cloud interface", some(strangers)),
        "set agent.link_group to a group that nothing uses, or take the device out of it",
    )
}

/// Rules and routes of ours that are nobody's any more.
fn left_over(facts: &Facts) -> Finding {
    const CHECK: &str = "left-over";
    // What says which rules are asked belongs to those that are here too.
    let base = facts.config.agent.table_base;
    let removed = facts.changes.iter().filter(|change| change.table_of_gone(base).is_some());
    let left: Vec<String> = removed.map(ToString::to_string).collect();
    if left.is_empty() {
        return Finding::ok(CHECK, "nothing is left of interfaces that are gone");
    }
    let text = format!("something is left of interfaces that are gone: {}", some(left));
    match facts.agent_runs {
        true => Finding::warning(CHECK, text, "the agent is about to remove it"),
        false => Finding::problem(CHECK, text, "run 'jackfield scan'"),
    }
}

/// Whether plugged interfaces take as large packets as the primary does, where they are to.
fn mtu(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "mtu";
    let link = |index: u32| facts.snapshot.link(index);
    let Some(primary) = facts.primary().and_then(|primary| link(primary.index)) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for interface in facts.plugged() {
        let Some(is) = link(interface.index) else { continue };
        let names = names_of(is);
        let status = facts.status.iter().find(|status| status.ifindex == interface.index);
        let interface_id: Option<InterfaceId> =
            status.and_then(|status| status.interface_id.as_ref()?.parse().ok());
        let identity = identity(interface.mac, interface_id.as_ref(), interface.slot, &names);
        seen.insert(is.mtu);
        if facts.config.for_interface(&identity).mtu == Mtu::Primary && is.mtu < primary.mtu {
            findings.push(Finding::warning(
                CHECK,
                format!(
                    "{} takes packets of {} octets, and the primary {} of {}",
                    is.name, is.mtu, primary.name, primary.mtu
                ),
                match is.max_mtu {
                    most if most != 0 && most < primary.mtu => "its device cannot take larger ones",
                    _ => "see 'jackfield plan'",
                },
            ));
        }
    }
    if findings.is_empty() && !seen.is_empty() {
        findings.push(Finding::ok(CHECK, format!("packets may have {} octets", some(seen))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use jackfield_kernel::{Family, Rule, RuleAction};

    use super::*;
    use crate::change::{Change, Edit};
    use crate::config::Config;
    use crate::desired::{DesiredInterface, Role};
    use crate::doctor::Outcome::{self, NotApplicable, Ok, Warning};

    use crate::doctor::tests::results;
    use crate::neighbours::tests::link;
    use crate::problem::Problem;

    const BAD: Outcome = Outcome::Problem;

    fn status(state: State, problems: &[&'static str]) -> InterfaceStatus {
        InterfaceStatus {
            name: "eth1".to_owned(),
            ifindex: 3,
            mac: "02:ec:20:00:00:03".to_owned(),
            interface_id: None,
            device_number: Some(1),
            network_card: Some(0),
            primary: false,
            managed: true,
            owner: "jackfield".into(),
            backend: "kernel".into(),
            state,
            table: Some(10_001),
            group: 106,
            mtu: 1500,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            metadata_age_s: None,
            problems: problems
                .iter()
                .map(|code| Problem {
                    code: (*code).into(),
                    text: "text".to_owned(),
                    fix: "fix".to_owned(),
                })
                .collect(),
        }
    }

    #[test]
    fn what_stands_in_the_way_of_an_interface_is_a_problem_and_what_it_waits_for_is_not() {
        for (state, problems, agent_runs, expected) in [
            (State::Configured, &[][..], false, vec![Ok]),
            (State::Unmanaged, &[], false, vec![NotApplicable]),
            (State::Foreign, &["foreign"], false, vec![NotApplicable]),
            (State::Error, &["table-in-use"], false, vec![BAD]),
            (State::Error, &["left-alone"], true, vec![BAD]),
            (State::Pending, &["metadata-incomplete"], false, vec![Warning]),
            (State::Pending, &["not-as-desired"], true, vec![Warning]),
            (State::Pending, &["not-as-desired"], false, vec![BAD]),
            (State::Configured, &["also-managed", "ipv6-disabled"], false, vec![Warning, BAD]),
            // The check of metadata says it.
            (State::Pending, &["not-listed"], false, vec![NotApplicable]),
            (State::Configured, &["metadata-unreachable"], false, vec![Ok]),
        ] {
            let facts = Facts { agent_runs, ..Facts::default() };
            let found = interface(&facts, &status(state, problems));
            let found: Vec<_> = found.into_iter().map(|finding| finding.result).collect();
            assert_eq!(found, expected, "{state:?} {problems:?}");
        }
    }

    #[test]
    fn a_stranger_in_the_link_group_is_a_problem() {
        let mut facts = Facts::default();
        facts.snapshot.links = vec![Link { group: 106, ..link(3, "br0") }, link(4, "eth1")];
        let found = group(&facts);
        assert_eq!(found.result, BAD);
        assert!(found.text.contains("br0"), "{found:?}");
        facts.snapshot.links[0].group = 5;
        assert_eq!(group(&facts).result, Ok);
    }

    #[test]
    fn what_is_left_over_goes_by_a_scan_where_no_agent_sees_to_it() {
        let rule = Rule::new(Family::V4, 14_100, RuleAction::Table(10_001));
        let change = Change { interface: None, edit: Edit::RemoveRule(rule) };
        let mut facts = Facts { changes: vec![change], ..Facts::default() };
        assert_eq!(left_over(&facts).result, BAD);
        assert!(left_over(&facts).fix.contains("jackfield scan"));
        facts.agent_runs = true;
        assert_eq!(left_over(&facts).result, Warning);
        facts.changes.clear();
        assert_eq!(left_over(&facts).result, Ok);
        // Rules of all interfaces, which those that are here may not need any more.
        let rule = |priority, action| Change {
            interface: None,
            edit: Edit::RemoveRule(Rule::new(Family::V4, priority, action)),
        };
        facts.changes = vec![
            rule(14_000, RuleAction::Table(crate::snapshot::MAIN)),
            rule(14_010, RuleAction::Goto(14_100)),
        ];
        assert_eq!(left_over(&facts).result, Ok);
    }

    #[test]
    fn an_interface_that_takes_smaller_packets_than_the_primary_is_told_of() {
        let mac = MacAddr::from([2, 0, 0, 0, 0, 1]);
        let interface = |index: u32, role: Role| DesiredInterface::with_role(index, "", mac, role);
        let mut facts = Facts {
            interfaces: vec![interface(2, Role::Primary), interface(3, Role::Plugged)],
            ..Facts::default()
        };
        facts.snapshot.links =
            vec![Link { mtu: 9001, ..link(2, "eth0") }, Link { mtu: 9001, ..link(3, "eth1") }];
        assert_eq!(results(&mtu(&facts)), [("mtu", Ok)]);
        facts.snapshot.links[1].mtu = 1500;
        assert_eq!(results(&mtu(&facts)), [("mtu", Warning)]);
        // One alone is to keep what it has, and it is the one.
        let of_one =
            "[[interface]]\nmatch.interface_id = \"eni-0123456789abcdef0\"\nmtu = \"keep\"\n";
        facts.config = Config::parse(of_one, std::path::Path::new("config.toml")).unwrap();
        assert_eq!(results(&mtu(&facts)), [("mtu", Warning)]);
        facts.status = vec![InterfaceStatus {
            interface_id: Some("eni-0123456789abcdef0".to_owned()),
            ..status(State::Configured, &[])
        }];
        assert_eq!(results(&mtu(&facts)), [("mtu", Ok)]);
        facts.config = Config::default();
        facts.config.defaults.mtu = Mtu::Keep;
        assert_eq!(results(&mtu(&facts)), [("mtu", Ok)]);
    }
}
