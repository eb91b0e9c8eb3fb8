//! What is not plugged or unplugged does not notice: the primary interface and the other
//! secondaries while one comes and goes, and the agent itself.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_kernel::{Family, Rtnetlink, Rule, RuleAction};
use jackfield_lab::Plug;
use jackfield_lab::emulator::Connections;
use jackfield_lab::probe::{Echo, PacketStream, StreamReport};

use crate::harness::*;

/// Whoever grows by less does not leak a thing in each cycle.
const GROWTH: u64 = 512;
/// So many connections to the metadata service may happen to be kept open, or not.
const KEPT: usize = 8;
/// One cycle in so many pulls the interface before anybody can have configured it.
const HASTE: u32 = 50;

/// What a process uses.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// Its own: what is mapped of the program's file comes in as it is first used.
    anonymous_kib: u64,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    /// Once it rests: a round of requests has a thread and descriptors of its own.
    fn at_rest(process: u32) -> Self {
        eventually("the agent rests", PATIENCE, || Usage::of(process).threads == 1);
        Usage::of(process)
    }

    fn of(process: u32) -> Self {
        let count =
            |what: &str| std::fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let anonymous_kib = anonymous.split_whitespace().next().unwrap().parse().unwrap();
        Usage { anonymous_kib, descriptors: count("fd"), threads: count("task") }
    }
}

/// A packet a millisecond there and back over each address.
fn streams(from: &jackfield_lab::Host, to: &[IpAddr]) -> Vec<(IpAddr, PacketStream)> {
    let every = Duration::from_millis(1);
    let start = |to: &IpAddr| (*to, PacketStream::start(from, None, *to, every).unwrap());
    to.iter().map(start).collect()
}

fn finish(streams: Vec<(IpAddr, PacketStream)>) -> Vec<(IpAddr, StreamReport)> {
    streams.into_iter().map(|(to, stream)| (to, stream.finish())).collect()
}

/// Plugs an interface in and pulls it so many times, while packets go over the primary and over
/// the first secondary.
pub(crate) fn nothing_is_lost_while_an_interface_comes_and_goes(shape: Shape, cycles: u32) {
    let stage = Stage::of(shape);
    let (lab, a) = (&stage.lab, &stage.a);
    // The agent sends 300 packets a second to the metadata service: seven cycles a second where
    // each request has a connection of its own, three times as many where they are kept.
    lab.cloud().set_connections(Connections::Kept);
    let untouched = NetworkState::of(a);
    let agent = Agent::start(a);
    let first = stage.attach(2, 1, 2);
    configured_within(a, &first, PATIENCE);
    let other = stage.interface(3, 2);
    let flapping = Attached::of(&other, 2);

    let primary = primary_addresses(a);
    let watched: Vec<IpAddr> = primary.iter().chain(&first.addresses).copied().collect();
    let _echo = Echo::start(a, &watched).unwrap();
    answers_within_of(lab.remote(), &watched, PATIENCE);
    eventually("link-local addresses are in use", PATIENCE, || {
        shell(a, "ip -6 address show tentative").is_empty()
    });
    let before = NetworkState::of(a);
    let streams = streams(lab.remote(), &watched);
    let watch = IpMonitor::start(a);

    let mut kernel = Rtnetlink::open_in(a.namespace()).unwrap();
    let (mut configured, mut hasty) = (0, 0);
    let mut early = None;
    let began = Instant::now();
    for cycle in 1..=cycles {
        lab.attach(a, flapping.mac, &Plug::new(2)).unwrap();
        if cycle % HASTE == 0 {
            hasty += 1;
        } else {
            configured_within(a, &flapping, PATIENCE);
            configured += 1;
        }
        lab.detach(flapping.mac).unwrap();
        if cycle % HASTE != 0 {
            eventually("its rules are gone", PATIENCE, || !leads_to(&mut kernel, 10_002));
        }
        // By then it has what it keeps for its threads.
        if cycle == cycles / 2 {
            early = Some(Usage::at_rest(agent.pid()));
        }
    }
    let took = began.elapsed();
    eventually("its rules are gone", PATIENCE, || !leads_to(&mut kernel, 10_002));
    let reports = finish(streams);
    let events = watch.finish();
    let (early, late) = (early.unwrap(), Usage::at_rest(agent.pid()));
    println!("{cycles} cycles in {took:?}, {configured} configured, {hasty} hasty");
    println!("agent half way: {early:?}, at the end: {late:?}");
    for (to, report) in &reports {
        let StreamReport { sent, lost, longest_silence } = report;
        println!("{to}: {sent} sent, {} lost, longest silence {longest_silence:?}", lost.len());
    }

    for (to, report) in &reports {
        assert!(report.lost.is_empty(), "lost on the way to {to}: {:?}", report.lost);
    }
    let of_primary: Vec<&String> = events.iter().filter(|line| tells_of(line, "eth0")).collect();
    assert!(of_primary.is_empty(), "what was told of the primary: {of_primary:#?}");
    let of_first: Vec<&String> = events.iter().filter(|line| tells_of(line, "eth1")).collect();
    assert!(of_first.is_empty(), "what was told of the first secondary: {of_first:#?}");
    let overflowed = events.iter().any(|line| line.contains("receive error"));
    assert!(!overflowed && events.len() as u32 > 4 * configured, "the watch missed something");
    let more = late.descriptors.saturating_sub(early.descriptors);
    assert!(more <= KEPT, "the agent holds {more} descriptors more: {early:?}, {late:?}");
    let growth = late.anonymous_kib.saturating_sub(early.anonymous_kib);
    assert!(growth < GROWTH, "the agent grew by {growth} KiB: {early:?}, {late:?}");
    eventually("the network is as before the cycles", PATIENCE, || before == NetworkState::of(a));

    lab.detach(first.mac).unwrap();
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(a).has_ours());
    assert_same(&untouched, &NetworkState::of(a));
    assert_eq!(lab.violations(), []);
    let log = agent.stop();
    let taken_for_repairs: Vec<&String> =
        log.iter().filter(|line| line.contains("what somebody else had done")).collect();
    assert!(taken_for_repairs.is_empty(), "nobody undid anything: {taken_for_repairs:#?}");
}

