//! The difference between what the machine is like and what it shall be like, as changes in an
//! order in which no address is ever usable by a wrong path: a pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::{Family, Link, Route, RouteKind, Rule, RuleAction};
use jackfield_metadata::MacAddr;

use crate::change::{Change, Edit, InterfaceRef};
use crate::classify::{order_added, order_removed};
use crate::containers;
use crate::desired::{Desired, DesiredInterface, Device, PluggedDevice, Role, address};
use crate::journal::Journal;
use crate::prefix;
use crate::snapshot::{ACCEPT_DEFAULT, ACCEPT_PREFIX, MAIN, OURS, REVERSE_PATH_FILTER, Snapshot};

/// What is to be changed, in order.
///
/// What is added goes by rules, device, routes, marks, addresses, the host's own prefixes; what is removed
/// by those prefixes, addresses, marks, rules, routes, device. An address that stays while its table
/// changes has its new routes before its new rule, and both before the old ones go. A table that is about
/// to lose its routes with an address, and whose end somebody took away, has that first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The changes.
    pub changes: Vec<Change>,
}

/// The steps of a plan. Their order is what is promised in [`Plan`].
#[derive(Default)]
struct Steps {
    /// With an address that goes, the routes may go by which packets from a prefix leave.
    prefixes_off: Vec<Change>,
    ends_on: Vec<Change>,
    addresses_off: Vec<Change>,
    /// Those of tables that interfaces move to which work by another one.
    routes_moved: Vec<Change>,
    rules_on: Vec<Change>,
    devices_on: Vec<Change>,
    primary_on: Vec<Change>,
    routes_replaced: Vec<Change>,
    routes_on: Vec<Change>,
    marks: Vec<Change>,
    rules_off: Vec<Change>,
    routes_off: Vec<Change>,
    devices_off: Vec<Change>,
    addresses_on: Vec<Change>,
}

/// Compares.
pub fn plan(snapshot: &Snapshot, desired: &Desired) -> Plan {
    let names = Names::new(snapshot, desired);
    let mut steps = Steps::default();
    for interface in &desired.interfaces {
        if let Some(link) = snapshot.link(interface.index) {
            device(snapshot, link, interface, &mut steps);
        }
    }
    addresses(snapshot, desired, &names, &mut steps);
    rules(snapshot, desired, &names, &mut steps);
    routes(snapshot, desired, &names, &mut steps);
    if let Some((from, to)) = containers::difference(snapshot, desired) {
        steps.marks.push(Change { interface: None, edit: Edit::Marks { from, to } });
    }
    let Steps {
        prefixes_off,
        ends_on,
        addresses_off,
        routes_moved,
        rules_on,
        devices_on,
        primary_on,
        routes_replaced,
        routes_on,
        marks,
        rules_off,
        routes_off,
        devices_off,
        addresses_on,
    } = steps;
    let order = [
        prefixes_off,
        ends_on,
        addresses_off,
        routes_moved,
        rules_on,
        devices_on,
        primary_on,
        routes_replaced,
        routes_on,
        marks,
        rules_off,
        routes_off,
        devices_off,
        addresses_on,
    ];
    Plan { changes: order.into_iter().flatten().collect() }
}

impl Plan {
    /// True where nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Only what is about these interfaces.
    #[must_use]
    pub fn only(mut self, interfaces: &BTreeSet<u32>) -> Self {
        self.changes.retain(|change| {
            change.interface.as_ref().is_none_or(|about| interfaces.contains(&about.index))
        });
        self
    }
}

/// To say of each change which interface it is about.
struct Names {
    by_index: BTreeMap<u32, InterfaceRef>,
    by_table: BTreeMap<u32, u32>,
}

impl Names {
    fn new(snapshot: &Snapshot, desired: &Desired) -> Self {
        let by_index = snapshot.links.iter().map(|link| (link.index, reference(link))).collect();
        let mut by_table: BTreeMap<u32, u32> =
            snapshot.journals().map(|(link, journal)| (journal.table, link.index)).collect();
        let planned = desired.interfaces.iter().filter_map(|i| Some((i.table?, i.index)));
        by_table.extend(planned);
        Names { by_index, by_table }
    }

