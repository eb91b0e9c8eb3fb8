//! What stops a packet or its answer, and what would.

use jackfield_kernel::{Error, Family, Link, NeighbourState, RouteKind, RouteRefusal, RuleAction};
use serde::Serialize;

use super::facts::{Facts, Oracle, table_name};
use super::leg::{Leg, Reverse};
use super::walk::{Decision, StepResult, walk};
use super::{Direction, Subject};
use crate::snapshot::{MAIN, OURS};

/// What does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stops {
    /// The packet.
    Packet,
    /// What answers it.
    Answer,
}

/// Something in the way of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// A stable word to match on.
    pub code: &'static str,
    /// What it stops now; `None`: nothing yet, it is what would.
    pub stops: Option<Stops>,
    /// What it is.
    pub text: String,
    /// What to do about it; empty where there is nothing to do.
    pub fix: String,
}

struct List(Vec<Obstacle>);

impl List {
    fn add(
        &mut self,
        code: &'static str,
        stops: Option<Stops>,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Obstacle { code, stops, text: text.into(), fix: fix.into() });
    }
}

/// Everything that stops the packet or its answer, then what would.
pub(super) fn obstacles(
    subject: &Subject<'_>,
    answer: Option<&Leg>,
    oracle: &mut dyn Oracle,
) -> Result<Vec<Obstacle>, Error> {
    let mut list = List(Vec::new());
    let (facts, way) = (subject.facts, subject.way);
    let by = way.hop.and_then(|hop| facts.link(hop.interface));
    if !way.goes {
        refused(subject, way, Stops::Packet, &mut list);
    }
    if let Some(input) = subject.flow.input {
        comes_in(input, Stops::Packet, &mut list);
    }
    if let Some(by) = by {
        device(by, &mut list);
        neighbour(subject, by, oracle, &mut list)?;
        source(subject, by, &mut list);
    }
    if let Some(answer) = answer {
        answered(subject, answer, by, &mut list);
    }
    taken_before_ours(subject, answer, &mut list);
    let disagrees = !way.agrees || answer.is_some_and(|answer| !answer.agrees);
    if disagrees {
        list.add(
            "disagreement",
            None,
            "the rules and routes that are listed do not lead where the kernel says: the kernel is \
             right, and why is not known",
            "look again: they may have changed meanwhile",
        );
    }
    if let (Some(by), true) = (by, way.goes) {
        if subject.flow.input.is_some_and(|input| input.index == by.index) {
            list.add(
                "same-interface",
                None,
                format!(
                    "it leaves by {}, by which it comes in: {} may not be what was meant",
                    by.name, way.source
                ),
                "name the interface by which it comes in with --iif, or another source",
            );
        }
        without(subject, by, &mut list);
        if let Some(mtu) = way.mtu {
            list.add(
                "mtu",
                None,
                format!("a packet of more than {mtu} octets does not leave {} whole", by.name),
                "",
            );
        }
    }
    Ok(list.0)
}

/// Why the kernel refuses it.
fn refused(subject: &Subject<'_>, leg: &Leg, stops: Stops, list: &mut List) {
    let (facts, stops) = (subject.facts, Some(stops));
    let what = match stops {
        Some(Stops::Answer) => "the answer",
        _ => "the packet",
    };
    let input = leg.input.as_deref().unwrap_or_default();
    if !leg.agrees {
        let refusal = leg.refusal.as_deref().unwrap_or_default();
        list.add("no-route", stops, format!("the kernel refuses {what} ({refusal})"), "");
        return;
    }
    match &leg.reverse {
        _ if leg.refused.is_none() => {
            let fix = "set net.ipv6.conf.all.forwarding = 1";
            list.add("forwarding-off", stops, "this host does not forward IPv6", fix);
            return;
        }
        Reverse::Martian => {
            let text = format!(
                "{} is no source that comes in from elsewhere: {what} is dropped",
                leg.source
            );
            list.add("martian-source", stops, text, "");
            return;
        }
        Reverse::Filtered { strict, by } => {
            let leaves = match by {
                Some(by) => format!("leaves by {by}, not by {input}"),
                None => "has no way to leave".to_owned(),
            };
            let text = format!(
                "the reverse path filter of {input} ({}) drops {what}: what is for {} {leaves}",
                if *strict { "strict" } else { "loose" },
                leg.source,
            );
            let fix = format!(
                "set net.ipv4.conf.{input}.rp_filter = 2, or make {} leave by {input}",
                leg.source
            );
            list.add("reverse-path-filter", stops, text, fix);
            return;
        }
        Reverse::Passes => {}
    }
    let taken = leg
        .rules
        .last()
        .filter(|step| [StepResult::Taken, StepResult::Refused].contains(&step.result));
    let forwards = facts
        .link_named(input)
        .is_none_or(|link| leg.source.is_ipv6() || facts.settings(link.index).forwarding);
    if !forwards && leg.refused == Some(RouteRefusal::HostUnreachable) {
        let text = format!("this host does not forward what comes in by {input}");
        let fix = format!("set net.ipv4.ip_forward = 1, or net.ipv4.conf.{input}.forwarding = 1");
        list.add("forwarding-off", stops, text, fix);
        return;
    }
    let refusal = leg.refusal.as_deref().unwrap_or_default();
    match taken {
        Some(step) if step.result == StepResult::Refused => {
            let text = format!("rule {} refuses {what}: {}", step.priority, step.rule);
            list.add("rule-refuses", stops, text, "");
        }
        Some(step) => {
            let text = format!(
                "{what} is refused ({refusal}) by the route '{}', to which rule {} leads",
                step.text, step.priority
            );
            let fix = match step.text.starts_with("unreachable default") && step.ours {
                true => "the interface is down, or its routes are gone: see 'jackfield status'",
                false => "",
            };
            list.add("route-refuses", stops, text, fix);
        }
        None => {
            let text = format!("no rule leads to a route to {} ({refusal})", leg.destination);
            list.add("no-route", stops, text, "");
        }
    }
}

