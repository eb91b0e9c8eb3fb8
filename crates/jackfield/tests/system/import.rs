//! `jackfield import`: what ubuntu-ec2net and amazon-ec2-net-utils have configured is taken over while
//! packets go over every address, and nothing of theirs is left.
//!
//! What those tools do is done here by the commands and files that their sources have (docs/moving-over.md
//! says which): their scripts need a DHCP server, initscripts and a cloud of their own.

mod place;

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::harness::*;
use crate::killed::{is_killed, require_strace};
use place::{Generation, Place, Traffic, state};

/// Takes it over while traffic goes, and checks everything that is promised of it.
fn is_taken_over(by: Generation, mut watched: impl FnMut(&Attached) -> Vec<IpAddr>) {
    let place = Place::new();
    place.configure(by);
    let before = state(place.a());
    let listed = place.import(&[]);
    assert_eq!(listed["removed"], json!(false));
    assert_eq!(state(place.a()), before);
    let states: Vec<&Value> = listed["interfaces"].as_array().unwrap().iter().collect();
    let state_of =
        |name: &str| states.iter().find(|it| it["name"] == name).unwrap()["state"].clone();
    assert_eq!(state_of("eth1"), "to-be-taken-over", "{listed:#}");
    assert_eq!(state_of("eth2"), "to-be-taken-over", "{listed:#}");
    assert_eq!(listed["left"], json!([]), "{listed:#}");

    let addresses: Vec<IpAddr> = place.interfaces.iter().flat_map(&mut watched).collect();
    let traffic = Traffic::start(&place, &addresses);
    let monitor = IpMonitor::start(place.a());
    place.import(&["--remove"]);
    let events = monitor.finish();
    traffic.nothing_was_lost();
    let gone: Vec<&String> = events
        .iter()
        .filter(|line| line.contains("state DOWN") || line.contains("Deleted local"))
        .collect();
    assert!(gone.is_empty(), "{gone:#?}");
    for file in listed["files"].as_array().unwrap() {
        let (path, action) = (file["path"].as_str().unwrap(), &file["action"]);
        assert_eq!(place.exists(path), action != "remove", "{file}");
    }
    let left = place.a().run(|| {
        [
            "/etc/network/interfaces.d",
            "/etc/dhcp",
            "/etc/sysconfig/network-scripts",
            "/run/systemd/network",
        ]
        .map(|path| std::fs::read_dir(path).unwrap().count())
    });
    assert_eq!(left.unwrap(), [0; 4]);

    if by == Generation::Second {
        // Its package is for the package manager, and takes no new interface until then.
        assert_eq!(listed["steps"], json!(["apt purge amazon-ec2-net-utils"]));
        let mask = shell(place.a(), "readlink /etc/udev/rules.d/99-vpc-policy-routes.rules");
        assert_eq!(mask, "/dev/null\n");
    }
    let after = NetworkState::settled(place.a());
    let again = place.import(&["--remove"]);
    assert_eq!((&again["changes"], &again["done"]), (&json!([]), &json!([])), "{again:#}");
    assert_same(&after, &NetworkState::settled(place.a()));
    answers_within(place.stage.lab.remote(), place.a(), &place.addresses(), PATIENCE);
    place.assert_as_plugged();
}

#[test]
fn what_ubuntu_ec2net_configured_is_taken_over_and_no_packet_is_lost() {
    // It has nothing to do with IPv6.
    is_taken_over(Generation::Ubuntu, |it| {
        it.addresses.iter().copied().filter(IpAddr::is_ipv4).collect()
    });
}

#[test]
fn what_ec2_net_utils_1_configured_is_taken_over_and_no_packet_is_lost() {
    is_taken_over(Generation::First, |it| it.addresses.clone());
}

#[test]
fn what_amazon_ec2_net_utils_2_configured_is_taken_over_and_no_packet_is_lost() {
    is_taken_over(Generation::Second, |it| it.addresses.clone());
}

#[test]
fn an_agent_that_left_it_to_the_tool_goes_on_with_it() {
    let place = Place::new();
    place.configure(Generation::Second);
    let agent = Agent::start(place.a());
    let state_of = |name: &str| {
        let told = status(place.a());
        let all = told["interfaces"].as_array().unwrap().clone();
        all.into_iter().find(|it| it["name"] == name).unwrap()["state"].clone()
    };
    eventually("eth1 is the tool's", PATIENCE, || state_of("eth1") == "foreign");
    let traffic = Traffic::start(&place, &place.addresses());
    place.import(&["--remove"]);
    eventually("the agent has both", PATIENCE, || {
        state_of("eth1") == "configured" && state_of("eth2") == "configured"
    });
    traffic.nothing_was_lost();
    agent.stop();
    place.assert_as_plugged();
}

