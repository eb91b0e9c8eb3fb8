//! What the machine shall be like: a pure function of what it is like, what the cloud wants and
//! what is configured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jackfield_kernel::sysctl::Setting;
use jackfield_kernel::{
    ConnectionMarks, Family, Link, NextHop, Route, RouteKind, Rule, RuleAction,
};
use jackfield_metadata::{InterfaceId, MacAddr};

use crate::classify::{self, Selectors, Walk};
use crate::cloud::{Cloud, CloudInterface, Slot};
use crate::config::{
    Backend, Config, Identity, InterfaceConfig, LAST_RULE_PRIORITY, MainRoute, Mtu,
};
use crate::containers;
use crate::journal::Journal;
use crate::neighbours;
use crate::prefix;
use crate::problem::Problem;
use crate::render::{Carried, Manager, is_plain};
use crate::snapshot::{
    ACCEPT_DEFAULT, ACCEPT_PREFIX, Candidate, DISABLE_IPV6, MAIN, OURS, REVERSE_PATH_FILTER,
    Snapshot, marker, marker_table,
};

/// The router that every EC2 subnet has for IPv6.
const IPV6_GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);
/// The metric that the kernel gives an IPv6 route for which nobody says one.
const IPV6_METRIC: u32 = 1024;
/// `RTPROT_RA`: a route that router advertisements ask for.
const ROUTER_ADVERTISEMENT: u8 = 9;
/// Behind every other route of a table.
const LAST_METRIC: u32 = 4_278_198_272;
/// Default routes of secondary interfaces in main start here, behind every usual one.
const LAST_RESORT: u32 = 10_000;

/// Which interfaces may be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All.
    Everything,
    /// Only these; all others stay as they are.
    Only(BTreeSet<u32>),
    /// These are unplugged; all others stay as they are.
    Unplug(BTreeSet<u32>),
    /// All, and nothing is ours any more: what is plugged is unplugged, and the primary is as without us.
    Nothing,
}

impl Scope {
    fn unplugs(&self, interface: u32) -> bool {
        match self {
            Scope::Everything | Scope::Only(_) => false,
            Scope::Unplug(unplugged) => unplugged.contains(&interface),
            Scope::Nothing => true,
        }
    }
}

/// What the machine shall be like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Desired {
    /// What each candidate shall be like.
    pub interfaces: Vec<DesiredInterface>,
    /// Our routes, in every table.
    pub routes: BTreeSet<Route>,
    /// Our rules.
    pub rules: BTreeSet<Rule>,
    /// The priority of the first of them.
    pub first_rule: u32,
    /// What is ours in these tables stays as it is.
    pub kept_tables: BTreeSet<u32>,
    /// Our routes through these interfaces stay as they are.
    pub kept_interfaces: BTreeSet<u32>,
    /// The table of markers, where the kernel does not keep an address's protocol.
    pub markers: Option<u32>,
    /// The marks of forwarded connections; `None`: none, and no table for them.
    pub marks: Option<ConnectionMarks>,
    /// What other network managers carry out.
    pub carried: Vec<Carried>,
}

/// What one candidate shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredInterface {
    /// Interface index.
    pub index: u32,
    /// Current name.
    pub name: String,
    /// MAC.
    pub mac: MacAddr,
    /// What is to be done with it.
    pub role: Role,
    /// The device itself.
    pub device: Device,
    /// Our addresses on it; `None`: they stay as they are.
    pub addresses: Option<BTreeSet<IpAddr>>,
    /// Where it is attached, once known.
    pub slot: Option<Slot>,
    /// Its routing table, where it has one.
    pub table: Option<u32>,
    /// Who carries its configuration out.
    pub backend: Backend,
    /// What stands in the way.
    pub problems: Vec<Problem>,
}

#[cfg(test)]
impl DesiredInterface {
    /// One with nothing but its role.
    pub(crate) fn with_role(index: u32, name: &str, mac: MacAddr, role: Role) -> Self {
        DesiredInterface {
            index,
            name: name.to_owned(),
            mac,
            role,
            device: Device::Keep,
            addresses: None,
            slot: None,
            table: None,
            backend: Backend::Kernel,
            problems: Vec::new(),
        }
    }
}

/// What is to be done with an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The instance's own: only secondary addresses and the link group are added.
    Primary,
    /// A secondary that is made to work.
    Plugged,
    /// Plugged before; what is there stays until more is known.
    Held,
    /// Not plugged yet: something is not known, or not finished.
    Waiting,
    /// Not for us; what was ours on it is taken back.
    Unmanaged,
    /// Not to be plugged while the problem lasts.
    Refused,
    /// Somebody else's.
    Foreign,
}

/// What a device shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {
    /// As it is.
    Keep,
    /// In this link group, nothing else.
    Group(u32),
    /// Plugged.
    Plugged(PluggedDevice),
    /// As the journal says it was.
    Restored(Journal),
}

/// What a plugged device shall be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluggedDevice {
    /// Its journal.
    pub journal: Journal,
    /// The journal, as the alias.
    pub alias: String,
    /// Link group.
    pub group: u32,
    /// MTU; `None`: as it is.
    pub mtu: Option<u32>,
    /// Settings.
    pub settings: Vec<(Setting, i32)>,
}

