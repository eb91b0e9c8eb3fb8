//! What a packet's way depends on, as the kernel lists it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{
    Address, Error, Family, Link, NeighbourEntry, Route, RouteAnswer, RouteFilter, RouteKind,
    RouteQuery, RouteRefusal, Rtnetlink, SelectingRule,
};

use crate::change::write_route;
use crate::config::AgentConfig;
use crate::journal::Journal;
use crate::prefix::{self, LOCAL};
use crate::snapshot::{MAIN, REVERSE_PATH_FILTER, may_be_cloud_interface};

/// IPv4: whether what comes in by an interface is forwarded. IPv6: that of all interfaces counts.
const FORWARDING: &str = "forwarding";
/// IPv4: whether the mark counts when the reverse path is checked.
const SOURCE_VALID_MARK: Setting = Setting { family: Family::V4, name: "src_valid_mark" };
/// IPv4: whether a local source is accepted of what comes in.
const ACCEPT_LOCAL: Setting = Setting { family: Family::V4, name: "accept_local" };
/// Whether routes by an interface without a carrier are passed over.
const IGNORE_LINK_DOWN: &str = "ignore_routes_with_linkdown";

/// What the kernel is asked while something is explained.
pub trait Oracle {
    /// Where a packet would go.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    fn way(&mut self, query: &RouteQuery) -> Result<Result<RouteAnswer, RouteRefusal>, Error>;

    /// The neighbours of an interface.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    fn neighbours(&mut self, family: Family, interface: u32) -> Result<Vec<NeighbourEntry>, Error>;
}

impl Oracle for Rtnetlink {
    fn way(&mut self, query: &RouteQuery) -> Result<Result<RouteAnswer, RouteRefusal>, Error> {
        query.ask(self)
    }

    fn neighbours(&mut self, family: Family, interface: u32) -> Result<Vec<NeighbourEntry>, Error> {
        NeighbourEntry::list_of(self, family, interface)
    }
}

/// Settings of an interface, or of all together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// What comes in is forwarded.
    pub forwarding: bool,
    /// IPv4: 1 is strict, 2 loose.
    pub reverse_path_filter: i32,
    /// IPv4: the mark counts when the reverse path is checked.
    pub source_valid_mark: bool,
    /// IPv4: a source of this host's own is accepted.
    pub accept_local: bool,
    /// Routes are passed over without a carrier.
    pub ignore_link_down: bool,
}

/// What the machine is like, as far as it matters for packets between two addresses.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Every device.
    pub links: Vec<Link>,
    /// Every address of the family.
    pub addresses: Vec<Address>,
    /// Every rule of the family, in the kernel's order.
    pub rules: Vec<SelectingRule>,
    /// The routes of every table whose destination covers one of the two.
    pub routes: Vec<Route>,
    /// Settings by interface index.
    pub settings: BTreeMap<u32, Settings>,
    /// Settings of all interfaces together.
    pub all: Settings,
    /// The link group of cloud interfaces.
    pub group: u32,
    /// Which kinds of device may be cloud interfaces.
    pub device_kinds: Vec<String>,
    /// The user that the kernel takes for the sender where none is named.
    pub user: u32,
}

