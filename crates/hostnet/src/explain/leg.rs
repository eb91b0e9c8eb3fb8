//! One look-up: the kernel's own answer, and beside it the walk through the rules that tells why.
//! Where the two differ, the kernel is right, and it is said that they do.

use std::net::IpAddr;

use jackfield_kernel::{
    Error, Family, Link, NextHop, Route, RouteAnswer, RouteKind, RouteQuery, RouteRefusal,
    RuleAction,
};
use serde::Serialize;

use super::facts::{Facts, Oracle};
use super::walk::{Decision, Flow, Step, Walked, walk};
use crate::change::kind_name;
use crate::snapshot::OURS;

/// `rp_filter`: what comes in must come by the interface that leads back to its source.
const STRICT: i32 = 1;

/// The way of one packet.
#[derive(Debug, Clone, Serialize)]
pub struct Leg {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// Its mark.
    pub mark: u32,
    /// The interface by which it comes in; `None`: it is made here.
    pub input: Option<String>,
    /// Whether it is sent, forwarded or received.
    pub goes: bool,
    /// `unicast`: sent; `local`: received here; or another kind of route. `None` where it is refused.
    pub kind: Option<&'static str>,
    /// The table that has the route.
    pub table: Option<u32>,
    /// The interface by which it leaves.
    pub interface: Option<String>,
    /// The gateway that it is handed to; `None` where the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Path MTU, octets.
    pub mtu: Option<u32>,
    /// The route, as iproute2 writes it.
    pub route: Option<String>,
    /// Why it goes nowhere.
    pub refusal: Option<String>,
    /// The rules in the order in which they are asked.
    pub rules: Vec<Step>,
    /// Whether the walk through the rules ends where the kernel says.
    pub agrees: bool,
    #[serde(skip)]
    pub(super) hop: Option<NextHop>,
    #[serde(skip)]
    pub(super) refused: Option<RouteRefusal>,
    #[serde(skip)]
    pub(super) reverse: Reverse,
    #[serde(skip)]
    pub(super) rule: Option<DecidingRule>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DecidingRule {
    pub(super) priority: u32,
    pub(super) text: String,
    pub(super) protocol: u8,
}

impl DecidingRule {
    pub(super) fn is_ours(&self) -> bool {
        self.protocol == OURS
    }
}

/// What the reverse path filter thinks of what comes in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Reverse {
    /// Nothing.
    #[default]
    Passes,
    /// The source is one that nobody else can have: this host's own, a broadcast address.
    Martian,
    /// Filtered: what is for its source leaves by another interface, or by none.
    Filtered { strict: bool, by: Option<String> },
}

/// What the walk makes of it.
enum Expected<'a> {
    Route(&'a [&'a Route], u32),
    Refused(RouteRefusal),
}

impl Leg {
    /// Asks the kernel, and the rules.
    pub(super) fn look(
        oracle: &mut dyn Oracle,
        facts: &Facts,
        flow: &Flow<'_>,
    ) -> Result<Self, Error> {
        let query = RouteQuery {
            source: Some(flow.source),
            destination: flow.destination,
            input_interface: flow.input.map(|link| link.index),
            output_interface: None,
            mark: flow.mark,
            user: flow.user.filter(|_| flow.input.is_none()),
            protocol: Some(flow.protocol),
            source_port: Some(flow.source_port).filter(|port| *port != 0),
            destination_port: Some(flow.destination_port).filter(|port| *port != 0),
        };
        let answer = oracle.way(&query)?;
        let walked = walk(facts, flow, |_| true, None);
        // What is refused anyhow is not refused for its source.
        let reverse = match expected(facts, flow, &walked.decision, &Reverse::Passes) {
            Expected::Refused(_) => Reverse::Passes,
            Expected::Route(..) => reverse(facts, flow, &walked.decision),
        };
        let agrees = agrees(&answer, &expected(facts, flow, &walked.decision, &reverse));
        let rule = match &walked.decision {
            Decision::Routes { rule, .. } | Decision::Rule(rule) => Some(DecidingRule {
                priority: rule.rule.priority,
                text: super::words::rule_text(rule),
                protocol: rule.rule.protocol,
            }),
            Decision::Nothing => None,
        };
        let mut leg = Leg {
            source: flow.source,
            destination: flow.destination,
            mark: flow.mark,
            input: flow.input.map(|link| link.name.clone()),
            goes: answer.is_ok(),
            kind: None,
            table: None,
            interface: None,
            gateway: None,
            mtu: None,
            route: deciding_route(&walked).map(|route| facts.route_text(route)),
            refusal: None,
            rules: walked.steps,
            agrees,
            hop: None,
            refused: None,
            reverse,
            rule,
        };
        match answer {
            Ok(way) => leg.take(facts, flow, &way),
            Err(refused) => {
                leg.refusal = Some(refused.to_string());
                leg.refused = Some(refused);
            }
        }
        Ok(leg)
    }

