//! Others act at the same time: interfaces that are renamed, moved away or deleted while they are
//! configured, and hands that change what is ours.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use jackfield_kernel::{Address, LinkChange, Namespace, Request, Route, Rule};
use jackfield_lab::probe::{Echo, PacketStream};
use jackfield_lab::{Host, Plug};

use crate::harness::*;
use crate::kernel_state::{KernelState, Observer};

/// What is put back is back within this.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Warnings and errors.
fn warnings(agent: &Agent) -> Vec<String> {
    let bad = |line: &String| line.contains(": warning: ") || line.contains(": error: ");
    agent.log().into_iter().filter(bad).collect()
}

fn rename(host: &Host, index: u32, name: &str) {
    let change = LinkChange { name: Some(name), ..LinkChange::default() };
    host.apply("rename a device", &[change.request(index)]).unwrap();
}

/// Moments around the one at which the agent is at work on a new interface.
fn delays() -> impl Iterator<Item = Duration> {
    (0..=20).map(|half| Duration::from_micros(500 * half))
}

/// Where nothing is left to do: what is configured is what metadata says.
fn nothing_is_left_to_do(host: &Host) -> bool {
    jackfield(host, &["plan"]).status.success()
}

#[test]
fn an_interface_that_is_renamed_while_it_is_configured_works_under_its_new_name() {
    renamed_while_it_is_configured_it_works(Shape::DualStack);
}

pub(crate) fn renamed_while_it_is_configured_it_works(shape: Shape) {
    let stage = Stage::of(shape);
    let mut observer = Observer::new(&stage.a);
    let before = observer.look();
    let agent = Agent::start(&stage.a);
    let interface = stage.interface(2, 2);
    let attached = Attached::of(&interface, 1);
    for (round, delay) in delays().enumerate() {
        let warned = warnings(&agent).len();
        stage.lab.attach(&stage.a, attached.mac, &Plug::new(1)).unwrap();
        let index = stage.a.link("eth1").unwrap().index;
        std::thread::sleep(delay);
        let name = format!("ens{round}");
        rename(&stage.a, index, &name);
        answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
        eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
        let interfaces = status(&stage.a)["interfaces"].as_array().unwrap().clone();
        let it = interfaces.iter().find(|it| it["name"] == name.as_str()).unwrap();
        assert_eq!((&it["state"], &it["problems"]), (&"configured".into(), &[""; 0].into()));
        stage.lab.detach(attached.mac).unwrap();
        eventually("all is as it was", PATIENCE, || observer.look() == before);
        let new = warnings(&agent).split_off(warned);
        assert!(new.len() <= 2, "renamed after {delay:?}: {new:#?}");
    }
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}

#[test]
fn an_interface_that_is_deleted_while_it_is_configured_leaves_nothing() {
    deleted_while_it_is_configured_it_leaves_nothing(Shape::DualStack);
}

pub(crate) fn deleted_while_it_is_configured_it_leaves_nothing(shape: Shape) {
    let stage = Stage::of(shape);
    let mut observer = Observer::new(&stage.a);
    let before = observer.look();
    let agent = Agent::start(&stage.a);
    let interface = stage.interface(2, 20);
    for delay in delays().chain(delays()) {
        let warned = warnings(&agent).len();
        stage.lab.attach(&stage.a, interface.mac, &Plug::new(1)).unwrap();
        std::thread::sleep(delay);
        stage.lab.detach(interface.mac).unwrap();
        eventually("all is as it was", PATIENCE, || observer.look() == before);
        let new = warnings(&agent).split_off(warned);
        assert!(new.len() <= 2, "deleted after {delay:?}: {new:#?}");
    }
    // Whatever was asked or planned meanwhile comes to nothing as well.
    eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
    observer.look().assert_is(&before, "in the end");
    agent.stop();
}

fn move_to(host: &Host, index: u32, namespace: &Namespace) {
    let namespace = Some(namespace.as_fd());
    let change = LinkChange { namespace, ..LinkChange::default() };
    host.apply("move a device", &[change.request(index)]).unwrap();
}

#[test]
fn an_interface_that_is_moved_away_while_it_is_configured_leaves_nothing_and_may_come_back() {
    moved_away_while_it_is_configured_it_may_come_back(Shape::DualStack);
}

pub(crate) fn moved_away_while_it_is_configured_it_may_come_back(shape: Shape) {
    let stage = Stage::of(shape);
    let container = Host::new("container").unwrap();
    let mut observer = Observer::new(&stage.a);
    let before = observer.look();
    let agent = Agent::start(&stage.a);
    let interface = stage.interface(2, 5);
    let attached = Attached::of(&interface, 1);
    for delay in delays() {
        let warned = warnings(&agent).len();
        stage.lab.attach(&stage.a, attached.mac, &Plug::new(1)).unwrap();
        let index = stage.a.link("eth1").unwrap().index;
        std::thread::sleep(delay);
        // Its MAC stays listed.
        move_to(&stage.a, index, container.namespace());
        eventually("all is as it was", PATIENCE, || observer.look() == before);
        let index = container.link("eth1").unwrap().index;
        move_to(&container, index, stage.a.namespace());
        answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
        stage.lab.detach(attached.mac).unwrap();
        eventually("all is as it was", PATIENCE, || observer.look() == before);
        let new = warnings(&agent).split_off(warned);
        assert!(new.len() <= 3, "moved away after {delay:?}: {new:#?}");
    }
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}

