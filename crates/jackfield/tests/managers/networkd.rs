//! systemd-networkd, which has the primary interface.

use std::time::{Duration, Instant};

use jackfield_kernel::{Monitor, Notification};
use jackfield_lab::Instance;
use serde_json::json;

use crate::enclosure::{Enclosure, Program, are_installed};
use crate::harness::*;
use crate::seen::{interface, is_ours, problem, removed_while, wrong};

const NETWORKD: Program = Program { file: "/lib/systemd/systemd-networkd", package: "systemd" };
const NETWORKCTL: Program = Program { file: "/usr/bin/networkctl", package: "systemd" };
const OUR_DROP_IN: &str = include_str!("../../../../packaging/networkd/50-jackfield.conf");

/// A stage in whose instance udev runs. None where a program is missing, which is said.
fn stage() -> Option<Stage> {
    if !are_installed(&[NETWORKD, NETWORKCTL]) {
        return None;
    }
    let mut stage = Stage::new();
    stage.a.start_udev(&[]).unwrap();
    Some(stage)
}

/// networkd with the primary, as DHCP would have left it, and with these drop-ins.
fn networkd<'a>(a: &'a Instance, drop_ins: &[(&str, &str)]) -> Enclosure<'a> {
    let mut enclosure = Enclosure::new(a, &["/etc/systemd"]);
    let mut primary = "[Match]\nName=eth0\n[Network]\nIPv6AcceptRA=no\n".to_owned();
    for address in a.primary().addresses() {
        let (length, gateway) = match address.is_ipv4() {
            true => (24, "10.0.1.1"),
            false => (64, "fe80:ec2::1"),
        };
        primary += &format!("Address={address}/{length}\nGateway={gateway}\n");
    }
    enclosure.write("/etc/systemd/network/50-primary.network", &primary);
    for (name, text) in drop_ins {
        enclosure.write(&format!("/etc/systemd/networkd.conf.d/{name}"), text);
    }
    // It gives up its privileges before it could make this.
    shell(a, "install -d -o systemd-network -g systemd-network /run/systemd/netif");
    start(&mut enclosure, a);
    enclosure
}

/// Starts it, or starts it again, and waits until it has configured the primary.
fn start(enclosure: &mut Enclosure<'_>, a: &Instance) {
    enclosure.start(NETWORKD.file, &[]);
    wait_for_networkd(enclosure, a);
}

fn wait_for_networkd(enclosure: &Enclosure<'_>, a: &Instance) {
    let configured = || {
        let list = a.command("networkctl").unwrap().args(["--no-legend", "list", "eth0"]).output();
        String::from_utf8(list.unwrap().stdout).unwrap().contains("configured")
    };
    let end = Instant::now() + PATIENCE;
    while !configured() {
        assert!(Instant::now() < end, "networkd does not configure eth0: {}", enclosure.log());
    }
}

#[test]
fn with_our_drop_in_nothing_of_ours_goes_when_networkd_reconfigures_or_starts_again() {
    let Some(stage) = stage() else { return };
    let a = &stage.a;
    let mut enclosure = networkd(a, &[("50-jackfield.conf", OUR_DROP_IN)]);
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 2);
    configured_within(a, &attached, PATIENCE);
    eventually("it works", PATIENCE, || interface(&status(a), "eth1")["state"] == "configured");
    let told = status(a);
    assert_eq!(interface(&told, "eth1")["problems"], json!([]), "{told:#}");
    assert_eq!(told["neighbours"][0]["name"], "systemd-networkd", "{told:#}");
    assert_eq!(told["neighbours"][0]["interfaces"], json!(["eth0"]), "{told:#}");
    // But for the udev rule, which nobody installed, all is well.
    let found = wrong(a);
    assert!(
        found.iter().all(|(check, _, text)| check == "installed" && text.contains("86-jackfield")),
        "{found:#?}"
    );

    // Nobody is there to repair anything.
    agent.stop();
    let removed = removed_while(a, || {
        shell(a, "networkctl reconfigure eth0");
        wait_for_networkd(&enclosure, a);
        enclosure.write("/etc/systemd/network/90-dummy.network", "[Match]\nName=dummy9\n");
        shell(a, "networkctl reload");
        wait_for_networkd(&enclosure, a);
        start(&mut enclosure, a);
    });
    assert_eq!(removed, [], "{}", enclosure.log());
    assert_eq!(jackfield(a, &["plan"]).status.code(), Some(0));
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    assert_eq!(stage.lab.violations(), []);
}

