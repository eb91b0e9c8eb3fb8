//! One call's questions about several interfaces, side by side.
//!
//! A crawl starts with the listings. Each that arrives adds the questions for its keys, and those
//! go before the listings that are left: where time runs out, some interfaces are complete rather
//! than none. The calling thread has many questions under way at once, and as a rule that is all:
//! it can do something else while it waits for their answers. What is not answered well at once is
//! asked again by helpers, each of which can wait for its own question; they are started only when
//! there is something for them to do, and none outlives [`Crawl::finish`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Deref;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, Scope};
use std::time::Instant;

use ipnet::{Ipv4Net, Ipv6Net};

use super::client::{Asked, Client, MACS, Tried};
use super::key::{self, Fact, Key, ListedKeys};
use crate::http::{self, Flight};
use crate::{Ask, Error, InterfaceFacts, InterfaceId, Known, Listing, MacAddr};

/// Stack of a helper, in bytes. The deepest it goes is one read of 4 KiB and some formatting.
const STACK: usize = 256 * 1024;

/// What was read of an interface and cannot change, or hardly: it is used for as long as the
/// interface has the same identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Learned {
    interface_id: InterfaceId,
    device_number: Option<u32>,
    network_card: Option<u32>,
    ipv4_subnet: Option<Ipv4Net>,
    ipv6_subnets: Option<Vec<Ipv6Net>>,
}

impl Learned {
    /// What there is to learn from these facts, on top of what was learned of the same interface.
    fn from_facts(facts: &InterfaceFacts, before: Option<&Learned>) -> Option<Self> {
        let interface_id = facts.interface_id.value()?.clone();
        let before = before.filter(|before| before.interface_id == interface_id);
        Some(Self {
            device_number: newest(&facts.device_number, before.and_then(|b| b.device_number)),
            network_card: newest(&facts.network_card, before.and_then(|b| b.network_card)),
            ipv4_subnet: newest(&facts.ipv4_subnet, before.and_then(|b| b.ipv4_subnet)),
            ipv6_subnets: newest(
                &facts.ipv6_subnets,
                before.and_then(|before| before.ipv6_subnets.clone()),
            ),
            interface_id,
        })
    }

    fn fact(&self, key: Key) -> Option<Fact> {
        match key {
            Key::InterfaceId => Some(Fact::InterfaceId(self.interface_id.clone())),
            Key::DeviceNumber => self.device_number.map(Fact::DeviceNumber),
            Key::NetworkCard => self.network_card.map(Fact::NetworkCard),
            Key::Ipv4Subnet => self.ipv4_subnet.map(Fact::Ipv4Subnet),
            Key::Ipv6Subnets => self.ipv6_subnets.clone().map(Fact::Ipv6Subnets),
            Key::Ipv4Addresses | Key::Ipv6Addresses | Key::Ipv4Prefixes | Key::Ipv6Prefixes => None,
        }
    }
}

fn newest<T: Clone>(read: &Known<T>, before: Option<T>) -> Option<T> {
    match read {
        Known::Value(value) => Some(value.clone()),
        Known::Absent => None,
        Known::Unknown => before,
    }
}

/// One interface in a crawl.
struct Subject {
    ask: Ask,
    learned: Option<Learned>,
    listed: ListedKeys,
    result: Option<Result<Listing, Error>>,
    mac: MacAddr,
}

impl Subject {
    fn new(mac: MacAddr, ask: Ask, learned: Option<Learned>) -> Self {
        Self { ask, learned, listed: ListedKeys::default(), result: None, mac }
    }

