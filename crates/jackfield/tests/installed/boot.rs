//! What a machine is like that boots with the package.

use std::collections::BTreeMap;

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, packages};

/// Interfaces that are there before the machine is switched on, and at any moment while it boots, are
/// all plugged.
fn whenever_it_comes(mode: Mode) {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    machine.boot();
    machine.install(mode);
    machine.shut_down();
    machine.stage.a.power_cycle().unwrap();
    let mut attached = vec![machine.attach(1)];
    machine.power_on();
    // One at each of the steps of a boot, whichever unit has come how far.
    let steps = [
        "test -e /run/systemd/private",
        "systemctl is-active systemd-journald",
        "test -e /run/udev/data",
        "systemctl is-active systemd-udevd",
        "pgrep -f /lib/systemd/systemd-networkd",
        "test -e /run/jackfield -o -e /run/jackfield-scan",
        "systemctl is-active multi-user.target",
    ];
    for (device, step) in (2..).zip(steps) {
        eventually(step, PATIENCE, || {
            machine.command("sh").args(["-c", step]).output().unwrap().status.success()
        });
        attached.push(machine.attach(device));
    }
    machine.wait_until_booted();
    for interface in &attached {
        machine.is_configured(interface);
    }
    machine.talks(&attached.iter().collect::<Vec<_>>());
    machine.close();
}

#[test]
#[ignore = "long: boots Debian"]
fn interfaces_there_at_boot_and_plugged_in_while_it_boots_are_plugged_by_the_agent() {
    whenever_it_comes(Mode::Agent);
}

#[test]
#[ignore = "long: boots Debian"]
fn interfaces_there_at_boot_and_plugged_in_while_it_boots_are_plugged_without_an_agent() {
    whenever_it_comes(Mode::Udev);
}

#[test]
#[ignore = "long: boots Debian"]
fn the_agent_is_a_user_of_its_own_in_a_sandbox() {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    machine.boot();
    machine.install(Mode::Agent);
    let pid = machine.main_process("jackfield.service");
    let status = machine.shell(&format!("cat /proc/{pid}/status"));
    let fields: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(":\t")).collect();
    let user = machine.shell("id --user jackfield");
    assert_ne!(user, "0");
    assert_eq!(fields["Uid"], [&*user; 4].join("\t"));
    // CAP_NET_ADMIN is bit 12, and this is all.
    for set in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
        assert_eq!(fields[set], "0000000000001000", "{set}");
    }
    assert_eq!(fields["NoNewPrivs"], "1");
    assert_eq!(fields["Seccomp"], "2");
    for unit in ["jackfield.service", "jackfield-scan.service", "jackfield-plug@it.service"] {
        let report = machine.shell(&format!("systemd-analyze security --no-pager {unit}"));
        let overall = report.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        let words: Vec<&str> = overall.split_whitespace().collect();
        let level = words.iter().find_map(|word| word.parse::<f64>().ok()).unwrap();
        eprintln!("{overall}");
        assert!(level <= 2.0, "{report}");
    }
    // What it cannot do, its user and its mounts do not let it.
    let inside = format!(
        "nsenter --target {pid} --mount setpriv --reuid jackfield --regid jackfield \
                          --clear-groups sh -c"
    );
    for file in ["/etc/jackfield/new", "/usr/new", "/proc/sys/kernel/hostname", "/var/lib/new"] {
        machine.shell(&format!("! {inside} 'echo x >{file}' 2>/dev/null"));
    }
    machine.close();
}
