//! The agent: keeps everything as desired, for as long as it runs.
//!
//! One thread waits for events, and looks at the machine whenever something may have changed. It
//! carries on a round of metadata requests between other things, as long as all of it is answered
//! well; what takes waits, or comes while another round is under way, is left to a thread of its
//! own. So a service that hangs never keeps a deleted rule from being put back. At rest there is one
//! thread, and nothing but the refresh wakes it.

mod asking;
mod reload;
mod report;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use jackfield_kernel::{
    ConnectionMarks, DeviceEvents, Error as KernelError, Monitor, NftablesMonitor, Notification,
    Route, Subject, UdevEntries, udev_has_finished,
};
use jackfield_metadata::{Client, ClientOptions, Conversation, MacAddr};
use log::{debug, info, warn};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::asking::{Answered, Asking};
use crate::api::{self, Door, Server};
use crate::apply::Applied;
use crate::change::{Change, Edit};
use crate::cloud::Cloud;
use crate::config::Config;
use crate::contest::Contest;
use crate::desired::{Desired, Scope, is_link_local};
use crate::forwarding::Forwarding;
use crate::hooks::Hooks;
use crate::machine::{Machine, View};
use crate::metrics::Counts;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::snapshot::{Candidate, MAIN, News, OURS, Snapshot, may_be_cloud_interface};
use crate::transitions::Transitions;

/// How long a device may stay with udev before it is configured all the same.
const UDEV_PATIENCE: Duration = Duration::from_secs(30);
/// How long a newcomer is left alone while metadata is asked about it, where everything would have to
/// be looked at: before that answers there is nothing to be done, and a look would only get in the
/// way of those who are about to answer.
const MEETING: Duration = Duration::from_millis(20);
/// How long after changes were made they are verified: what has just begun to work is used first.
const VERIFYING: Duration = Duration::from_millis(2);
/// The first wait before changes that did not take effect are tried again, doubled each time…
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// …up to this.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long who removed something of ours is taken for who made a repair necessary.
const SUSPICION: Duration = Duration::from_secs(1);

/// Why the agent did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent runs in this network namespace.
    #[error("another jackfield agent runs in this network namespace")]
    Running,
    /// The kernel cannot be talked to.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A system call failed.
    #[error("cannot {attempt}: {source}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// The kernel refuses changes.
    #[error("not permitted to change the network: {0}")]
    NotPermitted(String),
}

fn system<E: Into<std::io::Error>>(attempt: &'static str) -> impl FnOnce(E) -> AgentError {
    move |error| AgentError::System { attempt, source: error.into() }
}

/// How long whoever asks whether there is an agent waits for that.
const REACHING: Duration = Duration::from_secs(2);

/// True where an agent runs in the calling thread's network namespace.
pub fn is_running() -> bool {
    api::client::is_running(REACHING)
}

/// Abstract socket names belong to the network namespace and vanish with the process.
fn lock() -> Result<Door, AgentError> {
    Door::abstract_name().map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => AgentError::Running,
        _ => system("take the agent's name")(error),
    })
}

/// Runs the agent until SIGTERM or SIGINT, which leave the network as it is. `file`: where the
/// configuration is read again.
///
/// # Errors
/// Where it cannot start, or the kernel cannot be talked to any more.
pub fn run(
    config: Config,
    file: Option<PathBuf>,
    options: ClientOptions,
) -> Result<(), AgentError> {
    let server = Server::new(lock()?);
    let mut agent = Agent::open(config, file, options, server)?;
    agent.open_doors();
    info!("started");
    agent.run()
}

