//! What can be written on the command line.

use std::path::PathBuf;
use std::time::Duration;

/// What to measure, and how thoroughly.
#[derive(Debug)]
pub(crate) struct Arguments {
    /// Pairs of plugs in each case.
    pub(crate) pairs: usize,
    /// For how long the resident program is watched at rest.
    pub(crate) rest: Duration,
    /// Whether to measure with systemd-udevd too.
    pub(crate) udev: bool,
    /// The program to measure; next to this one where not given.
    pub(crate) jackfield: Option<PathBuf>,
}

impl Arguments {
    pub(crate) const USAGE: &'static str =
        "usage: bench [--quick] [--pairs N] [--rest SECONDS] [--no-udev] [--jackfield PATH]";

    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments =
            Arguments { pairs: 40, rest: Duration::from_secs(60), udev: true, jackfield: None };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => {
                    arguments.pairs = 5;
                    arguments.rest = Duration::from_secs(5);
                }
                "--pairs" => {
                    arguments.pairs = positive(&value()?)?;
                }
                "--rest" => {
                    arguments.rest = Duration::from_secs(positive(&value()?)? as u64);
                }
                "--no-udev" => arguments.udev = false,
                "--jackfield" => arguments.jackfield = Some(value()?.into()),
                other => return Err(format!("{other} is not known")),
            }
        }
        Ok(arguments)
    }
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is no positive number"))
}
