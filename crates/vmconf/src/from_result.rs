//! A CNI result read as a VM's interface.

use jackfield_cni::types::{CniResult, Dns, Interface, IpConfig, Route};

use crate::conf::{AddressError, RouteAttributes, StaticNetworkConf, VmIp, VmRoute};
use crate::namespace::same_path;
use crate::value::{InterfaceName, Mtu, ValueError};

/// What is known of the attachment that the result is of, beside the result.
///
/// Facts of the machine are passed in: this crate looks at nothing.
#[derive(Clone, Copy)]
pub struct Attachment<'a> {
    container_id: &'a str,
    netns: Option<&'a str>,
    same_namespace: &'a dyn Fn(&str, &str) -> bool,
    vm_if_name: Option<&'a InterfaceName>,
    wanted_mtu: Option<Mtu>,
    tap_mtu: Option<Mtu>,
}

impl<'a> Attachment<'a> {
    /// The attachment of a container ID: the ID that ADD was called with, which is the sandbox of the
    /// pseudo interface in the result.
    #[must_use]
    pub fn of(container_id: &'a str) -> Self {
        Self {
            container_id,
            netns: None,
            same_namespace: &same_path,
            vm_if_name: None,
            wanted_mtu: None,
            tap_mtu: None,
        }
    }

    /// The network namespace that ADD was called with: taps of others do not count.
    #[must_use]
    pub fn in_namespace(self, netns: &'a str) -> Self {
        Self { netns: Some(netns), ..self }
    }

    /// How two paths are known to be of one namespace. The default compares the paths alone
    /// ([`same_path`]); who can look at the files compares those.
    #[must_use]
    pub fn comparing(self, same_namespace: &'a dyn Fn(&str, &str) -> bool) -> Self {
        Self { same_namespace, ..self }
    }

    /// The interface's name in the guest.
    #[must_use]
    pub fn named(self, vm_if_name: Option<&'a InterfaceName>) -> Self {
        Self { vm_if_name, ..self }
    }

    /// The MTU that the user wants; goes before all others.
    #[must_use]
    pub fn with_wanted_mtu(self, mtu: Option<Mtu>) -> Self {
        Self { wanted_mtu: mtu, ..self }
    }

    /// The MTU that the tap has; goes before the one in the result.
    #[must_use]
    pub fn with_tap_mtu(self, mtu: Option<Mtu>) -> Self {
        Self { tap_mtu: mtu, ..self }
    }
}

/// Why a result is no VM's interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// No interface has the container ID as its sandbox: no plugin made one for a VM.
    #[error(
        "the CNI result has no interface for the VM, which would have the sandbox {container_id:?}; \
         it has {found}. Is tc-redirect-tap in the network's chain, and is this its container ID?"
    )]
    NoVmInterface {
        /// The container ID.
        container_id: String,
        /// The interfaces that there are.
        found: String,
    },
    /// Several have it.
    #[error("the CNI result has several interfaces with the sandbox {container_id:?}: {found}")]
    SeveralVmInterfaces {
        /// The container ID.
        container_id: String,
        /// The interfaces that there are.
        found: String,
    },
    /// No tap goes with the VM's interface.
    #[error("the CNI result has no tap of the name {name:?}{place}; it has {found}")]
    NoTap {
        /// The name of the VM's interface, which is the tap's.
        name: String,
        /// Where it was looked for.
        place: String,
        /// The interfaces that there are.
        found: String,
    },
    /// Several could.
    #[error("the CNI result has several taps of the name {name:?}{place}: {found}")]
    SeveralTaps {
        /// The name of the VM's interface, which is the tap's.
        name: String,
        /// Where it was looked for.
        place: String,
        /// The interfaces that there are.
        found: String,
    },
    /// An address is on an interface that is not in the result.
    #[error(
        "the address {address} of the CNI result is on interface {index}, but the result has {count}"
    )]
    InterfaceIndex {
        /// The address.
        address: String,
        /// The index that it has.
        index: u32,
        /// How many interfaces there are.
        count: usize,
    },
    /// An IPv6 address needs more of an MTU.
    #[error("the MTU {mtu} is too small for the IPv6 address {address}: the least is 1280")]
    MtuForIpv6 {
        /// The MTU that the guest would get.
        mtu: Mtu,
        /// The address.
        address: String,
    },
    /// A value is none of its kind.
    #[error("in the CNI result, {field}: {error}")]
    Value {
        /// The field, such as `dns.nameservers[0]`.
        field: String,
        /// What is wrong with it.
        error: ValueError,
    },
    /// An address or a route is none that a guest can have.
    #[error("in the CNI result, {field}: {error}")]
    Address {
        /// The field, such as `ips[0]`.
        field: String,
        /// What is wrong with it.
        error: AddressError,
    },
}

