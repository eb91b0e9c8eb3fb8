//! The cloud as it is handled: everything that can be changed and asked at run time.

use super::state::{Attachment, Detached, Interface, State};
use super::{CloudInterface, Fault, FaultId, Lag, MacAddr, RequestRecord};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The cloud, as many hands hold it as need to: clones are the same cloud.
#[derive(Debug, Clone, Default)]
pub struct Cloud(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told at each request.
    asked: Condvar,
}

/// How connections are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Connections {
    /// Closed after each answer, and the answer says so, as EC2 was seen doing.
    #[default]
    Closed,
    /// Kept open as long as the client likes.
    Kept,
    /// Closed after this many answers, and the last one does not say so.
    ClosedUnannounced(u64),
}

/// Why a change of the cloud was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No interface of this MAC was added.
    #[error("the cloud has no interface {0}")]
    UnknownInterface(MacAddr),
    /// No instance of this ID was added.
    #[error("the cloud has no instance '{0}'")]
    UnknownInstance(String),
    /// An interface of this MAC was added before.
    #[error("the cloud has an interface {0} already")]
    InterfaceExists(MacAddr),
    /// The interface is attached.
    #[error("interface {mac} is attached to '{instance}'")]
    Attached {
        /// The interface.
        mac: MacAddr,
        /// Where it is attached.
        instance: String,
    },
    /// The interface is attached nowhere.
    #[error("interface {0} is not attached")]
    NotAttached(MacAddr),
    /// An interface does not hold the address that was to leave it.
    #[error("interface {mac} does not hold {address}")]
    NotHeld {
        /// The interface.
        mac: MacAddr,
        /// The address.
        address: IpAddr,
    },
    /// Another interface holds the address.
    #[error("interface {holder} holds {address} already")]
    Held {
        /// The interface that holds it.
        holder: MacAddr,
        /// The address.
        address: IpAddr,
    },
}

impl Cloud {
    /// A cloud with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an instance. Its primary interface is the one of this MAC, added and attached besides.
    pub fn add_instance(&self, id: impl Into<String>, primary: MacAddr) {
        self.state().instances.insert(id.into(), primary);
    }

    /// Removes an instance, whose interfaces stay where they are.
    pub fn remove_instance(&self, id: &str) {
        self.state().instances.remove(id);
    }

    /// Takes every client whose address no attached interface holds for this instance, as is
    /// needed on loopback.
    pub fn serve_everyone_as(&self, instance: impl Into<String>) {
        self.state().everyone = Some(instance.into());
    }

    /// The instance that a source address tells.
    #[must_use]
    pub fn instance_of(&self, source: IpAddr) -> Option<String> {
        self.state().instance_of(source).map(str::to_owned)
    }

    /// Adds an interface, attached nowhere.
    ///
    /// # Errors
    ///
    /// Where its MAC or one of its addresses is there already.
    pub fn add_interface(&self, record: CloudInterface) -> Result<(), CloudError> {
        let mut state = self.state();
        if state.interfaces.contains_key(&record.mac) {
            return Err(CloudError::InterfaceExists(record.mac));
        }
        for address in record.addresses() {
            if let Some(holder) = state.holder_of(address) {
                return Err(CloudError::Held { holder, address });
            }
        }
        let interface = Interface { record, stale: Vec::new(), attachment: None };
        state.interfaces.insert(interface.record.mac, interface);
        Ok(())
    }

    /// Removes an interface from the cloud. Where it was attached it may linger in the listing.
    ///
    /// # Errors
    ///
    /// Where there is none of this MAC.
    pub fn remove_interface(&self, mac: MacAddr) -> Result<(), CloudError> {
        match self.detach(mac) {
            Ok(()) | Err(CloudError::NotAttached(_)) => {}
            Err(error) => return Err(error),
        }
        self.state().interfaces.remove(&mac);
        Ok(())
    }

    /// The interface as it is, lag or no lag.
    ///
    /// # Errors
    ///
    /// Where there is none of this MAC.
    pub fn interface(&self, mac: MacAddr) -> Result<CloudInterface, CloudError> {
        self.state().interface(mac).map(|interface| interface.record.clone())
    }

