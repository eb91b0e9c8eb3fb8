//! A model of the kernel: what each change does to a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_hostnet::config::AgentConfig;
use jackfield_hostnet::{
    ACCEPT_DEFAULT, ACCEPT_PREFIX, Change, Cloud, DISABLE_IPV6, Edit, Forwarding, MAIN, OURS, Plan,
    REVERSE_PATH_FILTER, Snapshot, marker, marker_table,
};
use jackfield_kernel::sysctl::Setting;
use jackfield_kernel::{Address, Family, Link, Mark, MarksTable, Route, Rule, RuleAction};

use super::lookup::same;

pub(crate) const EEXIST: i32 = 17;
pub(crate) const ENODEV: i32 = 19;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const ENETDOWN: i32 = 100;
pub(crate) const ESRCH: i32 = 3;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EADDRNOTAVAIL: i32 = 99;

/// Protocol of what the kernel adds by itself.
pub(crate) const KERNEL: u8 = 2;

/// A machine, with everything that is on it. An address remembers who added it, also where the
/// kernel is one that does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Kernel {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) settings: BTreeMap<(u32, Setting), i32>,
    pub(crate) device_kinds: Vec<String>,
    pub(crate) keeps_address_protocol: bool,
    pub(crate) forwarding: Forwarding,
}

pub(crate) fn link(index: u32, name: &str, kind: Option<&str>, address: Option<[u8; 6]>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        alternative_names: Vec::new(),
        kind: kind.map(str::to_owned),
        ethernet: true,
        address,
        up: false,
        carrier: true,
        mtu: 1500,
        min_mtu: 68,
        max_mtu: 65_535,
        group: 0,
        alias: None,
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    }
}

impl Kernel {
    /// The rules that every namespace starts with.
    pub(crate) fn new() -> Self {
        let rule = |family, priority, table| Rule {
            protocol: KERNEL,
            ..Rule::new(family, priority, RuleAction::Table(table))
        };
        let rules = vec![
            rule(Family::V4, 0, 255),
            rule(Family::V4, 32_766, 254),
            rule(Family::V4, 32_767, 253),
            rule(Family::V6, 0, 255),
            rule(Family::V6, 32_766, 254),
        ];
        let mut loopback = link(1, "lo", None, Some([0; 6]));
        (loopback.ethernet, loopback.mtu, loopback.up) = (false, 65_536, true);
        Kernel {
            links: vec![loopback],
            rules,
            device_kinds: vec!["veth".to_owned()],
            keeps_address_protocol: true,
            ..Kernel::default()
        }
    }

    /// What a look at the machine shows.
    pub(crate) fn view(&self, agent: &AgentConfig, cloud: &Cloud) -> Snapshot {
        let mut snapshot = Snapshot {
            links: self.links.clone(),
            addresses: self.addresses.clone(),
            rules: self.rules.clone(),
            device_kinds: self.device_kinds.clone(),
            keeps_address_protocol: self.keeps_address_protocol,
            forwarding: self.forwarding.clone(),
            ..Snapshot::default()
        };
        let candidates: BTreeSet<u32> =
            snapshot.candidates().map(|candidate| candidate.link.index).collect();
        let slots = cloud.interfaces.values().filter_map(|interface| interface.slot);
        let mut tables: BTreeSet<u32> = slots.map(|slot| slot.table(agent.table_base)).collect();
        tables.extend(snapshot.journals().map(|(_, journal)| journal.table));
        snapshot.routes = self
            .routes
            .iter()
            .filter(|route| {
                route.protocol == OURS
                    || tables.contains(&route.table)
                    || (route.table == MAIN && candidates.iter().any(|index| route.uses(*index)))
            })
            .cloned()
            .collect();
        snapshot.routes.sort();
        snapshot.routes.dedup();
        snapshot.settings = self.settings.clone();
        let mut configurable = candidates;
        configurable.extend(snapshot.journals().map(|(link, _)| link.index));
        snapshot.settings.retain(|(index, _), _| configurable.contains(index));
        if !self.keeps_address_protocol {
            let table = marker_table(agent);
            for address in &mut snapshot.addresses {
                let alone = address.address.prefix_len() == address.address.max_prefix_len();
                let ours = alone && snapshot.routes.contains(&marker(table, address));
                address.protocol = if ours { OURS } else { 0 };
            }
        }
        snapshot
    }

