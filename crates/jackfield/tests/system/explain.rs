//! `jackfield explain`: which way a packet takes and why, beside real packets where one can be sent.

mod captured;
mod frame;
mod scene;

use std::net::IpAddr;
use std::time::Duration;

use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Lab, Plug};
use serde_json::Value;

use crate::clients::docker0;
use crate::harness::*;
use crate::prefixes::{delegate, prefixes, vm, within};
use crate::published::{forwards, has_marks, nft, publish};

const ANSWER: Duration = Duration::from_secs(3);

/// `jackfield explain --json`.
#[track_caller]
fn explained(host: &Host, arguments: &str) -> Value {
    let arguments: Vec<&str> =
        ["explain", "--json"].into_iter().chain(arguments.split(' ')).collect();
    let document: Value = serde_json::from_str(&succeed(host, &arguments)).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(document["way"]["agrees"], true, "{document:#}");
    document
}

fn code<'a>(explained: &'a Value, code: &str) -> Option<&'a Value> {
    explained["obstacles"].as_array().unwrap().iter().find(|is| is["code"] == code)
}

#[track_caller]
fn stops(explained: &Value, what: &str) -> Value {
    let obstacle = code(explained, what).unwrap_or_else(|| panic!("no {what}: {explained:#}"));
    obstacle["stops"].clone()
}

/// Interface, gateway and table of a leg.
fn way(leg: &Value) -> (String, String, u64) {
    let text = |key: &str| leg[key].as_str().unwrap_or("-").to_owned();
    (text("interface"), text("gateway"), leg["table"].as_u64().unwrap_or(0))
}

fn by(interface: &str, gateway: &str, table: u64) -> (String, String, u64) {
    (interface.to_owned(), gateway.to_owned(), table)
}

/// The rule that decided.
fn decided(leg: &Value) -> &Value {
    leg["rules"].as_array().unwrap().last().unwrap()
}

#[test]
fn who_asks_a_secondary_is_answered_by_it_also_from_the_primarys_subnet() {
    let stage = Stage::new();
    let a = &stage.a;
    let attached = stage.attach(2, 1, 1);
    succeed(a, &["plug", "eth1"]);
    let client = stage.lab.client(&stage.subnets[0]).unwrap();
    let clients: Vec<IpAddr> = client.primary().addresses().collect();
    let _echo = Echo::start(a, &attached.addresses).unwrap();
    for (own, far) in attached.addresses.iter().zip(&clients) {
        let gateway = if own.is_ipv4() { "10.0.2.1" } else { "fe80:ec2::1" };
        let inbound = explained(a, &format!("{far} {own} --proto tcp --dport 7"));
        assert_eq!((&inbound["direction"], &inbound["delivers"]), (&"in".into(), &true.into()));
        assert_eq!(inbound["way"]["input"], "eth1");
        assert_eq!(way(&inbound["answer"]), by("eth1", gateway, 10_001));
        let rule = decided(&inbound["answer"]);
        assert_eq!((&rule["priority"], &rule["ours"]), (&14_100.into(), &true.into()));
        let outbound = explained(a, &format!("{own} {far}"));
        assert_eq!(outbound["direction"], "out");
        assert_eq!(way(&outbound["way"]), by("eth1", gateway, 10_001));
        assert_eq!(outbound["answer"]["input"], "eth1");
        // Main would have sent it by the primary.
        let first = outbound["way"]["rules"].as_array().unwrap();
        let first = first.iter().find(|step| step["priority"] == 14_000).unwrap();
        assert_eq!(first["result"], "suppressed", "{outbound:#}");
        assert!(stops(&outbound, "link-needed").is_null());
        probe(&client, None, Echo::at(*own), Transport::Tcp, ANSWER).unwrap();
    }
    assert_eq!(stage.lab.violations(), []);

    let text = succeed(a, &["explain", "10.0.2.10", "198.51.100.10"]);
    let first = "10.0.2.10 → 198.51.100.10: out by eth1 via 10.0.2.1, table 10001";
    assert_eq!(text.lines().next(), Some(first), "{text}");
    assert!(text.contains("10.0.2.10 is eth1's, which has table 10001"), "{text}");
    assert!(text.contains("were eth1 down: table 10001 would refuse it"), "{text}");
}

