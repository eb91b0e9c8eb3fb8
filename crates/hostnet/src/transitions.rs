//! Which interfaces have become ready, changed or gone: what follows from one look after another.
//!
//! Pure. An interface is ready when it is plugged and nothing of it is left to do, so that all of it
//! works. What is repaired in between is no transition, as long as it ends as it was.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jackfield_metadata::{InterfaceId, MacAddr};

use crate::change::{Change, Edit};
use crate::cloud::Slot;
use crate::desired::{DesiredInterface, Role};
use crate::journal::Journal;
use crate::machine::View;
use crate::prefix;
use crate::snapshot::OURS;

/// An interface that is ready, as it is in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ready {
    /// Name.
    pub(crate) name: String,
    /// Interface index.
    pub(crate) index: u32,
    /// MAC.
    pub(crate) mac: MacAddr,
    /// Whether it is the instance's own.
    pub(crate) primary: bool,
    /// Cloud interface ID, once known.
    pub(crate) interface_id: Option<InterfaceId>,
    /// Where it is attached, once known.
    pub(crate) slot: Option<Slot>,
    /// Its routing table.
    pub(crate) table: Option<u32>,
    /// MTU, octets.
    pub(crate) mtu: u32,
    /// Our addresses on it.
    pub(crate) addresses: BTreeSet<IpNet>,
    /// Delegated prefixes that are routed.
    pub(crate) prefixes: BTreeSet<IpNet>,
}

impl Ready {
    /// Its name and what else it is called.
    pub(crate) fn called(&self) -> String {
        let id = self.interface_id.as_ref().map(|id| format!(", {id}")).unwrap_or_default();
        format!("{} ({}{id})", self.name, self.mac)
    }

    /// What works.
    pub(crate) fn told(&self) -> String {
        let table = self.table.map(|table| format!(", table {table}")).unwrap_or_default();
        let prefixes = match self.prefixes.len() {
            0 => String::new(),
            count => format!(", {count} prefixes"),
        };
        format!("{} addresses{prefixes}{table}", self.addresses.len())
    }

    /// Whether something is different that programs may rely on. What metadata calls it may come late,
    /// and changes nothing.
    fn works_otherwise_than(&self, other: &Ready) -> bool {
        let known =
            Ready { interface_id: other.interface_id.clone(), slot: other.slot, ..self.clone() };
        known != *other
    }
}

/// What became of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Transition {
    /// It works from now on. `found`: it was plugged when the agent first looked.
    Ready {
        /// The interface.
        interface: Ready,
        /// Whether it was so before the agent started.
        found: bool,
    },
    /// It works on, and something of it is different.
    Changed {
        /// As it was.
        before: Ready,
        /// As it is.
        interface: Ready,
    },
    /// It was pulled or released, and nothing of it is left; as it was last.
    Gone {
        /// The interface.
        interface: Ready,
    },
}

/// The interfaces that are ready, by index and MAC: a device that another one follows at once under the
/// same index is another interface.
#[derive(Debug, Default)]
pub(crate) struct Transitions {
    ready: BTreeMap<(u32, MacAddr), Ready>,
    looked: bool,
    /// Those that had addresses of ours before the first look, and are not ready since.
    plugged_before: BTreeSet<(u32, MacAddr)>,
    /// The primary counts too: it is never plugged, and has addresses of ours.
    primary_too: bool,
}

impl Transitions {
    /// Those of the primary too.
    pub(crate) fn with_primary() -> Self {
        Transitions { primary_too: true, ..Transitions::default() }
    }

    /// Takes note of what works before anything is done. What is nobody's yet, such as what is left of
    /// interfaces that are gone, keeps none from being known: it is about to be removed.
    pub(crate) fn begin(&mut self, view: &View) {
        self.take_in(view, &Unfinished { shared: false, ..Unfinished::of(view) });
    }

    /// Takes in what a look showed. What is left alone is not in the view's plan any more.
    pub(crate) fn take(&mut self, view: &View) -> Vec<Transition> {
        self.take_in(view, &Unfinished::of(view))
    }

    fn take_in(&mut self, view: &View, unfinished: &Unfinished) -> Vec<Transition> {
        let first = !std::mem::replace(&mut self.looked, true);
        let mut there = BTreeSet::new();
        let mut transitions = Vec::new();
        for interface in &view.desired.interfaces {
            let key = (interface.index, interface.mac);
            let counts = match interface.role {
                Role::Plugged | Role::Held => true,
                Role::Primary => self.primary_too,
                _ => false,
            };
            if !counts {
                continue;
            }
            there.insert(key);
            let has_ours = view.snapshot.our_addresses(interface.index).next().is_some();
            if first && has_ours {
                self.plugged_before.insert(key);
            }
            // One that was interrupted on its way, and of which metadata has told nothing since.
            let half = interface.role == Role::Held && !has_ours;
            if unfinished.concerns(interface.index) || half {
                continue;
            }
            let Some(now) = ready(view, interface) else { continue };
            let found = self.plugged_before.remove(&key) || first;
            match self.ready.insert(key, now.clone()) {
                None => transitions.push(Transition::Ready { interface: now, found }),
                Some(before) if before.works_otherwise_than(&now) => {
                    transitions.push(Transition::Changed { before, interface: now });
                }
                Some(_) => {}
            }
        }
        let gone: Vec<(u32, MacAddr)> = self
            .ready
            .keys()
            .filter(|key| !there.contains(key) && !unfinished.concerns(key.0))
            .copied()
            .collect();
        let gone = gone.into_iter().filter_map(|key| self.ready.remove(&key));
        self.plugged_before.retain(|key| there.contains(key));
        // Before what takes its place is ready.
        transitions.splice(..0, gone.map(|interface| Transition::Gone { interface }));
        transitions
    }
}

