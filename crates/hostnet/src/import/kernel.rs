//! Which rules, routes and addresses in the kernel are the tools'.
//!
//! What they make, by their sources: in a table of an interface a default route and the subnet, by the
//! interface (`ip route add`, route-NAME of initscripts, `[Route]` of networkd); in main the same of
//! the DHCP client, and a default route whose metric is the table's number (1.x) or 512 and the slot's
//! (2.x); rules from the interface's addresses and prefixes to the table, at the priority that
//! the kernel gives (1.x) or at the table's number (2.x); addresses with the subnet's prefix length.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::{Address, Link, Mark, Route, RouteKind, Rule, RuleAction};
use jackfield_metadata::MacAddr;

use super::Tool;
use crate::cloud::{Cloud, CloudInterface};
use crate::snapshot::{MAIN, OURS, Snapshot};

/// `rule_base` and `RTABLE`: what the numbers of tables begin with.
const BASE: u32 = 10_000;
/// `metric_base` of lib.sh.
const METRIC: u32 = 512;
/// Where the kernel begins, downwards, with rules of which nobody said the priority.
const GIVEN: std::ops::Range<u32> = 30_000..32_766;

/// The tables of all interfaces that an instance may have.
pub(crate) const OTHERS: std::ops::Range<u32> = BASE + 1..BASE + 3_200;

/// What `ip rule add` says of the protocol.
const NOBODY: u8 = 0;
const KERNEL: u8 = 2;
const BOOT: u8 = 3;
const STATIC: u8 = 4;
const ADVERTISED: u8 = 9;
const DHCP: u8 = 16;

/// What is the tools' of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Theirs {
    pub(super) rules: Vec<Rule>,
    pub(super) routes: Vec<Route>,
    /// Addresses that metadata lists and somebody else added.
    pub(super) addresses: Vec<Address>,
    /// What leads to the tables and is in them, and is not of the tools' shape.
    pub(super) strange: Vec<String>,
}

/// The tables that the tools may have given an interface.
pub(super) fn tables(
    link: &Link,
    known: Option<&CloudInterface>,
    tools: &BTreeSet<Tool>,
) -> BTreeSet<u32> {
    let mut tables = BTreeSet::new();
    if tools.iter().any(|tool| *tool != Tool::Ec2NetUtils2) {
        tables.extend(by_name(&link.name));
    }
    if tools.contains(&Tool::Ec2NetUtils2) {
        tables.extend(known.and_then(|known| known.slot).map(|slot| slot.table(BASE)));
    }
    tables
}

/// The table of an interface of this name: `RTABLE=${INTERFACE#eth}`, plus 10000.
pub(crate) fn by_name(name: &str) -> Option<u32> {
    let number: u32 = name.strip_prefix("eth")?.parse().ok()?;
    BASE.checked_add(number).filter(|table| OTHERS.contains(table))
}

/// Looks for it.
pub(super) fn theirs(
    snapshot: &Snapshot,
    link: &Link,
    known: &CloudInterface,
    tables: &BTreeSet<u32>,
    tools: &BTreeSet<Tool>,
) -> Theirs {
    let mut theirs = Theirs {
        addresses: snapshot
            .addresses
            .iter()
            // Ours are valid for ever, also where the kernel does not keep whose they are.
            .filter(|is| is.interface == link.index)
            .filter(|is| is.protocol != OURS || !is.flags.permanent)
            .filter(|is| known.addresses.contains(&is.address.addr()))
            .cloned()
            .collect(),
        ..Theirs::default()
    };
    for rule in snapshot.rules.iter().filter(|rule| rule.protocol != OURS) {
        let RuleAction::Table(table) = rule.action else { continue };
        if !tables.contains(&table) {
            continue;
        }
        if is_their_rule(rule, table, known, tools) {
            theirs.rules.push(rule.clone());
        } else {
            let what = rule.source.map_or("all".to_owned(), |source| source.to_string());
            theirs.strange.push(format!("rule {}: from {what} lookup {table}", rule.priority));
        }
    }
    for route in snapshot.routes.iter().filter(|route| route.protocol != OURS && !route.special) {
        if tables.contains(&route.table) {
            if is_their_route(snapshot, route, link.index, known) {
                theirs.routes.push(route.clone());
            } else {
                let (to, table) = (route.destination, route.table);
                theirs.strange.push(format!("route {to} in table {table}"));
            }
        } else if route.table == MAIN
            && route.next_hops.iter().all(|hop| hop.interface == link.index)
            && is_theirs_in_main(route, tables, known, tools, &theirs.addresses)
        {
            theirs.routes.push(route.clone());
        }
    }
    theirs
}