    /// Makes changes in order, as [`jackfield_hostnet::apply()`] does: what is refused does not keep
    /// the next from being tried. Returns what was refused.
    pub(crate) fn make(&mut self, plan: &Plan) -> Vec<(Change, i32)> {
        let mut refused = Vec::new();
        for change in &plan.changes {
            if let Err(errno) = self.change(change) {
                let done = match change.action() {
                    "add" => errno == EEXIST,
                    "remove" => [ESRCH, ENOENT, ENODEV, EADDRNOTAVAIL].contains(&errno),
                    _ => false,
                };
                if !done {
                    refused.push((change.clone(), errno));
                }
            }
        }
        refused
    }

    pub(crate) fn link_mut(&mut self, index: u32) -> Result<&mut Link, i32> {
        self.links.iter_mut().find(|link| link.index == index).ok_or(ENODEV)
    }

    pub(crate) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    pub(crate) fn change(&mut self, change: &Change) -> Result<(), i32> {
        let index = change.interface.as_ref().map_or(0, |interface| interface.index);
        match &change.edit {
            Edit::Up { to: true, .. } => self.up(index),
            Edit::Up { to: false, .. } => self.down(index),
            Edit::Mtu { to, .. } => {
                let link = self.link_mut(index)?;
                if *to < link.min_mtu || (link.max_mtu != 0 && *to > link.max_mtu) {
                    return Err(EINVAL);
                }
                link.mtu = *to;
                Ok(())
            }
            Edit::Group { to, .. } => {
                self.link_mut(index)?.group = *to;
                Ok(())
            }
            Edit::Alias { to, .. } => {
                let alias = to.clone().filter(|alias| !alias.is_empty());
                if alias.as_ref().is_some_and(|alias| alias.len() > 255) {
                    return Err(EINVAL);
                }
                self.link_mut(index)?.alias = alias;
                Ok(())
            }
            Edit::Setting { setting, to, .. } => {
                let value = self.settings.get_mut(&(index, *setting)).ok_or(ENODEV)?;
                *value = *to;
                Ok(())
            }
            Edit::AddName(name) => {
                let taken =
                    |link: &Link| link.name == *name || link.alternative_names.contains(name);
                if self.links.iter().any(taken) {
                    return Err(EEXIST);
                }
                self.link_mut(index)?.alternative_names.push(name.clone());
                Ok(())
            }
            Edit::RemoveName(name) => {
                let names = &mut self.link_mut(index)?.alternative_names;
                let at = names.iter().position(|is| is == name).ok_or(ENOENT)?;
                names.remove(at);
                Ok(())
            }
            Edit::AddAddress(address) => self.add_address(address),
            Edit::RemoveAddress(address) => self.remove_address(address),
            Edit::AddRoute(route) => self.add_route(route),
            Edit::RemoveRoute(route) => {
                let at = self.routes.iter().position(|is| is == route).ok_or(ESRCH)?;
                self.routes.remove(at);
                Ok(())
            }
            Edit::AddRule(rule) => self.add_rule(rule),
            Edit::RemoveRule(rule) => {
                let at = self.rules.iter().position(|is| same(is, rule)).ok_or(ENOENT)?;
                self.rules.remove(at);
                Ok(())
            }
            Edit::Marks { to, .. } => {
                self.forwarding.marks =
                    Some(to.clone().map_or(MarksTable::Absent, MarksTable::Present));
                Ok(())
            }
            // The kernel is told nothing by it.
            Edit::Carry(_) => Ok(()),
        }
    }

