//! Wrong use: one clear line on standard error, the right exit status, nothing changed.

use std::process::{Output, Stdio};

use jackfield_lab::Host;

use crate::harness::*;

/// An instance on which nothing may change.
struct Untouched<'a> {
    host: &'a Host,
    before: NetworkState,
}

impl<'a> Untouched<'a> {
    fn new(host: &'a Host) -> Self {
        // An address of the link itself, which the kernel is still trying out, changes by itself.
        let settled = || !NetworkState::of(host).lines().any(|line| line.contains(" tentative"));
        eventually("no address is tentative", PATIENCE, settled);
        Untouched { host, before: NetworkState::of(host) }
    }

    /// Runs `jackfield`, which must fail with this status and say all of this in one line.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], status: i32, said: &[&str]) {
        self.is_refused(&jackfield(self.host, arguments), status, said);
    }

    /// As [`Untouched::refuses`], with this configuration.
    #[track_caller]
    fn refuses_with(&self, config: &str, arguments: &[&str], status: i32, said: &[&str]) {
        let config = ConfigFile::new(config);
        self.is_refused(&jackfield_with(self.host, &config, arguments), status, said);
    }

    #[track_caller]
    fn is_refused(&self, output: &Output, status: i32, said: &[&str]) {
        let (ended, text) = failure(output);
        assert_eq!(ended, status, "{output:?}");

        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with("jackfield: "), "{text}");
        for part in said {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        assert_eq!(output.stdout, b"", "a result, and a failure");
        assert_same(&self.before, &NetworkState::of(self.host));
    }
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let a = Untouched::new(&stage.a);
    let said = ["there is no interface 'eth9'", "jackfield status"];
    for command in ["plug", "plan", "status"] {
        a.refuses(&[command, "eth9"], 1, &said);
        // Also where the others are there.
        a.refuses(&[command, "eth1", "eth9"], 1, &said);
    }
    // What is gone can be unplugged.
    let output = jackfield(&stage.a, &["unplug", "eth9"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("eth9 is not here"), "{output:?}");
    assert_same(&a.before, &NetworkState::of(&stage.a));
}

#[test]
fn who_may_not_change_the_network_may_look_at_it() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let a = Untouched::new(&stage.a);
    let config = ConfigFile::new(LAB_CONFIG);
    let without_privilege = |arguments: &[&str]| {
        let mut command = stage.a.command("setpriv").unwrap();
        let less = ["--bounding-set=-net_admin", "--inh-caps=-all", "--", JACKFIELD];
        command.args(less).args(["--config", config.path()]).args(arguments).output().unwrap()
    };
    for arguments in
        [&["plug", "eth1"][..], &["unplug", "eth1"], &["scan"], &["run"], &["plug", "eth9"]]
    {
        let output = without_privilege(arguments);
        a.is_refused(&output, 1, &["CAP_NET_ADMIN", "run it as root"]);
    }
    assert_eq!(without_privilege(&["status"]).status.code(), Some(0));
    assert_eq!(without_privilege(&["plan"]).status.code(), Some(3));
    assert_same(&a.before, &NetworkState::of(&stage.a));
}

#[test]
fn a_metadata_service_that_does_not_answer_is_told_of_with_its_address() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let a = Untouched::new(&stage.a);
    // Nothing listens there.
    let nowhere = ["--metadata", "http://127.0.0.1:1"];
    let said = ["metadata http://127.0.0.1:1/", "IMDSv2", "--metadata"];
    for arguments in
        [&["plug", "eth1", "--wait", "1"][..], &["scan", "--wait", "1"], &["plan", "eth1"]]
    {
        a.refuses(&[&nowhere[..], arguments].concat(), 1, &said);
    }
    // The status is told all the same, with that as what is wrong.
    let output = jackfield(&stage.a, &[&nowhere[..], &["status", "--json", "eth1"]].concat());
    assert!(output.status.success(), "{output:?}");
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = status["interfaces"][0]["problems"].as_array().unwrap();
    assert!(problems.iter().any(|problem| problem["code"] == "metadata-unreachable"), "{status}");
    assert_same(&a.before, &NetworkState::of(&stage.a));
}

