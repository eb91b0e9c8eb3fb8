//! The table.

use std::fmt::Display;
use std::time::Duration;

use crate::contest::{Measured, Pair};
use crate::statistics::{interval, median, verdict};

/// What is to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target(f64);

impl Target {
    /// jackfield's time by the floor's.
    pub(crate) const RATIO: Target = Target(1.3);
    /// Resident memory, MiB.
    pub(crate) const MEMORY: Target = Target(6.0);
    /// Size of the program, MiB.
    pub(crate) const BINARY: Target = Target(4.0);
}

/// Whether a target was met, in words.
pub(crate) fn target(value: f64, Target(most): Target) -> String {
    verdict(value, most)
}

/// A figure and what it is of.
pub(crate) fn line(what: &str, figure: impl Display) {
    println!("{what:<24} {figure}");
}

pub(crate) fn mebibytes(octets: u64) -> f64 {
    octets as f64 / 1_048_576.0
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The head of the table of cases.
pub(crate) fn head() {
    println!(
        "{:<24} {:>12} {:>10} {:>7} {:>13} {:>11}",
        "addresses", "jackfield ms", "floor ms", "ratio", "95 percent", "requests"
    );
}

/// A case of the table.
pub(crate) fn case(addresses: u32, udev: bool, pairs: &[Pair]) {
    let times = |of: fn(&Pair) -> Measured| -> Vec<f64> {
        pairs.iter().map(|pair| milliseconds(of(pair).time)).collect()
    };
    let requests = |of: fn(&Pair) -> Measured| {
        let counts: Vec<f64> = pairs.iter().map(|pair| of(pair).requests as f64).collect();
        median(&counts)
    };
    let jackfield = times(|pair| pair.jackfield);
    let floor = times(|pair| pair.floor);
    let ratios: Vec<f64> = jackfield.iter().zip(&floor).map(|(ours, floor)| ours / floor).collect();
    let ratio = median(&ratios);
    let (low, high) = interval(&ratios);
    println!(
        "{:<24} {:>12.2} {:>10.2} {:>7.3} {:>13} {:>11}   {}",
        format!("{addresses}{}", if udev { ", with udevd" } else { "" }),
        median(&jackfield),
        median(&floor),
        ratio,
        format!("{low:.3} {high:.3}"),
        format!("{} / {}", requests(|pair| pair.jackfield), requests(|pair| pair.floor)),
        target(ratio, Target::RATIO),
    );
}
