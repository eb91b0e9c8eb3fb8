//! `jackfield demo`, as root and as an unprivileged user: what it claims, and what it leaves.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jackfield_lab::Host;
use serde_json::Value;

use crate::harness::*;

const STEPS: [&str; 10] =
    ["cloud", "agents", "plug", "traffic", "second", "both", "move", "moved", "unplug", "end"];
const NOBODY: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
/// By this the processes of one demo are found, whatever became of them.
const MARK: &str = "JACKFIELD_TEST_DEMO";

/// A machine on which a demo runs, and a directory that is all it could leave a file in.
struct Machine {
    host: Host,
    directory: PathBuf,
    mark: String,
}

impl Machine {
    fn new(name: &str) -> Self {
        let mark = format!("{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(format!("jackfield-demo-{mark}"));
        std::fs::create_dir(&directory).unwrap();
        let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&directory, everybody).unwrap();
        Machine { host: Host::new("machine").unwrap(), directory, mark }
    }

    /// The demo; for nobody by a copy of the program, which everybody can read.
    fn demo(&self, as_nobody: bool, arguments: &[&str]) -> Command {
        let mut command = if as_nobody {
            let program = self.program();
            std::fs::copy(JACKFIELD, &program).unwrap();
            let mut command = self.host.command(NOBODY[0]).unwrap();
            command.args(&NOBODY[1..]).arg(program);
            command
        } else {
            // A shell that runs the tests in the background has interrupts ignored, for all of them.
            let mut command = self.host.command("env").unwrap();
            command.args(["--default-signal=INT", JACKFIELD]);
            command
        };
        command.arg("demo").args(arguments).env("TMPDIR", &self.directory);
        // A demo runs its own agents with its own metadata, whatever is set here.
        command.env("JACKFIELD_METADATA", "http://127.0.0.1:1").env(MARK, &self.mark);
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    fn program(&self) -> PathBuf {
        self.directory.join("jackfield")
    }

    /// The processes of this demo that are there. Its namespaces have no names: they are gone when
    /// these are.
    fn processes(&self) -> Vec<PathBuf> {
        let mark = format!("{MARK}={}", self.mark);
        let is_ours = |process: &PathBuf| {
            let environment = std::fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.filter(is_ours).collect()
    }

    #[track_caller]
    fn assert_nothing_is_left(&self, before: &NetworkState) {
        let _ = std::fs::remove_file(self.program());
        let files: Vec<_> = std::fs::read_dir(&self.directory).unwrap().collect();
        assert!(files.is_empty(), "the demo left {files:?}");
        assert_same(before, &NetworkState::of(&self.host));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn the_whole_story(as_nobody: bool) {
    let machine = Machine::new(if as_nobody { "nobody" } else { "root" });
    let before = NetworkState::of(&machine.host);
    let output = machine.demo(as_nobody, &[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the demo failed on this machine: {said}");
    assert_eq!(machine.processes(), Vec::<PathBuf>::new());
    machine.assert_nothing_is_left(&before);
    assert_eq!(said, "");

    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() <= 40, "{text}");
    assert!(!text.contains('\u{1b}'), "colours without a terminal: {text}");
    let how = if as_nobody { "without root, in a user namespace" } else { "as root" };
    assert!(text.lines().next().unwrap().contains(how), "{text}");
    let steps: Vec<&str> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("ok "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(steps, STEPS, "{text}");
    for claim in [
        "10.0.2.10 after ",
        "2001:db8:0:2::a after ",
        "8 exchanges",
        "16 exchanges",
        "packets by a wrong interface: 0",
        "is pulled from a and plugged into b",
        "All of it held",
    ] {
        assert!(text.contains(claim), "{claim:?} is not in {text}");
    }
}

#[test]
fn the_demo_tells_the_whole_story_as_root() {
    the_whole_story(false);
}

#[test]
fn the_demo_tells_the_whole_story_without_root() {
    the_whole_story(true);
}

#[test]
fn the_demo_tells_programs_in_one_document() {
    let machine = Machine::new("json");
    let output = machine.demo(false, &["--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["version"], &document["ok"]), (&1.into(), &true.into()));
    assert!(document["milliseconds"].is_f64(), "{document}");
    let steps = document["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, STEPS);
    for step in steps {
        assert!(step["milliseconds"].is_f64() && step["ok"] == true, "{step}");
    }
}

#[test]
fn a_demo_that_is_interrupted_or_killed_leaves_nothing() {
    // What a pipe holds; the demo cannot go on once it has filled the rest, which is in its middle.
    const PIPE: usize = 65_536;
    const REST: usize = 600;
    for signal in ["INT", "KILL"] {
        let machine = Machine::new(&format!("signal-{signal}"));
        let before = NetworkState::of(&machine.host);
        let (_reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&[b' '; PIPE - REST]).unwrap();
        let mut demo = machine.demo(false, &[]).stdout(writer).spawn().unwrap();
        eventually("its agents run", PATIENCE, || machine.processes().len() == 3);
        let sent = Command::new("kill").args(["-s", signal, &demo.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert!(!demo.wait().unwrap().success());
        eventually("its agents end with it", PATIENCE, || machine.processes().is_empty());
        machine.assert_nothing_is_left(&before);
    }
}

#[test]
fn a_machine_that_gives_no_namespaces_is_told_of_in_one_line() {
    let machine = Machine::new("forbidden");
    // In a user namespace of its own in which nobody may make another one.
    let mut command = machine.host.command("unshare").unwrap();
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv \
                  --bounding-set=-all --inh-caps=-all -- \"$0\" demo";
    command.args(["--user", "--map-root-user", "sh", "-c", forbid, JACKFIELD]);
    let output = command.output().unwrap();
    let (status, said) = failure(&output);
    assert_eq!(status, 1, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("cannot make private namespaces"), "{said}");
    assert!(said.contains("run it as root"), "{said}");
    assert_eq!(output.stdout, b"");
}
