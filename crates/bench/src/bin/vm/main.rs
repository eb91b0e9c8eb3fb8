//! How fast and how small the parts of a microVM's network are, side by side with the floor.
//!
//! `tc-redirect-tap` as a runtime runs it, one process a command, in turn with a static C program
//! that makes the same kernel state with the least that can be done (`floor/tap.c`), both in the
//! same namespace on the same interface. After each ADD the kernel's state must be that of the
//! other, and after each DEL as before.
//!
//! `chain` is a VM's whole network, by `jackfield vm` and by a script that runs the same plugins; `many`
//! is both of these while VMs become more and more, up to 1,000.
//!
//! ```text
//! cargo plugins && cargo build --release
//! cargo run --release -p jackfield-bench --bin vm -- --pairs 200
//! cargo run --release -p jackfield-bench --bin vm -- chain
//! cargo run --release -p jackfield-bench --bin vm -- many
//! ```
//!
//! The exit status says whether everything worked; whether a target was met is printed.

#![forbid(unsafe_code)]

mod arguments;
mod chain;
mod place;
mod programs;
#[path = "../../statistics.rs"]
mod statistics;

use std::process::ExitCode;
use std::time::Duration;

use arguments::{Arguments, Subject};
use chain::{Host, Maker};
use place::Place;
use programs::Programs;
use statistics::{interval, median, verdict};

/// Why the bench could not be run to its end.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Of each kind before the first that counts.
const WARM_UP: usize = 10;
/// The plugin's time by the floor's.
const RATIO: f64 = 1.2;
/// MiB, of the executable.
const SIZE: f64 = 1.5;
/// MiB, resident.
const MEMORY: f64 = 2.0;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("vm: {text}\n{}", Arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let programs = Programs::prepare(arguments)?;
    println!("plugin: {}", programs.plugin.display());
    println!("floor: {}, compiled by {}\n", programs.floor.display(), programs.compiler);
    match arguments.subject {
        Subject::Plugin => plugin(&programs, arguments.pairs),
        Subject::Chain => chain(&programs, arguments.pairs),
        Subject::Many => many(&programs, arguments.pairs),
    }
}

/// `jackfield vm up` and `down` beside the script.
fn chain(programs: &Programs, pairs: usize) -> Result<(), Failure> {
    let host = Host::new(&programs.jackfield, &programs.plugin)?;
    let mut times = [const { Vec::new() }; 4];
    for number in 0..pairs + WARM_UP {
        let [first, second] = makers(number);
        let mut turn = [Duration::ZERO; 4];
        for maker in [first, second] {
            let up = host.up(maker, number)?;
            let down = host.down(maker, number)?;
            let [ours_up, theirs_up, ours_down, theirs_down] = &mut turn;
            match maker {
                Maker::Jackfield => (*ours_up, *ours_down) = (up, down),
                Maker::Script => (*theirs_up, *theirs_down) = (up, down),
            }
        }
        if number >= WARM_UP {
            times.iter_mut().zip(turn).for_each(|(times, time)| times.push(milliseconds(time)));
        }
    }
    host.is_empty()?;
    let [ours_up, theirs_up, ours_down, theirs_down] = &times;
    heading("jackfield", "script");
    compare("vm up", ours_up, theirs_up, None);
    compare("vm down", ours_down, theirs_down, None);
    Ok(())
}

/// VMs one after another, all of which stay until the end. With each, the plugin's ADD beside the
/// floor's.
fn many(programs: &Programs, count: usize) -> Result<(), Failure> {
    let host = Host::new(&programs.jackfield, &programs.plugin)?;
    let mut place = Place::new()?;
    for _ in 0..WARM_UP {
        round(&mut place, &programs.plugin)?;
        round(&mut place, &programs.floor)?;
    }
    let (mut ours, mut theirs, mut plugin, mut floor) = (vec![], vec![], vec![], vec![]);
    for number in 0..count {
        for maker in makers(number) {
            let time = milliseconds(host.up(maker, number)?);
            if maker == Maker::Jackfield { ours.push(time) } else { theirs.push(time) }
        }
        for ours in [number % 2 == 0, number % 2 == 1] {
            let program = if ours { &programs.plugin } else { &programs.floor };
            let time = milliseconds(round(&mut place, program)?.add);
            if ours { plugin.push(time) } else { floor.push(time) }
        }
    }
    // Around the tenth, and the last.
    let window = (count / 2).min(20);
    let parts = [("first", 0..window), ("last", count - window..count)];
    heading("ours", "theirs");
    for (name, part) in parts {
        let of = |times: &[f64]| times.get(part.clone()).unwrap_or_default().to_vec();
        let (ours, theirs) = (of(&ours), of(&theirs));
        compare(&format!("{name} {window}: vm up, script"), &ours, &theirs, None);
        let share: Vec<f64> =
            ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect();
        let (low, high) = interval(&share);
        println!("{:<28} {:>10.3} ms ({low:.3} to {high:.3})", "  difference", median(&share));
        compare(&format!("{name} {window}: ADD, floor's"), &of(&plugin), &of(&floor), Some(RATIO));
    }
    for number in 0..count {
        host.down(Maker::Jackfield, number)?;
        host.down(Maker::Script, number)?;
    }
    host.is_empty()
}