    /// Attaches an interface, everything shown at once. Without a network card the key is absent,
    /// as it is on instance types of a single card.
    ///
    /// # Errors
    ///
    /// Where the interface or the instance is unknown, or the interface is attached.
    pub fn attach(
        &self,
        mac: MacAddr,
        instance: &str,
        device_number: u32,
        network_card: Option<u32>,
    ) -> Result<(), CloudError> {
        self.attach_with_lag(mac, instance, device_number, network_card, Lag::none())
    }

    /// Attaches an interface whose metadata lags.
    ///
    /// # Errors
    ///
    /// As [`Cloud::attach`].
    pub fn attach_with_lag(
        &self,
        mac: MacAddr,
        instance: &str,
        device_number: u32,
        network_card: Option<u32>,
        lag: Lag,
    ) -> Result<(), CloudError> {
        let mut state = self.state();
        if !state.instances.contains_key(instance) {
            return Err(CloudError::UnknownInstance(instance.to_owned()));
        }
        let interface = state.interface(mac)?;
        if let Some(Attachment { instance, .. }) = &interface.attachment {
            return Err(CloudError::Attached { mac, instance: instance.clone() });
        }
        interface.stale.clear();
        interface.attachment = Some(Attachment {
            instance: instance.to_owned(),
            device_number,
            network_card,
            since: Instant::now(),
            lag,
        });
        Ok(())
    }

    /// Detaches an interface. Its instance goes on listing it for the time of
    /// [`Cloud::list_after_detach`].
    ///
    /// # Errors
    ///
    /// Where the interface is unknown or attached nowhere.
    pub fn detach(&self, mac: MacAddr) -> Result<(), CloudError> {
        let mut state = self.state();
        let now = Instant::now();
        state.detached.retain(|detached| detached.until.is_none_or(|until| now < until));
        let lingers = state.listed_after_detach;
        let interface = state.interface(mac)?;
        let attachment = interface.attachment.take().ok_or(CloudError::NotAttached(mac))?;
        interface.stale.clear();
        let record = interface.record.clone();
        if !lingers.is_zero() {
            let until = now.checked_add(lingers);
            state.detached.push(Detached { record, attachment, until });
        }
        Ok(())
    }

    /// Where an interface is attached, and as which device number.
    #[must_use]
    pub fn attachment(&self, mac: MacAddr) -> Option<(String, u32)> {
        let state = self.state();
        let attachment = state.interfaces.get(&mac)?.attachment.as_ref()?;
        Some((attachment.instance.clone(), attachment.device_number))
    }

    /// The MACs of the interfaces that are attached to an instance.
    #[must_use]
    pub fn attached_to(&self, instance: &str) -> Vec<MacAddr> {
        let state = self.state();
        let attached = state.interfaces.values().filter(|interface| {
            let attachment = interface.attachment.as_ref();
            attachment.is_some_and(|attachment| attachment.instance == instance)
        });
        attached.map(|interface| interface.record.mac).collect()
    }

    /// How long an interface stays listed after it was detached; [`Lag::HELD`] for until
    /// [`Cloud::forget_detached`].
    pub fn list_after_detach(&self, lingers: Duration) {
        self.state().listed_after_detach = lingers;
    }

    /// Lists no detached interface any longer.
    pub fn forget_detached(&self) {
        self.state().detached.clear();
    }

    /// How long after it a change of addresses or keys is shown.
    pub fn show_changes_after(&self, lag: Duration) {
        self.state().change_lag = lag;
    }