struct Agent {
    machine: Machine,
    /// By which it is asked.
    server: Server,
    /// Where the configuration is.
    configuration: reload::Configuration,
    counts: Counts,
    began: requests::Began,
    monitor: Monitor,
    events: DeviceEvents,
    /// udev's database, where there is one.
    entries: Option<UdevEntries>,
    /// Changes of nf_tables, once packets are forwarded.
    filters: Option<NftablesMonitor>,
    client: Arc<Client>,
    schedule: Schedule,
    /// The round that this thread carries on.
    asking: Option<Asking>,
    answers: (Sender<Answered>, Receiver<Answered>),
    wake: Arc<rustix::fd::OwnedFd>,
    signals: UnixStream,
    /// SIGHUP: read the configuration again.
    hangups: UnixStream,
    /// Something may have changed: look.
    look: bool,
    /// A device appeared: see it, while metadata is asked about it.
    meet: bool,
    /// What the last look showed, as long as nothing is told to have changed since but the devices
    /// of which there is [`Agent::news`].
    seen: Option<Snapshot>,
    /// When everything was looked at last.
    looked: Option<Instant>,
    /// Candidates of which there is news since the last look, as last notified.
    news: BTreeMap<u32, News>,
    /// When newcomers are looked at, although metadata has not answered.
    meeting: Option<Instant>,
    /// Devices of which news is relevant.
    candidates: BTreeSet<u32>,
    /// Candidates that udev had not finished with at the last look.
    with_udev: BTreeSet<u32>,
    /// Devices that were asked about as soon as their notification came, before the first look.
    announced: BTreeMap<MacAddr, u32>,
    /// Changes that were made, and not looked at since.
    made: Option<Made>,
    /// When the first device that is with udev is not waited for any more.
    patience: Option<Instant>,
    /// When changes that did not take effect are tried again, and the wait after that.
    retry: Option<(Instant, Duration)>,
    settled: Option<Settled>,
    /// What was wanted when nothing was left to do; `None` where an interface went since.
    wanted: Option<Desired>,
    /// What others undo.
    contest: Contest,
    /// Who removed something of ours last.
    suspect: Option<(Instant, String)>,
    /// Which interfaces are ready.
    transitions: Transitions,
    /// Programs that are told of it.
    hooks: Hooks,
    started: bool,
    /// What is known of the metadata service.
    metadata: requests::Service,
    /// What who asks was told.
    told: requests::Told,
    complaints: BTreeSet<String>,
    watchdog: Option<Watchdog>,
}

/// Changes that were made, as far as the kernel accepted them.
struct Made {
    plan: Plan,
    applied: Applied,
    /// Whether they undid what somebody else had done.
    drift: bool,
    /// When they were made.
    applied_at: Instant,
    /// When they are verified at the latest.
    verified_at: Instant,
}

impl Made {
    /// Until when what was made is left in peace.
    fn peace(&self) -> Instant {
        self.applied_at + VERIFYING
    }

    /// The changes that the kernel accepted.
    fn done(&self) -> impl Iterator<Item = &Change> {
        let refused = self.applied.refused.iter().map(|(change, _)| change);
        let withheld = self.applied.withheld.iter().map(|(change, _)| change);
        let not: Vec<&Change> = refused.chain(withheld).collect();
        self.plan.changes.iter().filter(move |change| !not.contains(change))
    }
}

/// The state in which nothing was left to do: what differs with the same cloud and the same devices
/// was changed by somebody else.
#[derive(PartialEq)]
struct Settled {
    cloud: Arc<Cloud>,
    devices: Vec<(u32, String, bool, bool)>,
    /// Routes of others that are mirrored.
    mirrored: Vec<Route>,
    awaiting_udev: BTreeSet<u32>,
    /// But for what is marked, which is our doing.
    forwarding: Forwarding,
}

struct Watchdog {
    period: Duration,
    next: Instant,
}

impl Agent {
    fn open(
        config: Config,
        file: Option<PathBuf>,
        options: ClientOptions,
        server: Server,
    ) -> Result<Self, AgentError> {
        let now = Instant::now();
        let signals = on_signals(&[SIGTERM, SIGINT])?;
        let hangups = on_signals(&[SIGHUP])?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(system("make an event descriptor"))?;
        let refresh = config.agent.refresh;
        Ok(Agent {
            // Listening first: what changes while the machine is looked at is looked at again.
            monitor: Monitor::open()?,
            events: DeviceEvents::open()?,
            entries: UdevEntries::open()?,
            filters: None,
            machine: Machine::open(config)?,
            server,
            configuration: reload::Configuration::new(file),
            counts: Counts::default(),
            began: requests::Began::now(),
            client: Arc::new(Client::new(options)),
            schedule: Schedule::new(now, refresh),
            asking: None,
            answers: channel(),
            wake: Arc::new(wake),
            signals,
            hangups,
            look: true,
            meet: false,
            seen: None,
            looked: None,
            news: BTreeMap::new(),
            meeting: None,
            candidates: BTreeSet::new(),
            with_udev: BTreeSet::new(),
            announced: BTreeMap::new(),
            made: None,
            patience: None,
            retry: None,
            settled: None,
            wanted: None,
            contest: Contest::default(),
            suspect: None,
            transitions: Transitions::default(),
            hooks: Hooks::default(),
            started: false,
            metadata: requests::Service::default(),
            told: requests::Told::default(),
            complaints: BTreeSet::new(),
            // Half the time, as sd_watchdog_enabled(3) asks for.
            watchdog: sd_notify::watchdog_enabled()
                .map(|period| Watchdog { period: period / 2, next: now }),
        })
    }

