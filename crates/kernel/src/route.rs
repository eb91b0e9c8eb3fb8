//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage,
    RouteMetric, RouteNextHopFlags, RouteScope, RouteType, RouteVia,
};

use crate::address::{read_family, wire_family};
use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use crate::{Family, Request, Rtnetlink};

pub(crate) const RTM_NEWROUTE: u16 = 24;
pub(crate) const RTM_DELROUTE: u16 = 25;
pub(crate) const RTM_GETROUTE: u16 = 26;

const RTMSG_LEN: usize = 12;
/// `RT_TABLE_COMPAT`: the table's number is in the attribute.
const TABLE_IN_ATTRIBUTE: u8 = 252;

const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_METRICS: u16 = 8;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_VIA: u16 = 18;
const RTA_ENCAP: u16 = 22;
const RTA_NH_ID: u16 = 30;

/// What a route does with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Sends it to a next hop.
    Unicast,
    /// Receives it here.
    Local,
    /// Refuses it: network unreachable.
    Unreachable,
    /// Drops it in silence.
    Blackhole,
    /// Refuses it: administratively prohibited.
    Prohibit,
    /// Goes on with the next rule.
    Throw,
    /// Broadcast, anycast, multicast and what newer kernels add.
    Other(u8),
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// Index of the interface.
    pub interface: u32,
    /// The gateway, where the destination is not on the link. May be of the other family.
    pub gateway: Option<IpAddr>,
    /// The gateway is reached by the interface although no route says so.
    pub on_link: bool,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination; [`Family::everything`] for a default route.
    pub destination: IpNet,
    /// Table: 254 is main, 255 local.
    pub table: u32,
    /// Metric: lower is preferred. IPv6 routes have 1024 where nobody said.
    pub metric: u32,
    /// Type of service or traffic class that it is for; 0: any.
    pub tos: u8,
    /// What it does.
    pub kind: RouteKind,
    /// Scope (IPv4): 0 universe, 253 link, 254 host.
    pub scope: u8,
    /// Who made it: 2 kernel, 3 boot, 4 static, 16 DHCP…
    pub protocol: u8,
    /// Next hops: none for a route that refuses, several for multipath.
    pub next_hops: Vec<NextHop>,
    /// Source address of packets that have none yet.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU, octets.
    pub mtu: Option<u32>,
    /// True where it has properties that are not described here (encapsulation, a next-hop object, a
    /// source prefix). Such a route can be listed, but is never made or removed.
    pub special: bool,
}

/// Which routes to list; the kernel filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// Only this table.
    pub table: Option<u32>,
    /// Only of this protocol.
    pub protocol: Option<u8>,
    /// Only through this interface.
    pub interface: Option<u32>,
}

impl Route {
    /// `RT_SCOPE_LINK`: the destination is on the link.
    pub const SCOPE_LINK: u8 = 253;

    /// A route through one interface, without gateway.
    pub fn via_interface(destination: IpNet, table: u32, interface: u32) -> Self {
        let hop = NextHop { interface, gateway: None, on_link: false };
        Route {
            scope: if destination.addr().is_ipv4() { Self::SCOPE_LINK } else { 0 },
            ..Self::with_next_hop(destination, table, hop)
        }
    }

    /// A route by a gateway that is reached by the interface, whatever other routes say.
    pub fn via_gateway(destination: IpNet, table: u32, interface: u32, gateway: IpAddr) -> Self {
        let hop = NextHop { interface, gateway: Some(gateway), on_link: true };
        Self::with_next_hop(destination, table, hop)
    }

    /// A route that refuses.
    pub fn unreachable(destination: IpNet, table: u32) -> Self {
        Route {
            kind: RouteKind::Unreachable,
            next_hops: Vec::new(),
            ..Self::empty(destination, table)
        }
    }

    fn with_next_hop(destination: IpNet, table: u32, hop: NextHop) -> Self {
        Route { next_hops: vec![hop], ..Self::empty(destination, table) }
    }

