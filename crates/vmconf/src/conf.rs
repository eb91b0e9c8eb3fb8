//! What a VM's network must look like inside: one interface, and all of a VM.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::routing::is_main;
use crate::value::{DomainName, InterfaceName, MacAddr, Mtu, NetnsPath, ResolverOption};

/// One interface of a VM: the tap on the host, and what the guest configures.
///
/// Usually [read from a CNI result](Self::from_result). Fields that begin with `vm` are to be set up
/// *within* the VM. Serialised, it is one entry of `interfaces` in the `json` format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNetworkConf {
    /// The tap that the VMM opens as this interface.
    pub tap_name: InterfaceName,
    /// The network namespace in which the tap is, and in which the VMM must open it.
    pub netns_path: NetnsPath,
    /// The interface's name in the guest; `None` is the only one there is, whatever its name.
    pub vm_if_name: Option<InterfaceName>,
    /// The MAC address that the VMM gives the guest's interface.
    pub vm_mac: Option<MacAddr>,
    /// The MTU that the guest's interface has, in bytes.
    pub vm_mtu: Option<Mtu>,
    /// The guest's addresses, of both families; none where the guest asks DHCP.
    pub vm_ips: Vec<VmIp>,
    /// The guest's routes, beside those that gateways imply: see [`StaticNetworkConf::guest_routes`].
    pub vm_routes: Vec<VmRoute>,
    /// Name servers, most preferred first.
    pub vm_nameservers: Vec<IpAddr>,
    /// The local domain.
    #[serde(with = "empty_is_none")]
    pub vm_domain: Option<DomainName>,
    /// Search domains, most preferred first.
    pub vm_search_domains: Vec<DomainName>,
    /// Options of the resolver.
    pub vm_resolver_options: Vec<ResolverOption>,
}

impl StaticNetworkConf {
    /// An interface with a tap and nothing else yet.
    #[must_use]
    pub fn new(tap_name: InterfaceName, netns_path: NetnsPath) -> Self {
        Self {
            tap_name,
            netns_path,
            vm_if_name: None,
            vm_mac: None,
            vm_mtu: None,
            vm_ips: Vec::new(),
            vm_routes: Vec::new(),
            vm_nameservers: Vec::new(),
            vm_domain: None,
            vm_search_domains: Vec::new(),
            vm_resolver_options: Vec::new(),
        }
    }

    /// What messages call it: the name in the guest, else the tap's.
    pub(crate) fn label(&self) -> &str {
        self.vm_if_name.as_ref().unwrap_or(&self.tap_name).as_str()
    }

    /// Search domains as a resolver without a local domain is to be told: the list, or else the
    /// local domain alone, which is what resolv.conf(5) makes of it.
    pub(crate) fn effective_search(&self) -> &[DomainName] {
        match &self.vm_domain {
            Some(domain) if self.vm_search_domains.is_empty() => std::slice::from_ref(domain),
            _ => &self.vm_search_domains,
        }
    }
}

/// Why an address, a gateway or a route cannot be a guest's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No interface can have it.
    #[error("{0} is no address that an interface can have")]
    Address(IpNet),
    /// No packet can be sent to it as a gateway.
    #[error("{gateway} cannot be the gateway of {of}: {reason}")]
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// The address or the destination.
        of: IpNet,
        /// What is wrong.
        reason: &'static str,
    },
    /// A number of a route is out of bounds.
    #[error("{attribute} {value} of the route to {dst}: {reason}")]
    Attribute {
        /// Where the route leads.
        dst: IpNet,
        /// Which number.
        attribute: &'static str,
        /// As given.
        value: u32,
        /// What it may be.
        reason: &'static str,
    },
}

/// An address of a guest with its prefix length, and its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawIp")]
pub struct VmIp {
    address: IpNet,
    gateway: Option<IpAddr>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawIp {
    address: IpNet,
    gateway: Option<IpAddr>,
}

impl TryFrom<RawIp> for VmIp {
    type Error = AddressError;

    fn try_from(raw: RawIp) -> Result<Self, AddressError> {
        Self::new(raw.address, raw.gateway)
    }
}

impl VmIp {
    /// # Errors
    ///
    /// [`AddressError`] for an address that no interface can have (unspecified, multicast, loopback,
    /// broadcast, IPv4 in IPv6), and for a gateway that is of the other family, is no host's or is
    /// the address itself.
    pub fn new(address: IpNet, gateway: Option<IpAddr>) -> Result<Self, AddressError> {
        if !is_host(address.addr()) || address.addr().is_loopback() {
            return Err(AddressError::Address(address));
        }
        if let Some(gateway) = gateway {
            check_gateway(gateway, address)?;
            if gateway == address.addr() {
                let reason = "it is the address itself";
                return Err(AddressError::Gateway { gateway, of: address, reason });
            }
        }
        Ok(Self { address, gateway })
    }