    /// The interfaces whose connections are marked, each with its mark.
    pub(crate) fn marks(&self) -> BTreeMap<u32, u32> {
        match &self.forwarding.marks {
            Some(MarksTable::Present(marks)) => marks.marks.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Forgets the marks of some interfaces.
    pub(crate) fn retain_marks(&mut self, which: impl Fn(u32) -> bool) {
        if let Some(MarksTable::Present(marks)) = &mut self.forwarding.marks {
            marks.marks.retain(|interface, _| which(*interface));
        }
    }

    pub(crate) fn add_rule(&mut self, rule: &Rule) -> Result<(), i32> {
        if self.rules.iter().any(|is| same(is, rule)) {
            return Err(EEXIST);
        }
        // Behind those of the same priority.
        self.rules.push(rule.clone());
        self.rules.sort_by_key(|rule| rule.priority);
        Ok(())
    }

    pub(crate) fn up(&mut self, index: u32) -> Result<(), i32> {
        let link = self.link_mut(index)?;
        if !std::mem::replace(&mut link.up, true) {
            let addresses: Vec<Address> =
                self.addresses.iter().filter(|is| is.interface == index).cloned().collect();
            for address in addresses {
                self.add_prefix_route(&address);
            }
        }
        Ok(())
    }

    /// Routes go, and IPv6 addresses.
    pub(crate) fn down(&mut self, index: u32) -> Result<(), i32> {
        let link = self.link_mut(index)?;
        if std::mem::replace(&mut link.up, false) {
            self.flush_routes(index, None);
            self.addresses.retain(|is| is.interface != index || is.address.addr().is_ipv4());
        }
        Ok(())
    }

    /// The device is deleted.
    pub(crate) fn delete(&mut self, index: u32) {
        self.flush_routes(index, None);
        self.addresses.retain(|is| is.interface != index);
        self.settings.retain(|(of, _), _| *of != index);
        self.links.retain(|link| link.index != index);
    }

    /// A multipath route stays as long as one of its next hops lives.
    fn flush_routes(&mut self, index: u32, family: Option<Family>) {
        let links = &self.links;
        let lives = |hop: u32| hop != index && links.iter().any(|l| l.index == hop && l.up);
        self.routes.retain(|route| {
            !route.uses(index)
                || family.is_some_and(|family| family != route.family())
                || route.next_hops.iter().any(|hop| lives(hop.interface))
        });
    }

    fn is_local(&self, ip: IpAddr, on: Option<u32>) -> bool {
        self.addresses
            .iter()
            .any(|is| is.address.addr() == ip && on.is_none_or(|on| on == is.interface))
    }

    fn add_prefix_route(&mut self, address: &Address) {
        let net = address.address.trunc();
        // IPv6 has one also where the address is alone in its prefix.
        if address.flags.no_prefix_route || matches!(net, IpNet::V4(net) if net.prefix_len() == 32)
        {
            return;
        }
        let route = match net {
            IpNet::V4(_) => Route {
                protocol: KERNEL,
                preferred_source: Some(address.address.addr()),
                ..Route::via_interface(net, MAIN, address.interface)
            },
            IpNet::V6(_) => Route {
                protocol: KERNEL,
                metric: 256,
                ..Route::via_interface(net, MAIN, address.interface)
            },
        };
        // Beside one of another interface, however alike; one for all the addresses of its own.
        let same = |is: &Route| {
            is.protocol == KERNEL && is.destination == net && is.uses(address.interface)
        };
        if !self.routes.iter().any(same) {
            self.routes.push(route);
        }
    }

    pub(crate) fn add_address(&mut self, address: &Address) -> Result<(), i32> {
        let up = self.link(address.interface).ok_or(ENODEV)?.up;
        let ip = address.address.addr();
        if ip.is_ipv6()
            && self.settings.get(&(address.interface, DISABLE_IPV6)).is_some_and(|off| *off != 0)
        {
            return Err(EACCES);
        }
        // IPv4 tells addresses apart by their prefix length too.
        let same = |is: &Address| {
            is.interface == address.interface
                && is.address.addr() == ip
                && (ip.is_ipv6() || is.address.prefix_len() == address.address.prefix_len())
        };
        if self.addresses.iter().any(same) {
            return Err(EEXIST);
        }
        self.addresses.push(address.clone());
        if up {
            self.add_prefix_route(address);
        }
        Ok(())
    }

    /// Takes along routes by whose preferred source it was, and with the last IPv4 address of a
    /// device its IPv4 routes.
    pub(crate) fn remove_address(&mut self, address: &Address) -> Result<(), i32> {
        let index = address.interface;
        let at = self
            .addresses
            .iter()
            .position(|is| is.interface == index && is.address == address.address)
            .ok_or(EADDRNOTAVAIL)?;
        self.addresses.remove(at);
        let ip = address.address.addr();
        if !self.is_local(ip, None) {
            if ip.is_ipv4() {
                self.routes.retain(|route| route.preferred_source != Some(ip));
            } else {
                for route in self.routes.iter_mut().filter(|route| route.uses(index)) {
                    route.preferred_source = route.preferred_source.filter(|source| *source != ip);
                }
            }
        }
        let left = |is: &Address| is.interface == index && is.address.addr().is_ipv4();
        if ip.is_ipv4() && !self.addresses.iter().any(left) {
            self.flush_routes(index, Some(Family::V4));
        }
        Ok(())
    }

    pub(crate) fn add_route(&mut self, route: &Route) -> Result<(), i32> {
        for hop in &route.next_hops {
            if !self.link(hop.interface).ok_or(ENODEV)?.up {
                return Err(ENETDOWN);
            }
            // A gateway that is this machine is none.
            if let Some(gateway) = hop.gateway
                && self.is_local(gateway, None)
            {
                return Err(EINVAL);
            }
            let on = route.destination.addr().is_ipv6().then_some(hop.interface);
            if route.preferred_source.is_some_and(|source| !self.is_local(source, on)) {
                return Err(EINVAL);
            }
        }
        let same = |is: &Route| {
            is.destination == route.destination
                && is.table == route.table
                && is.metric == route.metric
                && is.tos == route.tos
        };
        if self.routes.iter().any(same) {
            return Err(EEXIST);
        }
        self.routes.push(route.clone());
        Ok(())
    }

    /// Adds a candidate's settings.
    pub(crate) fn settings_of(&mut self, index: u32, default: i32, prefix: i32, no_ipv6: i32) {
        self.settings.insert((index, ACCEPT_DEFAULT), default);
        self.settings.insert((index, ACCEPT_PREFIX), prefix);
        self.settings.insert((index, DISABLE_IPV6), no_ipv6);
        self.settings.insert((index, REVERSE_PATH_FILTER), 0);
    }

    /// What is there, a line each, in an order that does not depend on when it came.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.links.iter().map(|is| format!("{is:?}")).collect();
        lines.extend(self.addresses.iter().map(|is| format!("{is:?}")));
        lines.extend(self.routes.iter().map(|is| format!("{is:?}")));
        // Which number a mark has says nothing, but where it leads.
        let leads = |mark: u32| -> Vec<RuleAction> {
            let has = |rule: &&Rule| rule.mark.is_some_and(|is| is.value == mark);
            self.rules.iter().filter(has).map(|rule| rule.action).collect()
        };
        for (interface, mark) in self.marks() {
            lines.push(format!("{interface} is marked, which leads to {:?}", leads(mark)));
        }
        lines.extend(self.rules.iter().map(|is| {
            let mark = is.mark.map(|mark| Mark { value: 0, ..mark });
            format!("{:?}", Rule { mark, ..is.clone() })
        }));
        lines.extend(self.settings.iter().map(|is| format!("{is:?}")));
        lines.sort();
        lines
    }
}

/// How two lists of lines differ; empty where they do not.
pub(crate) fn difference(was: &[String], is: &[String]) -> String {
    let count = |lines: &[String], line: &String| lines.iter().filter(|is| *is == line).count();
    let mut all: Vec<&String> = was.iter().chain(is).collect();
    all.sort();
    all.dedup();
    let mut text = String::new();
    for line in all {
        match (count(was, line), count(is, line)) {
            (before, after) if before > after => text.push_str(&format!("  - {line}\n")),
            (before, after) if before < after => text.push_str(&format!("  + {line}\n")),
            _ => {}
        }
    }
    text
}