impl Facts {
    /// Looks at the machine, in the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn read(
        kernel: &mut Rtnetlink,
        ends: [IpAddr; 2],
        agent: &AgentConfig,
    ) -> Result<Self, Error> {
        let family = Family::of(ends[0]);
        let covers = |route: &Route| ends.iter().any(|end| route.destination.contains(end));
        let mut facts = Facts {
            links: Link::list(kernel)?,
            addresses: Address::list(kernel, family)?,
            rules: SelectingRule::list(kernel, family)?,
            routes: Route::list_where(kernel, family, RouteFilter::default(), covers)?,
            group: agent.link_group,
            device_kinds: agent.device_kinds.clone(),
            user: jackfield_kernel::effective_user_and_group().0,
            ..Facts::default()
        };
        let of = |name| Setting { family, name };
        let wanted = [
            of(FORWARDING),
            REVERSE_PATH_FILTER,
            SOURCE_VALID_MARK,
            ACCEPT_LOCAL,
            of(IGNORE_LINK_DOWN),
        ];
        let take = |value: &dyn Fn(Setting) -> Option<i32>| {
            let [forwarding, filter, mark, local, down] =
                wanted.map(|setting| value(setting).unwrap_or(0));
            Settings {
                forwarding: forwarding != 0,
                reverse_path_filter: filter,
                source_valid_mark: mark != 0,
                accept_local: local != 0,
                ignore_link_down: down != 0,
            }
        };
        facts.all = take(&|setting| sysctl::read_of_all(setting));
        for link in &facts.links {
            let values = sysctl::read(link.index, &link.name, &wanted)?;
            let value =
                |setting| values.iter().find(|(is, _)| *is == setting).map(|(_, value)| *value);
            facts.settings.insert(link.index, take(&value));
        }
        Ok(facts)
    }

    pub(super) fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    pub(super) fn name(&self, index: u32) -> Cow<'_, str> {
        match self.link(index) {
            Some(link) => Cow::Borrowed(link.name.as_str()),
            None => Cow::Owned(format!("interface {index}")),
        }
    }

    pub(super) fn link_named(&self, name: &str) -> Option<&Link> {
        let is = |link: &&Link| {
            link.name == name || link.alternative_names.iter().any(|other| other == name)
        };
        self.links.iter().find(is)
    }

    pub(super) fn settings(&self, index: u32) -> Settings {
        self.settings.get(&index).copied().unwrap_or_default()
    }

    /// Whether packets to the address are received here.
    pub(super) fn is_local(&self, ip: IpAddr) -> bool {
        let covering = self.routes.iter().filter(|route| route.table == LOCAL);
        let covering = covering.filter(|route| route.destination.contains(&ip));
        let longest = covering.max_by_key(|route| route.destination.prefix_len());
        longest.is_some_and(|route| route.kind == RouteKind::Local)
    }

    /// The interface that has the address, or to which the prefix is delegated that it is in.
    pub(super) fn owner(&self, ip: IpAddr) -> Option<&Link> {
        let has = self.addresses.iter().find(|address| address.address.addr() == ip);
        let delegated = || {
            let of = |route: &&Route| route.destination.contains(&ip);
            self.routes.iter().filter(of).find_map(prefix::interface_of)
        };
        let index = has.map(|address| address.interface).or_else(delegated)?;
        self.link(index)
    }

    /// The routing table of an interface that jackfield has plugged.
    pub(super) fn plugged(link: &Link) -> Option<u32> {
        Journal::of(link).map(|journal| journal.table)
    }

    /// Whether the interface could be plugged, as far as the device itself tells.
    pub(super) fn could_be_plugged(&self, link: &Link) -> bool {
        Self::plugged(link).is_none()
            && !self.is_cloud_interface(link)
            && may_be_cloud_interface(link, &self.device_kinds)
    }

    /// Whether it is known that the cloud checks what leaves by the interface.
    pub(super) fn is_cloud_interface(&self, link: &Link) -> bool {
        link.group == self.group && self.links.iter().any(|any| Self::plugged(any).is_some())
    }

    pub(super) fn route_text(&self, route: &Route) -> String {
        struct Text<'a>(&'a Facts, &'a Route);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_route(f, self.1, &|index| self.0.name(index))
            }
        }
        Text(self, route).to_string()
    }
}

/// A table by the name that it has in iproute2.
pub(super) fn table_name(table: u32) -> Cow<'static, str> {
    match table {
        LOCAL => Cow::Borrowed("local"),
        MAIN => Cow::Borrowed("main"),
        253 => Cow::Borrowed("default"),
        table => Cow::Owned(table.to_string()),
    }
}