    fn take(&mut self, facts: &Facts, flow: &Flow<'_>, way: &RouteAnswer) {
        self.kind = Some(kind_name(way.kind));
        self.table = Some(way.table);
        self.hop = way.next_hop;
        self.interface = way.next_hop.map(|hop| facts.name(hop.interface).into_owned());
        self.gateway = way.next_hop.and_then(|hop| hop.gateway);
        let device = way.next_hop.and_then(|hop| facts.link(hop.interface));
        self.mtu = way.mtu.or_else(|| device.map(|link| link.mtu));
        if let Some(matched) = &way.matched {
            self.route = Some(facts.route_text(matched));
        }
        // IPv6 looks at this setting behind the routes.
        let forwarded = flow.input.is_some() && way.kind == RouteKind::Unicast;
        if forwarded && flow.destination.is_ipv6() && !facts.all.forwarding {
            self.goes = false;
            self.refusal = Some("dropped: forwarding is off".to_owned());
        }
    }
}

fn deciding_route<'a>(walked: &Walked<'a>) -> Option<&'a Route> {
    match &walked.decision {
        Decision::Routes { routes, .. } => routes.first().copied(),
        _ => None,
    }
}

/// What the walk, and the settings, make of it.
fn expected<'a>(
    facts: &Facts,
    flow: &Flow<'_>,
    decision: &'a Decision<'_>,
    reverse: &Reverse,
) -> Expected<'a> {
    use RouteRefusal::{HostUnreachable, Invalid, NetworkUnreachable, Prohibited};
    // IPv4 looks at these while it looks for the route.
    let input = flow.input.filter(|_| flow.destination.is_ipv4());
    let forwards = input.is_none_or(|link| facts.settings(link.index).forwarding);
    let refused = match decision {
        Decision::Nothing => Some(NetworkUnreachable),
        Decision::Rule(rule) => Some(match rule.rule.action {
            RuleAction::Prohibit => Prohibited,
            RuleAction::Blackhole => Invalid,
            _ => NetworkUnreachable,
        }),
        Decision::Routes { routes, .. } => match routes.first().map(|route| route.kind) {
            Some(RouteKind::Unreachable) => Some(HostUnreachable),
            Some(RouteKind::Prohibit) => Some(Prohibited),
            Some(RouteKind::Blackhole) => Some(Invalid),
            _ => None,
        },
    };
    match (refused, decision) {
        (Some(_), _) if !forwards => Expected::Refused(HostUnreachable),
        (Some(refusal), _) => Expected::Refused(refusal),
        (None, Decision::Routes { routes, table, .. }) => {
            let forwarded = routes.first().is_some_and(|route| route.kind == RouteKind::Unicast);
            if forwarded && !forwards {
                Expected::Refused(HostUnreachable)
            } else if *reverse != Reverse::Passes {
                Expected::Refused(Invalid)
            } else {
                Expected::Route(routes, *table)
            }
        }
        (None, _) => Expected::Refused(NetworkUnreachable),
    }
}

