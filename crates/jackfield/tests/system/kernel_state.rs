//! A host's network as the kernel lists it: what `NetworkState` compares, without starting a
//! process, and in types that questions can be asked of.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::{Address, Family, Link, Route, RouteFilter, Rtnetlink, Rule, RuleAction};
use jackfield_lab::Host;

/// The protocol number of what jackfield adds.
const OURS: u8 = 106;
/// `RTPROT_KERNEL`.
const KERNEL: u8 = 2;
const SETTINGS: [&str; 3] = ["accept_ra_defrtr", "accept_ra_pinfo", "disable_ipv6"];

/// Looks at one host, again and again.
pub(crate) struct Observer<'a> {
    host: &'a Host,
    kernel: Rtnetlink,
}

/// What was seen. What the kernel does by itself a while after an interface came up or was given an
/// address is left out: carrier, the link-local address, IPv6 routes of its own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KernelState {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    pub(crate) routes: BTreeSet<Route>,
    pub(crate) rules: Vec<Rule>,
    settings: BTreeSet<String>,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        let kernel = Rtnetlink::open_in(host.namespace()).unwrap();
        Observer { host, kernel }
    }

    pub(crate) fn look(&mut self) -> KernelState {
        let kernel = &mut self.kernel;
        let mut links = Link::list(kernel).unwrap();
        links.iter_mut().for_each(|link| link.carrier = false);
        let mut addresses = Vec::new();
        let mut routes = BTreeSet::new();
        let mut rules = Vec::new();
        for family in Family::BOTH {
            addresses.extend(Address::list(kernel, family).unwrap());
            routes.extend(Route::list(kernel, family, RouteFilter::default()).unwrap());
            rules.extend(Rule::list(kernel, family).unwrap());
        }
        addresses.retain(|address| !is_link_local(address.address));
        addresses.sort_by_key(|address| (address.interface, address.address));
        let by_itself = |route: &Route| route.protocol == KERNEL && route.family() == Family::V6;
        routes.retain(|route| !by_itself(route));
        rules.sort();
        let settings = self.host.run(|| settings(&links)).unwrap();
        KernelState { links, addresses, routes, rules, settings }
    }
}

impl KernelState {
    pub(crate) fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// Our addresses on secondary interfaces.
    pub(crate) fn our_addresses(&self) -> impl Iterator<Item = &Address> {
        let primary = self.link("eth0").map(|link| link.index);
        let ours = self.addresses.iter().filter(|address| address.protocol == OURS);
        ours.filter(move |address| Some(address.interface) != primary)
    }

    pub(crate) fn our_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().filter(|rule| rule.protocol == OURS)
    }

    pub(crate) fn our_routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(|route| route.protocol == OURS)
    }

    /// True where something of it is ours.
    pub(crate) fn has_ours(&self) -> bool {
        let journal = |link: &Link| link.alias.as_deref().is_some_and(|a| a.contains("jackfield"));
        self.our_rules().next().is_some()
            || self.our_routes().next().is_some()
            || self.addresses.iter().any(|address| address.protocol == OURS)
            || self.links.iter().any(journal)
    }

    /// By what our addresses could be used other than by their own interface; nothing where all is
    /// well.
    pub(crate) fn wrong_paths(&self) -> Vec<String> {
        let problems = self.our_addresses().filter_map(|address| {
            let problem = self.wrong_path(address.address.addr())?;
            Some(format!("{}: {problem}", address.address))
        });
        problems.collect()
    }

    /// The table to which our rules lead packets from this address, and the rule's priority.
    fn leads(&self, ip: IpAddr) -> Option<(u32, u32)> {
        let mut ours: Vec<&Rule> =
            self.our_rules().filter(|rule| rule.family == Family::of(ip)).collect();
        ours.sort_by_key(|rule| rule.priority);
        let mut at = 0;
        while let Some(rule) = ours.get(at) {
            at += 1;
            match rule.action {
                _ if rule.source.is_some_and(|source| !source.contains(&ip)) => {}
                RuleAction::Table(254) => {}
                RuleAction::Table(table) => return Some((table, rule.priority)),
                RuleAction::Goto(to) => {
                    at = ours.iter().position(|rule| rule.priority == to).unwrap_or(at);
                }
                _ => {}
            }
        }
        None
    }

    fn wrong_path(&self, ip: IpAddr) -> Option<&'static str> {
        let family = Family::of(ip);
        let Some((table, priority)) = self.leads(ip) else {
            return Some("there is no rule for it as a source");
        };
        let everything =
            |route: &&Route| route.table == table && route.destination == family.everything();
        if self.routes.iter().find(everything).is_none() {
            return Some("its table neither routes nor refuses everything");
        }
        let Some(primary) = self.link("eth0") else { return Some("there is no primary") };
        let before_main = |rule: &&Rule| {
            rule.suppress_group == Some(primary.group)
                && rule.suppress_prefix_length == Some(0)
                && rule.family == family
                && rule.priority < priority
        };
        // Without that rule main is not asked at all: harmless, if not what is wanted.
        let asks_main = |rule: &&Rule| {
            rule.action == RuleAction::Table(254)
                && rule.family == family
                && rule.priority < priority
                && !before_main(rule)
        };
        if self.rules.iter().any(|rule| asks_main(&rule)) {
            return Some("main's routes by the primary are asked before its table");
        }
        None
    }

    fn lines(&self) -> BTreeSet<String> {
        let mut lines = self.settings.clone();
        lines.extend(self.links.iter().map(|link| format!("{link:?}")));
        lines.extend(self.addresses.iter().map(|address| format!("{address:?}")));
        lines.extend(self.routes.iter().map(|route| format!("{route:?}")));
        lines.extend(self.rules.iter().map(|rule| format!("{rule:?}")));
        lines
    }

    /// What the other has less (-) and more (+).
    pub(crate) fn difference(&self, other: &KernelState) -> String {
        let (one, other) = (self.lines(), other.lines());
        let lost = one.difference(&other).map(|line| format!("- {line}\n"));
        let new = other.difference(&one).map(|line| format!("+ {line}\n"));
        lost.chain(new).collect()
    }

    /// Fails where the two differ, with what was done and what differs.
    #[track_caller]
    pub(crate) fn assert_is(&self, expected: &KernelState, when: &str) {
        assert!(self == expected, "{when}, the network differs:\n{}", expected.difference(self));
    }
}

impl std::fmt::Debug for KernelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.lines().iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn settings(links: &[Link]) -> BTreeSet<String> {
    let keys = links.iter().flat_map(|link| SETTINGS.map(|key| (&link.name, key)));
    let read = keys.filter_map(|(name, key)| {
        let value =
            std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{name}/{key}")).ok()?;
        Some(format!("{name} {key}={}", value.trim()))
    });
    read.collect()
}

fn is_link_local(net: IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}
