//! One change of the machine, as a value: what it was, what it becomes, and how to ask for it.

use std::borrow::Cow;
use std::fmt;

use jackfield_kernel::sysctl::Setting;
use jackfield_kernel::{
    Address, ConnectionMarks, Family, Link, LinkChange, Mark, Request, Route, RouteKind, Rule,
    RuleAction,
};
use jackfield_metadata::MacAddr;
use serde_json::{Value, json};

use crate::carry::Work;
use crate::prefix::{LOCAL, LOOPBACK};
use crate::snapshot::MAIN;

/// The interface that a change is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceRef {
    /// Interface index.
    pub index: u32,
    /// Name when the change was planned.
    pub name: String,
    /// MAC.
    pub mac: Option<MacAddr>,
}

/// A change: one request to the kernel, or one write to a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The interface that it is about; `None` where that is gone, or it is about all.
    pub interface: Option<InterfaceRef>,
    /// What is done.
    pub edit: Edit,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// Administratively up or down.
    Up {
        /// Before.
        from: bool,
        /// After.
        to: bool,
    },
    /// MTU in octets.
    Mtu {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// Link group.
    Group {
        /// Before.
        from: u32,
        /// After.
        to: u32,
    },
    /// Alias, which holds the journal.
    Alias {
        /// Before.
        from: Option<String>,
        /// After.
        to: Option<String>,
    },
    /// A setting under `/proc/sys`.
    Setting {
        /// Which.
        setting: Setting,
        /// Before.
        from: i32,
        /// After.
        to: i32,
    },
    /// A new alternative name.
    AddName(String),
    /// An alternative name less.
    RemoveName(String),
    /// A new address.
    AddAddress(Address),
    /// An address less.
    RemoveAddress(Address),
    /// A new route.
    AddRoute(Route),
    /// A route less.
    RemoveRoute(Route),
    /// A new rule.
    AddRule(Rule),
    /// A rule less.
    RemoveRule(Rule),
    /// The table of connection marks.
    Marks {
        /// Before; `None` where there was none, or one that somebody had changed.
        from: Option<ConnectionMarks>,
        /// After.
        to: Option<ConnectionMarks>,
    },
    /// What another network manager is told.
    Carry(Work),
}

impl Change {
    /// The request that makes it; `None` for a setting, which is a file, for marks, which are a
    /// transaction of nf_tables, and for what another manager is told.
    pub fn request(&self) -> Option<Request> {
        let index = self.interface.as_ref().map_or(0, |interface| interface.index);
        let link = |change: LinkChange<'_>| Some(change.request(index));
        match &self.edit {
            Edit::Up { to, .. } => link(LinkChange { up: Some(*to), ..LinkChange::default() }),
            Edit::Mtu { to, .. } => link(LinkChange { mtu: Some(*to), ..LinkChange::default() }),
            Edit::Group { to, .. } => {
                link(LinkChange { group: Some(*to), ..LinkChange::default() })
            }
            Edit::Alias { to, .. } => {
                let alias = Some(to.as_deref().unwrap_or_default());
                link(LinkChange { alias, ..LinkChange::default() })
            }
            Edit::Setting { .. } | Edit::Marks { .. } | Edit::Carry(_) => None,
            Edit::AddName(name) => Some(Link::add_alternative_name(index, name)),
            Edit::RemoveName(name) => Some(Link::remove_alternative_name(index, name)),
            Edit::AddAddress(address) => Some(address.add()),
            Edit::RemoveAddress(address) => Some(address.remove()),
            Edit::AddRoute(route) => Some(route.add()),
            Edit::RemoveRoute(route) => Some(route.remove()),
            Edit::AddRule(rule) => Some(rule.add()),
            Edit::RemoveRule(rule) => Some(rule.remove()),
        }
    }

    /// The table, from this one on, that it removes a rule or a route of, of an interface that is gone.
    pub(crate) fn table_of_gone(&self, table_base: u32) -> Option<u32> {
        let table = match &self.edit {
            Edit::RemoveRule(rule) => match rule.action {
                RuleAction::Table(table) => table,
                _ => return None,
            },
            Edit::RemoveRoute(route) => route.table,
            _ => return None,
        };
        let of_interface = table != MAIN && table >= table_base;
        (self.interface.is_none() && of_interface).then_some(table)
    }

