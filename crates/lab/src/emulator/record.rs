//! What the cloud knows about one interface, and the keys that the metadata service makes of it.

use super::MacAddr;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A subnet and the VPC that it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// As in `subnet-id`.
    pub id: String,
    /// As in `vpc-id`.
    pub vpc_id: String,
    /// The IPv4 block; none in an IPv6-only subnet.
    pub ipv4: Option<Ipv4Net>,
    /// The IPv6 blocks.
    pub ipv6: Vec<Ipv6Net>,
    /// All IPv4 blocks of the VPC; empty means the subnet's own.
    pub vpc_ipv4: Vec<Ipv4Net>,
    /// All IPv6 blocks of the VPC; empty means the subnet's own.
    pub vpc_ipv6: Vec<Ipv6Net>,
}

impl Subnet {
    /// A subnet of `vpc-lab` without any block.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            vpc_id: "vpc-lab".to_owned(),
            ipv4: None,
            ipv6: Vec::new(),
            vpc_ipv4: Vec::new(),
            vpc_ipv6: Vec::new(),
        }
    }

    /// With this IPv4 block.
    #[must_use]
    pub fn with_ipv4(mut self, block: Ipv4Net) -> Self {
        self.ipv4 = Some(block);
        self
    }

    /// With this IPv6 block besides those that it has.
    #[must_use]
    pub fn with_ipv6(mut self, block: Ipv6Net) -> Self {
        self.ipv6.push(block);
        self
    }

    /// In a VPC that has these blocks.
    #[must_use]
    pub fn in_vpc(
        mut self,
        id: impl Into<String>,
        blocks: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        self.vpc_id = id.into();
        for block in blocks {
            match block {
                IpNet::V4(block) => self.vpc_ipv4.push(block),
                IpNet::V6(block) => self.vpc_ipv6.push(block),
            }
        }
        self
    }
}

/// One network interface of the cloud, attached or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudInterface {
    /// Stays with the interface wherever it is attached.
    pub mac: MacAddr,
    /// As in `interface-id`.
    pub interface_id: String,
    /// Where it lies.
    pub subnet: Subnet,
    /// The account that owns it.
    pub owner_id: String,
    /// As in `security-group-ids`.
    pub security_group_ids: Vec<String>,
    /// As in `local-hostname`.
    pub local_hostname: Option<String>,
    /// The primary address first.
    pub ipv4: Vec<Ipv4Addr>,
    /// As in `ipv6s`.
    pub ipv6: Vec<Ipv6Addr>,
    /// Delegated prefixes, a /28 each on EC2.
    pub ipv4_prefixes: Vec<Ipv4Net>,
    /// Delegated prefixes, a /80 each on EC2.
    pub ipv6_prefixes: Vec<Ipv6Net>,
    /// Keys whose text is not made of the above: what is given here is answered to the letter.
    pub literal: BTreeMap<String, String>,
}

impl CloudInterface {
    /// An interface without addresses, its interface ID made of the MAC.
    #[must_use]
    pub fn new(mac: MacAddr, subnet: Subnet) -> Self {
        let digits: String = mac.0.iter().map(|octet| format!("{octet:02x}")).collect();
        Self {
            mac,
            interface_id: format!("eni-0{digits}0000"),
            subnet,
            owner_id: "123456789012".to_owned(),
            security_group_ids: vec!["sg-0123456789abcdef0".to_owned()],
            local_hostname: None,
            ipv4: Vec::new(),
            ipv6: Vec::new(),
            ipv4_prefixes: Vec::new(),
            ipv6_prefixes: Vec::new(),
            literal: BTreeMap::new(),
        }
    }

    /// With this address after those that it has; the first IPv4 address is the primary one.
    #[must_use]
    pub fn with_address(mut self, address: IpAddr) -> Self {
        self.add_address(address);
        self
    }