    fn interface(&self, index: u32) -> Option<InterfaceRef> {
        self.by_index.get(&index).cloned()
    }

    fn of_route(&self, route: &Route) -> Option<InterfaceRef> {
        if let Some(index) = prefix::interface_of(route) {
            return self.interface(index);
        }
        match route.next_hops.first() {
            Some(hop) => self.interface(hop.interface),
            None => self.of_table(route.table),
        }
    }

    fn of_rule(&self, rule: &Rule) -> Option<InterfaceRef> {
        match rule.action {
            RuleAction::Table(table) => self.of_table(table),
            _ => None,
        }
    }

    fn of_table(&self, table: u32) -> Option<InterfaceRef> {
        self.interface(*self.by_table.get(&table)?)
    }
}

fn reference(link: &Link) -> InterfaceRef {
    InterfaceRef {
        index: link.index,
        name: link.name.clone(),
        mac: link.address.map(MacAddr::from),
    }
}

fn device(snapshot: &Snapshot, link: &Link, interface: &DesiredInterface, steps: &mut Steps) {
    let change = |edit| Change { interface: Some(reference(link)), edit };
    match &interface.device {
        Device::Keep => {}
        Device::Group(group) => {
            if link.group != *group {
                let edit = change(Edit::Group { from: link.group, to: *group });
                // Nothing says on the primary that the group is of our making: it is in it only while
                // a secondary has its journal. Before any secondary works, after the last.
                if *group == 0 {
                    steps.devices_off.insert(0, edit);
                } else {
                    steps.primary_on.push(edit);
                }
            }
        }
        Device::Plugged(device) => {
            let edits = plugged(snapshot, link, device);
            steps.devices_on.extend(edits.into_iter().map(change));
        }
        Device::Restored(journal) => {
            let edits = restored(snapshot, link, journal);
            steps.devices_off.extend(edits.into_iter().map(change));
        }
    }
}

/// The journal first: it tells how to undo the rest. Settings next, so that all else is one batch.
fn plugged(snapshot: &Snapshot, link: &Link, device: &PluggedDevice) -> Vec<Edit> {
    let mut edits = Vec::new();
    if link.alias.as_deref() != Some(device.alias.as_str()) {
        edits.push(Edit::Alias { from: link.alias.clone(), to: Some(device.alias.clone()) });
    }
    for (setting, to) in device.settings.iter().copied() {
        if let Some(from) = snapshot.setting(link.index, setting)
            && from != to
        {
            edits.push(Edit::Setting { setting, from, to });
        }
    }
    if link.group != device.group {
        edits.push(Edit::Group { from: link.group, to: device.group });
    }
    if let Some(name) = &device.journal.name
        && !link.alternative_names.contains(name)
    {
        edits.push(Edit::AddName(name.clone()));
    }
    if let Some(mtu) = device.mtu
        && link.mtu != mtu
    {
        edits.push(Edit::Mtu { from: link.mtu, to: mtu });
    }
    if !link.up {
        edits.push(Edit::Up { from: false, to: true });
    }
    edits
}

/// The journal last: as long as it is there, something may be left to undo.
fn restored(snapshot: &Snapshot, link: &Link, journal: &Journal) -> Vec<Edit> {
    let mut edits = Vec::new();
    if link.up && !journal.up {
        edits.push(Edit::Up { from: true, to: false });
    }
    let mut before = Vec::new();
    if let Some((default, prefix)) = journal.router_advertisements {
        before.extend([(ACCEPT_DEFAULT, default), (ACCEPT_PREFIX, prefix)]);
    }
    before.extend(journal.reverse_path_filter.map(|filter| (REVERSE_PATH_FILTER, filter)));
    for (setting, to) in before {
        if let Some(from) = snapshot.setting(link.index, setting)
            && from != to
        {
            edits.push(Edit::Setting { setting, from, to });
        }
    }
    if link.mtu != journal.mtu {
        edits.push(Edit::Mtu { from: link.mtu, to: journal.mtu });
    }
    if let Some(name) = &journal.name
        && link.alternative_names.contains(name)
    {
        edits.push(Edit::RemoveName(name.clone()));
    }
    if link.group != journal.group {
        edits.push(Edit::Group { from: link.group, to: journal.group });
    }
    edits.push(Edit::Alias { from: link.alias.clone(), to: journal.alias.clone() });
    edits
}