/// The device by which it comes in.
fn comes_in(input: &Link, stops: Stops, list: &mut List) {
    if !input.up || !input.carrier {
        let how = if input.up { "has no carrier" } else { "is down" };
        let text = format!("{} {how}: nothing comes in by it", input.name);
        list.add("input-link-down", Some(stops), text, format!("look at {}", input.name));
    }
}

/// The device by which it leaves.
fn device(by: &Link, list: &mut List) {
    if !by.up {
        let fix = format!("set it up: ip link set {} up", by.name);
        list.add("link-down", Some(Stops::Packet), format!("{} is down", by.name), fix);
    } else if !by.carrier {
        let text = format!("{} has no carrier", by.name);
        list.add("link-down", Some(Stops::Packet), text, "look at what it is plugged into");
    }
}

/// The neighbour to which it is handed.
fn neighbour(
    subject: &Subject<'_>,
    by: &Link,
    oracle: &mut dyn Oracle,
    list: &mut List,
) -> Result<(), Error> {
    let way = subject.way;
    let next = way.gateway.unwrap_or(way.destination);
    let what = if way.gateway.is_some() { "the gateway" } else { "the neighbour" };
    let entries = oracle.neighbours(Family::of(next), by.index)?;
    match entries.iter().find(|entry| entry.address == next).map(|entry| entry.state) {
        Some(NeighbourState::Failed) => list.add(
            "neighbour-failed",
            Some(Stops::Packet),
            format!("{what} {next} did not answer on {} when it was asked for", by.name),
            "look whether it is there; the kernel asks again with the next packet",
        ),
        Some(NeighbourState::Incomplete) => list.add(
            "neighbour-incomplete",
            None,
            format!("{what} {next} is being asked for on {}, and has not answered yet", by.name),
            "ask again in a few seconds",
        ),
        _ => {}
    }
    Ok(())
}

/// Whether the source may leave by the interface.
fn source(subject: &Subject<'_>, by: &Link, list: &mut List) {
    let (facts, source) = (subject.facts, subject.way.source);
    let owner = facts.owner(source);
    if owner.is_some_and(|owner| owner.index == by.index) {
        return;
    }
    let in_cloud = facts.is_cloud_interface(by);
    match (owner, subject.direction) {
        (Some(owner), _) if owner.name != super::walk::LOOPBACK => {
            let plugged = Facts::plugged(owner).is_some();
            // An address of one cloud interface, by another one.
            let dropped = in_cloud && (plugged || facts.is_cloud_interface(owner));
            let text = format!(
                "{source} is {}'s, and leaves by {}: {}",
                owner.name,
                by.name,
                match dropped {
                    true => "the cloud drops it",
                    false => "a network that checks sources, as a cloud does, drops it",
                }
            );
            let fix = if plugged { "see 'jackfield plan' for what is missing" } else { "" };
            list.add("wrong-source", dropped.then_some(Stops::Packet), text, fix);
            not_plugged(facts, owner, list);
        }
        (_, Direction::Forward) if in_cloud => {
            let text = format!(
                "{source} is no address of {}: the cloud drops it unless it is translated \
                 (masquerading), which is not looked at",
                by.name
            );
            list.add("foreign-source", None, text, "");
        }
        _ => {}
    }
}

