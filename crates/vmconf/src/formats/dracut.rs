//! The kernel command line as an initial RAM disk reads it: [dracut.cmdline(7)], which
//! systemd-network-generator and NetworkManager's nm-initrd-generator read as well.
//!
//! `ip=` for each address (IPv6 in brackets), `ifname=` that gives the interface with the MAC its
//! name, `rd.route=`, `nameserver=` and `rd.neednet=1`. The kernel itself reads `ip=`, too, and
//! must not: it should be built without `CONFIG_IP_PNP`, or IPv6 is nonsense to it.
//!
//! [dracut.cmdline(7)]: https://man7.org/linux/man-pages/man7/dracut.cmdline.7.html

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::command_line::{Argument, KernelCommandLine, LengthLimit};
use crate::conf::{StaticNetworkConf, VmConf, VmIp, VmRoute};
use crate::render::{Format, Lost, RenderError, Rendered, Warning, lost};
use crate::routing::GuestRoute;

/// The arguments in one line, which a command line of 2048 bytes must have room for. To merge them into
/// one that is there, [add](KernelCommandLine::add) the [`arguments`].
///
/// # Errors
///
/// As [`arguments`], and for a line that is too long.
pub fn render(vm: &VmConf) -> Result<Rendered, RenderError> {
    let (arguments, warnings) = arguments(vm)?;
    let mut line = KernelCommandLine::default();
    line.add(arguments)?;
    line.check_length(LengthLimit::X86_64_OR_ARM64)?;
    Ok(Rendered { text: format!("{line}\n"), warnings })
}

/// The arguments, and what they do not carry.
///
/// # Errors
///
/// [`RenderError::Unnamed`] where there are several interfaces and one has no name: `ip=` and `rd.route=`
/// know interfaces by name only.
pub fn arguments(vm: &VmConf) -> Result<(Vec<Argument>, Vec<Warning>), RenderError> {
    let mut line = Line::default();
    let routes = vm.guest_routes();
    for (conf, routes) in vm.interfaces().iter().zip(routes) {
        if conf.vm_if_name.is_none() && vm.interfaces().len() > 1 {
            return Err(RenderError::Unnamed {
                format: Format::Dracut,
                interface: conf.label().to_owned(),
                reason: "it needs a name in the guest",
            });
        }
        line.interface(conf, routes)?;
    }
    line.push("rd.neednet", "1")?;
    Ok((line.arguments, line.warnings))
}

#[derive(Default)]
struct Line {
    arguments: Vec<Argument>,
    warnings: Vec<Warning>,
}

impl Line {
    fn push(&mut self, name: &str, value: &str) -> Result<(), RenderError> {
        self.arguments.push(Argument::new(name, value)?);
        Ok(())
    }

    fn warn(&mut self, conf: &StaticNetworkConf, lost: Lost, reason: &'static str) {
        self.warnings.push(Warning::new(Format::Dracut, conf, lost, reason));
    }

    fn interface(
        &mut self,
        conf: &StaticNetworkConf,
        mut routes: Vec<GuestRoute>,
    ) -> Result<(), RenderError> {
        match (&conf.vm_if_name, conf.vm_mac) {
            (Some(name), Some(mac)) => self.push("ifname", &format!("{name}:{mac}"))?,
            (None, Some(mac)) => {
                self.warn(conf, Lost::Mac(mac), "ifname= needs a name in the guest");
            }
            (_, None) => {}
        }
        self.addresses(conf, &mut routes)?;
        for route in &routes {
            self.route(conf, route)?;
        }
        for server in &conf.vm_nameservers {
            let argument = Argument::new("nameserver", &server.to_string())?;
            if !self.arguments.contains(&argument) {
                self.arguments.push(argument);
            }
        }
        let reason = "there is no argument for it";
        self.warnings.extend(lost::search_and_options(Format::Dracut, conf, reason));
        Ok(())
    }

