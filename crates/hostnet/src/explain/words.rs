//! Rules, ways and reasons in words.

use std::fmt;
use std::ops::RangeInclusive;

use jackfield_kernel::{Family, SelectingRule};

use super::facts::{Facts, table_name};
use super::leg::{self, Leg};
use super::walk::StepResult;
use super::{Direction, Marked, Subject};
use crate::change::{write_rule_action, write_rule_selector};

/// A rule as iproute2 writes it.
pub(super) fn rule_text(rule: &SelectingRule) -> String {
    struct Text<'a>(&'a SelectingRule);
    impl fmt::Display for Text<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write(f, self.0)
        }
    }
    Text(rule).to_string()
}

fn write(f: &mut fmt::Formatter<'_>, rule: &SelectingRule) -> fmt::Result {
    let selection = &rule.selection;
    if selection.inverted {
        write!(f, "not ")?;
    }
    write_rule_selector(f, &rule.rule)?;
    if let Some(protocol) = selection.protocol {
        match protocol {
            1 => write!(f, " ipproto icmp")?,
            6 => write!(f, " ipproto tcp")?,
            17 => write!(f, " ipproto udp")?,
            number => write!(f, " ipproto {number}")?,
        }
    }
    if let Some(ports) = &selection.source_ports {
        write_range(f, "sport", ports)?;
    }
    if let Some(ports) = &selection.destination_ports {
        write_range(f, "dport", ports)?;
    }
    if let Some(users) = &selection.users {
        write!(f, " uidrange {}-{}", users.start(), users.end())?;
    }
    if selection.tos != 0 {
        write!(f, " tos {:#x}", selection.tos)?;
    }
    if selection.vrf {
        return write!(f, " lookup [l3mdev-table]");
    }
    write_rule_action(f, &rule.rule)
}

fn write_range(f: &mut fmt::Formatter<'_>, what: &str, ports: &RangeInclusive<u16>) -> fmt::Result {
    if ports.start() == ports.end() {
        return write!(f, " {what} {}", ports.start());
    }
    write!(f, " {what} {}-{}", ports.start(), ports.end())
}

/// The answer in one line.
pub(super) fn summary(subject: &Subject<'_>, answer: Option<&Leg>, delivers: bool) -> String {
    let way = subject.way;
    let ends = format!("{} → {}: ", way.source, way.destination);
    let input = way.input.as_deref().unwrap_or_default();
    if !way.goes {
        let by = if input.is_empty() { String::new() } else { format!("comes in by {input}, ") };
        let refusal = way.refusal.as_deref().unwrap_or("refused");
        return format!("{ends}{by}goes nowhere: {refusal}");
    }
    let mut text = ends;
    match subject.direction {
        Direction::Out => text.push_str(&sent(way)),
        Direction::Inside => text.push_str("stays on this host"),
        Direction::Forward => text.push_str(&format!("in by {input}, {}", sent(way))),
        Direction::In => {
            text.push_str(&format!("in by {input}, received here"));
            match answer {
                Some(answer) if answer.goes => {
                    text.push_str(&format!("; the answer goes {}", sent(answer)));
                }
                _ => text.push_str("; no answer gets out"),
            }
        }
    }
    if !delivers {
        text.push_str("; it does not arrive");
    }
    text
}

/// `out by eth1 via 10.0.2.1, table 10001`.
pub(super) fn sent(leg: &Leg) -> String {
    let Some(interface) = &leg.interface else { return "is received here".to_owned() };
    let gateway = leg.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let table = leg.table.map(|table| format!(", table {}", table_name(table)));
    format!("out by {interface}{gateway}{}", table.unwrap_or_default())
}

