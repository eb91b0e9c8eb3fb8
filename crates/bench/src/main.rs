//! How fast and how small jackfield is, side by side with the floor: a C program that does the
//! least that can be done (`floor/floor.c`).
//!
//! Both are resident, each in an instance of the same lab. One cloud interface is plugged into the
//! one and into the other in turn, and the time is taken from its appearance until its last address
//! answers a remote host. After each plug both machines must be in exactly the same state, and
//! after each unplug as they were before it.
//!
//! ```text
//! cargo build --release -p jackfield && cargo run --release -p jackfield-bench
//! ```
//!
//! The exit status says whether everything worked; whether a target was met is printed.

#![forbid(unsafe_code)]

mod arguments;
mod contest;
mod contestant;
mod files;
mod report;
mod rest;
mod scale;
mod state;
mod statistics;

use std::process::ExitCode;

use arguments::Arguments;
use contest::Contest;
use files::Files;
use report::{Target, line, target};

/// Why the bench could not be run to its end.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            eprintln!("bench: {text}\n{}", Arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let files = Files::prepare(arguments.jackfield.as_deref())?;
    line("pairs a case", format!("{} after {} of warming up", arguments.pairs, contest::WARM_UP));
    line("time", "from the answer to the request that makes the interface, until the last of its");
    line("", "addresses has answered a remote host; each case has so many of both families");
    println!();
    report::head();
    let mut settled = None;
    for udev in [false, true].into_iter().filter(|udev| arguments.udev || !udev) {
        for addresses in [1, 50] {
            let mut contest = match Contest::start(&files, addresses, udev) {
                Ok(contest) => contest,
                Err(error) if udev => {
                    println!("{addresses:>2} with udevd: not measured: {error}");
                    continue;
                }
                Err(error) => return Err(error),
            };
            let pairs = contest.run(arguments.pairs)?;
            report::case(addresses, udev, &pairs);
            if !udev {
                settled = Some(contest);
            }
        }
    }
    println!();
    if let Some(contest) = &mut settled {
        rest::measure(contest, arguments.rest)?;
    }
    drop(settled);
    let octets = std::fs::metadata(&files.jackfield)?.len();
    let mebibytes = report::mebibytes(octets);
    let verdict = target(mebibytes, Target::BINARY);
    line("release binary", format!("{mebibytes:.2} MiB; {verdict}"));
    scale::measure()?;
    Ok(())
}
