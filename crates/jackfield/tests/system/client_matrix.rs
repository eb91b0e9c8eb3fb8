//! The client matrix: every address works through its own interface, whoever talks to it and
//! whoever begins, whatever the reverse path filter; and so does a container's port that is
//! published at every address.

use std::net::IpAddr;
use std::time::Instant;

use jackfield_lab::probe::{Echo, Transport};
use jackfield_lab::{Host, Lab};

use crate::clients::*;
use crate::harness::*;
use crate::published::*;

/// So many failing pairs of one client tell enough.
const ENOUGH: usize = 8;

/// Four interfaces that were plugged, two in one subnet, one in the primary's, one in a subnet of its
/// own; the primary, with as many further addresses; and everybody who talks with them.
pub(crate) struct Matrix<'a> {
    stage: &'a Stage,
    behind: Behind,
    elsewhere: Elsewhere,
    agent: Agent,
    interfaces: Vec<Attached>,
}

impl<'a> Matrix<'a> {
    fn new(stage: &'a Stage, count: u32) -> Self {
        Self::with(stage, count, LAB_CONFIG, |_| ())
    }

    /// With an agent that is configured so. `attached` is told of each interface that is plugged in.
    pub(crate) fn with(
        stage: &'a Stage,
        count: u32,
        config: &str,
        attached: impl FnMut(&Attached),
    ) -> Self {
        let (lab, a) = (&stage.lab, &stage.a);
        let more = (0..count).flat_map(|_| lab.new_addresses(&stage.subnets[0]));
        let more: Vec<IpAddr> = more.collect();
        for address in &more {
            lab.add_address(a.primary().mac, *address).unwrap();
        }
        let primary = Attached { mac: a.primary().mac, name: "eth0".to_owned(), addresses: more };
        let behind = Behind::of(a);

        let agent = Agent::with_config(a, config);
        let plugged = Instant::now();
        let secondaries = [(2, 1), (2, 2), (1, 3), (3, 4)]
            .map(|(subnet, device)| stage.attach(subnet, device, count));
        secondaries.iter().for_each(attached);
        let interfaces: Vec<Attached> = secondaries.into_iter().chain([primary]).collect();
        // Nobody is asked before: a host that forwards would forward what is for an address to come.
        for interface in &interfaces {
            configured_within(a, interface, PATIENCE);
        }
        println!("{} interfaces plugged in {:?}", interfaces.len(), plugged.elapsed());
        let elsewhere = Elsewhere::of(stage);
        Matrix { stage, behind, elsewhere, agent, interfaces }
    }

