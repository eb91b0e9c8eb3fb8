//! cloud-init's [network-config, version 2][v2], which is netplan's: the file `network-config` of a
//! NoCloud seed.
//!
//! Interfaces are found by their MAC. cloud-init hands the document to netplan where that is
//! installed, and reads it itself for its other back-ends, which know less of routes: destination
//! and next hop alone. What only netplan reads is written and told of in a warning. An IPv6 default
//! route is `gateway6`, because cloud-init's own reader takes `::/0` for `::/64`. A gateway outside of the
//! subnets is netplan's `on-link`, with a route to it before. Of each family there is one default route:
//! without their metrics, several would be taken for each other.
//!
//! [v2]: https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html

use std::fmt::{Display, Write};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::conf::{StaticNetworkConf, VmConf, VmRoute};
use crate::render::{Format, Lost, RenderError, Rendered, Warning, lost};
use crate::routing::{GuestRoute, is_main};

/// The document, and what it does not carry.
///
/// # Errors
///
/// [`RenderError::Unnamed`] for an interface with neither a MAC nor a name.
pub fn render(vm: &VmConf) -> Result<Rendered, RenderError> {
    let mut text = String::from("network:\n  version: 2\n  ethernets:\n");
    let mut warnings = Vec::new();
    let all = vm.guest_routes();
    for ((position, conf), routes) in vm.interfaces().iter().enumerate().zip(&all) {
        let (further, routes): (Vec<GuestRoute>, Vec<GuestRoute>) =
            routes.iter().partition(|route| is_further_default(position, route, &all));
        write_interface(&mut text, position, conf, &routes)?;
        let reason = "cloud-init's back-ends other than netplan would not tell it from the first";
        let further = further.iter().filter_map(|r| VmRoute::new(r.dst, r.via, r.attributes).ok());
        warnings.extend(
            further.map(|route| Warning::new(Format::CloudInit, conf, Lost::Route(route), reason)),
        );
        let reason = "cloud-init knows search domains only";
        warnings.extend(lost::domain(Format::CloudInit, conf, reason));
        let reason = "cloud-init has no setting for it";
        warnings.extend(lost::resolver_options(Format::CloudInit, conf, reason));
        for route in routes.iter().filter(|route| !is_gateway6(route)) {
            warnings.extend(lost_attributes(conf, route));
            warnings.extend(lost_to_a_back_end(conf, route));
        }
    }
    Ok(Rendered { text, warnings })
}

fn write_interface(
    text: &mut String,
    position: usize,
    conf: &StaticNetworkConf,
    routes: &[GuestRoute],
) -> Result<(), RenderError> {
    let id = match &conf.vm_if_name {
        Some(name) => name.to_string(),
        None if conf.vm_mac.is_some() => format!("vm{position}"),
        None => {
            return Err(RenderError::Unnamed {
                format: Format::CloudInit,
                interface: conf.label().to_owned(),
                reason: "it needs a MAC address or a name in the guest",
            });
        }
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "    {}:", quoted(id));
    if let Some(mac) = conf.vm_mac {
        let _ = writeln!(text, "      match:\n        macaddress: {}", quoted(mac));
        if let Some(name) = &conf.vm_if_name {
            let _ = writeln!(text, "      set-name: {}", quoted(name));
        }
    }
    if let Some(mtu) = conf.vm_mtu {
        let _ = writeln!(text, "      mtu: {mtu}");
    }
    let dhcp = conf.vm_ips.is_empty();
    let _ = writeln!(text, "      dhcp4: {dhcp}\n      dhcp6: {dhcp}\n      accept-ra: {dhcp}");
    write_list(text, "      ", "addresses", conf.vm_ips.iter().map(|ip| ip.address()));
    let (gateways, routes): (Vec<&GuestRoute>, Vec<&GuestRoute>) =
        routes.iter().partition(|r| is_gateway6(r));
    for gateway in gateways.iter().filter_map(|route| route.via) {
        let _ = writeln!(text, "      gateway6: {}", quoted(gateway));
    }
    if !routes.is_empty() {
        text.push_str("      routes:\n");
    }
    for route in routes {
        write_route(text, route);
    }
    let search = conf.effective_search();
    if !conf.vm_nameservers.is_empty() || !search.is_empty() {
        text.push_str("      nameservers:\n");
        write_list(text, "        ", "addresses", conf.vm_nameservers.iter());
        write_list(text, "        ", "search", search.iter());
    }
    Ok(())
}

