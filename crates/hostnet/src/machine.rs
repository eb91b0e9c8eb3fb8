//! The machine as something that can be looked at, planned for and changed: one pass of the flow
//! that [`agent`](crate::agent) repeats and [`once`](crate::once) makes once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_kernel::{Error as KernelError, Link, Rtnetlink, RuleAction};
use jackfield_metadata::{Ask, Client, Error as MetadataError, Listing, MacAddr};

use crate::apply::{Applied, apply};
use crate::carrier::Carrier;
use crate::carry::leave_to_managers;
use crate::change::{Change, Edit};
use crate::cloud::{Cloud, Memory};
use crate::config::Config;
use crate::desired::{Desired, DesiredInterface, Scope, desired, identity, names_of};
use crate::import;
use crate::managers::Managers;
use crate::neighbours::Disk;
use crate::plan::{Plan, plan};
use crate::problem::Problem;
use crate::schedule::Round;
use crate::snapshot::{News, Snapshot, kernel_keeps_address_protocol};

/// What one look at the machine shows, and what follows from it.
#[derive(Debug, Clone)]
pub struct View {
    /// What it is like.
    pub snapshot: Snapshot,
    /// What the cloud wants, as far as it is known.
    pub cloud: Arc<Cloud>,
    /// What it shall be like.
    pub desired: Desired,
    /// What is to be changed.
    pub plan: Plan,
    /// What is missing besides, and left to other managers.
    pub left: Vec<Change>,
}

impl View {
    /// The interfaces of which something is left to another manager, and what or why.
    pub(crate) fn interfaces_left_to_managers(&self) -> Vec<(&DesiredInterface, Problem)> {
        let failed = &self.snapshot.managers.failed;
        let at_work = &self.snapshot.managers.at_work;
        let of_interface = |interface: &&DesiredInterface| {
            let of_it = |change: &&Change| {
                change.interface.as_ref().is_some_and(|about| about.index == interface.index)
            };
            let left = self.left.iter().find(of_it)?;
            let manager = interface.backend.manager()?;
            let problem = match failed.get(&interface.mac) {
                Some(text) if !at_work.contains(&interface.mac) => {
                    Problem::manager_failed(manager, text)
                }
                _ => Problem::left_to_manager(manager, &interface.name, left),
            };
            Some(problem)
        };
        let interfaces = self.desired.interfaces.iter();
        interfaces.filter_map(|interface| Some((interface, of_interface(&interface)?))).collect()
    }
}

/// This machine: the network namespace of the calling thread.
pub struct Machine {
    kernel: Rtnetlink,
    config: Config,
    memory: Memory,
    keeps_address_protocol: bool,
    ignore_udev: BTreeSet<u32>,
    carrier: Carrier,
    /// What neighbours leave on disk, once it was read.
    neighbours: Option<Disk>,
}

