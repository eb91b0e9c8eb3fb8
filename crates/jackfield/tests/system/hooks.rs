//! Programs of the administrator's: told the right thing, in order, and in nobody's way.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jackfield_lab::{Host, Plug};
use serde_json::{Value, json};

use crate::harness::*;

/// A directory of programs, and one beside it in which they leave what they saw.
struct Hooks(PathBuf);

/// Leaves what it was given, and then a line in `log`: whoever reads that finds the rest.
const RECORD: &str = r#"
name=$JACKFIELD_EVENT-${JACKFIELD_INTERFACE:-$JACKFIELD_TABLE}
env > OUT/$name.env
cat > OUT/$name.json
ls -l /proc/self/fd > OUT/$name.fds
echo "$JACKFIELD_EVENT $JACKFIELD_INTERFACE $JACKFIELD_IFINDEX" >> OUT/log
"#;

impl Hooks {
    fn new(name: &str) -> Self {
        let name = format!("jackfield-hooks-{}-{name}", std::process::id());
        let hooks = Hooks(std::env::temp_dir().join(name));
        for directory in [&hooks.0, &hooks.programs(), &hooks.0.join("out")] {
            std::fs::create_dir_all(directory).unwrap();
            std::fs::set_permissions(directory, PermissionsExt::from_mode(0o755)).unwrap();
        }
        hooks
    }

    fn programs(&self) -> PathBuf {
        self.0.join("hooks.d")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.join("out").join(name)
    }