    /// `add`, `remove` or `change`.
    pub fn action(&self) -> &'static str {
        match &self.edit {
            Edit::AddName(_)
            | Edit::AddAddress(_)
            | Edit::AddRoute(_)
            | Edit::AddRule(_)
            | Edit::Marks { from: None, to: Some(_) } => "add",
            Edit::Carry(work) => match (work.remove.is_empty(), work.write.is_empty()) {
                (true, false) => "add",
                (false, true) => "remove",
                _ => "change",
            },
            Edit::Marks { to: None, .. }
            | Edit::RemoveName(_)
            | Edit::RemoveAddress(_)
            | Edit::RemoveRoute(_)
            | Edit::RemoveRule(_) => "remove",
            Edit::Up { .. }
            | Edit::Mtu { .. }
            | Edit::Group { .. }
            | Edit::Alias { .. }
            | Edit::Setting { .. }
            | Edit::Marks { .. } => "change",
        }
    }

    /// What kind of thing it is about.
    pub fn object(&self) -> &'static str {
        match &self.edit {
            Edit::Up { .. } | Edit::Mtu { .. } | Edit::Group { .. } | Edit::Alias { .. } => "link",
            Edit::Setting { .. } => "sysctl",
            Edit::AddName(_) | Edit::RemoveName(_) => "altname",
            Edit::AddAddress(_) | Edit::RemoveAddress(_) => "address",
            Edit::AddRoute(_) | Edit::RemoveRoute(_) => "route",
            Edit::AddRule(_) | Edit::RemoveRule(_) => "rule",
            Edit::Marks { .. } => "mark",
            Edit::Carry(_) => "file",
        }
    }

    /// The address family that it is about, where it is about one.
    pub fn family(&self) -> Option<Family> {
        match &self.edit {
            Edit::AddAddress(address) | Edit::RemoveAddress(address) => {
                Some(Family::of(address.address.addr()))
            }
            Edit::AddRoute(route) | Edit::RemoveRoute(route) => Some(route.family()),
            Edit::AddRule(rule) | Edit::RemoveRule(rule) => Some(rule.family),
            Edit::Setting { setting, .. } => Some(setting.family),
            _ => None,
        }
    }

    /// The change as the interface that people script against has it.
    pub fn to_json(&self) -> Value {
        let (before, after) = self.before_and_after();
        json!({
            "interface": self.interface.as_ref().map(|interface| &interface.name),
            "ifindex": self.interface.as_ref().map(|interface| interface.index),
            "mac": self.interface.as_ref().and_then(|i| i.mac).map(|mac| mac.to_string()),
            "family": self.family().map(Family::number),
            "action": self.action(),
            "object": self.object(),
            "before": before,
            "after": after,
            "text": self.to_string(),
        })
    }

    fn before_and_after(&self) -> (Value, Value) {
        let pair = |key: &str, from: Value, to: Value| (json!({ key: from }), json!({ key: to }));
        match &self.edit {
            Edit::Up { from, to } => pair("up", json!(from), json!(to)),
            Edit::Mtu { from, to } => pair("mtu", json!(from), json!(to)),
            Edit::Group { from, to } => pair("group", json!(from), json!(to)),
            Edit::Alias { from, to } => pair("alias", json!(from), json!(to)),
            Edit::Setting { setting, from, to } => pair(setting.name, json!(from), json!(to)),
            Edit::AddName(name) => (Value::Null, json!({ "name": name })),
            Edit::RemoveName(name) => (json!({ "name": name }), Value::Null),
            Edit::AddAddress(address) => (Value::Null, address_json(address)),
            Edit::RemoveAddress(address) => (address_json(address), Value::Null),
            Edit::AddRoute(route) => (Value::Null, route_json(route)),
            Edit::RemoveRoute(route) => (route_json(route), Value::Null),
            Edit::AddRule(rule) => (Value::Null, rule_json(rule)),
            Edit::RemoveRule(rule) => (rule_json(rule), Value::Null),
            Edit::Marks { from, to } => (marks_json(from.as_ref()), marks_json(to.as_ref())),
            Edit::Carry(work) => {
                let written = work.write.iter().map(|file| file.path.as_str());
                (
                    files_json(work, work.remove.iter().map(String::as_str)),
                    files_json(work, written),
                )
            }
        }
    }
}

