//! Which routes the guest gets: those of the result, and those that gateways imply.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::conf::{RouteAttributes, StaticNetworkConf, VmConf, is_link_local};

/// The scope of a route with a next hop.
const SCOPE_GLOBAL: u32 = 0;
/// The scope of a route without one.
const SCOPE_LINK: u32 = 253;
/// The metric of the second default route of a VM; each further one has one more. It is above what
/// guests give by themselves (0 for IPv4, 1024 for IPv6), so that the first stays preferred.
const FURTHER_DEFAULT: u32 = 1025;

/// A route as the guest sets it up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestRoute {
    /// The destination, host bits clear.
    pub dst: IpNet,
    /// The next hop; `None` where everything is on the link.
    pub via: Option<IpAddr>,
    /// The next hop is in none of the interface's subnets, so that the kernel must be told that it
    /// is on the link.
    pub on_link: bool,
    /// What else it has.
    pub attributes: RouteAttributes,
}

impl GuestRoute {
    /// It leads everywhere.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.dst.prefix_len() == 0
    }

    /// It is in the main table, where a route without a table goes.
    #[must_use]
    pub fn is_in_main(&self) -> bool {
        is_main(self.attributes.table)
    }

    /// What a route of only a destination and a next hop would not have.
    pub(crate) fn extras(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let implied_scope = if self.via.is_some() { SCOPE_GLOBAL } else { SCOPE_LINK };
        self.attributes.given().filter(move |given| match *given {
            ("table", table) => !is_main(Some(table)),
            ("scope", scope) => scope != implied_scope,
            _ => true,
        })
    }
}

/// Table 0 is the kernel's word for one that is not said.
pub(crate) fn is_main(table: Option<u32>) -> bool {
    matches!(table, None | Some(0 | 254))
}

impl StaticNetworkConf {
    /// The routes of a guest with this interface alone; see [`VmConf::guest_routes`].
    #[must_use]
    pub fn guest_routes(&self) -> Vec<GuestRoute> {
        routes(self, &mut Defaults::default())
    }
}

impl VmConf {
    /// The routes of each interface, in the order of [`VmConf::interfaces`].
    ///
    /// - A route without next hop goes by the gateway of the interface's first address of its family
    ///   that has one, as the CNI plugins read it; one of scope link or host has none.
    /// - The gateway of an address is a default route, unless the result itself says where
    ///   everything of that family goes.
    /// - Where that makes several default routes of a family, the first is preferred: the further
    ///   ones get metrics from 1025.
    #[must_use]
    pub fn guest_routes(&self) -> Vec<Vec<GuestRoute>> {
        let mut defaults = Defaults::default();
        self.interfaces().iter().map(|conf| routes(conf, &mut defaults)).collect()
    }
}

/// How many default routes there are by now.
#[derive(Default)]
struct Defaults {
    ipv4: u32,
    ipv6: u32,
}

impl Defaults {
    /// The metric of one more that does not say its own.
    fn metric(&mut self, dst: IpNet) -> Option<u32> {
        let count = if dst.addr().is_ipv4() { &mut self.ipv4 } else { &mut self.ipv6 };
        let before = *count;
        *count = before.saturating_add(1);
        (before > 0).then(|| FURTHER_DEFAULT.saturating_add(before - 1))
    }
}

fn routes(conf: &StaticNetworkConf, defaults: &mut Defaults) -> Vec<GuestRoute> {
    let mut routes: Vec<GuestRoute> = Vec::with_capacity(conf.vm_routes.len() + 2);
    for route in &conf.vm_routes {
        let attributes = route.attributes();
        let linked = attributes.scope.is_some_and(|scope| scope >= SCOPE_LINK);
        let via = route.gw().or_else(|| if linked { None } else { gateway(conf, route.dst()) });
        push(&mut routes, conf, route.dst(), via, attributes);
    }
    let said = |routes: &[GuestRoute], dst: IpNet| {
        // A default route of another table does not say where main's packets go.
        routes.iter().any(|route| route.dst == dst && route.is_in_main())
    };
    let (ipv4, ipv6) = (IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default()));
    let said_by_result = [(ipv4, said(&routes, ipv4)), (ipv6, said(&routes, ipv6))];
    for (dst, said) in said_by_result {
        if said {
            continue;
        }
        let same_family = |gateway: &IpAddr| gateway.is_ipv4() == dst.addr().is_ipv4();
        for via in conf.vm_ips.iter().filter_map(|ip| ip.gateway()).filter(same_family) {
            push(&mut routes, conf, dst, Some(via), RouteAttributes::default());
        }
    }
    for route in routes.iter_mut().filter(|route| route.is_default() && route.is_in_main()) {
        let metric = defaults.metric(route.dst);
        route.attributes.priority = route.attributes.priority.or(metric);
    }
    routes
}

