//! An interface that somebody else configures is left to him, and nobody is fought with.

use std::collections::BTreeMap;
use std::time::Duration;

use jackfield_kernel::{Family, LinkChange, Monitor, Notification, Subject};
use jackfield_lab::{Instance, Plug, Process};
use serde_json::Value;

use crate::harness::*;

/// As networkd leaves it that runs, with a configuration for just this interface.
fn configure_by_networkd(host: &Instance, interface: &str) {
    let file = format!("/run/systemd/network/10-{interface}.network");
    shell(
        host,
        &format!(
            "mkdir -p /run/systemd/netif/links /run/systemd/network
             echo OPER_STATE=routable >/run/systemd/netif/state
             printf '[Match]\\nName={interface}\\n' >{file}"
        ),
    );
}

fn interface<'s>(status: &'s Value, name: &str) -> &'s Value {
    let interfaces = status["interfaces"].as_array().unwrap();
    interfaces.iter().find(|it| it["name"] == name).unwrap()
}

fn codes(interface: &Value) -> Vec<&str> {
    let problems = interface["problems"].as_array().unwrap();
    problems.iter().map(|problem| problem["code"].as_str().unwrap()).collect()
}

#[test]
fn an_interface_of_somebody_elses_is_not_touched() {
    let stage = Stage::new();
    configure_by_networkd(&stage.a, "eth1");
    let agent = Agent::start(&stage.a);
    let others = stage.attach(2, 1, 2);
    let own = stage.attach(3, 2, 2);
    configured_within(&stage.a, &own, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let told = status(&stage.a);
    let foreign = interface(&told, &others.name);
    let said = (&foreign["state"], &foreign["owner"], codes(foreign));
    assert_eq!(said, (&"foreign".into(), &"systemd-networkd".into(), vec!["foreign"]), "{told:#}");
    assert_eq!(interface(&told, &own.name)["state"], "configured");
    assert_eq!(told["neighbours"][0]["name"], "systemd-networkd");
    assert_eq!(told["neighbours"][0]["interfaces"], serde_json::json!([others.name]));
    assert!(!before.lines().any(|line| line.contains("eth1") && line.contains("106")));

    // Neither does anybody by hand, without saying that it is meant.
    let (code, text) = failure(&jackfield(&stage.a, &["plug", &others.name]));
    assert!(code == 1 && text.contains("left to systemd-networkd"), "{text}");
    succeed(&stage.a, &["scan"]);
    assert_same(&before, &NetworkState::of(&stage.a));
    agent.stop();
}

#[test]
fn an_interface_of_somebody_elses_is_plugged_where_that_is_configured() {
    let stage = Stage::new();
    configure_by_networkd(&stage.a, "eth1");
    let insist = "[[interface]]\nmatch = { name = \"eth1\" }\nmanage = true\n";
    let agent = Agent::with_config(&stage.a, &format!("{LAB_CONFIG}{insist}"));
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    agent.stop();
}

#[test]
fn an_interface_is_plugged_soon_after_its_owner_has_let_it_go() {
    let stage = Stage::new();
    configure_by_networkd(&stage.a, "eth1");
    let hasty = "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n";
    let agent = Agent::with_config(&stage.a, hasty);
    let attached = stage.attach(2, 1, 2);
    eventually("it is left alone", PATIENCE, || {
        agent.log().iter().any(|line| line.contains("eth1: it is left to systemd-networkd"))
    });
    shell(&stage.a, "rm /run/systemd/network/10-eth1.network");
    configured_within(&stage.a, &attached, PATIENCE);
    agent.stop();
}

#[test]
fn an_interface_that_is_plugged_stays_so_when_somebody_else_comes() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 2);
    succeed(&stage.a, &["plug", "eth1"]);
    configure_by_networkd(&stage.a, "eth1");
    succeed(&stage.a, &["scan"]);
    configured_within(&stage.a, &attached, PATIENCE);
    let told = status(&stage.a);
    let eth1 = interface(&told, "eth1");
    assert_eq!(eth1["state"], "configured", "{told:#}");
    // Who it is, and that he deletes what is not his.
    assert_eq!(codes(eth1), ["also-managed", "rules-deleted-by-others"], "{told:#}");
    let text = succeed(&stage.a, &["status"]);
    assert!(text.contains("beside systemd-networkd (/run/systemd/netif/state): eth1"), "{text}");
}

/// How often rules were made and removed since the last call.
fn rules_made(monitor: &mut Monitor, made: &mut BTreeMap<(Family, u32), usize>) {
    monitor
        .receive(|notification| match notification {
            Notification::Changed { subject: Subject::Rule(rule), removed: false, .. } => {
                *made.entry((rule.family, rule.priority)).or_default() += 1;
            }
            Notification::Changed { .. } => {}
            Notification::Lost => panic!("notifications were lost"),
        })
        .unwrap();
}