impl Machine {
    /// Opens the machine.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn open(config: Config) -> Result<Self, KernelError> {
        Ok(Machine {
            kernel: Rtnetlink::open()?,
            config,
            memory: Memory::new(),
            keeps_address_protocol: kernel_keeps_address_protocol(),
            ignore_udev: BTreeSet::new(),
            carrier: Carrier::default(),
            neighbours: None,
        })
    }

    /// Treats the kernel as one that does not keep the protocol of an address (before Linux 5.18).
    pub fn without_address_protocol(&mut self) {
        self.keeps_address_protocol = false;
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// From now on, this is the configuration.
    pub(crate) fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// What was heard of the cloud.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The port of the socket by which changes are made.
    pub fn port(&self) -> u32 {
        self.kernel.port()
    }

    /// How many writes were sent to the kernel so far.
    pub fn writes(&self) -> u64 {
        self.kernel.writes()
    }

    /// Waits no longer for udev to finish with the device.
    pub fn ignore_udev(&mut self, interface: u32) {
        self.ignore_udev.insert(interface);
    }

    /// Looks at the machine. Returns with it the MACs whose device came or went.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn look(&mut self) -> Result<(Snapshot, Vec<MacAddr>), KernelError> {
        let tables = self.tables();
        let mut snapshot = Snapshot::read(
            &mut self.kernel,
            &self.config.agent,
            &tables,
            self.keeps_address_protocol,
        )?;
        self.look_at_managers(&mut snapshot);
        let read = || {
            let candidates = snapshot.candidates().map(|is| is.link.index).collect();
            Disk::read(Path::new("/"), &candidates)
        };
        snapshot.neighbours = self.neighbours.get_or_insert_with(read).clone();
        Ok(self.take_note(snapshot))
    }

    /// Looks only at the devices of which there is news, which is theirs as notified: everything
    /// else is as it was `seen` by the last look.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn look_at(
        &mut self,
        news: Vec<News>,
        seen: Snapshot,
    ) -> Result<(Snapshot, Vec<MacAddr>), KernelError> {
        let tables = self.tables();
        let mut snapshot = seen;
        snapshot.take_in(&mut self.kernel, &self.config.agent, news, &tables)?;
        // Files that nobody wrote for us are no news.
        if snapshot.managers.have_a_part(&self.config) {
            self.look_at_managers(&mut snapshot);
        }
        Ok(self.take_note(snapshot))
    }

    /// The socket by which changes are made.
    pub(crate) fn kernel(&mut self) -> &mut Rtnetlink {
        &mut self.kernel
    }

    /// Reads further tables into a snapshot: those that rules of other tools lead to, and those that
    /// they give interfaces.
    pub(crate) fn look_into_tables(&mut self, snapshot: &mut Snapshot) -> Result<(), KernelError> {
        let by_rules = snapshot.rules.iter().filter_map(|rule| match rule.action {
            RuleAction::Table(table) if import::TABLES.contains(&table) => Some(table),
            _ => None,
        });
        let by_names = snapshot.links.iter().filter_map(|link| import::table_by_name(&link.name));
        let tables = by_rules.chain(by_names).collect();
        snapshot.read_tables(&mut self.kernel, &tables)
    }

    /// False where an interface is configured not to be managed.
    pub(crate) fn is_managed(&self, link: &Link, mac: MacAddr) -> bool {
        let cloud = self.memory.cloud();
        let known = cloud.interfaces.get(&mac);
        let interface_id = known.and_then(|known| known.interface_id.as_ref());
        let slot = known.and_then(|known| known.slot);
        let names = names_of(link);
        self.config.for_interface(&identity(mac, interface_id, slot, &names)).manage
    }

    /// Reads anew with the next look what neighbours leave on disk.
    pub(crate) fn forget_neighbours(&mut self) {
        self.neighbours = None;
    }

    /// The tables that the cloud's interfaces use.
    fn tables(&self) -> BTreeSet<u32> {
        let base = self.config.agent.table_base;
        let cloud = self.memory.cloud();
        cloud.interfaces.values().filter_map(|is| Some(is.slot?.table(base))).collect()
    }

    /// Looks what there is of other managers.
    fn look_at_managers(&self, snapshot: &mut Snapshot) {
        let mut managers = Managers::read(&self.config, &snapshot.links);
        self.carrier.note(&mut managers);
        snapshot.take_in_managers(managers);
    }

    fn take_note(&mut self, mut snapshot: Snapshot) -> (Snapshot, Vec<MacAddr>) {
        self.ignore_udev.retain(|index| snapshot.link(*index).is_some());
        snapshot.awaiting_udev.retain(|index| !self.ignore_udev.contains(index));
        let changed = self.memory.see(&snapshot);
        (snapshot, changed)
    }

    /// Works out what follows from what the machine is like.
    pub fn view(&self, snapshot: Snapshot, scope: &Scope) -> View {
        let cloud = self.memory.cloud();
        let desired = desired(&snapshot, &cloud, &self.config, scope);
        let mut plan = plan(&snapshot, &desired);
        let left = leave_to_managers(&snapshot, &desired, &mut plan);
        View { snapshot, cloud, desired, plan, left }
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn apply(&mut self, plan: &Plan) -> Result<Applied, KernelError> {
        let applied = apply(&mut self.kernel, plan)?;
        let works = plan.changes.iter().filter_map(|change| match &change.edit {
            Edit::Carry(work) if !applied.keeps_from_manager(change) => Some(work.clone()),
            _ => None,
        });
        self.carrier.start(works.collect());
        Ok(applied)
    }

    /// Waits until other managers are told what they are to be told, or so long. Returns why one could
    /// not be.
    pub fn wait_for_managers(&self, patience: Duration) -> Option<String> {
        self.carrier.wait(patience)
    }

    /// Takes in what metadata told.
    pub fn learn(&mut self, now: Instant, answer: &Answer) {
        if let Some(Ok(primary)) = &answer.primary {
            self.memory.learn_primary(*primary);
        }
        let answers = answer.interfaces.iter();
        self.memory.learn(now, answers.filter_map(|(mac, told)| Some((*mac, told.as_ref().ok()?))));
    }
}