/// Adds a route, unless it is there.
fn push(
    routes: &mut Vec<GuestRoute>,
    conf: &StaticNetworkConf,
    dst: IpNet,
    via: Option<IpAddr>,
    attributes: RouteAttributes,
) {
    let on_link = via.is_some_and(|via| !reachable(conf, via));
    let route = GuestRoute { dst, via, on_link, attributes };
    if !routes.contains(&route) {
        routes.push(route);
    }
}

/// The gateway that a route without next hop goes by.
fn gateway(conf: &StaticNetworkConf, dst: IpNet) -> Option<IpAddr> {
    let gateways = conf.vm_ips.iter().filter_map(|ip| ip.gateway());
    gateways.into_iter().find(|gateway| gateway.is_ipv4() == dst.addr().is_ipv4())
}

/// One of the interface's own subnets holds it.
fn reachable(conf: &StaticNetworkConf, via: IpAddr) -> bool {
    let linked = matches!(via, IpAddr::V6(v6) if is_link_local(v6));
    linked || conf.vm_ips.iter().any(|ip| ip.address().contains(&via))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::conf::{VmIp, VmRoute};

    fn conf(tap: &str, ips: &[(&str, &str)], routes: &[(&str, &str)]) -> StaticNetworkConf {
        let mut conf =
            StaticNetworkConf::new(tap.parse().unwrap(), "/run/netns/x".parse().unwrap());
        for (address, gateway) in ips {
            let ip = VmIp::new(address.parse().unwrap(), gateway.parse().ok()).unwrap();
            conf.vm_ips.push(ip);
        }
        for (dst, gw) in routes {
            let attributes = RouteAttributes::default();
            let route = VmRoute::new(dst.parse().unwrap(), gw.parse().ok(), attributes).unwrap();
            conf.vm_routes.push(route);
        }
        conf
    }

    fn text(routes: &[GuestRoute]) -> Vec<String> {
        let say = |r: &GuestRoute| {
            let via = r.via.map_or(String::new(), |via| format!(" via {via}"));
            let on_link = if r.on_link { " onlink" } else { "" };
            let metric = r.attributes.priority.map_or(String::new(), |m| format!(" metric {m}"));
            format!("{}{via}{on_link}{metric}", r.dst)
        };
        routes.iter().map(say).collect()
    }

    #[test]
    fn a_gateway_is_a_default_route() {
        let conf = conf("t", &[("10.0.0.2/24", "10.0.0.1"), ("2001:db8::2/64", "fe80::1")], &[]);
        let expected = ["0.0.0.0/0 via 10.0.0.1", "::/0 via fe80::1"];
        assert_eq!(text(&conf.guest_routes()), expected);
    }

    #[test]
    fn a_default_route_of_the_result_is_the_only_one_of_its_family() {
        let ips = [("10.0.0.2/24", "10.0.0.1"), ("2001:db8::2/64", "2001:db8::1")];
        let with = conf("t", &ips, &[("0.0.0.0/0", "10.0.0.254")]);
        let expected = ["0.0.0.0/0 via 10.0.0.254", "::/0 via 2001:db8::1"];
        assert_eq!(text(&with.guest_routes()), expected);
        let without_hop = conf("t", &ips, &[("0.0.0.0/0", ""), ("10.9.0.0/16", "")]);
        let expected =
            ["0.0.0.0/0 via 10.0.0.1", "10.9.0.0/16 via 10.0.0.1", "::/0 via 2001:db8::1"];
        assert_eq!(text(&without_hop.guest_routes()), expected);
    }

    #[test]
    fn a_gateway_outside_of_every_subnet_is_on_the_link() {
        let conf = conf("t", &[("10.0.0.2/32", "192.0.2.1")], &[]);
        assert_eq!(text(&conf.guest_routes()), ["0.0.0.0/0 via 192.0.2.1 onlink"]);
    }

    #[test]
    fn a_route_of_scope_link_has_no_next_hop() {
        let mut conf = conf("t", &[("10.0.0.2/24", "10.0.0.1")], &[]);
        let scope = RouteAttributes { scope: Some(253), ..RouteAttributes::default() };
        conf.vm_routes.push(VmRoute::new("10.9.0.0/16".parse().unwrap(), None, scope).unwrap());
        assert_eq!(text(&conf.guest_routes()), ["10.9.0.0/16", "0.0.0.0/0 via 10.0.0.1"]);
    }

    #[test]
    fn the_first_of_several_default_routes_is_preferred() {
        let first = conf("t0", &[("10.0.0.2/24", "10.0.0.1"), ("10.1.0.2/24", "10.1.0.1")], &[]);
        let second = conf("t1", &[("10.2.0.2/24", "10.2.0.1")], &[]);
        let vm = VmConf::new(vec![first, second]).unwrap();
        let [first, second] = vm.guest_routes().try_into().unwrap();
        let expected = ["0.0.0.0/0 via 10.0.0.1", "0.0.0.0/0 via 10.1.0.1 metric 1025"];
        assert_eq!(text(&first), expected);
        assert_eq!(text(&second), ["0.0.0.0/0 via 10.2.0.1 metric 1026"]);
    }
}
