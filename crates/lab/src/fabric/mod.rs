//! The network of the cloud: a router with a port for each interface.
//!
//! Each port is a veth pair whose other end is the interface in an instance. The router
//!
//! * has the gateway address of the subnet and fe80:ec2::1 on each port,
//! * routes each address and delegated prefix of an interface to its port, and knows the MAC: it
//!   never asks for it,
//! * answers ARP and neighbour discovery for everything else in the subnet, so that no interface
//!   answers for another one ([`responder`]),
//! * advertises itself where it is told to ([`advertiser`]),
//! * drops, counts and shows each packet whose source is not the interface's ([`violation`]).
//!
//! The source check is made of policy rules, so that it needs rtnetlink alone, works in a user
//! namespace, and comes before every look-up, that of local addresses included. For each family:
//!
//! | priority | rule |
//! |---|---|
//! | 100 | `iif` port *n* → goto 1000 + 10 *n* |
//! | 200 | everything else → goto 30000 |
//! | 1000 + 10 *n* | `from` each address and prefix of the interface → goto 30000 |
//! | 1001 + 10 *n* | → table 1000 + *n*: by the link `violations`, to the interface's own MAC |
//! | 30000 | → local |
//! | 32766 | → main |

mod advertiser;
mod frame;
mod port;
mod responder;
mod violation;

pub use advertiser::RouterAdvertisement;
pub(crate) use frame::checksum;
pub use violation::Violation;

use crate::emulator::{CloudInterface, MacAddr};
use crate::error::{Attempt, Result};
use crate::host::{self, Host};
use advertiser::Advertiser;
use ipnet::IpNet;
use jackfield_kernel::{
    EthernetAddress, Family, Link, LinkChange, Namespace, Neighbour, NeighbourKind, Route,
    RouteKind, Rule, RuleAction, VethEnd, veth_pair,
};
use port::Port;
use responder::Responder;
use socket2::SockRef;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::time::Instant;
use violation::Violations;

/// The gateway of every IPv6 subnet.
pub(crate) const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);
/// The metadata service.
pub(crate) const METADATA_IPV4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
pub(crate) const METADATA_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

pub(crate) const MAIN: u32 = 254;
const LOCAL: u32 = 255;
/// Where a packet goes on that is no violation.
const PASSED: u32 = 30_000;
const LOOPBACK: u32 = 1;
/// What the ports of a cloud let pass. The interfaces themselves start with 1500.
const MTU: u32 = 9001;
/// The metadata service answers no farther than the instance itself.
const METADATA_HOPS: u32 = 1;

/// The router and what it knows.
#[derive(Debug)]
pub(crate) struct Fabric {
    host: Host,
    responder: Responder,
    advertiser: Advertiser,
    violations: Violations,
    /// An interface keeps its port's number wherever it is plugged.
    ports: BTreeMap<MacAddr, Port>,
    /// What is said at an interface's port, whenever it is plugged.
    advertised: BTreeMap<MacAddr, RouterAdvertisement>,
}

/// When an interface was plugged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) began: Instant,
    pub(crate) appeared: Instant,
}