fn agrees(answer: &Result<RouteAnswer, RouteRefusal>, expected: &Expected<'_>) -> bool {
    match (answer, expected) {
        (Err(RouteRefusal::ReversePath), Expected::Refused(is)) => *is == RouteRefusal::Invalid,
        (Err(answer), Expected::Refused(is)) => answer == is,
        (Ok(way), Expected::Route(routes, table)) => routes.iter().any(|route| {
            let hop = |hop: NextHop| {
                let same =
                    |is: &NextHop| is.interface == hop.interface && (is.gateway == hop.gateway);
                route.next_hops.iter().any(same)
            };
            way.kind == route.kind
                && (way.kind != RouteKind::Unicast || way.table == *table)
                && (way.kind != RouteKind::Unicast || way.next_hop.is_some_and(hop))
        }),
        _ => false,
    }
}

/// Looks back at the source of what comes in, as the kernel does for IPv4.
fn reverse(facts: &Facts, flow: &Flow<'_>, decision: &Decision<'_>) -> Reverse {
    let Some(input) = flow.input.filter(|_| flow.source.is_ipv4()) else {
        return Reverse::Passes;
    };
    let settings = facts.settings(input.index);
    let filter = settings.reverse_path_filter.max(facts.all.reverse_path_filter);
    let accept_local = settings.accept_local || facts.all.accept_local;
    // What is forwarded is looked back at from where it would go.
    let out = match decision {
        Decision::Routes { routes, .. } => routes
            .first()
            .filter(|route| route.kind == RouteKind::Unicast)
            .and_then(|route| route.next_hops.first())
            .and_then(|hop| facts.link(hop.interface)),
        _ => None,
    };
    let back = Flow {
        source: flow.destination,
        destination: flow.source,
        input: out,
        mark: match settings.source_valid_mark || facts.all.source_valid_mark {
            true => flow.mark,
            false => 0,
        },
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        user: None,
        ..*flow
    };
    let back = walk(facts, &back, |_| true, None);
    let by = match &back.decision {
        Decision::Routes { routes, .. } => match routes.first() {
            Some(route) if route.kind == RouteKind::Unicast => {
                if routes.iter().any(|route| route.uses(input.index)) {
                    return Reverse::Passes;
                }
                route.next_hops.first().map(|hop| facts.name(hop.interface).into_owned())
            }
            Some(route) if route.kind == RouteKind::Local && accept_local => {
                return Reverse::Passes;
            }
            Some(route)
                if route.kind == RouteKind::Local || matches!(route.kind, RouteKind::Other(_)) =>
            {
                return Reverse::Martian;
            }
            _ => None,
        },
        _ => None,
    };
    // Loose, the kernel wants an address on the interface all the same.
    let has_address = facts.addresses.iter().any(|is| is.interface == input.index);
    let by = by.filter(|_| has_address || filter == STRICT);
    match (filter, &by) {
        (0, _) => Reverse::Passes,
        (STRICT, _) | (_, None) => Reverse::Filtered { strict: filter == STRICT, by },
        _ => Reverse::Passes,
    }
}

/// Where packets with a mark of ours go: each mark with the table of its rule.
pub(super) fn marks(facts: &Facts, family: Family) -> Vec<(u32, u32)> {
    let of = |rule: &jackfield_kernel::Rule| match (rule.mark, rule.action) {
        (Some(mark), RuleAction::Table(table)) if rule.protocol == OURS && mark.value != 0 => {
            Some((mark.value, table))
        }
        _ => None,
    };
    let rules = facts.rules.iter().map(|is| &is.rule).filter(|rule| rule.family == family);
    rules.filter_map(of).collect()
}

/// The interface that jackfield has plugged with this table.
pub(super) fn of_table(facts: &Facts, table: u32) -> Option<&Link> {
    facts.links.iter().find(|link| Facts::plugged(link) == Some(table))
}
