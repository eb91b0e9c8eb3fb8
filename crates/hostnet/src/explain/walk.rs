//! The rules, asked one after the other as the kernel does it for one packet, and why each one is
//! passed over. Where a packet *goes* the kernel says itself; the walk says why.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use jackfield_kernel::{Link, Route, RouteKind, Rule, RuleAction, SelectingRule};
use serde::Serialize;

use super::facts::{Facts, table_name};
use super::words::rule_text;
use crate::snapshot::OURS;

/// The name of the interface by which packets that are made here come in.
pub(super) const LOOPBACK: &str = "lo";

/// A packet on its way through the rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// The interface by which it comes in; `None`: it is made here.
    pub(super) input: Option<&'a Link>,
    pub(super) mark: u32,
    pub(super) protocol: u8,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    /// The sender's user, where that is known.
    pub(super) user: Option<u32>,
}

/// What a rule did with the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    /// It does not match.
    Skipped,
    /// It leads to a rule farther on.
    Goto,
    /// It does nothing.
    Nop,
    /// Its table has no route.
    NoRoute,
    /// Its table has a route, which the rule does not take.
    Suppressed,
    /// Its table says that the next rule is to be asked.
    Throw,
    /// Its table has the route.
    Taken,
    /// It refuses the packet itself.
    Refused,
}

/// A rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its priority.
    pub priority: u32,
    /// The rule, as iproute2 writes it.
    pub rule: String,
    /// Whether it is jackfield's.
    pub ours: bool,
    /// What became of the packet.
    pub result: StepResult,
    /// The same for people: why it does not match, or which route was found.
    pub text: String,
}

/// What the rules lead to.
#[derive(Debug, Clone)]
pub(super) enum Decision<'a> {
    /// A route; several where they are alike, of which the kernel takes one.
    Routes { rule: &'a SelectingRule, table: u32, routes: Vec<&'a Route> },
    /// A rule that refuses.
    Rule(&'a SelectingRule),
    /// No rule is left.
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) struct Walked<'a> {
    pub(super) steps: Vec<Step>,
    pub(super) decision: Decision<'a>,
}

/// Asks the rules for which `asked` says yes; routes by the interface `without` are left out.
pub(super) fn walk<'a>(
    facts: &'a Facts,
    flow: &Flow<'_>,
    asked: impl Fn(&Rule) -> bool,
    without: Option<u32>,
) -> Walked<'a> {
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some(selecting) = facts.rules.get(at) {
        at += 1;
        let rule = &selecting.rule;
        if !asked(rule) {
            continue;
        }
        let mut step = |result, text| {
            steps.push(Step {
                priority: rule.priority,
                rule: rule_text(selecting),
                ours: rule.protocol == OURS,
                result,
                text,
            });
        };
        if let Some(reason) = mismatch(selecting, flow) {
            step(StepResult::Skipped, reason);
            continue;
        }
        match rule.action {
            RuleAction::Table(table) => {
                let routes = find(facts, table, flow, without);
                let Some(first) = routes.first() else {
                    let text = format!("table {} has no route there", table_name(table));
                    step(StepResult::NoRoute, text);
                    continue;
                };
                let text = facts.route_text(first);
                if first.kind == RouteKind::Throw {
                    step(StepResult::Throw, format!("{text}: the next rule is asked"));
                } else if let Some(reason) = suppressed(facts, rule, first) {
                    step(StepResult::Suppressed, format!("{text}: passed over, {reason}"));
                } else {
                    step(StepResult::Taken, text);
                    let decision = Decision::Routes { rule: selecting, table, routes };
                    return Walked { steps, decision };
                }
            }
            RuleAction::Goto(to) if !facts.rules.iter().any(|is| is.rule.priority == to) => {
                step(StepResult::Skipped, format!("there is no rule {to}"));
            }
            RuleAction::Goto(to) => {
                step(StepResult::Goto, format!("on with rule {to}"));
                at = facts.rules.partition_point(|is| is.rule.priority < to).max(at);
            }
            RuleAction::Blackhole | RuleAction::Unreachable | RuleAction::Prohibit => {
                step(StepResult::Refused, "the rule itself refuses it".to_owned());
                return Walked { steps, decision: Decision::Rule(selecting) };
            }
            RuleAction::Nop | RuleAction::Other(_) => {
                step(StepResult::Nop, "does nothing".to_owned());
            }
        }
    }
    Walked { steps, decision: Decision::Nothing }
}

/// Why the rule is not for the packet.
fn mismatch(selecting: &SelectingRule, flow: &Flow<'_>) -> Option<String> {
    let selection = &selecting.selection;
    if selection.unknown {
        return Some("it selects by something that is not known here".to_owned());
    }
    let reason = outside(selecting, flow);
    match (selection.inverted, reason) {
        (false, reason) => reason,
        (true, Some(_)) => None,
        (true, None) => Some("it is for all but such packets".to_owned()),
    }
}