/// What is left to do.
struct Unfinished {
    /// Something that is no single interface's.
    shared: bool,
    of: BTreeSet<u32>,
}

impl Unfinished {
    fn of(view: &View) -> Self {
        // Marks are for what is forwarded, and a kernel may refuse them for ever: what is plugged works.
        let marks = |change: &&Change| matches!(change.edit, Edit::Marks { .. });
        let left = view.plan.changes.iter().chain(&view.left).filter(|it| !marks(it));
        let about = left.map(|change| change.interface.as_ref().map(|interface| interface.index));
        let (shared, of): (Vec<_>, Vec<_>) = about.partition(Option::is_none);
        Unfinished { shared: !shared.is_empty(), of: of.into_iter().flatten().collect() }
    }

    fn concerns(&self, index: u32) -> bool {
        self.shared || self.of.contains(&index)
    }
}

fn ready(view: &View, interface: &DesiredInterface) -> Option<Ready> {
    let link = view.snapshot.link(interface.index)?;
    let known = view.cloud.interfaces.get(&interface.mac);
    let addresses = view.snapshot.addresses.iter();
    let ours = addresses.filter(|it| it.interface == link.index && it.protocol == OURS);
    // Before metadata has told, the journal does.
    let written = || Journal::of(link)?.name?.parse().ok();
    Some(Ready {
        name: link.name.clone(),
        index: link.index,
        mac: interface.mac,
        primary: interface.role == Role::Primary,
        interface_id: known.and_then(|known| known.interface_id.clone()).or_else(written),
        slot: interface.slot,
        table: interface.table,
        mtu: link.mtu,
        addresses: ours.map(|address| address.address).collect(),
        prefixes: prefix::routed(&view.snapshot, link.index).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jackfield_kernel::{Address, AddressFlags, Link};

    use super::*;
    use crate::change::InterfaceRef;
    use crate::desired::Desired;
    use crate::plan::Plan;
    use crate::snapshot::Snapshot;

    const MAC: [u8; 6] = [2, 0xec, 0x20, 0, 0, 1];

    fn link(mac: [u8; 6]) -> Link {
        Link {
            index: 3,
            name: "eth1".to_owned(),
            alternative_names: Vec::new(),
            kind: None,
            ethernet: true,
            address: Some(mac),
            up: true,
            carrier: true,
            mtu: 9001,
            min_mtu: 68,
            max_mtu: 9216,
            group: 106,
            alias: None,
            controller: None,
            lower: None,
            lower_elsewhere: false,
            parent_device: None,
        }
    }

    /// eth1 in a role, with these addresses.
    fn view(mac: [u8; 6], role: Role, addresses: &[&str]) -> View {
        let of = |address: &&str| Address {
            interface: 3,
            address: address.parse().unwrap(),
            protocol: OURS,
            flags: AddressFlags::default(),
        };
        let interface = DesiredInterface {
            table: Some(10_001),
            ..DesiredInterface::with_role(3, "eth1", mac.into(), role)
        };
        View {
            snapshot: Snapshot {
                links: vec![link(mac)],
                addresses: addresses.iter().map(of).collect(),
                ..Snapshot::default()
            },
            cloud: Arc::default(),
            desired: Desired { interfaces: vec![interface], ..Desired::default() },
            plan: Plan::default(),
            left: Vec::new(),
        }
    }

    fn plugged(addresses: &[&str]) -> View {
        view(MAC, Role::Plugged, addresses)
    }

    /// The same while a change is to be made, of eth1 or of nobody alone.
    fn unfinished(view: View, of_eth1: bool) -> View {
        let eth1 = InterfaceRef { index: 3, name: "eth1".to_owned(), mac: Some(MAC.into()) };
        let edit = Edit::Up { from: false, to: true };
        let changes = vec![Change { interface: of_eth1.then_some(eth1), edit }];
        View { plan: Plan { changes }, ..view }
    }

    fn names(transitions: &[Transition]) -> Vec<String> {
        let name = |transition: &Transition| match transition {
            Transition::Ready { interface, found } => {
                format!("{} ready, found {found}", interface.mac)
            }
            Transition::Changed { before, interface } => {
                format!("changed {} to {}", before.addresses.len(), interface.addresses.len())
            }
            Transition::Gone { interface } => format!("{} gone", interface.mac),
        };
        transitions.iter().map(name).collect()
    }

    #[test]
    fn an_interface_is_ready_once_nothing_of_it_is_left_to_do() {
        for of_eth1 in [true, false] {
            let mut transitions = Transitions::default();
            let one = || plugged(&["10.0.2.10/32"]);
            assert_eq!(transitions.take(&unfinished(plugged(&[]), of_eth1)), []);
            let told = transitions.take(&one());
            assert_eq!(names(&told), ["02:ec:20:00:00:01 ready, found false"]);
            assert_eq!(transitions.take(&one()), []);
        }
    }

    #[test]
    fn what_is_left_of_others_keeps_nothing_from_being_known_before_a_command_acts() {
        let mut transitions = Transitions::default();
        transitions.begin(&unfinished(plugged(&["10.0.2.10/32"]), false));
        assert_eq!(transitions.take(&plugged(&["10.0.2.10/32"])), []);
        let told = transitions.take(&view(MAC, Role::Unmanaged, &[]));
        assert_eq!(names(&told), ["02:ec:20:00:00:01 gone"]);
        // What is not finished itself does not work yet.
        let mut transitions = Transitions::default();
        transitions.begin(&unfinished(plugged(&["10.0.2.10/32"]), true));
        assert_eq!(transitions.take(&plugged(&["10.0.2.10/32"])).len(), 1);
    }

    #[test]
    fn what_was_ready_before_the_first_look_was_found() {
        let mut transitions = Transitions::default();
        let told = transitions.take(&plugged(&[]));
        assert_eq!(names(&told), ["02:ec:20:00:00:01 ready, found true"]);
    }

    #[test]
    fn what_was_plugged_before_and_has_to_be_repaired_first_was_found() {
        for of_eth1 in [true, false] {
            let mut transitions = Transitions::default();
            let one = || plugged(&["10.0.2.10/32"]);
            assert_eq!(transitions.take(&unfinished(one(), of_eth1)), []);
            let told = transitions.take(&one());
            assert_eq!(names(&told), ["02:ec:20:00:00:01 ready, found true"]);
            // Pulled and plugged in again, it is new.
            let pulled = View { desired: Desired::default(), ..one() };
            assert_eq!(names(&transitions.take(&pulled)), ["02:ec:20:00:00:01 gone"]);
            let told = transitions.take(&one());
            assert_eq!(names(&told), ["02:ec:20:00:00:01 ready, found false"]);
        }
    }

    #[test]
    fn what_is_repaired_has_not_changed_and_what_is_different_has() {
        let mut transitions = Transitions::default();
        transitions.take(&plugged(&["10.0.2.10/32"]));
        assert_eq!(transitions.take(&unfinished(plugged(&[]), true)), []);
        assert_eq!(transitions.take(&plugged(&["10.0.2.10/32"])), []);
        let told = transitions.take(&plugged(&["10.0.2.10/32", "10.0.2.11/32"]));
        assert_eq!(names(&told), ["changed 1 to 2"]);
    }

    #[test]
    fn an_interface_is_gone_once_nothing_of_it_is_left() {
        let mut transitions = Transitions::default();
        transitions.take(&plugged(&[]));
        let pulled =
            || View { snapshot: Snapshot::default(), desired: Desired::default(), ..plugged(&[]) };
        assert_eq!(transitions.take(&unfinished(pulled(), false)), []);
        assert_eq!(names(&transitions.take(&pulled())), ["02:ec:20:00:00:01 gone"]);
        assert_eq!(transitions.take(&pulled()), []);
        // Released, the device stays.
        transitions.take(&plugged(&[]));
        let told = transitions.take(&view(MAC, Role::Unmanaged, &[]));
        assert_eq!(names(&told), ["02:ec:20:00:00:01 gone"]);
    }

    #[test]
    fn marks_that_the_kernel_refuses_keep_nothing_from_being_ready() {
        let edit = Edit::Marks { from: None, to: None };
        let changes = vec![Change { interface: None, edit }];
        let told = Transitions::default()
            .take(&View { plan: Plan { changes }, ..plugged(&["10.0.2.10/32"]) });
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn the_primary_counts_where_it_is_asked_for() {
        let primary = || view(MAC, Role::Primary, &["10.0.1.11/32"]);
        assert_eq!(Transitions::default().take(&primary()), []);
        let told = Transitions::with_primary().take(&primary());
        assert_eq!(names(&told), ["02:ec:20:00:00:01 ready, found true"]);
    }

    #[test]
    fn what_is_held_is_ready_where_it_has_something() {
        let mut transitions = Transitions::default();
        assert_eq!(transitions.take(&view(MAC, Role::Held, &[])), []);
        assert_eq!(transitions.take(&view(MAC, Role::Held, &["10.0.2.10/32"])).len(), 1);
    }

    #[test]
    fn a_device_that_takes_the_index_of_another_one_is_another_interface() {
        let mut transitions = Transitions::default();
        transitions.take(&plugged(&[]));
        let other = [2, 0xec, 0x20, 0, 0, 2];
        let told = transitions.take(&view(other, Role::Plugged, &[]));
        let expected = ["02:ec:20:00:00:01 gone", "02:ec:20:00:00:02 ready, found false"];
        assert_eq!(names(&told), expected);
    }
}