fn addresses(snapshot: &Snapshot, desired: &Desired, names: &Names, steps: &mut Steps) {
    let wanted: BTreeMap<u32, &Option<BTreeSet<IpAddr>>> =
        desired.interfaces.iter().map(|i| (i.index, &i.addresses)).collect();
    for is in snapshot.addresses.iter().filter(|address| address.protocol == OURS) {
        let stays = match wanted.get(&is.interface) {
            Some(Some(set)) => set.contains(&is.address.addr()),
            Some(None) => true,
            None => false,
        };
        if !stays {
            steps.addresses_off.push(Change {
                interface: names.interface(is.interface),
                edit: Edit::RemoveAddress(is.clone()),
            });
        }
    }
    let present: BTreeSet<(u32, IpAddr)> =
        snapshot.addresses.iter().map(|is| (is.interface, is.address.addr())).collect();
    for interface in &desired.interfaces {
        for ip in interface.addresses.iter().flatten() {
            // Whoever added it, with whatever prefix length: it is there.
            if !present.contains(&(interface.index, *ip)) {
                let mut address = address(interface.index, *ip);
                address.flags.deprecated = ip.is_ipv6() && keeps_source(snapshot, interface);
                steps.addresses_on.push(Change {
                    interface: names.interface(interface.index),
                    edit: Edit::AddAddress(address),
                });
            }
        }
    }
}

/// Of several IPv6 addresses of an interface, Linux gives new connections the one that was added
/// last. Those that the host begins through the primary go on coming from its own address: there
/// ours stand back, unless it has none.
fn keeps_source(snapshot: &Snapshot, interface: &DesiredInterface) -> bool {
    interface.role == Role::Primary
        && snapshot.addresses.iter().any(|is| {
            is.interface == interface.index
                && is.protocol != OURS
                && !is.flags.tentative
                && !is.flags.deprecated
                && matches!(is.address.addr(), IpAddr::V6(ip) if !ip.is_unicast_link_local())
        })
}

/// The interfaces that lose all the IPv4 addresses that they have. With the last one the kernel takes
/// the interface's IPv4 routes in every table, and tells nobody.
fn left_without_ipv4(snapshot: &Snapshot, steps: &Steps) -> BTreeSet<u32> {
    let mut count: BTreeMap<u32, usize> = BTreeMap::new();
    for is in snapshot.addresses.iter().filter(|is| is.address.addr().is_ipv4()) {
        *count.entry(is.interface).or_default() += 1;
    }
    for change in &steps.addresses_off {
        if let Edit::RemoveAddress(is) = &change.edit
            && is.address.addr().is_ipv4()
            && let Some(count) = count.get_mut(&is.interface)
        {
            *count = count.saturating_sub(1);
        }
    }
    count.into_iter().filter(|(_, left)| *left == 0).map(|(interface, _)| interface).collect()
}

fn rules(snapshot: &Snapshot, desired: &Desired, names: &Names, steps: &mut Steps) {
    let mut present = BTreeSet::new();
    let mut old = Vec::new();
    for is in snapshot.rules.iter().filter(|rule| rule.protocol == OURS) {
        // The kernel can hold the same rule twice; one is enough.
        if !present.insert(is) || !desired.rules.contains(is) {
            old.push(is.clone());
        }
    }
    let mut new: Vec<Rule> =
        desired.rules.iter().filter(|rule| !present.contains(rule)).cloned().collect();
    order_added(&mut new, desired.first_rule);
    order_removed(&mut old, desired.first_rule);
    let change = |rule: Rule, edit: fn(Rule) -> Edit| Change {
        interface: names.of_rule(&rule),
        edit: edit(rule),
    };
    steps.rules_on.extend(new.into_iter().map(|rule| change(rule, Edit::AddRule)));
    steps.rules_off.extend(old.into_iter().map(|rule| change(rule, Edit::RemoveRule)));
}