/// Who is first, in turn.
fn makers(number: usize) -> [Maker; 2] {
    let [one, other] = [Maker::Jackfield, Maker::Script];
    if number.is_multiple_of(2) { [one, other] } else { [other, one] }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn heading(ours: &str, theirs: &str) {
    let (ours, theirs) = (format!("{ours} ms"), format!("{theirs} ms"));
    println!("{:<28} {ours:>12} {theirs:>10} {:>7} {:>13}", "", "ratio", "95 percent");
}

/// The plugin's commands beside the floor's.
fn plugin(programs: &Programs, pairs: usize) -> Result<(), Failure> {
    let mut place = Place::new()?;
    let mut plugin = Times::default();
    let mut floor = Times::default();
    for number in 0..pairs + WARM_UP {
        let one = |place: &mut Place| round(place, &programs.plugin);
        let other = |place: &mut Place| round(place, &programs.floor);
        let (ours, theirs) = if number % 2 == 0 {
            let ours = one(&mut place)?;
            (ours, other(&mut place)?)
        } else {
            let theirs = other(&mut place)?;
            (one(&mut place)?, theirs)
        };
        if ours.state != theirs.state {
            let (ours, theirs) = (ours.state, theirs.state);
            return Err(format!("different states:\n{ours:#?}\n{theirs:#?}").into());
        }
        if number >= WARM_UP {
            plugin.push(&ours);
            floor.push(&theirs);
        }
    }
    heading("plugin", "floor");
    compare("start and VERSION", &plugin.version, &floor.version, Some(RATIO));
    compare("ADD", &plugin.add, &floor.add, Some(RATIO));
    compare("CHECK", &plugin.check, &floor.check, None);
    compare("DEL", &plugin.del, &floor.del, Some(RATIO));
    let truth = started(programs, pairs)?;
    println!();
    for (what, times) in
        [("VERSION", &plugin.version), ("ADD", &plugin.add), ("CHECK", &plugin.check)]
    {
        let what = format!("{what} by /bin/true's start");
        compare(&what, times, &truth, None);
    }
    println!();
    let mebibytes = std::fs::metadata(&programs.plugin)?.len() as f64 / 1_048_576.0;
    size("executable", mebibytes, SIZE);
    for command in ["VERSION", "ADD", "CHECK", "DEL"] {
        let peak = place.peak(programs, command)? as f64 / 1024.0;
        size(&format!("resident peak, {command}"), peak, MEMORY);
    }
    Ok(())
}

/// What one turn of a program took.
struct Round {
    version: Duration,
    add: Duration,
    check: Duration,
    del: Duration,
    state: Vec<String>,
}

fn round(place: &mut Place, program: &std::path::Path) -> Result<Round, Failure> {
    let before = place.state()?;
    let (version, _) = place.time(program, "VERSION", None)?;
    let (add, result) = place.time(program, "ADD", None)?;
    let state = place.state()?;
    let (check, _) = place.time(program, "CHECK", Some(&result))?;
    let (del, _) = place.time(program, "DEL", Some(&result))?;
    let after = place.state()?;
    if after != before {
        let program = program.display();
        return Err(format!("{program} leaves something:\n{before:#?}\n{after:#?}").into());
    }
    Ok(Round { version, add, check, del, state })
}

/// Milliseconds of each turn.
#[derive(Default)]
struct Times {
    version: Vec<f64>,
    add: Vec<f64>,
    check: Vec<f64>,
    del: Vec<f64>,
}

impl Times {
    fn push(&mut self, round: &Round) {
        self.version.push(milliseconds(round.version));
        self.add.push(milliseconds(round.add));
        self.check.push(milliseconds(round.check));
        self.del.push(milliseconds(round.del));
    }
}

/// How long it takes to start a program that does nothing.
fn started(programs: &Programs, count: usize) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::new();
    for _ in 0..count {
        times.push(programs.start_true()?.as_secs_f64() * 1000.0);
    }
    Ok(times)
}

fn compare(what: &str, ours: &[f64], theirs: &[f64], most: Option<f64>) {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    let ratio = median(&ratios);
    let (low, high) = interval(&ratios);
    let verdict = most.map(|most| verdict(ratio, most)).unwrap_or_default();
    println!(
        "{what:<28} {:>12.3} {:>10.3} {ratio:>7.3} {:>13}   {verdict}",
        median(ours),
        median(theirs),
        format!("{low:.3} {high:.3}"),
    );
}

fn size(what: &str, mebibytes: f64, most: f64) {
    println!("{what:<24} {mebibytes:>10.2} MiB, {}", verdict(mebibytes, most));
}
