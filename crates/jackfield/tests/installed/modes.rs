//! With an agent or without: one or the other.

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, packages};

#[test]
#[ignore = "long: boots Debian"]
fn only_one_of_the_modes_can_be_enabled_and_only_one_runs() {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    machine.boot();
    machine.install(Mode::Agent);
    let one = machine.attach(1);
    machine.is_configured(&one);
    // It is asked to reload by its own unit, in its sandbox, and by root.
    let process = machine.main_process("jackfield.service");
    machine.shell("systemctl reload jackfield; jackfield reload");
    machine.disk().write("/etc/jackfield/config.toml", "[agent]\nrefesh = \"30s\"\n");
    let wrong = machine.command("systemctl").args(["reload", "jackfield"]).output().unwrap();
    assert!(!wrong.status.success(), "{wrong:?}");
    machine.disk().write("/etc/jackfield/config.toml", LAB_CONFIG);
    assert_eq!(machine.main_process("jackfield.service"), process, "it is the same agent");

    let refused = machine.command("systemctl").args(["enable", "jackfield-scan"]).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    let enabled = "systemctl is-enabled jackfield jackfield-scan || true";
    assert_eq!(machine.shell(enabled), "enabled\ndisabled");

    // Started all the same, it ends the agent, and the network stays as it is.
    let before = NetworkState::settled(machine.a());
    let active = "systemctl is-active jackfield jackfield-scan || true";
    machine.shell("systemctl start jackfield-scan");
    assert_eq!(machine.shell(active), "inactive\nactive");
    assert_same(&before, &NetworkState::settled(machine.a()));
    machine.shell("systemctl start jackfield");
    assert_eq!(machine.shell(active), "active\ninactive");
    assert_same(&before, &NetworkState::settled(machine.a()));

    // By one step each way. The unit that was started without an agent stays with one.
    let plugged = format!("systemctl is-active jackfield-plug@{}.service || true", one.mac);
    for (mode, states) in [(Mode::Udev, "disabled\nenabled"), (Mode::Agent, "enabled\ndisabled")] {
        machine.shell(&format!("systemctl enable --now --force {}", mode.unit()));
        assert_eq!(machine.shell(enabled), states);
        machine.is_active(mode.unit());
        eventually("its own unit is active", PATIENCE, || machine.shell(&plugged) == "active");
        // Whatever happens to the device while it is there, it is what its unit is bound to.
        machine.shell("udevadm trigger --action=change --settle --subsystem-match=net");
        let properties = machine.shell("udevadm info --query=property /sys/class/net/eth1");
        let name = format!("/jackfield/{}", one.mac);
        assert!(properties.contains(&name), "{mode:?}: {properties}");
        assert_eq!(machine.shell(&plugged), "active", "{mode:?}");
        assert_same(&before, &NetworkState::settled(machine.a()));
    }

    // An agent whose device goes leaves nothing to a unit that was started without one.
    machine.stage.lab.detach(one.mac).unwrap();
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(machine.a()).has_ours());
    machine.close();
}
