//! One-shot commands: plug, unplug, scan, plan. Each takes one or a few passes and returns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jackfield_kernel::{DeviceEvents, Error as KernelError, Link};
use jackfield_metadata::{Ask, Client, ClientOptions, Error as MetadataError, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::change::{Change, Edit};
use crate::config::Config;
use crate::desired::{DesiredInterface, Role, Scope};
use crate::hooks::Hooks;
use crate::machine::{Answer, Machine, View, ask};
use crate::plan::Plan;
use crate::problem::Problem;
use crate::snapshot::Snapshot;

/// How long one round of requests may take where there is time for several.
const ROUND: Duration = Duration::from_secs(3);
/// …and longer where there are many interfaces: the client may not send more in this time than what
/// one of them takes.
const EACH: Duration = Duration::from_millis(250);
/// More interfaces than any instance has.
const MANY: u32 = 100;
/// Between two tries while metadata lags.
const PAUSE: Duration = Duration::from_millis(400);
/// How long another network manager may take to let an interface go.
const MANAGERS: Duration = Duration::from_secs(60);
/// How many passes a change gets to take effect.
const PASSES: u32 = 5;

/// Why a one-shot command failed.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// There is no such interface.
    #[error("there is no interface '{0}'")]
    NoSuchInterface(String),
    /// The interface cannot be a cloud interface.
    #[error("{name} is no device that may be a cloud interface: it is {kind}")]
    NotACandidate {
        /// The interface.
        name: String,
        /// What it is.
        kind: String,
    },
    /// The interface is configured not to be managed.
    #[error("{0} is configured not to be managed (manage = false)")]
    Unmanaged(String),
    /// The primary interface is never unplugged.
    #[error("{0} is the instance's primary interface, which is never unplugged")]
    Primary(String),
    /// Something stands in the way that waiting does not cure, or that it did not cure in time.
    #[error("{name}: {text}; {fix}")]
    InTheWay {
        /// The interface.
        name: String,
        /// What stands in the way.
        text: String,
        /// What to do about it.
        fix: String,
    },
    /// Metadata did not answer.
    #[error("{0}")]
    Metadata(MetadataError),
    /// The kernel refused changes.
    #[error("the kernel refused '{change}': {reason}")]
    Refused {
        /// What was to be changed.
        change: String,
        /// The kernel's words.
        reason: String,
        /// True where the privilege is missing.
        not_permitted: bool,
    },
    /// Another network manager could not be told to let an interface go.
    #[error("{0}")]
    Manager(String),
    /// An agent runs, and would plug the interface again.
    #[error("a jackfield agent runs here and would plug {0} again")]
    AgentRuns(String),
    /// The kernel cannot be talked to.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// What a command did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The changes that were made.
    pub changes: Vec<Change>,
    /// What is left to say: interfaces that could not be plugged yet.
    pub remarks: Vec<String>,
}

/// A machine, and the metadata service that tells what it shall be like.
pub struct Session {
    machine: Machine,
    client: Client,
    hooks: Hooks,
    /// Programs are told here of what becomes of interfaces: they are there, and no agent tells them.
    tells_hooks: bool,
}

impl Session {
    /// Opens both, for the calling thread's network namespace.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn open(config: Config, options: ClientOptions) -> Result<Self, OnceError> {
        Ok(Session {
            machine: Machine::open(config)?,
            client: Client::new(options),
            hooks: Hooks::default(),
            tells_hooks: false,
        })
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// How many requests were sent to the metadata service.
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Asks metadata about every device that may be a cloud interface, until the deadline.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to. What metadata said, also that it did not answer, is
    /// the value.
    pub fn crawl(&mut self, deadline: Instant) -> Result<Result<(), MetadataError>, OnceError> {
        let (snapshot, _) = self.machine.look()?;
        Ok(self.ask_about(&snapshot, deadline))
    }