#[test]
fn an_interface_that_metadata_does_not_know_is_waited_for_no_longer_than_said() {
    let stage = Stage::new();
    shell(&stage.a, "ip link add stranger type veth peer name other");
    let a = Untouched::new(&stage.a);
    let said = ["stranger", "metadata does not list this MAC"];
    a.refuses(&["plug", "stranger", "--wait", "1"], 1, &said);
}

#[test]
fn a_configuration_that_cannot_be_read_or_understood_is_told_of_with_file_line_and_key() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let a = Untouched::new(&stage.a);
    for command in [&["plug", "eth1"][..], &["unplug", "eth1"], &["scan"], &["plan"], &["run"]] {
        let missing = [&["--config", "/nonexistent/jackfield.toml"][..], command].concat();
        let mut jackfield = stage.a.command(JACKFIELD).unwrap();
        let output = jackfield.args(missing).output().unwrap();
        let said = ["cannot read the configuration /nonexistent/jackfield.toml", "--config"];
        a.is_refused(&output, 2, &said);
    }
    for (config, said) in [
        ("[agent]\nrefesh = \"30s\"\n", &["line 2", "refesh", "refresh"][..]),
        ("\n\n[agent]\nrefresh = \"0s\"\n", &["line 4", "refresh", "from 1 s to 1 h"]),
        ("[agent]\nlink_group = \"x\"\n", &["line 2", "link_group", "a link group from 1"]),
        ("[agent]\nrefresh = 30\n", &["line 2", "refresh", "from 1 s to 1 h"]),
        ("[agent]\ntable_base = 0\n", &["line 2", "table_base", "300"]),
        ("[defaults]\nmtu = 68\n", &["line 2", "mtu", "1280"]),
        ("[defaults]\nmain_route = \"first\"\n", &["line 2", "main_route", "last-resort"]),
        ("[[interface]]\nmanage = false\n", &["line 1", "match"]),
        ("[[interface]]\nmatch = { mac = \"x\" }\n", &["line 2", "mac"]),
        ("[[interface]]\nmatch = { colour = \"red\" }\n", &["line 2", "colour"]),
        ("[agent\n", &["line 1", "[agent"]),
        ("[agnet]\n", &["line 1", "agnet"]),
    ] {
        let file = ConfigFile::new(config);
        let said = [said, &[file.path()]].concat();
        let output = jackfield_with(&stage.a, &file, &["plug", "eth1"]);
        a.is_refused(&output, 2, &said);
        let output = jackfield_with(&stage.a, &file, &["run"]);
        a.is_refused(&output, 2, &said);
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_told_of_in_one_line() {
    let stage = Stage::new();
    let a = Untouched::new(&stage.a);
    for (arguments, said) in [
        (&["plugg"][..], "'plug'"),
        (&[], "a command is missing"),
        (&["plug"], "<IFACE>"),
        (&["unplug"], "<IFACE>"),
        (&["plug", "eth1", "--wait", "soon"], "--wait"),
        (&["plug", "eth1", "--wait", "-1"], "-1"),
        (&["plug", "eth1", "--force"], "--force"),
        (&["run", "eth1"], "eth1"),
        (&["status", "--jsno"], "--jsno"),
        (&["-v", "-q", "status"], "--quiet"),
        (&["--log-format", "xml", "status"], "text, json"),
        (&["--metadata", "169.254.169.254", "status"], "http://"),
        (&["--metadata", "https://169.254.169.254", "status"], "http://"),
        (&["--metadata", "http://metadata.example", "status"], "metadata.example"),
    ] {
        a.refuses(arguments, 2, &[said, "jackfield --help"]);
    }
    let mut command = stage.a.command(JACKFIELD).unwrap();
    let output = command.arg("status").env("JACKFIELD_METADATA", "nowhere").output().unwrap();
    a.is_refused(&output, 2, &["nowhere", "http://"]);
}

#[test]
fn the_primary_is_never_unplugged() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let said = ["eth0 is the instance's primary interface", "name a secondary interface"];
    let nowhere = ["--metadata", "http://127.0.0.1:1"];
    Untouched::new(&stage.a).refuses(&["unplug", "eth0"], 1, &said);
    succeed(&stage.a, &["plug", "eth1"]);
    let a = Untouched::new(&stage.a);
    a.refuses(&["unplug", "eth0"], 1, &said);
    // Together with one that could be.
    a.refuses(&["unplug", "eth1", "eth0"], 1, &said);
    // It can be told by what is on it where nobody can be asked.
    let output = jackfield(&stage.a, &[&nowhere[..], &["unplug", "eth0"]].concat());
    assert_same(&a.before, &NetworkState::of(&stage.a));
    assert!(!output.status.success() || output.stdout.starts_with(b"nothing to do"), "{output:?}");
}

