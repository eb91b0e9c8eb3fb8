//! Tells other network managers what they are to be told: files, and their own commands.
//!
//! ifup waits for a DHCP server, so all of it is done by a thread; nobody waits for that who has
//! something else to do.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io};

use jackfield_kernel::reset_oom_score_adj;
use jackfield_metadata::MacAddr;
use log::{debug, info, warn};
use rustix::fs::MemfdFlags;

use crate::carry::Work;
use crate::managers::{Managers, find_program, program_path};
use crate::render::{INTERFACES_D, LEASES, Manager};

/// So long a manager that was told something has to do it, before it is told again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells managers, one thing after the other.
#[derive(Default)]
pub(crate) struct Carrier {
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Whose turn it is.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Progress {
    at_work: BTreeSet<MacAddr>,
    told: BTreeMap<MacAddr, Instant>,
    failed: BTreeMap<MacAddr, String>,
}

impl State {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Carrier {
    /// Adds what is going on to what there is on disk.
    pub(crate) fn note(&self, managers: &mut Managers) {
        let mut progress = self.state.progress();
        progress.told.retain(|_, at| at.elapsed() < PATIENCE);
        managers.at_work.clone_from(&progress.at_work);
        managers.failed.clone_from(&progress.failed);
        managers.told = progress.told.keys().copied().collect();
    }

    /// Begins.
    pub(crate) fn start(&self, mut works: Vec<Work>) {
        let mut progress = self.state.progress();
        works.retain(|work| !progress.at_work.contains(&work.mac));
        if works.is_empty() {
            return;
        }
        progress.at_work.extend(works.iter().map(|work| work.mac));
        drop(progress);
        let state = Arc::clone(&self.state);
        let macs: Vec<MacAddr> = works.iter().map(|work| work.mac).collect();
        let thread = std::thread::Builder::new().name("managers".to_owned());
        let started = thread.spawn(move || {
            let turn = state.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let outcomes = tell(&works);
            drop(turn);
            let mut progress = state.progress();
            for (mac, outcome) in outcomes {
                progress.at_work.remove(&mac);
                progress.told.insert(mac, Instant::now());
                match outcome {
                    Ok(()) => {
                        info!("{mac}: its manager was told, and has done it or is about to");
                        progress.failed.remove(&mac)
                    }
                    Err(error) => {
                        warn!("{mac}: {error}");
                        progress.failed.insert(mac, error)
                    }
                };
            }
            state.changed.notify_all();
        });
        if let Err(error) = started {
            let mut progress = self.state.progress();
            for mac in macs {
                progress.at_work.remove(&mac);
                progress.failed.insert(mac, format!("no thread can be started: {error}"));
            }
        }
    }

    /// Waits until all are told, or so long. Returns why one could not be.
    pub(crate) fn wait(&self, patience: Duration) -> Option<String> {
        let end = Instant::now() + patience;
        let mut progress = self.state.progress();
        while !progress.at_work.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some("it has not ended yet".to_owned());
            }
            let waited = self.state.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        progress.failed.values().next().cloned()
    }
}

/// Does all of it: networkd is told once, of everything that changed.
fn tell(works: &[Work]) -> Vec<(MacAddr, Result<(), String>)> {
    let mut outcomes = Vec::new();
    let mut reload = Vec::new();
    for work in works {
        debug!("telling {}: {work:?}", work.manager);
        match work.manager {
            Manager::Ifupdown => outcomes.push((work.mac, ifupdown(work))),
            Manager::Networkd => match put_files(work) {
                Ok(()) => reload.push(work),
                Err(error) => outcomes.push((work.mac, Err(error))),
            },
        }
    }
    if !reload.is_empty() {
        let reloaded = run("networkctl", &["reload"]);
        outcomes.extend(reload.into_iter().map(|work| {
            // Files are gone, and what they made too: where networkd does not run, nobody has to know.
            let lets_go = work.write.is_empty() && work.up.is_none();
            let outcome = match &reloaded {
                Err(error) if lets_go => {
                    warn!("{}: {error}", work.mac);
                    Ok(())
                }
                other => other.clone(),
            };
            (work.mac, outcome)
        }));
    }
    outcomes
}

fn ifupdown(work: &Work) -> Result<(), String> {
    if let Some(name) = work.down.as_deref().filter(|name| Managers::ifup_knows(name)) {
        // Of a device that is gone not every command succeeds.
        run("ifdown", &["--force", "--ignore-errors", name])?;
    }
    put_files(work)?;
    match &work.up {
        Some(name) => run("ifup", &[name]),
        None => Ok(()),
    }
}

fn put_files(work: &Work) -> Result<(), String> {
    for path in &work.remove {
        remove(Path::new(path))?;
        // What the client remembers of an interface that it is not to ask for any more.
        let name = path.strip_prefix(INTERFACES_D).and_then(|name| name.strip_suffix(".cfg"));
        if let Some(name) = name {
            let name = name.trim_start_matches('/');
            remove(Path::new(&format!("{LEASES}{name}.leases")))?;
        }
    }
    for file in &work.write {
        let path = Path::new(&file.path);
        write(path, &file.text).map_err(|error| format!("cannot write {}: {error}", file.path))?;
    }
    Ok(())
}

/// With what was left of writing it.
pub(crate) fn remove(path: &Path) -> Result<(), String> {
    let _ = fs::remove_file(unfinished(path));
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// What a file is called until it is whole. Nobody reads a name that begins with a dot.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = unfinished(path);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_expecting(program, arguments, &[0]).map(|_| ())
}

/// Runs a program to its end, and returns with which of the exit statuses that are right.
pub(crate) fn run_expecting(
    program: &str,
    arguments: &[&str],
    right: &[i32],
) -> Result<i32, String> {
    let said = || format!("{program} {}", arguments.join(" "));
    let path = find_program(program).ok_or_else(|| format!("there is no program '{program}'"))?;
    // Of what goes on behind, nothing may hold a pipe of ours: the DHCP client stays.
    let log = rustix::fs::memfd_create(program, MemfdFlags::CLOEXEC).map(fs::File::from);
    let mut log = log.map_err(|error| format!("cannot run {}: {error}", said()))?;
    let to_log = || log.try_clone().map_or_else(|_| Stdio::null(), Stdio::from);
    let mut command = Command::new(path);
    // What they call is found as they are.
    command.env("PATH", program_path());
    command.args(arguments).stdin(Stdio::null()).stdout(to_log()).stderr(to_log());
    reset_oom_score_adj(&mut command);
    let status = command.status().map_err(|error| format!("cannot run {}: {error}", said()))?;
    let mut text = Vec::new();
    // What it said is for people: without it there is the status.
    let _ = log.rewind().and_then(|()| log.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    debug!("{}: {status}: {text}", said());
    if let Some(code) = status.code().filter(|code| right.contains(code)) {
        return Ok(code);
    }
    let last = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    Err(format!("{} failed ({status}): {}", said(), last.unwrap_or("it says nothing")))
}