/// The agent has looked, and nothing is left to do.
fn wait_until_it_works(agent: &Agent) {
    eventually("it works", PATIENCE, || agent.log().iter().any(|line| line.contains(" works: ")));
}

#[test]
fn a_rule_that_somebody_deletes_each_time_is_repaired_three_times_and_then_left_alone() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    stage.attach(2, 1, 2);
    wait_until_it_works(&agent);
    let before = NetworkState::settled(&stage.a);
    let mut monitor = stage.a.run(Monitor::open).unwrap().unwrap();
    let mut made = BTreeMap::new();

    let mut deleter = stage.a.command("sh").unwrap();
    deleter.args(["-c", "while sleep 0.05; do ip -4 rule del table 10001 2>/dev/null; done"]);
    let deleter = Process::start(&mut deleter).unwrap();
    let of_eth1 = |told: &Value| interface(told, "eth1").clone();
    eventually("status says so", PATIENCE, || {
        codes(&of_eth1(&status(&stage.a))).contains(&"left-alone")
    });
    // Whoever deletes it goes on for as long as it would take to see another repair.
    std::thread::sleep(Duration::from_secs(2));
    rules_made(&mut monitor, &mut made);
    assert_eq!(made.values().collect::<Vec<_>>(), [&3], "{made:?} {:#?}", agent.log());
    let told = of_eth1(&status(&stage.a));
    assert_eq!(told["state"], "error", "{told:#}");
    let problems = told["problems"].as_array().unwrap();
    let problem = problems.iter().find(|problem| problem["code"] == "left-alone").unwrap();
    let text = problem["text"].as_str().unwrap();
    assert!(text.contains("from 10.0.2.10/31 iif lo lookup 10001' was undone"), "{text}");
    let warned = |line: &String| line.contains("warning: undone again and again");
    assert_eq!(agent.log().iter().filter(|line| warned(line)).count(), 1, "{:#?}", agent.log());

    // Nothing else is left alone.
    let index = stage.a.link("eth1").unwrap().index;
    let mtu = LinkChange { mtu: Some(1400), ..LinkChange::default() };
    stage.a.apply("change the MTU", &[mtu.request(index)]).unwrap();
    eventually("the MTU is back", PATIENCE, || stage.a.link("eth1").unwrap().mtu == 1500);

    // By hand, once whoever it was has gone.
    drop(deleter);
    succeed(&stage.a, &["scan"]);
    becomes(&before, &stage.a);
    eventually("nothing is left alone", PATIENCE, || {
        of_eth1(&status(&stage.a))["state"] == "configured"
    });
    assert_eq!(codes(&of_eth1(&status(&stage.a))), [""; 0]);
    agent.stop();
}

#[test]
fn a_device_that_somebody_sets_down_each_time_is_left_down_at_last() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    stage.attach(2, 1, 2);
    wait_until_it_works(&agent);
    let index = stage.a.link("eth1").unwrap().index;
    let down = LinkChange { up: Some(false), ..LinkChange::default() };
    for _ in 0..3 {
        stage.a.apply("set it down", &[down.request(index)]).unwrap();
        eventually("it is up again", PATIENCE, || stage.a.link("eth1").unwrap().up);
        eventually("it is configured", PATIENCE, || {
            interface(&status(&stage.a), "eth1")["state"] == "configured"
        });
    }
    stage.a.apply("set it down", &[down.request(index)]).unwrap();
    eventually("status says so", PATIENCE, || {
        codes(interface(&status(&stage.a), "eth1")).contains(&"left-alone")
    });
    assert!(!stage.a.link("eth1").unwrap().up);
    // Nothing is tried on it that needs it up.
    let log = agent.stop();
    let last = log.iter().rposition(|line| line.contains("undone again and again")).unwrap();
    assert!(!log[last..].iter().any(|line| line.contains("refused")), "{log:#?}");
}

#[test]
fn interfaces_that_come_and_go_are_no_quarrel() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    for _ in 0..6 {
        configured_within(&stage.a, &attached, PATIENCE);
        stage.lab.detach(attached.mac).unwrap();
        eventually("nothing of it is left", PATIENCE, || !NetworkState::of(&stage.a).has_ours());
        stage.lab.attach(&stage.a, attached.mac, &Plug::new(1)).unwrap();
    }
    configured_within(&stage.a, &attached, PATIENCE);
    let log = agent.stop();
    assert!(!log.iter().any(|line| line.contains("undone again and again")), "{log:#?}");
}
