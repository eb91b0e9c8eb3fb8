//! A place in an instance for an engine: processes, mounts and control groups of its own, which all
//! end with it.
//!
//! The machine's files can be read there and not written, so that nothing can be left of an engine.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use jackfield_lab::{Host, Process};

use crate::harness::{PATIENCE, eventually};

/// Where an instance sees the control groups, under its own /run.
const GROUPS: &str = "/run/cgroup";

/// Enters a control group of its own, `$1`, which is then the root of all that is seen, and goes on
/// with `$2` as the first process of new namespaces. A group that has groups of its own in it can
/// hold no process.
const OUTSIDE: &str = r#"
    mkdir -p /run/cgroup
    mountpoint -q /run/cgroup || mount -t cgroup2 cgroup2 /run/cgroup
    mkdir -p "/run/cgroup/$1/init"
    echo 0 >"/run/cgroup/$1/cgroup.procs"
    exec setpriv --pdeathsig KILL unshare --mount --cgroup sh -ec '
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        echo 0 >/sys/fs/cgroup/init/cgroup.procs
        exec unshare --pid --fork --kill-child sh -ec "$1"' sh "$2"
"#;

/// The first process: says its number outside, and looks after processes without a parent.
const INSIDE: &str = r#"
    read -r outside rest </proc/self/stat
    mount -t proc proc /proc
    mount -o remount,bind,ro /
    for directory in /run /tmp /opt /var/cache /var/lib /var/tmp; do
        mount -t tmpfs -o mode=755 tmpfs "$directory"
    done
    cp -a /etc /run/etc
    mount --bind /run/etc /etc
    echo "$outside"
    exec >/dev/null
    sleep infinity &
    while :; do wait; done
"#;

/// The processes of the engine are no children of the first one's group until they say so.
const ENTER: &str = r#"echo 0 >/sys/fs/cgroup/init/cgroup.procs; exec "$@""#;

/// Dropped, everything in it is killed.
pub(crate) struct Enclosure<'a> {
    host: &'a Host,
    process: Process,
    /// The number of its first process.
    first: u32,
    /// Its control group, as the instance sees it.
    group: String,
}

impl<'a> Enclosure<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jackfield-test-{}-{number}", std::process::id());
        let mut command = host.command("sh").unwrap();
        command.args(["-ec", OUTSIDE, "sh", &name, INSIDE]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command).unwrap();
        let mut said = String::new();
        BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut said).unwrap();
        let first = said.trim().parse().unwrap_or_else(|_| {
            let mut why = String::new();
            process.child().stderr.take().unwrap().read_to_string(&mut why).unwrap();
            panic!("no place for an engine: {why}")
        });
        Enclosure { host, process, first, group: format!("{GROUPS}/{name}") }
    }

    /// A command that will run in it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = self.host.command("nsenter").unwrap();
        command.args(["--target", &self.first.to_string(), "--mount", "--pid", "--cgroup"]);
        command.args(["sh", "-ec", ENTER, "sh", program]).stdin(Stdio::null());
        command
    }

    /// Runs a script in it, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        succeeded(self.command("sh").args(["-ec", script]))
    }

    /// Kills everything in it, and looks that nothing is left.
    pub(crate) fn close(mut self) {
        self.kill();
        // Its parent ends once the last process of the namespace has.
        self.process.child().wait().unwrap();
        assert!(!Path::new(&format!("/proc/{}", self.first)).exists());
        let group = &self.group;
        eventually("no process is left", PATIENCE, || {
            let events = format!("{group}/cgroup.events");
            let events = self.host.run(|| std::fs::read_to_string(events)).unwrap().unwrap();
            events.contains("populated 0")
        });
        self.host.run(|| remove_groups(Path::new(group))).unwrap().unwrap();
        assert!(!self.host.run(|| Path::new(group).exists()).unwrap());
    }

    fn kill(&self) {
        let _ = Command::new("kill").args(["-KILL", &self.first.to_string()]).output();
    }
}

impl Drop for Enclosure<'_> {
    fn drop(&mut self) {
        if matches!(self.process.child().try_wait(), Ok(Some(_))) {
            return;
        }
        self.kill();
        let _ = self.process.child().wait();
        let _ = self.host.run(|| remove_groups(Path::new(&self.group)));
    }
}

/// Control groups are directories that are removed from the leaves on, each by itself: their files
/// go along.
fn remove_groups(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

/// Runs a command, which must succeed; what it printed.
#[track_caller]
pub(crate) fn succeeded(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {errors}");
    String::from_utf8(stdout).unwrap()
}
