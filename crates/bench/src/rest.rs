//! The agent when nothing happens.

use std::time::{Duration, Instant};

use crate::Failure;
use crate::contest::Contest;
use crate::report::{Target, line, target};

/// After so long a plugged interface is looked at by refreshes alone.
const FOLLOWED_UP: Duration = Duration::from_secs(20);
/// Requests that are farther apart belong to different rounds.
const ROUND: Duration = Duration::from_secs(3);

/// Watches jackfield with its interface plugged, for so long.
pub(crate) fn measure(contest: &mut Contest, watched: Duration) -> Result<(), Failure> {
    let pid = contest.jackfield.pid;
    let (resident, proportional) = memory(pid)?;
    line("memory after the plugs", format!("{resident:.2} MiB resident, {proportional:.2} Pss"));
    contest.leave_plugged()?;
    // A short look is not worth a long wait.
    std::thread::sleep(FOLLOWED_UP.min(watched));
    let mark = contest.lab.cloud().request_count();
    let (before, began) = (switches(pid)?, Instant::now());
    std::thread::sleep(watched);
    let (after, elapsed) = (switches(pid)?, began.elapsed());
    let (resident, proportional) = memory(pid)?;
    line(
        &format!("memory at rest, {} s", watched.as_secs()),
        format!(
            "{resident:.2} MiB resident, {proportional:.2} Pss; {}",
            target(resident, Target::MEMORY)
        ),
    );
    let wakes = after.saturating_sub(before) as f64 / elapsed.as_secs_f64() * 60.0;
    line("wake-ups a minute", format!("{wakes:.0} (of the threads that stay)"));
    let instance = contest.jackfield.instance.id().to_owned();
    let requests = contest.lab.cloud().requests_since(mark);
    let mut rounds: Vec<(Instant, usize)> = Vec::new();
    for request in requests.iter().filter(|r| r.instance.as_ref() == Some(&instance)) {
        match rounds.last_mut() {
            Some((last, count)) if request.at.saturating_duration_since(*last) < ROUND => {
                *last = request.at;
                *count += 1;
            }
            _ => rounds.push((request.at, 1)),
        }
    }
    let sizes: Vec<String> = rounds.iter().map(|(_, count)| count.to_string()).collect();
    let sizes = if sizes.is_empty() { "none seen".to_owned() } else { sizes.join(", ") };
    line("requests a refresh", format!("{sizes} (two interfaces)"));
    let drift = contest.drift()?;
    if !drift.is_empty() {
        return Err(format!("the state changed at rest:\n{drift}").into());
    }
    Ok(())
}

/// Resident memory, and the part of it that is the process's own share, MiB.
fn memory(pid: u32) -> Result<(f64, f64), Failure> {
    let resident = field(&format!("/proc/{pid}/status"), "VmRSS:")?;
    let proportional = field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
    Ok((resident as f64 / 1024.0, proportional as f64 / 1024.0))
}

/// How often the threads that there are have gone to sleep so far.
fn switches(pid: u32) -> Result<u64, Failure> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = task?.path().join("status");
        // A thread that has just ended is none of those that stay.
        sum += field(&status.to_string_lossy(), "voluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(sum)
}

fn field(file: &str, name: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    Ok(value.ok_or_else(|| format!("{file} has no {name}"))?.parse()?)
}
