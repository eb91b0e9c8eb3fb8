//! What a reader understood, in one shape for all of them.

use std::collections::BTreeSet;

use jackfield_vmconf::{StaticNetworkConf, VmConf};

/// One interface as a reader understood it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) addresses: BTreeSet<String>,
    /// Destination and next hop.
    pub(super) routes: BTreeSet<(String, String)>,
    pub(super) name_servers: Vec<String>,
    pub(super) search: Vec<String>,
    pub(super) mtu: Option<u32>,
}

impl Seen {
    /// What it should have understood of a VM's only interface.
    pub(super) fn expected(conf: &StaticNetworkConf) -> Self {
        Self::all_expected(&conf.clone().into()).remove(0)
    }

    /// What it should have understood of each interface.
    pub(super) fn all_expected(vm: &VmConf) -> Vec<Self> {
        let hop = |via: Option<std::net::IpAddr>| via.map_or(String::new(), |via| via.to_string());
        let one = |(conf, routes): (&StaticNetworkConf, Vec<jackfield_vmconf::GuestRoute>)| Self {
            addresses: conf.vm_ips.iter().map(|ip| ip.address().to_string()).collect(),
            routes: routes.iter().map(|r| (r.dst.to_string(), hop(r.via))).collect(),
            name_servers: conf.vm_nameservers.iter().map(ToString::to_string).collect(),
            search: conf.vm_search_domains.iter().map(ToString::to_string).collect(),
            mtu: conf.vm_mtu.map(|mtu| mtu.bytes()),
        };
        vm.interfaces().iter().zip(vm.guest_routes()).map(one).collect()
    }

    /// From a `.network` file.
    pub(super) fn in_unit(text: &str) -> Self {
        let mut seen = Self::default();
        let (mut section, mut route) = ("", None);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines.chain(["[End]"]) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                seen.take_route(route.take());
                section = line;
                route = (section == "[Route]").then(<(String, String)>::default);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap();
            match (section, key, &mut route) {
                ("[Address]" | "[Network]", "Address", _) => {
                    seen.addresses.insert(value.to_owned());
                }
                ("[Network]", "DNS", _) => {
                    seen.name_servers.extend(value.split_whitespace().map(ToOwned::to_owned));
                }
                ("[Network]", "Domains", _) => {
                    seen.search.extend(value.split_whitespace().map(ToOwned::to_owned));
                }
                ("[Network]", "Gateway", _) => {
                    seen.take_route(Some((String::new(), value.to_owned())));
                }
                ("[Link]", "MTUBytes", _) => seen.mtu = Some(value.parse().unwrap()),
                (_, "Destination", Some((destination, _))) => value.clone_into(destination),
                (_, "Gateway", Some((_, via))) => value.clone_into(via),
                _ => {}
            }
        }
        seen
    }

    /// From a key file of NetworkManager.
    pub(super) fn in_key_file(text: &str) -> Self {
        let mut seen = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let (first, second) = value.split_once(',').unwrap_or((value, ""));
            match key.trim_end_matches(|c: char| c.is_ascii_digit()) {
                "address" => {
                    seen.addresses.insert(first.to_owned());
                    if !second.is_empty() {
                        seen.take_route(Some((String::new(), second.to_owned())));
                    }
                }
                "route" => seen.take_route(Some((first.to_owned(), second.to_owned()))),
                "dns" => {
                    let servers = value.split(';').filter(|server| !server.is_empty());
                    seen.name_servers.extend(servers.map(ToOwned::to_owned));
                }
                "mtu" => seen.mtu = Some(value.parse().unwrap()),
                _ => {}
            }
        }
        seen
    }

    /// Without a destination it is the default route of the next hop's family.
    fn take_route(&mut self, route: Option<(String, String)>) {
        let Some((mut destination, via)) = route else { return };
        if destination.is_empty() {
            (if via.contains(':') { "::/0" } else { "0.0.0.0/0" }).clone_into(&mut destination);
        }
        self.routes.insert((destination, via));
    }

    /// The search domains are not of the format.
    pub(super) fn without_search(mut self) -> Self {
        self.search.clear();
        self
    }

    /// With a route to each gateway that is in no subnet, which the format needs.
    pub(super) fn with_route_to(mut self, gateway: &str) -> Self {
        self.routes.insert((gateway.to_owned(), String::new()));
        self
    }
}