    /// With this delegated prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: IpNet) -> Self {
        self.add_prefix(prefix);
        self
    }

    /// With this interface ID.
    #[must_use]
    pub fn with_id(mut self, interface_id: impl Into<String>) -> Self {
        self.interface_id = interface_id.into();
        self
    }

    /// Owned by this account.
    #[must_use]
    pub fn with_owner(mut self, owner_id: impl Into<String>) -> Self {
        self.owner_id = owner_id.into();
        self
    }

    /// With a key that is answered to the letter.
    #[must_use]
    pub fn with_literal(mut self, key: impl Into<String>, text: impl Into<String>) -> Self {
        self.literal.insert(key.into(), text.into());
        self
    }

    /// All addresses, IPv4 first, the primary one before all.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let ipv4 = self.ipv4.iter().copied().map(IpAddr::V4);
        ipv4.chain(self.ipv6.iter().copied().map(IpAddr::V6))
    }

    /// All delegated prefixes, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        let ipv4 = self.ipv4_prefixes.iter().copied().map(IpNet::V4);
        ipv4.chain(self.ipv6_prefixes.iter().copied().map(IpNet::V6))
    }

    /// Whether a packet with this source may leave by this interface.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses().any(|own| own == address)
            || self.prefixes().any(|prefix| prefix.contains(&address))
    }

    pub(super) fn add_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) if !self.ipv4.contains(&address) => self.ipv4.push(address),
            IpAddr::V6(address) if !self.ipv6.contains(&address) => self.ipv6.push(address),
            _ => {}
        }
    }

    pub(super) fn remove_address(&mut self, address: IpAddr) {
        self.ipv4.retain(|own| IpAddr::V4(*own) != address);
        self.ipv6.retain(|own| IpAddr::V6(*own) != address);
    }

    pub(super) fn add_prefix(&mut self, prefix: IpNet) {
        match prefix {
            IpNet::V4(prefix) if !self.ipv4_prefixes.contains(&prefix) => {
                self.ipv4_prefixes.push(prefix);
            }
            IpNet::V6(prefix) if !self.ipv6_prefixes.contains(&prefix) => {
                self.ipv6_prefixes.push(prefix);
            }
            _ => {}
        }
    }

    pub(super) fn remove_prefix(&mut self, prefix: IpNet) {
        self.ipv4_prefixes.retain(|own| IpNet::V4(*own) != prefix);
        self.ipv6_prefixes.retain(|own| IpNet::V6(*own) != prefix);
    }

    /// The keys and their texts, but for the two that belong to an attachment. A key without a
    /// value is absent, as it is on EC2.
    pub(super) fn keys(&self) -> BTreeMap<&str, String> {
        let subnet = &self.subnet;
        let vpc_ipv4 =
            if subnet.vpc_ipv4.is_empty() { lines(subnet.ipv4) } else { lines(&subnet.vpc_ipv4) };
        let vpc_ipv6 =
            lines(if subnet.vpc_ipv6.is_empty() { &subnet.ipv6 } else { &subnet.vpc_ipv6 });
        let made = [
            ("interface-id", self.interface_id.clone()),
            ("ipv4-prefix", lines(&self.ipv4_prefixes)),
            ("ipv6-prefix", lines(&self.ipv6_prefixes)),
            ("ipv6s", lines(&self.ipv6)),
            ("local-hostname", self.hostname()),
            ("local-ipv4s", lines(&self.ipv4)),
            ("mac", self.mac.to_string()),
            ("owner-id", self.owner_id.clone()),
            ("security-group-ids", lines(&self.security_group_ids)),
            ("subnet-id", subnet.id.clone()),
            ("subnet-ipv4-cidr-block", lines(subnet.ipv4)),
            ("subnet-ipv6-cidr-blocks", lines(&subnet.ipv6)),
            ("vpc-id", subnet.vpc_id.clone()),
            ("vpc-ipv4-cidr-block", vpc_ipv4.lines().next().unwrap_or_default().to_owned()),
            ("vpc-ipv4-cidr-blocks", vpc_ipv4),
            ("vpc-ipv6-cidr-blocks", vpc_ipv6),
        ];
        let mut keys: BTreeMap<&str, String> =
            made.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        keys.extend(self.literal.iter().map(|(key, text)| (key.as_str(), text.clone())));
        keys
    }

    fn hostname(&self) -> String {
        if let Some(name) = &self.local_hostname {
            return name.clone();
        }
        let primary = self.ipv4.first().map(|address| {
            let [a, b, c, d] = address.octets();
            format!("ip-{a}-{b}-{c}-{d}.ec2.internal")
        });
        primary.unwrap_or_default()
    }
}

fn lines<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join("\n")
}
