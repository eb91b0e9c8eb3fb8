//! What a program is told of an interface.

use jackfield_metadata::MacAddr;
use serde::Serialize;

use crate::cloud::Slot;
use crate::transitions::Ready;

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
    /// What is known of who has a table.
    pub(super) fn of_table(table: u32, table_base: u32) -> Self {
        let slot = Slot::of_table(table, table_base);
        Facts {
            table: Some(table),
            device_number: slot.map(|slot| slot.device),
            network_card: slot.map(|slot| slot.card),
            ..Facts::default()
        }
    }

    pub(super) fn of(ready: &Ready, table_base: u32) -> Self {
        let by_table = ready.table.and_then(|table| Slot::of_table(table, table_base));
        let slot = ready.slot.or(by_table);
        Facts {
            name: Some(ready.name.clone()),
            ifindex: Some(ready.index),
            mac: Some(ready.mac.to_string()),
            interface_id: ready.interface_id.as_ref().map(ToString::to_string),
            device_number: slot.map(|slot| slot.device),
            network_card: slot.map(|slot| slot.card),
            primary: ready.primary,
            table: ready.table,
            mtu: Some(ready.mtu),
            addresses: ready.addresses.iter().map(ToString::to_string).collect(),
            prefixes: ready.prefixes.iter().map(ToString::to_string).collect(),
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