#[test]
fn of_two_interfaces_in_one_subnet_each_takes_its_own_table() {
    let stage = Stage::new();
    let a = &stage.a;
    let attached = [1, 2].map(|device| stage.attach(2, device, 2));
    succeed(a, &["plug", "eth1", "eth2"]);
    for (interface, table) in attached.iter().zip([10_001, 10_002]) {
        for own in &interface.addresses {
            let far = if own.is_ipv4() { Lab::REMOTE_IPV4 } else { Lab::REMOTE_IPV6 };
            let gateway = if own.is_ipv4() { "10.0.2.1" } else { "fe80:ec2::1" };
            let explained = explained(a, &format!("{own} {far}"));
            assert_eq!(way(&explained["way"]), by(&interface.name, gateway, table));
            assert_eq!(explained["delivers"], true, "{explained:#}");
        }
    }
    // From one to the other nothing leaves the host.
    let [one, other] = [&attached[0], &attached[1]].map(|is| is.addresses[0]);
    let inside = explained(a, &format!("{one} {other}"));
    assert_eq!((&inside["direction"], &inside["way"]["kind"]), (&"inside".into(), &"local".into()));
}

#[test]
fn the_way_of_a_container_and_of_the_answers_of_its_published_port() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let bridge = docker0(a);
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 1);
    configured_within(a, &attached, PATIENCE);
    nft(a, &publish(container.addresses()));
    eventually("connections are marked", PATIENCE, || has_marks(a));
    forwards(a);
    for (far, gateways) in [
        (Lab::REMOTE_IPV4, ["10.0.1.1", "10.0.2.1"]),
        (Lab::REMOTE_IPV6, ["fe80:ec2::1", "fe80:ec2::1"]),
    ] {
        let own = container.addresses().iter().find(|ip| ip.is_ipv4() == far.is_ipv4()).unwrap();
        let asked = attached.addresses.iter().find(|ip| ip.is_ipv4() == far.is_ipv4()).unwrap();
        let told = explained(a, &format!("{own} {far} --proto tcp --sport 7"));
        assert_eq!(
            (&told["direction"], &told["way"]["input"]),
            (&"forward".into(), &"docker0".into())
        );
        // What it begins leaves by the primary.
        assert_eq!(way(&told["way"]), by("eth0", gateways[0], 254));
        assert!(stops(&told, "foreign-source").is_null());
        // What it answers leaves by the interface that was asked.
        let marked = &told["marked"][0];
        assert_eq!(marked["came_by"], "eth1");
        assert_eq!(way(&marked["way"]), by("eth1", gateways[1], 10_001));
        assert_eq!(decided(&marked["way"])["priority"], 14_011);
        // As if the mark was said.
        let said = explained(a, &format!("{own} {far} --proto tcp --sport 7 --mark 0x1"));
        assert_eq!(way(&said["way"]), way(&marked["way"]));
        // Who asks is told so.
        let asking = succeed(a, &["explain", &far.to_string(), &asked.to_string()]);
        assert!(asking.contains("the connection gets the mark 0x1"), "{asking}");
        let to = std::net::SocketAddr::new(*asked, 8080);
        probe(lab.remote(), None, to, Transport::Tcp, PATIENCE).unwrap();
    }
    assert_eq!(lab.violations(), []);
    // Nothing is forwarded any more.
    a.set_sysctl("net/ipv4/conf/docker0/forwarding", "0").unwrap();
    let off = explained(a, "172.17.0.2 198.51.100.10");
    assert_eq!((stops(&off, "forwarding-off"), &off["delivers"]), ("packet".into(), &false.into()));
    a.set_sysctl("net/ipv6/conf/all/forwarding", "0").unwrap();
    let off = explained(a, &format!("fd17::2 {}", Lab::REMOTE_IPV6));
    assert_eq!((stops(&off, "forwarding-off"), &off["delivers"]), ("packet".into(), &false.into()));
    agent.stop();
}

