//! What policy rules cost a packet, and what it costs to make them.
//!
//! `packets`: nanoseconds a packet on hosts with 0, 100, 1,536 and 8,000 source selectors of each
//! family, by one rule a selector and by what jackfield plans, beside hosts without a selector and
//! hosts with the same addresses and no rule. `apply`: 80 interfaces of 64 addresses configured from
//! nothing, and one address more, beside a floor that sends the same requests in chunks.
//!
//! Contestants have their turns one after another, in one run on one processor.
//!
//! ```text
//! cargo run --release -p jackfield-bench --bin rules
//! cargo run --release -p jackfield-bench --bin rules -- packets --rounds 30
//! ```
//!
//! The exit status says whether everything worked; whether a target was met is printed.

#![forbid(unsafe_code)]

mod applying;
mod arguments;
mod astray;
mod packets;
mod place;
mod site;
#[path = "../../statistics.rs"]
mod statistics;

use std::process::ExitCode;
use std::time::Instant;

use arguments::Arguments;
use jackfield_kernel::Family;
use packets::{Traffic, cost};
use place::{Maker, Place};
use site::{Layout, Site};
use statistics::{interval, median, verdict};

/// Why the bench could not be run to its end.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Interfaces, and addresses of each family on each of them.
const SIZES: [(u32, u32); 3] = [(4, 25), (24, 64), (80, 100)];
/// The cost at the most selectors by the cost at none.
const RATIO: f64 = 1.3;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("rules: {text}\n{}", Arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rules: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    // Sender, host and receiver take turns on one processor, as softirqs do anyway.
    let mut one = rustix::thread::CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &one)?;
    if arguments.packets {
        for layout in [Layout::Own, Layout::Interleaved] {
            measure(layout, arguments)?;
        }
    }
    if arguments.applying {
        applying::measure(arguments.rounds)?;
    }
    Ok(())
}

/// Hosts of one size: who makes their rules, and nanoseconds of each traffic, family and round.
struct Contestant {
    maker: Maker,
    place: Place,
    times: [[Vec<f64>; 2]; Traffic::ALL.len()],
}

impl Contestant {
    fn new(site: Option<Site>, around: Site, maker: Maker) -> Result<Self, Failure> {
        let place = Place::new(site, around, maker)?;
        Ok(Contestant { maker, place, times: Default::default() })
    }
}

fn measure(layout: Layout, arguments: Arguments) -> Result<(), Failure> {
    let began = Instant::now();
    let sites = SIZES.map(|(interfaces, addresses)| Site { layout, interfaces, addresses });
    let sites: Vec<Site> =
        sites.into_iter().filter(|is| is.interfaces * is.addresses <= arguments.most).collect();
    let Some(largest) = sites.last().copied() else { return Err("nothing to measure".into()) };
    let mut all = vec![(0, Contestant::new(None, largest, Maker::Nobody)?)];
    for site in sites {
        for maker in [Maker::Nobody, Maker::Linear, Maker::Jackfield] {
            let contestant = Contestant::new(Some(site), site, maker)?;
            if maker == Maker::Jackfield {
                astray::check(&contestant.place, site)?;
            }
            all.push((site.interfaces * site.addresses, contestant));
        }
    }
    let made = began.elapsed();
    let mut random = fastrand::Rng::with_seed(106);
    for round in 0..arguments.rounds {
        for (traffic, at) in Traffic::ALL.into_iter().zip(0..) {
            for (family, side) in Family::BOTH.into_iter().zip(0..) {
                let count = all.len();
                all.rotate_left(round % count);
                for (_, contestant) in &mut all {
                    let time = cost(&contestant.place, traffic, family, &mut random)?;
                    if let Some(times) = contestant
                        .times
                        .get_mut(at)
                        .and_then(|times: &mut [_; 2]| times.get_mut(side))
                    {
                        times.push(time);
                    }
                }
                all.rotate_right(round % count);
            }
        }
    }
    report(layout, &all)?;
    println!(
        "({} hosts made in {:.0} s, {} rounds in {:.0} s)\n",
        all.len(),
        made.as_secs_f64(),
        arguments.rounds,
        (began.elapsed() - made).as_secs_f64()
    );
    Ok(())
}

fn report(layout: Layout, all: &[(u32, Contestant)]) -> Result<(), Failure> {
    println!("Nanoseconds a packet, {}", layout.name());
    for (count, contestant) in all {
        let [v4, v6] = contestant.place.rules()?;
        if contestant.maker != Maker::Nobody {
            println!("{count:>6} selectors, {:?}: {v4} + {v6} rules", contestant.maker);
        }
    }
    let Some((_, none)) = all.first() else { return Ok(()) };
    println!(
        "{:<20} {:>2} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8} {:>13} {:>8}",
        "traffic",
        "IP",
        "selectors",
        "none",
        "no rule",
        "linear",
        "jackfield",
        "linear",
        "ratio",
        "95 percent",
        "no rule"
    );
    let most = all.iter().map(|(count, _)| *count).max().unwrap_or(0);
    for (traffic, at) in Traffic::ALL.into_iter().zip(0..) {
        for (family, side) in Family::BOTH.into_iter().zip(0..) {
            let times = |contestant: &Contestant| -> Vec<f64> {
                let times = contestant.times.get(at).and_then(|times| times.get(side));
                times.cloned().unwrap_or_default()
            };
            let by = |count: u32, maker: Maker| -> Vec<f64> {
                let is = |(n, it): &&(u32, Contestant)| *n == count && it.maker == maker;
                all.iter().find(is).map(|(_, it)| times(it)).unwrap_or_default()
            };
            let none = times(none);
            let mut counts: Vec<u32> = all.iter().map(|(count, _)| *count).collect();
            counts.dedup();
            for count in counts.into_iter().filter(|count| *count > 0) {
                let ruleless = by(count, Maker::Nobody);
                let linear = by(count, Maker::Linear);
                let ours = by(count, Maker::Jackfield);
                let to_none = ratios(&ours, &none);
                let ratio = median(&to_none);
                let (low, high) = interval(&to_none);
                let verdict = if count == most { verdict(ratio, RATIO) } else { String::new() };
                println!(
                    "{:<20} {:>2} {count:>9} {:>8.0} {:>8.0} {:>9.0} {:>9.0} {:>8.2} {ratio:>8.3} {:>13} {:>8.3}   {verdict}",
                    traffic.name(),
                    family.number(),
                    median(&none),
                    median(&ruleless),
                    median(&linear),
                    median(&ours),
                    median(&ratios(&linear, &none)),
                    format!("{low:.3} {high:.3}"),
                    median(&ratios(&ours, &ruleless)),
                );
            }
        }
    }
    Ok(())
}

/// Of each round.
fn ratios(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}
