//! An interface that somebody else configures is left to him.

use jackfield_lab::Instance;
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
