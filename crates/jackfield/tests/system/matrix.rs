//! The client matrix: every address works through its own interface, whoever talks to it and
//! whoever begins, whatever the reverse path filter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_kernel::{VethEnd, veth_pair};
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Lab};

use crate::harness::*;

/// How long one pair may take: long, because a machine that is busy is slow; a pair that works
/// answers at once.
const ANSWER: Duration = Duration::from_secs(3);
/// So many failing pairs of one client tell enough.
const ENOUGH: usize = 8;

/// Main leads there through eth1, also from the primary's addresses: the administrator's own doing,
/// which no fabric lets pass.
const BEHIND_A_SECONDARY: &str = "behind the static route through a secondary";

/// Who talks with the interfaces' addresses.
pub(crate) struct Client<'a> {
    name: &'a str,
    host: &'a Host,
    /// Its addresses: one of each family that it has.
    addresses: Vec<IpAddr>,
    /// Whether it binds that address, or leaves the choice to its kernel.
    bound: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(name: &'a str, host: &'a Host, addresses: &[IpAddr]) -> Self {
        let of = |ipv4: bool| addresses.iter().copied().find(|ip| ip.is_ipv4() == ipv4);
        let addresses = [of(true), of(false)].into_iter().flatten().collect();
        Client { name, host, addresses, bound: true }
    }

    /// Answers at its addresses.
    pub(crate) fn echo(&self) -> Echo {
        Echo::start(self.host, &self.addresses).unwrap()
    }

    fn unbound(name: &'a str, host: &'a Host, addresses: &[IpAddr]) -> Self {
        Client { bound: false, ..Self::new(name, host, addresses) }
    }

    fn address(&self, like: IpAddr) -> IpAddr {
        *self.addresses.iter().find(|ip| ip.is_ipv4() == like.is_ipv4()).unwrap()
    }

    /// Both directions and transports between this client and an address of ours; what failed.
    pub(crate) fn meet(&self, us: &Host, ours: IpAddr) -> Vec<String> {
        let theirs = self.address(ours);
        let mut failed = Vec::new();
        for transport in Transport::ALL {
            let source = self.bound.then_some(theirs);
            if let Err(error) = probe(self.host, source, Echo::at(ours), transport, ANSWER) {
                failed.push(format!("{} {theirs} -> {ours} by {transport:?}: {error}", self.name));
            }
            if let Err(error) = probe(us, Some(ours), Echo::at(theirs), transport, ANSWER) {
                failed.push(format!("{ours} -> {} {theirs} by {transport:?}: {error}", self.name));
            }
        }
        failed
    }
}

fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

/// A veth of the administrator's, which leads to a network by a route of the administrator's.
fn beyond_a_veth(host: &Host) -> Host {
    let far = Host::new("beyond").unwrap();
    let near_end = VethEnd { name: "admin0", address: None, mtu: None, namespace: None };
    let far_end = VethEnd { name: "eth0", namespace: Some(far.namespace()), ..near_end };
    host.apply("make the administrator's veth", &[veth_pair(near_end, far_end)]).unwrap();
    shell(
        host,
        "ip address add 192.168.99.1/30 dev admin0
         ip address add fd99::1/64 dev admin0 nodad
         ip link set admin0 up",
    );
    shell(
        &far,
        "ip address add 10.89.0.2/32 dev eth0
         ip address add fd99::2/64 dev eth0 nodad
         ip address add fd89::2/128 dev eth0 nodad
         ip link set eth0 up
         ip route add default dev eth0
         ip -6 route add default via fd99::1",
    );
    shell(
        host,
        "ip route add 10.89.0.0/16 dev admin0
         ip -6 route add fd89::/64 via fd99::2 dev admin0",
    );
    far
}

/// Sets the reverse path filter of every device.
pub(crate) fn filter_reverse_paths(host: &Host, filter: &str) {
    let links = host.links().unwrap().into_iter().map(|link| link.name);
    for name in links.chain(["all", "default"].map(str::to_owned)) {
        host.set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), filter).unwrap();
    }
}