fn leads_to(kernel: &mut Rtnetlink, table: u32) -> bool {
    Family::BOTH.into_iter().any(|family| {
        let rules = Rule::list(kernel, family).unwrap();
        rules.iter().any(|rule| rule.action == RuleAction::Table(table))
    })
}

/// Whether a line of `ip monitor` is about a device.
fn tells_of(line: &str, device: &str) -> bool {
    line.split([' ', ':', '@']).any(|word| word == device)
}

#[test]
fn nothing_is_lost_while_an_interface_comes_and_goes_fifty_times() {
    nothing_is_lost_while_an_interface_comes_and_goes(Shape::DualStack, 50);
}

#[test]
#[ignore = "long: a thousand plugs and unplugs"]
fn nothing_is_lost_while_an_interface_comes_and_goes_a_thousand_times() {
    nothing_is_lost_while_an_interface_comes_and_goes(Shape::DualStack, 1000);
}

#[test]
fn the_primary_changes_in_nothing_but_its_link_group() {
    let stage = Stage::new();
    let a = &stage.a;
    let primary = primary_addresses(a);
    let _echo = Echo::start(a, &primary).unwrap();
    answers_within_of(stage.lab.remote(), &primary, PATIENCE);
    let link = shell(a, "ip -o -d -N link show dev eth0").trim().replace('\\', " ");
    let streams = streams(stage.lab.remote(), &primary);
    let watch = IpMonitor::start(a);
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 3);
    configured_within(a, &attached, PATIENCE);
    stage.lab.detach(attached.mac).unwrap();
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(a).has_ours());
    agent.stop();
    let reports = finish(streams);
    let events = watch.finish();
    for (to, report) in reports {
        assert!(report.lost.is_empty(), "lost on the way to {to}: {report:?}");
    }
    let told: Vec<String> = events.into_iter().filter(|line| tells_of(line, "eth0")).collect();
    let groups: Vec<&str> = told.iter().map(|line| group(line)).collect();
    assert_eq!(groups, ["106", "0"], "{told:#?}");
    for line in &told {
        // An event tells less of a link than a look at it, and nothing else.
        let line = line.replace(" group 106 ", " group 0 ");
        let mut as_before = link.split_whitespace();
        let same = line.split_whitespace().all(|word| as_before.any(|before| before == word));
        assert!(same, "more than the group changed:\n{line}\n{link}");
    }
}

#[test]
fn what_the_host_begins_goes_on_coming_from_the_primarys_own_address() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    // As a router advertisement leaves it: nothing tells which source to take.
    shell(
        a,
        "ip -6 route add default via fe80:ec2::1 dev eth0 metric 99 proto ra
         ip -6 route delete default dev eth0 metric 100
         ip route replace default via 10.0.1.1 dev eth0 metric 99 proto dhcp
         ip route delete default dev eth0 metric 100",
    );
    let peers = ["198.51.100.10", "10.0.1.200", "10.0.2.200", "10.0.3.200"];
    let ipv6_peers = ["2001:db8:ffff::10", "2001:db8:0:1::200", "2001:db8:0:2::200"];
    let sources = || -> Vec<String> {
        let routes = peers.into_iter().chain(ipv6_peers);
        let source = |peer: &str| {
            let route = shell(a, &format!("ip route get {peer}"));
            let after = |word: &str| {
                let rest = route.split_once(word).map(|(_, rest)| rest);
                rest.and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
            };
            format!("{peer} by {} from {}", after(" dev "), after(" src "))
        };
        routes.map(source).collect()
    };
    let before = sources();
    let own = primary_addresses(a);
    for address in (0..3).flat_map(|_| lab.new_addresses(&stage.subnets[0])) {
        lab.add_address(a.primary().mac, address).unwrap();
    }
    let agent = Agent::start(a);
    let attached = [stage.attach(2, 1, 3), stage.attach(1, 2, 3)];
    for interface in &attached {
        configured_within(a, interface, PATIENCE);
    }
    let all = lab.cloud().interface(a.primary().mac).unwrap().addresses().collect();
    let primary = Attached { mac: a.primary().mac, name: "eth0".to_owned(), addresses: all };
    configured_within(a, &primary, PATIENCE);
    answers_within(lab.remote(), a, &primary.addresses, PATIENCE);
    assert_eq!(sources(), before);
    assert!(before.iter().all(|line| own.iter().any(|ip| line.ends_with(&ip.to_string()))));
    assert!(before.iter().all(|line| line.contains("by eth0")), "{before:#?}");
    agent.stop();
}

fn primary_addresses(instance: &jackfield_lab::Instance) -> Vec<IpAddr> {
    instance.primary().addresses().collect()
}

fn group(line: &str) -> &str {
    line.split_once(" group ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or(line)
}
