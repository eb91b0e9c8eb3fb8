//! Addresses of interfaces.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags as WireFlags, AddressHeader, AddressMessage, AddressScope,
    CacheInfo,
};

use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use crate::{Family, Request, Rtnetlink};

pub(crate) const RTM_NEWADDR: u16 = 20;
pub(crate) const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFADDRMSG_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;

/// What an address is like beyond its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AddressFlags {
    /// The kernel adds no route to the address's prefix.
    pub no_prefix_route: bool,
    /// IPv6: used at once, without duplicate address detection.
    pub no_dad: bool,
    /// IPv6: duplicate address detection has not finished, or has failed.
    pub tentative: bool,
    /// Never expires.
    pub permanent: bool,
    /// IPv6: works, and is not chosen as the source of a new connection where the kernel has
    /// another to choose (RFC 6724, section 5, rule 3).
    pub deprecated: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Index of the interface.
    pub interface: u32,
    /// The address with its prefix length; host bits are kept.
    pub address: IpNet,
    /// Who added it (IFA_PROTO, Linux 5.18): 0 where nobody said.
    pub protocol: u8,
    /// Further properties.
    pub flags: AddressFlags,
}

impl Address {
    /// Lists every address of the family.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink, family: Family) -> Result<Vec<Address>> {
        Self::dump(kernel, family, 0)
    }

    /// Lists the addresses of one interface.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list_of(kernel: &mut Rtnetlink, family: Family, interface: u32) -> Result<Vec<Address>> {
        let mut addresses = Self::dump(kernel, family, interface)?;
        // A kernel that does not know the filter lists all.
        addresses.retain(|address| address.interface == interface);
        Ok(addresses)
    }

    fn dump(kernel: &mut Rtnetlink, family: Family, interface: u32) -> Result<Vec<Address>> {
        let mut body = AddressMessage::default();
        body.header.family = wire_family(family);
        body.header.index = interface;
        kernel.dump("addresses", &Request::new(RTM_GETADDR, 0, &body), Address::read)
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Address> {
        if message.kind != RTM_NEWADDR && message.kind != RTM_DELADDR {
            return None;
        }
        let header = AddressHeader::parse(message.payload).ok()?;
        let mut value: Option<IpAddr> = None;
        let mut flags = WireFlags::from_bits_retain(u32::from(header.flags.bits()));
        let mut protocol = 0;
        for attribute in wire::attributes(message.payload, IFADDRMSG_LEN) {
            let (kind, nla) = attribute.ok()?;
            if ![IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_PROTO].contains(&kind) {
                continue;
            }
            match AddressAttribute::parse(&nla).ok()? {
                // The local end, where a point-to-point address has two.
                AddressAttribute::Local(address) => value = Some(address),
                AddressAttribute::Address(address) if value.is_none() => value = Some(address),
                AddressAttribute::Flags(all) => flags = all,
                AddressAttribute::Protocol(by) => protocol = by.into(),
                _ => {}
            }
        }
        Some(Address {
            interface: header.index,
            address: IpNet::new(value?, header.prefix_len).ok()?,
            protocol,
            flags: AddressFlags {
                no_prefix_route: flags.contains(WireFlags::Noprefixroute),
                no_dad: flags.contains(WireFlags::Nodad),
                tentative: flags.intersects(WireFlags::Tentative | WireFlags::Dadfailed),
                permanent: flags.contains(WireFlags::Permanent),
                deprecated: flags.contains(WireFlags::Deprecated),
            },
        })
    }

    /// Adds it; refused where the interface has it.
    pub fn add(&self) -> Request {
        Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &self.new_message())
    }

    /// Adds it; where the interface has it, whoever added it, that becomes this one. It is there all
    /// the while. IPv4 knows addresses apart by their prefix length too, IPv6 does not: there the prefix
    /// length stays as it was.
    pub fn replace(&self) -> Request {
        Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &self.new_message())
    }

    fn new_message(&self) -> AddressMessage {
        let mut message = self.message();
        let mut flags = WireFlags::empty();
        if self.flags.no_prefix_route {
            flags |= WireFlags::Noprefixroute;
        }
        if self.flags.no_dad && self.address.addr().is_ipv6() {
            flags |= WireFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Flags(flags));
        if self.flags.deprecated {
            // The kernel takes it from the lifetimes: preferred for no time, valid for ever.
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        if self.protocol != 0 {
            message.attributes.push(AddressAttribute::Protocol(self.protocol.into()));
        }
        message
    }

    /// Removes it.
    pub fn remove(&self) -> Request {
        Request::new(RTM_DELADDR, 0, &self.message())
    }

    fn message(&self) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = wire_family(Family::of(self.address.addr()));
        message.header.prefix_len = self.address.prefix_len();
        message.header.index = self.interface;
        message.header.scope = AddressScope::Universe;
        message.attributes = vec![
            AddressAttribute::Local(self.address.addr()),
            AddressAttribute::Address(self.address.addr()),
        ];
        message
    }
}

pub(crate) fn wire_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

pub(crate) fn read_family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}