/// As iproute2 writes it, behind `+`, `-` or `~`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action() {
            "add" => '+',
            "remove" => '-',
            _ => '~',
        };
        write!(f, "{sign} {} ", self.object())?;
        let name = self.interface.as_ref().map_or("?", |interface| interface.name.as_str());
        let on = |up: bool| if up { "up" } else { "down" };
        match &self.edit {
            Edit::Up { from, to } => write!(f, "{name} {} -> {}", on(*from), on(*to)),
            Edit::Mtu { from, to } => write!(f, "{name} mtu {from} -> {to}"),
            Edit::Group { from, to } => write!(f, "{name} group {from} -> {to}"),
            Edit::Alias { to: Some(to), .. } => write!(f, "{name} alias \"{to}\""),
            Edit::Alias { to: None, .. } => write!(f, "{name} alias removed"),
            Edit::Setting { setting, from, to } => {
                write!(f, "{name} {} {from} -> {to}", setting.name)
            }
            Edit::AddName(text) | Edit::RemoveName(text) => write!(f, "{text} dev {name}"),
            Edit::AddAddress(address) | Edit::RemoveAddress(address) => {
                write!(f, "{} dev {name}", address.address)
            }
            Edit::AddRoute(route) | Edit::RemoveRoute(route) => {
                write_route(f, route, &|_| name.into())
            }
            Edit::AddRule(rule) | Edit::RemoveRule(rule) => write_rule(f, rule),
            Edit::Marks { to: Some(to), .. } => write_marks(f, to),
            Edit::Marks { to: None, .. } => {
                write!(f, "nf_tables table inet {}", ConnectionMarks::TABLE)
            }
            Edit::Carry(work) => write_work(f, work),
        }
    }
}

fn write_work(f: &mut fmt::Formatter<'_>, work: &Work) -> fmt::Result {
    let written = work.write.iter().map(|file| file.path.as_str());
    let paths: Vec<&str> = work.remove.iter().map(String::as_str).chain(written).collect();
    match (paths.is_empty(), &work.up) {
        (false, _) => write!(f, "{} ({})", paths.join(", "), work.manager),
        (true, Some(name)) => write!(f, "of {name} is taken up by {}", work.manager),
        (true, None) => write!(f, "of {}", work.manager),
    }
}

fn write_marks(f: &mut fmt::Formatter<'_>, marks: &ConnectionMarks) -> fmt::Result {
    write!(f, "nf_tables table inet {}:", ConnectionMarks::TABLE)?;
    for (interface, mark) in &marks.marks {
        write!(f, " iif {interface} mark {mark:#x}/{:#x}", marks.mask)?;
    }
    Ok(())
}

/// A route as iproute2 writes it; `name` is what the interface of an index is called.
pub(crate) fn write_route<'a>(
    f: &mut fmt::Formatter<'_>,
    route: &Route,
    name: &impl Fn(u32) -> Cow<'a, str>,
) -> fmt::Result {
    let kind = kind_name(route.kind);
    if kind != "unicast" {
        write!(f, "{kind} ")?;
    }
    if route.destination.prefix_len() == 0 {
        write!(f, "default")?;
        // Where nothing else tells the family.
        let gateway = route.next_hops.iter().any(|hop| hop.gateway.is_some());
        if route.family() == Family::V6 && !gateway {
            write!(f, " (IPv6)")?;
        }
    } else {
        write!(f, "{}", route.destination)?;
    }
    for hop in &route.next_hops {
        if let Some(gateway) = hop.gateway {
            write!(f, " via {gateway}")?;
        }
        // A delegated prefix of the host itself is the interface's, and its route the loopback's.
        let loopback = hop.interface == LOOPBACK;
        let name = if loopback { Cow::Borrowed("lo") } else { name(hop.interface) };
        write!(f, " dev {name}")?;
    }
    if let Some(source) = route.preferred_source {
        write!(f, " src {source}")?;
    }
    match route.table {
        MAIN => write!(f, " table main")?,
        LOCAL => write!(f, " table local")?,
        table => write!(f, " table {table}")?,
    }
    if route.metric > 0 {
        write!(f, " metric {}", route.metric)?;
    }
    Ok(())
}

fn write_rule(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    write!(f, "{}: ", rule.priority)?;
    write_rule_selector(f, rule)?;
    write_rule_action(f, rule)
}