    /// Takes the listing, and returns the keys to ask.
    fn listed(&mut self, listed: Result<ListedKeys, Error>) -> Vec<Key> {
        match listed {
            Ok(listed) => self.listed = listed,
            Err(Error::NotFound { .. }) => {
                self.result = Some(Ok(Listing::NotListed));
                return Vec::new();
            }
            Err(error) => {
                self.result = Some(Err(error));
                return Vec::new();
            }
        }
        if self.ask == Ask::Everything && !self.listed.contains(Key::InterfaceId) {
            // Nothing says that it is still the interface of which something was learned.
            self.learned = None;
        }
        let mut facts = key::nothing_known(self.mac);
        let mut ask = Vec::new();
        for key in Key::ALL {
            if let Some(fact) = self.learned_fact(key) {
                key::enter(&mut facts, fact);
            } else if self.listed.contains(key) {
                ask.push(key);
            } else {
                key::enter_absent(&mut facts, key);
            }
        }
        self.result = Some(Ok(Listing::Listed(facts)));
        ask
    }

    /// What need not be asked again.
    fn learned_fact(&self, key: Key) -> Option<Fact> {
        let settled = match self.ask {
            Ask::Everything => key == Key::Ipv4Subnet,
            // The IPv6 prefixes of a subnet concern nobody who has no address there.
            Ask::Changing if key == Key::Ipv6Subnets => {
                !self.listed.contains(Key::Ipv6Addresses)
                    && !self.listed.contains(Key::Ipv6Prefixes)
                    && self.listed.contains(key)
            }
            Ask::Changing => !key.can_change(),
        };
        self.learned.as_ref().filter(|_| settled)?.fact(key)
    }

    /// Takes the answer for one key, and returns further keys to ask.
    fn answered(&mut self, key: Key, answer: Result<Fact, Error>) -> Vec<Key> {
        let Some(Ok(Listing::Listed(facts))) = &mut self.result else {
            return Vec::new();
        };
        match answer {
            Ok(fact) => key::enter(facts, fact),
            // Between the listing and now it went away, or it is not yet everywhere.
            Err(Error::NotFound { .. }) => {
                key::enter_problem(facts, key, "listed, but not found (404)");
            }
            Err(error) => key::enter_problem(facts, key, error.to_string()),
        }
        if key != Key::InterfaceId {
            return Vec::new();
        }
        // The subnet was taken over from the interface that was here before. Is it still here?
        let Some(before) = self.learned.take() else {
            return Vec::new();
        };
        match &facts.interface_id {
            Known::Value(id) if *id == before.interface_id => {
                self.learned = Some(before);
                Vec::new()
            }
            Known::Value(_) | Known::Absent if before.ipv4_subnet.is_some() => {
                facts.ipv4_subnet = Known::Unknown;
                if self.listed.contains(Key::Ipv4Subnet) {
                    return vec![Key::Ipv4Subnet];
                }
                facts.ipv4_subnet = Known::Absent;
                Vec::new()
            }
            Known::Value(_) | Known::Absent => Vec::new(),
            Known::Unknown => {
                if before.ipv4_subnet.is_some() {
                    facts.ipv4_subnet = Known::Unknown;
                    let reason = "known only of an interface that could not be identified again";
                    key::enter_problem(facts, Key::Ipv4Subnet, reason);
                }
                Vec::new()
            }
        }
    }
}

/// The listing of an interface, or one of its keys.
type Question = (MacAddr, Option<Key>);

struct State {
    questions: VecDeque<Question>,
    /// Questions that are left to the helpers, with what became of the first attempt.
    again: VecDeque<(Question, Tried)>,
    subjects: BTreeMap<MacAddr, Subject>,
    /// How many questions are with the service.
    answering: usize,
    helpers: usize,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Every question has its answer.
    Done,
    /// The service is about to answer.
    Waiting,
    /// Something is to be asked again, which takes waits: by a thread that can wait.
    Stuck,
}

/// A call on its way. `C`: its client.
pub(super) struct Crawl<C> {
    client: C,
    deadline: Instant,
    state: Mutex<State>,
    changed: Condvar,
    flights: Vec<(Question, Asked)>,
}