    /// One `ip=` an address. The MTU goes with the first, and a gateway that is a plain default route
    /// with its address; its route is taken out of `routes`.
    fn addresses(
        &mut self,
        conf: &StaticNetworkConf,
        routes: &mut Vec<GuestRoute>,
    ) -> Result<(), RenderError> {
        let name = conf.vm_if_name.as_ref().map_or("", |name| name.as_str());
        let mut mtu = conf.vm_mtu.map_or(String::new(), |mtu| format!(":{mtu}"));
        if conf.vm_ips.is_empty() {
            if name.is_empty() {
                if let Some(mtu) = conf.vm_mtu {
                    self.warn(conf, Lost::Mtu(mtu), "it needs a name in the guest");
                }
                return self.push("ip", "dhcp");
            }
            return self.push("ip", &format!("{name}:dhcp{mtu}"));
        }
        if conf.vm_ips.len() > 1 {
            let lost = Lost::Reader {
                reader: "dracut's network-legacy",
                what: "more than one address of an interface",
            };
            self.warn(conf, lost, "its network-manager and systemd-networkd read them");
        }
        for ip in &conf.vm_ips {
            let gateway = take_gateway(ip, routes);
            let mut value = format!("{}::", bracketed(ip.address().addr()));
            if let Some(gateway) = gateway {
                value.push_str(&bracketed(gateway));
            }
            let _ = match ip.address() {
                IpNet::V4(net) => write!(value, ":{}", net.netmask()),
                IpNet::V6(net) => write!(value, ":{}", net.prefix_len()),
            };
            let _ = write!(value, "::{name}:off{mtu}");
            mtu.clear();
            self.push("ip", &value)?;
            if let Some(gateway) = gateway.filter(|gateway| is_off_link(conf, *gateway)) {
                self.push("rd.route", &link_route(conf, gateway))?;
            }
        }
        Ok(())
    }

    fn route(&mut self, conf: &StaticNetworkConf, route: &GuestRoute) -> Result<(), RenderError> {
        if !route.is_in_main() {
            // In the main table it would be for packets that it is not meant for.
            self.unsaid(conf, route, "rd.route= is of the main table alone");
            return Ok(());
        }
        if route.via.is_none() && conf.vm_if_name.is_none() {
            self.unsaid(conf, route, "it needs a next hop or a name in the guest");
            return Ok(());
        }
        let via = route.via.map_or(String::new(), bracketed);
        let name = conf.vm_if_name.as_ref().map_or(String::new(), |name| format!(":{name}"));
        let value = format!("{}:{via}{name}", bracketed_net(route.dst));
        if let Some(via) = route.via.filter(|_| route.on_link) {
            self.push("rd.route", &link_route(conf, via))?;
        }
        self.push("rd.route", &value)?;
        for (attribute, value) in route.extras() {
            let lost = Lost::RouteAttribute { dst: route.dst, attribute, value };
            self.warn(conf, lost, "rd.route= has no field for it");
        }
        Ok(())
    }

    /// A route of the result that is left out.
    fn unsaid(&mut self, conf: &StaticNetworkConf, route: &GuestRoute, reason: &'static str) {
        let same = |said: &&VmRoute| {
            let table = said.attributes().table == route.attributes.table;
            table && said.dst() == route.dst && (said.gw().is_none() || said.gw() == route.via)
        };
        if let Some(said) = conf.vm_routes.iter().find(same) {
            self.warn(conf, Lost::Route(*said), reason);
        }
    }
}

/// The gateway, where its route is a plain default one that is not yet said.
fn take_gateway(ip: &VmIp, routes: &mut Vec<GuestRoute>) -> Option<IpAddr> {
    let gateway = ip.gateway()?;
    let plain = |route: &GuestRoute| {
        route.is_default() && route.via == Some(gateway) && route.extras().next().is_none()
    };
    let position = routes.iter().position(plain)?;
    routes.remove(position);
    Some(gateway)
}

fn is_off_link(conf: &StaticNetworkConf, gateway: IpAddr) -> bool {
    conf.guest_routes().iter().any(|route| route.via == Some(gateway) && route.on_link)
}

/// The route to a gateway that is in no subnet.
fn link_route(conf: &StaticNetworkConf, gateway: IpAddr) -> String {
    let name = conf.vm_if_name.as_ref().map_or("", |name| name.as_str());
    format!("{}::{name}", bracketed_net(IpNet::from(gateway)))
}

fn bracketed(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn bracketed_net(net: IpNet) -> String {
    match net {
        IpNet::V4(net) => net.to_string(),
        IpNet::V6(net) => format!("[{net}]"),
    }
}
