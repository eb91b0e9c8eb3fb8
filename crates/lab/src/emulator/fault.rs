//! What can go wrong, where, and for how long.

use std::time::{Duration, Instant};

/// What a fault does to an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// This status with its error body, whatever was asked.
    Status(u16),
    /// The answer begins this much later. Goes together with any other effect.
    Delay(Duration),
    /// The answer goes out one byte at a time, with this pause before each.
    Drip(Duration),
    /// No answer; the connection stays open until the client gives up.
    Hang,
    /// No answer; the connection is reset.
    Reset,
    /// No answer; the connection is closed.
    Close,
    /// The body ends after this many bytes, although Content-Length promises all of it.
    Truncate(usize),
    /// The body ends after this many bytes, and no Content-Length tells.
    TruncateSilently(usize),
    /// Status 200 with this body.
    Body(Vec<u8>),
    /// Status 200 with a body that is no text.
    GarbageBody,
    /// Bytes that are no HTTP.
    GarbageStatusLine,
    /// Status 200 with a body of this many bytes in lines.
    Oversize(u64),
    /// Status 200 with lines without end.
    EndlessLines,
    /// Status 200 with one line without end.
    EndlessLine,
    /// A header without end.
    EndlessHeader,
}

impl Effect {
    /// The status that a client can read, where the effect changes it.
    pub(super) fn status(&self) -> Option<Option<u16>> {
        match self {
            Self::Status(status) => Some(Some(*status)),
            Self::Hang
            | Self::Reset
            | Self::Close
            | Self::GarbageStatusLine
            | Self::EndlessHeader => Some(None),
            Self::Body(_)
            | Self::GarbageBody
            | Self::Oversize(_)
            | Self::EndlessLines
            | Self::EndlessLine => Some(Some(200)),
            Self::Delay(_) | Self::Drip(_) | Self::Truncate(_) | Self::TruncateSilently(_) => None,
        }
    }
}

/// An effect, and which requests it strikes. Without any narrowing: all, until it is cleared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    effect: Effect,
    path: Option<String>,
    method: Option<String>,
    instance: Option<String>,
    skip: u64,
    times: Option<u64>,
    lasting: Option<Duration>,
}

impl Fault {
    /// This effect on every request.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            effect,
            path: None,
            method: None,
            instance: None,
            skip: 0,
            times: None,
            lasting: None,
        }
    }

    /// Only on paths like this one, where `*` stands for any characters, slashes included:
    /// `*/local-ipv4s`, `/latest/api/token`, `*/02:ec:20:00:00:01/*`.
    #[must_use]
    pub fn on_path(mut self, pattern: impl Into<String>) -> Self {
        self.path = Some(pattern.into());
        self
    }

    /// Only on requests of this method.
    #[must_use]
    pub fn on_method(mut self, method: impl Into<String>) -> Self {
        self.method = Some(method.into());
        self
    }

    /// Only for this instance.
    #[must_use]
    pub fn for_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// Passes over the first requests that it would strike.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Strikes this many requests, then no more.
    #[must_use]
    pub fn times(mut self, requests: u64) -> Self {
        self.times = Some(requests);
        self
    }

    /// Ends this long after it was set.
    #[must_use]
    pub fn lasting(mut self, duration: Duration) -> Self {
        self.lasting = Some(duration);
        self
    }

    fn concerns(&self, asked: &Asked<'_>) -> bool {
        self.path.as_deref().is_none_or(|pattern| matches(pattern, asked.path))
            && self.method.as_deref().is_none_or(|method| method == asked.method)
            && self.instance.as_deref().is_none_or(|instance| Some(instance) == asked.instance)
    }
}

/// A fault that was set, to clear it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// What decides whether a fault strikes.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) instance: Option<&'a str>,
}

/// The faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    set: Vec<Set>,
    count: u64,
}

#[derive(Debug)]
struct Set {
    id: FaultId,
    fault: Fault,
    since: Instant,
}