impl<C: Deref<Target = Client> + Sync> Crawl<C> {
    /// Nothing is asked yet.
    pub(super) fn new(client: C, wanted: &BTreeMap<MacAddr, Ask>, deadline: Instant) -> Self {
        let subjects: BTreeMap<MacAddr, Subject> = {
            let learned = client.learned();
            let subject = |(mac, ask): (&MacAddr, &Ask)| {
                (*mac, Subject::new(*mac, *ask, learned.get(mac).cloned()))
            };
            wanted.iter().map(subject).collect()
        };
        let questions = wanted.keys().map(|mac| (*mac, None)).collect();
        let again = VecDeque::new();
        let state = State { questions, again, subjects, answering: 0, helpers: 0 };
        let (state, changed, flights) = (Mutex::new(state), Condvar::new(), Vec::new());
        Crawl { client, deadline, state, changed, flights }
    }

    /// Asks and takes answers as far as is possible without waiting.
    pub(super) fn advance(&mut self) -> Progress {
        let mut flights = std::mem::take(&mut self.flights);
        self.take_arrived(&mut flights);
        self.start_questions(&mut flights);
        self.flights = flights;
        if !self.lock().again.is_empty() {
            Progress::Stuck
        } else if self.flights.is_empty() {
            Progress::Done
        } else {
            Progress::Waiting
        }
    }

