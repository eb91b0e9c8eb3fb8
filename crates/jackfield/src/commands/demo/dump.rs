//! Everything of an instance's network that the kernel tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use jackfield_hostnet::{MAIN, OURS};
use jackfield_kernel::{Address, Family, Link, Route, RouteFilter, Rtnetlink, Rule, RuleAction};
use jackfield_lab::Instance;

/// Devices, addresses, routes of every table, rules.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dump {
    devices: Vec<Link>,
    /// Of each family, as the kernel lists them.
    addresses: Vec<Address>,
    routes: Vec<Route>,
    rules: Vec<Rule>,
}

impl Dump {
    pub(super) fn of(instance: &Instance) -> Result<Self, String> {
        Self::read(instance)
            .map_err(|error| format!("read the network of {}: {error}", instance.name()))
    }

    fn read(instance: &Instance) -> Result<Self, jackfield_kernel::Error> {
        let mut kernel = Rtnetlink::open_in(instance.namespace())?;
        let kernel = &mut kernel;
        let devices = Link::list(kernel)?;
        let (mut addresses, mut routes, mut rules) = (Vec::new(), Vec::new(), Vec::new());
        for family in Family::BOTH {
            addresses.extend(Address::list(kernel, family)?);
            routes.extend(Route::list(kernel, family, RouteFilter::default())?);
            rules.extend(Rule::list(kernel, family)?);
        }
        routes.sort();
        rules.sort();
        Ok(Dump { devices, addresses, routes, rules })
    }

    /// The first thing in which another one differs.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        fn first<T: PartialEq + std::fmt::Debug>(before: &[T], after: &[T]) -> Option<String> {
            let new = after.iter().find(|thing| !before.contains(thing));
            let lost = before.iter().find(|thing| !after.contains(thing));
            new.map(|thing| format!("new: {thing:?}"))
                .or_else(|| lost.map(|thing| format!("lost: {thing:?}")))
        }
        first(&self.devices, &other.devices)
            .or_else(|| first(&self.addresses, &other.addresses))
            .or_else(|| first(&self.routes, &other.routes))
            .or_else(|| first(&self.rules, &other.rules))
            // The same things, in another order or number.
            .or_else(|| (self != other).then(|| "not as often as before".to_owned()))
    }

    /// The tables that hold our routes through the devices that have these addresses.
    pub(super) fn tables_of(&self, addresses: &[IpAddr]) -> BTreeSet<u32> {
        let holders: BTreeSet<u32> = self
            .addresses
            .iter()
            .filter(|is| addresses.contains(&is.address.addr()))
            .map(|is| is.interface)
            .collect();
        let routes = self.routes.iter().filter(|route| {
            route.protocol == OURS
                && route.table != MAIN
                && holders.iter().any(|holder| route.uses(*holder))
        });
        routes.map(|route| route.table).collect()
    }

    /// The first that is there of these addresses, of rules that lead to these tables, and of
    /// routes in them.
    pub(super) fn what_is_left(
        &self,
        addresses: &[IpAddr],
        tables: &BTreeSet<u32>,
    ) -> Option<String> {
        let address = self.addresses.iter().find(|is| addresses.contains(&is.address.addr()));
        let rule = self.rules.iter().find(
            |rule| matches!(rule.action, RuleAction::Table(table) if tables.contains(&table)),
        );
        let route = self.routes.iter().find(|route| tables.contains(&route.table));
        address
            .map(|address| format!("{address:?}"))
            .or_else(|| rule.map(|rule| format!("{rule:?}")))
            .or_else(|| route.map(|route| format!("{route:?}")))
    }
}

impl std::fmt::Display for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} devices, {} addresses, {} routes in all tables, {} rules",
            self.devices.len(),
            self.addresses.len(),
            self.routes.len(),
            self.rules.len()
        )
    }
}

/// Every setting under /proc/sys/net of every device, by its path.
pub(super) fn settings(instance: &Instance) -> Result<BTreeMap<String, String>, String> {
    let attempt = |error: String| format!("read the settings of {}: {error}", instance.name());
    let read = instance.run(|| -> std::io::Result<_> {
        let mut settings = BTreeMap::new();
        for part in ["ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"] {
            let part = Path::new("/proc/sys/net").join(part);
            // A kernel without IPv6 has no such part.
            let Ok(devices) = std::fs::read_dir(part) else { continue };
            for device in devices {
                for file in std::fs::read_dir(device?.path())? {
                    let path = file?.path();
                    // Some can only be written, some not before they were.
                    if let Ok(value) = std::fs::read_to_string(&path) {
                        settings.insert(path.display().to_string(), value);
                    }
                }
            }
        }
        Ok(settings)
    });
    read.map_err(|error| attempt(error.to_string()))?.map_err(|error| attempt(error.to_string()))
}
