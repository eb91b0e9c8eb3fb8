//! What the machine is like at one instant, as far as it matters here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{
    Address, Error, Family, Link, Route, RouteFilter, RouteKind, Rtnetlink, Rule,
};
use jackfield_metadata::MacAddr;

use crate::classify::Walk;
use crate::config::AgentConfig;
use crate::forwarding::Forwarding;
use crate::journal::Journal;
use crate::managers::Managers;
use crate::neighbours::Disk;

/// The protocol number of everything that is ours: addresses, routes and rules.
pub const OURS: u8 = 106;

/// Table main.
pub const MAIN: u32 = 254;

/// IPv6: whether a router advertisement gives table main a default route.
pub const ACCEPT_DEFAULT: Setting = Setting { family: Family::V6, name: "accept_ra_defrtr" };
/// IPv6: whether a router advertisement gives table main the subnet.
pub const ACCEPT_PREFIX: Setting = Setting { family: Family::V6, name: "accept_ra_pinfo" };
/// IPv6: whether the interface has none.
pub const DISABLE_IPV6: Setting = Setting { family: Family::V6, name: "disable_ipv6" };

/// IPv4: whether what arrives must come by the interface that leads back to its source (1), or by
/// any (2).
pub const REVERSE_PATH_FILTER: Setting = Setting { family: Family::V4, name: "rp_filter" };

const SETTINGS: [Setting; 4] = [ACCEPT_DEFAULT, ACCEPT_PREFIX, DISABLE_IPV6, REVERSE_PATH_FILTER];

/// What the machine is like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Every device.
    pub links: Vec<Link>,
    /// Every address. What is ours says so by its protocol, also on a kernel that does not keep it.
    pub addresses: Vec<Address>,
    /// Our routes in every table, main's routes through candidates, and everything in tables that
    /// we use or are about to use.
    pub routes: Vec<Route>,
    /// The tables of which it has every route.
    pub tables: BTreeSet<u32>,
    /// Every rule.
    pub rules: Vec<Rule>,
    /// Settings of candidates and of devices that have a journal, by interface index.
    pub settings: BTreeMap<(u32, Setting), i32>,
    /// Devices that udev has not finished with, where udev runs.
    pub awaiting_udev: BTreeSet<u32>,
    /// Which kinds of device may be cloud interfaces.
    pub device_kinds: Vec<String>,
    /// True where the kernel keeps an address's protocol (Linux 5.18); otherwise what is ours is
    /// told by markers in the table that [`marker_table`] names.
    pub keeps_address_protocol: bool,
    /// What is forwarded, and marked for that.
    pub forwarding: Forwarding,
    /// What there is of other network managers that carry out what jackfield wants.
    pub managers: Managers,
    /// What other managers of networks leave on disk.
    pub neighbours: Disk,
}

/// A device that may be a cloud interface.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The device.
    pub link: &'a Link,
    /// Its MAC.
    pub mac: MacAddr,
}

/// The table of markers: for each address of ours a route that nobody looks up, where the kernel
/// does not keep an address's protocol.
pub fn marker_table(agent: &AgentConfig) -> u32 {
    agent.table_base.saturating_sub(1)
}

/// The marker of an address.
pub fn marker(table: u32, address: &Address) -> Route {
    let host = IpNet::from(address.address.addr());
    Route {
        kind: RouteKind::Blackhole,
        metric: address.interface,
        protocol: OURS,
        ..Route::unreachable(host, table)
    }
}

/// A device of which there is news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The device, as last notified.
    pub link: Link,
    /// It came after everything was seen, and no address and no route of it was notified since: it
    /// has none.
    pub is_bare: bool,
}

