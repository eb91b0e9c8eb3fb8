//! Delegated prefixes: addresses for VMs and containers on the host, or for the host itself.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug};

use crate::clients::{Client, filter_reverse_paths};
use crate::harness::*;
use crate::vm::Vm;

/// A refresh each second.
const HASTY: &str = "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n";
const LOCAL: &str =
    "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n[defaults]\nprefixes = \"local\"\n";

/// Prefixes of a subnet of the lab, above the addresses that it gives out.
pub(crate) fn prefixes(subnet: u8, number: u8) -> [IpNet; 2] {
    let ipv4 = format!("10.0.{subnet}.{}/28", 128 + 16 * number);
    let ipv6 = format!("2001:db8:0:{subnet}:{:x}::/80", 1 + number);
    [ipv4, ipv6].map(|net| net.parse().unwrap())
}

/// An address of each prefix.
pub(crate) fn within(prefixes: &[IpNet], number: u8) -> Vec<IpAddr> {
    let address = |net: &IpNet| match net {
        IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + u32::from(number)).into()),
        IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + u128::from(number)).into()),
    };
    prefixes.iter().map(address).collect()
}

pub(crate) fn delegate(lab: &Lab, mac: jackfield_lab::emulator::MacAddr, prefixes: &[IpNet]) {
    prefixes.iter().for_each(|prefix| lab.add_prefix(mac, *prefix).unwrap());
}

/// A VM with these addresses behind a tap of the host: main has a route to each of them.
pub(crate) fn vm(host: &Host, tap: &str, addresses: &[IpAddr]) -> Vm {
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        host.set_sysctl(setting, "1").unwrap();
    }
    let guest = Vm::behind(host, tap);
    shell(
        host,
        &format!(
            "ip address add 169.254.1.1/32 dev {tap}
             ip address add fe80::1/64 dev {tap} nodad
             ip link set {tap} up"
        ),
    );
    shell(&guest, "ip link set eth0 up");
    for address in addresses {
        shell(host, &format!("ip route add {address} dev {tap}"));
        let at_once = if address.is_ipv6() { "nodad" } else { "" };
        shell(&guest, &format!("ip address add {address} dev eth0 {at_once}"));
    }
    shell(
        &guest,
        "ip route add default via 169.254.1.1 dev eth0 onlink
         ip -6 route add default via fe80::1 dev eth0",
    );
    guest
}

/// True where rule and route of each prefix are there.
fn routed(host: &Host, prefixes: &[IpNet], table: u32) -> bool {
    prefixes.iter().all(|net| {
        let family = if net.addr().is_ipv4() { "-4" } else { "-6" };
        let rules = shell(host, &format!("ip {family} rule show"));
        let main = shell(host, &format!("ip {family} route show table main"));
        (table == 0 || rules.contains(&format!("from {net} lookup {table} ")))
            && main.contains(&format!("unreachable {net} "))
    })
}

/// Three VMs, with addresses of prefixes of the primary, of one that is alone in its subnet, and of
/// one of two that share one.
#[test]
fn everybody_meets_the_vms_that_have_addresses_of_delegated_prefixes() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let agent = Agent::start(a);
    let interfaces = [(2, 1), (2, 2), (3, 3)];
    let mut all: Vec<(u32, [IpNet; 2])> = Vec::new();
    for (subnet, device) in interfaces {
        let record = lab.interface(&stage.subnets[subnet - 1], 1).unwrap();
        let own = prefixes(u8::try_from(subnet).unwrap(), u8::try_from(device).unwrap());
        delegate(lab, record.mac, &own);
        lab.attach(a, record.mac, &Plug::new(device)).unwrap();
        configured_within(a, &Attached::of(&record, device), PATIENCE);
        all.push((10_000 + device, own));
    }
    drop(agent);
    let primarys = prefixes(1, 0);
    delegate(lab, a.primary().mac, &primarys);
    all.push((0, primarys));
    let agent = Agent::start(a);
    for (table, own) in &all {
        eventually("the prefixes are routed", PATIENCE, || routed(a, own, *table));
    }
    let vms: Vec<(Vm, Vec<IpAddr>)> = all
        .iter()
        .enumerate()
        .map(|(number, (_, own))| {
            let addresses = within(own, 3);
            (vm(a, &format!("tap{number}"), &addresses), addresses)
        })
        .collect();

    let near: Vec<_> = stage.subnets.iter().map(|subnet| lab.client(subnet).unwrap()).collect();
    let own = |instance: &Instance| -> Vec<IpAddr> { instance.primary().addresses().collect() };
    let remote = [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6];
    let clients = [
        Client::new("a client in subnet 1, the primary's", &near[0], &own(&near[0])),
        Client::new("a client in subnet 2, two secondaries'", &near[1], &own(&near[1])),
        Client::new("a client in subnet 3, a secondary's", &near[2], &own(&near[2])),
        Client::new("the remote host", lab.remote(), &remote),
        Client::new("the host by its primary address", a, &own(a)),
        Client::new("another VM", &vms[0].0, &within(&all[0].1, 3)),
    ];
    let _echos: Vec<Echo> = clients[..5].iter().map(Client::echo).collect();
    let mut failed = Vec::new();
    for (guest, addresses) in &vms {
        let _echo = Echo::start(guest, addresses).unwrap();
        for filter in ["0", "1", "2"] {
            filter_reverse_paths(a, filter);
            let others = if std::ptr::eq(guest, &vms[0].0) { &clients[..5] } else { &clients[..] };
            let _echo = (others.len() > 5).then(|| clients[5].echo());
            let failures: Vec<String> = std::thread::scope(|scope| {
                let meet = |client: &Client<'_>| -> Vec<String> {
                    addresses.iter().flat_map(|ip| client.meet(guest, *ip)).collect()
                };
                let met: Vec<_> = others.iter().map(|c| scope.spawn(move || meet(c))).collect();
                met.into_iter().flat_map(|met| met.join().unwrap()).collect()
            });
            failed.extend(failures.iter().map(|pair| format!("rp_filter {filter}: {pair}\n")));
        }
    }
    assert!(failed.is_empty(), "{} pairs failed:\n{}", failed.len(), failed.concat());
    assert_eq!(lab.violations(), []);
    agent.stop();
}

