//! What operators put beside the package.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, packages};

/// What it says on standard error is logged as a warning, by whoever runs it.
const HOOK: &str = "#!/bin/sh\necho \"the hook was told: $JACKFIELD_EVENT as $(id -un), \
                    $(cat /proc/self/oom_score_adj)\" >&2\n";
/// As ifup leaves the DHCP client.
const LEAVES: &str = "#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 &\n";

fn hooks_are_run(mode: Mode) {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    machine.boot();
    machine.install(mode);
    let hook = "/etc/jackfield/hooks.d/50-told";
    machine.disk().write(hook, HOOK);
    for (path, permissions) in [("/etc/jackfield/hooks.d", 0o755), (hook, 0o755)] {
        let permissions = std::fs::Permissions::from_mode(permissions);
        std::fs::set_permissions(machine.disk().file(path), permissions).unwrap();
    }

    let is_told = |event: &str| {
        let journal = || machine.shell("journalctl -b --no-pager");
        let line = format!("the hook was told: {event} as jackfield, 0");
        let end = std::time::Instant::now() + PATIENCE;
        while !journal().contains(&line) {
            assert!(std::time::Instant::now() < end, "{line}: {}", journal());
        }
    };
    let interface = machine.attach(1);
    machine.is_configured(&interface);
    is_told("ready");
    machine.stage.lab.detach(interface.mac).unwrap();
    is_told("gone");
    if mode == Mode::Agent {
        // With the example for what root has to run, what a program leaves running stays.
        machine.disk().write(hook, LEAVES);
        machine.shell(
            "install -D -m 644 /usr/share/doc/jackfield/examples/root.conf \
             /etc/systemd/system/jackfield.service.d/root.conf
             systemctl daemon-reload
             systemctl restart jackfield",
        );
        let mut left = String::new();
        eventually("it has left something", PATIENCE, || {
            left = machine.shell("pgrep --exact sleep || true");
            !left.is_empty()
        });
        machine.shell(&format!("systemctl restart jackfield; kill -0 {left}"));
    }
    machine.close();
}

#[test]
#[ignore = "long: boots Debian"]
fn the_agent_reads_its_configuration_again_and_says_what_it_does_in_fields_of_the_journal() {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    machine.boot();
    machine.install(Mode::Agent);
    let interface = machine.attach(1);
    machine.is_configured(&interface);
    // What it says is in the journal a moment later.
    let entries = |event: &str| -> Vec<Value> {
        let journal = format!("journalctl -b -u jackfield JACKFIELD_EVENT={event} -o json");
        let mut text = String::new();
        eventually(event, PATIENCE, || {
            text = machine.shell(&journal);
            !text.is_empty()
        });
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let plugged = entries("plugged");
    assert_eq!(plugged.len(), 1, "{plugged:#?}");
    assert_eq!(plugged[0]["JACKFIELD_INTERFACE"], "eth1");
    assert_eq!(plugged[0]["JACKFIELD_MAC"], interface.mac.to_string());
    let socket = machine.shell("stat --format '%a %U %F' /run/jackfield/org.jackfield");
    assert_eq!(socket, "600 jackfield socket");

    let pid = machine.main_process("jackfield");
    let streams = machine.streams(&[&interface]);
    let config = "/etc/jackfield/config.toml";
    machine.disk().write(config, "[agent]\nrefesh = \"10s\"\n");
    let reload = machine.command("systemctl").args(["reload", "jackfield"]).output().unwrap();
    assert!(!reload.status.success(), "{reload:?}");
    assert_eq!(entries("reload-failed").len(), 1);
    machine.disk().write(config, &format!("{LAB_CONFIG}refresh = \"10s\"\n"));
    machine.shell("systemctl reload jackfield");
    assert_eq!(entries("reloaded").len(), 1);
    streams.lose_nothing();
    assert_eq!(machine.main_process("jackfield"), pid);
    machine.is_configured(&interface);
    machine.close();
}

#[test]
#[ignore = "long: boots Debian"]
fn hooks_are_run_by_the_agent_in_its_sandbox() {
    hooks_are_run(Mode::Agent);
}

#[test]
#[ignore = "long: boots Debian"]
fn hooks_are_run_without_an_agent() {
    hooks_are_run(Mode::Udev);
}