/// When the first rule or route of ours went and the last of them came back, as often as that is so.
fn reconfigure_and_repair(a: &Instance, before: &NetworkState) -> Duration {
    let mut monitor = a.run(Monitor::open).unwrap().unwrap();
    shell(a, "networkctl reconfigure eth0");
    let (mut removed, mut made) = (None, None);
    eventually("networkd deletes what is ours, and it is back", PATIENCE, || {
        monitor
            .receive(|notification| match notification {
                Notification::Changed { subject, removed: gone, .. } if is_ours(&subject) => {
                    if gone {
                        removed.get_or_insert_with(Instant::now);
                    } else {
                        made = Some(Instant::now());
                    }
                }
                Notification::Changed { .. } => {}
                Notification::Lost => panic!("notifications were lost"),
            })
            .unwrap();
        removed.is_some() && made.is_some() && *before == NetworkState::without(a, &["eth0"])
    });
    made.unwrap().duration_since(removed.unwrap())
}

#[test]
fn without_it_what_networkd_deletes_is_back_within_a_second_three_times_and_status_says_who_it_is()
{
    let Some(stage) = stage() else { return };
    let a = &stage.a;
    let enclosure = networkd(a, &[]);
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 2);
    configured_within(a, &attached, PATIENCE);
    eventually("it works", PATIENCE, || interface(&status(a), "eth1")["state"] == "configured");
    // Before anything happens.
    let told = interface(&status(a), "eth1");
    let warned = problem(&told, "rules-deleted-by-others").unwrap();
    assert!(warned["text"].as_str().unwrap().starts_with("systemd-networkd"), "{told:#}");
    let cure = warned["fix"].as_str().unwrap();
    assert!(cure.contains("ManageForeignRoutingPolicyRules=no"), "{told:#}");
    let found = wrong(a);
    let says = |of: &str, words: &str| {
        found
            .iter()
            .any(|(check, result, text)| check == of && result == "warning" && text.contains(words))
    };
    assert!(says("neighbour", "deletes rules and routes"), "{found:#?}");
    assert!(says("installed", "50-jackfield.conf is not installed"), "{found:#?}");

    let before = NetworkState::without(a, &["eth0"]);
    for _ in 0..3 {
        let took = reconfigure_and_repair(a, &before);
        wait_for_networkd(&enclosure, a);
        assert!(took < Duration::from_secs(1), "{took:?}");
        eprintln!("what networkd deleted was back after {took:?}");
    }
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);

    // Once more in this minute, and it is left alone.
    shell(a, "networkctl reconfigure eth0");
    eventually("status says so", PATIENCE, || {
        problem(&interface(&status(a), "eth1"), "left-alone").is_some()
    });
    let told = interface(&status(a), "eth1");
    assert_eq!(told["state"], "error", "{told:#}");
    let left = problem(&told, "left-alone").unwrap();
    assert!(left["text"].as_str().unwrap().contains("by systemd-network"), "{told:#}");
    let cure = left["fix"].as_str().unwrap();
    assert!(cure.contains("ManageForeignRoutingPolicyRules=no"), "{told:#}");

    // The cure.
    wait_for_networkd(&enclosure, a);
    enclosure.write("/etc/systemd/networkd.conf.d/50-jackfield.conf", OUR_DROP_IN);
    let mut enclosure = enclosure;
    start(&mut enclosure, a);
    succeed(a, &["scan"]);
    eventually("all is as it was", PATIENCE, || {
        interface(&status(a), "eth1")["problems"] == json!([])
    });
    assert_eq!(
        removed_while(a, || {
            shell(a, "networkctl reconfigure eth0");
            wait_for_networkd(&enclosure, a);
        }),
        []
    );
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    agent.stop();
}
