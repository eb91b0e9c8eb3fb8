//! How long after an attach each part of an interface's metadata comes to light.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Propagation lag of one attachment. All times count from the moment of the attach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    listed: Duration,
    device_number: Duration,
    keys: BTreeMap<String, Duration>,
    released: BTreeSet<String>,
}

const LISTING: &str = "macs/";
/// Until it has propagated this key reads 0; with [`Lag::key`] it can be absent besides.
const DEVICE_NUMBER: &str = "device-number";
const ADDRESSES: [&str; 4] = ["local-ipv4s", "ipv6s", "ipv4-prefix", "ipv6-prefix"];

impl Lag {
    /// Never, unless released by hand.
    pub const HELD: Duration = Duration::MAX;

    /// Everything is there at once.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// The MAC is not listed, nor any of its keys found, before this.
    #[must_use]
    pub fn listed(mut self, after: Duration) -> Self {
        self.listed = after;
        self
    }

    /// `device-number` reads 0 before this.
    #[must_use]
    pub fn device_number(mut self, after: Duration) -> Self {
        self.device_number = after;
        self
    }

    /// No address and no prefix is found before this.
    #[must_use]
    pub fn addresses(mut self, after: Duration) -> Self {
        for key in ADDRESSES {
            self.keys.insert(key.to_owned(), after);
        }
        self
    }

    /// This key is not found before this.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>, after: Duration) -> Self {
        self.keys.insert(key.into(), after);
        self
    }

    /// Ends the lag of one key; `macs/` stands for the listing.
    pub(super) fn release(&mut self, key: &str) {
        self.released.insert(key.to_owned());
    }

    pub(super) fn is_listed(&self, attached: Instant, now: Instant) -> bool {
        self.is_over(LISTING, self.listed, attached, now)
    }

    pub(super) fn device_number_is_known(&self, attached: Instant, now: Instant) -> bool {
        self.is_over(DEVICE_NUMBER, self.device_number, attached, now)
    }

    pub(super) fn shows(&self, key: &str, attached: Instant, now: Instant) -> bool {
        self.keys.get(key).is_none_or(|after| self.is_over(key, *after, attached, now))
    }

    fn is_over(&self, key: &str, after: Duration, attached: Instant, now: Instant) -> bool {
        self.released.contains(key) || now.saturating_duration_since(attached) >= after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_comes_at_its_own_time() {
        let lag = Lag::none()
            .listed(Duration::from_secs(5))
            .device_number(Duration::from_secs(7))
            .addresses(Duration::from_secs(8))
            .key("network-card", Lag::HELD);
        let attached = Instant::now();
        let seen = |seconds| {
            let now = attached + Duration::from_secs(seconds);
            (
                lag.is_listed(attached, now),
                lag.device_number_is_known(attached, now),
                lag.shows("ipv6s", attached, now),
                lag.shows("network-card", attached, now),
                lag.shows("owner-id", attached, now),
            )
        };
        assert_eq!(seen(4), (false, false, false, false, true));
        assert_eq!(seen(5), (true, false, false, false, true));
        assert_eq!(seen(7), (true, true, false, false, true));
        assert_eq!(seen(8), (true, true, true, false, true));
        assert_eq!(seen(100_000), (true, true, true, false, true));
    }

    #[test]
    fn a_released_key_is_there_at_once() {
        let mut lag = Lag::none().key("network-card", Lag::HELD).listed(Lag::HELD);
        let now = Instant::now();
        lag.release("network-card");
        assert!(lag.shows("network-card", now, now));
        assert!(!lag.is_listed(now, now));
        lag.release("macs/");
        assert!(lag.is_listed(now, now));
    }
}