/// Rules to tables that nobody has: the kernel takes routes and addresses away with a device, but not
/// rules.
pub(super) fn orphans(snapshot: &Snapshot, cloud: &Cloud, tools: &BTreeSet<Tool>) -> Vec<Rule> {
    // Of an interface that is down the table is empty.
    let here: BTreeSet<u32> = snapshot
        .links
        .iter()
        .flat_map(|link| {
            let known = link.address.and_then(|mac| cloud.interfaces.get(&MacAddr::from(mac)));
            let slot = known.and_then(|known| known.slot);
            by_name(&link.name).into_iter().chain(slot.map(|slot| slot.table(BASE)))
        })
        .collect();
    let used = |table: u32| {
        here.contains(&table)
            || snapshot.routes.iter().any(|route| route.table == table)
            || snapshot.journals().any(|(_, journal)| journal.table == table)
    };
    let is_orphan = |rule: &&Rule| {
        let RuleAction::Table(table) = rule.action else { return false };
        let shape = Shape::of(rule, table, tools);
        rule.protocol != OURS
            && OTHERS.contains(&table)
            && shape.plain
            && (shape.of_shell || shape.of_networkd)
            && rule.source.is_some_and(|it| rule.mark.is_none() && it.prefix_len() > 0)
            && !used(table)
    };
    snapshot.rules.iter().filter(is_orphan).cloned().collect()
}

/// What a rule is like, whatever it selects.
struct Shape {
    plain: bool,
    of_shell: bool,
    of_networkd: bool,
}

impl Shape {
    fn of(rule: &Rule, table: u32, tools: &BTreeSet<Tool>) -> Self {
        Shape {
            plain: !rule.selects_further
                && rule.destination.is_none()
                && rule.input_interface.is_none()
                && rule.output_interface.is_none()
                && rule.suppress_group.is_none()
                && rule.suppress_prefix_length.is_none(),
            of_shell: tools.iter().any(|tool| *tool != Tool::Ec2NetUtils2)
                && GIVEN.contains(&rule.priority)
                && [NOBODY, BOOT].contains(&rule.protocol),
            of_networkd: tools.contains(&Tool::Ec2NetUtils2)
                && rule.priority == table
                && [NOBODY, STATIC].contains(&rule.protocol),
        }
    }
}

fn is_their_rule(rule: &Rule, table: u32, known: &CloudInterface, tools: &BTreeSet<Tool>) -> bool {
    let Shape { plain, of_shell, of_networkd } = Shape::of(rule, table, tools);
    let selects = match (rule.source, rule.mark) {
        (Some(source), None) => is_of(source, known),
        // `fwmark 0x${RTABLE}`: the decimal number, read as a hexadecimal one.
        (None, Some(Mark { value, mask: u32::MAX })) => {
            of_shell && u32::from_str_radix(&table.to_string(), 16) == Ok(value)
        }
        _ => false,
    };
    plain && selects && (of_shell || of_networkd)
}

/// Whether it is an address or a delegated prefix of the interface, or one that it had: in its subnet.
fn is_of(source: IpNet, known: &CloudInterface) -> bool {
    known.prefixes.contains(&source)
        || known.addresses.contains(&source.addr())
        || source.prefix_len() == source.max_prefix_len()
            && known.subnet_of(source.addr()).is_some()
}

