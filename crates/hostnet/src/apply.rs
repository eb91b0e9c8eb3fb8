//! Makes the changes of a plan.

use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{ConnectionMarks, Error, Nftables, Refusal, Request, Rtnetlink};

use crate::change::{Change, Edit};
use crate::journal::Journal;
use crate::plan::Plan;

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// How many changes were made, or had been made already when their turn came.
    pub done: usize,
    /// The changes that were refused, with the kernel's words.
    pub refused: Vec<(Change, String)>,
    /// The changes that were not tried because of those, with the reason.
    pub withheld: Vec<(Change, &'static str)>,
    /// True where a refusal means that the privilege is missing.
    pub not_permitted: bool,
}

/// Makes the changes in order, in runs: of settings of one device, and of everything else in one
/// batch. A change that is refused does not keep the next from being tried; what is left is the next
/// round's work. But a device whose journal cannot be written is not changed, and a journal is kept
/// until all that it tells is put back, and no rule goes where one was refused that may be in its
/// place.
///
/// Settings are files of the calling thread's network namespace, and marks are written there, which
/// must be the socket's.
///
/// # Errors
/// Where the conversation with the kernel fails.
pub fn apply(kernel: &mut Rtnetlink, plan: &Plan) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    let mut run = Run::default();
    // Managers are told afterwards, and elsewhere.
    let kernels = |change: &&Change| !matches!(change.edit, Edit::Carry(_));
    for change in plan.changes.iter().filter(kernels) {
        let journal = Journalling::of(change);
        let replaces = matches!(change.edit, Edit::RemoveRule(_)) && run.adds_rules();
        if journal == Journalling::Clears || replaces || !run.goes_on_with(change) {
            run.make(kernel, &mut applied)?;
        }
        if let Some(reason) = applied.forbids(change, journal) {
            applied.withheld.push((change.clone(), reason));
            continue;
        }
        run.changes.push(change);
        if journal == Journalling::Writes {
            run.make(kernel, &mut applied)?;
        }
    }
    run.make(kernel, &mut applied)?;
    Ok(applied)
}

/// Changes that are made at once: settings of one device, marks, or requests.
#[derive(Default)]
struct Run<'p> {
    changes: Vec<&'p Change>,
}

impl Run<'_> {
    fn goes_on_with(&self, change: &Change) -> bool {
        // Marks are of no device: there is one change of them.
        let device_of_setting = |change: &Change| {
            let device = change.interface.as_ref().map(|interface| interface.index);
            change.request().is_none().then_some(device)
        };
        self.changes.last().is_none_or(|last| device_of_setting(last) == device_of_setting(change))
    }

    fn adds_rules(&self) -> bool {
        self.changes.iter().any(|change| matches!(change.edit, Edit::AddRule(_)))
    }

    /// Makes them, and is empty again.
    fn make(&mut self, kernel: &mut Rtnetlink, applied: &mut Applied) -> Result<(), Error> {
        let changes = std::mem::take(&mut self.changes);
        match changes.first().map(|change| &change.edit) {
            None => {}
            Some(Edit::Setting { .. }) => set(&changes, applied),
            Some(Edit::Marks { .. }) => {
                for change in changes {
                    if let Edit::Marks { to, .. } = &change.edit {
                        applied.take(change, write_marks(to.as_ref()));
                    }
                }
            }
            Some(_) => send(kernel, &changes, applied)?,
        }
        Ok(())
    }
}

fn send(kernel: &mut Rtnetlink, changes: &[&Change], applied: &mut Applied) -> Result<(), Error> {
    let requests: Vec<Request> = changes.iter().filter_map(|change| change.request()).collect();
    for (change, answer) in changes.iter().zip(kernel.batch(&requests)?) {
        match answer {
            Ok(()) => applied.done += 1,
            Err(refusal) if is_done(change, &refusal) => applied.done += 1,
            Err(refusal) => {
                applied.not_permitted |=
                    [Refusal::NOT_PERMITTED, Refusal::ACCESS_DENIED].contains(&refusal.errno);
                applied.refused.push(((*change).clone(), refusal.to_string()));
            }
        }
    }
    Ok(())
}