fn routes(snapshot: &Snapshot, desired: &Desired, names: &Names, steps: &mut Steps) {
    type Key = (IpNet, u32, u32, u8);
    let key = |route: &Route| -> Key { (route.destination, route.table, route.metric, route.tos) };
    let wanted: BTreeMap<Key, &Route> = desired.routes.iter().map(|r| (key(r), r)).collect();
    let present: BTreeSet<&Route> =
        snapshot.routes.iter().filter(|route| route.protocol == OURS).collect();
    let without_ipv4 = left_without_ipv4(snapshot, steps);
    let flushed = |route: &Route| {
        route.family() == Family::V4
            && route.next_hops.iter().any(|hop| without_ipv4.contains(&hop.interface))
    };
    let mut replaced = BTreeSet::new();
    for is in present.iter().copied().filter(|is| !desired.routes.contains(is)) {
        let kept = desired.kept_tables.contains(&is.table)
            || (is.table == MAIN
                && is.next_hops.iter().any(|h| desired.kept_interfaces.contains(&h.interface)));
        if kept {
            continue;
        }
        let removal = Change { interface: names.of_route(is), edit: Edit::RemoveRoute(is.clone()) };
        // The kernel has room for one route of this destination and metric.
        if wanted.contains_key(&key(is)) {
            replaced.insert(key(is));
            steps.routes_replaced.push(removal);
        } else if is.kind == RouteKind::Local {
            steps.prefixes_off.push(removal);
        } else {
            steps.routes_off.push(removal);
        }
    }
    // A subnet before what is reached through it, and the end last: who works by somebody else's rules
    // and table goes on to those until ours has everything.
    let mut missing: Vec<&Route> =
        desired.routes.iter().filter(|is| !present.contains(is) || flushed(is)).collect();
    let behind_gateway = |route: &Route| route.next_hops.iter().any(|hop| hop.gateway.is_some());
    missing.sort_by_key(|route| (route.table, is_end(route), behind_gateway(route)));
    let taken: BTreeSet<Key> =
        snapshot.routes.iter().filter(|is| is.protocol != OURS).map(key).collect();
    let moved = moved_to(snapshot, desired);
    for route in missing {
        if !taken.contains(&key(route)) {
            let edit = Edit::AddRoute(route.clone());
            let addition = Change { interface: names.of_route(route), edit };
            let loses_routes =
                || addition.interface.as_ref().is_some_and(|it| without_ipv4.contains(&it.index));
            // The addresses of a prefix of the host itself.
            if route.kind == RouteKind::Local {
                steps.addresses_on.push(addition);
            } else if is_end(route) && route.family() == Family::V4 && loses_routes() {
                steps.ends_on.push(addition);
            } else if moved.contains(&route.table) && !replaced.contains(&key(route)) {
                steps.routes_moved.push(addition);
            } else {
                steps.routes_on.push(addition);
            }
        }
    }
}

/// What keeps packets from going on to the next rule.
fn is_end(route: &Route) -> bool {
    route.kind == RouteKind::Unreachable && route.destination.prefix_len() == 0
}

/// The tables that are new to interfaces which work. The device is up already, so routes can be there
/// before rules lead to them: in a tree, no other rule is asked behind one whose table is empty.
fn moved_to(snapshot: &Snapshot, desired: &Desired) -> BTreeSet<u32> {
    let before: BTreeMap<u32, u32> = snapshot
        .journals()
        .filter(|(link, _)| link.up)
        .map(|(link, journal)| (link.index, journal.table))
        .collect();
    let tables =
        desired.interfaces.iter().filter_map(|is| Some((is.table?, before.get(&is.index)?)));
    tables.filter(|(to, from)| to != *from).map(|(to, _)| to).collect()
}