impl StaticNetworkConf {
    /// Reads the result of an ADD whose chain ended with a tap for a VM.
    ///
    /// The result holds a *pseudo interface*, whose sandbox is the container ID: what the guest is
    /// to have. The *tap* has the same name, and a network namespace as its sandbox. Addresses that
    /// point at the pseudo interface are the guest's, and so are those that point at none: there is one
    /// VM interface that they can belong to. Routes and name resolution are the guest's.
    ///
    /// The MTU is the one that is wanted, else the tap's, else the result's.
    ///
    /// # Errors
    ///
    /// [`ResultError`], naming the field, where the pair is not there once, or a value cannot be a
    /// guest's.
    pub fn from_result(result: &CniResult, attachment: &Attachment) -> Result<Self, ResultError> {
        let (vm_index, vm) = vm_interface(result, attachment.container_id)?;
        let (tap, sandbox) = tap(result, &vm.name, attachment)?;

        let tap_name = vm.name.parse().map_err(value("interfaces", vm_index, "name"))?;
        let netns_path = sandbox.parse().map_err(|error| in_field("the tap's sandbox", error))?;
        let mut conf = Self::new(tap_name, netns_path);
        conf.vm_if_name = attachment.vm_if_name.cloned();
        conf.vm_mac = match &vm.mac {
            Some(mac) => Some(mac.parse().map_err(value("interfaces", vm_index, "mac"))?),
            None => None,
        };
        conf.vm_mtu = match (attachment.wanted_mtu.or(attachment.tap_mtu), vm.mtu.or(tap.mtu)) {
            (Some(mtu), _) => Some(mtu),
            (None, Some(mtu)) => {
                Some(Mtu::new(mtu).map_err(value("interfaces", vm_index, "mtu"))?)
            }
            (None, None) => None,
        };
        conf.vm_ips = addresses(result, vm_index)?;
        conf.check_mtu()?;
        conf.vm_routes = routes(&result.routes)?;
        conf.set_dns(&result.dns)?;
        Ok(conf)
    }

