//! Killed at any moment: a later `down` or `gc` ends clean, and addresses are released.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::machine::{JACKFIELD, Machine, State};

/// By which the outside is changed: what happens between two of them nobody sees. Each is tried in
/// every run of the tests, all others in the long ones.
const TELLING: &[&str] =
    &["linkat", "mount", "rename", "umount2", "unlink", "sendto", "sendmsg", "flock", "execve"];
/// Whatever the command calls.
const ALL: &[&str] = &[];

const SIGKILL: i32 = 9;

/// Which processes are killed: the program's first thread, or any, plugins included.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Program,
    Anybody,
}

fn strace(machine: &Machine, whom: Whom, arguments: &[&str], vm: &[&str]) -> std::process::Output {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "strace is missing, by which these tests kill at a chosen system call: install Debian's \
         package strace, as .ci/run does"
    );
    let mut strace = machine.command("strace");
    if let Whom::Anybody = whom {
        strace.arg("-f");
    }
    strace.args(arguments).args([JACKFIELD, "vm"]).args(vm).output().unwrap()
}

/// The names of the system calls that a command makes.
fn system_calls(machine: &Machine, whom: Whom, vm: &[&str]) -> BTreeSet<String> {
    let output = strace(machine, whom, &["-qq", "-o", "/run/trace"], vm);
    assert!(output.status.success(), "{vm:?}: {output:?}");
    let trace = machine.run(|| {
        let trace = std::fs::read("/run/trace").unwrap();
        std::fs::remove_file("/run/trace").unwrap();
        String::from_utf8_lossy(&trace).into_owned()
    });
    let name = |line: &str| {
        // "123 name(arguments) = result", the number only with all processes.
        let line = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        Some(line.split_once('(')?.0.to_owned())
    };
    let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    trace.lines().filter_map(name).filter(is_name).collect()
}

struct Case<'a> {
    machine: Machine,
    /// Without VMs.
    before: State,
    prepare: &'a [&'a str],
    command: &'a [&'a str],
}

impl<'a> Case<'a> {
    fn new(prepare: &'a [&'a str], command: &'a [&'a str]) -> Self {
        let machine = Machine::new();
        // What stays for ever is made: directories.
        machine.succeed(&["up", "vm1", "--network", "one"]);
        machine.succeed(&["down", "vm1"]);
        let before = machine.state();
        Case { machine, before, prepare, command }
    }

    /// Kills at each of these system calls, one after the other; at all where none is named. How
    /// often something was killed.
    fn at_each(&self, whom: Whom, calls: &[&str]) -> u32 {
        self.prepare();
        let mut names = system_calls(&self.machine, whom, self.command);
        names.retain(|name| calls.is_empty() || calls.contains(&name.as_str()));
        let mut kills = 0;
        for call in &names {
            for nth in 1.. {
                self.recover_by("down");
                self.prepare();
                let inject = format!("inject={call}:signal=KILL:when={nth}");
                let arguments = ["-o", "/dev/null", "-e", &inject];
                let output = strace(&self.machine, whom, &arguments, self.command);
                if output.status.success() {
                    break;
                }
                // Where a plugin was killed, the program fails by itself.
                let killed = output.status.signal() == Some(SIGKILL);
                assert!(killed || output.status.code() == Some(1), "{call} {nth}: {output:?}");
                kills += 1;
                let next = ["down", "gc", "up"][usize::try_from(kills % 3).unwrap()];
                self.recover_by(next);
                let when = format!("{:?} killed at {call} {nth}, then {next}", self.command);
                self.machine.assert_is(&self.before, &when);
            }
        }
        self.recover_by("down");
        println!("{:?} killed at each of {names:?}: {kills}", self.command);
        kills
    }

    fn prepare(&self) {
        if !self.prepare.is_empty() {
            self.machine.succeed(self.prepare);
        }
    }

    fn recover_by(&self, next: &str) {
        match next {
            "down" => drop(self.machine.succeed(&["down", "vm1"])),
            "up" => {
                self.machine.succeed(&["up", "vm1", "--network", "other"]);
                self.machine.succeed(&["check", "vm1"]);
                self.machine.succeed(&["down", "vm1"]);
            }
            _ => {
                self.machine.succeed(&["gc"]);
                // What is left is no leftover: an `up` that had finished but for its printing, or a
                // `down` that had not begun.
                let list = self.machine.json(&["list", "--json"]);
                for vm in list["vms"].as_array().unwrap() {
                    assert_eq!(vm["state"], "up", "{list}");
                    self.machine.succeed(&["check", "vm1"]);
                    self.machine.succeed(&["down", "vm1"]);
                }
            }
        }
    }

    /// Kills after times that cover all of the command.
    fn at_random(&self, times: u32) {
        for number in 0..times {
            self.prepare();
            let mut command = self.machine.command(JACKFIELD);
            command.arg("vm").args(self.command).stdout(Stdio::null()).stderr(Stdio::null());
            let mut process = command.spawn().unwrap();
            // Not waiting for anything: the moment of the kill.
            std::thread::sleep(Duration::from_micros(
                u64::from(number) * 60_000 / u64::from(times),
            ));
            process.kill().unwrap();
            process.wait().unwrap();
            let next = ["down", "gc", "up"][usize::try_from(number % 3).unwrap()];
            self.recover_by(next);
            let when = format!("{:?} killed for the {number}th time, then {next}", self.command);
            self.machine.assert_is(&self.before, &when);
        }
    }
}

