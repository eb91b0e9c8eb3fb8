//! What is gone leaves nothing behind, whatever way it went; and what is here stays, whatever
//! happens to the agent.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jackfield_kernel::LinkChange;
use jackfield_lab::emulator::{Connections, Effect, Fault};
use jackfield_lab::probe::{Echo, FirstAnswers, PacketStream};
use jackfield_lab::{Host, Instance, Plug};

use crate::harness::*;

/// Refreshes every second: for tests that wait for refreshes.
const RESTLESS: &str = "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\nrefresh = \"1s\"\n";

fn primary(instance: &Instance) -> Vec<IpAddr> {
    instance.primary().addresses().collect()
}

/// Waits until the kernel has finished with the link-local addresses, which a look would find so
/// or so.
fn settle(host: &Host) {
    eventually("no address is tentative", PATIENCE, || {
        shell(host, "ip -6 address show tentative").is_empty()
    });
}

#[track_caller]
fn becomes(before: &NetworkState, host: &Host) {
    let start = Instant::now();
    while NetworkState::of(host) != *before && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_same(before, &NetworkState::of(host));
}

fn move_away(instance: &Instance, name: &str, elsewhere: &Host) {
    let index = instance.link(name).unwrap().index;
    let namespace = Some(elsewhere.namespace().as_fd());
    let change = LinkChange { namespace, name: Some("net1"), ..LinkChange::default() };
    instance.apply("move an interface to a container", &[change.request(index)]).unwrap();
}

/// Plugs two interfaces in, and has each of them pulled by `pull`; after each, the network must
/// be what it was before it came.
fn each_leaves_what_it_found(shape: Shape, pull: impl Fn(&Stage, &Attached)) {
    let stage = Stage::of(shape);
    let a = &stage.a;
    let agent = Agent::start(a);
    let nothing = NetworkState::of(a);
    let first = stage.attach(2, 1, 3);
    configured_within(a, &first, PATIENCE);
    answers_within(stage.lab.remote(), a, &first.addresses, PATIENCE);
    settle(a);
    let one = NetworkState::of(a);
    assert!(one.has_ours());
    // In the first one's subnet, and in the primary's.
    for subnet in [2, 1] {
        let second = stage.attach(subnet, 2, 3);
        configured_within(a, &second, PATIENCE);
        assert_ne!(one, NetworkState::of(a));
        pull(&stage, &second);
        becomes(&one, a);
    }
    pull(&stage, &first);
    becomes(&nothing, a);
    assert!(!NetworkState::of(a).has_ours());
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}

pub(crate) fn deleted_an_interface_leaves_what_it_found(shape: Shape) {
    each_leaves_what_it_found(shape, |stage, interface| stage.lab.detach(interface.mac).unwrap());
}

#[test]
fn an_interface_that_is_deleted_leaves_what_it_found() {
    deleted_an_interface_leaves_what_it_found(Shape::DualStack);
}

#[test]
fn an_interface_that_is_deleted_while_metadata_still_lists_it_leaves_what_it_found() {
    each_leaves_what_it_found(Shape::DualStack, |stage, interface| {
        stage.lab.cloud().list_after_detach(jackfield_lab::emulator::Lag::HELD);
        stage.lab.detach(interface.mac).unwrap();
    });
}

pub(crate) fn moved_away_an_interface_leaves_what_it_found(shape: Shape) {
    each_leaves_what_it_found(shape, |stage, interface| {
        let elsewhere = Host::new("elsewhere").unwrap();
        move_away(&stage.a, &interface.name, &elsewhere);
        let listed = stage.lab.cloud().attachment(interface.mac);
        assert!(listed.is_some(), "metadata lists it all the while");
    });
}

#[test]
fn an_interface_that_moves_to_another_namespace_leaves_what_it_found() {
    moved_away_an_interface_leaves_what_it_found(Shape::DualStack);
}