/// A host that forwards, and whose main has a default route, would send it back.
#[test]
fn what_is_for_an_address_that_nobody_took_is_not_sent_back_to_the_cloud() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let taken = prefixes(2, 1);
    let record = lab.interface(&stage.subnets[1], 1).unwrap();
    delegate(lab, record.mac, &taken);
    delegate(lab, a.primary().mac, &prefixes(1, 1));
    lab.attach(a, record.mac, &Plug::new(1)).unwrap();
    succeed(a, &["scan"]);
    let guest = vm(a, "tap0", &within(&taken, 3));
    let _echo = Echo::start(&guest, &within(&taken, 3)).unwrap();
    let refused = || {
        for net in taken.into_iter().chain(prefixes(1, 1)) {
            let to = Echo::at(within(&[net], 9)[0]);
            let patience = Duration::from_millis(300);
            probe(lab.remote(), None, to, Transport::Udp, patience).unwrap_err();
        }
    };
    answers_within_of(lab.remote(), &within(&taken, 3), PATIENCE);
    refused();
    assert_eq!(lab.violations(), []);
    // It is this route that keeps it here.
    for net in taken.into_iter().chain(prefixes(1, 1)) {
        shell(a, &format!("ip route delete unreachable {net}"));
    }
    refused();
    let loops = || lab.violations().iter().any(|is| is.source == Lab::REMOTE_IPV4);
    eventually("without it, it comes back", PATIENCE, loops);
}

#[test]
fn a_prefix_that_somebody_has_a_route_for_is_theirs() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let own = prefixes(2, 1);
    let record = lab.interface(&stage.subnets[1], 1).unwrap();
    delegate(lab, record.mac, &own);
    lab.attach(a, record.mac, &Plug::new(1)).unwrap();
    // A bridge has the whole prefix as its network, before and after.
    let bridge = a.bridge("br0", &own).unwrap();
    let container = bridge.container("container").unwrap();
    let _echo = Echo::start(&container, container.addresses()).unwrap();
    let theirs = ["br0", "vethc1"];
    let before = NetworkState::without(a, &theirs);
    succeed(a, &["plug", "eth1"]);
    assert!(routed(a, &own, 10_001));
    answers_within_of(lab.remote(), container.addresses(), PATIENCE);
    assert_eq!(lab.violations(), []);
    succeed(a, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::without(a, &theirs));
}

