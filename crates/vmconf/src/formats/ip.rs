//! The value of the kernel's `ip=`, as [nfsroot.rst] describes it: one interface with one IPv4
//! address, its gateway as default route, and two name servers (in /proc/net/pnp).
//!
//! The kernel checks nothing of it and reads nonsense into what it does not know, so what it cannot
//! take is an error here: IPv6, several addresses, netmasks that it misreads, gateways that it
//! refuses. systemd-network-generator, dracut, NetworkManager's nm-initrd-generator and klibc's
//! ipconfig read the same value, which is why it has no trailing colon.
//!
//! By the time that the kernel reads it, an interface is called `eth0`, `eth1`…; a name of another kind is
//! for readers in an initial RAM disk.
//!
//! [nfsroot.rst]: https://docs.kernel.org/admin-guide/nfs/nfsroot.html

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::conf::{StaticNetworkConf, VmConf};
use crate::render::{Format, Lost, RenderError, Rendered, Warning, lost};

/// How many fields the value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IpForm {
    /// As many as are needed, without a trailing colon: what every reader reads.
    #[default]
    EveryReader,
    /// Ten always, as the Go SDK prints it. systemd-network-generator refuses it.
    GoSdk,
}

/// The value of `ip=`, and what it does not carry.
///
/// # Errors
///
/// [`RenderError`] for several interfaces, and as [`StaticNetworkConf::ip_boot_param`].
pub fn render(vm: &VmConf, form: IpForm) -> Result<Rendered, RenderError> {
    render_as(Format::Ip, vm, form)
}

pub(crate) fn render_as(
    format: Format,
    vm: &VmConf,
    form: IpForm,
) -> Result<Rendered, RenderError> {
    let [conf] = vm.interfaces() else {
        return Err(RenderError::Interfaces {
            format,
            count: vm.interfaces().len(),
            reason: "the kernel's ip= is of one; use networkd, cloud-init or dracut",
        });
    };
    let mut text = value(format, conf, form)?;
    text.push('\n');
    Ok(Rendered { text, warnings: warnings(format, conf) })
}

impl StaticNetworkConf {
    /// The value of the kernel's `ip=`, in the form that every reader reads:
    /// `10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1:8.8.8.8`.
    ///
    /// It carries one IPv4 address, its gateway as default route, the interface's name, and the first
    /// two IPv4 name servers. What else there is,
    /// [`render`] tells of.
    ///
    /// # Errors
    ///
    /// [`RenderError`] where there is no address or more than one, where it is IPv6, where the kernel
    /// would misread the netmask (/0, /32) or refuse the gateway (outside of the subnet, on a /31).
    pub fn ip_boot_param(&self) -> Result<String, RenderError> {
        value(Format::Ip, self, IpForm::EveryReader)
    }

    /// Like [`ip_boot_param`](Self::ip_boot_param), in a chosen form.
    ///
    /// # Errors
    ///
    /// As [`ip_boot_param`](Self::ip_boot_param).
    pub fn ip_boot_param_as(&self, form: IpForm) -> Result<String, RenderError> {
        value(Format::Ip, self, form)
    }
}

fn value(format: Format, conf: &StaticNetworkConf, form: IpForm) -> Result<String, RenderError> {
    let (net, gateway) = address(format, conf)?;
    let name = conf.vm_if_name.as_ref().map_or("", |name| name.as_str());
    let mut dns = ipv4_nameservers(conf);
    let dns = [dns.next(), dns.next()];

    let mut text = String::with_capacity(96);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}::", net.addr());
    if let Some(gateway) = gateway {
        let _ = write!(text, "{gateway}");
    }
    let _ = write!(text, ":{}::{name}:off", net.netmask());
    match form {
        IpForm::EveryReader => {
            for server in dns.into_iter().flatten() {
                let _ = write!(text, ":{server}");
            }
        }
        IpForm::GoSdk => {
            for server in dns {
                text.push(':');
                if let Some(server) = server {
                    let _ = write!(text, "{server}");
                }
            }
            text.push(':');
        }
    }
    Ok(text)
}