    /// The address with its prefix length, host bits kept.
    #[must_use]
    pub fn address(&self) -> IpNet {
        self.address
    }

    /// The gateway, of the same family.
    #[must_use]
    pub fn gateway(&self) -> Option<IpAddr> {
        self.gateway
    }
}

/// A route of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRoute")]
pub struct VmRoute {
    dst: IpNet,
    gw: Option<IpAddr>,
    #[serde(flatten)]
    attributes: RouteAttributes,
}

/// What a route may have beside its destination and next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RouteAttributes {
    /// The MTU along the route, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The TCP segment size to advertise, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// The metric; lower is preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The routing table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// The scope: 0 global, 200 site, 253 link, 254 host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u32>,
}

impl RouteAttributes {
    /// Those that are given, with their names.
    pub(crate) fn given(self) -> impl Iterator<Item = (&'static str, u32)> {
        [
            ("mtu", self.mtu),
            ("advmss", self.advmss),
            ("priority", self.priority),
            ("table", self.table),
            ("scope", self.scope),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoute {
    dst: IpNet,
    gw: Option<IpAddr>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    priority: Option<u32>,
    table: Option<u32>,
    scope: Option<u32>,
}

impl TryFrom<RawRoute> for VmRoute {
    type Error = AddressError;

    fn try_from(raw: RawRoute) -> Result<Self, AddressError> {
        let RawRoute { dst, gw, mtu, advmss, priority, table, scope } = raw;
        Self::new(dst, gw, RouteAttributes { mtu, advmss, priority, table, scope })
    }
}

impl VmRoute {
    /// A route; host bits of the destination are cleared.
    ///
    /// # Errors
    ///
    /// [`AddressError`] for a next hop that is of the other family or no host's, an MTU or segment
    /// size over 65535 and a scope over 255.
    pub fn new(
        dst: IpNet,
        gw: Option<IpAddr>,
        attributes: RouteAttributes,
    ) -> Result<Self, AddressError> {
        let dst = dst.trunc();
        if let Some(gw) = gw {
            check_gateway(gw, dst)?;
        }
        let bounds = [
            ("mtu", attributes.mtu, 65_535, "at most 65535 bytes"),
            ("advmss", attributes.advmss, 65_535, "at most 65535 bytes"),
            ("scope", attributes.scope, 255, "at most 255"),
        ];
        for (attribute, value, most, reason) in bounds {
            if let Some(value) = value.filter(|value| *value > most) {
                return Err(AddressError::Attribute { dst, attribute, value, reason });
            }
        }
        Ok(Self { dst, gw, attributes })
    }

    /// The destination, host bits clear.
    #[must_use]
    pub fn dst(&self) -> IpNet {
        self.dst
    }

    /// The next hop as the result has it; `None` leaves it to the gateway of an address.
    #[must_use]
    pub fn gw(&self) -> Option<IpAddr> {
        self.gw
    }

    /// What else it has.
    #[must_use]
    pub fn attributes(&self) -> RouteAttributes {
        self.attributes
    }

    /// It leads everywhere, and is not of a table that is looked at for some packets only.
    pub(crate) fn is_main_default(&self) -> bool {
        self.dst.prefix_len() == 0 && is_main(self.attributes.table)
    }
}

fn check_gateway(gateway: IpAddr, of: IpNet) -> Result<(), AddressError> {
    let reason = if gateway.is_ipv4() != of.addr().is_ipv4() {
        "it is of the other address family"
    } else if !is_host(gateway) {
        "it is not the address of a host"
    } else {
        return Ok(());
    };
    Err(AddressError::Gateway { gateway, of, reason })
}

/// It may be one host's: not unspecified, multicast, broadcast, nor IPv4 within IPv6.
fn is_host(address: IpAddr) -> bool {
    let never = match address {
        IpAddr::V4(v4) => v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !never && !address.is_unspecified() && !address.is_multicast()
}

/// It reaches the same link only, so that no address needs to be on the gateway's subnet.
pub(crate) fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

/// All interfaces of a VM, in the order in which the VMM is given them: at least one, and no two
/// that would be mistaken for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmConf(Vec<StaticNetworkConf>);

/// Why interfaces do not make a VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VmConfError {
    /// There is none.
    #[error("no interface: a VM's network configuration has at least one")]
    Empty,
    /// Two have the same.
    #[error("two interfaces have the same {what}: {value}")]
    Twice {
        /// What must be of one interface only.
        what: &'static str,
        /// The value that two have.
        value: String,
    },
}

impl VmConf {
    /// # Errors
    ///
    /// [`VmConfError`] where there is no interface, or two have the same tap in one namespace, the
    /// same name in the guest, the same MAC or the same address.
    pub fn new(interfaces: Vec<StaticNetworkConf>) -> Result<Self, VmConfError> {
        if interfaces.is_empty() {
            return Err(VmConfError::Empty);
        }
        if let [_] = interfaces.as_slice() {
            return Ok(Self(interfaces));
        }
        let tap = |c: &StaticNetworkConf| format!("{} in {}", c.tap_name, c.netns_path);
        unique("tap", interfaces.iter().map(tap))?;
        unique("name in the guest", interfaces.iter().filter_map(|c| c.vm_if_name.as_ref()))?;
        unique("MAC address", interfaces.iter().filter_map(|c| c.vm_mac))?;
        let ips = interfaces.iter().flat_map(|c| &c.vm_ips).map(|ip| ip.address.addr());
        unique("address", ips)?;
        Ok(Self(interfaces))
    }

    /// The interfaces, in order.
    #[must_use]
    pub fn interfaces(&self) -> &[StaticNetworkConf] {
        &self.0
    }
}

impl From<StaticNetworkConf> for VmConf {
    fn from(conf: StaticNetworkConf) -> Self {
        Self(vec![conf])
    }
}

fn unique<T: PartialEq + ToString>(
    what: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<(), VmConfError> {
    let mut seen = Vec::new();
    for value in values {
        if seen.contains(&value) {
            return Err(VmConfError::Twice { what, value: value.to_string() });
        }
        seen.push(value);
    }
    Ok(())
}

/// A text that is empty where there is no value, as in the Go document.
mod empty_is_none {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::value::DomainName;

    pub(super) fn serialize<S: Serializer>(
        value: &Option<DomainName>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.as_ref().map_or("", DomainName::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DomainName>, D::Error> {
        match Option::<String>::deserialize(deserializer)? {
            None => Ok(None),
            Some(text) if text.is_empty() => Ok(None),
            Some(text) => text.try_into().map(Some).map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ip(address: &str, gateway: Option<&str>) -> Result<VmIp, AddressError> {
        VmIp::new(address.parse().unwrap(), gateway.map(|g| g.parse().unwrap()))
    }

    #[test]
    fn an_address_is_one_that_an_interface_can_have() {
        for good in ["10.0.0.2/24", "10.0.0.2/32", "2001:db8::2/64", "fe80::1/64"] {
            assert!(ip(good, None).is_ok(), "{good}");
        }
        let bad = [
            "0.0.0.0/0",
            "224.0.0.1/24",
            "127.0.0.1/8",
            "255.255.255.255/32",
            "::/0",
            "ff02::1/64",
            "::1/128",
            "::ffff:10.0.0.2/120",
        ];
        for bad in bad {
            assert!(ip(bad, None).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_gateway_is_another_host_of_the_same_family() {
        assert!(ip("10.0.0.2/24", Some("10.0.0.1")).is_ok());
        assert!(ip("10.0.0.2/32", Some("192.0.2.1")).is_ok());
        for bad in ["2001:db8::1", "0.0.0.0", "10.0.0.2", "224.0.0.1", "255.255.255.255"] {
            assert!(ip("10.0.0.2/24", Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_route_has_no_host_bits() {
        let dst = "10.1.2.3/16".parse().unwrap();
        let route = VmRoute::new(dst, None, RouteAttributes::default()).unwrap();
        assert_eq!(route.dst().to_string(), "10.1.0.0/16");
        let scope = RouteAttributes { scope: Some(256), ..RouteAttributes::default() };
        assert!(VmRoute::new(dst, None, scope).is_err());
        let other = Some("2001:db8::1".parse().unwrap());
        assert!(VmRoute::new(dst, other, RouteAttributes::default()).is_err());
    }

    #[test]
    fn interfaces_of_a_vm_are_told_apart() {
        let conf = |tap: &str, netns: &str| {
            StaticNetworkConf::new(tap.parse().unwrap(), netns.parse().unwrap())
        };
        assert_eq!(VmConf::new(vec![]), Err(VmConfError::Empty));
        assert!(VmConf::new(vec![conf("tap0", "/run/a"), conf("tap0", "/run/b")]).is_ok());
        assert!(VmConf::new(vec![conf("tap0", "/run/a"), conf("tap0", "/run/a")]).is_err());
        let mut pair = vec![conf("tap0", "/run/a"), conf("tap1", "/run/a")];
        for conf in &mut pair {
            conf.vm_mac = Some("02:00:00:00:00:01".parse().unwrap());
        }
        let error = VmConf::new(pair).unwrap_err().to_string();
        assert_eq!(error, "two interfaces have the same MAC address: 02:00:00:00:00:01");
    }
}
