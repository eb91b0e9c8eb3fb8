//! Rules and tables of others where ours are.

use jackfield_kernel::{Rule, RuleAction};

use super::facts::TABLES;
use super::{Facts, Finding, some};
use crate::config::LAST_RULE_PRIORITY;
use crate::prefix::LOCAL;
use crate::snapshot::{MAIN, OURS};

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![among(facts), before(facts), tables(facts)]
}

fn among(facts: &Facts) -> Finding {
    const CHECK: &str = "rules";
    let range = facts.config.agent.rule_priority..=LAST_RULE_PRIORITY;
    let others = of_others(facts).filter(|rule| range.contains(&rule.priority));
    let others: Vec<String> = others.map(text).collect();
    let (first, last) = range.into_inner();
    if others.is_empty() {
        return Finding::ok(CHECK, format!("no rule of others is from {first} to {last}"));
    }
    Finding::warning(
        CHECK,
        format!("rules of others are among jackfield's ({first} to {last}): {}", some(others)),
        "move them, or set agent.rule_priority: what they say may come before or after a rule of \
         jackfield's by chance",
    )
}

/// A rule for everything that leads out before ours are asked.
fn before(facts: &Facts) -> Finding {
    const CHECK: &str = "rules-before";
    let first = facts.config.agent.rule_priority;
    let leads_out = |rule: &Rule, table: u32| match table {
        LOCAL => false,
        // Main as a whole has a default route on every host.
        MAIN => true,
        table => facts.routes_of_others.iter().any(|route| {
            route.table == table
                && route.family() == rule.family
                && route.destination.prefix_len() == 0
        }),
    };
    let takes_all = |rule: &&Rule| {
        let RuleAction::Table(table) = rule.action else { return false };
        rule.priority < first
            && rule.source.is_none_or(|net| net.prefix_len() == 0)
            && rule.destination.is_none_or(|net| net.prefix_len() == 0)
            && rule.mark.is_none()
            && rule.input_interface.as_deref().is_none_or(|name| name == "lo")
            && rule.output_interface.is_none()
            && rule.suppress_prefix_length.is_none()
            && rule.suppress_group.is_none()
            && !rule.selects_further
            && leads_out(rule, table)
    };
    let others: Vec<String> = of_others(facts).filter(takes_all).map(text).collect();
    if others.is_empty() {
        return Finding::ok(CHECK, "no rule of others takes everything before jackfield's");
    }
    Finding::problem(
        CHECK,
        format!("before jackfield's rules, everything goes by {}", some(others)),
        format!("give it a selector, or a priority behind {LAST_RULE_PRIORITY}"),
    )
}

fn tables(facts: &Facts) -> Finding {
    const CHECK: &str = "tables";
    let base = facts.config.agent.table_base;
    let range = base.saturating_sub(1)..base.saturating_add(TABLES);
    let others = facts.routes_of_others.iter().filter(|route| range.contains(&route.table));
    let others: Vec<String> = others
        .map(|route| {
            let (to, table, by) = (&route.destination, route.table, route.protocol);
            format!("to {to} in table {table} (protocol {by})")
        })
        .collect();
    if others.is_empty() {
        return Finding::ok(CHECK, format!("no route of others is in tables from {base}"));
    }
    Finding::warning(
        CHECK,
        format!("routes of others are in tables that are jackfield's: {}", some(others)),
        "remove them, or set agent.table_base: an interface whose table holds one is not plugged",
    )
}

fn of_others(facts: &Facts) -> impl Iterator<Item = &Rule> {
    facts.snapshot.rules.iter().filter(|rule| rule.protocol != OURS)
}

fn text(rule: &Rule) -> String {
    let action = match rule.action {
        RuleAction::Table(table) => format!("lookup {table}"),
        RuleAction::Goto(to) => format!("goto {to}"),
        RuleAction::Nop => "nop".to_owned(),
        RuleAction::Blackhole => "blackhole".to_owned(),
        RuleAction::Unreachable => "unreachable".to_owned(),
        RuleAction::Prohibit => "prohibit".to_owned(),
        RuleAction::Other(number) => format!("action {number}"),
    };
    let family = if rule.family == jackfield_kernel::Family::V6 { " of IPv6" } else { "" };
    format!("rule {}{family} ({action}, protocol {})", rule.priority, rule.protocol)
}

#[cfg(test)]
mod tests {
    use jackfield_kernel::{Family, Route};

    use super::*;
    use crate::doctor::Outcome::{Ok, Problem, Warning};

    fn with(rule: Rule) -> Facts {
        let mut facts = Facts::default();
        // As every host has them.
        let local = Rule::new(Family::V4, 0, RuleAction::Table(LOCAL));
        let main = Rule::new(Family::V4, 32_766, RuleAction::Table(MAIN));
        facts.snapshot.rules = vec![local, main, rule];
        facts
    }

    #[test]
    fn rules_of_others_among_ours_are_told_of() {
        let rule = Rule::new(Family::V6, 14_050, RuleAction::Table(200));
        let found = among(&with(rule.clone()));
        assert_eq!(found.result, Warning);
        assert!(found.text.contains("rule 14050 of IPv6 (lookup 200"), "{found:?}");
        assert_eq!(among(&with(Rule { protocol: OURS, ..rule.clone() })).result, Ok);
        assert_eq!(among(&with(Rule { priority: 13_999, ..rule })).result, Ok);
    }

    #[test]
    fn a_rule_that_takes_everything_before_ours_is_a_problem_where_it_leads_out() {
        let rule = Rule::new(Family::V4, 5270, RuleAction::Table(52));
        let default = Route::unreachable(Family::V4.everything(), 52);
        let mut facts = with(rule.clone());
        assert_eq!(before(&facts).result, Ok);
        facts.routes_of_others = vec![default];
        assert_eq!(before(&facts).result, Problem);
        facts.snapshot.rules[2].suppress_prefix_length = Some(0);
        assert_eq!(before(&facts).result, Ok);
        assert_eq!(before(&with(Rule { action: RuleAction::Table(MAIN), ..rule })).result, Problem);
    }

    #[test]
    fn routes_of_others_in_our_tables_are_told_of() {
        let route = Route::unreachable("192.0.2.0/24".parse().unwrap(), 10_001);
        let mut facts = Facts { routes_of_others: vec![route], ..Facts::default() };
        let found = tables(&facts);
        assert_eq!(found.result, Warning);
        assert!(found.text.contains("192.0.2.0/24 in table 10001"), "{found:?}");
        facts.config.agent.table_base = 20_000;
        assert_eq!(tables(&facts).result, Ok);
    }
}
