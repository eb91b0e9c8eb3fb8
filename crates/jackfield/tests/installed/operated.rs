//! What operators put beside the package.

use std::os::unix::fs::PermissionsExt;

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, packages};

/// What it prints is logged.
const HOOK: &str = "#!/bin/sh\necho \"the hook was told: $JACKFIELD_EVENT as $(id -un)\"\n";

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
        let journal = || machine.shell("journalctl -b --no-pager -u 'jackfield*'");
        let line = format!("the hook was told: {event} as jackfield");
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