/// Decides what the machine shall be like.
pub fn desired(snapshot: &Snapshot, cloud: &Cloud, config: &Config, scope: &Scope) -> Desired {
    let mut planner = Planner::new(snapshot, cloud, config, scope);
    let candidates: Vec<Candidate<'_>> = snapshot.candidates().collect();
    // Who is plugged already keeps its table until it has left it; newcomers look for theirs
    // afterwards.
    for (link, journal) in snapshot.journals() {
        planner.tables.entry(journal.table).or_insert(link.index);
    }
    // Killed on the way to another table, it may use one still that its journal does not name.
    let ours = |is: &&Route| is.protocol == OURS && is.table != MAIN;
    for route in snapshot.routes.iter().filter(ours).filter(|is| prefix::interface_of(is).is_none())
    {
        if let Some(hop) = route.next_hops.first() {
            planner.tables.entry(route.table).or_insert(hop.interface);
        }
    }
    let (plugged, new): (Vec<Candidate<'_>>, Vec<Candidate<'_>>) =
        candidates.into_iter().partition(|candidate| Journal::of(candidate.link).is_some());
    for candidate in plugged.iter().chain(&new) {
        planner.interface(*candidate);
    }
    planner.former_candidates();
    planner.finish()
}

/// The names by which the configuration may mean a device.
pub(crate) fn names_of(link: &Link) -> Vec<&str> {
    let alternative = link.alternative_names.iter().map(String::as_str);
    std::iter::once(link.name.as_str()).chain(alternative).collect()
}

/// As what the configuration may mean an interface.
pub(crate) fn identity<'a>(
    mac: MacAddr,
    interface_id: Option<&'a InterfaceId>,
    slot: Option<Slot>,
    names: &'a [&'a str],
) -> Identity<'a> {
    Identity {
        mac,
        interface_id,
        device_number: slot.map(|slot| slot.device),
        network_card: slot.map(|slot| slot.card),
        names,
    }
}

struct Planner<'a> {
    snapshot: &'a Snapshot,
    cloud: &'a Cloud,
    config: &'a Config,
    scope: &'a Scope,
    /// The primary, where it is known and there.
    primary_link: Option<&'a Link>,
    desired: Desired,
    /// Tables that are taken, and by whom.
    tables: BTreeMap<u32, u32>,
    /// Where our rules lead now.
    walk: Walk<'a>,
    /// The sources that shall lead to tables.
    selectors: Selectors,
    /// Addresses that are taken, and by whom.
    owners: BTreeMap<IpAddr, u32>,
    /// Delegated prefixes that are taken, and by whom.
    prefix_owners: BTreeMap<IpNet, u32>,
    group_problem: Option<Problem>,
    /// Interfaces by which forwarded connections are answered that come in by them.
    marked: BTreeSet<u32>,
}