/// What befalls one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault, now: Instant) -> FaultId {
        self.count += 1;
        let id = FaultId(self.count);
        self.set.push(Set { id, fault, since: now });
        id
    }

    pub(super) fn clear(&mut self, id: FaultId) {
        self.set.retain(|set| set.id != id);
    }

    pub(super) fn clear_all(&mut self) {
        self.set.clear();
    }

    /// What befalls this request: the delays of all faults that concern it, and the first other
    /// effect.
    pub(super) fn strike(&mut self, asked: &Asked<'_>, now: Instant) -> Strike {
        self.set.retain(|set| {
            set.fault.times != Some(0)
                && set.fault.lasting.is_none_or(|lasting| now.duration_since(set.since) < lasting)
        });
        let mut strike = Strike::default();
        for Set { fault, .. } in &mut self.set {
            let is_delay = matches!(fault.effect, Effect::Delay(_));
            if !fault.concerns(asked) || (!is_delay && strike.effect.is_some()) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.times = fault.times.map(|times| times - 1);
            match fault.effect {
                Effect::Delay(delay) => strike.delay += delay,
                ref effect => strike.effect = Some(effect.clone()),
            }
        }
        strike
    }
}

/// Whether a path is like a pattern in which `*` stands for any characters.
fn matches(pattern: &str, path: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == path;
    };
    let Some(mut left) = path.strip_prefix(head) else {
        return false;
    };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return left.ends_with(part);
        }
        match left.find(part).and_then(|at| left.get(at + part.len()..)) {
            Some(after) => left = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/latest/meta-data/network/interfaces/macs/02:ec:20:00:00:01/ipv6s";

    fn asked<'a>(path: &'a str, instance: &'a str) -> Asked<'a> {
        Asked { method: "GET", path, instance: Some(instance) }
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for pattern in
            ["*", KEY, "*/ipv6s", "/latest/*", "*02:ec:20:00:00:01/*", "/l*/ipv*s", "/*/*"]
        {
            assert!(matches(pattern, KEY), "{pattern}");
        }
        for pattern in ["", "ipv6s", "*/ipv6", "*:02/*", "/latest", "*s*s*s*s*s*s*s*s*s*s"] {
            assert!(!matches(pattern, KEY), "{pattern}");
        }
    }

    #[test]
    fn a_fault_strikes_what_it_concerns_and_no_more_often_than_said() {
        let mut faults = Faults::default();
        let now = Instant::now();
        let fault = Fault::new(Effect::Hang).on_path("*/ipv6s").for_instance("i-a");
        faults.add(fault.after(1).times(2), now);
        let mut strikes = |path, instance| faults.strike(&asked(path, instance), now).effect;
        assert_eq!(strikes(KEY, "i-b"), None);
        assert_eq!(strikes("/latest/meta-data/mac", "i-a"), None);
        assert_eq!(strikes(KEY, "i-a"), None);
        assert_eq!(strikes(KEY, "i-a"), Some(Effect::Hang));
        assert_eq!(strikes(KEY, "i-a"), Some(Effect::Hang));
        assert_eq!(strikes(KEY, "i-a"), None);
    }

    #[test]
    fn a_fault_ends_with_its_time() {
        let mut faults = Faults::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        faults.add(Fault::new(Effect::Reset).lasting(second), now);
        let later = now + second;
        assert_eq!(faults.strike(&asked(KEY, "i-a"), now).effect, Some(Effect::Reset));
        assert_eq!(faults.strike(&asked(KEY, "i-a"), later).effect, None);
    }

    #[test]
    fn delays_add_up_and_the_first_other_effect_wins() {
        let mut faults = Faults::default();
        let now = Instant::now();
        let second = Duration::from_secs(1);
        faults.add(Fault::new(Effect::Delay(second)), now);
        let first = faults.add(Fault::new(Effect::Status(503)), now);
        faults.add(Fault::new(Effect::Status(429)), now);
        faults.add(Fault::new(Effect::Delay(second)), now);
        let strike = faults.strike(&asked(KEY, "i-a"), now);
        assert_eq!(strike, Strike { delay: 2 * second, effect: Some(Effect::Status(503)) });
        faults.clear(first);
        assert_eq!(faults.strike(&asked(KEY, "i-a"), now).effect, Some(Effect::Status(429)));
        faults.clear_all();
        assert_eq!(faults.strike(&asked(KEY, "i-a"), now), Strike::default());
    }
}