    /// The kernel takes IPv6 off an interface with a smaller MTU, addresses and all.
    fn check_mtu(&self) -> Result<(), ResultError> {
        const IPV6_LEAST: u32 = 1280;
        let ipv6 = self.vm_ips.iter().map(|ip| ip.address()).find(|net| net.addr().is_ipv6());
        match (self.vm_mtu, ipv6) {
            (Some(mtu), Some(address)) if mtu.bytes() < IPV6_LEAST => {
                Err(ResultError::MtuForIpv6 { mtu, address: address.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn set_dns(&mut self, dns: &Dns) -> Result<(), ResultError> {
        for (position, text) in dns.nameservers.iter().enumerate() {
            let address = text.parse().map_err(|_| ValueError {
                kind: "address of a name server",
                text: text.clone(),
                reason: "expected an IPv4 or IPv6 address",
            });
            self.vm_nameservers.push(address.map_err(value("dns.nameservers", position, ""))?);
        }
        if let Some(domain) = &dns.domain {
            self.vm_domain = Some(domain.parse().map_err(|error| in_field("dns.domain", error))?);
        }
        for (position, text) in dns.search.iter().enumerate() {
            let domain = text.parse().map_err(value("dns.search", position, ""))?;
            self.vm_search_domains.push(domain);
        }
        for (position, text) in dns.options.iter().enumerate() {
            let option = text.parse().map_err(value("dns.options", position, ""))?;
            self.vm_resolver_options.push(option);
        }
        Ok(())
    }
}

/// The pseudo interface, with its index.
fn vm_interface<'r>(
    result: &'r CniResult,
    container_id: &str,
) -> Result<(usize, &'r Interface), ResultError> {
    let of_vm = |interface: &Interface| interface.sandbox.as_deref() == Some(container_id);
    let mut found = result.interfaces.iter().enumerate().filter(|(_, i)| of_vm(i));
    let first = found.next().ok_or_else(|| ResultError::NoVmInterface {
        container_id: container_id.to_owned(),
        found: list(&result.interfaces),
    })?;
    if found.next().is_some() {
        return Err(ResultError::SeveralVmInterfaces {
            container_id: container_id.to_owned(),
            found: list(&result.interfaces),
        });
    }
    Ok(first)
}

/// The tap, with the path of its namespace.
fn tap<'r>(
    result: &'r CniResult,
    name: &str,
    attachment: &Attachment,
) -> Result<(&'r Interface, &'r str), ResultError> {
    let sandboxed = |interface: &'r Interface| Some((interface, interface.sandbox.as_deref()?));
    let here = |sandbox: &str| {
        attachment.netns.is_none_or(|netns| (attachment.same_namespace)(netns, sandbox))
    };
    let mut found = (result.interfaces.iter())
        .filter(|interface| interface.name == name)
        .filter_map(sandboxed)
        .filter(|(_, sandbox)| *sandbox != attachment.container_id && here(sandbox));
    let place = || attachment.netns.map_or(String::new(), |netns| format!(" in {netns}"));
    let first = found.next().ok_or_else(|| ResultError::NoTap {
        name: name.to_owned(),
        place: place(),
        found: list(&result.interfaces),
    })?;
    if found.next().is_some() {
        return Err(ResultError::SeveralTaps {
            name: name.to_owned(),
            place: place(),
            found: list(&result.interfaces),
        });
    }
    Ok(first)
}

/// The addresses of the pseudo interface.
fn addresses(result: &CniResult, vm_index: usize) -> Result<Vec<VmIp>, ResultError> {
    let mut addresses = Vec::with_capacity(result.ips.len());
    for (position, ip) in result.ips.iter().enumerate() {
        if on_vm(ip, vm_index, result.interfaces.len())? {
            let address = VmIp::new(ip.address, ip.gateway);
            addresses.push(address.map_err(address_error("ips", position))?);
        }
    }
    Ok(addresses)
}

fn on_vm(ip: &IpConfig, vm_index: usize, count: usize) -> Result<bool, ResultError> {
    let Some(index) = ip.interface else { return Ok(true) };
    match usize::try_from(index) {
        Ok(at) if at < count => Ok(at == vm_index),
        _ => Err(ResultError::InterfaceIndex { address: ip.address.to_string(), index, count }),
    }
}

fn routes(routes: &[Route]) -> Result<Vec<VmRoute>, ResultError> {
    let mut of_vm = Vec::with_capacity(routes.len());
    for (position, route) in routes.iter().enumerate() {
        let Route { dst, gw, mtu, advmss, priority, table, scope, .. } = *route;
        let attributes = RouteAttributes { mtu, advmss, priority, table, scope };
        let route = VmRoute::new(dst, gw, attributes);
        of_vm.push(route.map_err(address_error("routes", position))?);
    }
    Ok(of_vm)
}

/// The interfaces of a result, for messages.
fn list(interfaces: &[Interface]) -> String {
    if interfaces.is_empty() {
        return "no interfaces".to_owned();
    }
    let say = |interface: &Interface| match &interface.sandbox {
        Some(sandbox) => format!("{:?} (sandbox {sandbox:?})", interface.name),
        None => format!("{:?}", interface.name),
    };
    interfaces.iter().map(say).collect::<Vec<_>>().join(", ")
}

fn in_field(field: &str, error: ValueError) -> ResultError {
    ResultError::Value { field: field.to_owned(), error }
}

fn value(list: &str, position: usize, part: &str) -> impl FnOnce(ValueError) -> ResultError {
    move |error| {
        let dot = if part.is_empty() { "" } else { "." };
        ResultError::Value { field: format!("{list}[{position}]{dot}{part}"), error }
    }
}

fn address_error(list: &str, position: usize) -> impl FnOnce(AddressError) -> ResultError {
    move |error| ResultError::Address { field: format!("{list}[{position}]"), error }
}