/// Everything about one interface that decisions are made from.
struct Subject<'a> {
    link: &'a Link,
    mac: MacAddr,
    journal: Option<Journal>,
    known: Option<&'a CloudInterface>,
    config: InterfaceConfig,
    open: bool,
    /// It is configured to be ours, whoever else wants it.
    insisted: bool,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot, cloud: &'a Cloud, config: &'a Config, scope: &'a Scope) -> Self {
        let markers = (!snapshot.keeps_address_protocol).then(|| marker_table(&config.agent));
        let mut planner = Planner {
            snapshot,
            cloud,
            config,
            scope,
            primary_link: snapshot
                .candidates()
                .find(|candidate| Some(candidate.mac) == cloud.primary)
                .map(|candidate| candidate.link),
            desired: Desired {
                markers,
                first_rule: config.agent.rule_priority,
                ..Desired::default()
            },
            tables: BTreeMap::new(),
            walk: Walk::new(&snapshot.rules, &snapshot.routes),
            selectors: Selectors::default(),
            owners: owners(
                snapshot,
                cloud,
                snapshot
                    .addresses
                    .iter()
                    .filter(|is| is.protocol == OURS)
                    .map(|is| (is.interface, is.address.addr())),
                |known| &known.addresses,
            ),
            prefix_owners: owners(
                snapshot,
                cloud,
                snapshot
                    .routes
                    .iter()
                    .filter_map(|is| Some((prefix::interface_of(is)?, is.destination))),
                |known| &known.prefixes,
            ),
            group_problem: None,
            marked: BTreeSet::new(),
        };
        planner.group_problem = planner.foreign_group();
        planner
    }

    /// A device in our link group that has no business there: somebody else uses the group.
    fn foreign_group(&self) -> Option<Problem> {
        let group = self.config.agent.link_group;
        let stranger = self.snapshot.links.iter().find(|link| {
            let mac = link.address.map(MacAddr::from);
            let cloud_interface = mac.is_some()
                && (mac == self.cloud.primary
                    || mac.is_some_and(|mac| self.cloud.interfaces.contains_key(&mac)));
            link.group == group && Journal::of(link).is_none() && !cloud_interface
        });
        // Until the primary is known, a device in the group may be it.
        let stranger = stranger.filter(|_| self.cloud.primary.is_some())?;
        Some(Problem::group_in_use(group, &stranger.name))
    }

    fn interface(&mut self, candidate: Candidate<'a>) {
        let (link, mac) = (candidate.link, candidate.mac);
        let known = self.cloud.interfaces.get(&mac);
        let names = names_of(link);
        let interface_id = known.and_then(|known| known.interface_id.as_ref());
        let slot = known.and_then(|known| known.slot);
        let identity = identity(mac, interface_id, slot, &names);
        let subject = Subject {
            link,
            mac,
            journal: Journal::of(link),
            known,
            config: self.config.for_interface(&identity),
            open: self.config.is_open(&identity),
            insisted: self.config.insists(&identity),
        };
        let index = link.index;
        if self.scope.unplugs(index) {
            return self.release(&subject, Role::Unmanaged, Vec::new());
        }
        let in_scope = match self.scope {
            Scope::Everything => true,
            Scope::Only(only) => only.contains(&index),
            Scope::Unplug(_) | Scope::Nothing => false,
        };
        if self.cloud.primary == Some(mac) {
            self.primary(&subject, in_scope);
        } else if !in_scope {
            self.hold_or(&subject, Role::Waiting, Vec::new());
        } else if !subject.config.manage && !subject.open {
            self.release(&subject, Role::Unmanaged, Vec::new());
        } else if let Some((role, problem)) = self.kept_from_manager(&subject) {
            match role {
                Role::Unmanaged => self.release(&subject, role, vec![problem]),
                _ => self.hold_or(&subject, role, vec![problem]),
            }
        } else {
            self.secondary(&subject);
        }
    }

    /// Why the manager that shall carry the interface's configuration out is not told to.
    fn kept_from_manager(&self, subject: &Subject<'_>) -> Option<(Role, Problem)> {
        // Of what is not known to be a cloud interface nothing is to be said.
        if subject.open || subject.known.is_none() {
            return None;
        }
        let (manager, name) = (subject.config.backend.manager()?, &subject.link.name);
        let managers = &self.snapshot.managers;
        if manager == Manager::Ifupdown
            && let Some(by_hand) = managers.by_hand.get(name)
        {
            return Some(match by_hand.opted_out {
                true => (Role::Unmanaged, Problem::opted_out(&by_hand.path)),
                false => (Role::Refused, Problem::configured_by_hand(name, &by_hand.path)),
            });
        }
        if !is_plain(name) {
            return Some((Role::Refused, Problem::name_not_plain(manager)));
        }
        let missing = managers.missing.get(&manager)?;
        Some((Role::Refused, Problem::program_missing(manager, missing)))
    }

    /// A device that was plugged and is no candidate any more: a port of a bridge by now, or of a
    /// kind that is not configured any more.
    fn former_candidates(&mut self) {
        let candidates: BTreeSet<u32> =
            self.snapshot.candidates().map(|candidate| candidate.link.index).collect();
        for (link, journal) in self.snapshot.journals() {
            if candidates.contains(&link.index) {
                continue;
            }
            let Some(mac) = link.address.map(MacAddr::from) else { continue };
            let subject = Subject {
                link,
                mac,
                journal: Some(journal),
                known: None,
                config: self.config.defaults.clone(),
                open: false,
                insisted: false,
            };
            if *self.scope == Scope::Everything || self.scope.unplugs(link.index) {
                self.release(&subject, Role::Unmanaged, Vec::new());
            } else {
                self.hold_or(&subject, Role::Unmanaged, Vec::new());
            }
        }
    }

    fn primary(&mut self, subject: &Subject<'_>, in_scope: bool) {
        let link = subject.link;
        let (mut addresses, mut problems) = (None, Vec::new());
        // Whether it is managed may depend on what is not known yet.
        if let (Some(known), true) = (subject.known, in_scope && !subject.open) {
            let mut own = known.addresses.clone();
            if !subject.config.manage {
                own.clear();
            }
            own.retain(|ip| !known.first.contains(ip) && self.owners.get(ip) == Some(&link.index));
            addresses = Some(own);
            if subject.config.manage {
                // Main decides by which way they go.
                self.prefixes(subject, known, &mut problems);
            }
        } else {
            self.keep_prefixes(link.index);
        }
        self.push(subject, Role::Primary, Device::Keep, addresses, problems);
    }

    /// The delegated prefixes that are the interface's, with what becomes of packets to them.
    fn prefixes(
        &mut self,
        subject: &Subject<'_>,
        known: &CloudInterface,
        problems: &mut Vec<Problem>,
    ) -> BTreeSet<IpNet> {
        let index = subject.link.index;
        let no_ipv6 = self.has_no_ipv6(index);
        let mut own = BTreeSet::new();
        for net in &known.prefixes {
            if net.addr().is_ipv6() && no_ipv6 {
                problems.push(Problem::ipv6_disabled(net));
            } else if self.prefix_owners.get(net) == Some(&index) {
                let route = prefix::route(*net, index, subject.config.prefixes);
                self.desired.routes.insert(route);
                own.insert(*net);
            } else {
                problems.push(Problem::address_elsewhere(net));
            }
        }
        own
    }

    fn has_no_ipv6(&self, interface: u32) -> bool {
        self.snapshot.setting(interface, DISABLE_IPV6).is_some_and(|off| off != 0)
    }

    /// What becomes of packets to the interface's prefixes stays as it is.
    fn keep_prefixes(&mut self, interface: u32) {
        self.desired.routes.extend(prefix::routes(self.snapshot, interface).cloned());
    }

    fn secondary(&mut self, subject: &Subject<'_>) {
        let link = subject.link;
        let agent = &self.config.agent;
        let Some(known) = subject.known else {
            let problem = match self.cloud.primary {
                Some(_) => Problem::not_listed(),
                None => Problem::metadata_silent(),
            };
            return self.hold_or(subject, Role::Waiting, vec![problem]);
        };
        if subject.open {
            return self.hold_or(subject, Role::Waiting, vec![Problem::incomplete(known)]);
        }
        // What is ours already stays so: nobody's traffic ends because another one comes.
        if subject.journal.is_none()
            && !subject.insisted
            && let Some(holder) = neighbours::owner(self.snapshot, link)
            && !subject.config.backend.is_of(holder.name)
        {
            let problem = Problem::foreign(&holder);
            return self.push(subject, Role::Foreign, Device::Keep, None, vec![problem]);
        }
        let table = match (known.slot, &subject.journal) {
            (Some(slot), _) => slot.table(agent.table_base),
            (None, Some(journal)) => journal.table,
            (None, None) => {
                return self.hold_or(subject, Role::Waiting, vec![Problem::incomplete(known)]);
            }
        };
        // What works without a subnet that is known worked with one that was.
        let without_subnet: BTreeSet<IpAddr> =
            known.addresses.iter().copied().filter(|ip| known.subnet_of(*ip).is_none()).collect();
        let homeless = without_subnet.iter().any(|ip| self.works(link, *ip));
        if homeless || !known.addresses.iter().any(|ip| known.subnet_of(*ip).is_some()) {
            return self.hold_or(subject, Role::Waiting, vec![Problem::incomplete(known)]);
        }
        if self.snapshot.awaiting_udev.contains(&link.index) && !link.up {
            return self.hold_or(subject, Role::Waiting, vec![Problem::awaiting_udev()]);
        }
        let established = subject.journal.as_ref().is_some_and(|journal| journal.table == table);
        let other = self.tables.get(&table).copied().filter(|other| *other != link.index);
        if let Some(other) = other {
            let other = self.snapshot.link(other).map_or("another", |link| link.name.as_str());
            let problem = Problem::table_conflict(table, other);
            return self.hold_or(subject, Role::Refused, vec![problem]);
        }
        let mut problems = Vec::new();
        if let Some(route) = self.foreign_route(table) {
            problems.push(Problem::table_in_use(table, &route));
        }
        problems.extend(self.group_problem.clone());
        if let Some(problem) = self.primary_group_problem() {
            problems.push(problem);
        }
        // What works is not taken down because somebody came to use the same number.
        if !problems.is_empty() && !established {
            return self.hold_or(subject, Role::Refused, problems);
        }
        let Some(device) = self.plugged_device(subject, known, table) else {
            problems.push(Problem::alias_too_long());
            return self.hold_or(subject, Role::Refused, problems);
        };
        if !known.complete {
            problems.push(Problem::incomplete(known));
        }
        self.plug(subject, known, table, device, problems);
    }

    /// A route of somebody else in a table that shall be ours.
    fn foreign_route(&self, table: u32) -> Option<Route> {
        self.snapshot
            .routes
            .iter()
            .find(|route| route.table == table && route.protocol != OURS)
            .cloned()
    }

    /// The primary can be in one group only: where somebody gave it another, that stays.
    fn primary_group_problem(&self) -> Option<Problem> {
        let link = self.primary_link?;
        let ours = self.config.agent.link_group;
        (link.group != 0 && link.group != ours)
            .then(|| Problem::primary_in_group(&link.name, link.group, ours))
    }

    fn plugged_device(
        &self,
        subject: &Subject<'_>,
        known: &CloudInterface,
        table: u32,
    ) -> Option<PluggedDevice> {
        let link = subject.link;
        let setting = |setting| self.snapshot.setting(link.index, setting);
        let before = subject.journal.clone().unwrap_or_else(|| Journal {
            table,
            mtu: link.mtu,
            group: link.group,
            up: link.up,
            router_advertisements: setting(ACCEPT_DEFAULT).zip(setting(ACCEPT_PREFIX)),
            reverse_path_filter: None,
            name: None,
            alias: link.alias.clone(),
        });
        let name = known.interface_id.as_ref().map(ToString::to_string).filter(|name| {
            before.name.as_ref() == Some(name)
                || !self
                    .snapshot
                    .links
                    .iter()
                    .any(|link| link.name == *name || link.alternative_names.contains(name))
        });
        let plain = Journal { table, name: name.or(before.name.clone()), ..before };
        let mut journal = plain.clone();
        let filter = containers::reverse_path_filter(
            &mut journal,
            setting(REVERSE_PATH_FILTER),
            containers::wanted(subject.config.containers, &self.snapshot.forwarding),
            &self.snapshot.forwarding,
        );
        // Where there is no room to say what it was, it stays as it is.
        let (journal, alias, filter) = match journal.write() {
            Some(alias) => (journal, alias, filter),
            None => (plain.clone(), plain.write()?, None),
        };
        let primary_mtu = || Some(self.primary_link?.mtu);
        let capped = |mtu: u32| match link.max_mtu {
            0 => mtu,
            most => mtu.min(most),
        };
        let mtu = match subject.config.mtu {
            Mtu::Keep => None,
            Mtu::Octets(octets) => Some(capped(octets)),
            Mtu::Primary => primary_mtu().map(capped),
        };
        let mut settings = Vec::new();
        if journal.router_advertisements.is_some() {
            settings.extend([(ACCEPT_DEFAULT, 0), (ACCEPT_PREFIX, 0)]);
        }
        settings.extend(filter.map(|filter| (REVERSE_PATH_FILTER, filter)));
        Some(PluggedDevice { journal, alias, group: self.config.agent.link_group, mtu, settings })
    }

    fn plug(
        &mut self,
        subject: &Subject<'_>,
        known: &CloudInterface,
        table: u32,
        device: PluggedDevice,
        mut problems: Vec<Problem>,
    ) {
        let index = subject.link.index;
        let no_ipv6 = self.has_no_ipv6(index);
        let mut addresses = BTreeSet::new();
        for ip in &known.addresses {
            if known.subnet_of(*ip).is_none() {
                problems.push(Problem::no_subnet(*ip));
            } else if ip.is_ipv6() && no_ipv6 {
                problems.push(Problem::ipv6_disabled(*ip));
            } else if self.owners.get(ip) != Some(&index) {
                problems.push(Problem::address_elsewhere(*ip));
            } else {
                addresses.insert(*ip);
            }
        }
        let prefixes = self.prefixes(subject, known, &mut problems);
        let mut own = Vec::new();
        for family in Family::BOTH {
            let sources = addresses.iter().copied().chain(prefixes.iter().map(IpNet::addr));
            if sources.map(Family::of).any(|of| of == family) {
                own.extend(self.routes(subject, known, table, family));
            }
        }
        if let Some(manager) = subject.config.backend.manager() {
            self.desired.carried.push(Carried {
                manager,
                index,
                name: subject.link.name.clone(),
                mac: subject.mac,
                group: device.group,
                mtu: device.mtu,
                addresses: addresses.clone(),
                leased: known.first.iter().find_map(|ip| match ip {
                    IpAddr::V4(ip) => Some(*ip),
                    IpAddr::V6(_) => None,
                }),
                routes: own,
            });
        }
        for ip in &addresses {
            self.selectors.address(*ip, table);
        }
        for subnet in &known.subnets {
            self.selectors.subnet(*subnet, table);
        }
        for net in prefixes {
            if known.subnet_of(net.addr()).is_none() {
                problems.push(Problem::no_subnet(net));
            }
            // Without its subnet it goes nowhere, rather than by the primary.
            self.selectors.prefix(net, table);
        }
        self.tables.insert(table, index);
        if containers::wanted(subject.config.containers, &self.snapshot.forwarding) {
            self.marked.insert(index);
        }
        self.push_plugged(
            subject,
            Role::Plugged,
            Device::Plugged(device),
            Some(addresses),
            table,
            problems,
        );
    }

    /// Wants the routes of one family, and returns those that are not copies of others'.
    fn routes(
        &mut self,
        subject: &Subject<'_>,
        known: &CloudInterface,
        table: u32,
        family: Family,
    ) -> Vec<Route> {
        let index = subject.link.index;
        let everything = family.everything();
        let metric = match family {
            Family::V4 => 0,
            Family::V6 => IPV6_METRIC,
        };
        let mut own = Vec::new();
        // Packets of an interface that is down go nowhere, rather than by the primary.
        own.push(Route { metric: LAST_METRIC, ..Route::unreachable(everything, table) });
        let mut gateway: Option<IpAddr> = None;
        for subnet in known.subnets.iter().filter(|net| Family::of(net.addr()) == family) {
            own.push(Route { metric, ..Route::via_interface(*subnet, table, index) });
            gateway = gateway.or_else(|| self.gateway_of(*subnet, index));
        }
        if let Some(gateway) = gateway {
            own.push(Route { metric, ..Route::via_gateway(everything, table, index, gateway) });
            if subject.config.main_route == MainRoute::LastResort {
                let metric = self.last_resort_metric(table, family);
                own.push(Route { metric, ..Route::via_gateway(everything, MAIN, index, gateway) });
            }
        }
        for route in &mut own {
            route.protocol = OURS;
        }
        let mut taken: BTreeSet<(IpNet, u32, u8)> = own
            .iter()
            .filter(|route| route.table == table)
            .map(|route| (route.destination, route.metric, route.tos))
            .collect();
        for route in &self.snapshot.routes {
            let Some(mirror) = mirror(route, index, table, family) else { continue };
            if taken.insert((mirror.destination, mirror.metric, mirror.tos)) {
                self.desired.routes.insert(mirror);
            }
        }
        self.desired.routes.extend(own.iter().cloned());
        own
    }

    /// The router of a subnet, for an interface in it.
    fn gateway_of(&self, subnet: IpNet, interface: u32) -> Option<IpAddr> {
        match subnet {
            // EC2: "The second IP address of the subnet is reserved for the VPC router".
            IpNet::V4(subnet) => {
                let router = u32::from(subnet.network()).checked_add(1)?;
                Some(Ipv4Addr::from(router).into())
            }
            IpNet::V6(_) => Some(self.advertised_router(interface).unwrap_or(IPV6_GATEWAY.into())),
        }
    }

    /// The router that advertisements name on the interface, for as long as somebody keeps the
    /// default route that they ask for: the kernel, where one came before the interface was
    /// plugged, or a manager that listens itself.
    fn advertised_router(&self, interface: u32) -> Option<IpAddr> {
        let advertised = self.snapshot.routes.iter().filter(|route| {
            route.table == MAIN
                && route.protocol == ROUTER_ADVERTISEMENT
                && route.destination == Family::V6.everything()
        });
        let named = advertised.filter_map(|route| {
            let hop = route.next_hops.iter().find(|hop| hop.interface == interface)?;
            Some((route.metric, hop.gateway?))
        });
        named.min().map(|(_, router)| router)
    }

    /// Behind every default route that somebody else gave main through a cloud interface.
    fn last_resort_metric(&self, table: u32, family: Family) -> u32 {
        let highest = self
            .snapshot
            .routes
            .iter()
            .filter(|route| {
                route.table == MAIN
                    && route.protocol != OURS
                    && route.destination == family.everything()
            })
            .map(|route| route.metric.saturating_add(1))
            .max();
        let offset = table.saturating_sub(self.config.agent.table_base);
        LAST_RESORT.max(highest.unwrap_or(0)).saturating_add(offset)
    }

    /// Whether we work for an address of the interface: it is ours, or our rule leads it to a table
    /// that has a way out. A plug that knows of no subnet makes none, and one that was killed leaves
    /// rules of tables that are empty.
    fn works(&self, link: &Link, ip: IpAddr) -> bool {
        let mut ours = self.snapshot.our_addresses(link.index);
        if ours.any(|is| is.address.addr() == ip) {
            return true;
        }
        let table = self.walk.table_of(ip);
        let leads_out = |route: &Route| {
            Some(route.table) == table
                && route.destination == Family::of(ip).everything()
                && route.kind == RouteKind::Unicast
                && route.protocol == OURS
        };
        self.snapshot.served_addresses(link.index, &self.walk).any(|served| served == ip)
            && self.snapshot.routes.iter().any(leads_out)
    }

    /// What was plugged stays as it is; what was not is not touched.
    fn hold_or(&mut self, subject: &Subject<'_>, role: Role, problems: Vec<Problem>) {
        self.keep_prefixes(subject.link.index);
        let Some(journal) = &subject.journal else {
            return self.push(subject, role, Device::Keep, None, problems);
        };
        let table = journal.table;
        // Killed on the way to another table, it may use the old one still.
        let mut tables = BTreeSet::from([table]);
        for is in self.snapshot.addresses.iter().filter(|is| is.interface == subject.link.index) {
            let (ip, ours) = (is.address.addr(), is.protocol == OURS);
            match self.walk.table_of(ip) {
                // An address of somebody else may be on another interface too, and be led to that.
                Some(used) if ours || self.snapshot.is_table_of(subject.link.index, used) => {
                    tables.insert(used);
                    self.selectors.hold_address(ip, used);
                }
                None if ours => {
                    self.selectors.hold_address(ip, table);
                    // Somebody took its rule away, perhaps one for several.
                    for subnet in subject.known.into_iter().flat_map(|known| &known.subnets) {
                        self.selectors.subnet(*subnet, table);
                    }
                }
                _ => {}
            }
        }
        for net in prefix::routed(self.snapshot, subject.link.index) {
            if self.prefix_owners.get(&net) == Some(&subject.link.index) {
                let used = self.walk.table_of_prefix(net).unwrap_or(table);
                tables.insert(used);
                self.selectors.prefix(net, used);
            }
        }
        for table in &tables {
            self.selectors.hold(&self.walk, *table);
        }
        self.desired.kept_tables.extend(tables);
        self.desired.kept_interfaces.insert(subject.link.index);
        self.tables.insert(table, subject.link.index);
        self.push_plugged(subject, Role::Held, Device::Keep, None, table, problems);
    }

    fn release(&mut self, subject: &Subject<'_>, role: Role, problems: Vec<Problem>) {
        let device = match &subject.journal {
            Some(journal) => Device::Restored(journal.clone()),
            None => Device::Keep,
        };
        self.push(subject, role, device, Some(BTreeSet::new()), problems);
    }

    fn push(
        &mut self,
        subject: &Subject<'_>,
        role: Role,
        device: Device,
        addresses: Option<BTreeSet<IpAddr>>,
        problems: Vec<Problem>,
    ) {
        self.desired.interfaces.push(DesiredInterface {
            index: subject.link.index,
            name: subject.link.name.clone(),
            mac: subject.mac,
            role,
            device,
            addresses,
            slot: subject.known.and_then(|known| known.slot),
            table: None,
            backend: subject.config.backend,
            problems,
        });
    }

    fn push_plugged(
        &mut self,
        subject: &Subject<'_>,
        role: Role,
        device: Device,
        addresses: Option<BTreeSet<IpAddr>>,
        table: u32,
        problems: Vec<Problem>,
    ) {
        self.push(subject, role, device, addresses, problems);
        if let Some(last) = self.desired.interfaces.last_mut() {
            last.table = Some(table);
        }
    }

    fn finish(mut self) -> Desired {
        self.part_last_resorts();
        self.primary_group();
        self.wait_for_held_addresses();
        self.wait_for_held_prefixes();
        self.other_addresses();
        for family in self.selectors.families() {
            self.desired.rules.insert(Rule {
                suppress_prefix_length: Some(0),
                suppress_group: Some(self.config.agent.link_group),
                protocol: OURS,
                ..Rule::new(family, self.config.agent.rule_priority, RuleAction::Table(MAIN))
            });
        }
        let first = self.config.agent.rule_priority;
        let mut rules =
            classify::compile(&self.selectors, &self.snapshot.rules, first, LAST_RULE_PRIORITY);
        self.desired.rules.append(&mut rules);
        self.markers();
        self.settle_carried();
        self.desired.interfaces.sort_by_key(|interface| interface.index);
        let agent = &self.config.agent;
        containers::mark(self.snapshot, agent, &self.marked, &self.walk, &mut self.desired);
        self.desired
    }

    /// Main has room for one default route of a metric. Interfaces whose tables were numbered from
    /// different bases may want the same.
    fn part_last_resorts(&mut self) {
        let is_last_resort =
            |route: &&Route| route.table == MAIN && route.destination.prefix_len() == 0;
        let kept = &self.desired.kept_interfaces;
        let mut taken: BTreeSet<(Family, u32)> = self
            .snapshot
            .routes
            .iter()
            .filter(is_last_resort)
            .filter(|route| kept.iter().any(|index| route.uses(*index)))
            .map(|route| (route.family(), route.metric))
            .collect();
        let wanted: Vec<Route> =
            self.desired.routes.iter().filter(is_last_resort).cloned().collect();
        for route in wanted {
            let mut parted = route.clone();
            while !taken.insert((parted.family(), parted.metric)) {
                let Some(next) = parted.metric.checked_add(1) else { break };
                parted.metric = next;
            }
            if parted != route {
                self.desired.routes.remove(&route);
                self.desired.routes.insert(parted);
            }
        }
    }

    /// What was decided last holds for managers too: who has an address, and at which metric main's
    /// last resort is.
    fn settle_carried(&mut self) {
        let Desired { carried, interfaces, routes, .. } = &mut self.desired;
        for carried in carried {
            let planned = interfaces.iter().find(|interface| interface.index == carried.index);
            if let Some(addresses) = planned.and_then(|planned| planned.addresses.as_ref()) {
                carried.addresses.clone_from(addresses);
            }
            carried.routes.retain(|route| route.table != MAIN);
            let last_resorts = routes.iter().filter(|route| {
                route.table == MAIN
                    && route.destination.prefix_len() == 0
                    && route.uses(carried.index)
            });
            carried.routes.extend(last_resorts.cloned());
            carried.routes.sort_by_key(|route| {
                let family = route.destination.addr().is_ipv6();
                // A subnet before what is reached through it.
                let gateway = route.next_hops.iter().any(|hop| hop.gateway.is_some());
                (family, gateway, route.table, route.clone())
            });
        }
    }

    /// The primary is in the group exactly as long as somebody needs it there.
    fn primary_group(&mut self) {
        let needed = self
            .desired
            .interfaces
            .iter()
            .any(|interface| matches!(interface.role, Role::Plugged | Role::Held));
        let group = self.config.agent.link_group;
        let snapshot = self.snapshot;
        let unnamed = self.unnamed_primary();
        for interface in &mut self.desired.interfaces {
            if interface.role != Role::Primary && Some(interface.index) != unnamed {
                continue;
            }
            let is = snapshot.link(interface.index).map_or(0, |link| link.group);
            interface.device = match (needed, is) {
                (true, 0) => Device::Group(group),
                (false, is) if is == group => Device::Group(0),
                _ => Device::Keep,
            };
        }
    }

    /// Who must be the primary where something that was plugged is unplugged and metadata is silent:
    /// nothing is plugged while anybody but the primary and plugged interfaces is in the group. That
    /// something was plugged, its journal tells, or where it is gone, the rules that it left.
    fn unnamed_primary(&self) -> Option<u32> {
        if matches!(self.scope, Scope::Everything | Scope::Only(_)) {
            return None;
        }
        let was_plugged = self.snapshot.journals().any(|(link, _)| self.scope.unplugs(link.index))
            || self.snapshot.rules.iter().any(|rule| rule.protocol == OURS);
        if self.cloud.primary.is_some() || !was_plugged {
            return None;
        }
        let group = self.config.agent.link_group;
        let mut others = self
            .snapshot
            .candidates()
            .map(|candidate| candidate.link)
            .filter(|link| link.group == group && Journal::of(link).is_none());
        match (others.next(), others.next()) {
            (Some(link), None) => Some(link.index),
            _ => None,
        }
    }

    /// An address moves to its new interface when the one that has it lets it go, not before.
    fn wait_for_held_addresses(&mut self) {
        let ours = || self.snapshot.addresses.iter().filter(|is| is.protocol == OURS);
        let holds: BTreeSet<u32> = self
            .desired
            .interfaces
            .iter()
            .filter(|interface| interface.addresses.is_none())
            .map(|interface| interface.index)
            .collect();
        let held: BTreeSet<IpAddr> =
            ours().filter(|is| holds.contains(&is.interface)).map(|is| is.address.addr()).collect();
        if held.is_empty() {
            return;
        }
        let has: BTreeSet<(u32, IpAddr)> =
            ours().map(|is| (is.interface, is.address.addr())).collect();
        for interface in &mut self.desired.interfaces {
            let Some(addresses) = &mut interface.addresses else { continue };
            let waits = |ip: &IpAddr| held.contains(ip) && !has.contains(&(interface.index, *ip));
            let waiting: Vec<IpAddr> = addresses.iter().copied().filter(waits).collect();
            for ip in waiting {
                addresses.remove(&ip);
                if let Some(table) = interface.table {
                    self.selectors.forget(IpNet::from(ip), table);
                }
                interface.problems.push(Problem::address_elsewhere(ip));
            }
        }
    }

    /// Delegated prefixes likewise.
    fn wait_for_held_prefixes(&mut self) {
        let (snapshot, planned) = (self.snapshot, &mut self.desired);
        let (held, others): (Vec<_>, Vec<_>) =
            planned.interfaces.iter_mut().partition(|interface| interface.addresses.is_none());
        let held: BTreeSet<IpNet> =
            held.iter().flat_map(|interface| prefix::routed(snapshot, interface.index)).collect();
        for interface in others {
            let has: BTreeSet<IpNet> = prefix::routed(snapshot, interface.index).collect();
            let waits = |route: &Route| {
                prefix::interface_of(route) == Some(interface.index)
                    && held.contains(&route.destination)
                    && !has.contains(&route.destination)
            };
            let waiting: Vec<Route> =
                planned.routes.iter().filter(|route| waits(route)).cloned().collect();
            for route in waiting {
                planned.routes.remove(&route);
                if let Some(table) = interface.table {
                    self.selectors.forget(route.destination, table);
                }
                interface.problems.push(Problem::address_elsewhere(route.destination));
            }
        }
    }

    /// The addresses of this host that are in no table of ours, when the changes are made.
    fn other_addresses(&mut self) {
        let planned: BTreeMap<u32, &DesiredInterface> =
            self.desired.interfaces.iter().map(|is| (is.index, is)).collect();
        for is in &self.snapshot.addresses {
            let ip = is.address.addr();
            let stays = match planned.get(&is.interface).map(|interface| &interface.addresses) {
                _ if is.protocol != OURS => true,
                Some(Some(addresses)) => addresses.contains(&ip),
                Some(None) => true,
                None => false,
            };
            if stays {
                self.selectors.other(ip);
            }
        }
        for ip in planned.values().filter_map(|interface| interface.addresses.as_ref()).flatten() {
            self.selectors.other(*ip);
        }
    }

    fn markers(&mut self) {
        let Some(table) = self.desired.markers else { return };
        // What somebody else gave an interface, that one takes away again.
        let mut others: BTreeSet<(u32, IpAddr)> = BTreeSet::new();
        let there = &self.snapshot.addresses;
        others.extend(there.iter().map(|is| (is.interface, is.address.addr())));
        for is in there.iter().filter(|is| is.protocol == OURS) {
            others.remove(&(is.interface, is.address.addr()));
        }
        let mut markers = Vec::new();
        for interface in &self.desired.interfaces {
            match &interface.addresses {
                Some(addresses) => markers.extend(
                    addresses
                        .iter()
                        .filter(|ip| !others.contains(&(interface.index, **ip)))
                        .map(|ip| marker(table, &address(interface.index, *ip))),
                ),
                None => markers.extend(
                    self.snapshot
                        .our_addresses(interface.index)
                        .map(|address| marker(table, address)),
                ),
            }
        }
        self.desired.routes.extend(markers);
    }
}