    fn run(&mut self) -> Result<(), AgentError> {
        loop {
            // While the service answers, there is time to look.
            self.ask_what_is_due();
            if (self.look || self.meet) && !self.is_left_in_peace() {
                self.meet = false;
                let looked = match std::mem::take(&mut self.look) {
                    true => self.reconcile().inspect(|()| self.configuration.is_in_effect = true),
                    false => self.see().map(|snapshot| self.seen = Some(snapshot)),
                };
                match looked {
                    // Too much goes on to see it whole: again, when it is calmer.
                    Err(AgentError::Kernel(error @ KernelError::Unsettled { .. })) => {
                        debug!("{error}");
                        let retry = Instant::now() + FIRST_RETRY;
                        self.retry = Some((retry, FIRST_RETRY));
                        if let Some(made) = &mut self.made {
                            made.verified_at = retry;
                        }
                    }
                    result => result?,
                }
                if !self.started && self.made.is_none() {
                    self.started = true;
                    notify(&[NotifyState::Ready]);
                }
            }
            self.ask_what_is_due();
            self.serve()?;
            self.feed_watchdog(Instant::now());
            if self.wait()? {
                notify(&[NotifyState::Stopping]);
                info!("stopped; the network stays as it is");
                return Ok(());
            }
        }
    }

    /// Whether changes were made this instant. The kernel goes on with a device that has come up, and
    /// tells of it: a look now would hold the lock that it needs for that.
    fn is_left_in_peace(&self) -> bool {
        self.made.as_ref().is_some_and(|made| Instant::now() < made.peace())
    }

