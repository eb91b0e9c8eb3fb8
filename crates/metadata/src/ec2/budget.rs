//! How much the client may send: packets a second, and not at all while the service is throttled.
//!
//! EC2 drops packets to its link-local services beyond 1,024 a second for each interface, and all
//! users of the machine share that.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Packets that a request on a new connection sends: SYN, ACK, request, ACK of the answer, FIN and
/// ACK of the peer's FIN.
pub(super) const NEW_CONNECTION: u32 = 6;
/// Packets that a request on a kept connection sends: the request and the ACK of its answer.
pub(super) const KEPT_CONNECTION: u32 = 2;

/// The first wait after a failure, at most. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The span over which packets are counted.
const WINDOW: Duration = Duration::from_secs(1);

/// The client's share of the packet rate, for all its threads.
#[derive(Debug)]
pub(super) struct Budget {
    per_window: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When how many packets were, or are going to be, sent; the last window of it, in order.
    sent: VecDeque<(Instant, u32)>,
    /// Nothing is sent before this.
    throttled_until: Option<Instant>,
    /// How many throttled answers in a row there were, less the good ones since.
    throttles: u32,
}

/// The deadline passes before the request may be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLate;

impl Budget {
    /// At most `per_second` packets in any one second. At least one request always fits.
    pub(super) fn new(per_second: u32) -> Self {
        Self { per_window: per_second.max(NEW_CONNECTION), state: Mutex::default() }
    }

    /// Waits until `packets` more may be sent. Returns at once where that is after `deadline`.
    pub(super) fn admit(&self, packets: u32, deadline: Instant) -> Result<(), TooLate> {
        let mut at = {
            let mut state = self.lock();
            let at = state.earliest(packets, self.per_window, Instant::now());
            if at >= deadline {
                return Err(TooLate);
            }
            state.sent.push_back((at, packets));
            at
        };
        loop {
            sleep_until(at);
            // While this one waited for its turn, another one may have been throttled.
            match self.lock().throttled_until {
                Some(until) if until > Instant::now() => {
                    if until >= deadline {
                        return Err(TooLate);
                    }
                    at = until;
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether `packets` more may be sent now; if so, they are counted.
    pub(super) fn admit_now(&self, packets: u32) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let now_is_early_enough = state.earliest(packets, self.per_window, now) <= now;
        if now_is_early_enough {
            state.sent.push_back((now, packets));
        }
        now_is_early_enough
    }

    /// The service asked for fewer requests: nothing is sent for a while, longer each time.
    pub(super) fn throttled(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        // Side by side, several requests meet the same throttle. It counts once.
        if state.throttled_until.is_some_and(|until| until > now) {
            return;
        }
        let most = wait_after(state.throttles);
        // Half of it in any case: a jitter down to nothing would not be fewer requests.
        state.throttled_until = Some(now + most / 2 + jitter(most / 2));
        state.throttles = state.throttles.saturating_add(1);
    }

    /// The service answered.
    pub(super) fn relax(&self) {
        let mut state = self.lock();
        state.throttles = state.throttles.saturating_sub(1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The earliest time, not before `now`, at which no window that ends there holds more than
    /// `limit` packets, the new ones included.
    fn earliest(&mut self, packets: u32, limit: u32, now: Instant) -> Instant {
        while self.sent.front().is_some_and(|(at, _)| *at + WINDOW <= now) {
            self.sent.pop_front();
        }
        let mut at = now.max(self.throttled_until.unwrap_or(now));
        if let Some((last, _)) = self.sent.back() {
            at = at.max(*last);
        }
        let mut within: u32 = self.sent.iter().map(|(_, packets)| packets).sum();
        for (sent, count) in &self.sent {
            if *sent + WINDOW <= at {
                within -= count;
            } else if within + packets > limit {
                within -= count;
                at = *sent + WINDOW;
            } else {
                break;
            }
        }
        at
    }
}

/// The waits between the attempts of one request: exponential, with full jitter.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait before the next attempt.
    pub(super) fn next_wait(&mut self) -> Duration {
        let most = wait_after(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        jitter(most)
    }
}

fn wait_after(failures: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT)
}

/// A random part of `most`, so that many hosts that fail together do not come back together.
fn jitter(most: Duration) -> Duration {
    // RandomState is seeded by the kernel: enough for a jitter, and no dependency.
    let random = RandomState::new().build_hasher().finish();
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random % nanos.saturating_add(1))
}

fn sleep_until(at: Instant) {
    if let Some(wait) = at.checked_duration_since(Instant::now()) {
        std::thread::sleep(wait);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_of_a_second_holds_more_than_the_limit() {
        let start = Instant::now();
        let mut state = State::default();
        let mut sent = Vec::new();
        for number in 0..400_u32 {
            let packets = if number % 3 == 0 { NEW_CONNECTION } else { KEPT_CONNECTION };
            let now = start + Duration::from_millis(u64::from(number % 7));
            let at = state.earliest(packets, 50, now.max(start));
            state.sent.push_back((at, packets));
            sent.push((at, packets));
        }
        for (end, _) in &sent {
            let within: u32 = sent
                .iter()
                .filter(|(at, _)| at <= end && *at + WINDOW > *end)
                .map(|(_, packets)| packets)
                .sum();
            assert!(within <= 50, "{within} packets in one second");
        }
        // And no more slowly than the limit allows: 1,334 packets of 50 a second, less the first.
        let last = sent.last().unwrap().0.duration_since(start);
        assert!(last <= Duration::from_secs(28), "{last:?}");
    }

    #[test]
    fn a_request_that_cannot_be_sent_in_time_returns_at_once_and_uses_nothing() {
        let budget = Budget::new(6);
        let deadline = Instant::now() + Duration::from_millis(500);
        assert_eq!(budget.admit(6, deadline), Ok(()));
        let before = Instant::now();
        assert_eq!(budget.admit(6, deadline), Err(TooLate));
        assert!(before.elapsed() < Duration::from_millis(400));
        assert_eq!(budget.lock().sent.len(), 1);
    }

    #[test]
    fn throttling_holds_everything_back_for_longer_each_time() {
        let budget = Budget::new(300);
        budget.throttled();
        let first = budget.lock().throttled_until.unwrap();
        // The same throttle, met by a request at its side.
        budget.throttled();
        assert_eq!(budget.lock().throttled_until, Some(first));
        assert_eq!(budget.lock().throttles, 1);
        assert_eq!(budget.admit(2, Instant::now()), Err(TooLate));
        assert_eq!(budget.admit(2, first + Duration::from_secs(1)), Ok(()));
        assert!(Instant::now() >= first);
        budget.relax();
        assert_eq!(budget.lock().throttles, 0);
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_wait() <= Duration::from_millis(100));
        assert!(backoff.next_wait() <= Duration::from_millis(200));
        for _ in 0..100 {
            assert!(backoff.next_wait() <= LONGEST_WAIT);
        }
    }
}