#[test]
fn a_table_that_others_use_is_left_to_them() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    shell(&stage.a, "ip route add 192.0.2.0/24 dev eth0 table 10001");
    let a = Untouched::new(&stage.a);
    let said = ["eth1", "routing table 10001", "192.0.2.0/24", "agent.table_base"];
    a.refuses(&["plug", "eth1"], 1, &said);
    a.refuses(&["scan"], 1, &said);
    // Other tables are free.
    let elsewhere = format!("{LAB_CONFIG}table_base = 20000\n");
    let output = jackfield_with(&stage.a, &ConfigFile::new(&elsewhere), &["plug", "eth1"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_link_group_that_others_use_is_left_to_them() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    shell(&stage.a, "ip link add br0 type bridge; ip link set br0 group 106");
    let a = Untouched::new(&stage.a);
    a.refuses(&["plug", "eth1"], 1, &["link group 106 is used by br0", "agent.link_group"]);
    shell(&stage.a, "ip link delete br0; ip link set eth0 group 5");
    let a = Untouched::new(&stage.a);
    a.refuses(&["plug", "eth1"], 1, &["eth0 is in link group 5", "take it out of that group"]);
}

#[test]
fn a_second_agent_does_not_start_and_unplug_does_not_fight_the_first() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 1);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let a = Untouched::new(&stage.a);
    a.refuses(&["run"], 1, &["another jackfield agent runs", "stop it first"]);
    let said = ["a jackfield agent runs here and would plug eth1 again", "manage = false"];
    a.refuses(&["unplug", "eth1"], 1, &said);
    agent.stop();
    succeed(&stage.a, &["unplug", "eth1"]);
}

#[test]
fn what_is_configured_not_to_be_managed_is_not_plugged() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 1);
    let config = format!(
        "{LAB_CONFIG}[[interface]]\nmatch = {{ mac = \"{}\" }}\nmanage = false\n",
        attached.mac
    );
    let a = Untouched::new(&stage.a);
    a.refuses_with(&config, &["plug", "eth1"], 1, &["eth1", "manage = false"]);
    let output = jackfield_with(&stage.a, &ConfigFile::new(&config), &["scan"]);
    assert!(output.status.success(), "{output:?}");
    assert_same(&a.before, &NetworkState::of(&stage.a));
}

#[test]
fn a_device_that_can_be_no_cloud_interface_is_not_plugged() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    shell(
        &stage.a,
        "ip link add br0 type bridge; ip link add port type veth peer name far; \
         ip link set port master br0",
    );
    let a = Untouched::new(&stage.a);
    a.refuses(&["plug", "br0"], 1, &["br0", "of kind bridge", "agent.device_kinds"]);
    a.refuses(&["plug", "port"], 1, &["port", "a port of a bridge or bond"]);
    a.refuses(&["plug", "lo"], 1, &["lo", "no Ethernet device"]);
    a.refuses_with("", &["plug", "eth1"], 1, &["eth1", "of kind veth", "agent.device_kinds"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is_one() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let a = Untouched::new(&stage.a);
    let config = ConfigFile::new(LAB_CONFIG);
    let write_to = |output: Stdio, command: &str| {
        let mut jackfield = stage.a.command(JACKFIELD).unwrap();
        jackfield.args(["--config", config.path(), command]).stdout(output).stderr(Stdio::piped());
        jackfield.spawn().unwrap().wait_with_output().unwrap()
    };
    for (command, status) in [("status", 0), ("plan", 3)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = write_to(writer.into(), command);
        assert_eq!(failure(&output), (status, String::new()), "{command}");

        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = write_to(full.into(), command);
        a.is_refused(&output, 1, &["cannot write the result"]);
    }
    let closed = format!("exec {JACKFIELD} --config {} status >&-", config.path());
    let output = stage.a.command("sh").unwrap().args(["-c", &closed]).output().unwrap();
    assert_eq!(failure(&output), (0, String::new()));
    assert_same(&a.before, &NetworkState::of(&stage.a));
}