#[test]
fn a_vm_with_an_address_of_a_delegated_prefix_goes_by_its_interface() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let record = lab.interface(&stage.subnets[1], 1).unwrap();
    let own = prefixes(2, 1);
    delegate(lab, record.mac, &own);
    lab.attach(a, record.mac, &Plug::new(1)).unwrap();
    succeed(a, &["plug", "eth1"]);
    let addresses = within(&own, 3);
    let guest = vm(a, "tap0", &addresses);
    let _echo = Echo::start(&guest, &addresses).unwrap();
    forwards(a);
    for (own, far) in addresses.iter().zip([Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]) {
        let gateway = if own.is_ipv4() { "10.0.2.1" } else { "fe80:ec2::1" };
        let out = explained(a, &format!("{own} {far}"));
        assert_eq!((&out["direction"], &out["way"]["input"]), (&"forward".into(), &"tap0".into()));
        assert_eq!(way(&out["way"]), by("eth1", gateway, 10_001));
        assert!(code(&out, "foreign-source").is_none(), "its source is eth1's: {out:#}");
        let back = explained(a, &format!("{far} {own}"));
        assert_eq!((&back["way"]["input"], &back["delivers"]), (&"eth1".into(), &true.into()));
        assert_eq!(way(&back["way"]), by("tap0", "-", 254));
        probe(lab.remote(), None, Echo::at(*own), Transport::Udp, PATIENCE).unwrap();
    }
    assert_eq!(lab.violations(), []);
    // Of the prefix, and nobody has it.
    let nobody = within(&own, 9)[0];
    let refused = explained(a, &format!("{} {nobody} --iif eth1", Lab::REMOTE_IPV4));
    assert_eq!(stops(&refused, "route-refuses"), "packet");
}

#[test]
fn what_stops_a_packet_is_named() {
    let stage = Stage::new();
    let a = &stage.a;
    let attached = stage.attach(2, 1, 1);
    succeed(a, &["plug", "eth1"]);
    let [own, six] = [attached.addresses[0], attached.addresses[1]];
    let far = Lab::REMOTE_IPV4;

    shell(a, "ip route add prohibit 192.0.2.0/24; ip rule add priority 20 to 192.0.3.9 blackhole");
    let told = explained(a, &format!("{own} 192.0.2.9"));
    assert_eq!(stops(&told, "route-refuses"), "packet");
    assert_eq!(told["way"]["refusal"], "administratively prohibited");
    let told = explained(a, &format!("{own} 192.0.3.9"));
    assert_eq!(stops(&told, "rule-refuses"), "packet");
    let summary = told["summary"].as_str().unwrap();
    assert_eq!(summary, format!("{own} → 192.0.3.9: goes nowhere: dropped"));

    // A rule of somebody else.
    shell(a, &format!("ip rule add priority 100 from {own} lookup main"));
    let told = explained(a, &format!("{own} {far}"));
    assert_eq!(told["way"]["interface"], "eth0");
    assert_eq!(stops(&told, "wrong-source"), "packet");
    let text = code(&told, "rule-before-ours").unwrap()["text"].as_str().unwrap();
    assert!(text.contains("rule 100 ") && text.contains("table 10001"), "{text}");
    let sent = probe(a, Some(own), Echo::at(far), Transport::Udp, Duration::from_millis(50));
    assert!(sent.is_err() && !stage.lab.violations().is_empty(), "{sent:?}");
    shell(a, "ip rule del priority 100");

    // By the primary, for the secondary's address.
    for (strictness, stopped) in [("1", true), ("0", false)] {
        a.set_sysctl("net/ipv4/conf/eth0/rp_filter", strictness).unwrap();
        let told = explained(a, &format!("{far} {own} --iif eth0"));
        assert_eq!(code(&told, "reverse-path-filter").is_some(), stopped);
        assert_eq!(told["delivers"], !stopped);
        // By the secondary itself it is let in.
        assert_eq!(explained(a, &format!("{far} {own}"))["delivers"], true);
    }

    // The gateway does not answer.
    shell(a, "ip neigh replace 10.0.2.1 dev eth1 nud failed");
    assert_eq!(stops(&explained(a, &format!("{own} {far}")), "neighbour-failed"), "packet");
    shell(a, "ip neigh del 10.0.2.1 dev eth1");

    shell(a, "ip link set eth1 down");
    for (own, far) in [(own, far), (six, Lab::REMOTE_IPV6)] {
        // The kernel takes IPv6 addresses from a device that is down, and leaves those of IPv4.
        if own.is_ipv4() {
            let told = explained(a, &format!("{own} {far}"));
            assert_eq!(stops(&told, "route-refuses"), "packet");
            assert_eq!(decided(&told["way"])["priority"], 14_100);
            assert!(
                decided(&told["way"])["text"].as_str().unwrap().contains("unreachable default")
            );
        }
        let told = explained(a, &format!("{far} {own} --iif eth1"));
        assert_eq!(stops(&told, "input-link-down"), "packet");
    }
}

