//! One program, run to its end or to its deadline.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use jackfield_kernel::{end_with_parent, keep_standard_streams_alone, reset_oom_score_adj};
use log::{Level, info, log, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Serialize;

use super::events::{Event, Kind};
use super::facts::Facts;
use super::programs::Program;

/// What programs are found in.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a program has to end once it was told to.
const GRACE: Duration = Duration::from_secs(2);
/// How long a file that is being written is waited for.
const BUSY: Duration = Duration::from_secs(1);
/// More of what it says is not logged: lines, and octets of one.
const LINES: usize = 500;
const LINE: usize = 1000;

/// What stands on standard input.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    event: Kind,
    interface: &'a Facts,
    before: Option<&'a Facts>,
}

/// Why a program was not left to end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Deadline,
    /// The one who runs it ends.
    Stop,
}

/// Runs a program, and logs what it says and how it ends. `stop` becomes readable when it is to end
/// at once.
pub(super) fn run(program: &Program, event: &Event, deadline: Duration, stop: BorrowedFd<'_>) {
    let name = program.path.file_name().unwrap_or_default().to_string_lossy();
    let about = format!("hook {name} ({} {})", event.kind.name(), event.interface.called());
    let began = Instant::now();
    let mut child = match start(program, event) {
        Ok(child) => child,
        Err(error) => return warn!("{about} cannot be run: {error}"),
    };
    let ended = attend(&mut child, &about, began + deadline, stop);
    let took = began.elapsed().as_millis();
    match ended {
        Ok((status, None)) if status.success() => info!("{about}: done in {took} ms"),
        Ok((status, None)) => warn!("{about} failed: {} after {took} ms", said(status)),
        Ok((status, Some(Cut::Deadline))) => warn!(
            "{about} did not end within {} s and was made to: {}",
            deadline.as_secs_f64(),
            said(status)
        ),
        Ok((status, Some(Cut::Stop))) => warn!("{about} was made to end: {}", said(status)),
        Err(error) => warn!("{about} cannot be watched, and was killed: {error}"),
    }
}

