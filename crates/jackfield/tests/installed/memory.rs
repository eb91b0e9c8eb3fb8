//! A process that gets no more memory.

use std::process::{Command, Output};

use crate::harness::not_tested;
use crate::machine::Machine;

/// A control group for memory. Dropped, it is gone, with whoever is in it.
pub(crate) struct Memory<'a> {
    machine: &'a Machine,
    group: String,
}

impl Machine {
    /// A control group for memory, of version 1; `None`, which is said, where this machine has none. (It
    /// has one version or the other. With version 2 a unit's `MemoryMax` does it, which is tested in
    /// QEMU.)
    pub(crate) fn memory(&self) -> Option<Memory<'_>> {
        let group = format!("/run/memory/{}", self.group());
        let memory = Memory { machine: self, group };
        let mount = "mkdir /run/memory; mount -t cgroup -o memory cgroup /run/memory; mkdir \"$1\"";
        let Err(why) = memory.run(mount, &[]) else { return Some(memory) };
        not_tested(format!("an agent that is out of memory: no group to be out of it in: {why}"));
        None
    }
}

impl Memory<'_> {
    /// Runs a script that sees this group, `$1`, and the machine's processes by their numbers there.
    fn run(&self, script: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        let [holder, first] = self.machine.holder_and_first();
        command.arg(format!("--mount=/proc/{holder}/ns/mnt"));
        command.arg(format!("--pid=/proc/{first}/ns/pid"));
        command.args(["sh", "-ec", script, "sh", &self.group]).args(arguments);
        let Output { status, stdout, stderr } = command.output().unwrap();
        if status.success() {
            Ok(String::from_utf8(stdout).unwrap())
        } else {
            Err(String::from_utf8_lossy(&stderr).trim().to_owned())
        }
    }

    /// From now on this process of the machine gets none, and whoever needs some is killed.
    #[track_caller]
    pub(crate) fn let_have_none(&self, pid: u32) {
        let script = r#"echo "$2" >"$1/cgroup.procs"; echo 0 >"$1/memory.limit_in_bytes""#;
        self.run(script, &[&pid.to_string()]).unwrap();
    }

    /// How many were killed for it.
    #[track_caller]
    pub(crate) fn killed(&self) -> u32 {
        let control = self.run(r#"cat "$1/memory.oom_control""#, &[]).unwrap();
        let count = control.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        count.parse().unwrap()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        let _ = self.run(r#"xargs -r kill -KILL <"$1/cgroup.procs"; rmdir "$1""#, &[]);
    }
}