    /// Waits for something to happen and takes it in. True: a signal says to stop.
    fn wait(&mut self) -> Result<bool, AgentError> {
        let mut until = self.schedule.next();
        if let Some(asking) = &self.asking {
            until = asking.conversation.until().map_or(until, |other| until.min(other));
        }
        if let Some(watchdog) = &self.watchdog {
            until = until.min(watchdog.next);
        }
        for timer in self.timers() {
            until = until.min(timer);
        }
        if let Some(from) = self.serves_from() {
            until = until.min(from);
        }
        let timeout = until.saturating_duration_since(Instant::now());
        // Rounded up: a wake-up before the time would find nothing to do.
        let timeout = Duration::from_millis(timeout.as_millis().saturating_add(1) as u64);
        // Who asked had it found that there is something to do.
        let timeout = match self.look && !self.is_left_in_peace() {
            true => Duration::ZERO,
            false => timeout,
        };
        if !self.is_left_in_peace() {
            self.client.hang_up();
        }
        let timeout = Timespec::try_from(timeout).ok();
        let interesting = PollFlags::IN;
        // Without udev's database, or where nothing is forwarded, something else twice.
        let entries = self.entries.as_ref().map_or(self.events.as_fd(), |entries| entries.as_fd());
        let filters = self.filters.as_ref().map_or(self.events.as_fd(), |filters| filters.as_fd());
        let mut descriptors: Vec<PollFd<'_>> = [
            self.monitor.as_fd(),
            self.events.as_fd(),
            entries,
            filters,
            self.wake.as_fd(),
            self.signals.as_fd(),
            self.hangups.as_fd(),
        ]
        .map(|fd| PollFd::from_borrowed_fd(fd, interesting))
        .into();
        let conversation = self.asking.iter().map(|asking| &asking.conversation);
        descriptors.extend(conversation.flat_map(Conversation::awaited));
        let known = descriptors.len();
        descriptors.extend(self.server.awaited());
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(system("wait for events")(error)),
        }
        let mut ready = descriptors.iter().map(|fd| !fd.revents().is_empty());
        let [monitor, events, entries, filters, wake, signals, hangup] =
            std::array::from_fn(|_| ready.next().unwrap_or(false));
        let of_service = known.saturating_sub(7);
        let told = ready.by_ref().take(of_service).fold(false, |told, is| told | is);
        let visited = ready.any(|is| is);
        drop(descriptors);
        if signals {
            let _ = self.signals.read(&mut [0; 16]);
            return Ok(true);
        }
        if hangup {
            let _ = self.hangups.read(&mut [0; 16]);
            // What went wrong is logged: a signal has no answer.
            let _ = self.reload_and_log();
        }
        if monitor {
            self.told.forget();
            self.take_notifications()?;
        }
        if events || entries {
            self.take_device_events()?;
        }
        if filters
            && let Some(filters) = &mut self.filters
            && filters.receive(ConnectionMarks::TABLE)?
        {
            debug!("look again: nf_tables changed");
            self.look_afresh();
        }
        if wake {
            let _ = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
        }
        let now = Instant::now();
        let late = |asking: &Asking| asking.conversation.until().is_none_or(|until| until <= now);
        if told || self.asking.as_ref().is_some_and(late) {
            self.carry_on();
        }
        self.take_answers()?;
        if visited || self.server.until().is_some_and(|until| until <= now) {
            self.server.advance(now);
        }
        let over = |timer: Option<Instant>| timer.is_some_and(|timer| timer <= now);
        if over(self.patience) || over(self.retry.map(|(at, _)| at)) {
            self.look_afresh();
        }
        self.look |= over(self.meeting) || over(self.made.as_ref().map(|made| made.verified_at));
        Ok(false)
    }

    fn timers(&self) -> impl Iterator<Item = Instant> {
        let verify = self.made.as_ref().map(|made| made.verified_at);
        let retry = self.retry.map(|(at, _)| at);
        [self.patience, retry, self.meeting, verify, self.server.until()].into_iter().flatten()
    }

    /// Looks at everything, whatever was seen.
    fn look_afresh(&mut self) {
        self.look = true;
        self.seen = None;
    }

    fn take_notifications(&mut self) -> Result<(), KernelError> {
        let own = self.machine.port();
        let kinds = &self.machine.config().agent.device_kinds;
        let (candidates, with_udev) = (&self.candidates, &self.with_udev);
        let news = &mut self.news;
        let (look, seen) = (&mut self.look, &mut self.seen);
        let (mut remover, mut gone) = (None, false);
        let mut appeared = Vec::new();
        self.monitor.receive(|notification| {
            let Notification::Changed { subject, removed, by } = &notification else {
                debug!("look again: {notification:?}");
                *look = true;
                *seen = None;
                return;
            };
            if *by == own {
                // Looked at afterwards. But no news may be older than what we did.
                if let Subject::Link(link) = subject
                    && let Some(older) = news.get_mut(&link.index)
                {
                    older.link = link.clone();
                }
                return;
            }
            if *removed && *by != 0 && is_ours(subject) {
                remover = Some(*by);
            }
            // Whether it may concern us, and whether what was seen is out of date by it: of a
            // device of which there is news, what it has is read afresh.
            let (relevant, outdates) = match subject {
                Subject::Link(link) => {
                    let candidate = may_be_cloud_interface(link, kinds);
                    let known = candidates.contains(&link.index);
                    gone |= *removed && known;
                    if let Some(mac) = link.address
                        && candidate
                        && !removed
                    {
                        let of_itself = !news.contains_key(&link.index)
                            && seen.as_mut().is_some_and(|seen| seen.take_in_itself(link));
                        if !of_itself {
                            let is_new = || {
                                seen.as_ref().is_some_and(|seen| seen.link(link.index).is_none())
                            };
                            let is_bare =
                                news.get(&link.index).map_or_else(is_new, |news| news.is_bare);
                            news.insert(link.index, News { link: link.clone(), is_bare });
                        }
                        if !known {
                            appeared.push((MacAddr::from(mac), link.index));
                        }
                        // As long as udev has it, and it is down, there is nothing to be done.
                        (known && (link.up || !with_udev.contains(&link.index)), false)
                    } else {
                        (news.remove(&link.index).is_some() || candidate || known, true)
                    }
                }
                // One of another device may lie among those for which a rule of ours stands.
                Subject::Address(address) => {
                    let relevant = !is_link_local(address.address.addr())
                        || candidates.contains(&address.interface);
                    (relevant, !take_as_news(news, std::iter::once(address.interface)))
                }
                Subject::Route(route) => {
                    let relevant = concerns_us(route, *removed, candidates);
                    let hops = route.next_hops.iter().map(|hop| hop.interface);
                    (relevant, route.next_hops.is_empty() || !take_as_news(news, hops))
                }
                Subject::Rule(rule) => (rule.protocol == OURS, true),
                // What a device starts with, a look at the device tells.
                Subject::Settings(of) => {
                    let relevant = of.is_none_or(|index| candidates.contains(&index));
                    (relevant, relevant)
                }
            };
            if outdates {
                *seen = None;
            }
            if relevant && !*look {
                debug!("look again: {notification:?}");
                *look = true;
            }
        })?;
        // It may be there again before anybody looks: nobody undid what went with it.
        if gone {
            self.wanted = None;
        }
        if let Some(name) = remover.and_then(program_of) {
            self.suspect = Some((Instant::now(), name));
        }
        if !appeared.is_empty() {
            // Of one of which metadata has told nothing yet, nothing follows: it is enough to see it.
            let memory = self.machine.memory();
            if self.seen.is_some() {
                let strangers = appeared.iter().all(|(mac, _)| memory.heard(*mac).is_none());
                self.look |= !strangers;
                self.meet = true;
            } else {
                self.meeting.get_or_insert_with(|| Instant::now() + MEETING);
            }
        }
        for (mac, index) in appeared {
            // Where another device has the MAC, only a look tells which one counts.
            let taken = self
                .announced
                .get(&mac)
                .is_some_and(|other| *other != index && self.candidates.contains(other));
            if !taken {
                self.announce(mac, index);
            }
        }
        Ok(())
    }

    /// A device appeared, as its notification says: asked about at once. A look follows, and finds
    /// out whether it is still there.
    fn announce(&mut self, mac: MacAddr, index: u32) {
        if self.announced.insert(mac, index) != Some(index) {
            self.client.forget(mac);
            self.schedule.appeared(Instant::now(), mac);
        }
    }

    fn take_device_events(&mut self) -> Result<(), KernelError> {
        let (candidates, with_udev) = (&self.candidates, &self.with_udev);
        let look = &mut self.look;
        self.events.receive(|event| {
            // What the kernel does, rtnetlink tells as well, and tells more of it.
            *look |= event.is_none_or(|event| {
                event.finished_by_udev && candidates.contains(&event.interface)
            });
        })?;
        let Some(entries) = &mut self.entries else { return Ok(()) };
        entries.receive(|interface| {
            // Before it renames a device, udev writes an entry too.
            let finished = |it: u32| !with_udev.contains(&it) || udev_has_finished(it);
            *look |= interface.is_none_or(|it| candidates.contains(&it) && finished(it));
        })
    }

    /// Looks at the machine, and makes it what it shall be.
    fn reconcile(&mut self) -> Result<(), AgentError> {
        let mut view = self.look()?;
        let made = self.made.take();
        if let Some(made) = &made {
            self.note(made);
        }
        for left in self.contest.hold_back(Instant::now(), &mut view.plan) {
            self.counts.given_up();
            report::left_alone(&left, &view);
        }
        if let Some(made) = &made {
            self.verify(made, &view);
            // What is still missing is tried again after longer and longer waits: the kernel has
            // said why it is.
            let tried = |change: &Change| made.plan.changes.contains(change);
            if !view.plan.is_empty() && view.plan.changes.iter().all(tried) {
                let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| wait);
                debug!("{} changes left, tried again in {wait:?}", view.plan.changes.len());
                self.retry = Some((Instant::now() + wait, (wait * 2).min(LONGEST_RETRY)));
                self.take_transitions(&view, Some(made));
                self.complain(&view);
                self.seen = Some(view.snapshot);
                return Ok(());
            }
        }
        let settled = Settled::of(&view);
        if view.plan.is_empty() {
            self.settled = Some(settled);
            self.retry = None;
            self.take_transitions(&view, made.as_ref());
            self.complain(&view);
            self.seen = Some(view.snapshot);
            // What is left to another manager may never come about.
            if view.left.is_empty() {
                self.wanted = Some(view.desired);
            }
            return Ok(());
        }
        let drift = self.settled.as_ref() == Some(&settled);
        // What somebody changes while their last change is put back is theirs as well.
        self.settled = drift.then_some(settled);
        for change in &view.plan.changes {
            debug!("{change}");
        }
        let applied = self.machine.apply(&view.plan)?;
        if applied.not_permitted && !self.started {
            let reason = applied.refused.first().map(|(_, reason)| reason.clone());
            return Err(AgentError::NotPermitted(reason.unwrap_or_default()));
        }
        let applied_at = Instant::now();
        // Changes come first.
        self.take_transitions(&view, made.as_ref());
        let verified_at = applied_at + VERIFYING;
        self.made = Some(Made { plan: view.plan, applied, drift, applied_at, verified_at });
        Ok(())
    }

    /// Takes note of what was made, before it is decided what is made next.
    fn note(&mut self, made: &Made) {
        let now = Instant::now();
        let recent = |at: Instant| now.saturating_duration_since(at) < SUSPICION;
        let suspect = self.suspect.as_ref().filter(|(at, _)| recent(*at));
        let suspect = suspect.map(|(_, name)| name.as_str());
        let repairs = self.contest.note(now, made.done(), self.wanted.as_ref(), suspect);
        if repairs > 0 {
            debug!("{repairs} changes undid what somebody else had done");
        }
        let is_repair = |change: &&Change| made.drift && !matches!(change.edit, Edit::Carry(_));
        for change in made.done().filter(is_repair) {
            self.counts.repaired(change.object());
            report::repaired(change);
        }
    }

    fn look(&mut self) -> Result<View, AgentError> {
        let snapshot = self.see()?;
        Ok(self.machine.view(snapshot, &Scope::Everything))
    }

    /// Sees what the machine is like, and takes note of which devices came and went.
    fn see(&mut self) -> Result<Snapshot, AgentError> {
        self.meeting = None;
        let Some(seen) = self.seen.take() else { return self.see_afresh() };
        let news = std::mem::take(&mut self.news);
        let looked = self.machine.look_at(news.into_values().collect(), seen)?;
        self.take_in(looked)
    }

    /// Sees all of what the machine is like. Where that fails, what was seen before still counts.
    fn see_afresh(&mut self) -> Result<Snapshot, AgentError> {
        let began = Instant::now();
        let looked = self.machine.look()?;
        (self.looked, self.seen, self.meeting) = (Some(began), None, None);
        self.news.clear();
        self.take_in(looked)
    }

    /// Takes note of what a look showed, and by which MACs devices came and went.
    fn take_in(
        &mut self,
        (mut snapshot, mut changed): (Snapshot, Vec<MacAddr>),
    ) -> Result<Snapshot, AgentError> {
        self.told.forget();
        if snapshot.forwarding.on && self.filters.is_none() {
            self.filters = NftablesMonitor::open()?;
            // What came before it listened.
            if self.filters.is_some() {
                let (again, more) = self.machine.look()?;
                snapshot = again;
                changed.extend(more);
            }
        }
        let now = Instant::now();
        let candidates = snapshot.candidates().map(|candidate| candidate.link.index).collect();
        let before = std::mem::replace(&mut self.candidates, candidates);
        if !before.is_subset(&self.candidates) {
            // Seen before it was told of.
            self.wanted = None;
        }
        for mac in changed {
            match snapshot.candidates().find(|candidate| candidate.mac == mac) {
                Some(candidate) => self.announce(mac, candidate.link.index),
                None => {
                    self.client.forget(mac);
                    self.announced.remove(&mac);
                    self.schedule.gone(now, mac);
                }
            }
        }
        // What was announced, and was gone or had another MAC before the look, was never seen.
        let unseen: Vec<MacAddr> = self
            .announced
            .iter()
            .filter(|(mac, index)| {
                !snapshot.candidates().any(|is| is.mac == **mac && is.link.index == **index)
            })
            .map(|(mac, _)| *mac)
            .collect();
        for mac in unseen {
            self.announced.remove(&mac);
            if !snapshot.candidates().any(|candidate| candidate.mac == mac) {
                self.schedule.gone(now, mac);
            }
        }
        self.patience = None;
        let with_udev: Vec<(u32, Duration)> = snapshot
            .candidates()
            .filter(|candidate| snapshot.awaiting_udev.contains(&candidate.link.index))
            .filter_map(|candidate| {
                Some((candidate.link.index, self.schedule.age(now, candidate.mac)?))
            })
            .collect();
        for (index, age) in with_udev {
            if age < UDEV_PATIENCE {
                let end = now + (UDEV_PATIENCE - age);
                self.patience = Some(self.patience.map_or(end, |other| other.min(end)));
                continue;
            }
            warn!("udev has not finished with device {index} in {UDEV_PATIENCE:?}: not waited for");
            self.machine.ignore_udev(index);
            snapshot.awaiting_udev.remove(&index);
        }
        self.with_udev.clone_from(&snapshot.awaiting_udev);
        Ok(snapshot)
    }

    fn feed_watchdog(&mut self, now: Instant) {
        if let Some(watchdog) = &mut self.watchdog
            && now >= watchdog.next
        {
            watchdog.next = now + watchdog.period;
            notify(&[NotifyState::Watchdog]);
        }
    }
}

