//! When to ask metadata about what: pure, with the time passed in.
//!
//! A fresh attachment is asked about at once, and again quickly while metadata lags behind it. What
//! is complete is looked at a few times more, because secondary addresses arrive late, and then
//! with every refresh. Failures are answered by longer and longer waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use jackfield_metadata::{Ask, MacAddr};

use crate::machine::TOGETHER;

/// A device of which metadata knows nothing may be no cloud interface at all: asking about such
/// devices costs at most one listing a second, however many of them come and go.
const FRUITLESS: Duration = Duration::from_secs(1);
/// While few devices come, one that metadata does not know is most likely a fresh attachment, and
/// shall work within a second of being listed.
const LONELY: Duration = Duration::from_millis(750);
/// So many that it does not know…
const CROWD: usize = 4;
/// …in so short a time are more than a cloud attaches.
const CROWDED: Duration = Duration::from_secs(60);
/// While metadata lags behind an attachment.
const LAGGING: Duration = Duration::from_millis(400);
/// For so long an attachment is asked about quickly.
const YOUNG: Duration = Duration::from_secs(90);
/// For so long it is asked about every few seconds.
const MIDDLE_AGED: Duration = Duration::from_secs(300);
/// What was listed before and comes back within this may be shown as it was when it went.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What a middle-aged one waits.
const UNHURRIED: Duration = Duration::from_secs(5);
/// When a complete interface is looked at again, in case that more addresses arrive.
const FOLLOW_UPS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// The first wait after a failure; doubled by each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest wait after a failure for an interface that nobody can use yet.
const URGENT_BACKOFF: Duration = Duration::from_secs(10);
/// The longest wait after a failure for others.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// What one answer told about one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Metadata does not list it.
    NotListed,
    /// It is listed, and something of it has not arrived yet.
    Lagging,
    /// It is listed, and some of its keys could not be read.
    Faulty,
    /// Everything is known.
    Content,
    /// There was no answer at all.
    Failed,
}

/// One round of questions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Round {
    /// What to ask about which interface.
    pub(crate) asks: Vec<(MacAddr, Ask)>,
    /// Interfaces that metadata did not list so far: to be looked for in its listing, in one
    /// request, and to be asked about only where they are in it.
    pub(crate) search: Vec<MacAddr>,
}

impl Round {
    /// Every interface that it is about.
    pub(crate) fn macs(&self) -> impl Iterator<Item = MacAddr> {
        self.asks.iter().map(|(mac, _)| *mac).chain(self.search.iter().copied())
    }
}

#[derive(Debug, Clone)]
struct Track {
    appeared: Instant,
    /// `None`: with the next refresh.
    next: Option<Instant>,
    in_flight: bool,
    listed: bool,
    content: bool,
    follow_ups: usize,
    failures: u32,
    /// It was attached before, and not long ago: what metadata says of it may be out of date, also
    /// what cannot change while it is attached.
    returned: bool,
}

/// When to ask about what.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    refresh: Duration,
    tracks: BTreeMap<MacAddr, Track>,
    next_refresh: Instant,
    /// When strangers were last searched for in vain.
    last_search: Option<Instant>,
    /// The last devices that appeared and were not listed so far, no more than make a crowd.
    strangers: VecDeque<(Instant, MacAddr)>,
    /// When interfaces that metadata listed went.
    departed: BTreeMap<MacAddr, Instant>,
}

impl Schedule {
    /// Nothing to ask about yet.
    pub(crate) fn new(now: Instant, refresh: Duration) -> Self {
        Schedule {
            refresh,
            tracks: BTreeMap::new(),
            next_refresh: now + refresh,
            last_search: None,
            strangers: VecDeque::new(),
            departed: BTreeMap::new(),
        }
    }

    /// From now on, so much lies between two refreshes.
    pub(crate) fn set_refresh(&mut self, now: Instant, refresh: Duration) {
        self.refresh = refresh;
        self.next_refresh = self.next_refresh.min(now + refresh);
    }

