//! `jackfield run` in an instance of the demo: this same program, as its users start it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use jackfield_lab::{Instance, Process};
use rustix::process::{Pid, Signal, kill_process};

/// The demo's interfaces are veth ends.
const CONFIG: &[u8] = b"[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n\
    [hooks]\ndirectory = \"/nonexistent\"\n";
/// This program, also where its file was moved or replaced meanwhile.
const SELF: &str = "/proc/self/exe";
/// The configuration comes by standard input: there is no file to remove.
const STANDARD_INPUT: &str = "/proc/self/fd/0";

/// A running agent. It is killed when this is dropped, and when the demo ends.
pub(super) struct Agent {
    name: String,
    process: Process,
    log: Receiver<String>,
}

impl Agent {
    /// Starts one in an instance, and returns when it listens to what happens there.
    pub(super) fn start(instance: &Instance, deadline: Instant) -> Result<Self, String> {
        let name = instance.name().to_owned();
        let text = |error: std::io::Error| format!("the agent on {name}: {error}");
        let mut command = instance.command(SELF).map_err(|error| error.to_string())?;
        command
            .arg0("jackfield")
            .args(["--config", STANDARD_INPUT, "run"])
            .env_remove("JACKFIELD_METADATA")
            // It is not the service manager's.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        jackfield_kernel::end_with_parent(&mut command);
        let mut process = Process::start(&mut command).map_err(|error| error.to_string())?;
        if let Some(mut input) = process.child().stdin.take() {
            input.write_all(CONFIG).map_err(text)?;
        }
        let (sender, log) = channel();
        if let Some(messages) = process.child().stderr.take() {
            std::thread::Builder::new()
                .name("agent-log".to_owned())
                .spawn(move || {
                    let lines = BufReader::new(messages).lines().map_while(Result::ok);
                    // Ends with the agent, or with the demo.
                    let _ = lines.map(|line| sender.send(line)).all(|sent| sent.is_ok());
                })
                .map_err(text)?;
        }
        let agent = Agent { name, process, log };
        agent.wait_until_started(deadline)?;
        Ok(agent)
    }

    fn wait_until_started(&self, deadline: Instant) -> Result<(), String> {
        let mut last = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.log.recv_timeout(left) {
                Ok(line) if line.ends_with(": started") => return Ok(()),
                Ok(line) => last = line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the agent on {} does not start: {last}", self.name));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("the agent on {} ended: {last}", self.name));
                }
            }
        }
    }

    /// Asks it to stop, as a service manager does, and waits until it has.
    pub(super) fn stop(mut self) -> Result<(), String> {
        let name = &self.name;
        let child = self.process.child();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| format!("the agent on {name} has no process ID"))?;
        kill_process(pid, Signal::TERM).map_err(|e| format!("stop the agent on {name}: {e}"))?;
        let ended = child.wait().map_err(|e| format!("wait for the agent on {name}: {e}"))?;
        if ended.success() {
            Ok(())
        } else {
            Err(format!("the agent on {name} ended with {ended}"))
        }
    }

    /// The last thing that it complained of since it was asked last.
    pub(super) fn complaint(&self) -> Option<String> {
        let complaints = ["warning", "error"];
        let complains = |line: &String| complaints.iter().any(|word| line.contains(word));
        self.log.try_iter().filter(complains).last()
    }
}