impl Settled {
    fn of(view: &View) -> Self {
        let devices = view
            .snapshot
            .candidates()
            .map(|Candidate { link, .. }| (link.index, link.name.clone(), link.up, link.carrier))
            .collect();
        let of_others = |route: &&Route| route.table == MAIN && route.protocol != OURS;
        let mirrored = view.snapshot.routes.iter().filter(of_others).cloned().collect();
        let awaiting_udev = view.snapshot.awaiting_udev.clone();
        let forwarding = Forwarding { marks: None, ..view.snapshot.forwarding.clone() };
        Settled { cloud: Arc::clone(&view.cloud), devices, mirrored, awaiting_udev, forwarding }
    }
}

/// What is readable when one of the signals came.
fn on_signals(signals: &[i32]) -> Result<UnixStream, AgentError> {
    let (receiver, sender) = UnixStream::pair().map_err(system("open a socket pair"))?;
    for signal in signals {
        let sender = sender.try_clone().map_err(system("open a socket pair"))?;
        signal_hook::low_level::pipe::register(*signal, sender)
            .map_err(system("handle signals"))?;
    }
    Ok(receiver)
}

/// Takes note that these devices have something now. False where there is no news of one of them.
fn take_as_news(news: &mut BTreeMap<u32, News>, devices: impl Iterator<Item = u32>) -> bool {
    let mut of_all = true;
    for device in devices {
        match news.get_mut(&device) {
            Some(news) => news.is_bare = false,
            None => of_all = false,
        }
    }
    of_all
}

fn is_ours(subject: &Subject) -> bool {
    match subject {
        Subject::Address(address) => address.protocol == OURS,
        Subject::Route(route) => route.protocol == OURS,
        Subject::Rule(rule) => rule.protocol == OURS,
        Subject::Link(_) | Subject::Settings(_) => false,
    }
}

/// The program behind a port of rtnetlink: usually the number of its process (netlink(7)).
fn program_of(port: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{port}/comm")).ok()?;
    let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then_some(name)
}

/// Whether a change of a route may concern us.
fn concerns_us(route: &Route, removed: bool, candidates: &BTreeSet<u32>) -> bool {
    let known = candidates.iter().any(|candidate| route.uses(*candidate));
    (route.protocol == OURS && removed) || known && (route.table == MAIN || route.protocol == OURS)
}

fn notify(states: &[NotifyState<'_>]) {
    // Not under systemd: nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        debug!("cannot notify the service manager: {error}");
    }
}