/// An address as we add it: alone in its prefix, so that its removal takes no other along, and
/// usable at once.
pub(crate) fn address(interface: u32, ip: IpAddr) -> jackfield_kernel::Address {
    jackfield_kernel::Address {
        interface,
        address: IpNet::from(ip),
        protocol: OURS,
        flags: jackfield_kernel::AddressFlags {
            no_prefix_route: true,
            no_dad: ip.is_ipv6(),
            tentative: false,
            permanent: true,
            deprecated: false,
        },
    }
}

/// Each address or prefix belongs to one interface: the one that has it, else the first that wants it.
fn owners<T: Ord + Copy>(
    snapshot: &Snapshot,
    cloud: &Cloud,
    has: impl Iterator<Item = (u32, T)>,
    wanted: impl Fn(&CloudInterface) -> &BTreeSet<T>,
) -> BTreeMap<T, u32> {
    let mut owners = BTreeMap::new();
    let mut had: BTreeMap<u32, Vec<T>> = BTreeMap::new();
    for (interface, it) in has {
        had.entry(interface).or_default().push(it);
    }
    for candidate in snapshot.candidates() {
        let known = cloud.interfaces.get(&candidate.mac);
        // An interface of which nothing is known yet keeps what it has.
        let wants = |it: &T| known.is_none_or(|known| wanted(known).contains(it));
        let has = had.remove(&candidate.link.index).unwrap_or_default();
        for it in has.into_iter().filter(wants) {
            owners.entry(it).or_insert(candidate.link.index);
        }
    }
    for candidate in snapshot.candidates() {
        let known = cloud.interfaces.get(&candidate.mac);
        for it in known.into_iter().flat_map(&wanted) {
            owners.entry(*it).or_insert(candidate.link.index);
        }
    }
    owners
}

/// The copy of one of main's routes for an interface's own table.
fn mirror(route: &Route, interface: u32, table: u32, family: Family) -> Option<Route> {
    let wanted = route.table == MAIN
        && route.protocol != OURS
        && route.family() == family
        && route.kind == RouteKind::Unicast
        && !route.special
        && route.destination.prefix_len() > 0
        && !is_link_scope(route.destination);
    let hop = route.next_hops.iter().find(|hop| wanted && hop.interface == interface)?;
    let hop = NextHop { on_link: hop.gateway.is_some(), ..*hop };
    Some(Route { table, next_hops: vec![hop], protocol: OURS, ..route.clone() })
}

/// Link-local and multicast destinations: every interface has them for itself.
fn is_link_scope(destination: IpNet) -> bool {
    is_link_local(destination.addr()) || destination.addr().is_multicast()
}

/// Addresses that every device has for itself.
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