#[test]
fn an_interface_that_comes_back_from_another_namespace_works_again() {
    let stage = Stage::new();
    let a = &stage.a;
    let before = NetworkState::of(a);
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 3);
    configured_within(a, &attached, PATIENCE);
    let elsewhere = Host::new("elsewhere").unwrap();
    move_away(a, "eth1", &elsewhere);
    becomes(&before, a);
    let index = elsewhere.link("net1").unwrap().index;
    let namespace = Some(a.namespace().as_fd());
    let back = LinkChange { namespace, name: Some("eth1"), ..LinkChange::default() };
    elsewhere.apply("move an interface back", &[back.request(index)]).unwrap();
    configured_within(a, &attached, PATIENCE);
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    stage.lab.detach(attached.mac).unwrap();
    becomes(&before, a);
    agent.stop();
}

/// Of three interfaces that were plugged, two go while nobody looks, and then the third. `look`
/// makes somebody look, who is kept while the network is to become what it was.
fn what_went_unseen_is_cleaned_up<T>(shape: Shape, look: impl Fn(&Host, &[&str]) -> T) {
    let stage = Stage::of(shape);
    let a = &stage.a;
    let before = NetworkState::of(a);
    let attached = [stage.attach(2, 1, 3), stage.attach(1, 2, 1), stage.attach(3, 3, 1)];
    succeed(a, &["plug", "eth1", "eth2", "eth3"]);
    settle(a);
    let elsewhere = Host::new("elsewhere").unwrap();
    stage.lab.detach(attached[0].mac).unwrap();
    move_away(a, "eth2", &elsewhere);
    assert!(of_tables(a, ["10001", "10002"]), "the kernel leaves the rules");
    let looking = look(a, &["eth1", "eth2"]);
    eventually("only the third is left", PATIENCE, || !of_tables(a, ["10001", "10002"]));
    answers_within(stage.lab.remote(), a, &attached[2].addresses, PATIENCE);
    drop(looking);
    stage.lab.detach(attached[2].mac).unwrap();
    let looking = look(a, &["eth3"]);
    becomes(&before, a);
    drop(looking);
    assert_eq!(stage.lab.violations(), []);
}

/// Whether there is a route or a rule of one of these tables.
fn of_tables(host: &Host, tables: [&str; 2]) -> bool {
    let of_tables = |line: &str| line.split(' ').any(|word| tables.contains(&word));
    NetworkState::of(host).lines().any(of_tables)
}

pub(crate) fn what_went_unseen_is_cleaned_up_by_an_agent(shape: Shape) {
    what_went_unseen_is_cleaned_up(shape, |host, _| Agent::start(host));
}

#[test]
fn what_went_while_no_agent_ran_is_cleaned_up_by_the_next() {
    what_went_unseen_is_cleaned_up_by_an_agent(Shape::DualStack);
}

#[test]
fn what_went_while_no_agent_ran_is_cleaned_up_by_a_scan() {
    what_went_unseen_is_cleaned_up(Shape::DualStack, |host, _| succeed(host, &["scan"]));
}

pub(crate) fn what_went_unseen_is_cleaned_up_by_its_unplug(shape: Shape) {
    what_went_unseen_is_cleaned_up(shape, |host, gone| {
        succeed(host, &[&["unplug"], gone].concat())
    });
}

#[test]
fn what_went_while_no_agent_ran_is_cleaned_up_by_its_unplug() {
    what_went_unseen_is_cleaned_up_by_its_unplug(Shape::DualStack);
}

