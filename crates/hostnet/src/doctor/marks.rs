//! Bits of packet marks that somebody else uses too.

use std::collections::BTreeSet;

use jackfield_kernel::Mark;

use super::{Facts, Finding, MarkUse, some};
use crate::snapshot::OURS;

const CHECK: &str = "marks";

/// How two uses of marks get in each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Clash {
    /// With a mark that no interface has now.
    Later,
    /// With one that an interface has.
    Now,
}

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mask = facts.config.agent.mark_mask;
    let rules = &facts.snapshot.rules;
    let used: BTreeSet<u32> = rules
        .iter()
        .filter(|rule| rule.protocol == OURS)
        .filter_map(|rule| rule.mark)
        .map(|mark| mark.value)
        .filter(|value| *value != 0)
        .collect();
    let by_rules = rules.iter().filter(|rule| rule.protocol != OURS).filter_map(|rule| {
        let by = format!("rule {}", rule.priority);
        Some(MarkUse { by, mark: rule.mark?, sets: false })
    });
    let by_firewall = facts.firewall.iter().flatten().cloned();
    let clashes: Vec<(Clash, MarkUse)> = by_rules
        .chain(by_firewall)
        .filter_map(|it| Some((clash(it.mark, mask, &used)?, it)))
        .collect();
    let fix = "set agent.mark_mask to bits that nobody uses (docs/configuration.md), or give the \
               other one a mask";
    let mut findings = Vec::new();
    for wanted in [Clash::Now, Clash::Later] {
        let told: BTreeSet<String> =
            clashes.iter().filter(|(is, _)| *is == wanted).map(|(_, it)| text(it)).collect();
        if told.is_empty() {
            continue;
        }
        let told = some(told);
        findings.push(match wanted {
            Clash::Now => Finding::problem(
                CHECK,
                format!("marks of interfaces (mask {mask:#x}) mean something else too: {told}"),
                fix,
            ),
            Clash::Later => Finding::warning(
                CHECK,
                format!("marks may come to mean something else too (mask {mask:#x}): {told}"),
                fix,
            ),
        });
    }
    if findings.is_empty() {
        let unread = facts.snapshot.forwarding.on && facts.firewall.is_none();
        let rest = if unread { "; what firewalls do could not be read" } else { "" };
        findings.push(Finding::ok(CHECK, format!("nobody else uses bits of {mask:#x}{rest}")));
    }
    findings
}

/// Whether a packet can have a mark that means something to both.
fn clash(theirs: Mark, ours: u32, used: &BTreeSet<u32>) -> Option<Clash> {
    let bits = theirs.value & ours;
    // What is not marked is everybody's.
    if theirs.value == 0 || bits == 0 {
        return None;
    }
    // A packet of theirs has one of ours, or one of ours is what they look for.
    let now = used.contains(&bits) || used.iter().any(|mark| mark & theirs.mask == theirs.value);
    Some(if now { Clash::Now } else { Clash::Later })
}

fn text(it: &MarkUse) -> String {
    let Mark { value, mask } = it.mark;
    let does = if it.sets { "sets" } else { "looks for" };
    format!("{} {does} {value:#x}/{mask:#x}", it.by)
}

#[cfg(test)]
mod tests {
    use jackfield_kernel::{Family, Rule, RuleAction};

    use super::*;
    use crate::doctor::Outcome::{Ok, Problem, Warning};
    use crate::doctor::tests::results;

    fn rule(value: u32, mask: u32, protocol: u8) -> Rule {
        let mark = Some(Mark { value, mask });
        Rule { mark, protocol, ..Rule::new(Family::V4, 100, RuleAction::Table(200)) }
    }

    fn beside(value: u32, mask: u32) -> Facts {
        let mut facts = Facts::default();
        facts.snapshot.rules = vec![rule(1, 0x7f, OURS), rule(value, mask, 0)];
        facts
    }

    #[test]
    fn the_marks_of_those_who_are_known_are_clear_of_ours() {
        for (value, mask) in [
            // The VPC CNI and Cilium, kube-proxy, Tailscale, Calico.
            (0x80, 0x80),
            (0x200, 0xf00),
            (0x4000, 0x4000),
            (0x8000, 0x8000),
            (0x80000, 0xff_0000),
            (0x1_0000, 0xffff_0000),
        ] {
            assert_eq!(
                results(&check(&beside(value, mask))),
                [(CHECK, Ok)],
                "{value:#x}/{mask:#x}"
            );
        }
    }

    #[test]
    fn a_mark_that_an_interface_has_is_a_problem_and_one_of_its_bits_a_warning() {
        assert_eq!(results(&check(&beside(1, u32::MAX))), [(CHECK, Problem)]);
        assert_eq!(results(&check(&beside(1, 1))), [(CHECK, Problem)]);
        // wg-quick's, as long as there are not 108 interfaces.
        assert_eq!(results(&check(&beside(0xca6c, u32::MAX))), [(CHECK, Warning)]);
        assert_eq!(results(&check(&beside(0, u32::MAX))), [(CHECK, Ok)]);
    }

    #[test]
    fn what_a_firewall_sets_counts_too() {
        let mut facts = beside(0x80, 0x80);
        let mark = Mark { value: 0x1, mask: u32::MAX };
        facts.firewall = Some(vec![MarkUse { by: "chain x".to_owned(), mark, sets: true }]);
        let found = check(&facts);
        assert_eq!(results(&found), [(CHECK, Problem)]);
        assert!(found[0].text.contains("chain x sets 0x1/0xffffffff"), "{found:?}");
    }
}