    /// Everybody's turn with every address of every interface, all of one interface at a time.
    /// `meeting` tells what failed between a client and an address.
    fn everybody(
        &self,
        meeting: impl Fn(&Client<'_>, IpAddr) -> Vec<String> + Sync,
    ) -> Vec<String> {
        let (a, interfaces) = (&self.stage.a, &self.interfaces);
        let clients = everybody(self.stage, &self.behind, &self.elsewhere);
        let _answering: Vec<Echo> =
            clients.iter().filter(|client| client.bound).map(Client::echo).collect();
        let mut failed = Vec::new();
        for (number, interface) in interfaces.iter().enumerate() {
            let other = &interfaces[(number + 1) % interfaces.len()];
            let other = Client::new("the host by another secondary's address", a, &other.addresses);
            let echo: Vec<IpAddr> =
                interface.addresses.iter().chain(other.addresses()).copied().collect();
            let _echo = Echo::start(a, &echo).unwrap();
            let clients: Vec<&Client<'_>> = clients
                .iter()
                .filter(|client| interface.name != "eth0" || client.name != BEHIND_A_SECONDARY)
                .chain([&other])
                .collect();
            let meeting = |client: &Client<'_>| {
                let mut failed = Vec::new();
                for address in &interface.addresses {
                    failed.extend(meeting(client, *address));
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
            failed.extend(failures.iter().map(|pair| format!("{name}: {pair}\n")));
        }
        failed
    }

    /// Everybody meets every address, whatever the reverse path filter.
    pub(crate) fn everybody_meets(self) {
        let a: &Host = &self.stage.a;
        let mut failed = Vec::new();
        for strictness in ["0", "1", "2"] {
            filter_reverse_paths(a, strictness);
            let failures = self.everybody(|client, address| client.meet(a, address));
            failed.extend(failures.iter().map(|pair| format!("rp_filter {strictness}, {pair}")));
        }
        self.finish(&failed);
    }

    fn finish(self, failed: &[String]) {
        assert!(failed.is_empty(), "{} pairs failed:\n{}", failed.len(), failed.concat());
        assert_eq!(self.stage.lab.violations(), []);
        self.agent.stop();
    }
}

/// Everybody meets so many addresses of every interface.
pub(crate) fn everybody_meets_every_address(shape: Shape, count: u32) {
    let stage = Stage::of(shape);
    Matrix::new(&stage, count).everybody_meets();
}

/// One column more: a container's port, published by this program, is asked for at so many addresses
/// of every interface. By us it is that who asks from the cloud is answered. What the host itself
/// asks, and what comes from behind it, by no interface, is the engine's: its rules answer it, by way
/// of main, which ours have to let happen.
pub(crate) fn everybody_meets_a_published_port(shape: Shape, count: u32, program: Program) {
    let stage = &Stage::of(shape);
    let matrix = Matrix::new(stage, count);
    let Matrix { behind, interfaces, .. } = &matrix;
    let a = &stage.a;
    let served = behind.served.addresses();
    let _served = Echo::start(&behind.served, served).unwrap();
    assert!(!has_marks(a), "connections are tracked for nothing");
    program.publish(a, served);
    // Of the older iptables nobody tells: a refresh sees it.
    eventually("connections are marked", 2 * PATIENCE, || has_marks(a));
    forwards(a);
    let outside = [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6];
    let outside: Vec<IpAddr> =
        outside.into_iter().filter(|ip| stage.has_ipv4() || ip.is_ipv6()).collect();
    let outward = Client::asking("the published container", &behind.served);
    let mut failed = Vec::new();
    for (strictness, by_mark) in [("0", "0"), ("1", "0"), ("1", "1"), ("2", "0")] {
        a.set_sysctl("net/ipv4/conf/all/src_valid_mark", by_mark).unwrap();
        filter_reverse_paths(a, strictness);
        eventually("the reverse path filter lets forwarded connections in", PATIENCE, || {
            let all = filter(a, "all");
            let secondaries = interfaces.iter().filter(|interface| interface.name != "eth0");
            let mut effective = secondaries.map(|is| filter(a, &is.name).max(all.clone()));
            // Nothing of IPv4 is forwarded for interfaces that have none.
            !stage.has_ipv4() || effective.all(|is| is != "1")
        });
        let mut failures = matrix.everybody(|client, address| {
            let mut failed = client.ask_what_is_published(address);
            failed.extend(client.meet(a, address));
            failed
        });
        for client in everybody(stage, behind, &matrix.elsewhere) {
            // Main leads there through a secondary.
            let addresses = a.primary().addresses().filter(|_| client.name != BEHIND_A_SECONDARY);
            let asked = addresses.flat_map(|own| client.ask_what_is_published(own));
            failures.extend(asked.map(|pair| format!("{pair}\n")));
        }
        // The container's own connections leave by the primary.
        let remote = Echo::start(stage.lab.remote(), &outside);
        for to in &outside {
            let asked = Transport::ALL.map(|by| outward.ask(Echo::at(*to), by, ANSWER));
            failures.extend(asked.into_iter().flatten().map(|pair| format!("{pair}\n")));
        }
        drop(remote);
        failed.extend(failures.iter().map(|pair| format!("rp_filter {strictness}, {pair}")));
    }
    matrix.finish(&failed);
}
