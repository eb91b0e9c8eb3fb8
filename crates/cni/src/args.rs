//! `CNI_ARGS`.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// The arguments of one invocation for plugins, `KEY=VALUE;KEY=VALUE`: what `CNI_ARGS` holds.
///
/// All plugins of a chain get the same, so each meets keys that are meant for another. The
/// convention is that an unknown key is an error unless `IgnoreUnknown` is `1` or `true`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CniArgs(Vec<(String, String)>);

/// The key that makes unknown keys no error.
const IGNORE_UNKNOWN: &str = "IgnoreUnknown";

impl CniArgs {
    /// The value of a key; the last where it is given more than once.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().filter(|(name, _)| *name == key).map(|(_, value)| value).last()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a key with its value.
    ///
    /// # Errors
    ///
    /// [`Error::Args`] where the key is empty, or key or value hold what would end them.
    pub fn push(&mut self, key: &str, value: &str) -> Result<(), Error> {
        let refuse = |part: &str, reason| Err(Error::Args { part: part.to_owned(), reason });
        if key.is_empty() {
            return refuse(&format!("={value}"), "a key is empty");
        }
        if key.contains(['=', ';', '\0']) {
            return refuse(key, "a key holds '=', ';' or NUL");
        }
        if value.contains([';', '\0']) {
            return refuse(value, "a value holds ';' or NUL");
        }
        self.0.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Refuses keys other than the given ones, unless `IgnoreUnknown` says otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Args`] with the first unknown key, or an `IgnoreUnknown` that is no truth value.
    pub fn check_known(&self, known: &[&str]) -> Result<(), Error> {
        if self.ignores_unknown()? {
            return Ok(());
        }
        match self.iter().find(|(key, _)| *key != IGNORE_UNKNOWN && !known.contains(key)) {
            None => Ok(()),
            Some((key, _)) => Err(Error::Args {
                part: key.to_owned(),
                reason: "unknown key, and IgnoreUnknown is not set",
            }),
        }
    }

    fn ignores_unknown(&self) -> Result<bool, Error> {
        let value = self.get(IGNORE_UNKNOWN).unwrap_or("0");
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(Error::Args {
                part: value.to_owned(),
                reason: "IgnoreUnknown is none of 1, true, 0, false",
            }),
        }
    }
}

impl FromStr for CniArgs {
    type Err = Error;

    /// Empty parts, such as the one behind a trailing `;`, are no arguments.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut args = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((key, value)) => args.push(key, value)?,
                None => {
                    let reason = "a part is no KEY=VALUE";
                    return Err(Error::Args { part: part.to_owned(), reason });
                }
            }
        }
        Ok(args)
    }
}

impl fmt::Display for CniArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (key, value)) in self.iter().enumerate() {
            let separator = if position == 0 { "" } else { ";" };
            write!(f, "{separator}{key}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> CniArgs {
        text.parse().unwrap()
    }

    #[test]
    fn keys_and_values_in_order_and_a_trailing_semicolon_is_nothing() {
        let args = parse("A=1;B=x=y;C=;A=2;");
        assert_eq!(args.get("A"), Some("2"));
        assert_eq!(args.get("B"), Some("x=y"));
        assert_eq!(args.get("C"), Some(""));
        assert_eq!(args.get("D"), None);
        assert_eq!(args.to_string(), "A=1;B=x=y;C=;A=2");
        assert!(parse("").is_empty() && parse(";").is_empty());
    }

    #[test]
    fn what_is_no_pair_is_an_error_that_shows_it() {
        for (text, part) in [("A=1;nonsense", "nonsense"), ("=v", "=v"), ("A", "A")] {
            let message = text.parse::<CniArgs>().unwrap_err().to_string();
            assert!(message.contains(&format!("{part:?}")), "{message}");
        }
        assert!(CniArgs::default().push("K", "a;IgnoreUnknown=1").is_err());
        assert!(CniArgs::default().push("K=", "v").is_err());
    }

    #[test]
    fn an_unknown_key_is_an_error_unless_it_is_to_be_ignored() {
        assert!(parse("A=1").check_known(&["A"]).is_ok());
        assert!(parse("A=1;B=2").check_known(&["A"]).unwrap_err().to_string().contains("\"B\""));
        for yes in ["1", "true", "True", "TRUE"] {
            assert!(parse(&format!("B=2;IgnoreUnknown={yes}")).check_known(&["A"]).is_ok());
        }
        for no in ["0", "false"] {
            assert!(parse(&format!("IgnoreUnknown={no};B=2")).check_known(&["A"]).is_err());
        }
        assert!(parse("IgnoreUnknown=yes").check_known(&[]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_the_same(text in "[=;a-zé\\n]{0,20}") {
            if let Ok(args) = text.parse::<CniArgs>() {
                prop_assert_eq!(parse(&args.to_string()), args);
            }
        }
    }
}