    /// Ends all lag of an interface: what is true is shown.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn release(&self, mac: MacAddr) -> Result<(), CloudError> {
        let mut state = self.state();
        let interface = state.interface(mac)?;
        interface.stale.clear();
        if let Some(attachment) = &mut interface.attachment {
            attachment.lag = Lag::none();
        }
        Ok(())
    }

    /// Ends the lag of one key of an interface; `macs/` stands for its place in the listing.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown or attached nowhere.
    pub fn release_key(&self, mac: MacAddr, key: &str) -> Result<(), CloudError> {
        let mut state = self.state();
        let attachment = state.interface(mac)?.attachment.as_mut();
        attachment.ok_or(CloudError::NotAttached(mac))?.lag.release(key);
        Ok(())
    }

    /// Gives an interface one more address, after those that it has.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown or another one holds the address.
    pub fn add_address(&self, mac: MacAddr, address: IpAddr) -> Result<(), CloudError> {
        let mut state = self.state();
        match state.holder_of(address) {
            Some(holder) if holder != mac => Err(CloudError::Held { holder, address }),
            _ => state.change(mac, |record| record.add_address(address)),
        }
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown or does not hold it.
    pub fn remove_address(&self, mac: MacAddr, address: IpAddr) -> Result<(), CloudError> {
        let mut state = self.state();
        match state.holder_of(address) {
            Some(holder) if holder == mac => {
                state.change(mac, |record| record.remove_address(address))
            }
            _ => Err(CloudError::NotHeld { mac, address }),
        }
    }

    /// Moves an address from one interface to another in one step.
    ///
    /// # Errors
    ///
    /// Where an interface is unknown or the first does not hold the address.
    pub fn move_address(
        &self,
        address: IpAddr,
        from: MacAddr,
        to: MacAddr,
    ) -> Result<(), CloudError> {
        let mut state = self.state();
        state.interface(to)?;
        if state.holder_of(address) != Some(from) {
            return Err(CloudError::NotHeld { mac: from, address });
        }
        state.change(from, |record| record.remove_address(address))?;
        state.change(to, |record| record.add_address(address))
    }

    /// Delegates a prefix to an interface.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn add_prefix(&self, mac: MacAddr, prefix: IpNet) -> Result<(), CloudError> {
        self.state().change(mac, |record| record.add_prefix(prefix))
    }

    /// Takes a delegated prefix back.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn remove_prefix(&self, mac: MacAddr, prefix: IpNet) -> Result<(), CloudError> {
        self.state().change(mac, |record| record.remove_prefix(prefix))
    }

    /// Changes anything of an interface's record but its MAC.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn edit(
        &self,
        mac: MacAddr,
        change: impl FnOnce(&mut CloudInterface),
    ) -> Result<(), CloudError> {
        self.state().change(mac, |record| {
            change(record);
            record.mac = mac;
        })
    }

    /// How connections are kept from now on.
    pub fn set_connections(&self, connections: Connections) {
        self.state().connections = connections;
    }

    /// Makes every token that was given out invalid.
    pub fn expire_tokens(&self) {
        self.state().tokens.expire_all();
    }

    /// Sets a fault.
    pub fn add_fault(&self, fault: Fault) -> FaultId {
        self.state().faults.add(fault, Instant::now())
    }

    /// Clears a fault; requests that it holds up stay held up.
    pub fn clear_fault(&self, fault: FaultId) {
        self.state().faults.clear(fault);
    }

    /// Clears every fault.
    pub fn clear_faults(&self) {
        self.state().faults.clear_all();
    }

    /// Every request so far.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state().log.clone()
    }

    /// How many requests there were: a mark for [`Cloud::requests_since`].
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.state().log.len()
    }

    /// The requests since a mark.
    #[must_use]
    pub fn requests_since(&self, mark: usize) -> Vec<RequestRecord> {
        self.state().log.get(mark..).map(<[_]>::to_vec).unwrap_or_default()
    }

    /// Waits until the requests since a mark are as wished, and says whether they became so.
    pub fn wait_for_requests(
        &self,
        mark: usize,
        timeout: Duration,
        mut wished: impl FnMut(&[RequestRecord]) -> bool,
    ) -> bool {
        let waits = |state: &mut State| !wished(state.log.get(mark..).unwrap_or_default());
        let waited = self.0.asked.wait_timeout_while(self.state(), timeout, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub(super) fn record(&self, state: &mut State, record: RequestRecord) {
        state.log.push(record);
        self.0.asked.notify_all();
    }
}
