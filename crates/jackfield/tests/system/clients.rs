//! Who talks with the interfaces' addresses: in every subnet, far away, on the host, and behind it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jackfield_kernel::{VethEnd, veth_pair};
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Bridge, Container, Host, Instance, Lab};

use crate::harness::*;
use crate::published::PUBLISHED;

/// How long one pair may take: long, because a machine that is busy is slow; a pair that works
/// answers at once.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// Main leads there through eth1, also from the primary's addresses: the administrator's own doing,
/// which no fabric lets pass.
pub(crate) const BEHIND_A_SECONDARY: &str = "behind the static route through a secondary";

/// Who talks with the interfaces' addresses.
pub(crate) struct Client<'a> {
    pub(crate) name: &'a str,
    host: &'a Host,
    /// Its addresses: one of each family that it has.
    addresses: Vec<IpAddr>,
    /// Whether it binds that address, or leaves the choice to its kernel.
    pub(crate) bound: bool,
}

impl<'a> Client<'a> {
    pub(crate) fn new(name: &'a str, host: &'a Host, addresses: &[IpAddr]) -> Self {
        let of = |ipv4: bool| addresses.iter().copied().find(|ip| ip.is_ipv4() == ipv4);
        let addresses = [of(true), of(false)].into_iter().flatten().collect();
        Client { name, host, addresses, bound: true }
    }

    pub(crate) fn unbound(name: &'a str, host: &'a Host, addresses: &[IpAddr]) -> Self {
        Client { bound: false, ..Self::new(name, host, addresses) }
    }

    /// One that only asks.
    pub(crate) fn asking(name: &'a str, host: &'a Host) -> Self {
        Self::unbound(name, host, &[])
    }

    /// Answers at its addresses.
    pub(crate) fn echo(&self) -> Echo {
        Echo::start(self.host, &self.addresses).unwrap()
    }

    pub(crate) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    fn address(&self, like: IpAddr) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| ip.is_ipv4() == like.is_ipv4())
    }

    /// Both directions and transports between this client and an address of ours; what failed.
    pub(crate) fn meet(&self, us: &Host, ours: IpAddr) -> Vec<String> {
        let theirs = self.address(ours).unwrap();
        let mut failed = Vec::new();
        for transport in Transport::ALL {
            failed.extend(self.ask(Echo::at(ours), transport, ANSWER));
            if let Err(error) = probe(us, Some(ours), Echo::at(theirs), transport, ANSWER) {
                failed.push(format!("{ours} -> {} {theirs} by {transport:?}: {error}", self.name));
            }
        }
        failed
    }

    /// Asks for what is published at an address of ours; what failed.
    pub(crate) fn ask_what_is_published(&self, ours: IpAddr) -> Vec<String> {
        let to = SocketAddr::new(ours, PUBLISHED);
        Transport::ALL.into_iter().filter_map(|by| self.ask(to, by, ANSWER)).collect()
    }

    /// What came instead of an answer.
    pub(crate) fn ask(&self, to: SocketAddr, by: Transport, within: Duration) -> Option<String> {
        let source = self.address(to.ip()).filter(|_| self.bound);
        let error = probe(self.host, source, to, by, within).err()?;
        let from = source.map(|source| format!(" {source}")).unwrap_or_default();
        Some(format!("{}{from} -> {to} by {by:?}: {error}", self.name))
    }
}

fn ips(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

/// A bridge like Docker's, over which the host forwards.
pub(crate) fn docker0(host: &Instance) -> Bridge<'_> {
    let networks = ["172.17.0.0/16", "fd17::/64"].map(|net| net.parse().unwrap());
    host.bridge("docker0", &networks).unwrap()
}

/// Who is behind the host: there before an interface is plugged in.
pub(crate) struct Behind {
    container: Container,
    beyond: Host,
    /// The one whose port is published.
    pub(crate) served: Container,
}

impl Behind {
    pub(crate) fn of(a: &Instance) -> Self {
        let bridge = docker0(a);
        let container = bridge.container("container").unwrap();
        let served = bridge.container("served").unwrap();
        shell(&container, "ip address add 10.88.0.2/32 dev lo; ip address add fd88::2/128 dev lo");
        shell(
            a,
            "ip route add 10.88.0.0/16 via 172.17.0.2 dev docker0
             ip -6 route add fd88::/64 via fd17::2 dev docker0",
        );
        Behind { container, beyond: beyond_a_veth(a), served }
    }
}

/// Who is elsewhere in the cloud.
pub(crate) struct Elsewhere {
    near: Vec<Instance>,
    behind: Container,
    /// Forwards to who is behind it.
    _router: Instance,
}

impl Elsewhere {
    /// A client in each subnet, and one in a network behind a router in eth1's subnet, which is
    /// subnet 2: an administrator's route in table main leads there.
    pub(crate) fn of(stage: &Stage) -> Self {
        let (lab, a) = (&stage.lab, &stage.a);
        let router = lab.client(&stage.subnets[1]).unwrap();
        let networks = ["10.77.0.0/16", "2001:db8:77::/64"].map(|net| net.parse().unwrap());
        let lan = router.bridge("lan", &networks).unwrap();
        let behind = lan.container("behind").unwrap();
        for gateway in router.primary().addresses() {
            let of_its_family = |net: &&ipnet::IpNet| net.addr().is_ipv4() == gateway.is_ipv4();
            let network = networks.iter().find(of_its_family).unwrap();
            lab.route_through(router.primary().mac, *network).unwrap();
            shell(a, &format!("ip route add {network} via {gateway} dev eth1 onlink"));
            let family = if gateway.is_ipv4() { "-4" } else { "-6" };
            eventually("the administrator's route is in the interface's table", PATIENCE, || {
                shell(a, &format!("ip {family} route show table 10001"))
                    .contains(&network.to_string())
            });
        }
        let near = stage.subnets.iter().map(|subnet| lab.client(subnet).unwrap()).collect();
        Elsewhere { near, behind, _router: router }
    }
}

/// Everybody who is no interface's address of the host's.
pub(crate) fn everybody<'a>(
    stage: &'a Stage,
    behind: &'a Behind,
    elsewhere: &'a Elsewhere,
) -> Vec<Client<'a>> {
    let a: &Host = &stage.a;
    let own = |instance: &Instance| -> Vec<IpAddr> { instance.primary().addresses().collect() };
    let (container, near) = (&behind.container, &elsewhere.near);
    let there = &elsewhere.behind;
    vec![
        Client::new("a client in subnet 1, the primary's", &near[0], &own(&near[0])),
        Client::new("a client in subnet 2, two secondaries'", &near[1], &own(&near[1])),
        Client::new("a client in subnet 3, a secondary's", &near[2], &own(&near[2])),
        Client::new("the remote host", stage.lab.remote(), &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]),
        Client::new("the host by its primary address", a, &own(&stage.a)),
        Client::unbound("the host by no address of its choice", a, &own(&stage.a)),
        Client::new("the container", container, container.addresses()),
        Client::new(BEHIND_A_SECONDARY, there, there.addresses()),
        Client::new(
            "behind the static route through docker0",
            container,
            &ips(["10.88.0.2", "fd88::2"]),
        ),
        Client::new(
            "behind the static route through a veth",
            &behind.beyond,
            &ips(["10.89.0.2", "fd89::2"]),
        ),
    ]
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
