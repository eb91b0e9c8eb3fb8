//! One port of the router: its rules, routes and neighbours.

use super::violation::Violations;
use super::{GATEWAY_IPV6, MAIN, PASSED};
use crate::emulator::{CloudInterface, MacAddr};
use crate::host;
use ipnet::IpNet;
use jackfield_kernel::{
    EthernetAddress, Family, LinkChange, Neighbour, NeighbourKind, Request, Route, Rule, RuleAction,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The interface as the router sees it: one next hop of a family, with a MAC that is known, to
/// which all that the interface holds is routed. The addresses themselves are on no link.
const NEXT_HOP_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 1);
const NEXT_HOP_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 1);

#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    interface: MacAddr,
    /// Its link, while it is plugged.
    index: Option<u32>,
    held: BTreeSet<IpNet>,
    /// Networks beyond the instance, which it forwards.
    beyond: BTreeSet<IpNet>,
}

impl Port {
    pub(super) fn new(number: u16, interface: MacAddr) -> Self {
        Self { number, interface, index: None, held: BTreeSet::new(), beyond: BTreeSet::new() }
    }

    pub(super) fn name(&self) -> String {
        format!("port{}", self.number)
    }

    /// The router's own MAC on this port.
    pub(super) fn mac(&self) -> EthernetAddress {
        let [high, low] = self.number.to_be_bytes();
        [0x06, 0, 0, 0, high, low]
    }

    fn sources(&self) -> u32 {
        1000 + 10 * u32::from(self.number)
    }

    /// Rules that let nothing pass yet but what has no address of its own. They stay while the
    /// link comes and goes.
    pub(super) fn check(&self, violations: &Violations) -> Vec<Request> {
        let mut requests = Vec::new();
        let table = 1000 + u32::from(self.number);
        for family in Family::BOTH {
            let enter = Rule::new(family, 100, RuleAction::Goto(self.sources()));
            requests.push(Rule { input_interface: Some(self.name()), ..enter }.add());
            requests.push(Rule::new(family, self.sources() + 1, RuleAction::Table(table)).add());
        }
        requests.extend(self.always().map(|source| self.pass(source).add()));
        requests.extend(violations.lead(table, self.number, self.interface));
        requests
    }

    /// Sources that no address is needed for.
    fn always(&self) -> impl Iterator<Item = IpNet> + use<> {
        let unspecified_ipv4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED).into();
        let unspecified_ipv6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED).into();
        let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
        let link_local = IpNet::new_assert(link_local.into(), 10);
        [unspecified_ipv4, unspecified_ipv6, link_local].into_iter()
    }

    fn pass(&self, source: IpNet) -> Rule {
        let family = Family::of(source.addr());
        let pass = Rule::new(family, self.sources(), RuleAction::Goto(PASSED));
        Rule { source: Some(source), ..pass }
    }

    /// Counts a network beyond the instance to what the interface holds, from the next time on.
    pub(super) fn lead_to(&mut self, network: IpNet) {
        self.beyond.insert(network);
    }

    /// What the interface holds from now on, and the requests that make it so.
    pub(super) fn hold(&mut self, held: impl Iterator<Item = IpNet>) -> Vec<Request> {
        let held: BTreeSet<IpNet> = held.chain(self.beyond.iter().copied()).collect();
        let mut requests = Vec::new();
        for gone in self.held.difference(&held) {
            requests.push(self.pass(*gone).remove());
            requests.extend(self.index.map(|index| route(index, *gone).remove()));
        }
        for new in held.difference(&self.held) {
            requests.push(self.pass(*new).add());
            requests.extend(self.index.map(|index| route(index, *new).add()));
        }
        self.held = held;
        requests
    }

    /// The link is there: what makes it a port.
    pub(super) fn plugged(&mut self, index: u32, record: &CloudInterface) -> Vec<Request> {
        self.index = Some(index);
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut requests = vec![up.request(index)];
        if let Some(subnet) = record.subnet.ipv4 {
            requests.extend(host::address(
                index,
                host::first_of(subnet.addr().into(), subnet.prefix_len()),
                32,
            ));
        }
        requests.extend(host::address(index, GATEWAY_IPV6.into(), 64));
        for next_hop in [IpAddr::V4(NEXT_HOP_IPV4), IpAddr::V6(NEXT_HOP_IPV6)] {
            let kind = NeighbourKind::Permanent(self.interface.0);
            requests.push(Neighbour { interface: index, address: next_hop, kind }.set());
        }
        requests.extend(self.held.iter().map(|held| route(index, *held).add()));
        requests
    }

    /// The router's end of the link, while it is plugged.
    pub(super) fn index(&self) -> Option<u32> {
        self.index
    }

    /// The link is to go; its index.
    pub(super) fn unplugged(&mut self) -> Option<u32> {
        self.index.take()
    }
}

fn route(index: u32, held: IpNet) -> Route {
    let next_hop = match held {
        IpNet::V4(_) => NEXT_HOP_IPV4.into(),
        IpNet::V6(_) => NEXT_HOP_IPV6.into(),
    };
    Route::via_gateway(held.trunc(), MAIN, index, next_hop)
}
