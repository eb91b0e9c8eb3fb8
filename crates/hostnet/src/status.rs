//! What is plugged, how, and what is wrong: the answer of `jackfield status`.

use std::borrow::Cow;
use std::time::Instant;

use jackfield_metadata::Error as MetadataError;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::contest::Left;
use crate::desired::{DesiredInterface, Role};
use crate::machine::{Machine, View};
use crate::neighbours::{self, Presence};
use crate::once::find;
use crate::prefix;
use crate::problem::Problem;
use crate::snapshot::OURS;

/// The state of all interfaces that may be cloud interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the format: 1.
    pub version: u32,
    /// The interfaces, by index.
    pub interfaces: Vec<InterfaceStatus>,
    /// Other managers of networks that are on this host.
    pub neighbours: Vec<Presence>,
    /// The agent of this network namespace; `None` where none runs.
    pub agent: Option<AgentStatus>,
    /// The metadata service.
    pub metadata: MetadataStatus,
}

/// The running agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its process; `None` where that is in another process namespace.
    pub pid: Option<u32>,
    /// Whether it says itself what is here. Otherwise the machine was looked at without it.
    pub answers: bool,
    /// Its version.
    pub version: Option<String>,
    /// Seconds that it has run.
    pub uptime_s: Option<u64>,
    /// Why the configuration that was read last is not in effect, where it is not.
    pub configuration_error: Option<String>,
}

/// What is known of the metadata service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataStatus {
    /// Whether it answered when it was last asked; `None` before there was an answer or an error.
    pub reachable: Option<bool>,
    /// Seconds since it last answered.
    pub age_s: Option<u64>,
    /// Why it did not answer.
    pub error: Option<String>,
}

/// The state of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Interface index.
    pub ifindex: u32,
    /// MAC.
    pub mac: String,
    /// Cloud interface ID, once known.
    pub interface_id: Option<String>,
    /// Device number, once known.
    pub device_number: Option<u32>,
    /// Network card, once known.
    pub network_card: Option<u32>,
    /// Whether it is the instance's own.
    pub primary: bool,
    /// Whether it is configured to be managed.
    pub managed: bool,
    /// Who configures it.
    pub owner: Cow<'static, str>,
    /// Who carries its configuration out.
    pub backend: Cow<'static, str>,
    /// What it is in.
    pub state: State,
    /// Its routing table.
    pub table: Option<u32>,
    /// Its link group.
    pub group: u32,
    /// Its MTU, octets.
    pub mtu: u32,
    /// Its addresses; those of a secondary interface that are ours, all of the primary.
    pub addresses: Vec<String>,
    /// Delegated prefixes that are routed.
    pub prefixes: Vec<String>,
    /// Seconds since metadata last told something of it.
    pub metadata_age_s: Option<u64>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// What an interface is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it shall be.
    Configured,
    /// On its way there, or waiting for something.
    Pending,
    /// On its way back to what it was.
    Removing,
    /// Not for us.
    Unmanaged,
    /// Somebody else's.
    Foreign,
    /// Something stands in the way that waiting does not cure.
    Error,
}

impl State {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            State::Configured => "configured",
            State::Pending => "pending",
            State::Removing => "removing",
            State::Unmanaged => "unmanaged",
            State::Foreign => "foreign",
            State::Error => "error",
        }
    }
}

/// What is to be said where no agent says it. `metadata`: why the service was not heard, where it was
/// not.
pub fn status(
    machine: &Machine,
    view: &View,
    metadata: Option<&MetadataError>,
    now: Instant,
) -> Status {
    let heard = MetadataStatus {
        reachable: Some(metadata.is_none()),
        age_s: metadata.is_none().then_some(0),
        error: metadata.map(ToString::to_string),
    };
    put_together(machine, view, heard, &[], now)
}

/// Puts together what is to be said. `left`: what the agent leaves alone.
pub(crate) fn put_together(
    machine: &Machine,
    view: &View,
    metadata: MetadataStatus,
    left: &[Left],
    now: Instant,
) -> Status {
    let interfaces = view.desired.interfaces.iter();
    let interfaces = interfaces.filter_map(|interface| {
        interface_status(machine, view, interface, metadata.error.as_deref(), left, now)
    });
    let primary = view.desired.interfaces.iter().find(|it| it.role == Role::Primary);
    let neighbours = neighbours::present(&view.snapshot, primary.map(|primary| primary.index));
    Status { version: 1, interfaces: interfaces.collect(), neighbours, agent: None, metadata }
}