    /// A device appeared that may be a cloud interface.
    pub(crate) fn appeared(&mut self, now: Instant, mac: MacAddr) {
        // Where another device of this MAC went unseen.
        self.gone(now, mac);
        if self.strangers.len() >= CROWD {
            self.strangers.pop_front();
        }
        self.strangers.push_back((now, mac));
        self.departed.retain(|_, went| now.saturating_duration_since(*went) < REMEMBERED);
        self.tracks.insert(
            mac,
            Track {
                appeared: now,
                next: Some(now),
                in_flight: false,
                listed: false,
                content: false,
                follow_ups: 0,
                failures: 0,
                returned: self.departed.contains_key(&mac),
            },
        );
    }

    /// A device is gone.
    pub(crate) fn gone(&mut self, now: Instant, mac: MacAddr) {
        if self.tracks.remove(&mac).is_some_and(|track| track.listed) {
            self.departed.insert(mac, now);
        }
    }

    /// When strangers may be searched for again; `None`: at once.
    fn next_search(&self) -> Option<Instant> {
        let last = self.last_search?;
        let crowded = self.strangers.len() >= CROWD
            && self.strangers.front().is_some_and(|(first, _)| *first + CROWDED > last);
        Some(last + if crowded { FRUITLESS } else { LONELY })
    }

    /// How long ago the device appeared; `None` for one that is not there.
    pub(crate) fn age(&self, now: Instant, mac: MacAddr) -> Option<Duration> {
        Some(now.saturating_duration_since(self.tracks.get(&mac)?.appeared))
    }

    /// Whether everything was known of the interface when it was last asked about.
    pub(crate) fn is_content(&self, mac: MacAddr) -> bool {
        self.tracks.get(&mac).is_some_and(|track| track.content)
    }

    /// Whether something is being asked about of which not everything is known.
    pub(crate) fn is_asking(&self) -> bool {
        self.tracks.values().any(|track| track.in_flight && !track.content)
    }

    /// Many interfaces are being asked about of which not everything is known. What is complete
    /// waits meanwhile: the client may send only so much, and theirs is more urgent.
    fn is_busy(&self) -> bool {
        let urgent = self.tracks.values().filter(|track| track.in_flight && !track.content);
        urgent.count() > TOGETHER
    }

    /// What is to be asked now, if anything. It counts as asked.
    pub(crate) fn due(&mut self, now: Instant, jitter: &mut impl FnMut() -> f64) -> Option<Round> {
        let refresh = now >= self.next_refresh;
        if refresh {
            // Never earlier than configured: rounds that count absences are at least so far apart.
            let factor = 1.0 + jitter() / 10.0;
            self.next_refresh = now + self.refresh.mul_f64(factor);
        }
        let mut round = Round::default();
        let busy = self.is_busy();
        let may_search = self.next_search().is_none_or(|at| now >= at);
        for (mac, track) in &mut self.tracks {
            let due = refresh || track.next.is_some_and(|next| now >= next);
            if !due || track.in_flight || (!track.listed && !may_search) {
                continue;
            }
            if busy && track.content {
                track.next = Some(now);
                continue;
            }
            track.in_flight = true;
            track.next = None;
            if track.listed {
                let age = now.saturating_duration_since(track.appeared);
                let settled = track.content && !(track.returned && age < MIDDLE_AGED);
                let ask = if settled { Ask::Changing } else { Ask::Everything };
                round.asks.push((*mac, ask));
            } else {
                round.search.push(*mac);
            }
        }
        if !round.search.is_empty() {
            self.last_search = Some(now);
        }
        // A single stranger is most likely a fresh attachment: its own listing saves a round trip,
        // and is one listing too.
        if let [mac] = round.search[..] {
            round.search.clear();
            round.asks.push((mac, Ask::Everything));
        }
        (!round.asks.is_empty() || !round.search.is_empty()).then_some(round)
    }

