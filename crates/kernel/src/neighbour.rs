//! Neighbour entries: which link-layer address a next hop has, and for whom to answer.

use std::net::IpAddr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage,
    NeighbourState as WireState,
};

use crate::address::{read_family, wire_family};
use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_REPLACE};
use crate::{EthernetAddress, Family, Request, Rtnetlink};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

/// `struct ndmsg`.
const NDMSG_LEN: usize = 12;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

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
                message.header.state = WireState::Permanent;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(address.to_vec()));
            }
            NeighbourKind::Proxy => message.header.flags = NeighbourFlags::Proxy,
        }
        message
    }
}

/// What the kernel knows of a neighbour at this instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighbourState {
    /// It is being asked for, for the first time.
    Incomplete,
    /// It did not answer.
    Failed,
    /// Its address is known, be it from long ago.
    Known,
}

/// An entry of the table of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Index of the interface.
    pub interface: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// What is known of it.
    pub state: NeighbourState,
    /// Its link-layer address, where that is known and has six octets.
    pub link_address: Option<EthernetAddress>,
}

impl NeighbourEntry {
    /// Lists the neighbours of an interface.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list_of(kernel: &mut Rtnetlink, family: Family, interface: u32) -> Result<Vec<Self>> {
        let mut body = NeighbourMessage::default();
        body.header.family = wire_family(family);
        body.attributes.push(NeighbourAttribute::IfIndex(interface));
        let request = Request::new(RTM_GETNEIGH, 0, &body);
        let mut entries = kernel.dump("neighbours", &request, NeighbourEntry::read)?;
        // A kernel that does not know the filter lists all.
        entries.retain(|entry| entry.interface == interface);
        Ok(entries)
    }

    fn read(message: &Message<'_>) -> Option<Self> {
        if message.kind != RTM_NEWNEIGH {
            return None;
        }
        let header = NeighbourHeader::parse(message.payload).ok()?;
        let family = read_family(header.family)?;
        let (mut address, mut link_address) = (None, None);
        for attribute in wire::attributes(message.payload, NDMSG_LEN) {
            let (kind, nla) = attribute.ok()?;
            match (kind, family) {
                (NDA_DST, Family::V4) => {
                    address = <[u8; 4]>::try_from(nla.value()).ok().map(IpAddr::from);
                }
                (NDA_DST, Family::V6) => {
                    address = <[u8; 16]>::try_from(nla.value()).ok().map(IpAddr::from);
                }
                (NDA_LLADDR, _) => link_address = nla.value().try_into().ok(),
                _ => {}
            }
        }
        let state = match header.state {
            WireState::Incomplete => NeighbourState::Incomplete,
            WireState::Failed => NeighbourState::Failed,
            // Nothing was asked yet.
            WireState::None => return None,
            _ => NeighbourState::Known,
        };
        Some(NeighbourEntry { interface: header.ifindex, address: address?, state, link_address })
    }
}