/// Nobody undoes anything: what was on the device went with it. It may be back before the agent looks.
#[test]
fn an_interface_that_goes_and_is_back_at_once_again_and_again_works_each_time() {
    let stage = Stage::new();
    let container = Host::new("container").unwrap();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    for _ in 0..8 {
        answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
        eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
        let index = stage.a.link("eth1").unwrap().index;
        move_to(&stage.a, index, container.namespace());
        let index = container.link("eth1").unwrap().index;
        move_to(&container, index, stage.a.namespace());
    }
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let log = agent.stop();
    let left: Vec<&String> = log.iter().filter(|line| line.contains("undone again")).collect();
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn an_interface_that_is_renamed_again_and_again_goes_on_working() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 1);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
    let mut observer = Observer::new(&stage.a);
    let before = observer.look();
    let index = before.link("eth1").unwrap().index;
    let warned = warnings(&agent).len();
    let _echo = Echo::start(&stage.a, &attached.addresses).unwrap();
    let streams = attached.addresses.iter().map(|address| {
        let every = Duration::from_millis(2);
        PacketStream::start(stage.lab.remote(), None, *address, every).unwrap()
    });
    let streams: Vec<PacketStream> = streams.collect();
    for round in 0..100 {
        rename(&stage.a, index, &format!("ens{round}"));
        std::thread::sleep(Duration::from_millis(round % 7));
    }
    rename(&stage.a, index, "eth1");
    eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
    for report in streams.into_iter().map(PacketStream::finish) {
        assert!(report.sent > 0 && report.lost.is_empty(), "{report:?}");
    }
    observer.look().assert_is(&before, "renamed a hundred times");
    let new = warnings(&agent).split_off(warned);
    assert!(new.len() <= 2, "{new:#?}");
    agent.stop();
}

/// A stage with an agent that has plugged `eth1`.
struct Plugged {
    stage: Stage,
    agent: Agent,
    plugged: KernelState,
}

impl Plugged {
    fn new() -> Self {
        Self::of(Shape::DualStack)
    }

    fn of(shape: Shape) -> Self {
        let stage = Stage::of(shape);
        let agent = Agent::start(&stage.a);
        let attached = stage.attach(2, 1, 2);
        answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
        eventually("nothing is left to do", PATIENCE, || nothing_is_left_to_do(&stage.a));
        let plugged = Observer::new(&stage.a).look();
        Plugged { stage, agent, plugged }
    }

    /// Somebody does this; all is back at once, and the log says so.
    #[track_caller]
    fn is_put_back_after(&self, what: &str, requests: &[Request]) {
        let mut observer = Observer::new(&self.stage.a);
        let told = self.told().len();
        self.stage.a.apply(what, requests).unwrap();
        eventually(&format!("put back after: {what}"), AT_ONCE, || observer.look() == self.plugged);
        eventually(&format!("the log says so after: {what}"), AT_ONCE, || self.told().len() > told);
        assert!(self.told().len() <= told + requests.len() + 3, "{:#?}", self.told());
    }

    fn told(&self) -> Vec<String> {
        let mut log = self.agent.log();
        log.retain(|line| line.contains("changed by somebody else, put back"));
        log
    }
}

#[test]
fn a_rule_of_ours_that_somebody_deletes_is_back_within_a_second() {
    let plugged = Plugged::new();
    let rules: Vec<_> = plugged.plugged.our_rules().cloned().collect();
    assert_eq!(rules.len(), 4, "{rules:?}");
    for rule in rules {
        plugged.is_put_back_after(&format!("delete {rule:?}"), &[rule.remove()]);
    }
}

#[test]
fn a_route_of_ours_that_somebody_deletes_is_back_within_a_second() {
    let plugged = Plugged::new();
    let routes: Vec<_> = plugged.plugged.our_routes().cloned().collect();
    assert!(routes.len() >= 8, "{routes:?}");
    for route in routes {
        plugged.is_put_back_after(&format!("delete {route:?}"), &[route.remove()]);
    }
}

#[test]
fn an_address_of_ours_that_somebody_deletes_is_back_within_a_second() {
    let plugged = Plugged::new();
    let addresses: Vec<_> = plugged.plugged.our_addresses().cloned().collect();
    assert_eq!(addresses.len(), 4, "{addresses:?}");
    for address in addresses {
        plugged.is_put_back_after(&format!("delete {address:?}"), &[address.remove()]);
    }
}

#[test]
fn all_that_is_ours_is_back_within_a_second_after_somebody_flushed_it() {
    all_that_somebody_flushed_is_back_within_a_second(Shape::DualStack);
}