    /// What an answer told. Answers about devices that went meanwhile are ignored.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        mac: MacAddr,
        outcome: Outcome,
        jitter: &mut impl FnMut() -> f64,
    ) {
        let Some(track) = self.tracks.get_mut(&mac) else { return };
        track.in_flight = false;
        let age = now.saturating_duration_since(track.appeared);
        let at_age = |young: Duration| match age {
            age if age < YOUNG => Some(now + young),
            age if age < MIDDLE_AGED => Some(now + UNHURRIED.max(young)),
            _ => None,
        };
        if matches!(outcome, Outcome::Failed | Outcome::Faulty) {
            track.failures = track.failures.saturating_add(1);
        } else {
            track.failures = 0;
        }
        if matches!(outcome, Outcome::Lagging | Outcome::Faulty | Outcome::Content) {
            if !track.listed {
                // The search was no waste: whoever waits for the next need not.
                self.last_search = None;
            }
            track.listed = true;
            self.strangers.retain(|(_, stranger)| *stranger != mac);
        }
        track.next = match outcome {
            // Nothing is missing of what was complete.
            Outcome::NotListed if track.content => None,
            // As soon as the next search is allowed.
            Outcome::NotListed => at_age(LONELY),
            Outcome::Lagging => at_age(LAGGING),
            Outcome::Content => {
                let wait = FOLLOW_UPS.get(track.follow_ups);
                track.follow_ups = track.follow_ups.saturating_add(1);
                wait.map(|wait| now + *wait)
            }
            Outcome::Faulty | Outcome::Failed => {
                let doublings = track.failures.saturating_sub(1).min(10);
                let urgent = !track.content && age < MIDDLE_AGED;
                let longest = if urgent { URGENT_BACKOFF } else { LONGEST_BACKOFF };
                let wait = FIRST_BACKOFF.saturating_mul(1 << doublings).min(longest);
                // Half of it is certain, so that nobody asks at once; half is jitter.
                Some(now + wait.mul_f64(0.5 + jitter() / 2.0))
            }
        };
        match outcome {
            Outcome::Content => track.content = true,
            // Also what does not change is asked again: it may be what is wrong.
            Outcome::Lagging => track.content = false,
            // From now on it is searched for, together with all others that are not listed.
            Outcome::NotListed => track.listed = false,
            Outcome::Faulty | Outcome::Failed => {}
        }
    }

    /// When there is next something to ask.
    pub(crate) fn next(&self) -> Instant {
        let busy = self.is_busy();
        let waits = |track: &&Track| !(track.in_flight || busy && track.content);
        let waiting = self.tracks.values().filter(waits);
        let next = waiting.filter_map(|track| {
            let next = track.next?;
            let search = self.next_search().filter(|_| !track.listed);
            Some(search.map_or(next, |search| next.max(search)))
        });
        next.chain([self.next_refresh]).min().unwrap_or(self.next_refresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::from([2, 0, 0, 0, 0, last])
    }

    /// Runs the schedule for a time; `answer` says what each question tells. Returns when how many
    /// rounds with a search or a stranger's listing were sent, and all rounds.
    fn simulate(
        schedule: &mut Schedule,
        start: Instant,
        time: Duration,
        mut answer: impl FnMut(Duration, MacAddr) -> Outcome,
    ) -> Vec<(Duration, Round)> {
        let mut rounds = Vec::new();
        let mut now = start;
        while now < start + time {
            if let Some(round) = schedule.due(now, &mut || 0.0) {
                let macs = round.asks.iter().map(|(mac, _)| *mac).chain(round.search.clone());
                for mac in macs {
                    let outcome = answer(now - start, mac);
                    schedule.answered(now, mac, outcome, &mut || 0.0);
                }
                rounds.push((now - start, round));
            }
            now = schedule.next().max(now + Duration::from_millis(1));
        }
        rounds
    }

    #[test]
    fn a_shorter_refresh_holds_at_once_and_a_longer_one_from_the_next_on() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Duration::from_secs(30));
        schedule.set_refresh(now, Duration::from_secs(60));
        assert_eq!(schedule.next(), now + Duration::from_secs(30));
        schedule.set_refresh(now, Duration::from_secs(2));
        assert_eq!(schedule.next(), now + Duration::from_secs(2));
        schedule.due(now + Duration::from_secs(2), &mut || 0.0);
        assert_eq!(schedule.next(), now + Duration::from_secs(4));
    }

    #[test]
    fn a_fresh_device_is_asked_about_at_once_by_its_own_listing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Duration::from_secs(30));
        schedule.appeared(now, mac(1));
        let round = schedule.due(now, &mut || 0.0).unwrap();
        assert_eq!(round, Round { asks: vec![(mac(1), Ask::Everything)], search: vec![] });
        assert_eq!(schedule.due(now, &mut || 0.0), None, "asked twice");
    }

    #[test]
    fn what_is_refreshed_keeps_nobody_waiting_and_what_is_on_its_way_does() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Duration::from_secs(30));
        schedule.appeared(now, mac(1));
        assert!(!schedule.is_asking());
        schedule.due(now, &mut || 0.0).unwrap();
        assert!(schedule.is_asking());
        schedule.answered(now, mac(1), Outcome::Content, &mut || 0.0);
        assert!(!schedule.is_asking());
        schedule.due(now + Duration::from_secs(60), &mut || 0.0).unwrap();
        assert!(!schedule.is_asking());
    }

    #[test]
    fn a_thousand_strangers_a_minute_cost_at_most_one_listing_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(30));
        let mut listings = 0;
        for step in 0..6000_u32 {
            let now = start + Duration::from_millis(u64::from(step) * 10);
            if step % 6 == 0 {
                let number = (step / 6).to_be_bytes();
                schedule.appeared(now, MacAddr::from([2, 0, 0, 0, number[2], number[3]]));
            }
            if let Some(round) = schedule.due(now, &mut || 0.0) {
                assert!(
                    round.asks.len() <= 1 && (round.asks.is_empty() || round.search.is_empty())
                );
                listings += 1;
                let macs = round.asks.iter().map(|(mac, _)| *mac).chain(round.search.clone());
                for mac in macs {
                    schedule.answered(now, mac, Outcome::NotListed, &mut || 0.0);
                    if mac.octets()[5] % 2 == 0 {
                        schedule.gone(now, mac);
                    }
                }
            }
        }
        assert!(listings <= 60, "{listings} listings in a minute");
    }

    #[test]
    fn a_lagging_attachment_is_asked_about_every_half_second_until_it_is_content() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(30));
        schedule.appeared(start, mac(1));
        let mut content = None;
        simulate(&mut schedule, start, Duration::from_secs(28), |at, _| {
            let outcome = match at.as_secs() {
                0..5 => Outcome::NotListed,
                5..10 => Outcome::Lagging,
                _ => Outcome::Content,
            };
            if outcome == Outcome::Content {
                content = content.or(Some(at));
            }
            outcome
        });
        let content = content.unwrap();
        assert!(content < Duration::from_millis(10_900), "{content:?}");
    }

    #[test]
    fn a_device_that_is_listed_late_is_found_within_a_second_while_few_devices_come() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(3600));
        (1..=10).for_each(|number| schedule.appeared(start, mac(number)));
        simulate(&mut schedule, start, Duration::from_secs(40), |_, _| Outcome::Content);
        let start = start + Duration::from_secs(40);
        schedule.appeared(start, mac(11));
        let rounds =
            simulate(&mut schedule, start, Duration::from_secs(60), |_, _| Outcome::NotListed);
        let at: Vec<Duration> = rounds.iter().map(|(at, _)| *at).collect();
        assert!(at.windows(2).all(|two| two[1] - two[0] < Duration::from_millis(800)), "{at:?}");
    }

    #[test]
    fn what_cannot_change_is_asked_again_of_an_interface_that_came_back_and_of_one_that_lags() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(30));
        schedule.appeared(start, mac(1));
        let second = Duration::from_secs(1);
        simulate(&mut schedule, start, second, |_, _| Outcome::Content);
        schedule.gone(start + second, mac(1));
        schedule.appeared(start + second, mac(1));
        let rounds = simulate(&mut schedule, start + second, Duration::from_secs(400), |_, _| {
            Outcome::Content
        });
        for (at, round) in rounds {
            let expected = match at {
                at if at < MIDDLE_AGED => Ask::Everything,
                _ => Ask::Changing,
            };
            assert_eq!(round.asks, [(mac(1), expected)], "after {at:?}");
        }
        let now = start + Duration::from_secs(500);
        schedule.answered(now, mac(1), Outcome::Lagging, &mut || 0.0);
        let round = schedule.due(now + second, &mut || 0.0).unwrap();
        assert_eq!(round.asks, [(mac(1), Ask::Everything)]);
    }

    #[test]
    fn a_service_that_forgets_all_interfaces_is_asked_for_its_listing_once_a_second_at_most() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(30));
        (1..=20).for_each(|number| schedule.appeared(start, mac(number)));
        let forgets = Duration::from_millis(100);
        let rounds = simulate(&mut schedule, start, Duration::from_secs(60), |at, mac| {
            match (at < forgets, mac.octets()[5] % 2) {
                (true, 0) => Outcome::Content,
                (true, _) => Outcome::Lagging,
                _ => Outcome::NotListed,
            }
        });
        let later = rounds.iter().filter(|(at, _)| *at > Duration::from_secs(2));
        assert!(later.clone().count() <= 80, "{} rounds", later.count());
        assert!(later.clone().all(|(_, round)| round.asks.len() <= 1), "{rounds:#?}");
        assert!(rounds.last().unwrap().1.search.len() >= 10, "{rounds:#?}");
    }

    #[test]
    fn a_content_interface_is_followed_up_and_then_left_to_the_refresh() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Duration::from_secs(30));
        schedule.appeared(start, mac(1));
        let rounds =
            simulate(&mut schedule, start, Duration::from_secs(95), |_, _| Outcome::Content);
        let at: Vec<u64> = rounds.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(at, [0, 1, 2, 4, 8, 16, 30, 60, 90]);
        let later = rounds.iter().skip(1).flat_map(|(_, round)| &round.asks);
        assert!(later.clone().count() == 8 && later.clone().all(|(_, ask)| *ask == Ask::Changing));
    }

    #[test]
    fn failures_are_answered_by_longer_and_longer_waits() {
        let start = Instant::now();
        for failure in [Outcome::Failed, Outcome::Faulty] {
            let mut schedule = Schedule::new(start, Duration::from_secs(3600));
            schedule.appeared(start, mac(1));
            let rounds = simulate(&mut schedule, start, Duration::from_secs(60), |_, _| failure);
            assert!((6..=16).contains(&rounds.len()), "{} rounds in a minute", rounds.len());
            let mut recovered = schedule.clone();
            let at = recovered.next();
            assert!(at - start <= Duration::from_secs(70), "not asked again soon");
            assert!(recovered.due(at, &mut || 0.0).is_some());
        }
    }

    #[test]
    fn a_device_that_goes_while_it_is_asked_about_leaves_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now, Duration::from_secs(30));
        schedule.appeared(now, mac(1));
        schedule.due(now, &mut || 0.0).unwrap();
        schedule.gone(now, mac(1));
        schedule.answered(now, mac(1), Outcome::Content, &mut || 0.0);
        assert_eq!(schedule.next(), now + Duration::from_secs(30));
    }
}
