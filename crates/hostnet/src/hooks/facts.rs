//! What a program is told of an interface.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_kernel::Link;
use jackfield_metadata::MacAddr;
use serde::Serialize;

use super::events::Seen;
use crate::cloud::Slot;
use crate::contest::Left;
use crate::desired::{DesiredInterface, Role};
use crate::journal::Journal;
use crate::machine::View;
use crate::prefix;
use crate::snapshot::Snapshot;
use crate::status::addresses;

/// An interface, in the words of `status --json`. `None`: not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct Facts {
    pub(super) name: Option<String>,
    pub(super) ifindex: Option<u32>,
    pub(super) mac: Option<String>,
    pub(super) interface_id: Option<String>,
    pub(super) device_number: Option<u32>,
    pub(super) network_card: Option<u32>,
    pub(super) primary: bool,
    pub(super) table: Option<u32>,
    pub(super) mtu: Option<u32>,
    pub(super) addresses: Vec<String>,
    pub(super) prefixes: Vec<String>,
}

impl Facts {
    pub(super) fn in_slot(slot: Option<Slot>) -> Self {
        let (device_number, network_card) =
            (slot.map(|slot| slot.device), slot.map(|slot| slot.card));
        Facts { device_number, network_card, ..Facts::default() }
    }

    /// What can be said of a device by itself.
    fn of_device(snapshot: &Snapshot, link: &Link, primary: bool) -> Self {
        let prefixes: BTreeSet<_> = prefix::routed(snapshot, link.index).collect();
        // The kernel lists them in an order that says nothing.
        let mut addresses = addresses(snapshot, link.index, primary);
        addresses.sort();
        Facts {
            name: Some(link.name.clone()),
            ifindex: Some(link.index),
            mac: link.address.map(|mac| MacAddr::from(mac).to_string()),
            primary,
            mtu: Some(link.mtu),
            addresses,
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            ..Facts::default()
        }
    }

    fn of(view: &View, interface: &DesiredInterface) -> Option<Self> {
        let link = view.snapshot.link(interface.index)?;
        let known = view.cloud.interfaces.get(&interface.mac);
        let slot = Facts::in_slot(interface.slot);
        Some(Facts {
            interface_id: known.and_then(|it| it.interface_id.as_ref()).map(ToString::to_string),
            device_number: slot.device_number,
            network_card: slot.network_card,
            table: interface.table,
            ..Self::of_device(&view.snapshot, link, interface.role == Role::Primary)
        })
    }

    /// The same state of the device, with what only metadata tells as it is known now. Of the primary
    /// every address counts, of others those that are ours.
    pub(super) fn with_identity_of(self, now: &Facts) -> Self {
        Facts {
            interface_id: now.interface_id.clone(),
            device_number: now.device_number,
            network_card: now.network_card,
            primary: now.primary,
            ..self
        }
    }

    /// Takes what somebody called it for its MAC or its name.
    pub(super) fn name_as(&mut self, text: &str) {
        match text.parse::<MacAddr>() {
            Ok(mac) => self.mac = Some(mac.to_string()),
            Err(_) => self.name = Some(text.to_owned()),
        }
    }

    /// By what its events are kept in order: an interface that comes again comes with its MAC.
    pub(super) fn key(&self) -> String {
        let table = || self.table.map(|table| format!("table {table}"));
        self.mac.clone().or_else(table).unwrap_or_default()
    }

    /// How it is called in messages.
    pub(super) fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.key())
    }
}

/// What each device is like that may be a cloud interface, as far as it tells by itself. Without a
/// journal, it may be the primary, of which all addresses count.
pub(super) fn of_devices(snapshot: &Snapshot, table_base: u32) -> BTreeMap<u32, Facts> {
    let facts = |link: &Link| {
        let Some(journal) = link.alias.as_deref().and_then(Journal::read) else {
            return Facts::of_device(snapshot, link, true);
        };
        Facts {
            interface_id: journal.name,
            table: Some(journal.table),
            device_number: Slot::of_table(journal.table, table_base).map(|slot| slot.device),
            network_card: Slot::of_table(journal.table, table_base).map(|slot| slot.card),
            ..Facts::of_device(snapshot, link, false)
        }
    };
    snapshot.candidates().map(|is| (is.link.index, facts(is.link))).collect()
}

/// What is seen of each interface that is ours.
pub(super) fn seen(view: &View, left_alone: &[Left]) -> BTreeMap<u32, Seen> {
    let planned = view.plan.changes.iter().chain(&view.left);
    let unsettled: BTreeSet<u32> =
        planned.filter_map(|change| Some(change.interface.as_ref()?.index)).collect();
    let mut seen = BTreeMap::new();
    for interface in &view.desired.interfaces {
        let index = interface.index;
        // What is about all is about each.
        let contested = left_alone.iter().any(|left| left.interface.is_none_or(|of| of == index));
        let at_rest = !unsettled.contains(&index) && !contested;
        let is = match interface.role {
            Role::Primary | Role::Plugged if at_rest => match Facts::of(view, interface) {
                Some(facts) => Seen::Settled(facts),
                None => continue,
            },
            Role::Unmanaged | Role::Foreign if at_rest => continue,
            _ => Seen::Unsettled,
        };
        seen.insert(index, is);
    }
    seen
}