/// Why it takes its way.
pub(super) fn why(subject: &Subject<'_>, answer: Option<&Leg>, marked: &[Marked]) -> Vec<String> {
    let (facts, way) = (subject.facts, subject.way);
    let mut why = vec![whose(subject)];
    if subject.question.mark != 0 {
        why.push(format!("it has the mark {:#x}", subject.question.mark));
    }
    if subject.direction != Direction::In {
        why.extend(decided(facts, way));
    }
    if way.goes
        && subject.direction == Direction::Out
        && let (Some(gateway), Some(mtu)) = (way.gateway, way.mtu)
    {
        why.push(format!("it is handed to {gateway}; the path takes packets of {mtu} octets"));
    }
    if let Some(answer) = answer.filter(|answer| answer.goes) {
        match subject.direction {
            Direction::In => {
                why.push(format!("the answer, from {}, goes {}", answer.source, sent(answer)));
                why.extend(decided(facts, answer));
            }
            Direction::Out => {
                let input = answer.input.as_deref().unwrap_or_default();
                why.push(format!("an answer that comes in by {input} is received"));
            }
            _ => {}
        }
    }
    for marked in marked {
        let by = marked.came_by.as_deref().unwrap_or("an interface that is gone");
        let goes = match marked.way.goes {
            true => sent(&marked.way),
            false => "goes nowhere".to_owned(),
        };
        why.push(format!(
            "as the answer of a connection that came in by {by} it has that one's mark {:#x}: {goes}",
            marked.way.mark
        ));
    }
    if subject.direction == Direction::In {
        for (mark, table) in leg::marks(facts, Family::of(way.source)) {
            if let Some(link) = leg::of_table(facts, table)
                && way.input.as_ref() == Some(&link.name)
            {
                why.push(format!(
                    "where its destination is translated (a published port), it is forwarded: the \
                     connection gets the mark {mark:#x}, with which what answers takes table {table}"
                ));
            }
        }
    }
    why
}

/// Whose the source is, and how the packet gets into the rules.
fn whose(subject: &Subject<'_>) -> String {
    let (facts, way) = (subject.facts, subject.way);
    let owned = |ip| {
        let owner = facts.owner(ip)?;
        let plugged = Facts::plugged(owner).map(|table| format!(", which has table {table}"));
        Some(format!("{}'s{}", owner.name, plugged.unwrap_or_default()))
    };
    let input = way.input.as_deref().unwrap_or_default();
    let how = match subject.question.input {
        Some(_) => "as was said",
        None => "as that is where an answer would leave",
    };
    match subject.direction {
        Direction::Out => {
            let owner = owned(way.source).unwrap_or_else(|| "this host's".to_owned());
            format!("{} is {owner}: the packet is made here", way.source)
        }
        Direction::Inside => "both addresses are this host's".to_owned(),
        Direction::In => {
            let owner = owned(way.destination).unwrap_or_else(|| "this host's".to_owned());
            format!("{} is {owner}: the packet comes in by {input}", way.destination)
        }
        Direction::Forward => format!(
            "{} is not this host's: the packet comes in by {input}, {how}, and is to be forwarded",
            way.destination
        ),
    }
}

/// The rule that decided, and what it says.
fn decided(facts: &Facts, leg: &Leg) -> Vec<String> {
    let mut why = Vec::new();
    for step in leg.rules.iter().filter(|step| step.result == StepResult::Suppressed) {
        why.push(format!("rule {} is asked first: {}", step.priority, step.text));
    }
    let Some(rule) = &leg.rule else { return why };
    let table = leg.table.and_then(|table| leg::of_table(facts, table));
    let whose = match (rule.is_ours(), table) {
        (true, Some(link)) => format!("jackfield's: what it matches leaves by {}", link.name),
        (true, None) => "jackfield's".to_owned(),
        // The three that every host has.
        (false, _) if rule.protocol == 2 && rule.priority == 0 => "the kernel's own".to_owned(),
        (false, _) if rule.protocol == 2 => "the kernel's own, behind all others".to_owned(),
        (false, _) => "of somebody else".to_owned(),
    };
    why.push(format!("rule {} ({}) decides: it is {whose}", rule.priority, rule.text));
    if let Some(route) = &leg.route {
        why.push(format!("it leads to the route '{route}'"));
    }
    why
}
