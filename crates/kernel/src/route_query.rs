//! Where the kernel would send a packet: RTM_GETROUTE, as `ip route get` asks it.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};

use crate::address::wire_family;
use crate::error::Result;
use crate::route::{RTM_GETROUTE, RTM_NEWROUTE};
use crate::{Error, Family, NextHop, Refusal, Request, Route, RouteKind, Rtnetlink};

/// A packet, as far as its way depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteQuery {
    /// Where it is to go.
    pub destination: IpAddr,
    /// Its source; `None`: the kernel is to choose one.
    pub source: Option<IpAddr>,
    /// Index of the interface by which it comes in; `None`: it is made here.
    pub input_interface: Option<u32>,
    /// Index of the interface that the sender is bound to.
    pub output_interface: Option<u32>,
    /// Its mark.
    pub mark: u32,
    /// The sender's user; the asking process's where `None`.
    pub user: Option<u32>,
    /// IP protocol: the kernel answers for TCP (6), UDP (17) and ICMP (1, 58). UDP, of IPv4, where
    /// `None`.
    pub protocol: Option<u8>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination port.
    pub destination_port: Option<u16>,
}

/// Which way the packet takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteAnswer {
    /// Sent on, received here, or something else.
    pub kind: RouteKind,
    /// The table that had the route. 255 where a packet is received here and the kernel does not say.
    pub table: u32,
    /// Interface and gateway; `None` where it is received here.
    pub next_hop: Option<NextHop>,
    /// The source that the kernel chooses where the packet has none.
    pub preferred_source: Option<IpAddr>,
    /// Path MTU, octets, where a route or a router set one; otherwise the interface's counts.
    pub mtu: Option<u32>,
    /// The entry that matched; `None` where the kernel does not show it.
    pub matched: Option<Route>,
}

/// Why the packet goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteRefusal {
    /// `ENETUNREACH`: no route, or a rule that says so.
    NetworkUnreachable,
    /// `EHOSTUNREACH`: a route that says so, or it would be forwarded and forwarding is off.
    HostUnreachable,
    /// `EACCES`: a rule or a route that prohibits.
    Prohibited,
    /// `EINVAL`: dropped in silence by a rule or a route; an impossible source, or one that is not
    /// this host's; the reverse path filter.
    Invalid,
    /// `EXDEV`: the reverse path filter, of kernels that tell.
    ReversePath,
}

impl RouteRefusal {
    fn of(errno: i32) -> Option<Self> {
        match errno {
            Refusal::NETWORK_UNREACHABLE => Some(RouteRefusal::NetworkUnreachable),
            Refusal::HOST_UNREACHABLE => Some(RouteRefusal::HostUnreachable),
            Refusal::ACCESS_DENIED => Some(RouteRefusal::Prohibited),
            Refusal::INVALID => Some(RouteRefusal::Invalid),
            Refusal::CROSS_DEVICE => Some(RouteRefusal::ReversePath),
            _ => None,
        }
    }
}

impl fmt::Display for RouteRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RouteRefusal::NetworkUnreachable => "network unreachable",
            RouteRefusal::HostUnreachable => "host unreachable",
            RouteRefusal::Prohibited => "administratively prohibited",
            RouteRefusal::Invalid => "dropped",
            RouteRefusal::ReversePath => "dropped by the reverse path filter",
        })
    }
}

impl RouteQuery {
    /// A packet that is made here.
    pub fn from_here(source: IpAddr, destination: IpAddr) -> Self {
        RouteQuery {
            destination,
            source: Some(source),
            input_interface: None,
            output_interface: None,
            mark: 0,
            user: None,
            protocol: None,
            source_port: None,
            destination_port: None,
        }
    }

    /// Asks the kernel. Needs no privilege.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails, or it cannot answer such a question.
    pub fn ask(&self, kernel: &mut Rtnetlink) -> Result<Result<RouteAnswer, RouteRefusal>> {
        let family = Family::of(self.destination);
        // IPv6 always tells the table, and refuses to be asked for it.
        let table = match family {
            Family::V4 => RouteFlags::LookupTable,
            Family::V6 => RouteFlags::empty(),
        };
        let way = match self.ask_once(kernel, table)? {
            Ok(way) => way,
            Err(refusal) => return Ok(Err(refusal)),
        };
        // What the answer was made of: since Linux 4.13 (IPv4) and 4.17 (IPv6).
        let matched = self.ask_once(kernel, table | RouteFlags::FibMatch).ok().and_then(Result::ok);
        Ok(Ok(RouteAnswer {
            kind: way.kind,
            table: matched.as_ref().map_or(way.table, |matched| matched.table),
            next_hop: way.next_hops.first().copied().filter(|_| way.kind != RouteKind::Local),
            preferred_source: way.preferred_source,
            mtu: way.mtu,
            matched,
        }))
    }

    fn ask_once(
        &self,
        kernel: &mut Rtnetlink,
        flags: RouteFlags,
    ) -> Result<Result<Route, RouteRefusal>> {
        let attempt = || format!("tell the way to {}", self.destination);
        let request = Request::new(RTM_GETROUTE, 0, &self.message(flags));
        let answer = kernel.get(&attempt(), &request, |message| {
            (message.kind == RTM_NEWROUTE).then(|| Route::read_any(message)).flatten()
        })?;
        match answer {
            Ok(route) => Ok(Ok(route)),
            Err(refusal) => match (RouteRefusal::of(refusal.errno), &refusal.message) {
                // With a text it is the question that the kernel does not like.
                (Some(why), None) => Ok(Err(why)),
                _ => Err(Error::Refused { attempt: attempt(), refusal }),
            },
        }
    }

    fn message(&self, flags: RouteFlags) -> RouteMessage {
        let length = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = wire_family(Family::of(self.destination));
        message.header.flags = flags;
        message.header.destination_prefix_length = length(self.destination);
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Destination(self.destination.into()));
        if let Some(source) = self.source {
            message.header.source_prefix_length = length(source);
            attributes.push(RouteAttribute::Source(source.into()));
        }
        attributes.extend(self.input_interface.map(RouteAttribute::Iif));
        attributes.extend(self.output_interface.map(RouteAttribute::Oif));
        if self.mark != 0 {
            attributes.push(RouteAttribute::Mark(self.mark));
        }
        attributes.extend(self.user.map(RouteAttribute::Uid));
        attributes.extend(self.protocol.map(RouteAttribute::IpProto));
        attributes.extend(self.source_port.map(RouteAttribute::Sport));
        attributes.extend(self.destination_port.map(RouteAttribute::Dport));
        message
    }
}