    /// The requests that are with the service.
    pub(super) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.iter().map(|(_, asked)| asked.flight())
    }

    /// Asks all that is left, waits for the answers, and returns what they tell.
    pub(super) fn finish(mut self) -> BTreeMap<MacAddr, Result<Listing, Error>> {
        let flights = std::mem::take(&mut self.flights);
        std::thread::scope(|scope| {
            self.ask_side_by_side(scope, flights);
            self.start_helpers(scope, 1);
            self.work(scope);
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut learned = self.client.learned();
        let mut results = BTreeMap::new();
        for (mac, subject) in state.subjects {
            if let Some(Ok(Listing::Listed(facts))) = &subject.result
                && let Some(new) = Learned::from_facts(facts, subject.learned.as_ref())
            {
                learned.insert(mac, new);
            }
            let not_asked = || {
                let url = format!("{MACS}{mac}/");
                Err(Error::Deadline { url })
            };
            results.insert(mac, subject.result.unwrap_or_else(not_asked));
        }
        results
    }

    /// Asks each question once, as many at a time as are allowed; what fails is left to the
    /// helpers.
    fn ask_side_by_side<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        mut flights: Vec<(Question, Asked)>,
    ) {
        loop {
            self.start_questions(&mut flights);
            if flights.is_empty() {
                return;
            }
            let open = self.lock().questions.len();
            self.start_helpers(scope, flights.len() + open);
            http::wait(flights.iter().map(|(_, asked)| asked.flight()));
            self.take_arrived(&mut flights);
        }
    }

    fn start_questions(&self, flights: &mut Vec<(Question, Asked)>) {
        while let Some(question) = self.next_question() {
            match self.client.start(path(question), self.deadline) {
                Ok(asked) => flights.push((question, asked)),
                Err(tried) => self.leave(question, tried),
            }
        }
    }

    fn take_arrived(&self, flights: &mut Vec<(Question, Asked)>) {
        let mut at = 0;
        while let Some((question, asked)) = flights.get_mut(at) {
            let question = *question;
            match self.carry_on(question, asked) {
                None => {
                    at += 1;
                    continue;
                }
                Some(Ok(answer)) => self.take(question, answer),
                Some(Err(tried)) => self.leave(question, tried),
            }
            let (_, over) = flights.swap_remove(at);
            self.client.end(over);
        }
    }

    fn next_question(&self) -> Option<Question> {
        let mut state = self.lock();
        if state.answering >= self.most() {
            return None;
        }
        let question = state.questions.pop_front()?;
        state.answering += 1;
        Some(question)
    }

    fn carry_on(&self, (_, key): Question, asked: &mut Asked) -> Option<Result<Answered, Tried>> {
        let most = self.client.options().max_lines;
        match key {
            None => {
                let answer = self.client.advance(asked, |text| ListedKeys::parse(text, most))?;
                Some(answer.map(Answered::Listing))
            }
            Some(key) => {
                let answer = self.client.advance(asked, |text| key.parse(text, most))?;
                Some(answer.map(|answer| Answered::Key(key, answer)))
            }
        }
    }

    fn take(&self, (mac, _): Question, answer: Answered) {
        let mut state = self.lock();
        state.answering -= 1;
        state.take(mac, answer);
        if state.is_waiting() || state.answering == 0 {
            self.changed.notify_all();
        }
    }

    fn leave(&self, question: Question, tried: Tried) {
        let mut state = self.lock();
        state.answering -= 1;
        state.again.push_back((question, tried));
        self.changed.notify_all();
    }

    /// Works on questions until all are answered.
    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        let mut state = self.lock();
        loop {
            if state.answering < self.most()
                && let Some((question, tried)) = state.next()
            {
                state.answering += 1;
                drop(state);
                let answer = self.ask(question, tried);
                self.take(question, answer);
                state = self.lock();
                if state.is_waiting() {
                    drop(state);
                    self.start_helpers(scope, 1);
                    state = self.lock();
                }
            } else if state.answering == 0 && !state.is_waiting() {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// Sees to it that there are as many threads as questions, up to the limit. `own`: how many
    /// questions the calling thread takes itself.
    fn start_helpers<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, own: usize) {
        let most = self.client.options().concurrency.saturating_sub(1);
        loop {
            let mut state = self.lock();
            let open = state.again.len() + state.questions.len() + state.answering;
            // Idle helpers are on their way to a question.
            let wanted = open.saturating_sub(own).min(most);
            if state.helpers >= wanted {
                return;
            }
            state.helpers += 1;
            drop(state);
            let helper = Builder::new().name("metadata".into()).stack_size(STACK);
            if let Err(error) = helper.spawn_scoped(scope, || self.work(scope)) {
                // The threads that there are answer everything, later.
                log::debug!("no thread for metadata requests: {error}");
                return;
            }
        }
    }

    fn ask(&self, question: Question, tried: Tried) -> Answered {
        let most = self.client.options().max_lines;
        let path = path(question);
        match question.1 {
            None => {
                let read = |answer: &str| ListedKeys::parse(answer, most);
                Answered::Listing(self.client.get_after(tried, &path, self.deadline, read))
            }
            Some(key) => {
                let read = |answer: &str| key.parse(answer, most);
                Answered::Key(key, self.client.get_after(tried, &path, self.deadline, read))
            }
        }
    }

    /// How many questions may be with the service at once.
    fn most(&self) -> usize {
        self.client.options().concurrency.max(1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path((mac, key): Question) -> String {
    match key {
        None => format!("{MACS}{mac}/"),
        Some(key) => format!("{MACS}{mac}/{}", key.name()),
    }
}

enum Answered {
    Listing(Result<ListedKeys, Error>),
    Key(Key, Result<Fact, Error>),
}

impl State {
    /// The next question, and what became of it before.
    fn next(&mut self) -> Option<(Question, Tried)> {
        let new = |question| (question, Tried::default());
        self.again.pop_front().or_else(|| self.questions.pop_front().map(new))
    }

    fn is_waiting(&self) -> bool {
        !self.again.is_empty() || !self.questions.is_empty()
    }

    fn take(&mut self, mac: MacAddr, answer: Answered) {
        let Some(subject) = self.subjects.get_mut(&mac) else {
            return;
        };
        let further = match answer {
            Answered::Listing(listed) => subject.listed(listed),
            Answered::Key(key, answer) => subject.answered(key, answer),
        };
        for key in further.into_iter().rev() {
            self.questions.push_front((mac, Some(key)));
        }
    }
}
