//! Session tokens.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// The longest life of a token, in seconds: six hours.
const LONGEST: u64 = 21_600;

/// The tokens given out. One is good for the instance that it was given to.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    held: HashMap<String, Held>,
    random: RandomState,
    given: u64,
}

#[derive(Debug)]
struct Held {
    instance: Option<String>,
    ends: Instant,
}

impl Tokens {
    /// A new token that lives this long.
    pub(super) fn give(&mut self, instance: Option<&str>, life: Duration, now: Instant) -> String {
        self.given += 1;
        let word = |part: u64| {
            let mut hasher = self.random.build_hasher();
            hasher.write_u64(self.given);
            hasher.write_u64(part);
            hasher.finish()
        };
        let token = format!("AQAEA{:016x}{:016x}{:016x}==", word(1), word(2), word(3));
        let instance = instance.map(str::to_owned);
        self.held.insert(token.clone(), Held { instance, ends: now + life });
        token
    }

    /// How long this token is good for yet, or none where it is not.
    pub(super) fn left(
        &self,
        token: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Option<Duration> {
        let held = self.held.get(token).filter(|held| held.instance.as_deref() == instance)?;
        held.ends.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    pub(super) fn expire_all(&mut self) {
        self.held.clear();
    }
}

/// Reads the life asked for: a number of seconds from 1 to 21600.
pub(super) fn life(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_instance_and_its_life() {
        let mut tokens = Tokens::default();
        let now = Instant::now();
        let life = Duration::from_secs(10);
        let token = tokens.give(Some("i-a"), life, now);
        assert_eq!(tokens.left(&token, Some("i-a"), now), Some(life));
        assert_eq!(tokens.left(&token, Some("i-b"), now), None);
        assert_eq!(tokens.left(&token, Some("i-a"), now + life), None);
        assert_eq!(tokens.left("", Some("i-a"), now), None);
        tokens.expire_all();
        assert_eq!(tokens.left(&token, Some("i-a"), now), None);
    }

    #[test]
    fn a_life_is_one_second_to_six_hours() {
        assert_eq!(life("21600"), Some(Duration::from_secs(21_600)));
        assert_eq!(life(" 1 "), Some(Duration::from_secs(1)));
        for text in ["", "0", "21601", "-1", "6h", "1.5"] {
            assert_eq!(life(text), None, "{text}");
        }
    }
}