#[test]
fn an_interface_with_ec2sync_no_and_files_that_somebody_changed_are_left() {
    let place = Place::new();
    place.configure(Generation::Ubuntu);
    let own = "/etc/network/interfaces.d/eth2.cfg";
    shell(place.a(), &format!("echo EC2SYNC=no >>{own}"));
    let hotplug = "/etc/network/ec2net.hotplug";
    place.write(hotplug, "#!/bin/bash\n. /etc/network/ec2net-functions\n# mine\n");
    let of_eth2 = || {
        let mut all = state(place.a());
        all.retain(|line| line.contains("10002") || line.contains(" eth2 "));
        all
    };
    let before = of_eth2();

    let told = place.import(&["--remove"]);
    assert_eq!(of_eth2(), before);
    let left =
        told["interfaces"].as_array().unwrap().iter().find(|it| it["name"] == "eth2").unwrap();
    assert_eq!(left["state"], "left", "{told:#}");
    assert_eq!(left["reason"], format!("EC2SYNC=no in {own}"));
    let mac = place.interfaces[1].mac;
    let config = told["config"][0].as_str().unwrap();
    assert!(config.contains(&format!("{mac}")) && config.contains("manage = false"), "{config}");
    assert!(place.exists(own) && place.exists("/etc/dhcp/dhclient-eth2.conf"));
    assert!(!place.exists("/etc/network/interfaces.d/eth1.cfg"));
    let file = told["files"].as_array().unwrap().iter().find(|it| it["path"] == hotplug).unwrap();
    assert_eq!(file["action"], "leave");
    assert!(file["reason"].as_str().unwrap().starts_with("changed by hand"), "{file}");
    assert!(place.exists(hotplug));
    // What is left keeps its line in ifupdown's list of what is up.
    assert_eq!(shell(place.a(), "cat /run/network/ifstate"), "lo=lo\neth0=eth0\neth2=eth2\n");
    let again = place.import(&["--remove"]);
    assert_eq!((&again["changes"], &again["done"]), (&json!([]), &json!([])), "{again:#}");
    // With the configuration that was proposed, there is none to propose.
    let config = ConfigFile::new(&format!("{LAB_CONFIG}{config}"));
    let output = jackfield_with(place.a(), &config, &["import", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["config"], json!([]), "{told:#}");
    // Also where it says the same by what only metadata knows.
    let id = place.stage.lab.cloud().interface(mac).unwrap().interface_id;
    let config = ConfigFile::new(&format!(
        "{LAB_CONFIG}[[interface]]\nmatch = {{ interface_id = \"{id}\" }}\nmanage = false\n"
    ));
    let output = jackfield_with(place.a(), &config, &["import", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["config"], json!([]), "{told:#}");
}

#[test]
fn what_is_not_as_the_tool_makes_it_is_named_and_left() {
    let place = Place::new();
    place.configure(Generation::First);
    let ipv4 = place.interfaces[0].addresses.iter().find(|ip| ip.is_ipv4()).unwrap();
    shell(
        place.a(),
        &format!(
            "ip route add 192.0.2.0/24 via 10.0.2.1 dev eth1 onlink table 10001
             ip rule add from {ipv4} to 192.0.2.0/24 lookup 10001"
        ),
    );
    let left = |told: &Value| -> Vec<String> {
        let left = told["left"].as_array().unwrap().iter();
        left.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let of_eth1 = |told: &Value| {
        let all = told["interfaces"].as_array().unwrap().clone();
        all.into_iter().find(|it| it["name"] == "eth1").unwrap()
    };
    // A table with a route of somebody else is not used.
    let told = place.import(&["--remove"]);
    assert_eq!(of_eth1(&told)["state"], "left", "{told:#}");
    assert!(of_eth1(&told)["reason"].as_str().unwrap().contains("192.0.2.0/24"), "{told:#}");
    let named = left(&told);
    assert!(named.contains(&"route 192.0.2.0/24 in table 10001".to_owned()), "{named:?}");
    assert!(place.exists("/etc/sysconfig/network-scripts/ifcfg-eth1"));
    // A rule is in nobody's way.
    shell(place.a(), "ip route del 192.0.2.0/24 table 10001");
    let told = place.import(&["--remove"]);
    assert_eq!(of_eth1(&told)["state"], "taken-over", "{told:#}");
    assert_eq!(left(&told).len(), 1, "{told:#}");
    let others = place.of_others();
    assert!(others.len() == 1 && others[0].contains("192.0.2.0/24"), "{others:#?}");
    answers_within(place.stage.lab.remote(), place.a(), &place.addresses(), PATIENCE);
}

#[test]
fn an_address_that_the_kernel_would_take_along_keeps_an_interface_as_it_is() {
    let place = Place::new();
    place.configure(Generation::First);
    shell(place.a(), "ip address add 10.0.2.77/24 dev eth1");
    let told = place.import(&["--remove"]);
    let of = |name: &str| {
        told["interfaces"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    assert_eq!(of("eth1")["state"], "left", "{told:#}");
    assert!(of("eth1")["reason"].as_str().unwrap().contains("10.0.2.77"), "{told:#}");
    assert_eq!(of("eth2")["state"], "taken-over", "{told:#}");
    assert!(shell(place.a(), "ip address show eth1").contains("10.0.2.77/24"));
    assert!(place.exists("/etc/sysconfig/network-scripts/ifcfg-eth1"));
}

#[test]
fn beside_an_interface_that_is_left_the_tool_stays_whole_and_the_other_is_taken_over() {
    let place = Place::new();
    place.configure(Generation::Second);
    shell(place.a(), "ip address add 10.0.2.77/24 dev eth1");
    let state_of = |told: &Value, name: &str| {
        let all = told["interfaces"].as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap()["state"].clone()
    };
    let mask = "/etc/udev/rules.d/99-vpc-policy-routes.rules";
    let told = place.import(&["--remove"]);
    assert_eq!(state_of(&told, "eth1"), "left", "{told:#}");
    assert_eq!(state_of(&told, "eth2"), "taken-over", "{told:#}");
    assert_eq!(told["steps"], json!([]), "its package is needed");
    assert!(shell(place.a(), &format!("ls -l {mask} 2>&1 || true")).contains("No such file"));
    let again = place.import(&["--remove"]);
    assert_eq!((&again["changes"], &again["done"]), (&json!([]), &json!([])), "{again:#}");
    // Mended, it is taken over too, and the tool goes.
    shell(place.a(), "ip address del 10.0.2.77/24 dev eth1");
    let told = place.import(&["--remove"]);
    assert_eq!(state_of(&told, "eth1"), "taken-over", "{told:#}");
    assert_eq!(told["steps"], json!(["apt purge amazon-ec2-net-utils"]));
    assert_eq!(shell(place.a(), &format!("readlink {mask}")), "/dev/null\n");
    assert_eq!(place.of_others(), Vec::<String>::new());
    answers_within(place.stage.lab.remote(), place.a(), &place.addresses(), PATIENCE);
}

#[test]
fn tables_that_have_other_numbers_there_are_not_mixed_up() {
    let place = Place::new();
    // The tool goes by the name, which here is the other one's number.
    let [one, two] = [&place.interfaces[0], &place.interfaces[1]];
    shell(
        place.a(),
        "ip link set eth1 down; ip link set eth2 down; ip link set eth1 name x; \
         ip link set eth2 name eth1; ip link set x name eth2; ip link set eth1 up; ip link set eth2 up",
    );
    for (it, name) in [(one, "eth2"), (two, "eth1")] {
        let renamed = Attached { mac: it.mac, name: name.into(), addresses: it.addresses.clone() };
        place.configure_one(&renamed, Generation::First);
    }
    let before = state(place.a());
    let told = place.import(&["--remove"]);
    assert_eq!(state(place.a()), before);
    let reason = told["interfaces"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("table_base"), "{told:#}");

    let config = ConfigFile::new(&format!("{LAB_CONFIG}table_base = 20000\n"));
    let traffic = Traffic::start(&place, &place.addresses());
    let output = jackfield_with(place.a(), &config, &["import", "--remove"]);
    assert!(output.status.success(), "{output:?}");
    traffic.nothing_was_lost();
    assert_eq!(place.of_others(), Vec::<String>::new());
}

#[test]
fn a_host_without_these_tools_is_told_so_and_nothing_is_asked_of_metadata() {
    let place = Place::new();
    let output = jackfield(place.a(), &["--metadata", "http://192.0.2.1", "import", "--remove"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "nothing to do: neither ubuntu-ec2net nor amazon-ec2-net-utils is here\n");
    place.configure(Generation::First);
    let other = succeed(place.a(), &["import", "ubuntu-ec2net", "--remove"]);
    assert_eq!(other, text);
    let output = jackfield(place.a(), &["import", "netplan"]);
    let (status, error) = failure(&output);
    assert_eq!(status, 2);
    assert!(error.contains("netplan") && error.lines().count() == 1, "{error}");
}

#[test]
fn without_privilege_it_lists_and_removes_nothing() {
    let place = Place::new();
    place.configure(Generation::First);
    let before = state(place.a());
    let config = ConfigFile::new(LAB_CONFIG);
    let run = |arguments: &[&str]| {
        let mut command = place.a().command("setpriv").unwrap();
        command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        command.args([JACKFIELD, "--config", config.path()]).args(arguments).output().unwrap()
    };
    let (status, error) = failure(&run(&["import", "--remove"]));
    assert_eq!(status, 1);
    assert!(error.contains("CAP_NET_ADMIN") && error.contains("as root"), "{error}");
    let listed = run(&["import"]);
    assert!(listed.status.success(), "{listed:?}");
    let text = String::from_utf8(listed.stdout).unwrap();
    for line in [
        "amazon-ec2-net-utils 1.x is here: /etc/sysconfig/network-scripts/",
        "eth1: to be taken over\n",
        "remove  /etc/sysconfig/network-scripts/ifcfg-eth1\n",
        "- rule 32765: from 10.0.2.10/32 lookup 10001\n",
        "nothing was changed: 'jackfield import --remove' does it\n",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(state(place.a()), before);
    assert!(place.exists("/etc/sysconfig/network-scripts/ifcfg-eth1"));
}

/// The system calls by which something outside is changed.
const CHANGING: [&str; 5] = ["sendto", "unlink", "unlinkat", "symlink", "rename"];

/// Killed at every `step`th of them, and run again, it ends as if it had not been killed.
fn killed_and_run_again(by: Generation, step: u32) {
    require_strace();
    let place = Place::new();
    let config = ConfigFile::new(LAB_CONFIG);
    let command = ["import", "--remove"];
    place.configure(by);
    succeed(place.a(), &command);
    let done = NetworkState::settled(place.a());
    let start_again = || {
        succeed(place.a(), &["unplug", "eth1", "eth2"]);
        shell(place.a(), "rm -rf /etc/udev/rules.d/* /run/amazon-ec2-net-utils");
        place.configure(by);
    };
    let mut kills = 0;
    for call in CHANGING {
        let mut nth = 1 + fastrand::u32(0..step);
        loop {
            start_again();
            if !is_killed(place.a(), &config, call, nth, &command) {
                break;
            }
            kills += 1;
            // Whatever it left, everybody is reached.
            let watched: Vec<IpAddr> = match by {
                Generation::Ubuntu => {
                    place.addresses().into_iter().filter(IpAddr::is_ipv4).collect()
                }
                _ => place.addresses(),
            };
            answers_within(place.stage.lab.remote(), place.a(), &watched, PATIENCE);
            succeed(place.a(), &command);
            assert_same(&done, &NetworkState::settled(place.a()));
            assert_eq!(place.of_others(), Vec::<String>::new(), "killed at {call} {nth}");
            let left = place.import(&[]);
            let removable = |file: &&Value| file["action"] == "remove";
            let left = left["files"].as_array().unwrap().iter().find(removable).cloned();
            assert_eq!(left, None, "killed at {call} {nth}");
            nth += step;
        }
    }
    assert!(kills >= 3, "killed only {kills} times");
    assert_eq!(place.stage.lab.violations(), []);
    println!("killed {kills} times");
}

#[test]
fn killed_at_some_system_calls_and_run_again_it_ends_the_same() {
    killed_and_run_again(Generation::First, 17);
}

#[test]
#[ignore = "long: killed at each of its system calls"]
fn killed_at_any_system_call_and_run_again_it_ends_the_same() {
    for by in [Generation::Ubuntu, Generation::First, Generation::Second] {
        killed_and_run_again(by, 1);
    }
}