const UP: &[&str] = &["up", "vm1", "--network", "one"];
const DOWN: &[&str] = &["down", "vm1"];

#[test]
fn an_up_that_is_killed_leaves_nothing_that_is_not_cleaned_up() {
    let kills = Case::new(&[], UP).at_each(Whom::Program, TELLING);
    assert!(kills >= 8, "{kills}");
}

#[test]
fn a_down_that_is_killed_leaves_nothing_that_is_not_cleaned_up() {
    let kills = Case::new(UP, DOWN).at_each(Whom::Program, TELLING);
    assert!(kills >= 6, "{kills}");
}

#[test]
fn killed_at_random_nothing_is_left() {
    Case::new(&[], UP).at_random(12);
    Case::new(UP, DOWN).at_random(12);
}

#[test]
fn a_plugin_that_outlives_its_killed_up_is_waited_for() {
    let machine = Machine::new();
    machine.install(
        "slow",
        "case $CNI_COMMAND in
         ADD) touch /run/started; until [ -e /run/go ]; do sleep 0.01; done; touch /run/made;;
         DEL) rm -f /run/made;;
         esac",
    );
    machine.configure("slow", vec![serde_json::json!({"type": "slow"})]);
    let before = machine.state();
    let mut up =
        machine.command(JACKFIELD).args(["vm", "up", "vm1", "--network", "slow"]).spawn().unwrap();
    eventually(&machine, "test -e /run/started");
    up.kill().unwrap();
    up.wait().unwrap();
    let mut down = machine.command(JACKFIELD).args(["vm", "down", "vm1"]).spawn().unwrap();
    // It has taken the lock, and waits for the plugin.
    eventually(&machine, "! flock --nonblock /run/jackfield-vm/vm1.lock true");
    machine.shell("touch /run/go");
    assert!(down.wait().unwrap().success());
    machine.shell("rm /run/started /run/go; ! test -e /run/made");
    machine.assert_is(&before, "down");
}

/// Waits until a command of the shell succeeds.
fn eventually(machine: &Machine, test: &str) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !machine.command("sh").args(["-c", test]).status().unwrap().success() {
        assert!(std::time::Instant::now() < end, "{test}");
    }
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn an_up_that_is_killed_at_any_system_call_leaves_nothing() {
    let case = Case::new(&[], &["up", "vm1", "--network", "one", "--network", "other"]);
    assert!(case.at_each(Whom::Program, ALL) > 100);
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn a_down_that_is_killed_at_any_system_call_leaves_nothing() {
    let case = Case::new(&["up", "vm1", "--network", "one", "--network", "other"], DOWN);
    assert!(case.at_each(Whom::Program, ALL) > 100);
}

#[test]
#[ignore = "long: program, threads or plugins killed at their system calls"]
fn an_up_of_which_any_process_is_killed_leaves_nothing() {
    let calls = [TELLING, &["openat", "write", "clone", "clone3", "setns", "unshare"]].concat();
    assert!(Case::new(&[], UP).at_each(Whom::Anybody, &calls) > 50);
}

#[test]
#[ignore = "long: killed 300 times"]
fn killed_at_random_again_and_again_nothing_is_left() {
    Case::new(&[], UP).at_random(300);
    Case::new(UP, DOWN).at_random(300);
}