/// A list of strings, unless it is empty.
fn write_list<T: Display>(
    text: &mut String,
    indent: &str,
    key: &str,
    values: impl Iterator<Item = T>,
) {
    let values = values.map(quoted).collect::<Vec<_>>();
    if !values.is_empty() {
        let _ = writeln!(text, "{indent}{key}: [{}]", values.join(", "));
    }
}

fn write_route(text: &mut String, route: &GuestRoute) {
    let attributes = route.attributes;
    if let Some(via) = route.via.filter(|_| route.on_link) {
        let host = IpNet::from(via);
        let _ = writeln!(text, "        - to: {}\n          scope: link", quoted(host));
        write_number(text, "table", attributes.table.filter(|table| *table != 0));
    }
    let _ = writeln!(text, "        - to: {}", quoted(route.dst));
    match route.via {
        Some(via) => {
            let _ = writeln!(text, "          via: {}", quoted(via));
        }
        // Without a next hop netplan wants to be told that none is missing.
        None if attributes.scope.is_none() => text.push_str("          scope: link\n"),
        None => {}
    }
    if route.on_link {
        text.push_str("          on-link: true\n");
    }
    write_number(text, "metric", attributes.priority);
    write_number(text, "mtu", attributes.mtu);
    write_number(text, "table", attributes.table.filter(|table| *table != 0));
    if let Some(scope) = attributes.scope.and_then(scope) {
        let _ = writeln!(text, "          scope: {scope}");
    }
}

fn write_number(text: &mut String, key: &str, value: Option<u32>) {
    if let Some(value) = value {
        let _ = writeln!(text, "          {key}: {value}");
    }
}

/// netplan's words; it has no others.
fn scope(number: u32) -> Option<&'static str> {
    match number {
        0 => Some("global"),
        253 => Some("link"),
        254 => Some("host"),
        _ => None,
    }
}

/// There is a default route of the family that the guest prefers to this one. Of the two, only
/// netplan reads the metrics; the others' guests would send by whichever is set first.
fn is_further_default(position: usize, route: &GuestRoute, all: &[Vec<GuestRoute>]) -> bool {
    let counts = |r: &GuestRoute| r.is_default() && is_main(r.attributes.table);
    let rank = |position: usize, r: &GuestRoute| (r.attributes.priority.unwrap_or(0), position);
    let preferred = |(its_position, other): (usize, &GuestRoute)| {
        counts(other) && other.dst == route.dst && rank(its_position, other) < rank(position, route)
    };
    let others =
        all.iter().enumerate().flat_map(|(at, routes)| routes.iter().map(move |r| (at, r)));
    counts(route) && others.into_iter().any(preferred)
}

/// A plain default route of IPv6. The metrics of further ones keep this the only one.
fn is_gateway6(route: &GuestRoute) -> bool {
    let plain = route.is_default() && !route.on_link && route.extras().next().is_none();
    plain && matches!(route.via, Some(IpAddr::V6(_)))
}

/// What some of cloud-init's back-ends stumble over, as of version 22.4.
fn lost_to_a_back_end(conf: &StaticNetworkConf, route: &GuestRoute) -> Option<Warning> {
    let (reader, what) = if route.is_default() && route.dst.addr().is_ipv6() {
        ("cloud-init's back-ends other than netplan", "an IPv6 default route that is not plain")
    } else if route.on_link || route.via.is_none() {
        ("cloud-init's back-ends eni and sysconfig", "a route without a next hop in a subnet")
    } else {
        return None;
    };
    let lost = Lost::Reader { reader, what };
    Some(Warning::new(Format::CloudInit, conf, lost, "netplan reads it"))
}

/// What of a route is lost, or depends on who reads the document.
fn lost_attributes(conf: &StaticNetworkConf, route: &GuestRoute) -> impl Iterator<Item = Warning> {
    route.extras().map(move |(attribute, value)| {
        let reason = match attribute {
            "advmss" => "there is no setting for it",
            "scope" if scope(value).is_none() => "netplan has no word for it",
            _ => "of cloud-init's back-ends, only netplan reads it",
        };
        let lost = Lost::RouteAttribute { dst: route.dst, attribute, value };
        Warning::new(Format::CloudInit, conf, lost, reason)
    })
}

/// A double-quoted string of YAML. Nothing that gets here has a quote, a backslash or a control
/// character in it, and numbers and words in quotes are no others than themselves.
fn quoted(value: impl Display) -> String {
    format!("\"{value}\"")
}
