//! What can be written on the command line.

/// What to measure, and how thoroughly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arguments {
    /// Whether to measure packets.
    pub(crate) packets: bool,
    /// Whether to measure how the rules get there.
    pub(crate) applying: bool,
    /// How often each contestant has its turn in each case.
    pub(crate) rounds: usize,
    /// The most selectors: cases with more are left out.
    pub(crate) most: u32,
}

impl Arguments {
    pub(crate) const USAGE: &'static str =
        "usage: rules [packets|apply] [--quick] [--rounds N] [--most SELECTORS]";

    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Arguments { packets: true, applying: true, rounds: 15, most: u32::MAX };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "packets" => arguments.applying = false,
                "apply" => arguments.packets = false,
                "--quick" => arguments.rounds = 3,
                "--rounds" => arguments.rounds = positive(&value()?)? as usize,
                "--most" => arguments.most = positive(&value()?)?,
                other => return Err(format!("{other} is not known")),
            }
        }
        Ok(arguments)
    }
}

fn positive(text: &str) -> Result<u32, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is no positive number"))
}