fn set(changes: &[&Change], applied: &mut Applied) {
    let setting = |change: &&Change| match &change.edit {
        Edit::Setting { setting, to, .. } => Some((*setting, *to)),
        _ => None,
    };
    let settings: Vec<(Setting, i32)> = changes.iter().filter_map(setting).collect();
    // A setting is some device's.
    let device = changes.first().and_then(|change| change.interface.as_ref());
    let Some(device) = device else { return };
    let written = sysctl::write(device.index, &device.name, &settings);
    for (change, written) in changes.iter().zip(written) {
        applied.take(change, written);
    }
}

fn write_marks(marks: Option<&ConnectionMarks>) -> Result<(), Error> {
    let Some(mut kernel) = Nftables::open()? else {
        let refusal = Refusal { errno: Refusal::UNSUPPORTED, message: None };
        return Err(Error::Refused { attempt: "use nf_tables".to_owned(), refusal });
    };
    match marks {
        Some(marks) => marks.write(&mut kernel),
        None => ConnectionMarks::remove(&mut kernel),
    }
}

/// What a change does to the journal of its device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Journalling {
    Writes,
    Clears,
    Neither,
}

impl Journalling {
    fn of(change: &Change) -> Self {
        let Edit::Alias { from, to } = &change.edit else { return Self::Neither };
        let is_journal =
            |alias: &Option<String>| alias.as_deref().and_then(Journal::read).is_some();
        match (is_journal(from), is_journal(to)) {
            (_, true) => Self::Writes,
            (true, false) => Self::Clears,
            (false, false) => Self::Neither,
        }
    }
}

impl Applied {
    /// Takes in what became of a change that is no request.
    fn take(&mut self, change: &Change, result: Result<(), Error>) {
        match result {
            Ok(()) => self.done += 1,
            Err(error) => {
                self.not_permitted |= error.is_permission();
                self.refused.push((change.clone(), error.to_string()));
            }
        }
    }

    /// Whether another manager must not be told of an interface after what was refused: without its
    /// journal or its rules it must not get an address.
    pub(crate) fn keeps_from_manager(&self, change: &Change) -> bool {
        self.not_permitted
            || self.refused.iter().any(|(other, _)| matches!(other.edit, Edit::AddRule(_)))
            || self.forbids(change, Journalling::Neither).is_some()
    }

    /// Why a change must not be tried after what was refused.
    fn forbids(&self, change: &Change, journal: Journalling) -> Option<&'static str> {
        if let Edit::RemoveRule(old) = &change.edit {
            let new = |other: &Change| matches!(&other.edit, Edit::AddRule(new) if new.family == old.family);
            return self
                .refused
                .iter()
                .any(|(other, _)| new(other))
                .then_some("put off until the new rules are there");
        }
        let index = change.interface.as_ref()?.index;
        let refused = self.refused.iter().map(|(other, _)| other);
        let withheld = self.withheld.iter().map(|(other, _)| other);
        let mut before = refused
            .chain(withheld)
            .filter(|other| other.interface.as_ref().is_some_and(|i| i.index == index));
        match journal {
            Journalling::Clears => before
                .any(|other| ["link", "sysctl", "altname"].contains(&other.object()))
                .then_some("put off until all that the journal tells is put back"),
            Journalling::Writes | Journalling::Neither => before
                .any(|other| Journalling::of(other) == Journalling::Writes)
                .then_some("not tried: the journal of the device could not be written"),
        }
    }
}

/// The machine changed since the snapshot, to what was wanted of it.
fn is_done(change: &Change, refusal: &Refusal) -> bool {
    match change.action() {
        "add" => refusal.already_there(),
        "remove" => refusal.already_gone(),
        _ => false,
    }
}