    fn ask_about(&mut self, snapshot: &Snapshot, deadline: Instant) -> Result<(), MetadataError> {
        let asks: Vec<(MacAddr, Ask)> =
            snapshot.candidates().map(|candidate| (candidate.mac, Ask::Everything)).collect();
        // One listing tells which of many devices are cloud interfaces.
        let search: Vec<MacAddr> = match asks.len() {
            ..=4 => Vec::new(),
            _ => asks.iter().map(|(mac, _)| *mac).collect(),
        };
        let asks = if search.is_empty() { asks } else { Vec::new() };
        let answer = ask(&self.client, &asks, &search, deadline);
        self.machine.learn(Instant::now(), &answer);
        match answer.error() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Looks at the machine and works out what follows.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn view(&mut self, scope: &Scope) -> Result<View, OnceError> {
        let (snapshot, _) = self.machine.look()?;
        Ok(self.machine.view(snapshot, scope))
    }

    /// What would change, for all interfaces or for those that are named.
    ///
    /// # Errors
    /// Where an interface is not there, or metadata or the kernel cannot be talked to.
    pub fn plan(&mut self, names: &[String], wait: Duration) -> Result<View, OnceError> {
        let scope = self.scope(names)?;
        self.crawl(Instant::now() + wait)?.map_err(OnceError::Metadata)?;
        let mut view = self.view(&scope)?;
        if let Scope::Only(only) = &scope {
            view.plan = view.plan.only(only);
        }
        Ok(view)
    }

    fn scope(&mut self, names: &[String]) -> Result<Scope, OnceError> {
        if names.is_empty() {
            return Ok(Scope::Everything);
        }
        let (snapshot, _) = self.machine.look()?;
        let indices: Result<BTreeSet<u32>, OnceError> = names
            .iter()
            .map(|name| match find(&snapshot, name) {
                Some(link) => Ok(link.index),
                None => Err(OnceError::NoSuchInterface(name.clone())),
            })
            .collect();
        Ok(Scope::Only(indices?))
    }

    /// Configures the interfaces, and returns when they are configured.
    ///
    /// # Errors
    /// Where one cannot be configured within `wait`.
    pub fn plug(&mut self, names: &[String], wait: Duration) -> Result<Report, OnceError> {
        let scope = self.scope(names)?;
        let Scope::Only(only) = &scope else { return Ok(Report::default()) };
        let (snapshot, _) = self.machine.look()?;
        for index in only {
            check_candidate(&snapshot, *index)?;
        }
        let chosen = |interface: &DesiredInterface| only.contains(&interface.index);
        let report = self.until_settled(&scope, Instant::now() + wait, &chosen);
        self.hooks.wait();
        report
    }

    /// Configures every interface that is not configured, and removes what is left of those that
    /// are gone. Interfaces that metadata lists but does not describe completely yet are waited
    /// for; devices that it does not list are left alone.
    ///
    /// # Errors
    /// Where metadata or the kernel cannot be talked to, or refuses.
    pub fn scan(&mut self, wait: Duration) -> Result<Report, OnceError> {
        let deadline = Instant::now() + wait;
        let chosen = |interface: &DesiredInterface| {
            interface.role != Role::Foreign
                && interface.problems.iter().all(|problem| problem.code != "not-listed")
        };
        let report = self.until_settled(&Scope::Everything, deadline, &chosen);
        // What is gone is cleaned up also where what is there cannot be plugged.
        let report = match report {
            Err(OnceError::Metadata(_)) => self.make_all(&Scope::Everything, None).and(report),
            _ => report,
        };
        self.hooks.wait();
        report
    }

    /// Looks, asks and changes until every chosen interface is what it shall be.
    fn until_settled(
        &mut self,
        scope: &Scope,
        deadline: Instant,
        chosen: &dyn Fn(&DesiredInterface) -> bool,
    ) -> Result<Report, OnceError> {
        let events = DeviceEvents::open()?;
        let mut report = Report::default();
        let mut first = true;
        loop {
            let (snapshot, _) = self.machine.look()?;
            if std::mem::take(&mut first) {
                self.begin_hooks(&snapshot);
            }
            let devices = u32::try_from(snapshot.candidates().count());
            let patience = ROUND.max(EACH * devices.map_or(MANY, |devices| devices.min(MANY)));
            let round = deadline.min(Instant::now() + patience);
            let heard = self.ask_about(&snapshot, round);
            let view = self.view(scope)?;
            let made = self.make(&view.plan);
            // Also of what was made before something was refused.
            let told = self.tell_hooks(scope, &view.plan, None);
            report.changes.extend(made?);
            told?;
            let waiting = view.desired.interfaces.iter().find_map(|interface| {
                let waits = chosen(interface)
                    && matches!(
                        interface.role,
                        Role::Waiting | Role::Held | Role::Refused | Role::Foreign
                    );
                waits.then(|| (interface, interface.problems.first().cloned()))
            });
            let waiting = waiting.or_else(|| {
                let left = view.interfaces_left_to_managers();
                left.into_iter()
                    .find(|(interface, _)| chosen(interface))
                    .map(|(interface, problem)| (interface, Some(problem)))
            });
            let unmanaged = view
                .desired
                .interfaces
                .iter()
                .find(|interface| chosen(interface) && interface.role == Role::Unmanaged);
            if let (Some(interface), Scope::Only(_)) = (unmanaged, scope) {
                let name = interface.name.clone();
                return Err(match interface.problems.first().cloned() {
                    Some(Problem { text, fix, .. }) => OnceError::InTheWay { name, text, fix },
                    None => OnceError::Unmanaged(name),
                });
            }
            let Some((interface, problem)) = waiting else {
                let told = |change: &Change| matches!(change.edit, Edit::Carry(_));
                let at_work = !view.snapshot.managers.at_work.is_empty();
                if at_work || view.plan.changes.iter().any(told) {
                    // It must not end with us, perhaps between ifdown and ifup; and what a manager
                    // lets go is ours to make.
                    if let Some(text) = self.machine.wait_for_managers(MANAGERS) {
                        return Err(OnceError::Manager(text));
                    }
                    pause(&events);
                    continue;
                }
                heard.map_err(OnceError::Metadata)?;
                return Ok(report);
            };
            let lasting = problem.as_ref().is_some_and(|problem| match interface.role {
                Role::Refused | Role::Foreign => problem.code != "table-conflict",
                _ => problem.code == "backend-failed",
            });
            if lasting || Instant::now() + PAUSE >= deadline {
                heard.map_err(OnceError::Metadata)?;
                let (text, fix) =
                    problem.map(|problem| (problem.text, problem.fix)).unwrap_or_default();
                return Err(OnceError::InTheWay { name: interface.name.clone(), text, fix });
            }
            pause(&events);
        }
    }

    /// Removes everything of ours for the interfaces, present or gone.
    ///
    /// # Errors
    /// Where one is the primary, an agent runs that would plug it again, or the kernel refuses.
    pub fn unplug(&mut self, names: &[String], wait: Duration) -> Result<Report, OnceError> {
        let (snapshot, _) = self.machine.look()?;
        self.begin_hooks(&snapshot);
        let mut unplugged = BTreeSet::new();
        let mut report = Report::default();
        let mut missing = Vec::new();
        for name in names {
            match find(&snapshot, name) {
                None => {
                    report.remarks.push(format!("{name} is not here (any more)"));
                    missing.push(name.as_str());
                }
                Some(link) => {
                    self.refuse_primary(&snapshot, link, wait)?;
                    if crate::agent::is_running() {
                        return Err(OnceError::AgentRuns(name.clone()));
                    }
                    unplugged.insert(link.index);
                }
            }
        }
        // What is left of one that is gone is not that of one that is here.
        let missing = if let [name] = missing[..] { Some(name) } else { None };
        let changes = self.make_all(&Scope::Unplug(unplugged), missing);
        self.hooks.wait();
        report.changes = changes?;
        Ok(report)
    }

    /// Removes everything that is ours in this network namespace, whatever metadata says: interfaces are
    /// as they were before they were plugged, and so is the primary.
    ///
    /// # Errors
    /// Where an agent runs that would plug it again, or the kernel refuses.
    pub fn unplug_all(&mut self) -> Result<Report, OnceError> {
        if crate::agent::is_running() {
            return Err(OnceError::AgentRuns("everything".to_owned()));
        }
        let (snapshot, _) = self.machine.look()?;
        self.begin_hooks(&snapshot);
        let changes = self.make_all(&Scope::Nothing, None);
        self.hooks.wait();
        Ok(Report { changes: changes?, remarks: Vec::new() })
    }

    /// Makes all that follows from what is known, until other managers have done their part, and has
    /// programs told of what was made, also where not all of it was. `missing`: the one interface that
    /// was named and is not here.
    fn make_all(&mut self, scope: &Scope, missing: Option<&str>) -> Result<Vec<Change>, OnceError> {
        let view = self.view(scope)?;
        let made =
            self.make(&view.plan).and_then(|made| match self.machine.wait_for_managers(MANAGERS) {
                None => Ok(made),
                Some(text) => Err(OnceError::Manager(text)),
            });
        let told = self.tell_hooks(scope, &view.plan, missing);
        let made = made?;
        told.map(|()| made)
    }

    /// Takes note of what is there before anything is done, where programs are to be told of it.
    fn begin_hooks(&mut self, snapshot: &Snapshot) {
        let there = self.machine.config().hooks.directory.is_dir();
        self.tells_hooks = there && !crate::agent::is_running();
        if self.tells_hooks {
            // Nothing is known of the cloud: what is plugged is held.
            let view = self.machine.view(snapshot.clone(), &Scope::Everything);
            self.hooks.begin(&view);
        }
    }

    /// Has programs told of what became of interfaces. `missing`: the one that was named and is not
    /// here.
    fn tell_hooks(
        &mut self,
        scope: &Scope,
        plan: &Plan,
        missing: Option<&str>,
    ) -> Result<(), OnceError> {
        if self.tells_hooks {
            let view = self.view(scope)?;
            // What was refused is to be done still.
            let mut made = plan.changes.clone();
            made.retain(|change| !view.plan.changes.contains(change));
            self.hooks.observe_made(self.machine.config(), &view, &made, missing);
        }
        Ok(())
    }

    /// A device without journal that has something of ours is the primary; metadata is asked where
    /// it may tell.
    fn refuse_primary(
        &mut self,
        snapshot: &Snapshot,
        link: &Link,
        wait: Duration,
    ) -> Result<(), OnceError> {
        let plugged = snapshot.journals().any(|(with, _)| with.index == link.index);
        if plugged {
            return Ok(());
        }
        let primary = self.client.primary(Instant::now() + wait);
        // It may have been left in the link group by a plug that was interrupted.
        let answer = Answer { primary: Some(primary.clone()), ..Answer::default() };
        self.machine.learn(Instant::now(), &answer);
        let is_primary = match &primary {
            Ok(mac) => link.address.map(MacAddr::from) == Some(*mac),
            // Out of reach: what has addresses of ours and no journal can only be the primary.
            Err(_) => snapshot.our_addresses(link.index).next().is_some(),
        };
        if is_primary { Err(OnceError::Primary(link.name.clone())) } else { Ok(()) }
    }

    /// Makes the changes, and looks again until nothing is left of them.
    pub(crate) fn make(&mut self, plan: &Plan) -> Result<Vec<Change>, OnceError> {
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let mut refused = None;
        let mut tries = plan.clone();
        for _ in 0..PASSES {
            let applied = self.machine.apply(&tries)?;
            refused =
                applied.refused.into_iter().next().map(|(change, reason)| OnceError::Refused {
                    change: change.to_string(),
                    reason,
                    not_permitted: applied.not_permitted,
                });
            match &refused {
                // A device that is renamed or moved meanwhile makes a change fail that the next
                // look does not plan any more.
                Some(OnceError::Refused { not_permitted: false, .. }) => {}
                _ => break,
            }
            let (snapshot, _) = self.machine.look()?;
            tries.changes.retain(|change| {
                change.interface.as_ref().is_none_or(|i| snapshot.link(i.index).is_some())
            });
            if tries.is_empty() {
                refused = None;
                break;
            }
        }
        refused.map_or_else(|| Ok(plan.changes.clone()), Err)
    }
}

/// The device of this name, alternative name or MAC.
pub fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Link> {
    let mac: Option<MacAddr> = name.parse().ok();
    snapshot.links.iter().find(|link| {
        link.name == name
            || link.alternative_names.iter().any(|other| other == name)
            || (mac.is_some() && link.address.map(MacAddr::from) == mac)
    })
}

fn check_candidate(snapshot: &Snapshot, index: u32) -> Result<(), OnceError> {
    if snapshot.candidates().any(|candidate| candidate.link.index == index) {
        return Ok(());
    }
    let Some(link) = snapshot.link(index) else { return Ok(()) };
    let kind = match (&link.kind, link.controller) {
        (_, Some(_)) => "a port of a bridge or bond".to_owned(),
        (Some(kind), _) => format!("of kind {kind} (see agent.device_kinds)"),
        (None, _) => "no Ethernet device".to_owned(),
    };
    Err(OnceError::NotACandidate { name: link.name.clone(), kind })
}

/// Waits a little, or until udev has finished with something.
fn pause(events: &DeviceEvents) {
    let timeout = Timespec::try_from(PAUSE).ok();
    let mut descriptors = [PollFd::new(events, PollFlags::IN)];
    // An interrupted wait is a short one.
    let _ = poll(&mut descriptors, timeout.as_ref());
}
