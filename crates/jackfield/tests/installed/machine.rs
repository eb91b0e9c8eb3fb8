//! A machine with Debian on its disk and systemd as its first process: an instance of the lab, in
//! processes, mounts, control groups and names of its own.
//!
//! What ends with the test is killed by the kernel.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use jackfield_lab::{Instance, Process};

use crate::disk::{Disk, start};
use crate::harness::{PATIENCE, Stage, eventually};

/// How long a machine may take to boot or to shut down while others use this one.
const BOOT: Duration = Duration::from_secs(60);

/// Gives the holder of the disk the control group `$1`, which will be the machine's. Those of tests that were
/// killed, whose processes are their numbers, go if they are empty: only then is a directory of them removed.
const GROUP: &str = r#"
    mkdir /run/cgroup
    mount -t cgroup2 cgroup2 /run/cgroup
    for left in /run/cgroup/jackfield-installed-*; do
        test=${left#*-installed-}
        [ -e "/proc/${test%-*}" ] || find "$left" -depth -type d -exec rmdir {} + 2>/dev/null || :
    done
    mkdir "/run/cgroup/$1"
"#;

/// Starts `$2` as the first process of the machine, in the control group `$1`, which is the root of
/// those that it sees.
const POWER: &str = r#"
    exec setpriv --pdeathsig KILL unshare --mount --uts --ipc --pid --fork --kill-child \
        sh -ec 'echo 0 >"/run/cgroup/$1/cgroup.procs"; exec unshare --cgroup sh -ec "$2"' sh "$1" "$2"
"#;

/// The first process: says its number outside, and becomes init on the disk. Settings can be written
/// for the network alone: all others are this machine's too. So are its devices, its clock and its
/// modules.
const BOOTED: &str = r#"
    read -r outside rest </proc/self/stat
    cd /run/root
    mount -t proc -o nosuid,nodev,noexec proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount --bind proc/sys/net proc/sys/net
    mount -o remount,bind,rw proc/sys/net
    [ ! -e proc/sysrq-trigger ] || mount --bind /dev/null proc/sysrq-trigger
    mount -t sysfs -o nosuid,nodev,noexec sysfs sys
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    mknod -m 666 dev/null c 1 3
    mknod -m 666 dev/zero c 1 5
    mknod -m 666 dev/full c 1 7
    mknod -m 666 dev/random c 1 8
    mknod -m 666 dev/urandom c 1 9
    mknod -m 666 dev/tty c 5 0
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    mount -t tmpfs -o mode=755 tmpfs run
    # Where this is missing when it starts, systemd takes itself for a guest of a host that has udevd.
    mkdir run/udev
    >run/udev/control
    echo "$outside"
    exec </dev/null >/dev/null 2>&1
    pivot_root . mnt
    umount -l /mnt
    exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio \
        env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
"#;

/// udevd learns of network devices and of no others, which are this machine's.
const COLDPLUG: &str = "[Service]\nExecStart=\n\
                        ExecStart=udevadm trigger --action=add --subsystem-match=net\n";

/// Interfaces are links of the lab here, which nobody takes for the cloud's unless told to.
const DEVICES: &str = r#"SUBSYSTEM=="net", KERNEL=="eth*", ENV{JACKFIELD_PLUG}="1""#;

/// A machine. Dropped, everything of it is killed and gone.
pub(crate) struct Machine {
    /// While it is on.
    running: Option<Running>,
    disk: Disk,
    group: String,
    pub(crate) stage: Stage,
}

struct Running {
    /// What started the first process, and ends with it.
    process: Process,
    first: u32,
}

impl Machine {
    /// A machine with its primary interface, switched off. `None`, which is said, where there is no
    /// Debian to put on its disk.
    pub(crate) fn new() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let disk = Disk::new("root")?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let group = format!("jackfield-installed-{}-{number}", std::process::id());
        disk.run(GROUP, &[&group]).unwrap();
        let mut machine = Machine { running: None, disk, group, stage: Stage::new() };
        machine.stage.a.power_cycle().unwrap();
        machine.disk.prepare(machine.a());
        let trigger = "/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf";
        machine.disk.write(trigger, COLDPLUG);
        machine.disk.write("/etc/udev/rules.d/80-lab.rules", &format!("{DEVICES}\n"));
        Some(machine)
    }

    pub(crate) fn a(&self) -> &Instance {
        &self.stage.a
    }

    /// Its disk, also while it is off.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Its control group, as this machine sees it.
    fn group_directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/run/cgroup/{}", self.disk.holder(), self.group))
    }

    /// What its control group is called.
    pub(crate) fn group(&self) -> &str {
        &self.group
    }

    /// The processes that hold its disk, and that are its first, by their numbers outside.
    pub(crate) fn holder_and_first(&self) -> [u32; 2] {
        [self.disk.holder(), self.running.as_ref().expect("it is on").first]
    }

    /// Switches it on.
    pub(crate) fn power_on(&mut self) {
        assert!(self.running.is_none());
        let mut command = self.a().command("nsenter").unwrap();
        let holder = self.disk.holder().to_string();
        command.args(["--target", &holder, "--mount", "sh", "-ec", POWER, "sh"]);
        command.args([&self.group, BOOTED]);
        let (process, said) = start(&mut command);
        self.running = Some(Running { process, first: said.parse().unwrap() });
    }

    /// Switches it on, and waits until everything that it starts has started.
    #[track_caller]
    pub(crate) fn boot(&mut self) -> Duration {
        let start = Instant::now();
        self.power_on();
        self.wait_until_booted();
        start.elapsed()
    }

    /// Waits until nothing is left to be started, and nothing has failed.
    #[track_caller]
    pub(crate) fn wait_until_booted(&self) {
        let state = self.wait_until_settled();
        let failed =
            || self.shell("systemctl --failed --no-legend --plain; journalctl -b -p warning");
        assert_eq!(state, "running", "{}", failed());
    }

    /// Waits until nothing is left to be started: `running`, or `degraded` where something failed.
    #[track_caller]
    pub(crate) fn wait_until_settled(&self) -> String {
        let mut state = String::new();
        eventually("the machine has booted", BOOT, || {
            let output = self.command("systemctl").arg("is-system-running").output().unwrap();
            state = String::from_utf8(output.stdout).unwrap().trim().to_owned();
            ["running", "degraded"].contains(&state.as_str())
        });
        eventually("the primary's addresses are in use", PATIENCE, || {
            self.shell("ip -oneline address show tentative").is_empty()
        });
        state
    }

    /// Waits until it has switched itself off, as it does to reboot too.
    #[track_caller]
    pub(crate) fn wait_until_off(&mut self) {
        let mut running = self.running.take().unwrap();
        eventually("the machine is off", BOOT, || {
            running.process.child().try_wait().unwrap().is_some()
        });
    }

    /// Ends it as `systemctl reboot` does, and boots it again where its network is what it was.
    #[track_caller]
    pub(crate) fn reboot(&mut self) -> Duration {
        let start = Instant::now();
        self.shut_down();
        self.boot();
        start.elapsed()
    }

    /// Shuts it down in order, and keeps what its kernel knows of the network.
    #[track_caller]
    pub(crate) fn shut_down(&mut self) {
        self.shell("systemctl reboot");
        self.wait_until_off();
    }

    /// A command that will run in it. One that does not end is killed: nobody would see what is stuck.
    pub(crate) fn command(&self, program: &str) -> Command {
        let [_, first] = self.holder_and_first().map(|pid| pid.to_string());
        let mut command = Command::new("nsenter");
        command.args(["--target", &first, "--mount", "--uts", "--ipc", "--net", "--pid"]);
        command.args(["--cgroup", "timeout", "--signal=KILL", "120", program]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a script in it, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn shell(&self, script: &str) -> String {
        let Output { status, stdout, stderr } =
            self.command("sh").args(["-ec", script]).output().unwrap();
        let errors = String::from_utf8_lossy(&stderr);
        let said = String::from_utf8_lossy(&stdout);
        assert!(status.success(), "{script}: {status}: {errors}{said}");
        String::from_utf8(stdout).unwrap().trim_end().to_owned()
    }

    /// Switches it off and looks that nothing is left of it.
    pub(crate) fn close(mut self) {
        self.kill();
        let group = self.group_directory();
        eventually("no process is left", PATIENCE, || {
            let events = std::fs::read_to_string(group.join("cgroup.events")).unwrap();
            events.contains("populated 0")
        });
        remove_groups(&group).unwrap();
        assert!(!group.exists());
    }

    /// As a power cut does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = Command::new("kill").args(["-KILL", &running.first.to_string()]).output();
            // Its parent ends once the last process of the namespace has.
            let _ = running.process.child().wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        // The last of its processes may still be on their way out.
        let (group, end) = (self.group_directory(), Instant::now() + PATIENCE);
        while remove_groups(&group).is_err() && group.exists() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
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