    fn empty(destination: IpNet, table: u32) -> Self {
        Route {
            destination,
            table,
            metric: 0,
            tos: 0,
            kind: RouteKind::Unicast,
            scope: 0,
            protocol: 0,
            next_hops: Vec::new(),
            preferred_source: None,
            mtu: None,
            special: false,
        }
    }

    /// The family of its destination.
    pub fn family(&self) -> Family {
        Family::of(self.destination.addr())
    }

    /// True where one of its next hops leaves by the interface.
    pub fn uses(&self, interface: u32) -> bool {
        self.next_hops.iter().any(|hop| hop.interface == interface)
    }

    /// Lists routes.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink, family: Family, filter: RouteFilter) -> Result<Vec<Route>> {
        Self::list_where(kernel, family, filter, |_| true)
    }

    /// Lists those routes that `wanted` says yes to, and keeps no other: a host may have the whole
    /// Internet's.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list_where(
        kernel: &mut Rtnetlink,
        family: Family,
        filter: RouteFilter,
        wanted: impl Fn(&Route) -> bool,
    ) -> Result<Vec<Route>> {
        let mut body = RouteMessage::default();
        body.header.address_family = wire_family(family);
        if let Some(protocol) = filter.protocol {
            body.header.protocol = protocol.into();
        }
        body.attributes.extend(filter.table.map(RouteAttribute::Table));
        body.attributes.extend(filter.interface.map(RouteAttribute::Oif));
        let request = Request::new(RTM_GETROUTE, 0, &body);
        let read = |message: &Message<'_>| Route::read(message).filter(&wanted);
        let mut routes = kernel.dump("routes", &request, read)?;
        // A filter on a multipath route's interface, or one that an old kernel does not know, is
        // applied here once more.
        routes.retain(|route| {
            filter.table.is_none_or(|table| route.table == table)
                && filter.protocol.is_none_or(|protocol| route.protocol == protocol)
                && filter.interface.is_none_or(|interface| route.uses(interface))
        });
        Ok(routes)
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Route> {
        if message.kind != RTM_NEWROUTE && message.kind != RTM_DELROUTE {
            return None;
        }
        let header = RouteHeader::parse(message.payload).ok()?;
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        Self::read_any(message)
    }

    /// Reads also what is no entry of a table: the way that a packet takes.
    pub(crate) fn read_any(message: &Message<'_>) -> Option<Route> {
        let header = RouteHeader::parse(message.payload).ok()?;
        let family = read_family(header.address_family)?;
        let everything = family.everything();
        let mut route = Route {
            metric: 0,
            tos: header.tos,
            kind: read_kind(header.kind),
            scope: header.scope.into(),
            protocol: header.protocol.into(),
            special: header.source_prefix_length != 0,
            ..Self::empty(everything, u32::from(header.table))
        };
        let on_link = header.flags.contains(RouteFlags::Onlink);
        let (mut interface, mut gateway) = (None, None);
        for attribute in wire::attributes(message.payload, RTMSG_LEN) {
            let (kind, nla) = attribute.ok()?;
            const USED: [u16; 9] = [
                RTA_DST,
                RTA_OIF,
                RTA_GATEWAY,
                RTA_PRIORITY,
                RTA_PREFSRC,
                RTA_METRICS,
                RTA_MULTIPATH,
                RTA_TABLE,
                RTA_VIA,
            ];
            if [RTA_SRC, RTA_ENCAP, RTA_NH_ID].contains(&kind) {
                route.special = true;
            }
            if !USED.contains(&kind) {
                continue;
            }
            let parameter = (header.address_family, header.kind, RouteLwEnCapType::None);
            let Ok(attribute) = RouteAttribute::parse_with_param(&nla, parameter) else {
                route.special = true;
                continue;
            };
            match attribute {
                RouteAttribute::Destination(address) => {
                    let address = read_address(address)?;
                    route.destination =
                        IpNet::new(address, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Oif(index) => interface = Some(index),
                RouteAttribute::Gateway(address) => gateway = read_address(address),
                RouteAttribute::Via(via) => gateway = read_via(via),
                RouteAttribute::Priority(metric) => route.metric = metric,
                RouteAttribute::PrefSource(address) => {
                    route.preferred_source = read_address(address);
                }
                RouteAttribute::Table(table) => route.table = table,
                RouteAttribute::Metrics(metrics) => {
                    route.mtu = metrics.into_iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) => Some(mtu),
                        _ => None,
                    });
                }
                RouteAttribute::MultiPath(hops) => {
                    for hop in hops {
                        let gateway = hop.attributes.into_iter().find_map(|nla| match nla {
                            RouteAttribute::Gateway(address) => read_address(address),
                            RouteAttribute::Via(via) => read_via(via),
                            _ => None,
                        });
                        route.next_hops.push(NextHop {
                            interface: hop.interface_index,
                            gateway,
                            on_link: hop.flags.contains(RouteNextHopFlags::Onlink),
                        });
                    }
                }
                _ => {}
            }
        }
        // IPv6 routes that refuse are listed as if they led to the loopback.
        if let (Some(interface), false) = (interface, route.refuses()) {
            route.next_hops.push(NextHop { interface, gateway, on_link });
        }
        Some(route)
    }

    fn refuses(&self) -> bool {
        use RouteKind::{Blackhole, Prohibit, Throw, Unreachable};
        matches!(self.kind, Unreachable | Blackhole | Prohibit | Throw)
    }

    /// Adds it; refused where its table has a route of the same destination, metric and type of
    /// service.
    pub fn add(&self) -> Request {
        Request::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &self.message())
    }

    /// Adds it; where its table has a route of the same destination, metric and type of service, it
    /// takes the place of the first of them. There is no instant at which neither is there.
    pub fn replace(&self) -> Request {
        Request::new(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &self.message())
    }

    /// Removes it: only a route that has everything that this one says.
    pub fn remove(&self) -> Request {
        Request::new(RTM_DELROUTE, 0, &self.message())
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = wire_family(self.family());
        header.destination_prefix_length = self.destination.prefix_len();
        header.tos = self.tos;
        header.table = u8::try_from(self.table).unwrap_or(TABLE_IN_ATTRIBUTE);
        header.protocol = self.protocol.into();
        header.scope = RouteScope::from(self.scope);
        header.kind = wire_kind(self.kind);
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.destination.prefix_len() > 0 {
            attributes.push(RouteAttribute::Destination(self.destination.addr().into()));
        }
        if self.metric > 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        attributes.extend(self.preferred_source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        attributes.extend(self.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        if let Some(hop) = self.next_hops.first() {
            attributes.push(RouteAttribute::Oif(hop.interface));
            if hop.on_link {
                header.flags |= RouteFlags::Onlink;
            }
            if let Some(gateway) = hop.gateway {
                attributes.push(if Family::of(gateway) == self.family() {
                    RouteAttribute::Gateway(gateway.into())
                } else {
                    RouteAttribute::Via(match gateway {
                        IpAddr::V4(gateway) => RouteVia::Inet(gateway),
                        IpAddr::V6(gateway) => RouteVia::Inet6(gateway),
                    })
                });
            }
        }
        message
    }
}

fn read_address(address: RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(address.into()),
        RouteAddress::Inet6(address) => Some(address.into()),
        _ => None,
    }
}

fn read_via(via: RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some(address.into()),
        RouteVia::Inet6(address) => Some(address.into()),
        _ => None,
    }
}

fn read_kind(kind: RouteType) -> RouteKind {
    match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Throw => RouteKind::Throw,
        other => RouteKind::Other(other.into()),
    }
}

fn wire_kind(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Prohibit => RouteType::Prohibit,
        RouteKind::Throw => RouteType::Throw,
        RouteKind::Other(kind) => RouteType::from(kind),
    }
}
