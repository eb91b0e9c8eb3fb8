//! Wrong use: one line that says what is wrong and what to do, and nothing changed.

use crate::machine::Machine;
use serde_json::json;

#[test]
fn wrong_arguments_are_told_in_one_line() {
    let machine = Machine::new();
    let before = machine.state();
    let up = ["up", "vm1", "--network", "one"];
    let with = |more: &[&'static str]| [&up[..], more].concat();
    for (arguments, said) in [
        (vec![], "a command is missing"),
        (vec!["up"], "<ID>"),
        (vec!["up", "vm1"], "--network"),
        (vec!["up", "../vm1", "--network", "one"], "does not begin with a letter or digit"),
        (vec!["up", "vm1", "--network", "a/b"], "only letters, digits"),
        (
            with(&["--ifname", "eth0", "--ifname", "eth1"]),
            "2 times --ifname, but 1 times --network",
        ),
        (with(&["--vm-ifname", "a", "--vm-ifname", "b"]), "2 times --vm-ifname"),
        (with(&["--ifname", "vm%d"]), "'%'"),
        (with(&["--ifname", "sixteen-bytes-xx"]), "longer than 15"),
        (with(&["--vm-ifname", "eth0 init=/bin/sh"]), "eth0 init=/bin/sh"),
        (with(&["--arg", "noequals"]), "KEY=VALUE"),
        (with(&["--arg", "a=b;c=d"]), "';'"),
        (with(&["--cap", "mac"]), "NAME=JSON"),
        (with(&["--cap", "mac=02:00"]), "is not JSON"),
        (with(&["--uid", "4294967295"]), "4294967295"),
        (with(&["--uid", "-1"]), "-1"),
        (with(&["--gid", "root"]), "root"),
        (with(&["--mtu", "10"]), "10"),
        (with(&["--mtu", "70000"]), "70000"),
        (with(&["--format", "xml"]), "cloud-hypervisor"),
        (with(&["--timeout", "never"]), "seconds"),
        (with(&["--mmds", "v3"]), "v3"),
        (with(&["--mmds", "v2"]), "--mmds is of format firecracker, not of json"),
        (with(&["--mmds-address", "10.0.0.1"]), "--mmds"),
        (with(&["--format", "ip", "--kernel-args", "a"]), "--kernel-args is of format kernel-args"),
        (with(&["--format", "kernel-args", "--kernel-args", "a=\"b"]), "has no end"),
        (with(&["--firecracker-version", "new"]), "new"),
        (with(&["--rx-rate-limiter", "{\"speed\":1}"]), "not a rate limiter"),
        (with(&["--format", "firecracker", "--snapshot", "--mmds", "v2"]), "--snapshot"),
        (vec!["conf"], "--container-id"),
        (vec!["conf", "--container-id", "a b"], "only letters, digits"),
        (vec!["down"], "<ID>"),
        (vec!["down", "vm1", "vm2"], "vm2"),
        (vec!["list", "vm1"], "vm1"),
    ] {
        machine.refuses(&arguments, 2, &[said, "see 'jackfield --help'"]);
    }
    machine.assert_is(&before, "wrong arguments");
}

#[test]
fn a_network_that_is_not_there_is_named() {
    let machine = Machine::new();
    let before = machine.state();
    let said = ["no network configuration named none", "/etc/cni/conf.d", "--conf-dir"];
    machine.refuses(&["up", "vm1", "--network", "none"], 1, &said);
    machine.write("/etc/cni/conf.d/bad.conflist", "{\"name\":\"bad\",\"plugins\":[{}]}");
    let said = ["/etc/cni/conf.d/bad.conflist", "plugins[0].type", "missing"];
    machine.refuses(&["up", "vm1", "--network", "bad"], 1, &said);
    machine.configure("ghost", vec![json!({"type": "ghost"})]);
    let said = ["network ghost", "plugin ghost", "not installed", "--plugin-dir"];
    machine.refuses(&["up", "vm1", "--network", "ghost"], 1, &said);
    machine.shell("rm /etc/cni/conf.d/bad.conflist /etc/cni/conf.d/ghost.conflist");
    let twice = ["up", "vm1", "--network", "one", "--network", "dual", "--ifname", "eth1"];
    machine.refuses(&twice, 1, &["interface eth1", "--ifname"]);
    machine.assert_is(&before, "refused");
}

#[test]
fn a_path_that_is_no_namespace_is_refused_and_left() {
    let machine = Machine::new();
    machine.shell("mkdir -p /run/netns /run/dir; touch /run/netns/vm1; mkfifo /run/pipe");
    let before = machine.state();
    let said = ["/var/run/netns/vm1 is there and is no network namespace", "--netns"];
    machine.refuses(&["up", "vm1", "--network", "one"], 1, &said);
    for path in ["/run/dir", "/run/pipe", "/proc/self/ns/mnt"] {
        let up = ["up", "vm1", "--network", "one", "--netns", path];
        machine.refuses(&up, 1, &[path, "is no network namespace"]);
    }
    let up = ["up", "vm1", "--network", "one", "--netns", "/run/nowhere/vm1"];
    machine.refuses(&up, 1, &["/run/nowhere/vm1"]);
    machine.succeed(&["down", "vm1"]);
    machine.assert_is(&before, "refused");
}

#[test]
fn the_namespace_of_another_vm_is_refused() {
    let machine = Machine::new();
    machine.succeed(&["up", "vm1", "--network", "one"]);
    let before = machine.state();
    let up = ["up", "vm2", "--network", "one", "--netns", "/run/netns/vm1"];
    machine.refuses(&up, 1, &["/run/netns/vm1 is VM vm1's", "take that VM down"]);
    machine.assert_is(&before, "refused");
    machine.succeed(&["check", "vm1"]);
}

#[test]
fn a_plugin_that_hangs_is_killed_and_what_was_made_is_undone() {
    let machine = Machine::new();
    machine.install("sleepy", "[ $CNI_COMMAND = DEL ] || exec sleep 1000");
    let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.93.0.0/24"}]]});
    machine
        .configure("slow", vec![json!({"type": "ptp", "ipam": ipam}), json!({"type": "sleepy"})]);
    let before = machine.state();
    let up = ["up", "vm1", "--network", "slow", "--timeout", "2"];
    machine.refuses(&up, 1, &["network slow", "plugin sleepy", "2 s", "--timeout"]);
    machine.assert_is(&before, "undone");
}

#[test]
fn somebody_else_who_works_on_the_vm_is_waited_for_and_named() {
    let machine = Machine::new();
    machine.shell("mkdir -p /run/jackfield-vm");
    let mut other = machine.command("flock");
    jackfield_kernel::end_with_parent(&mut other);
    let other = other.args(["--no-fork", "/run/jackfield-vm/vm1.lock", "sleep", "1000"]);
    let mut other = other.spawn().unwrap();
    // It is called so once it has the lock.
    while std::fs::read(format!("/proc/{}/comm", other.id())).unwrap() != b"sleep\n" {
        std::thread::yield_now();
    }
    for command in [&["up", "vm1", "--network", "one"][..], &["down", "vm1"], &["check", "vm1"]] {
        let command = [command, &["--wait", "0.1"]].concat();
        machine.refuses(&command, 1, &["another process has worked on VM vm1", "try again"]);
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn without_the_privilege_nothing_is_tried() {
    let machine = Machine::new();
    for command in [&["up", "vm1", "--network", "one"][..], &["down", "vm1"], &["gc"], &["list"]] {
        let mut setpriv = machine.command("setpriv");
        let jackfield = [crate::machine::JACKFIELD, "vm"];
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
        let output = setpriv.args(user).args(jackfield).args(command).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // The build's directory may be closed to that user.
        if stderr.contains("Permission denied") && stderr.starts_with("setpriv") {
            panic!("user 65534 cannot start {jackfield:?}: {stderr}");
        }
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr.contains("CAP_NET_ADMIN") && stderr.contains("run it as root"), "{stderr}");
    }
}