/// The interface that has the source may be one that nobody plugged.
fn not_plugged(facts: &Facts, owner: &Link, list: &mut List) {
    if facts.could_be_plugged(owner) {
        let text = format!("{} is not plugged: it has no routing table of its own", owner.name);
        let fix = format!("if it is a cloud interface: jackfield plug {}", owner.name);
        list.add("not-plugged", None, text, fix);
    }
}

/// What becomes of the answer.
fn answered(subject: &Subject<'_>, answer: &Leg, by: Option<&Link>, list: &mut List) {
    let facts = subject.facts;
    if !answer.goes {
        refused(subject, answer, Stops::Answer, list);
        return;
    }
    if subject.direction != Direction::In {
        if let Some(input) = answer.input.as_deref().and_then(|name| facts.link_named(name))
            && by.is_none_or(|by| by.index != input.index)
        {
            comes_in(input, Stops::Answer, list);
        }
        let other = answer.input.as_ref().filter(|name| by.is_some_and(|by| by.name != **name));
        if let (Some(input), Some(by)) = (other, by) {
            let text =
                format!("the answer comes in by {input}, and the packet leaves by {}", by.name);
            list.add("asymmetric", None, text, "");
        }
        return;
    }
    let Some(out) = answer.hop.and_then(|hop| facts.link(hop.interface)) else { return };
    let owner = facts.owner(answer.source);
    if let Some(owner) = owner
        && owner.index != out.index
        && owner.name != super::walk::LOOPBACK
    {
        let dropped = facts.is_cloud_interface(out)
            && (Facts::plugged(owner).is_some() || facts.is_cloud_interface(owner));
        let text = format!(
            "the answer leaves by {}, and {} is {}'s: {}",
            out.name,
            answer.source,
            owner.name,
            match dropped {
                true => "the cloud drops it",
                false => "a network that checks sources, as a cloud does, drops it",
            }
        );
        list.add("answer-wrong-source", dropped.then_some(Stops::Answer), text, "");
        not_plugged(facts, owner, list);
    }
    if !out.up || !out.carrier {
        let text = format!("the answer leaves by {}, which is down or has no carrier", out.name);
        list.add("answer-link-down", Some(Stops::Answer), text, "");
    }
}

/// A rule of somebody else that takes what ours would: of what comes in for this host the answer is
/// what rules of ours are for.
fn taken_before_ours(subject: &Subject<'_>, answer: Option<&Leg>, list: &mut List) {
    let (leg, flow) = match (subject.direction, answer) {
        (Direction::Inside, _) | (Direction::In, None) => return,
        (Direction::In, Some(answer)) => (answer, subject.back),
        _ => (subject.way, subject.flow),
    };
    let Some(rule) = leg.rule.as_ref().filter(|rule| !rule.is_ours()) else { return };
    let ours = walk(subject.facts, flow, |rule| rule.protocol == OURS, None);
    if let Decision::Routes { rule: own, table, .. } = ours.decision
        && table != MAIN
        && leg.table != Some(table)
        && rule.priority <= own.rule.priority
    {
        let text = format!(
            "rule {} of somebody else ({}) takes {} before rule {} of jackfield's, which leads to \
             table {}",
            rule.priority,
            rule.text,
            if subject.direction == Direction::In { "the answer" } else { "it" },
            own.rule.priority,
            table_name(table)
        );
        let fix = "remove that rule, give it a narrower selector, or move it behind jackfield's";
        list.add("rule-before-ours", None, text, fix);
    }
}

/// What would become of it without the interface by which it leaves.
fn without(subject: &Subject<'_>, by: &Link, list: &mut List) {
    let facts = subject.facts;
    let then = match walk(facts, subject.flow, |_| true, Some(by.index)).decision {
        Decision::Nothing => "no route would be left: it would be refused".to_owned(),
        Decision::Rule(rule) => match rule.rule.action {
            RuleAction::Blackhole => format!("rule {} would drop it", rule.rule.priority),
            _ => format!("rule {} would refuse it", rule.rule.priority),
        },
        Decision::Routes { table, routes, .. } => {
            let table = table_name(table);
            match routes.first().map(|route| (route.kind, route.next_hops.first())) {
                Some((RouteKind::Unicast, Some(hop))) => {
                    format!("it would leave by {} (table {table})", facts.name(hop.interface))
                }
                Some((RouteKind::Blackhole, _)) => format!("table {table} would drop it"),
                _ => format!("table {table} would refuse it"),
            }
        }
    };
    list.add("link-needed", None, format!("were {} down: {then}", by.name), "");
}
