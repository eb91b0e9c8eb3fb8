//! One plugin, run to its end or to the deadline.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::PluginFailure;
use crate::plugin::PluginError;

/// How much a plugin may print: far more than any result has.
const MOST_OUTPUT: usize = 1 << 20;

/// How much of the end of standard error is kept.
const KEPT_STDERR: usize = 4096;

/// How much of the beginning of standard output is shown where it cannot be read.
const SHOWN_STDOUT: usize = 200;

/// How long an executable that is being written is waited for.
const BUSY: Duration = Duration::from_secs(5);

/// As good as none, where the clock can still say when it ends.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What one start of a plugin needs.
pub(super) struct Execution<'a> {
    pub(super) executable: &'a Path,
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) stdin: Vec<u8>,
    pub(super) deadline: Duration,
    pub(super) prepare: fn(&mut Command),
}

impl Execution<'_> {
    /// Runs it, and returns its standard output.
    pub(super) fn run(&self) -> Result<Vec<u8>, PluginFailure> {
        let ends = Instant::now() + self.deadline.min(LONGEST);
        let mut running = Running::start(self)?;
        let exchanged = running.exchange(&self.stdin, ends);
        if !matches!(exchanged, Ok(Ended::Exited)) {
            running.kill();
        }
        let status = running.child.wait().map_err(|error| system("wait for it", &error))?;
        let Running { stdout, stderr, .. } = running;
        let stderr = stderr.text();
        match exchanged? {
            Ended::Deadline => Err(PluginFailure::Deadline { after: self.deadline, stderr }),
            Ended::TooMuch => {
                let reason = format!("it is over {MOST_OUTPUT} bytes");
                Err(PluginFailure::Output { reason, stdout: shown(&stdout) })
            }
            Ended::Exited if status.success() => Ok(stdout),
            Ended::Exited => Err(failure(status, &stdout, stderr)),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.executable);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // So that what it starts is killed with it.
            .process_group(0);
        (self.prepare)(&mut command);
        command
    }
}

/// The error that a plugin reported, or that it reported none.
fn failure(status: ExitStatus, stdout: &[u8], stderr: String) -> PluginFailure {
    match serde_json::from_slice::<PluginError>(stdout) {
        Ok(error) if error != PluginError::default() => PluginFailure::Reported { error, stderr },
        _ => {
            let status = match status.signal() {
                Some(signal) => format!("ended by signal {signal}"),
                None => format!("exit status {}", status.code().unwrap_or_default()),
            };
            PluginFailure::Unexplained { status, stdout: shown(stdout), stderr }
        }
    }
}

/// The beginning of what a plugin printed.
pub(super) fn shown(stdout: &[u8]) -> String {
    let text = String::from_utf8_lossy(stdout.get(..SHOWN_STDOUT).unwrap_or(stdout));
    text.trim().to_owned()
}

fn system(attempt: &'static str, error: &io::Error) -> PluginFailure {
    PluginFailure::System { attempt, reason: error.to_string() }
}

/// How an exchange with a plugin ended.
enum Ended {
    Exited,
    Deadline,
    TooMuch,
}

/// A plugin that was started.
struct Running {
    child: Child,
    /// Becomes readable when the plugin has ended. What it started may live on and hold its output
    /// open; that is not waited for.
    ended: OwnedFd,
    stdout: Vec<u8>,
    stderr: Tail,
}