#[test]
fn what_went_while_no_agent_ran_is_cleaned_up_without_metadata() {
    let stage = Stage::new();
    let a = &stage.a;
    let before = NetworkState::of(a);
    let attached = stage.attach(2, 1, 3);
    succeed(a, &["plug", "eth1"]);
    stage.lab.detach(attached.mac).unwrap();
    stage.lab.cloud().add_fault(Fault::new(Effect::Reset));
    let (code, _) = failure(&jackfield(a, &["scan", "--wait", "1"]));
    assert_eq!(code, 1, "it says that metadata is out of reach");
    // Nobody knows who is the primary, so its group may stay until somebody does.
    let left = NetworkState::of(a);
    let ours: Vec<&str> = left.lines().filter(|line| line.contains("proto 106")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    stage.lab.cloud().clear_faults();
    succeed(a, &["scan"]);
    becomes(&before, a);
}

/// Every setting that the kernel has for a device.
fn settings(host: &Host, device: &str) -> Vec<String> {
    let script = format!(
        "cd /proc/sys/net
         for file in ipv4/conf/{device}/* ipv6/conf/{device}/* ipv4/neigh/{device}/* \
                     ipv6/neigh/{device}/*; do
             echo $file = $(cat $file 2>/dev/null || true)
         done"
    );
    shell(host, &script).lines().map(str::to_owned).collect()
}

/// What an administrator may have set on an interface before it is plugged.
pub(crate) const GROUP_AND_SETTINGS: &str = "ip link set eth1 group 7
     echo 2 > /proc/sys/net/ipv6/conf/eth1/accept_ra
     echo 0 > /proc/sys/net/ipv6/conf/eth1/accept_ra_pinfo
     echo 1 > /proc/sys/net/ipv4/conf/eth1/rp_filter";

/// Plugs an interface that the administrator prepared by `script`, and unplugs it while it stays:
/// it must be as the administrator left it.
pub(crate) fn unplugged_it_is_as_the_administrator_left_it(shape: Shape, script: &str) {
    let stage = Stage::of(shape);
    let a = &stage.a;
    let attached = stage.attach(2, 1, 3);
    shell(a, script);
    settle(a);
    let before = (NetworkState::of(a), settings(a, "eth1"), settings(a, "eth0"));
    succeed(a, &["plug", "eth1"]);
    answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    let [primary, plugged] = ["eth0", "eth1"].map(|name| a.link(name).unwrap());
    assert_eq!((plugged.mtu, plugged.group, plugged.up), (primary.mtu, 106, true));
    assert!(plugged.alias.unwrap().starts_with("jackfield:"));
    assert!(plugged.alternative_names.iter().any(|name| name.starts_with("eni-")));
    succeed(a, &["unplug", "eth1"]);
    settle(a);
    assert_same(&before.0, &NetworkState::of(a));
    assert_eq!(before.1, settings(a, "eth1"));
    assert_eq!(before.2, settings(a, "eth0"));
    assert_eq!(stage.lab.violations(), []);
}

#[test]
fn an_unplugged_interface_has_its_smaller_mtu_again() {
    unplugged_it_is_as_the_administrator_left_it(Shape::DualStack, "ip link set eth0 mtu 9001");
}

#[test]
fn an_unplugged_interface_has_its_larger_mtu_again() {
    unplugged_it_is_as_the_administrator_left_it(Shape::DualStack, "ip link set eth1 mtu 9001");
}

#[test]
fn an_unplugged_interface_has_its_alias_and_names_again() {
    unplugged_it_is_as_the_administrator_left_it(
        Shape::DualStack,
        "ip link set eth1 alias 'uplink to rack 7: do not touch'
         ip link property add dev eth1 altname the-administrators-name",
    );
}

#[test]
fn an_unplugged_interface_that_was_up_stays_up() {
    unplugged_it_is_as_the_administrator_left_it(Shape::DualStack, "ip link set eth1 up");
}

#[test]
fn an_unplugged_interface_has_its_group_and_settings_again() {
    unplugged_it_is_as_the_administrator_left_it(Shape::DualStack, GROUP_AND_SETTINGS);
}

#[test]
fn an_unplugged_interface_keeps_what_the_administrator_added_meanwhile() {
    let stage = Stage::new();
    let a = &stage.a;
    stage.attach(2, 1, 1);
    shell(a, "ip link set eth1 up");
    settle(a);
    succeed(a, &["plug", "eth1"]);
    let script = "ip address add 192.168.7.1/24 dev eth1
                  ip route add 192.168.8.0/24 via 192.168.7.2 dev eth1
                  ip rule add from 192.168.7.1 lookup 77 priority 77";
    shell(a, script);
    succeed(a, &["unplug", "eth1"]);
    let after = NetworkState::of(a);
    assert!(!after.has_ours());
    for kept in ["192.168.7.1/24", "192.168.8.0/24 via 192.168.7.2", "77: from 192.168.7.1"] {
        assert!(after.lines().any(|line| line.contains(kept)), "{kept} is gone: {after:?}");
    }
}

#[test]
fn a_link_that_went_down_and_up_is_back_at_once() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 3);
    configured_within(a, &attached, PATIENCE);
    answers_within(lab.remote(), a, &attached.addresses, PATIENCE);
    settle(a);
    let before = NetworkState::of(a);
    let mut longest = Duration::ZERO;
    // More often than that in a minute it would be left alone.
    for _ in 0..3 {
        // In one breath, and the agent may lift it itself before.
        shell(a, "ip link set eth1 down; ip link set eth1 up");
        let up = Instant::now();
        let every = Duration::from_millis(1);
        let watch = FirstAnswers::watch(lab.remote(), &attached.addresses, every).unwrap();
        let answers = watch.wait(PATIENCE);
        assert_eq!(answers.len(), attached.addresses.len(), "not all addresses came back");
        longest = longest.max(answers.into_values().max().unwrap() - up);
        settle(a);
        becomes(&before, a);
    }
    println!("down and up: the last address answered after {longest:?} at the most");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    agent.stop();
}

#[test]
fn a_link_that_somebody_took_down_is_lifted() {
    let stage = Stage::new();
    let a = &stage.a;
    let agent = Agent::start(a);
    let attached = stage.attach(2, 1, 3);
    configured_within(a, &attached, PATIENCE);
    settle(a);
    let before = NetworkState::of(a);
    a.set_up("eth1", false).unwrap();
    let took = answers_within(stage.lab.remote(), a, &attached.addresses, PATIENCE);
    println!("taken down: the last address answered after {took:?}");
    settle(a);
    becomes(&before, a);
    agent.stop();
}

#[test]
fn what_works_outlives_its_agent_and_the_metadata_service() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let mut agent = Agent::start(a);
    let interfaces = [stage.attach(2, 1, 3), stage.attach(2, 2, 1), stage.attach(1, 3, 1)];
    for interface in &interfaces {
        configured_within(a, interface, PATIENCE);
    }
    settle(a);
    let all = || interfaces.iter().flat_map(|interface| interface.addresses.clone());
    let addresses: Vec<IpAddr> = all().chain(primary(a)).collect();
    let _echo = Echo::start(a, &addresses).unwrap();
    answers_within_of(lab.remote(), &addresses, PATIENCE);
    let before = NetworkState::of(a);
    let every = Duration::from_millis(2);
    let streams: Vec<(IpAddr, PacketStream)> = addresses
        .iter()
        .map(|to| (*to, PacketStream::start(lab.remote(), None, *to, every).unwrap()))
        .collect();
    let watch = IpMonitor::start(a);
    for effect in [Effect::Hang, Effect::Reset, Effect::Status(503)] {
        let killed = std::process::Command::new("kill")
            .args(["-KILL", &agent.pid().to_string()])
            .status()
            .unwrap();
        assert!(killed.success());
        eventually("the agent is dead", PATIENCE, || !agent.is_running());
        let fault = lab.cloud().add_fault(Fault::new(effect.clone()));
        agent = Agent::with_config(a, RESTLESS);
        eventually("the agent says that metadata is out of reach", PATIENCE, || {
            agent.log().iter().any(|line| line.contains("what works stays as it is"))
        });
        assert_same(&before, &NetworkState::of(a));
        lab.cloud().clear_fault(fault);
        // A hang is only known to be over when its time is.
        eventually("the agent says that metadata answers", PATIENCE, || {
            agent.log().iter().any(|line| line.contains("answers again"))
        });
        assert_same(&before, &NetworkState::of(a));
    }
    let told = watch.finish();
    assert!(told.is_empty(), "something was changed: {told:#?}");
    for (to, stream) in streams {
        let report = stream.finish();
        assert!(report.lost.is_empty(), "lost on the way to {to}: {report:?}");
    }
    assert_eq!(lab.violations(), []);
    agent.stop();
}

#[test]
fn a_second_pass_over_an_unchanged_machine_writes_nothing_and_says_so() {
    a_second_pass_writes_nothing(Shape::DualStack);
}

pub(crate) fn a_second_pass_writes_nothing(shape: Shape) {
    let stage = Stage::of(shape);
    let a = &stage.a;
    for (subnet, device, count) in [(2, 1, 3), (2, 2, 1), (1, 3, 50)] {
        stage.attach(subnet, device, count);
    }
    let first: serde_json::Value = serde_json::from_str(&succeed(a, &["scan", "--json"])).unwrap();
    // An address each of both families, or of one.
    let least = if stage.has_ipv4() { 100 } else { 50 };
    assert!(first["netlink_writes"].as_u64().unwrap() > least, "{first}");
    settle(a);
    let watch = IpMonitor::start(a);
    let second: serde_json::Value = serde_json::from_str(&succeed(a, &["scan", "--json"])).unwrap();
    assert_eq!(second["netlink_writes"], 0);
    assert_eq!(second["changes"], serde_json::json!([]));
    assert_eq!(succeed(a, &["scan"]), "nothing to do: no netlink write was sent\n");
    assert_eq!(succeed(a, &["plug", "eth1"]), "nothing to do: no netlink write was sent\n");
    assert_eq!(succeed(a, &["plan"]), "nothing would change\n");
    let told = watch.finish();
    assert!(told.is_empty(), "something was changed: {told:#?}");
    if let Some(calls) = netlink_messages(a, &["scan"]) {
        let looks = |line: &&String| line.contains("RTM_GET");
        let writes: Vec<&String> = calls.iter().filter(|line| !looks(line)).collect();
        assert!(!calls.is_empty() && writes.is_empty(), "written: {writes:#?}");
    }
}

/// What `jackfield` sends to rtnetlink, as strace tells it; `None` where there is no strace.
fn netlink_messages(host: &Host, arguments: &[&str]) -> Option<Vec<String>> {
    let exists = std::process::Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !exists.is_ok_and(|status| status.success()) {
        return None;
    }
    let config = ConfigFile::new(LAB_CONFIG);
    let mut command = host.command("strace").unwrap();
    command.args(["-f", "-q", "-v", "-s", "512", "-e", "trace=sendto,sendmsg,write,openat"]);
    command.args([JACKFIELD, "--config", config.path()]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    let written = |line: &&str| {
        line.contains("nlmsg_type=") || (line.contains("/proc/sys/") && !line.contains("O_RDONLY"))
    };
    Some(text.lines().filter(written).map(str::to_owned).collect())
}

#[test]
fn an_agent_with_nothing_to_do_writes_nothing() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let agent = Agent::with_config(a, RESTLESS);
    let attached = stage.attach(2, 1, 3);
    configured_within(a, &attached, PATIENCE);
    settle(a);
    let watch = IpMonitor::start(a);
    for _ in 0..3 {
        let mark = lab.cloud().request_count();
        let refreshed = lab.cloud().wait_for_requests(mark, PATIENCE, |requests| {
            requests.iter().any(|request| request.path.contains(&attached.mac.to_string()))
        });
        assert!(refreshed, "the agent does not refresh");
    }
    let told = watch.finish();
    assert!(told.is_empty(), "something was changed: {told:#?}");
    agent.stop();
}

#[test]
fn an_interface_that_is_plugged_again_and_again_in_quick_succession_works_in_the_end() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    lab.cloud().set_connections(Connections::Kept);
    let before = NetworkState::of(a);
    let agent = Agent::start(a);
    let interface = lab.interface(&stage.subnets[1], 3).unwrap();
    let attached = Attached::of(&interface, 1);
    for time in 0..50 {
        lab.attach(a, attached.mac, &Plug::new(1)).unwrap();
        // Now and then in the middle of it, now and then when it is done, mostly at once.
        match time % 5 {
            0 => _ = configured_within(a, &attached, PATIENCE),
            1 => eventually_up(a),
            _ => {}
        }
        lab.detach(attached.mac).unwrap();
    }
    lab.attach(a, attached.mac, &Plug::new(1)).unwrap();
    configured_within(a, &attached, PATIENCE);
    answers_within(lab.remote(), a, &attached.addresses, PATIENCE);
    eventually("nothing is left to do", PATIENCE, || {
        succeed(a, &["plan"]) == "nothing would change\n"
    });
    // One for its three addresses.
    assert_eq!(shell(a, "ip rule show").matches("lookup 10001").count(), 1);
    lab.detach(attached.mac).unwrap();
    becomes(&before, a);
    let refused: Vec<String> =
        agent.log().into_iter().filter(|line| line.contains("panicked")).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    assert_eq!(lab.violations(), []);
    agent.stop();
}

fn eventually_up(host: &Host) {
    eventually("the link is up", PATIENCE, || host.link("eth1").is_ok_and(|link| link.up));
}