impl Status {
    /// Keeps the interfaces that are named, by name, alternative name or MAC. Where none is, those that
    /// metadata lists, or may yet list: any other device is most likely no cloud interface.
    ///
    /// # Errors
    /// The first name that no device has.
    pub fn select(&mut self, view: &View, names: &[String]) -> Result<(), String> {
        if names.is_empty() {
            let stranger = |of: &InterfaceStatus| {
                view.desired.interfaces.iter().any(|interface| {
                    interface.index == of.ifindex
                        && interface.role == Role::Waiting
                        && interface.problems.iter().any(|problem| problem.code == "not-listed")
                })
            };
            self.interfaces.retain(|interface| !stranger(interface));
            return Ok(());
        }
        let index = |name: &String| match find(&view.snapshot, name) {
            Some(link) => Ok(link.index),
            None => Err(name.clone()),
        };
        let chosen = names.iter().map(index).collect::<Result<Vec<u32>, String>>()?;
        self.interfaces.retain(|interface| chosen.contains(&interface.ifindex));
        Ok(())
    }
}

fn interface_status(
    machine: &Machine,
    view: &View,
    interface: &DesiredInterface,
    metadata: Option<&str>,
    left: &[Left],
    now: Instant,
) -> Option<InterfaceStatus> {
    let link = view.snapshot.link(interface.index)?;
    let known = view.cloud.interfaces.get(&interface.mac);
    let changes: Vec<&Change> = view
        .plan
        .changes
        .iter()
        .filter(|change| change.interface.as_ref().is_some_and(|i| i.index == interface.index))
        .collect();
    let mut problems = interface.problems.clone();
    if let Some(error) = metadata {
        problems.push(Problem::metadata_failed(error));
    }
    let plugged = matches!(interface.role, Role::Plugged | Role::Held);
    // What is about all is about each.
    let concerns = |left: &&Left| match left.interface {
        Some(index) => index == link.index,
        None => plugged,
    };
    let left_alone: Vec<&Left> = left.iter().filter(concerns).collect();
    let deleter = neighbours::deleter(&view.snapshot);
    for left in &left_alone {
        let cure = deleter.as_ref().filter(|(name, ..)| is_name(left.culprit.as_deref(), name));
        let cure = cure.map(|(.., cure)| *cure);
        problems.push(Problem::left_alone(&left.change, left.culprit.as_deref(), cure));
    }
    if !changes.is_empty() {
        problems.push(Problem::to_change(changes.len()));
    }
    let left = view.interfaces_left_to_managers();
    let left = left.into_iter().find(|(of, _)| of.index == interface.index);
    let settled = changes.is_empty() && left.is_none();
    problems.extend(left.map(|(_, problem)| problem));
    if plugged {
        let holders = neighbours::holders(&view.snapshot, link)
            .filter(|holder| !interface.backend.is_of(holder.name));
        problems.extend(holders.map(|holder| Problem::also_managed(&holder)));
        problems.extend(deleter.map(|(_, text, cure)| Problem::deletes_others(&text, cure)));
    }
    let primary = interface.role == Role::Primary;
    let addresses = view
        .snapshot
        .addresses
        .iter()
        .filter(|address| address.interface == link.index)
        .filter(|address| address.protocol == OURS || primary)
        .map(|address| address.address.to_string())
        .collect();
    let (owner, managed) = match interface.role {
        Role::Primary => ("system", true),
        Role::Plugged | Role::Held => ("jackfield", true),
        Role::Waiting | Role::Refused => ("none", true),
        Role::Unmanaged => ("none", false),
        Role::Foreign => {
            (neighbours::owner(&view.snapshot, link).map_or("none", |holder| holder.name), true)
        }
    };
    Some(InterfaceStatus {
        name: link.name.clone(),
        ifindex: link.index,
        mac: interface.mac.to_string(),
        interface_id: known.and_then(|known| known.interface_id.as_ref()).map(ToString::to_string),
        device_number: interface.slot.map(|slot| slot.device),
        network_card: interface.slot.map(|slot| slot.card),
        primary,
        managed,
        owner: owner.into(),
        backend: interface.backend.name().into(),
        state: if left_alone.is_empty() { state(interface.role, settled) } else { State::Error },
        table: interface.table,
        group: link.group,
        mtu: link.mtu,
        addresses,
        prefixes: prefix::routed(&view.snapshot, link.index).map(|net| net.to_string()).collect(),
        metadata_age_s: machine
            .memory()
            .heard(interface.mac)
            .map(|heard| now.saturating_duration_since(heard).as_secs()),
        problems,
    })
}

/// Whether a process is this program: the kernel keeps 15 octets of a name (proc(5)).
fn is_name(process: Option<&str>, program: &str) -> bool {
    process.is_some_and(|process| {
        !process.is_empty() && program.get(..15.min(program.len())) == Some(process)
    })
}

fn state(role: Role, settled: bool) -> State {
    match (role, settled) {
        (Role::Primary | Role::Plugged | Role::Held, true) => State::Configured,
        (Role::Primary | Role::Plugged | Role::Held, false) | (Role::Waiting, _) => State::Pending,
        (Role::Unmanaged, true) => State::Unmanaged,
        (Role::Unmanaged, false) => State::Removing,
        (Role::Refused, _) => State::Error,
        (Role::Foreign, _) => State::Foreign,
    }
}