impl Snapshot {
    /// Looks at the machine, in the calling thread's network namespace. `tables`: the tables that
    /// are about to be used.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn read(
        kernel: &mut Rtnetlink,
        agent: &AgentConfig,
        tables: &BTreeSet<u32>,
        keeps_address_protocol: bool,
    ) -> Result<Self, Error> {
        let mut snapshot = Snapshot {
            links: Link::list(kernel)?,
            device_kinds: agent.device_kinds.clone(),
            keeps_address_protocol,
            ..Snapshot::default()
        };
        let devices: BTreeSet<u32> = snapshot.links.iter().map(|link| link.index).collect();
        let candidates: Vec<u32> = snapshot.candidates().map(|is| is.link.index).collect();
        for family in families() {
            snapshot.addresses.extend(Address::list(kernel, family)?);
            snapshot.rules.extend(Rule::list(kernel, family)?);
            let ours = RouteFilter { protocol: Some(OURS), ..RouteFilter::default() };
            snapshot.routes.extend(Route::list(kernel, family, ours)?);
            for interface in &candidates {
                // By interface: main may hold the whole Internet.
                let filter = RouteFilter {
                    table: Some(MAIN),
                    interface: Some(*interface),
                    ..RouteFilter::default()
                };
                snapshot.routes.extend(Route::list(kernel, family, filter)?);
            }
        }
        snapshot.read_further(kernel, agent, tables, &devices)?;
        snapshot.forwarding = Forwarding::read(&snapshot.rules)?;
        Ok(snapshot)
    }

    /// Takes in news of devices, as their notifications describe them, and reads what else these
    /// devices have, and the tables that are about to be used. Nothing else is read, and
    /// nothing that waits for the lock that changes of devices hold.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn take_in(
        &mut self,
        kernel: &mut Rtnetlink,
        agent: &AgentConfig,
        news: Vec<News>,
        tables: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        let devices: BTreeSet<u32> = news.iter().map(|news| news.link.index).collect();
        let have_more = news.iter().filter(|news| !news.is_bare).map(|news| news.link.index);
        let have_more: Vec<u32> = have_more.collect();
        self.links.retain(|link| !devices.contains(&link.index));
        self.links.extend(news.into_iter().map(|news| news.link));
        self.links.sort_by_key(|link| link.index);
        self.addresses.retain(|address| !devices.contains(&address.interface));
        self.routes.retain(|route| !devices.iter().any(|device| route.uses(*device)));
        self.settings.retain(|(device, _), _| !devices.contains(device));
        for device in &have_more {
            for family in families() {
                self.addresses.extend(Address::list_of(kernel, family, *device)?);
                let filter = RouteFilter { interface: Some(*device), ..RouteFilter::default() };
                let mut routes = Route::list(kernel, family, filter)?;
                routes.retain(|route| {
                    route.table == MAIN
                        || route.protocol == OURS
                        || self.tables.contains(&route.table)
                });
                self.routes.extend(routes);
            }
        }
        self.read_further(kernel, agent, tables, &devices)
    }

    /// Takes in news of a device, as notified, that is about itself only: what it is called and
    /// which values it has. False, and nothing is taken in, where more may have changed with it.
    pub(crate) fn take_in_itself(&mut self, link: &Link) -> bool {
        let Some(seen) = self.links.iter_mut().find(|seen| seen.index == link.index) else {
            return false;
        };
        let itself = Link {
            name: link.name.clone(),
            alternative_names: link.alternative_names.clone(),
            alias: link.alias.clone(),
            mtu: link.mtu,
            group: link.group,
            ..seen.clone()
        };
        let of_itself = itself == *link;
        if of_itself {
            *seen = itself;
        }
        of_itself
    }

    /// Reads the tables that are not known yet, and what rtnetlink does not tell: the settings of
    /// these devices, and which devices udev has not finished with.
    fn read_further(
        &mut self,
        kernel: &mut Rtnetlink,
        agent: &AgentConfig,
        tables: &BTreeSet<u32>,
        devices: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        let mut tables = tables.clone();
        tables.extend(self.journals().map(|(_, journal)| journal.table));
        self.read_tables(kernel, &tables)?;
        if !self.keeps_address_protocol {
            self.believe_markers(marker_table(agent));
        }
        self.awaiting_udev = if jackfield_kernel::udev_runs() {
            let candidates = self.candidates().map(|is| is.link.index);
            candidates.filter(|index| !jackfield_kernel::udev_has_finished(*index)).collect()
        } else {
            BTreeSet::new()
        };
        let candidates = self.candidates().filter(|is| devices.contains(&is.link.index));
        let mut configurable: BTreeMap<u32, String> =
            candidates.map(|is| (is.link.index, is.link.name.clone())).collect();
        // What was plugged and is no candidate any more is given its settings back too.
        let journals = self.journals().filter(|(link, _)| devices.contains(&link.index));
        configurable.extend(journals.map(|(link, _)| (link.index, link.name.clone())));
        for (index, name) in configurable {
            let values = sysctl::read(index, &name, &SETTINGS)?;
            self.settings
                .extend(values.into_iter().map(|(setting, value)| ((index, setting), value)));
        }
        Ok(())
    }

    /// Reads those tables that are not known yet.
    pub(crate) fn read_tables(
        &mut self,
        kernel: &mut Rtnetlink,
        tables: &BTreeSet<u32>,
    ) -> Result<(), Error> {
        for table in tables {
            if !self.tables.insert(*table) {
                continue;
            }
            let filter = RouteFilter { table: Some(*table), ..RouteFilter::default() };
            for family in families() {
                self.routes.extend(Route::list(kernel, family, filter)?);
            }
        }
        self.routes.sort();
        self.routes.dedup();
        Ok(())
    }

    /// Routes are sorted by now.
    fn believe_markers(&mut self, table: u32) {
        for address in &mut self.addresses {
            // Ours is alone in its prefix; somebody else may have the same address with another.
            let alone = address.address.prefix_len() == address.address.max_prefix_len();
            let marked = alone && self.routes.binary_search(&marker(table, address)).is_ok();
            address.protocol = if marked { OURS } else { 0 };
        }
    }

    /// The devices that may be cloud interfaces: the first one of each MAC.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        let mut seen = BTreeSet::new();
        self.links.iter().filter_map(move |link| {
            let mac = MacAddr::from(link.address?);
            let may_be = may_be_cloud_interface(link, &self.device_kinds);
            (may_be && seen.insert(mac)).then_some(Candidate { link, mac })
        })
    }

    /// The devices that have a journal of ours, whatever they are now.
    pub fn journals(&self) -> impl Iterator<Item = (&Link, Journal)> {
        self.links.iter().filter_map(|link| Some((link, Journal::of(link)?)))
    }

    /// Our addresses on an interface.
    pub fn our_addresses(&self, interface: u32) -> impl Iterator<Item = &Address> {
        self.addresses.iter().filter(move |a| a.interface == interface && a.protocol == OURS)
    }

    /// The addresses of an interface that we work for: ours, and those of others for which we have
    /// a rule that leads to a table of the interface.
    pub(crate) fn served_addresses(
        &self,
        interface: u32,
        walk: &Walk<'_>,
    ) -> impl Iterator<Item = IpAddr> {
        let by_rule = move |ip: IpAddr| {
            walk.table_of(ip).is_some_and(|table| self.is_table_of(interface, table))
        };
        self.addresses
            .iter()
            .filter(move |is| is.interface == interface)
            .filter(move |is| is.protocol == OURS || by_rule(is.address.addr()))
            .map(|is| is.address.addr())
    }

    /// Whether the table is the interface's: its journal names it, or our routes in it go by the
    /// interface. Killed on the way to another table, it may work by the old one still.
    pub(crate) fn is_table_of(&self, interface: u32, table: u32) -> bool {
        self.link(interface).and_then(Journal::of).is_some_and(|journal| {
            let mut routes = self.routes.iter();
            journal.table == table
                || routes.any(|is| is.table == table && is.protocol == OURS && is.uses(interface))
        })
    }

    /// A setting of an interface; `None` where the kernel does not have it.
    pub fn setting(&self, interface: u32, setting: Setting) -> Option<i32> {
        self.settings.get(&(interface, setting)).copied()
    }

    /// The device of this index.
    pub fn link(&self, interface: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == interface)
    }
}

/// Whether a device may be a cloud interface, as far as the device itself tells.
pub(crate) fn may_be_cloud_interface(link: &Link, device_kinds: &[String]) -> bool {
    let kind = link.kind.as_deref().unwrap_or("physical");
    link.ethernet
        && device_kinds.iter().any(|accepted| accepted == kind)
        // A port of a bridge or bond belongs to that.
        && link.controller.is_none()
}

/// The families that the kernel has. One without IPv6 refuses its rules, and has none of its files.
fn families() -> impl Iterator<Item = Family> {
    let there = std::path::Path::new("/proc/sys/net/ipv6").exists();
    Family::BOTH.into_iter().filter(move |family| *family == Family::V4 || there)
}

/// Whether this kernel keeps the protocol of an address (Linux 5.18).
pub fn kernel_keeps_address_protocol() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 18),
        _ => false,
    }
}
