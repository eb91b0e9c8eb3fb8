//! What the cloud gives a host: so many source selectors over so many interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jackfield_hostnet::{Cloud, CloudInterface, Slot};
use jackfield_kernel::Family;
use jackfield_metadata::MacAddr;

use crate::Failure;

/// The shared subnets of [`Layout::Interleaved`].
const SHARED: u32 = 4;
/// The first address of a subnet that is an interface's.
const FIRST: u32 = 16;

/// Where the addresses of interfaces lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Each interface is in a subnet of its own.
    Own,
    /// Interfaces share four subnets, in each of which every address is another interface's than its
    /// neighbours: no prefix but the whole address tells them apart.
    Interleaved,
}

impl Layout {
    /// In words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Layout::Own => "each interface in a subnet of its own",
            Layout::Interleaved => "interfaces interleaved in shared subnets",
        }
    }
}

/// The interfaces of a host but for its primary. They are numbered from 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site {
    pub(crate) layout: Layout,
    /// A multiple of the number of shared subnets, at most 80.
    pub(crate) interfaces: u32,
    /// Addresses of each family on each interface, at most 200.
    pub(crate) addresses: u32,
}

/// The MAC of an interface; 0 is the primary.
pub(crate) fn mac(interface: u32) -> MacAddr {
    let [_, _, high, low] = interface.to_be_bytes();
    MacAddr::from([2, 0xec, 0x20, 0, high, low])
}

impl Site {
    /// The numbers of its interfaces.
    pub(crate) fn numbers(self) -> impl Iterator<Item = u32> {
        1..=self.interfaces
    }

    fn subnet(self, interface: u32, family: Family) -> IpNet {
        let (first, shared) = match self.layout {
            Layout::Own => (0, interface),
            Layout::Interleaved => (1, interface % SHARED),
        };
        match (family, self.layout) {
            (Family::V4, Layout::Own) => v4(0x0a01_0000 + (interface << 8), 24),
            (Family::V4, Layout::Interleaved) => v4(0x0a10_0000 + (shared << 16), 16),
            (Family::V6, _) => {
                v6((0x2001_0db8 << 96) | (first << 80) | (u128::from(shared) << 64), 64)
            }
        }
    }

    /// An address of an interface. Every other one of a subnet is free.
    pub(crate) fn address(self, interface: u32, number: u32, family: Family) -> IpAddr {
        let place = match self.layout {
            Layout::Own => number,
            Layout::Interleaved => (number * self.interfaces + interface - 1) / SHARED,
        };
        self.host(interface, FIRST + 2 * place, family)
    }

    /// An address that an interface does not have yet, in the midst of others: where subnets are
    /// shared, beside one of another interface.
    pub(crate) fn new_address(self, interface: u32, family: Family) -> IpAddr {
        let place = match self.layout {
            Layout::Own => self.addresses / 2,
            Layout::Interleaved => {
                let neighbour = interface - 1 + SHARED;
                (self.addresses / 2 * self.interfaces + neighbour) / SHARED
            }
        };
        self.host(interface, FIRST + 2 * place + 1, family)
    }

    fn host(self, interface: u32, host: u32, family: Family) -> IpAddr {
        match self.subnet(interface, family).network() {
            IpAddr::V4(net) => Ipv4Addr::from_bits(net.to_bits() + host).into(),
            IpAddr::V6(net) => Ipv6Addr::from_bits(net.to_bits() + u128::from(host)).into(),
        }
    }

    /// The addresses of an interface, both families in turn.
    pub(crate) fn addresses(self, interface: u32) -> impl Iterator<Item = IpAddr> {
        (0..self.addresses).flat_map(move |number| {
            Family::BOTH.map(|family| self.address(interface, number, family))
        })
    }

    /// Every address of a family.
    pub(crate) fn all(self, family: Family) -> Vec<IpAddr> {
        let of = |interface| (0..self.addresses).map(move |n| self.address(interface, n, family));
        self.numbers().flat_map(of).collect()
    }

    /// The prefix that is delegated to an interface, for VMs and containers: /28 or /80.
    pub(crate) fn delegated(self, interface: u32, family: Family) -> IpNet {
        match self.subnet(interface, family).network() {
            IpAddr::V4(net) => {
                let offset = match self.layout {
                    Layout::Own => 240,
                    Layout::Interleaved => 0x8000 + 16 * interface,
                };
                v4(net.to_bits() + offset, 28)
            }
            IpAddr::V6(net) => v6(net.to_bits() + (u128::from(interface) << 48), 80),
        }
    }

    /// The router of an interface's subnet.
    pub(crate) fn gateway(self, interface: u32, family: Family) -> IpAddr {
        match self.subnet(interface, family).network() {
            IpAddr::V4(net) => Ipv4Addr::from_bits(net.to_bits() + 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    pub(crate) fn slot(interface: u32) -> Slot {
        Slot { card: interface / 10, device: interface % 10 }
    }

    /// What metadata says of it.
    pub(crate) fn cloud(self) -> Result<Cloud, Failure> {
        let mut interfaces = BTreeMap::new();
        let primary = CloudInterface {
            slot: Some(Self::slot(0)),
            complete: true,
            ..CloudInterface::default()
        };
        interfaces.insert(mac(0), primary);
        for number in self.numbers() {
            let interface = CloudInterface {
                interface_id: Some(format!("eni-{number:017x}").parse()?),
                slot: Some(Self::slot(number)),
                subnets: Family::BOTH.map(|family| self.subnet(number, family)).to_vec(),
                addresses: self.addresses(number).collect::<BTreeSet<IpAddr>>(),
                prefixes: Family::BOTH.map(|family| self.delegated(number, family)).into(),
                complete: true,
                ..CloudInterface::default()
            };
            interfaces.insert(mac(number), interface);
        }
        Ok(Cloud { primary: Some(mac(0)), interfaces })
    }
}

fn v4(bits: u32, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length))
}

fn v6(bits: u128, length: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_two_interfaces_and_none_is_in_a_delegated_prefix() {
        for layout in [Layout::Own, Layout::Interleaved] {
            let site = Site { layout, interfaces: 80, addresses: 100 };
            for family in Family::BOTH {
                let all = site.all(family);
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 8_000);
                let prefixes: Vec<IpNet> =
                    site.numbers().map(|number| site.delegated(number, family)).collect();
                assert_eq!(prefixes.iter().collect::<BTreeSet<_>>().len(), 80);
                assert!(all.iter().all(|ip| !prefixes.iter().any(|prefix| prefix.contains(ip))));
                for number in site.numbers() {
                    let subnet = site.subnet(number, family);
                    assert!(subnet.contains(&site.delegated(number, family)));
                    assert!((0..100).all(|n| subnet.contains(&site.address(number, n, family))));
                }
            }
        }
    }

    #[test]
    fn where_subnets_are_shared_neighbours_belong_to_different_interfaces() {
        let site = Site { layout: Layout::Interleaved, interfaces: 80, addresses: 100 };
        let mut owners: BTreeMap<IpAddr, u32> = BTreeMap::new();
        for number in site.numbers() {
            owners.extend(site.addresses(number).map(|ip| (ip, number)));
        }
        for family in Family::BOTH {
            let new = site.new_address(40, family);
            assert!(owners.range(..new).next_back().is_some_and(|(_, owner)| *owner == 44));
            assert!(!owners.contains_key(&new) && site.subnet(40, family).contains(&new));
        }
        let owners: Vec<u32> = owners.into_values().collect();
        assert!(owners.windows(2).all(|pair| pair.first() != pair.last()));
    }
}