impl Running {
    fn start(execution: &Execution<'_>) -> Result<Self, PluginFailure> {
        let began = Instant::now();
        let mut command = execution.command();
        let mut child = loop {
            match command.spawn() {
                // Somebody installs it at this moment.
                Err(error)
                    if error.kind() == ErrorKind::ExecutableFileBusy
                        && began.elapsed() < BUSY.min(execution.deadline) =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => {
                    break other.map_err(|error| PluginFailure::NotStarted {
                        reason: error.to_string(),
                    })?;
                }
            }
        };
        let ended = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default())
            .ok_or(ErrorKind::InvalidInput.into())
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        match ended {
            Ok(ended) => Ok(Self { child, ended, stdout: Vec::new(), stderr: Tail(Vec::new()) }),
            Err(error) => {
                kill_group(&child);
                let _ = child.wait();
                Err(system("watch it", &error))
            }
        }
    }

    /// Writes its input and reads its output until it ends.
    fn exchange(&mut self, input: &[u8], ends: Instant) -> Result<Ended, PluginFailure> {
        let failed = |error: io::Error| system("talk to it", &error);
        let mut pipes = Pipes::of(&mut self.child).map_err(failed)?;
        let mut input = input;
        loop {
            // Looked at before the pipes are: what it wrote before it ended is then all there.
            let exited = pipes.wait(&self.ended, ends).map_err(failed)?;
            pipes.write(&mut input).map_err(failed)?;
            pipes.read(&mut self.stdout, &mut self.stderr).map_err(failed)?;
            if self.stdout.len() > MOST_OUTPUT {
                return Ok(Ended::TooMuch);
            }
            if exited {
                return Ok(Ended::Exited);
            }
            if Instant::now() >= ends {
                return Ok(Ended::Deadline);
            }
        }
    }

    fn kill(&self) {
        kill_group(&self.child);
    }
}

/// The child is its group's leader and not yet waited for, so that its number is nobody else's.
fn kill_group(child: &Child) {
    if let Ok(number) = i32::try_from(child.id())
        && let Some(group) = Pid::from_raw(number)
    {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Our ends of a plugin's standard streams, none of which is ever waited for alone.
struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Pipes {
    fn of(child: &mut Child) -> io::Result<Self> {
        let pipes = Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        for pipe in [
            pipes.stdin.as_ref().map(AsFd::as_fd),
            pipes.stdout.as_ref().map(AsFd::as_fd),
            pipes.stderr.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(pipes)
    }

    /// Waits until something can be done, or for the deadline; whether the plugin has ended.
    fn wait(&self, ended: &OwnedFd, ends: Instant) -> io::Result<bool> {
        let mut watched = vec![PollFd::new(ended, PollFlags::IN)];
        watched.extend(self.stdin.as_ref().map(|it| PollFd::new(it, PollFlags::OUT)));
        watched.extend(self.stdout.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        watched.extend(self.stderr.as_ref().map(|it| PollFd::new(it, PollFlags::IN)));
        let left = ends.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut watched, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(watched.first().is_some_and(|it| !it.revents().is_empty()))
    }

    fn write(&mut self, input: &mut &[u8]) -> io::Result<()> {
        while let Some(stdin) = &mut self.stdin {
            if input.is_empty() {
                self.stdin = None;
                break;
            }
            match stdin.write(input) {
                Ok(written) => *input = input.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It does not want to read all; what it says counts.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => self.stdin = None,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self, stdout: &mut Vec<u8>, stderr: &mut Tail) -> io::Result<()> {
        drain(&mut self.stdout, |bytes| {
            stdout.extend_from_slice(bytes);
            stdout.len() <= MOST_OUTPUT
        })?;
        drain(&mut self.stderr, |bytes| {
            stderr.push(bytes);
            true
        })
    }
}

/// Reads what is there, and closes the pipe at its end. `take` says whether more is wanted now.
fn drain(pipe: &mut Option<impl Read>, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = [0; 8192];
    // More than the largest pipe holds; one that is filled without end does not hold up the rest.
    for _ in 0..256 {
        let Some(open) = pipe else { break };
        match open.read(&mut buffer) {
            Ok(0) => *pipe = None,
            Ok(count) => {
                if !take(buffer.get(..count).unwrap_or_default()) {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The end of a text that may be long.
struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(KEPT_STDERR);
        self.0.drain(..surplus);
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).trim().to_owned()
    }
}