    /// `OUT` in the script is the directory in which it leaves things.
    fn program(&self, name: &str, mode: u32, script: &str) {
        let script = script.replace("OUT", self.0.join("out").to_str().unwrap());
        let (path, new) = (self.programs().join(name), self.0.join("new"));
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    fn config(&self, timeout: &str) -> String {
        let directory = self.programs();
        format!(
            "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n\
             [hooks]\ndirectory = {directory:?}\ntimeout = \"{timeout}\"\n"
        )
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.out("log")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    /// Waits for a line that begins so, the `count`th of them.
    #[track_caller]
    fn wait_for(&self, start: &str, count: usize) {
        let what = format!("{start:?} is told {count} times: {:?}", self.lines());
        eventually(&what, PATIENCE, || {
            self.lines().iter().filter(|line| line.starts_with(start)).count() >= count
        });
    }

    fn env(&self, name: &str) -> BTreeMap<String, String> {
        let text = std::fs::read_to_string(self.out(&format!("{name}.env"))).unwrap();
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn json(&self, name: &str) -> Value {
        let text = std::fs::read_to_string(self.out(&format!("{name}.json"))).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn interface_in_status(host: &Host, name: &str) -> Value {
    let status = status(host);
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|interface| interface["name"] == name).unwrap().clone()
}

fn sorted(list: &Value) -> Vec<String> {
    let mut list: Vec<String> = serde_json::from_value(list.clone()).unwrap();
    list.sort();
    list
}

/// What the status says, a program is told in the same words, twice.
#[track_caller]
fn assert_told(hooks: &Hooks, name: &str, status: &Value) {
    let (document, env) = (hooks.json(name), hooks.env(name));
    let told = document["interface"].as_object().unwrap();
    assert_eq!(document["version"], 1);
    for (key, value) in told {
        let variable = match key.as_str() {
            "name" => "JACKFIELD_INTERFACE".to_owned(),
            key => format!("JACKFIELD_{}", key.to_uppercase()),
        };
        let given = &env[&variable];
        if value.is_array() {
            assert_eq!(sorted(value), sorted(&status[key]), "{key}");
            assert_eq!(given.split(' ').filter(|it| !it.is_empty()).count(), sorted(value).len());
            let given: Vec<&str> = given.split(' ').filter(|it| !it.is_empty()).collect();
            assert_eq!(given, sorted(value), "{variable}");
            continue;
        }
        assert_eq!(value, &status[key], "{key}");
        let text = match value {
            Value::Null => String::new(),
            Value::Bool(is) => u8::from(*is).to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(given, &text, "{variable}");
    }
    assert_eq!(told.len(), 11, "{document}");
}

/// Whether a process is there and not only waits to be forgotten.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn programs_are_told_of_an_interface_that_is_ready_changed_and_gone() {
    let stage = Stage::of(Shape::Prefixes);
    let hooks = Hooks::new("facts");
    hooks.program("10-fails", 0o755, "echo it says this; echo and that >&2; exit 3");
    hooks.program("20-rule", 0o755, "ip rule add to 203.0.113.0/24 lookup 200 pref 500 || :");
    hooks.program("30-open-to-all", 0o757, "touch OUT/unsafe");
    hooks.program("40-editor~", 0o755, "touch OUT/unsafe");
    hooks.program("50-record", 0o755, RECORD);
    let agent = Agent::with_config(&stage.a, &hooks.config("30s"));
    hooks.wait_for("ready eth0", 1);
    let primary = interface_in_status(&stage.a, "eth0");
    let told = hooks.env("ready-eth0");
    assert_eq!((&told["JACKFIELD_PRIMARY"], &told["JACKFIELD_TABLE"]), (&"1".into(), &"".into()));
    assert_eq!(primary["mac"], told["JACKFIELD_MAC"]);
    // Its own address is the system's.
    assert_eq!(told["JACKFIELD_ADDRESSES"], "");

    let of_primary = stage.lab.new_addresses(&stage.subnets[0])[0];
    stage.lab.add_address(stage.a.primary().mac, of_primary).unwrap();
    hooks.wait_for("changed eth0", 1);
    let told = &hooks.json("changed-eth0")["interface"]["addresses"];
    assert_eq!(*told, json!([ipnet::IpNet::from(of_primary).to_string()]));

    let attached = stage.attach(2, 1, 2);
    hooks.wait_for("ready eth1", 1);
    let status = interface_in_status(&stage.a, "eth1");
    assert_eq!(status["state"], "configured", "{status}");
    assert_told(&hooks, "ready-eth1", &status);
    let env = hooks.env("ready-eth1");
    assert_eq!(
        (env["JACKFIELD_EVENT"].as_str(), env["JACKFIELD_TABLE"].as_str()),
        ("ready", "10001")
    );
    // Four addresses and two prefixes: nothing is compared with nothing.
    assert_eq!(env["JACKFIELD_ADDRESSES"].split(' ').count(), 4, "{env:?}");
    assert_eq!(env["JACKFIELD_PREFIXES"].split(' ').count(), 2, "{env:?}");
    assert_eq!(hooks.json("ready-eth1")["before"], Value::Null);
    // What the shell adds itself aside, there is nothing else.
    let known = |name: &String| {
        name.starts_with("JACKFIELD_") || ["PATH", "LANG", "PWD", "SHLVL", "_"].contains(&&**name)
    };
    assert!(env.keys().all(known), "{env:?}");
    assert_eq!(env["PWD"], "/");
    let fds = std::fs::read_to_string(hooks.out("ready-eth1.fds")).unwrap();
    // `ls` itself looks into a directory.
    let others = |line: &&str| line.contains(" -> ") && !line.contains(" -> /proc/");
    assert_eq!(fds.lines().filter(others).count(), 3, "{fds}");

    let new = stage.lab.new_addresses(&stage.subnets[1]);
    for address in &new {
        stage.lab.add_address(attached.mac, *address).unwrap();
    }
    let all: Vec<String> = attached
        .addresses
        .iter()
        .chain(&new)
        .map(|address| ipnet::IpNet::from(*address).to_string())
        .collect();
    eventually("a program is told of all addresses", PATIENCE, || {
        let told = hooks.lines().iter().any(|line| line.starts_with("changed eth1"));
        told && sorted(&hooks.json("changed-eth1")["interface"]["addresses"]) == sorted(&json!(all))
    });
    assert_told(&hooks, "changed-eth1", &interface_in_status(&stage.a, "eth1"));
    assert_ne!(hooks.json("changed-eth1")["before"], Value::Null);

    let last = interface_in_status(&stage.a, "eth1");
    stage.lab.detach(attached.mac).unwrap();
    hooks.wait_for("gone eth1", 1);
    assert_told(&hooks, "gone-eth1", &last);

    // Each of the others went its way, and what one changed itself is nobody's business.
    assert!(!hooks.out("unsafe").exists());
    let rules = shell(&stage.a, "ip rule show pref 500");
    assert!(rules.contains("203.0.113.0/24"), "{rules}");
    let log = agent.log();
    for part in [
        "info: hook 10-fails (ready eth1): it says this",
        "warning: hook 10-fails (ready eth1): and that",
        "warning: hook 10-fails (ready eth1) failed: exit status 3",
        "info: hook 50-record (ready eth1): done",
        "30-open-to-all is not run: everybody may write to it",
    ] {
        assert!(log.iter().any(|line| line.contains(part)), "{part:?} is not in {log:#?}");
    }
    // Nothing is told twice, and nobody waits for something to tell.
    let count = |start: &str| hooks.lines().iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("ready eth1"), count("gone eth1")), (1, 1), "{:?}", hooks.lines());
    let status = format!("/proc/{}/status", agent.pid());
    eventually("one thread is left", PATIENCE, || {
        std::fs::read_to_string(&status).unwrap().lines().any(|line| line == "Threads:\t1")
    });
    agent.stop();
}

#[test]
fn a_program_that_hangs_holds_up_no_other_interface_and_is_told_the_rest_in_order() {
    let stage = Stage::new();
    let hooks = Hooks::new("hang");
    let hang = format!(
        "{RECORD}\n[ $JACKFIELD_INTERFACE = eth1 ] && until [ -e OUT/release ]; do sleep 0.01; done\n\
         echo \"end $JACKFIELD_EVENT $JACKFIELD_INTERFACE $JACKFIELD_IFINDEX\" >> OUT/log"
    );
    hooks.program("10-hang", 0o755, &hang);
    let agent = Agent::with_config(&stage.a, &hooks.config("60s"));
    let first = stage.attach(2, 1, 1);
    hooks.wait_for("ready eth1", 1);
    // While it hangs, another interface comes, works, and is told of.
    let second = stage.attach(1, 2, 1);
    answers_within(stage.lab.remote(), &stage.a, &second.addresses, PATIENCE);
    hooks.wait_for("end ready eth2", 1);
    // …and the first one goes and comes back, and works.
    let index = |name: &str| interface_in_status(&stage.a, name)["ifindex"].clone();
    let before = index("eth1");
    stage.lab.detach(first.mac).unwrap();
    stage.lab.attach(&stage.a, first.mac, &Plug::new(1)).unwrap();
    answers_within(stage.lab.remote(), &stage.a, &first.addresses, PATIENCE);
    let after = index("eth1");
    assert_ne!(before, after);
    eventually("the agent has told what there is to tell", PATIENCE, || {
        let log = agent.log();
        log.iter().filter(|line| line.ends_with("hooks: ready eth1")).count() == 2
    });
    std::fs::write(hooks.out("release"), "").unwrap();
    hooks.wait_for(&format!("end ready eth1 {after}"), 1);
    let of_first: Vec<String> =
        hooks.lines().into_iter().filter(|line| line.contains(" eth1 ")).collect();
    let expected = [("ready", &before), ("gone", &before), ("ready", &after)];
    let expected: Vec<String> = expected
        .iter()
        .flat_map(|(event, index)| ["", "end "].map(|end| format!("{end}{event} eth1 {index}")))
        .collect();
    assert_eq!(of_first, expected);
    agent.stop();
}

#[test]
fn a_program_that_does_not_end_in_time_is_made_to_with_all_that_it_started() {
    let stage = Stage::new();
    let hooks = Hooks::new("deadline");
    // Its child does not care about being asked.
    let script = "[ $JACKFIELD_INTERFACE = eth1 ] || exit 0\n\
                  trap 'echo asked to end' TERM\n\
                  (trap '' TERM; exec sleep 300) & echo $! > OUT/child\n\
                  while :; do sleep 0.05; done";
    hooks.program("10-endless", 0o755, script);
    // On a busy machine it is not to take long itself.
    hooks.program("20-next", 0o755, "echo \"$JACKFIELD_EVENT $JACKFIELD_INTERFACE\" >> OUT/log");
    let agent = Agent::with_config(&stage.a, &hooks.config("2s"));
    let attached = stage.attach(2, 1, 1);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    hooks.wait_for("ready eth1", 1);
    let child = std::fs::read_to_string(hooks.out("child")).unwrap();
    eventually("its child has ended", PATIENCE, || !lives(&child));
    let log = agent.stop();
    for part in [
        "hook 10-endless (ready eth1): asked to end",
        "hook 10-endless (ready eth1) did not end within 2 s and was made to: signal 9",
    ] {
        assert!(log.iter().any(|line| line.contains(part)), "{part:?} is not in {log:#?}");
    }
}

#[test]
fn an_agent_that_ends_takes_its_programs_along_and_the_next_one_tells_again() {
    let stage = Stage::new();
    let hooks = Hooks::new("restart");
    let script = format!(
        "[ $JACKFIELD_INTERFACE = eth1 ] || exit 0\n\
         echo $$ > OUT/pid\n{RECORD}\n[ -e OUT/release ] || exec sleep 300"
    );
    hooks.program("10-long", 0o755, &script);
    let agent = Agent::with_config(&stage.a, &hooks.config("60s"));
    stage.attach(2, 1, 1);
    hooks.wait_for("ready eth1", 1);
    let pid = || std::fs::read_to_string(hooks.out("pid")).unwrap();
    let killed = pid();
    assert!(lives(&killed));
    shell(&stage.a, &format!("kill -9 {}", agent.pid()));
    eventually("the program ends with its agent", PATIENCE, || !lives(&killed));
    drop(agent);

    let agent = Agent::with_config(&stage.a, &hooks.config("60s"));
    hooks.wait_for("ready eth1", 2);
    let stopped = pid();
    assert!(stopped != killed && lives(&stopped));
    let log = agent.stop();
    assert!(!lives(&stopped), "{log:#?}");

    std::fs::write(hooks.out("release"), "").unwrap();
    let agent = Agent::with_config(&stage.a, &hooks.config("60s"));
    hooks.wait_for("ready eth1", 3);
    agent.stop();
}

#[test]
fn commands_tell_programs_where_no_agent_does() {
    let stage = Stage::new();
    let hooks = Hooks::new("commands");
    hooks.program("10-fails", 0o755, "exit 1");
    hooks.program("20-record", 0o755, &format!("sleep 0.1\n{RECORD}"));
    let config = ConfigFile::new(&hooks.config("30s"));
    let run = |arguments: &[&str]| {
        let output = jackfield_with(&stage.a, &config, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let told = || -> Vec<String> {
        let words = |line: String| line.rsplit_once(' ').unwrap().0.to_owned();
        let lines = hooks.lines().into_iter().map(words).collect();
        let _ = std::fs::remove_file(hooks.out("log"));
        lines
    };
    let first = stage.attach(2, 1, 1);
    // They have ended when the command does.
    let said = run(&["plug", "eth1"]);
    assert_eq!(told(), ["ready eth1"]);
    assert!(said.contains("hook 10-fails (ready eth1) failed: exit status 1"), "{said}");
    assert_told(&hooks, "ready-eth1", &interface_in_status(&stage.a, "eth1"));
    run(&["plug", "eth1"]);
    run(&["scan"]);
    assert_eq!(told(), Vec::<String>::new());

    let new = stage.lab.new_addresses(&stage.subnets[1]);
    stage.lab.add_address(first.mac, new[0]).unwrap();
    stage.attach(1, 2, 1);
    run(&["scan"]);
    let mut both = told();
    both.sort();
    assert_eq!(both, ["changed eth1", "ready eth2"]);
    assert_told(&hooks, "changed-eth1", &interface_in_status(&stage.a, "eth1"));

    let last = interface_in_status(&stage.a, "eth2");
    run(&["unplug", "eth2"]);
    assert_eq!(told(), ["gone eth2"]);
    assert_told(&hooks, "gone-eth2", &last);

    // Of one that went while nobody looked, what is left of it tells.
    let addresses = sorted(&interface_in_status(&stage.a, "eth1")["addresses"]);
    stage.lab.detach(first.mac).unwrap();
    run(&["unplug", "eth1"]);
    assert_eq!(told(), ["gone eth1"]);
    let gone = hooks.json("gone-eth1");
    assert_eq!(
        (&gone["interface"]["table"], &gone["interface"]["device_number"]),
        (&json!(10_001), &json!(1))
    );
    assert_eq!(gone["interface"]["ifindex"], Value::Null);
    let left = sorted(&gone["interface"]["addresses"]);
    assert!(left.iter().all(|address| addresses.contains(address)), "{left:?}");

    // Where an agent runs, that does.
    let agent = Agent::with_config(&stage.a, &hooks.config("30s"));
    hooks.wait_for("ready eth2", 1);
    run(&["plug", "eth2"]);
    agent.stop();
    let ready = told().into_iter().filter(|line| line == "ready eth2").count();
    assert_eq!(ready, 1);
}

#[test]
fn what_is_left_of_one_interface_is_not_told_of_another() {
    let stage = Stage::new();
    let hooks = Hooks::new("left");
    hooks.program("10-record", 0o755, RECORD);
    let config = ConfigFile::new(&hooks.config("30s"));
    let run = |arguments: &[&str]| {
        let output = jackfield_with(&stage.a, &config, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let mut lines = hooks.lines();
        let _ = std::fs::remove_file(hooks.out("log"));
        for line in &mut lines {
            *line = line.rsplit_once(' ').unwrap().0.to_owned();
        }
        lines.sort();
        lines
    };
    let first = stage.attach(2, 1, 1);
    stage.attach(1, 2, 1);
    let again = || stage.lab.attach(&stage.a, first.mac, &Plug::new(1)).unwrap();
    assert_eq!(run(&["scan"]), ["ready eth1", "ready eth2"]);

    // Nothing of the other one changes.
    for (arguments, gone) in [(&["scan"][..], "gone "), (&["unplug", "eth1"], "gone eth1")] {
        stage.lab.detach(first.mac).unwrap();
        assert_eq!(run(arguments), [gone], "{arguments:?}");
        again();
        assert_eq!(run(&["scan"]), ["ready eth1"]);
    }

    let (one, other) =
        (interface_in_status(&stage.a, "eth1"), interface_in_status(&stage.a, "eth2"));
    stage.lab.detach(first.mac).unwrap();
    assert_eq!(run(&["unplug", "eth2"]), ["gone ", "gone eth2"]);
    assert_told(&hooks, "gone-eth2", &other);
    let left = &hooks.json("gone-10001")["interface"];
    assert_eq!((&left["table"], &left["name"]), (&one["table"], &Value::Null));
    let (left, had) = (sorted(&left["addresses"]), sorted(&one["addresses"]));
    assert!(!left.is_empty() && left.iter().all(|it| had.contains(it)), "{left:?}");
}

#[test]
fn what_a_command_did_is_told_also_where_the_kernel_refuses_another_part_of_it() {
    let stage = Stage::new();
    let hooks = Hooks::new("refused");
    hooks.program("10-record", 0o755, &format!("sleep 0.1\n{RECORD}"));
    let config = ConfigFile::new(&hooks.config("30s"));
    let first = stage.attach(2, 1, 1);
    stage.attach(1, 2, 1);
    let output = jackfield_with(&stage.a, &config, &["scan"]);
    assert!(output.status.success(), "{output:?}");
    stage.lab.detach(first.mac).unwrap();
    // No setting of eth2 can be put back.
    let settings = "/proc/sys/net";
    shell(
        &stage.a,
        &format!("mount --bind {settings} {settings}; mount -o remount,bind,ro {settings}"),
    );
    let (_, said) = failure(&jackfield_with(&stage.a, &config, &["unplug", "eth2"]));
    assert!(said.contains("refused"), "{said}");
    let lines = hooks.lines();
    assert!(lines.iter().any(|line| line == "gone  "), "{lines:?}");
}

#[test]
fn a_directory_that_is_new_to_the_agent_is_told_of_everything() {
    let stage = Stage::new();
    let (hooks, other) = (Hooks::new("old"), Hooks::new("new"));
    for hooks in [&hooks, &other] {
        hooks.program("10-record", 0o755, RECORD);
    }
    let agent = Agent::with_config(&stage.a, &hooks.config("30s"));
    hooks.wait_for("ready eth0", 1);
    agent.configure(&other.config("30s"));
    succeed(&stage.a, &["reload"]);
    other.wait_for("ready eth0", 1);

    // One that was away.
    let away = other.0.join("away");
    std::fs::rename(other.programs(), &away).unwrap();
    let attached = stage.attach(2, 1, 1);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let works = || interface_in_status(&stage.a, "eth1")["state"] == "configured";
    eventually("the agent has seen that eth1 works", PATIENCE, works);
    std::fs::rename(away, other.programs()).unwrap();
    other.wait_for("ready eth1", 1);
    other.wait_for("ready eth0", 2);
    agent.stop();
    assert_eq!(hooks.lines().len(), 1, "{:?}", hooks.lines());
}

#[test]
fn a_directory_of_programs_that_is_no_absolute_path_is_refused() {
    let stage = Stage::new();
    let config = ConfigFile::new("[hooks]\ndirectory = \"hooks.d\"\n");
    let (status, said) = failure(&jackfield_with(&stage.a, &config, &["scan"]));
    assert_ne!(status, 0, "{said}");
    for part in ["line 2", "hooks.d", "absolute path"] {
        assert!(said.contains(part), "{said}");
    }
}