fn is_their_route(
    snapshot: &Snapshot,
    route: &Route,
    interface: u32,
    known: &CloudInterface,
) -> bool {
    let by_interface = route.next_hops.iter().all(|hop| hop.interface == interface);
    let has_gateway = route.next_hops.iter().any(|hop| hop.gateway.is_some());
    let everything = route.destination.prefix_len() == 0;
    let of_subnet =
        !has_gateway && known.subnets.iter().any(|net| net.trunc() == route.destination);
    let of_lease = [DHCP, ADVERTISED].contains(&route.protocol);
    // The tool adds docker0's to the table; rule 14000 finds it in main.
    let docker = snapshot.links.iter().find(|link| link.name == "docker0");
    let of_docker = !has_gateway
        && !everything
        && docker
            .is_some_and(|docker| route.next_hops.iter().all(|hop| hop.interface == docker.index));
    route.kind == RouteKind::Unicast
        && ((by_interface && ((everything && has_gateway) || of_subnet || of_lease)) || of_docker)
}

fn is_theirs_in_main(
    route: &Route,
    tables: &BTreeSet<u32>,
    known: &CloudInterface,
    tools: &BTreeSet<Tool>,
    addresses: &[Address],
) -> bool {
    if route.kind != RouteKind::Unicast {
        return false;
    }
    // It goes with the address, or is left of it.
    let of_address = route.protocol == KERNEL
        && addresses.iter().any(|is| {
            is.address.trunc() == route.destination
                && route.preferred_source.is_none_or(|source| source == is.address.addr())
        });
    let everything = route.destination.prefix_len() == 0;
    // The tool gives it the table's number as metric, dhclient-script that of the stanza or none.
    let of_shell = tools.iter().any(|tool| *tool != Tool::Ec2NetUtils2)
        && route.protocol == BOOT
        && everything
        && (tables.contains(&route.metric) || by_router(route, known));
    let slot = known.slot.map(|slot| METRIC.saturating_add(slot.offset()));
    let by_slot = tools.contains(&Tool::Ec2NetUtils2)
        && Some(route.metric) == slot
        && [DHCP, ADVERTISED, KERNEL, STATIC].contains(&route.protocol);
    of_address || of_shell || by_slot
}

/// By a router of the interface's subnets.
fn by_router(route: &Route, known: &CloudInterface) -> bool {
    let gateways = || route.next_hops.iter().filter_map(|hop| hop.gateway);
    gateways().next().is_some() && gateways().all(|gateway| known.subnet_of(gateway).is_some())
}

/// An address of others that would go with those of the tools: the kernel removes all of a subnet with
/// the first of them.
pub(super) fn bystander(snapshot: &Snapshot, theirs: &Theirs) -> Option<IpAddr> {
    let goes = |is: &Address| is.address.addr().is_ipv4() && is.address.prefix_len() < 32;
    snapshot
        .addresses
        .iter()
        .filter(|is| is.protocol != OURS && goes(is) && !theirs.addresses.contains(is))
        .find(|is| {
            theirs.addresses.iter().any(|theirs| {
                theirs.interface == is.interface && theirs.address.trunc() == is.address.trunc()
            })
        })
        .map(|is| is.address.addr())
}

/// The machine as if the tools had never been here.
pub(super) fn without(
    snapshot: &Snapshot,
    theirs: &[Theirs],
    files: &BTreeSet<String>,
) -> Snapshot {
    let mut snapshot = snapshot.clone();
    let all = || theirs.iter();
    snapshot.routes.retain(|is| !all().any(|theirs| theirs.routes.contains(is)));
    snapshot.addresses.retain(|is| !all().any(|theirs| theirs.addresses.contains(is)));
    snapshot.rules.retain(|is| !all().any(|theirs| theirs.rules.contains(is)));
    snapshot.neighbours = snapshot.neighbours.without(files);
    snapshot
}