pub(crate) fn all_that_somebody_flushed_is_back_within_a_second(shape: Shape) {
    let plugged = Plugged::of(shape);
    let state = &plugged.plugged;
    let routes = state.our_routes().map(Route::remove);
    let rules = state.our_rules().map(Rule::remove);
    let addresses = state.our_addresses().map(Address::remove);
    let all: Vec<Request> = routes.chain(rules).chain(addresses).collect();
    let mut observer = Observer::new(&plugged.stage.a);
    // With its last address an interface loses its routes, and meanwhile some may be back: it does
    // not matter which of these are refused.
    let _ = plugged.stage.a.apply("flush", &all);
    eventually("all is back", AT_ONCE, || observer.look() == *state);
}

#[test]
fn a_property_of_the_device_that_somebody_changes_is_back_within_a_second() {
    let plugged = Plugged::new();
    let index = plugged.plugged.link("eth1").unwrap().index;
    let changes = [
        LinkChange { mtu: Some(1300), ..LinkChange::default() },
        LinkChange { group: Some(0), ..LinkChange::default() },
        LinkChange { alias: Some("uplink"), ..LinkChange::default() },
    ];
    for change in &changes[..2] {
        plugged.is_put_back_after(&format!("{change:?}"), &[change.request(index)]);
    }
    let primary = plugged.plugged.link("eth0").unwrap().index;
    plugged.is_put_back_after("take the primary from the group", &[changes[1].request(primary)]);
}

#[test]
fn a_link_that_goes_down_and_up_has_all_its_routes_back_within_a_second() {
    down_and_up_a_link_has_all_its_routes_back(Shape::DualStack);
}

pub(crate) fn down_and_up_a_link_has_all_its_routes_back(shape: Shape) {
    let Plugged { stage, agent, plugged } = Plugged::of(shape);
    let mut observer = Observer::new(&stage.a);
    // More often than that in a minute it would be left alone.
    for _ in 0..3 {
        stage.a.set_up("eth1", false).unwrap();
        let start = Instant::now();
        // Whoever set it down: a managed interface is up.
        eventually("it is up, with its routes", AT_ONCE, || observer.look() == plugged);
        assert!(start.elapsed() < AT_ONCE);
    }
    assert!(warnings(&agent).len() < 20, "{:#?}", warnings(&agent));
    agent.stop();
}

#[test]
fn a_route_that_somebody_gives_main_through_a_secondary_is_mirrored_as_long_as_it_is_there() {
    let Plugged { stage, agent, plugged } = Plugged::new();
    let mut observer = Observer::new(&stage.a);
    let index = plugged.link("eth1").unwrap().index;
    let routes = [("203.0.113.0/24", "10.0.2.1"), ("2001:db8:beef::/48", "fe80:ec2::1")];
    for (destination, gateway) in routes {
        let (destination, gateway) = (destination.parse().unwrap(), gateway.parse().unwrap());
        let main = Route {
            protocol: 4,
            metric: 1024,
            ..Route::via_gateway(destination, 254, index, gateway)
        };
        stage.a.apply("add a route", &[main.add()]).unwrap();
        let mirrored = |state: &KernelState| {
            state
                .our_routes()
                .any(|route| route.destination == destination && route.table == 10_001)
        };
        eventually("the route is mirrored", AT_ONCE, || mirrored(&observer.look()));
        stage.a.apply("remove a route", &[main.remove()]).unwrap();
        eventually("the mirror is gone", AT_ONCE, || observer.look() == plugged);
    }
    assert_eq!(warnings(&agent), [""; 0]);
    agent.stop();
}

#[test]
fn what_others_have_is_left_alone() {
    let Plugged { stage, agent, .. } = Plugged::new();
    let theirs = [
        "ip rule add from 10.0.2.99 lookup 99 priority 13000",
        "ip rule add from 10.0.2.99 lookup 10001 priority 20000",
        "ip address add 192.0.2.7/32 dev eth1",
        "ip route add 203.0.113.0/24 via 10.0.1.1 dev eth0",
    ];
    theirs.iter().for_each(|command| drop(shell(&stage.a, command)));
    let mut observer = Observer::new(&stage.a);
    let state = observer.look();
    let requests = stage.lab.cloud().request_count();
    // The next look at everything.
    let rule = state.our_rules().next().unwrap();
    stage.a.apply("delete a rule", &[rule.remove()]).unwrap();
    eventually("it is put back", AT_ONCE, || observer.look() == state);
    assert!(stage.lab.cloud().requests_since(requests).len() < 20);
    agent.stop();
    succeed(&stage.a, &["unplug", "eth1"]);
    for mark in ["lookup 99", "priority 20000", "192.0.2.7", "203.0.113.0/24"] {
        let found = shell(&stage.a, "ip rule show; ip address show; ip route show");
        let mark = mark.replace("priority 20000", "20000:");
        assert!(found.contains(&mark), "{mark}: {found}");
    }
}
