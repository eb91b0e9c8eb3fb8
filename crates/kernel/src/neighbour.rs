//! Neighbour entries: which link-layer address a next hop has, and for whom to answer.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use crate::address::wire_family;
use crate::wire::{NLM_F_CREATE, NLM_F_REPLACE};
use crate::{EthernetAddress, Family, Request};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;

/// What a neighbour entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourKind {
    /// The neighbour has this link-layer address; never asked for, never forgotten.
    Permanent(EthernetAddress),
    /// Solicitations for the address are answered by the interface (proxy).
    Proxy,
}

/// A neighbour entry of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the interface.
    pub interface: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// What is known of it.
    pub kind: NeighbourKind,
}

impl Neighbour {
    /// Adds it, or replaces what was known of the address.
    pub fn set(&self) -> Request {
        Request::new(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &self.message())
    }

    /// Removes it.
    pub fn remove(&self) -> Request {
        Request::new(RTM_DELNEIGH, 0, &self.message())
    }

    fn message(&self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = wire_family(Family::of(self.address));
        message.header.ifindex = self.interface;
        message.attributes.push(NeighbourAttribute::Destination(match self.address {
            IpAddr::V4(address) => NeighbourAddress::Inet(address),
            IpAddr::V6(address) => NeighbourAddress::Inet6(address),
        }));
        match self.kind {
            NeighbourKind::Permanent(address) => {
                message.header.state = NeighbourState::Permanent;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(address.to_vec()));
            }
            NeighbourKind::Proxy => message.header.flags = NeighbourFlags::Proxy,
        }
        message
    }
}