/// The one address, as the kernel reads it right.
fn address(
    format: Format,
    conf: &StaticNetworkConf,
) -> Result<(Ipv4Net, Option<Ipv4Addr>), RenderError> {
    let interface = || conf.label().to_owned();
    let refuse =
        |address, reason| RenderError::Address { format, interface: interface(), address, reason };
    let ipv6 = |address| refuse(address, "the kernel's ip= is of IPv4 alone");
    let ip = match conf.vm_ips.as_slice() {
        [ip] => ip,
        [] => return Err(RenderError::NoAddress { format, interface: interface() }),
        [_, second, ..] => {
            let not_ipv4 = conf.vm_ips.iter().find(|ip| ip.address().addr().is_ipv6());
            return Err(match not_ipv4 {
                Some(ip) => ipv6(ip.address()),
                None => refuse(second.address(), "the kernel's ip= is of one address"),
            });
        }
    };
    let IpNet::V4(net) = ip.address() else { return Err(ipv6(ip.address())) };
    match net.prefix_len() {
        32 => {
            return Err(refuse(
                net.into(),
                "the kernel takes a /32 for no netmask and guesses one",
            ));
        }
        0 => return Err(refuse(net.into(), "a /0 makes all addresses the interface's own subnet")),
        _ => {}
    }
    let gateway = match ip.gateway() {
        Some(IpAddr::V4(gateway)) => gateway,
        // A gateway of the other family is no VmIp.
        Some(IpAddr::V6(_)) | None => return Ok((net, None)),
    };
    let refuse = |reason| {
        let gateway = gateway.into();
        Err(RenderError::Gateway { format, interface: interface(), gateway, reason })
    };
    if !net.contains(&gateway) {
        return refuse("the kernel refuses a gateway outside of the address's subnet");
    }
    if net.prefix_len() == 31 {
        return refuse("the kernel sets no default route on a /31");
    }
    if gateway == net.network() || gateway == net.broadcast() {
        return refuse("it is the subnet's own or broadcast address");
    }
    Ok((net, Some(gateway)))
}

fn ipv4_nameservers(conf: &StaticNetworkConf) -> impl Iterator<Item = Ipv4Addr> {
    conf.vm_nameservers.iter().filter_map(|server| match server {
        IpAddr::V4(server) => Some(*server),
        IpAddr::V6(_) => None,
    })
}

/// What it does not carry.
fn warnings(format: Format, conf: &StaticNetworkConf) -> Vec<Warning> {
    let warn = |lost, reason| Warning::new(format, conf, lost, reason);
    let mut warnings = Vec::new();
    if let Some(mac) = conf.vm_mac {
        warnings.push(warn(Lost::Mac(mac), "the VMM sets it"));
    }
    if let Some(mtu) = conf.vm_mtu {
        warnings.push(warn(Lost::Mtu(mtu), "the VMM or the guest sets it"));
    }
    let gateway = conf.vm_ips.iter().find_map(|ip| ip.gateway());
    let (mut default, on_subnet) = (false, "only the default route by the gateway is");
    for route in &conf.vm_routes {
        let by_gateway = gateway.is_some() && (route.gw().is_none() || route.gw() == gateway);
        let ipv4 = route.dst().addr().is_ipv4();
        if !(route.is_main_default() && ipv4 && by_gateway && !default) {
            warnings.push(warn(Lost::Route(*route), on_subnet));
            continue;
        }
        default = true;
        let extras = route.attributes().given();
        // By the gateway, its scope is global and its table is main.
        let extras = extras.filter(|extra| extra.0 != "table" && *extra != ("scope", 0));
        for (attribute, value) in extras {
            let lost = Lost::RouteAttribute { dst: route.dst(), attribute, value };
            warnings.push(warn(lost, "ip= has no field for it"));
        }
    }
    let carried = ipv4_nameservers(conf).take(2).count();
    let mut ipv4 = 0;
    for server in &conf.vm_nameservers {
        if server.is_ipv6() {
            warnings.push(warn(Lost::NameServer(*server), "the kernel would misread IPv6"));
        } else {
            ipv4 += 1;
            if ipv4 > carried {
                warnings.push(warn(Lost::NameServer(*server), "ip= has fields for two"));
            }
        }
    }
    warnings.extend(lost::search_and_options(format, conf, "ip= has no field for it"));
    warnings
}

/// What is lost where the kernel is not told of the interface at all.
pub(crate) fn nothing_to_say(format: Format, conf: &StaticNetworkConf) -> Vec<Warning> {
    let reason = "it has no address; the guest's own software is to ask for one";
    let mut warnings = vec![Warning::new(format, conf, Lost::Dhcp, reason)];
    let servers = conf.vm_nameservers.iter().map(|server| Lost::NameServer(*server));
    let unsaid = "there is no ip= without an address";
    warnings.extend(servers.map(|lost| Warning::new(format, conf, lost, unsaid)));
    let rest = self::warnings(format, conf);
    warnings.extend(rest.into_iter().filter(|w| !matches!(w.lost, Lost::NameServer(_))));
    warnings
}