#[test]
fn an_interface_that_is_not_plugged_is_told_to_be() {
    let stage = Stage::new();
    let a = &stage.a;
    let attached = stage.attach(2, 1, 1);
    let own = attached.addresses[0];
    shell(a, &format!("ip link set eth1 up; ip address add {own}/24 dev eth1"));
    let far = Lab::REMOTE_IPV4;
    let told = explained(a, &format!("{own} {far}"));
    assert_eq!(told["way"]["interface"], "eth0");
    assert!(stops(&told, "wrong-source").is_null(), "no cloud interface is known yet");
    let fix = code(&told, "not-plugged").unwrap()["fix"].as_str().unwrap();
    assert_eq!(fix, "if it is a cloud interface: jackfield plug eth1");
    succeed(a, &["plug", "eth1"]);
    let told = explained(a, &format!("{own} {far}"));
    assert_eq!((&told["way"]["interface"], &told["delivers"]), (&"eth1".into(), &true.into()));
}

#[test]
fn any_host_is_explained_without_privilege_and_nothing_changes() {
    let host = Host::new("plain").unwrap();
    shell(
        &host,
        "ip link add d1 type veth peer name p1; ip link set d1 up; ip link set p1 up; ip address add 10.9.0.2/24 dev d1
         ip route add default via 10.9.0.1",
    );
    let before = NetworkState::settled(&host);
    let config = ConfigFile::new("");
    let mut powerless = host.command("setpriv").unwrap();
    powerless.args(["--bounding-set=-all", "--inh-caps=-all", JACKFIELD]);
    powerless.args(["--config", config.path(), "explain", "10.9.0.2", "192.0.2.9"]);
    let output = powerless.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let first = "10.9.0.2 → 192.0.2.9: out by d1 via 10.9.0.1, table main";
    assert_eq!(text.lines().next(), Some(first), "{text}");
    assert_same(&before, &NetworkState::of(&host));
}

#[test]
fn what_makes_no_sense_is_said_in_one_line() {
    let host = Host::new("plain").unwrap();
    for (arguments, status, said) in [
        ("10.0.0.1", 2, "DST"),
        ("10.0.0.300 10.0.0.1", 2, "10.0.0.300"),
        ("eth0 10.0.0.1", 2, "eth0"),
        ("10.0.0.1 2001:db8::1", 2, "different families"),
        ("224.0.0.1 10.0.0.1", 2, "not the address of one host"),
        ("10.0.0.1 0.0.0.0", 2, "not the address of one host"),
        ("2001:db8::1 fe80::1", 2, "link-local"),
        ("10.0.0.1 10.0.0.2 --proto sctp", 2, "expected tcp, udp or icmp"),
        ("10.0.0.1 10.0.0.2 --dport 53", 2, "without a protocol; say --proto tcp"),
        ("10.0.0.1 10.0.0.2 --proto icmp --dport 53", 2, "ICMP has no ports"),
        ("10.0.0.1 10.0.0.2 --proto udp --dport 0", 2, "--dport"),
        ("10.0.0.1 10.0.0.2 --proto udp --dport 65536", 2, "--dport"),
        ("10.0.0.1 10.0.0.2 --mark x", 2, "expected a number"),
        ("10.0.0.1 10.0.0.2 --iif nothere", 1, "there is no interface 'nothere'"),
        ("10.0.0.1 10.0.0.2", 1, "no route leads to 10.0.0.1"),
    ] {
        let all: Vec<&str> = ["explain"].into_iter().chain(arguments.split(' ')).collect();
        let output = jackfield(&host, &all);
        let (is, text) = failure(&output);
        assert_eq!((is, output.stdout.len()), (status, 0), "{arguments}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments}: {text}");
        assert!(text.contains(said), "{arguments}: {text}");
    }
}