#[test]
fn a_prefix_of_the_host_itself_answers_on_each_of_its_addresses() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let own = prefixes(2, 1);
    let record = lab.interface(&stage.subnets[1], 1).unwrap();
    delegate(lab, record.mac, &own);
    lab.attach(a, record.mac, &Plug::new(1)).unwrap();
    let before = NetworkState::of(a);
    // For a source that a program chooses: Linux does not count a local route for it.
    a.set_sysctl("net/ipv6/ip_nonlocal_bind", "1").unwrap();
    let config = ConfigFile::new(LOCAL);
    let plan = jackfield_with(a, &config, &["plan"]);
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(plan.contains(&format!("+ route local {} dev lo table local", own[0])), "{plan}");
    assert!(jackfield_with(a, &config, &["plug", "eth1"]).status.success());
    let mut all: Vec<IpAddr> = [0, 1, 7, 15].into_iter().flat_map(|n| within(&own, n)).collect();
    all.extend(record.addresses());
    answers_within(lab.remote(), a, &all, PATIENCE);
    let near = lab.client(&stage.subnets[0]).unwrap();
    let near = Client::new(
        "in the primary's subnet",
        &near,
        &near.primary().addresses().collect::<Vec<_>>(),
    );
    let (_echo, _theirs) = (Echo::start(a, &all).unwrap(), near.echo());
    for filter in ["0", "1", "2"] {
        filter_reverse_paths(a, filter);
        let failed: Vec<String> = all.iter().flat_map(|address| near.meet(a, *address)).collect();
        assert_eq!(failed, Vec::<String>::new(), "rp_filter {filter}");
    }
    let again = jackfield_with(a, &config, &["plug", "eth1"]);
    assert!(String::from_utf8(again.stdout).unwrap().contains("no netlink write"));
    // Routed again, then not at all.
    succeed(a, &["plug", "eth1"]);
    assert!(routed(a, &own, 10_001));
    succeed(a, &["unplug", "eth1"]);
    filter_reverse_paths(a, "0");
    assert_same(&before, &NetworkState::of(a));
    assert_eq!(lab.violations(), []);
}

#[test]
fn a_prefix_that_comes_and_moves_while_the_agent_runs_is_told_by_status() {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let before = NetworkState::of(a);
    let agent = Agent::with_config(a, HASTY);
    let (one, two) = (stage.attach(2, 1, 1), stage.attach(2, 2, 1));
    configured_within(a, &one, PATIENCE);
    configured_within(a, &two, PATIENCE);
    let own = prefixes(2, 1);
    let guest = vm(a, "tap0", &within(&own, 3));
    let echo = Echo::start(&guest, &within(&own, 3)).unwrap();
    delegate(lab, one.mac, &own);
    // Nobody is asked before: the VM's answers would leave by main's default route.
    eventually("they are routed", PATIENCE, || routed(a, &own, 10_001));
    answers_within_of(lab.remote(), &within(&own, 3), PATIENCE);
    let told = |name: &str| -> Vec<String> {
        let status = status(a);
        let interfaces = status["interfaces"].as_array().unwrap();
        let interface = interfaces.iter().find(|is| is["name"] == name).unwrap();
        let list = interface["prefixes"].as_array().unwrap().iter();
        list.map(|net| net.as_str().unwrap().to_owned()).collect()
    };
    let both: Vec<String> = own.iter().map(ToString::to_string).collect();
    assert_eq!(told("eth1"), both);
    // Metadata lists them on the other interface: no absence is waited for.
    for net in own {
        lab.remove_prefix(one.mac, net).unwrap();
        lab.add_prefix(two.mac, net).unwrap();
    }
    let moved = eventually("they are the other's", PATIENCE, || told("eth2") == both);
    assert!(moved < Duration::from_secs(10), "{moved:?}");
    eventually("and no more the first's", PATIENCE, || told("eth1").is_empty());
    answers_within_of(lab.remote(), &within(&own, 3), PATIENCE);
    assert_eq!(lab.violations(), []);
    agent.stop();
    // A restart without metadata leaves them; who is gone leaves nothing.
    let fault = lab.cloud().add_fault(jackfield_lab::emulator::Fault::new(
        jackfield_lab::emulator::Effect::Status(503),
    ));
    let agent = Agent::with_config(a, HASTY);
    agent.wait_until_started();
    assert_eq!(told("eth2"), both);
    lab.cloud().clear_fault(fault);
    lab.detach(one.mac).unwrap();
    lab.detach(two.mac).unwrap();
    drop((echo, guest));
    eventually("nothing of ours is left", PATIENCE, || !NetworkState::of(a).has_ours());
    for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        a.set_sysctl(setting, "0").unwrap();
    }
    becomes(&before, a);
    agent.stop();
}

#[test]
#[ignore = "long: 70 s, an absence counts after three rounds at least 30 s apart"]
fn a_prefix_that_is_taken_back_goes_after_three_rounds_at_least_half_a_minute_apart() {
    let stage = Stage::new();
    let agent = Agent::with_config(&stage.a, HASTY);
    let interface = stage.attach(2, 1, 1);
    let own = prefixes(2, 1);
    delegate(&stage.lab, interface.mac, &own);
    eventually("they are routed", PATIENCE, || routed(&stage.a, &own, 10_001));
    own.iter().for_each(|net| stage.lab.remove_prefix(interface.mac, *net).unwrap());
    let gone = eventually("they are gone", Duration::from_secs(80), || {
        own.iter().all(|net| {
            !NetworkState::of(&stage.a).lines().any(|line| line.contains(&net.to_string()))
        })
    });
    assert!(gone > Duration::from_secs(58), "{gone:?}");
    answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    agent.stop();
}
