//! The configuration is read again while the agent runs.

use std::time::Duration;

use jackfield_lab::probe::{Echo, PacketStream};
use serde_json::Value;

use crate::harness::*;
use crate::rest::ServiceManager;
use crate::watch::Watch;

fn reload(stage: &Stage) -> std::process::Output {
    jackfield(&stage.a, &["reload"])
}

fn said(agent: &Agent, part: &str) -> bool {
    agent.log().iter().any(|line| line.contains(part))
}

#[test]
fn what_changed_takes_effect_without_a_packet_lost() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let _echo = Echo::start(&stage.a, &attached.addresses).unwrap();
    let every = Duration::from_millis(1);
    let to = attached.addresses[0];
    let stream = PacketStream::start(stage.lab.remote(), None, to, every).unwrap();
    let watch = Watch::start(&stage.a);

    agent.configure(&format!("{LAB_CONFIG}refresh = \"1s\"\n[defaults]\nmain_route = \"none\"\n"));
    let output = reload(&stage);
    assert_eq!((output.status.code(), &*output.stderr), (Some(0), &b""[..]), "{output:?}");
    let main = || shell(&stage.a, "ip route show proto 106; ip -6 route show proto 106");
    assert_eq!(main(), "", "main's last resort is there still");
    // Nothing else was touched, and nobody is blamed for it.
    let ours = watch.ours();
    assert!(!ours.is_empty() && ours.iter().all(|seen| seen.removed), "{ours:#?}");
    assert!(!said(&agent, "changed by somebody else"), "{:#?}", agent.log());

    agent.configure(LAB_CONFIG);
    agent.hang_up();
    becomes(&before, &stage.a);
    let report = stream.finish();
    assert!(report.sent > 0 && report.lost.is_empty(), "{report:?}");

    agent.configure(&format!("{LAB_CONFIG}[defaults]\nmanage = false\n"));
    assert!(reload(&stage).status.success());
    assert!(!NetworkState::of(&stage.a).has_ours(), "not all of it is taken back");
    assert!(said(&agent, "eth1") && said(&agent, "is unplugged"), "{:#?}", agent.log());
    agent.configure(LAB_CONFIG);
    assert!(reload(&stage).status.success());
    assert_same(&before, &NetworkState::settled(&stage.a));
    agent.stop();
}

#[test]
fn a_wrong_configuration_is_told_of_and_the_old_one_stays() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let problem = |told: &Value| told["agent"]["configuration_error"].clone();
    assert_eq!(problem(&status(&stage.a)), Value::Null);
    for (config, parts) in [
        ("[defaults]\nmanage = \"no\"\n", &["line 2", "manage"][..]),
        ("[agent]\ndevice_kinds = [\"physical\"]\n", &["agent.device_kinds", "restart"]),
        ("[agent]\ndevice_kinds = [\"veth\", \"physical\"]\ntable_base = 20000\n", &["table_base"]),
    ] {
        agent.configure(config);
        let (code, text) = failure(&reload(&stage));
        assert_eq!((code, text.lines().count()), (2, 1), "{text}");
        for part in parts.iter().chain(&["what was read before is in effect"]) {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let text = succeed(&stage.a, &["status"]);
        assert!(text.starts_with("1 problem (configuration); "), "{text}");
        assert!(problem(&status(&stage.a)).as_str().unwrap().contains(parts[0]));
    }
    let told = agent.log().len();
    agent.hang_up();
    let logged = || agent.log()[told..].iter().any(|line| line.contains("stays as it was"));
    eventually("it is logged", PATIENCE, logged);
    assert_same(&before, &NetworkState::of(&stage.a));

    agent.configure(LAB_CONFIG);
    assert!(reload(&stage).status.success());
    assert_eq!(problem(&status(&stage.a)), Value::Null);
    assert_same(&before, &NetworkState::of(&stage.a));
    agent.stop();
}

#[test]
fn sockets_move_and_one_that_cannot_leaves_the_old_one() {
    let stage = Stage::new();
    let with = |sockets: &str| format!("{LAB_CONFIG}{sockets}");
    let agent = Agent::with_config(&stage.a, &with("api = \"/run/first\"\n"));
    agent.wait_until_started();
    let there = |path: &str| stage.a.run(|| std::fs::exists(path).unwrap()).unwrap();
    assert!(there("/run/first"));
    agent.configure(&with("api = \"/run/second\"\nmetrics = \"unix:/run/metrics\"\n"));
    assert!(reload(&stage).status.success());
    assert!(!there("/run/first") && there("/run/second") && there("/run/metrics"));
    agent.configure(&with("api = \"/run/third\"\nmetrics = \"unix:/run/no/metrics\"\n"));
    let (code, text) = failure(&reload(&stage));
    assert!(code == 2 && text.contains("agent.metrics: cannot listen on unix:/run/no"), "{text}");
    assert!(!there("/run/third") && there("/run/second") && there("/run/metrics"));
    agent.stop();
}

#[test]
fn the_service_manager_hears_when_a_reload_begins_and_ends() {
    let stage = Stage::new();
    let manager = ServiceManager::new();
    let path = manager.path();
    let environment = [("NOTIFY_SOCKET", path.as_str())];
    let agent = Agent::with_environment(&stage.a, LAB_CONFIG, &environment);
    assert_eq!(manager.next().0, "READY=1");
    for config in [LAB_CONFIG, "[agent]\nx = 1\n"] {
        agent.configure(config);
        agent.hang_up();
        let reloading = manager.next().0;
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(since.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(manager.next().0, "READY=1");
    }
    agent.stop();
    assert_eq!(manager.next().0, "STOPPING=1");
}

#[test]
fn without_an_agent_there_is_nothing_to_reload() {
    let stage = Stage::new();
    let (code, text) = failure(&reload(&stage));
    assert_eq!((code, text.lines().count()), (1, 1), "{text}");
    assert!(text.contains("no jackfield agent runs in this network namespace; "), "{text}");
}
