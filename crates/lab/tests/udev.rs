//! Real systemd-udevd in an instance. Where it cannot run these tests say so and do nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

use jackfield_kernel::{DeviceAction, DeviceEvent, DeviceEvents, udev_has_finished, udev_runs};
use jackfield_lab::{Instance, Lab, LabError, Plug};
use std::time::{Duration, Instant};

/// A lab with an instance in which udevd runs, or none where it cannot.
fn lab(rules: &[(&str, &str)]) -> Option<(Lab, Instance)> {
    let lab = Lab::start().unwrap();
    let mut instance = lab.instance("a", &lab.subnet(1)).unwrap();
    match instance.start_udev(rules) {
        Ok(()) => Some((lab, instance)),
        Err(LabError::Unsupported(why)) => {
            eprintln!("NOT TESTED: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn udev_renames_by_a_rule_and_says_when_it_has_finished() {
    let rule =
        r#"ACTION=="add", SUBSYSTEM=="net", ATTR{address}=="02:ec:20:00:00:02", NAME="ens42""#;
    let Some((lab, instance)) = lab(&[("70-names.rules", rule)]) else { return };
    let secondary = lab.interface(&lab.subnet(2), 1).unwrap();
    assert_eq!(secondary.mac.to_string(), "02:ec:20:00:00:02");
    let mut events = instance.run(DeviceEvents::open).unwrap().unwrap();
    lab.attach(&instance, secondary.mac, &Plug::new(1)).unwrap();
    let mut seen: Vec<DeviceEvent> = Vec::new();
    let end = Instant::now() + Duration::from_secs(10);
    // Renaming is an event of its own, which udev has to handle as well.
    let renamed = |event: &DeviceEvent| {
        event.finished_by_udev && event.action == DeviceAction::Move && event.name == "ens42"
    };
    while !seen.iter().any(renamed) {
        assert!(Instant::now() < end, "{seen:?}");
        events.receive(|event| seen.extend(event)).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let link = instance.link("ens42").unwrap();
    assert_eq!(link.address, Some(secondary.mac.0));
    assert!(instance.run(|| udev_runs() && udev_has_finished(link.index)).unwrap());
    let primary = instance.link("eth0").unwrap().index;
    assert!(instance.run(|| udev_has_finished(primary)).unwrap(), "it was there before");
}

#[test]
fn an_instance_has_a_sys_and_a_run_of_its_own() {
    let lab = Lab::start().unwrap();
    let instance = lab.instance("a", &lab.subnet(1)).unwrap();
    let list = |path| {
        let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(instance.run(|| list("/sys/class/net")).unwrap(), ["eth0", "lo"]);
    assert_eq!(instance.run(|| list("/run")).unwrap(), [""; 0]);
    assert!(!instance.run(udev_runs).unwrap());
    let output = instance.command("ls").unwrap().arg("/sys/class/net").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "eth0\nlo\n");
    assert_ne!(list("/sys/class/net"), ["eth0", "lo"], "the machine's own");
}