/// What metadata told in one round.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// The instance's own MAC; `None` where it was not asked for.
    pub primary: Option<Result<MacAddr, MetadataError>>,
    /// What it told about each interface that was asked about.
    pub interfaces: BTreeMap<MacAddr, Result<Listing, MetadataError>>,
}

impl Answer {
    /// The first error, where there was one.
    pub fn error(&self) -> Option<&MetadataError> {
        let primary = self.primary.as_ref().and_then(|answer| answer.as_ref().err());
        primary.or_else(|| self.interfaces.values().find_map(|answer| answer.as_ref().err()))
    }
}

/// Asks metadata, until the deadline at the latest: about each of `asks`, and about those of
/// `search` that the service lists.
pub fn ask(
    client: &Client,
    asks: &[(MacAddr, Ask)],
    search: &[MacAddr],
    deadline: Instant,
) -> Answer {
    let mut answer = Answer::default();
    let primary = client.primary(deadline);
    let failed = primary.as_ref().err().cloned();
    answer.primary = Some(primary);
    if let Some(error) = failed {
        // The service is out of reach: nothing else is asked of it in this round.
        let macs = asks.iter().map(|(mac, _)| *mac).chain(search.iter().copied());
        answer.interfaces = macs.map(|mac| (mac, Err(error.clone()))).collect();
        return answer;
    }
    let mut asks = asks.to_vec();
    if !search.is_empty() {
        match client.listed(deadline) {
            Ok(listed) => {
                for mac in search {
                    if listed.contains(mac) {
                        asks.push((*mac, Ask::Everything));
                    } else {
                        answer.interfaces.insert(*mac, Ok(Listing::NotListed));
                    }
                }
            }
            Err(error) => {
                answer.interfaces.extend(search.iter().map(|mac| (*mac, Err(error.clone()))));
            }
        }
    }
    if !asks.is_empty() {
        answer.interfaces.extend(client.interfaces(&asks, deadline));
    }
    answer
}

/// So many interfaces are asked about together: what the client may send of requests is enough for
/// them, and what is told of them is of use before all others were asked about.
pub(crate) const TOGETHER: usize = 6;

/// As [`ask`], a few interfaces at a time; each time is given so long, and what it told is told on.
pub(crate) fn ask_in_parts(
    client: &Client,
    round: &Round,
    patience: Duration,
    mut tell: impl FnMut(Round, Answer),
) {
    let deadline = Instant::now() + patience;
    let mut asks = round.asks.clone();
    let mut search = round.search.clone();
    if search.len() > TOGETHER
        && let Ok(listed) = client.listed(deadline)
    {
        let (found, strangers) = search.into_iter().partition(|mac| listed.contains(mac));
        let found: Vec<MacAddr> = found;
        asks.extend(found.into_iter().map(|mac| (mac, Ask::Everything)));
        search = strangers;
        if !search.is_empty() {
            let not_listed = search.iter().map(|mac| (*mac, Ok(Listing::NotListed))).collect();
            let answer = Answer { primary: None, interfaces: not_listed };
            tell(Round { asks: Vec::new(), search: std::mem::take(&mut search) }, answer);
        }
        if asks.is_empty() {
            return;
        }
    }
    let mut parts = asks.chunks(TOGETHER);
    let first = parts.next().unwrap_or_default();
    let answer = ask(client, first, &search, deadline);
    tell(Round { asks: first.to_vec(), search }, answer);
    for part in parts {
        let answer = ask(client, part, &[], Instant::now() + patience);
        tell(Round { asks: part.to_vec(), search: Vec::new() }, answer);
    }
}