/// What a rule selects by, as iproute2 writes it.
pub(crate) fn write_rule_selector(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    match rule.source {
        Some(source) => write!(f, "from {source}")?,
        None if rule.family == Family::V6 => write!(f, "from all (IPv6)")?,
        None => write!(f, "from all")?,
    }
    if let Some(destination) = rule.destination {
        write!(f, " to {destination}")?;
    }
    if let Some(interface) = &rule.input_interface {
        write!(f, " iif {interface}")?;
    }
    if let Some(interface) = &rule.output_interface {
        write!(f, " oif {interface}")?;
    }
    if let Some(Mark { value, mask }) = rule.mark {
        write!(f, " fwmark {value:#x}/{mask:#x}")?;
    }
    Ok(())
}

/// What a rule does, as iproute2 writes it.
pub(crate) fn write_rule_action(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    match rule.action {
        RuleAction::Table(MAIN) => write!(f, " lookup main")?,
        RuleAction::Table(LOCAL) => write!(f, " lookup local")?,
        RuleAction::Table(table) => write!(f, " lookup {table}")?,
        RuleAction::Goto(priority) => write!(f, " goto {priority}")?,
        RuleAction::Nop => write!(f, " nop")?,
        RuleAction::Blackhole => write!(f, " blackhole")?,
        RuleAction::Unreachable => write!(f, " unreachable")?,
        RuleAction::Prohibit => write!(f, " prohibit")?,
        RuleAction::Other(action) => write!(f, " action {action}")?,
    }
    if let Some(length) = rule.suppress_prefix_length {
        write!(f, " suppress_prefixlength {length}")?;
    }
    if let Some(group) = rule.suppress_group {
        write!(f, " suppress_ifgroup {group}")?;
    }
    Ok(())
}

pub(crate) fn kind_name(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Unicast => "unicast",
        RouteKind::Local => "local",
        RouteKind::Unreachable => "unreachable",
        RouteKind::Blackhole => "blackhole",
        RouteKind::Prohibit => "prohibit",
        RouteKind::Throw => "throw",
        RouteKind::Other(_) => "other",
    }
}

fn address_json(address: &Address) -> Value {
    json!({ "address": address.address.to_string(), "protocol": address.protocol })
}

fn route_json(route: &Route) -> Value {
    let hop = route.next_hops.first();
    json!({
        "dst": route.destination.to_string(),
        "table": route.table,
        "metric": route.metric,
        "type": kind_name(route.kind),
        "gateway": hop.and_then(|hop| hop.gateway).map(|gateway| gateway.to_string()),
        "onlink": hop.is_some_and(|hop| hop.on_link),
        "prefsrc": route.preferred_source.map(|source| source.to_string()),
        "mtu": route.mtu,
        "protocol": route.protocol,
    })
}

fn rule_json(rule: &Rule) -> Value {
    let table = match rule.action {
        RuleAction::Table(table) => Some(table),
        _ => None,
    };
    let goto = match rule.action {
        RuleAction::Goto(priority) => Some(priority),
        _ => None,
    };
    json!({
        "priority": rule.priority,
        "src": rule.source.map(|source| source.to_string()),
        "iif": rule.input_interface,
        "fwmark": rule.mark.map(|mark| mark.value),
        "fwmask": rule.mark.map(|mark| mark.mask),
        "table": table,
        "goto": goto,
        "suppress_prefixlength": rule.suppress_prefix_length,
        "suppress_ifgroup": rule.suppress_group,
        "protocol": rule.protocol,
    })
}

fn files_json<'a>(work: &Work, paths: impl Iterator<Item = &'a str>) -> Value {
    let paths: Vec<&str> = paths.collect();
    match paths.is_empty() {
        true => Value::Null,
        false => json!({ "manager": work.manager.name(), "files": paths }),
    }
}

fn marks_json(marks: Option<&ConnectionMarks>) -> Value {
    let Some(marks) = marks else { return Value::Null };
    let interface = |(interface, mark)| json!({ "ifindex": interface, "mark": mark });
    json!({
        "table": ConnectionMarks::TABLE,
        "mask": marks.mask,
        "interfaces": marks.marks.iter().map(interface).collect::<Vec<Value>>(),
    })
}