impl Fabric {
    /// A router without ports.
    pub(crate) fn start() -> Result<Self> {
        let host = Host::new("fabric")?;
        // Forwarding first: it sets others back.
        let mut settings = vec![
            ("net/ipv4/ip_forward".to_owned(), "1"),
            ("net/ipv6/conf/all/forwarding".to_owned(), "1"),
        ];
        for which in ["all", "default"] {
            for (key, value) in [("send_redirects", "0"), ("accept_local", "1")] {
                settings.push((format!("net/ipv4/conf/{which}/{key}"), value));
            }
            for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("forwarding", "1")] {
                settings.push((format!("net/ipv6/conf/{which}/{key}"), value));
            }
        }
        for (path, value) in settings {
            host.set_sysctl(&path, value)?;
        }
        let mut requests = Vec::new();
        for family in Family::BOTH {
            requests.push(Rule::new(family, 200, RuleAction::Goto(PASSED)).add());
            requests.push(Rule::new(family, PASSED, RuleAction::Table(LOCAL)).add());
            requests.push(Rule::new(family, 0, RuleAction::Table(LOCAL)).remove());
            // What nobody holds is dropped in silence.
            let nowhere = Route::unreachable(family.everything(), MAIN);
            let nowhere = Route { kind: RouteKind::Blackhole, metric: 9999, ..nowhere };
            requests.push(nowhere.add());
        }
        requests.extend(host::address(LOOPBACK, METADATA_IPV4.into(), 32));
        requests.extend(host::address(LOOPBACK, METADATA_IPV6.into(), 128));
        host.apply("set the router up", &requests)?;
        let responder = Responder::start(&host)?;
        let advertiser = Advertiser::start(&host)?;
        let violations = Violations::start(&host)?;
        let (ports, advertised) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { host, responder, advertiser, violations, ports, advertised })
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.violations.seen()
    }

    /// Listeners at both addresses of the metadata service.
    pub(crate) fn metadata_listeners(&self) -> Result<Vec<TcpListener>> {
        let bind = |address: IpAddr| {
            let listener = TcpListener::bind((address, 80))?;
            let socket = SockRef::from(&listener);
            match address {
                IpAddr::V4(_) => socket.set_ttl_v4(METADATA_HOPS)?,
                IpAddr::V6(_) => socket.set_unicast_hops_v6(METADATA_HOPS)?,
            }
            Ok(listener)
        };
        let addresses = [IpAddr::V4(METADATA_IPV4), IpAddr::V6(METADATA_IPV6)];
        let bound: [std::io::Result<_>; 2] = self.host.run(|| addresses.map(bind))?;
        let attempt = || "listen as the metadata service".to_owned();
        bound.into_iter().map(|listener| listener.attempt(attempt)).collect()
    }

    /// Learns of an interface, or of a change of it. Whoever holds what it holds now has to have
    /// lost it before.
    pub(crate) fn know(&mut self, record: &CloudInterface) -> Result<()> {
        let number = u16::try_from(self.ports.len()).unwrap_or(u16::MAX);
        let mut kernel = self.host.kernel();
        let port = match self.ports.entry(record.mac) {
            std::collections::btree_map::Entry::Occupied(port) => port.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let port = Port::new(number, record.mac);
                kernel.apply("check the sources of a port", &port.check(&self.violations))?;
                place.insert(port)
            }
        };
        self.responder.know(port.mac(), record);
        if let Some(index) = port.index()
            && !kernel.links()?.iter().any(|link| link.index == index)
        {
            // Deleted from the instance's side, or gone with its namespace.
            port.unplugged();
        }
        let changes = port.hold(record.addresses().map(Into::into).chain(record.prefixes()));
        kernel.apply("change what an interface holds", &changes)
    }

    /// Routes a network through an interface, for which its source check is off.
    pub(crate) fn route_through(&mut self, record: &CloudInterface, network: IpNet) -> Result<()> {
        self.know(record)?;
        if let Some(port) = self.ports.get_mut(&record.mac) {
            port.lead_to(network.trunc());
        }
        self.know(record)
    }

    /// Plugs an interface that is known into a namespace.
    pub(crate) fn plug(
        &mut self,
        record: &CloudInterface,
        into: &Namespace,
        name: &str,
    ) -> Result<Made> {
        self.know(record)?;
        let Some(port) = self.ports.get_mut(&record.mac) else { return Err(unknown(record.mac)) };
        let outer = VethEnd {
            name: &port.name(),
            address: Some(port.mac()),
            mtu: Some(MTU),
            namespace: None,
        };
        let inner = VethEnd { name, address: Some(record.mac.0), mtu: None, namespace: Some(into) };
        let mut kernel = self.host.kernel();
        let began = Instant::now();
        kernel.apply(&format!("plug {} in as {name}", record.mac), &[veth_pair(outer, inner)])?;
        let appeared = Instant::now();
        let index = kernel.index(&port.name())?;
        kernel.apply("set a port up", &port.plugged(index, record))?;
        drop(kernel);
        self.advertise_now(record)?;
        Ok(Made { began, appeared })
    }

    /// Advertises a router at an interface's port, now and whenever it is plugged.
    pub(crate) fn advertise(
        &mut self,
        record: &CloudInterface,
        advertisement: RouterAdvertisement,
    ) -> Result<()> {
        self.know(record)?;
        self.advertised.insert(record.mac, advertisement);
        self.advertise_now(record)
    }

    fn advertise_now(&self, record: &CloudInterface) -> Result<()> {
        let port = self.ports.get(&record.mac);
        let Some((port, index)) = port.and_then(|port| Some((port, port.index()?))) else {
            return Ok(());
        };
        let Some(advertisement) = self.advertised.get(&record.mac) else { return Ok(()) };
        let router = host::address(index, advertisement.router.into(), 64);
        let requests: Vec<_> = router.into_iter().collect();
        // It has it already where it was advertised before.
        self.host.kernel().clear("give a port the router's address", &requests)?;
        let subnets = &record.subnet.ipv6;
        self.advertiser.advertise(&self.host, index, port.mac(), advertisement, subnets)
    }

    /// Pulls an interface, wherever it went.
    pub(crate) fn unplug(&mut self, mac: MacAddr) -> Result<()> {
        let Some(index) = self.ports.get_mut(&mac).and_then(Port::unplugged) else {
            return Ok(());
        };
        self.advertiser.forget(index);
        // Gone already where its namespace went.
        self.host.kernel().clear("pull an interface", &[Link::delete(index)])
    }

    /// Joins a host that is behind the router and not in the cloud, whose source nobody checks.
    /// The host's end is `eth0`, its gateways are `.1` and `::1` of its networks.
    pub(crate) fn join(&self, outside: &Host, addresses: &[(IpAddr, u8)]) -> Result<()> {
        const HERE: EthernetAddress = [0x06, 0xff, 0, 0, 0, 1];
        const THERE: EthernetAddress = [0x06, 0xff, 0, 0, 0, 2];
        let name = outside.name();
        let here = VethEnd { name, address: Some(HERE), mtu: None, namespace: None };
        let namespace = Some(outside.namespace());
        let there = VethEnd { name: "eth0", address: Some(THERE), mtu: None, namespace };
        let mut kernel = self.host.kernel();
        kernel.apply("join a remote host", &[veth_pair(here, there)])?;
        let index = kernel.index(outside.name())?;
        let mut theirs = outside.kernel();
        let remote = theirs.index("eth0")?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let (mut inner, mut outer) = (vec![up.request(index)], vec![up.request(remote)]);
        let known = |interface, address, mac| {
            Neighbour { interface, address, kind: NeighbourKind::Permanent(mac) }.set()
        };
        for (address, length) in addresses {
            let gateway = host::first_of(*address, *length);
            inner.extend(host::address(index, gateway, *length));
            inner.push(known(index, *address, THERE));
            outer.extend(host::address(remote, *address, *length));
            outer.push(known(remote, gateway, HERE));
            let everything = Family::of(*address).everything();
            outer.push(Route::via_gateway(everything, MAIN, remote, gateway).add());
        }
        kernel.apply("join a remote host", &inner)?;
        theirs.apply("join a remote host", &outer)
    }
}

fn unknown(mac: MacAddr) -> crate::LabError {
    crate::emulator::CloudError::UnknownInterface(mac).into()
}