/// Plugs four interfaces with so many addresses each: two in one subnet, one in the primary's, one
/// in a subnet of its own; gives the primary as many; and lets everybody meet every address.
fn everybody_meets_every_address(count: u32) {
    let stage = Stage::new();
    let (lab, a) = (&stage.lab, &stage.a);
    let more: Vec<IpAddr> = (0..count).flat_map(|_| lab.new_addresses(&stage.subnets[0])).collect();
    for address in &more {
        lab.add_address(a.primary().mac, *address).unwrap();
    }
    let primary = Attached { mac: a.primary().mac, name: "eth0".to_owned(), addresses: more };

    let bridge =
        a.bridge("docker0", &["172.17.0.0/16", "fd17::/64"].map(|net| net.parse().unwrap()));
    let bridge = bridge.unwrap();
    let container = bridge.container("container").unwrap();
    let inner = ips(["10.88.0.2", "fd88::2"]);
    shell(&container, "ip address add 10.88.0.2/32 dev lo; ip address add fd88::2/128 dev lo");
    shell(
        a,
        "ip route add 10.88.0.0/16 via 172.17.0.2 dev docker0
         ip -6 route add fd88::/64 via fd17::2 dev docker0",
    );
    let beyond = beyond_a_veth(a);

    let agent = Agent::start(a);
    let plugged = Instant::now();
    let secondaries = [(2, 1), (2, 2), (1, 3), (3, 4)]
        .map(|(subnet, device)| stage.attach(subnet, device, count));
    let interfaces: Vec<Attached> = secondaries.into_iter().chain([primary]).collect();
    // Nobody is asked before: a host that forwards would forward what is for an address to come.
    for interface in &interfaces {
        configured_within(a, interface, PATIENCE);
    }
    let plugged = plugged.elapsed();

    // A network behind a router in the first secondary's subnet, by a route in table main.
    let router = lab.client(&stage.subnets[1]).unwrap();
    let networks = ["10.77.0.0/16", "2001:db8:77::/64"].map(|net| net.parse().unwrap());
    let lan = router.bridge("lan", &networks).unwrap();
    let behind = lan.container("behind").unwrap();
    for network in networks {
        lab.route_through(router.primary().mac, network).unwrap();
    }
    let gateway: Vec<IpAddr> = router.primary().addresses().collect();
    shell(
        a,
        &format!(
            "ip route add 10.77.0.0/16 via {} dev eth1 onlink
             ip -6 route add 2001:db8:77::/64 via {} dev eth1 onlink",
            gateway[0], gateway[1]
        ),
    );
    for (family, network) in [("-4", "10.77.0.0/16"), ("-6", "2001:db8:77::/64")] {
        eventually("the administrator's route is in the interface's table", PATIENCE, || {
            shell(a, &format!("ip {family} route show table 10001")).contains(network)
        });
    }

    let near: Vec<_> = stage.subnets.iter().map(|subnet| lab.client(subnet).unwrap()).collect();
    let own = |instance: &jackfield_lab::Instance| -> Vec<IpAddr> {
        instance.primary().addresses().collect()
    };
    let remote = [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6];
    let clients = [
        Client::new("a client in subnet 1, the primary's", &near[0], &own(&near[0])),
        Client::new("a client in subnet 2, two secondaries'", &near[1], &own(&near[1])),
        Client::new("a client in subnet 3, a secondary's", &near[2], &own(&near[2])),
        Client::new("the remote host", lab.remote(), &remote),
        Client::new("the host by its primary address", a, &own(a)),
        Client::unbound("the host by no address of its choice", a, &own(a)),
        Client::new("the container", &container, container.addresses()),
        Client::new(BEHIND_A_SECONDARY, &behind, behind.addresses()),
        Client::new("behind the static route through docker0", &container, &inner),
        Client::new(
            "behind the static route through a veth",
            &beyond,
            &ips(["10.89.0.2", "fd89::2"]),
        ),
    ];
    let answering: Vec<Echo> =
        clients.iter().filter(|client| client.bound).map(Client::echo).collect();

    let mut failed = Vec::new();
    let mut pairs = 0;
    let began = Instant::now();
    for filter in ["0", "1", "2"] {
        filter_reverse_paths(a, filter);
        for (number, interface) in interfaces.iter().enumerate() {
            let other = &interfaces[(number + 1) % interfaces.len()];
            let other = Client::new("the host by another secondary's address", a, &other.addresses);
            let echo: Vec<IpAddr> =
                interface.addresses.iter().chain(&other.addresses).copied().collect();
            let _echo = Echo::start(a, &echo).unwrap();
            let clients: Vec<&Client<'_>> = clients
                .iter()
                .filter(|client| interface.name != "eth0" || client.name != BEHIND_A_SECONDARY)
                .chain([&other])
                .collect();
            pairs += 4 * clients.len() * interface.addresses.len();
            let meeting = |client: &Client<'_>| {
                let mut failed = Vec::new();
                for address in &interface.addresses {
                    failed.extend(client.meet(a, *address));
                    if failed.len() >= ENOUGH {
                        failed.push(format!("… {} and more", client.name));
                        break;
                    }
                }
                failed
            };
            let failures: Vec<String> = std::thread::scope(|scope| {
                let meetings: Vec<_> =
                    clients.iter().map(|client| scope.spawn(|| meeting(client))).collect();
                meetings.into_iter().flat_map(|meeting| meeting.join().unwrap()).collect()
            });
            let name = &interface.name;
            failed.extend(
                failures.iter().map(|pair| format!("rp_filter {filter}, {name}: {pair}\n")),
            );
        }
    }
    println!(
        "{} interfaces plugged in {plugged:?}; {pairs} pairs met in {:?}",
        interfaces.len(),
        began.elapsed()
    );
    assert!(failed.is_empty(), "{} pairs of {pairs} failed:\n{}", failed.len(), failed.concat());
    assert_eq!(lab.violations(), []);
    drop(answering);
    agent.stop();
}

#[test]
fn everybody_meets_one_address_of_every_interface() {
    everybody_meets_every_address(1);
}

#[test]
fn everybody_meets_three_addresses_of_every_interface() {
    everybody_meets_every_address(3);
}

#[test]
fn everybody_meets_fifty_addresses_of_every_interface() {
    everybody_meets_every_address(50);
}
