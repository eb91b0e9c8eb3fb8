//! A process that gets no more memory.

use std::process::{Command, Output};

use crate::harness::{PATIENCE, eventually, not_tested};
use crate::machine::Machine;

/// Where the machine sees the control groups of its services: what happens in one counts there too, and stays
/// when that is gone.
const SERVICES: &str = "/sys/fs/cgroup/system.slice";

/// What the agent's memory is limited by. Dropped, it has as much as it wants.
pub(crate) struct Memory<'a> {
    machine: &'a Machine,
    by: By,
}

enum By {
    /// Control groups of version 2: a setting of the unit.
    Unit,
    /// Of version 1, of which systemd makes no use: a group of its own, which goes with whoever is in it.
    Group(String),
}

impl Machine {
    /// A limit for the agent's memory; `None`, which is said, where the kernel knows none here. (It has
    /// version 1 or version 2 of control groups for memory.)
    pub(crate) fn memory(&self) -> Option<Memory<'_>> {
        let has_version_2 = format!("grep -qw memory {SERVICES}/cgroup.controllers");
        if self.command("sh").args(["-c", &has_version_2]).output().unwrap().status.success() {
            return Some(Memory { machine: self, by: By::Unit });
        }
        let group = format!("/run/memory/{}", self.group());
        let mount = "mkdir /run/memory; mount -t cgroup -o memory cgroup /run/memory; mkdir \"$1\"";
        let made = run(self, mount, &[&group]);
        let memory = Memory { machine: self, by: By::Group(group) };
        let Err(why) = made else { return Some(memory) };
        not_tested(format!("an agent that is out of memory: no group to be out of it in: {why}"));
        None
    }
}

impl Memory<'_> {
    /// From now on the agent, which is this process of the machine, gets none, and is killed when it needs some.
    #[track_caller]
    pub(crate) fn let_have_none(&self, pid: u32) {
        match &self.by {
            By::Unit => self.limit("16K"),
            By::Group(group) => {
                // In this order: a group that is over its limit already refuses the limit.
                let script = r#"echo 0 >"$1/memory.limit_in_bytes"; echo "$2" >"$1/cgroup.procs""#;
                run(self.machine, script, &[group, &pid.to_string()]).unwrap();
            }
        }
    }

    /// Waits until the kernel has killed it for that; the next one may have what it needs.
    #[track_caller]
    pub(crate) fn wait_until_killed(&self) {
        eventually("it was killed for its memory", PATIENCE, || self.killed() > 0);
        match &self.by {
            By::Unit => self.limit("infinity"),
            // Only the one was in it.
            By::Group(_) => assert_eq!(self.killed(), 1),
        }
    }

    fn limit(&self, limit: &str) {
        let set = format!("systemctl set-property --runtime jackfield MemoryMax={limit}");
        self.machine.shell(&set);
    }

    /// How many were.
    fn killed(&self) -> u32 {
        let counts = match &self.by {
            By::Unit => self.machine.shell(&format!("cat {SERVICES}/memory.events")),
            By::Group(group) => {
                run(self.machine, r#"cat "$1/memory.oom_control""#, &[group]).unwrap()
            }
        };
        let count = counts.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        count.parse().unwrap()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        if let By::Group(group) = &self.by {
            let end = r#"xargs -r kill -KILL <"$1/cgroup.procs"; rmdir "$1""#;
            let _ = run(self.machine, end, &[group]);
        }
    }
}

/// Runs a script that sees groups of version 1, and the machine's processes by their numbers there.
fn run(machine: &Machine, script: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("nsenter");
    let [holder, first] = machine.holder_and_first();
    command.arg(format!("--mount=/proc/{holder}/ns/mnt"));
    command.arg(format!("--pid=/proc/{first}/ns/pid"));
    command.args(["sh", "-ec", script, "sh"]).args(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    if status.success() {
        Ok(String::from_utf8(stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&stderr).trim().to_owned())
    }
}
