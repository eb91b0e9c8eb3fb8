//! What is behind the lock: instances, interfaces with their attachments, and what of them shows.

use super::cloud::{CloudError, Connections};
use super::fault::Faults;
use super::token::Tokens;
use super::{CloudInterface, Lag, MacAddr, RequestRecord};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Everything behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) instances: BTreeMap<String, MacAddr>,
    pub(super) everyone: Option<String>,
    pub(super) interfaces: BTreeMap<MacAddr, Interface>,
    pub(super) detached: Vec<Detached>,
    pub(super) listed_after_detach: Duration,
    pub(super) change_lag: Duration,
    pub(super) connections: Connections,
    pub(super) tokens: Tokens,
    pub(super) faults: Faults,
    pub(super) log: Vec<RequestRecord>,
}

#[derive(Debug)]
pub(super) struct Interface {
    /// As it is.
    pub(super) record: CloudInterface,
    /// As it was, each until a moment; the service shows the first that has not ended.
    pub(super) stale: Vec<(Instant, CloudInterface)>,
    pub(super) attachment: Option<Attachment>,
}

#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub(super) instance: String,
    pub(super) device_number: u32,
    pub(super) network_card: Option<u32>,
    pub(super) since: Instant,
    pub(super) lag: Lag,
}

/// An interface that is gone from its instance and still listed there.
#[derive(Debug)]
pub(super) struct Detached {
    pub(super) record: CloudInterface,
    pub(super) attachment: Attachment,
    /// None: until released.
    pub(super) until: Option<Instant>,
}

/// An interface as an instance is shown it.
pub(super) struct Shown<'a> {
    pub(super) record: &'a CloudInterface,
    pub(super) attachment: &'a Attachment,
}

impl Shown<'_> {
    /// The keys that are there now. The primary's device number is right from the start.
    pub(super) fn keys(&self, is_primary: bool, now: Instant) -> BTreeMap<&str, String> {
        let Attachment { device_number, network_card, since, lag, .. } = self.attachment;
        let known = is_primary || lag.device_number_is_known(*since, now);
        let mut keys = self.record.keys();
        let number = if known { *device_number } else { 0 };
        keys.entry("device-number").or_insert_with(|| number.to_string());
        if let Some(card) = network_card {
            keys.entry("network-card").or_insert_with(|| card.to_string());
        }
        keys.retain(|key, _| lag.shows(key, *since, now));
        keys
    }
}

impl State {
    pub(super) fn instance_of(&self, source: IpAddr) -> Option<&str> {
        let source = source.to_canonical();
        let attached = self.interfaces.values().find_map(|interface| {
            let attachment = interface.attachment.as_ref()?;
            interface.record.holds(source).then_some(attachment.instance.as_str())
        });
        attached.or(self.everyone.as_deref())
    }

    pub(super) fn primary_of(&self, instance: &str) -> Option<MacAddr> {
        self.instances.get(instance).copied()
    }

    /// The interfaces listed to an instance: those that are attached and have come to light, and
    /// those that are gone and linger.
    pub(super) fn shown_to(&self, instance: &str, now: Instant) -> BTreeMap<MacAddr, Shown<'_>> {
        let lingering = self.detached.iter().filter_map(|detached| {
            let Detached { record, attachment, until } = detached;
            let listed = attachment.instance == instance && until.is_none_or(|until| now < until);
            listed.then_some((record.mac, Shown { record, attachment }))
        });
        let attached = self.interfaces.values().filter_map(|interface| {
            let attachment = interface.attachment.as_ref()?;
            let listed =
                attachment.instance == instance && attachment.lag.is_listed(attachment.since, now);
            let stale = interface.stale.iter().find(|(until, _)| now < *until);
            let record = stale.map_or(&interface.record, |(_, record)| record);
            listed.then_some((record.mac, Shown { record, attachment }))
        });
        lingering.chain(attached).collect()
    }

    pub(super) fn interface(&mut self, mac: MacAddr) -> Result<&mut Interface, CloudError> {
        self.interfaces.get_mut(&mac).ok_or(CloudError::UnknownInterface(mac))
    }

    /// Changes a record; the service goes on showing the old one for the lag of changes.
    pub(super) fn change(
        &mut self,
        mac: MacAddr,
        change: impl FnOnce(&mut CloudInterface),
    ) -> Result<(), CloudError> {
        let lag = self.change_lag;
        let interface = self.interface(mac)?;
        let now = Instant::now();
        interface.stale.retain(|(until, _)| now < *until);
        if let Some(until) = now.checked_add(lag).filter(|_| !lag.is_zero()) {
            interface.stale.push((until, interface.record.clone()));
        }
        change(&mut interface.record);
        Ok(())
    }

    pub(super) fn holder_of(&self, address: IpAddr) -> Option<MacAddr> {
        let mut interfaces = self.interfaces.values();
        let holds = |interface: &&Interface| interface.record.addresses().any(|own| own == address);
        interfaces.find(holds).map(|interface| interface.record.mac)
    }
}
