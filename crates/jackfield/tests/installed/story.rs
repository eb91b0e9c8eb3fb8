//! From a bare machine to one with the package and back.

use crate::harness::*;
use crate::machine::Machine;
use crate::package::{Mode, assert_same_lines, packages};

/// From installation to purge: what is promised holds in between, and at the end nothing is left.
fn story(mode: Mode) {
    let (Some(mut machine), Some(_)) = (Machine::new(), packages()) else { return };
    eprintln!("{mode:?}: the machine boots in {:?}", machine.boot());
    let files = machine.files();
    let network = machine.network();
    let before = NetworkState::settled(machine.a());
    machine.talks(&[]);

    let streams = machine.streams(&[]);
    machine.install(mode);
    streams.lose_nothing();
    assert_same(&before, &NetworkState::settled(machine.a()));

    let streams = machine.streams(&[]);
    let one = machine.attach(1);
    eprintln!(
        "{mode:?}: the first interface has its addresses after {:?}",
        machine.is_configured(&one)
    );
    let two = machine.attach(2);
    eprintln!("{mode:?}: the second after {:?}", machine.is_configured(&two));
    streams.lose_nothing();
    machine.talks(&[&one, &two]);

    // Upgrade.
    let before = NetworkState::settled(machine.a());
    let agent = machine.main_process(mode.unit());
    let streams = machine.streams(&[&one, &two]);
    machine.upgrade();
    eventually("nothing is left to do", PATIENCE, || {
        machine.command("jackfield").arg("plan").output().unwrap().status.success()
    });
    streams.lose_nothing();
    assert_same(&before, &NetworkState::settled(machine.a()));
    assert_eq!(machine.main_process(mode.unit()) != agent, mode == Mode::Agent);

    // systemd ends and starts again, the interfaces in place, and the kernel keeps what it knew: nothing
    // may be made twice, or taken for somebody else's. (Nothing is counted meanwhile: networkd configures the
    // primary again.)
    eprintln!("{mode:?}: systemd has started again in {:?}", machine.reboot());
    machine.is_configured(&one);
    assert_same(&before, &NetworkState::settled(machine.a()));
    machine.talks(&[&one, &two]);

    // A reboot as it is of hardware: the kernel knows nothing any more, and the interfaces are there before
    // systemd is.
    machine.shut_down();
    machine.stage.a.power_cycle().unwrap();
    assert!(!NetworkState::of(machine.a()).has_ours());
    eprintln!("{mode:?}: a cold boot takes {:?}", machine.boot());
    for interface in [&one, &two] {
        machine.is_configured(interface);
    }
    machine.talks(&[&one, &two]);

    // Unplug.
    let streams = machine.streams(&[&one]);
    machine.stage.lab.detach(two.mac).unwrap();
    eventually("nothing of it is left", PATIENCE, || {
        machine.command("jackfield").arg("plan").output().unwrap().status.success()
    });
    streams.lose_nothing();
    machine.stage.lab.detach(one.mac).unwrap();
    becomes_bare(&machine);

    // Purge, another one plugged in: it is as hardware is that nobody has touched.
    let three = machine.attach(1);
    machine.is_configured(&three);
    let streams = machine.streams(&[]);
    machine.shell("dpkg --purge jackfield");
    streams.lose_nothing();
    assert_eq!(machine.shell("systemctl --failed --no-legend --plain"), "");
    assert!(!machine.a().link("eth1").unwrap().up);
    assert!(!NetworkState::of(machine.a()).has_ours());
    machine.stage.lab.detach(three.mac).unwrap();
    assert_same_lines(&files, &machine.files(), "files");
    assert_same_lines(&network, &machine.network(), "network");
    machine.talks(&[]);
    machine.close();
}

/// Waits until nothing of ours is in the network.
#[track_caller]
fn becomes_bare(machine: &Machine) {
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(machine.a()).has_ours());
}

#[test]
#[ignore = "long: boots Debian"]
fn from_installation_to_purge_with_the_agent() {
    story(Mode::Agent);
}

#[test]
#[ignore = "long: boots Debian"]
fn from_installation_to_purge_without_an_agent() {
    story(Mode::Udev);
}