fn outside(selecting: &SelectingRule, flow: &Flow<'_>) -> Option<String> {
    let (rule, selection) = (&selecting.rule, &selecting.selection);
    let input = flow.input.map_or(LOOPBACK, |link| link.name.as_str());
    if let Some(net) = rule.source
        && !net.contains(&flow.source)
    {
        return Some(format!("it is for other sources than {}", flow.source));
    }
    if let Some(net) = rule.destination
        && !net.contains(&flow.destination)
    {
        return Some(format!("it is for other destinations than {}", flow.destination));
    }
    if let Some(name) = &rule.input_interface
        && name != input
    {
        return Some(match (name.as_str(), flow.input) {
            (LOOPBACK, Some(_)) => "it is for packets that are made here".to_owned(),
            (_, None) => format!("it is for what comes in by {name}"),
            (_, Some(_)) => format!("it is for what comes in by {name}, not by {input}"),
        });
    }
    if let Some(name) = &rule.output_interface {
        return Some(format!("it is for senders that are bound to {name}"));
    }
    if let Some(mark) = rule.mark
        && (flow.mark ^ mark.value) & mark.mask != 0
    {
        return Some(match flow.mark {
            0 => "it is for other marks, the packet has none".to_owned(),
            is => format!("it is for other marks than {is:#x}"),
        });
    }
    if let Some(protocol) = selection.protocol
        && protocol != flow.protocol
    {
        return Some(format!("it is for IP protocol {protocol}"));
    }
    let port = |ports: &Option<RangeInclusive<u16>>, is: u16, what: &str| {
        let ports = ports.as_ref().filter(|ports| !ports.contains(&is))?;
        Some(match (ports.start(), ports.end()) {
            (one, other) if one == other => format!("it is for {what} port {one}"),
            (first, last) => format!("it is for {what} ports {first} to {last}"),
        })
    };
    if let Some(reason) = port(&selection.source_ports, flow.source_port, "source")
        .or_else(|| port(&selection.destination_ports, flow.destination_port, "destination"))
    {
        return Some(reason);
    }
    if let Some(users) = &selection.users
        && !flow.user.is_some_and(|user| users.contains(&user))
    {
        return Some(format!("it is for users {} to {}", users.start(), users.end()));
    }
    if selection.tos != 0 {
        return Some(format!("it is for type of service {:#x}", selection.tos));
    }
    selection.vrf.then(|| "it is for packets of a VRF".to_owned())
}

/// The best routes of a table.
fn find<'a>(facts: &'a Facts, table: u32, flow: &Flow<'_>, without: Option<u32>) -> Vec<&'a Route> {
    let destination = flow.destination;
    let usable = |interface: u32| {
        facts.link(interface).is_none_or(|link| {
            let ignored = facts.all.ignore_link_down || facts.settings(interface).ignore_link_down;
            link.up && (link.carrier || !ignored) && Some(interface) != without
        })
    };
    let mut routes: Vec<&Route> = facts
        .routes
        .iter()
        .filter(|route| route.table == table && route.tos == 0)
        .filter(|route| route.destination.contains(&destination))
        .filter(|route| {
            // What refuses has no next hop, and what is received here goes by none.
            route.next_hops.is_empty()
                || route.kind != RouteKind::Unicast
                || route.next_hops.iter().any(|hop| usable(hop.interface))
        })
        .collect();
    let rank = |route: &Route| (route.destination.prefix_len(), std::cmp::Reverse(route.metric));
    let best = routes.iter().map(|route| rank(route)).max();
    routes.retain(|route| Some(rank(route)) == best);
    if destination.is_ipv4() {
        // Of those that are alike in IPv4 the first counts, as it is listed.
        routes.truncate(1);
    } else if let Some(input) = flow.input {
        // In IPv6 one by the interface by which it comes in.
        routes.sort_by_key(|route| !route.uses(input.index));
    }
    routes
}

/// Why the rule does not take the route. What refuses is always taken.
fn suppressed(facts: &Facts, rule: &Rule, route: &Route) -> Option<String> {
    use RouteKind::{Blackhole, Prohibit, Unreachable};
    if matches!(route.kind, Unreachable | Prohibit | Blackhole) {
        return None;
    }
    let length = u32::from(route.destination.prefix_len());
    if let Some(at_most) = rule.suppress_prefix_length
        && length <= at_most
    {
        return Some(match at_most {
            0 => "as default routes are".to_owned(),
            _ => format!("as all are that are not longer than /{at_most}"),
        });
    }
    let group = rule.suppress_group?;
    let link = facts.link(route.next_hops.first()?.interface)?;
    (link.group == group).then(|| format!("as all are by interfaces of link group {group}"))
}
