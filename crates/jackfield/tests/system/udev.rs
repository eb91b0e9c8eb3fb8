//! Real systemd-udevd in the instance: it renames, it takes its time, it hangs.

use std::time::{Duration, Instant};

use jackfield_kernel::{Monitor, Notification, Subject};
use jackfield_lab::{Instance, LabError, Plug, Plugged};

use crate::harness::*;
use crate::kernel_state::Observer;

/// A stage with an instance in which udevd runs, and the interface that its rules are about. None
/// where udevd cannot run, which is said.
fn stage(rules: impl Fn(&str) -> String) -> Option<(Stage, Attached)> {
    let mut stage = Stage::new();
    let interface = stage.lab.interface(&stage.subnets[1], 2).unwrap();
    let attached = Attached { name: "ens6".to_owned(), ..Attached::of(&interface, 1) };
    let rules = rules(&attached.mac.to_string());
    match stage.a.start_udev(&[("70-names.rules", &rules)]) {
        Ok(()) => Some((stage, attached)),
        Err(LabError::Unsupported(why)) => {
            not_tested(why);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn named(mac: &str) -> String {
    format!("ACTION==\"add\", SUBSYSTEM==\"net\", ATTR{{address}}==\"{mac}\", NAME=\"ens6\"\n")
}

/// As [`named`], after so many seconds.
fn named_after(mac: &str, seconds: u32) -> String {
    let condition = format!("ACTION==\"add\", SUBSYSTEM==\"net\", ATTR{{address}}==\"{mac}\"");
    format!("{condition}, PROGRAM=\"/bin/sleep {seconds}\"\n{}", named(mac))
}

/// Every state of one device in the order in which the kernel told them: its name, and whether it
/// was up.
struct History {
    monitor: Monitor,
    index: u32,
    seen: Vec<(String, bool)>,
}

impl History {
    /// Attaches the interface, watched from its first moment on.
    fn of_attach(stage: &Stage, attached: &Attached) -> (Self, Plugged) {
        let monitor = watch(&stage.a);
        let plugged = stage.lab.attach(&stage.a, attached.mac, &Plug::new(1)).unwrap();
        // It may have its other name by now.
        let links = stage.a.links().unwrap();
        let index = links.iter().find(|l| l.address == Some(attached.mac.0)).unwrap().index;
        (History { monitor, index, seen: Vec::new() }, plugged)
    }

    fn take(&mut self) -> &[(String, bool)] {
        let History { monitor, index, seen } = self;
        monitor
            .receive(|notification| match notification {
                Notification::Changed { subject: Subject::Link(link), removed: false, .. } => {
                    if link.index == *index {
                        seen.push((link.name, link.up));
                    }
                }
                Notification::Changed { .. } => {}
                Notification::Lost => panic!("notifications were lost"),
            })
            .unwrap();
        seen
    }

    /// It came up, and never under its old name.
    #[track_caller]
    fn assert_up_as_only(&mut self, name: &str) {
        let seen = self.take();
        let up: Vec<&String> = seen.iter().filter(|(_, up)| *up).map(|(name, _)| name).collect();
        assert!(!up.is_empty() && up.iter().all(|is| *is == name), "{seen:?}");
    }
}

fn watch(host: &Instance) -> Monitor {
    host.run(Monitor::open).unwrap().unwrap()
}

#[track_caller]
fn assert_configured_as(stage: &Stage, name: &str) {
    eventually("it is configured under its name", PATIENCE, || {
        let status = status(&stage.a);
        let interfaces = status["interfaces"].as_array().unwrap();
        interfaces.iter().any(|it| it["name"] == name && it["state"] == "configured")
    });
}

fn warnings(agent: &Agent) -> Vec<String> {
    let bad = |line: &String| line.contains(": warning: ") || line.contains(": error: ");
    agent.log().into_iter().filter(bad).collect()
}

#[test]
fn an_interface_that_udev_renames_is_brought_up_under_its_new_name_only() {
    let Some((stage, attached)) = stage(named) else { return };
    let mut observer = Observer::new(&stage.a);
    let before = observer.look();
    let agent = Agent::start(&stage.a);
    // Its first look at a machine that knows what udev has finished with.
    agent.wait_until_started();
    for _ in 0..5 {
        let (mut history, _) = History::of_attach(&stage, &attached);
        answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
        history.assert_up_as_only("ens6");
        assert_configured_as(&stage, "ens6");
        stage.lab.detach(attached.mac).unwrap();
        eventually("all is as it was", PATIENCE, || observer.look() == before);
    }
    assert!(warnings(&agent).len() <= 2, "{:#?}", warnings(&agent));
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}

#[test]
fn while_udev_takes_its_time_metadata_is_asked_and_the_interface_stays_down() {
    let Some((stage, attached)) = stage(|mac| named_after(mac, 2)) else { return };
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    let mark = stage.lab.cloud().request_count();
    let (mut history, plugged) = History::of_attach(&stage, &attached);
    let mac = attached.mac.to_string();
    let asked = stage.lab.cloud().wait_for_requests(mark, PATIENCE, |requests| {
        requests.iter().any(|request| request.path.contains(&mac))
    });
    assert!(asked, "nobody asked");
    let asked = plugged.appeared.elapsed();
    assert!(asked < Duration::from_secs(1), "asked after {asked:?}");
    assert!(history.take().iter().all(|(name, up)| name == "eth1" && !up), "{:?}", history.seen);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert!(plugged.appeared.elapsed() > Duration::from_secs(2), "udev was not waited for");
    history.assert_up_as_only("ens6");
    assert_configured_as(&stage, "ens6");
    assert_eq!(warnings(&agent), [""; 0]);
    agent.stop();
}

#[test]
fn that_udev_has_finished_is_no_change_by_somebody_else() {
    // It leaves the name as it is.
    let rules = |mac: &str| named_after(mac, 1).replace("ens6", "eth1");
    let Some((stage, attached)) = stage(rules) else { return };
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    stage.lab.attach(&stage.a, attached.mac, &Plug::new(1)).unwrap();
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert_configured_as(&stage, "eth1");
    assert_eq!(warnings(&agent), [""; 0]);
    agent.stop();
}

#[test]
fn a_plug_by_hand_waits_for_udev_too() {
    let Some((stage, attached)) = stage(|mac| named_after(mac, 1)) else { return };
    let (mut history, plugged) = History::of_attach(&stage, &attached);
    // By the name that it has when it is asked for.
    succeed(&stage.a, &["plug", "eth1"]);
    assert!(plugged.appeared.elapsed() > Duration::from_secs(1), "udev was not waited for");
    history.assert_up_as_only("ens6");
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    succeed(&stage.a, &["unplug", "ens6"]);
    assert!(!Observer::new(&stage.a).look().has_ours());
}

#[test]
fn an_interface_that_was_there_when_udev_started_works_at_once() {
    let mut stage = Stage::new();
    let attached = stage.attach(2, 1, 2);
    match stage.a.start_udev(&[]) {
        Err(LabError::Unsupported(why)) => return not_tested(why),
        started => started.unwrap(),
    }
    let agent = Agent::start(&stage.a);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert_configured_as(&stage, "eth1");
    assert_eq!(warnings(&agent), [""; 0]);
    agent.stop();
}

#[test]
fn without_udev_nothing_waits_for_it() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    let start = Instant::now();
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!agent.log().iter().any(|line| line.contains("udev")), "{:#?}", agent.log());
    agent.stop();
}

#[test]
#[ignore = "long: udev is waited for for half a minute"]
fn an_interface_that_udev_never_finishes_with_is_configured_all_the_same_with_a_warning() {
    let Some((stage, attached)) = stage(|mac| named_after(mac, 50)) else { return };
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    let (mut history, plugged) = History::of_attach(&stage, &attached);
    let long = Duration::from_secs(45);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, long);
    assert!(plugged.appeared.elapsed() > Duration::from_secs(28), "udev was not waited for");
    history.assert_up_as_only("eth1");
    let warnings = warnings(&agent);
    assert!(warnings.len() == 1 && warnings[0].contains("udev"), "{warnings:#?}");
    // When udev renames it at last, it goes on working.
    eventually("udev renames it", long, || stage.a.link("ens6").is_ok());
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert_configured_as(&stage, "ens6");
    agent.stop();
}
