//! What other network managers are to be told, and what is left to them: pure, as the plan is.
//!
//! jackfield makes what concerns the whole host, and for interfaces of theirs whatever their files do
//! not say: rules, link groups, marks, the journal. Addresses are theirs to add, so that there is one
//! who does it; and while they are being told, so are their routes.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_metadata::MacAddr;

use crate::change::{Change, Edit, InterfaceRef};
use crate::desired::{Desired, Role};
use crate::plan::Plan;
use crate::render::{Carried, File, INTERFACES_D, Manager, render};
use crate::snapshot::Snapshot;

/// What a manager is to be told of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Who is told.
    pub manager: Manager,
    /// Of which interface.
    pub mac: MacAddr,
    /// The interface is taken down first, by the files that are there.
    pub down: Option<String>,
    /// Files that go then.
    pub remove: Vec<String>,
    /// Files that are written then.
    pub write: Vec<File>,
    /// The interface is brought up by them.
    pub up: Option<String>,
}

/// Adds to the plan what managers are to be told, and takes from it what is left to them: that is
/// returned.
pub fn leave_to_managers(snapshot: &Snapshot, desired: &Desired, plan: &mut Plan) -> Vec<Change> {
    let missing = missing_addresses(plan);
    let due: BTreeMap<u32, Due> = desired
        .carried
        .iter()
        .map(|carried| (carried.index, due(snapshot, carried, missing.contains(&carried.index))))
        .collect();
    let mut withheld = Vec::new();
    for carried in &desired.carried {
        let under_way = due.get(&carried.index).is_some_and(|due| due.under_way);
        let (left, ours) = std::mem::take(&mut plan.changes)
            .into_iter()
            .partition(|change| is_left(change, carried, under_way));
        plan.changes = ours;
        withheld.extend::<Vec<Change>>(left);
    }
    // What is not wanted any more goes first: another interface may have its name by now.
    let wanted: BTreeSet<String> =
        desired.carried.iter().flat_map(render).map(|file| file.path).collect();
    let works = stops(snapshot, desired, &wanted)
        .into_iter()
        .chain(due.into_values().filter_map(|due| due.work));
    plan.changes.extend(works.map(|work| {
        let link =
            snapshot.links.iter().find(|link| link.address.map(MacAddr::from) == Some(work.mac));
        let interface = link.map(|link| InterfaceRef {
            index: link.index,
            name: link.name.clone(),
            mac: Some(work.mac),
        });
        Change { interface, edit: Edit::Carry(work) }
    }));
    withheld
}

/// What is due of an interface.
struct Due {
    /// What its manager is to be told now.
    work: Option<Work>,
    /// It has not taken up yet what it was or is to be told.
    under_way: bool,
}

fn due(snapshot: &Snapshot, carried: &Carried, address_missing: bool) -> Due {
    let Carried { manager, mac, name, .. } = carried;
    let managers = &snapshot.managers;
    if managers.at_work.contains(mac) {
        return Due { work: None, under_way: true };
    }
    let files = render(carried);
    let present = |path: &str| managers.files.get(path).map(|file| file.text.as_str());
    let remove: Vec<String> = managers
        .about(*manager, *mac)
        .map(|(path, _)| path)
        .filter(|path| !files.iter().any(|file| file.path == **path))
        .map(str::to_owned)
        .collect();
    let differing: Vec<&File> =
        files.iter().filter(|file| present(&file.path) != Some(&file.text)).collect();
    let taken = managers.up.contains(&(*manager, name.clone()));
    let restart = match manager {
        // What is said in the stanza alone is in the kernel by our own doing, or is put there: no
        // connection ends because an interface has one more address.
        Manager::Ifupdown => {
            let first_line = |text: &str| text.lines().next().map(str::to_owned);
            !taken
                || !remove.is_empty()
                || differing.iter().any(|file| {
                    !file.path.starts_with(INTERFACES_D)
                        || present(&file.path).and_then(first_line) != first_line(&file.text)
                })
        }
        Manager::Networkd => {
            !taken || !remove.is_empty() || !differing.is_empty() || address_missing
        }
    };
    let told = managers.told.contains(mac) && differing.is_empty() && remove.is_empty();
    if told || (!restart && differing.is_empty()) {
        return Due { work: None, under_way: restart };
    }
    let before = managers.about(*manager, *mac).map(|(_, file)| file.name.clone()).next();
    let work = Work {
        manager: *manager,
        mac: *mac,
        down: (restart && *manager == Manager::Ifupdown).then(|| before.unwrap_or(name.clone())),
        remove,
        write: files.iter().filter(|file| differing.contains(file)).cloned().collect(),
        up: restart.then(|| name.clone()),
    };
    Due { work: Some(work), under_way: restart }
}

/// The interfaces of which an address is to be added.
fn missing_addresses(plan: &Plan) -> BTreeSet<u32> {
    let adds = |change: &&Change| matches!(change.edit, Edit::AddAddress(_));
    let interfaces =
        plan.changes.iter().filter(adds).filter_map(|change| change.interface.as_ref());
    interfaces.map(|interface| interface.index).collect()
}

/// Whether a change is the manager's to make.
fn is_left(change: &Change, carried: &Carried, under_way: bool) -> bool {
    if change.interface.as_ref().map(|interface| interface.index) != Some(carried.index) {
        return false;
    }
    match &change.edit {
        Edit::AddAddress(address) => {
            under_way
                || carried.manager == Manager::Networkd
                || carried.by_dhcp() == Some(address.address.addr())
        }
        Edit::AddRoute(route) => under_way && route.uses(carried.index),
        Edit::Up { to, .. } => under_way && *to,
        Edit::Mtu { .. } => under_way,
        _ => false,
    }
}

/// Files of ours that nobody wants any more.
fn stops(snapshot: &Snapshot, desired: &Desired, wanted: &BTreeSet<String>) -> Vec<Work> {
    let managers = &snapshot.managers;
    let mut works: BTreeMap<(MacAddr, Manager), Work> = BTreeMap::new();
    for (path, file) in &managers.files {
        let of = |mac: MacAddr| mac == file.mac;
        let carried = desired.carried.iter().any(|it| of(it.mac) && it.manager == file.manager);
        let planned = desired.interfaces.iter().find(|interface| of(interface.mac));
        let stays = planned.is_some_and(|planned| {
            // Where more has to be known first, or something is in the way, it stays as it is.
            !matches!(planned.role, Role::Unmanaged | Role::Plugged)
        });
        if carried || stays || wanted.contains(path) || managers.at_work.contains(&file.mac) {
            continue;
        }
        let work = works.entry((file.mac, file.manager)).or_insert_with(|| Work {
            manager: file.manager,
            mac: file.mac,
            down: None,
            remove: Vec::new(),
            write: Vec::new(),
            up: None,
        });
        // Where somebody has put a stanza of his own in the place of ours, the interface is his.
        if path.starts_with(INTERFACES_D) {
            work.down = Some(file.name.clone());
        }
        work.remove.push(path.clone());
    }
    works.into_values().collect()
}