fn said(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn start(program: &Program, event: &Event) -> io::Result<Child> {
    // By the path that was found to be safe, and as what is in the directory.
    let mut command = Command::new(&program.file);
    command
        .arg0(&program.path)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .envs(environment(event))
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // So that what it starts ends with it.
        .process_group(0);
    keep_standard_streams_alone(&mut command);
    end_with_parent(&mut command);
    reset_oom_score_adj(&mut command);
    let began = Instant::now();
    loop {
        command.stdin(document(event)?);
        match command.spawn() {
            // Somebody writes it at this moment.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && began.elapsed() < BUSY =>
            {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// What a program finds in its environment. What is not known is empty.
fn environment(event: &Event) -> impl Iterator<Item = (String, String)> {
    let is = &event.interface;
    let number = |number: Option<u32>| number.map(|it| it.to_string()).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    [
        ("EVENT", event.kind.name().to_owned()),
        ("INTERFACE", text(&is.name)),
        ("IFINDEX", number(is.ifindex)),
        ("MAC", text(&is.mac)),
        ("INTERFACE_ID", text(&is.interface_id)),
        ("DEVICE_NUMBER", number(is.device_number)),
        ("NETWORK_CARD", number(is.network_card)),
        ("PRIMARY", u8::from(is.primary).to_string()),
        ("TABLE", number(is.table)),
        ("MTU", number(is.mtu)),
        ("ADDRESSES", is.addresses.join(" ")),
        ("PREFIXES", is.prefixes.join(" ")),
    ]
    .into_iter()
    .map(|(name, value)| (format!("JACKFIELD_{name}"), value))
}

/// The same as JSON, in a file that nobody has to write while it is read.
fn document(event: &Event) -> io::Result<Stdio> {
    let Event { kind, interface, before } = event;
    let document = Document { version: 1, event: *kind, interface, before: before.as_ref() };
    let mut file = File::from(rustix::fs::memfd_create("jackfield-event", MemfdFlags::CLOEXEC)?);
    serde_json::to_writer(&mut file, &document)?;
    file.write_all(b"\n")?;
    file.rewind()?;
    Ok(file.into())
}

/// Logs what it says until it ends, and sees to it that it does.
fn attend(
    child: &mut Child,
    about: &str,
    ends: Instant,
    stop: BorrowedFd<'_>,
) -> io::Result<(ExitStatus, Option<Cut>)> {
    let watched = watch(child, about, ends, stop);
    if !matches!(watched, Ok(None)) {
        // What it started and left running ends with it.
        signal(child, Signal::KILL);
    }
    let status = child.wait()?;
    Ok((status, watched?))
}

fn watch(
    child: &mut Child,
    about: &str,
    mut ends: Instant,
    stop: BorrowedFd<'_>,
) -> io::Result<Option<Cut>> {
    let ended = pidfd_open(pid(child)?, PidfdFlags::empty())?;
    let mut streams = [
        Stream::new(child.stdout.take().map(OwnedFd::from), Level::Info)?,
        Stream::new(child.stderr.take().map(OwnedFd::from), Level::Warn)?,
    ];
    let mut cut = None;
    loop {
        let (exited, stopped) = wait(&ended, &streams, cut.is_none().then_some(stop), ends)?;
        for stream in &mut streams {
            stream.read(about)?;
        }
        if exited {
            // What it started may live on, and has nobody to talk to any more.
            streams.iter_mut().for_each(|stream| stream.finish(about));
            return Ok(cut);
        }
        let over = Instant::now() >= ends;
        match cut {
            None if over || stopped => {
                cut = Some(if over { Cut::Deadline } else { Cut::Stop });
                ends = Instant::now() + GRACE;
                signal(child, Signal::TERM);
            }
            Some(_) if over => return Ok(cut),
            _ => {}
        }
    }
}

/// Waits until something is said or ends; whether the program has, and whether all is to.
fn wait(
    ended: &OwnedFd,
    streams: &[Stream],
    stop: Option<BorrowedFd<'_>>,
    ends: Instant,
) -> io::Result<(bool, bool)> {
    let mut watched = vec![PollFd::new(ended, PollFlags::IN)];
    // Of what is watched twice nothing is told twice.
    watched.push(PollFd::from_borrowed_fd(stop.unwrap_or(ended.as_fd()), PollFlags::IN));
    let open = streams.iter().filter_map(|stream| stream.pipe.as_ref());
    watched.extend(open.map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    let left = ends.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut watched, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut ready = watched.iter().map(|fd| !fd.revents().is_empty());
    let [exited, stopped] = std::array::from_fn(|_| ready.next().unwrap_or(false));
    Ok((exited, stopped && stop.is_some()))
}

fn pid(child: &Child) -> io::Result<Pid> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    number.ok_or_else(|| ErrorKind::InvalidInput.into())
}

/// To its whole group, whose leader it is: it is not waited for yet, so that the number is nobody
/// else's.
fn signal(child: &Child, signal: Signal) {
    if let Ok(group) = pid(child) {
        // It may have ended by itself.
        let _ = kill_process_group(group, signal);
    }
}

/// What a program says, line by line.
struct Stream {
    pipe: Option<File>,
    level: Level,
    line: Vec<u8>,
    lines: usize,
}

impl Stream {
    fn new(pipe: Option<OwnedFd>, level: Level) -> io::Result<Self> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Stream { pipe: pipe.map(File::from), level, line: Vec::new(), lines: 0 })
    }

    /// Takes in what is there. One that talks without end does not keep the other from being read.
    fn read(&mut self, about: &str) -> io::Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..64 {
            let Some(pipe) = &mut self.pipe else { break };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    for octet in buffer.get(..count).unwrap_or_default() {
                        match octet {
                            b'\n' => self.tell(about),
                            _ if self.line.len() < LINE => self.line.push(*octet),
                            _ => {}
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn finish(&mut self, about: &str) {
        if !self.line.is_empty() {
            self.tell(about);
        }
    }

    fn tell(&mut self, about: &str) {
        let line = std::mem::take(&mut self.line);
        let text: String = String::from_utf8_lossy(&line)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        self.lines += 1;
        match self.lines {
            ..=LINES => log!(self.level, "{about}: {}", text.trim_end()),
            // Once.
            lines if lines == LINES + 1 => warn!("{about} says more than is logged"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_empty_and_nothing_is_missing() {
        let interface = Facts {
            name: Some("eth1".to_owned()),
            table: Some(10_001),
            addresses: vec!["10.0.2.10/32".to_owned(), "2001:db8:0:2::a/128".to_owned()],
            ..Facts::default()
        };
        let event = Event { kind: Kind::Gone, interface, before: None };
        let given: Vec<String> =
            environment(&event).map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "JACKFIELD_EVENT=gone",
            "JACKFIELD_INTERFACE=eth1",
            "JACKFIELD_IFINDEX=",
            "JACKFIELD_MAC=",
            "JACKFIELD_INTERFACE_ID=",
            "JACKFIELD_DEVICE_NUMBER=",
            "JACKFIELD_NETWORK_CARD=",
            "JACKFIELD_PRIMARY=0",
            "JACKFIELD_TABLE=10001",
            "JACKFIELD_MTU=",
            "JACKFIELD_ADDRESSES=10.0.2.10/32 2001:db8:0:2::a/128",
            "JACKFIELD_PREFIXES=",
        ];
        assert_eq!(given, expected);
    }
}
