//! The fabric alone: no jackfield, primaries and clients as DHCP configures them, secondaries as
//! an administrator would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use ipnet::IpNet;
use jackfield_kernel::{
    Address, AddressFlags, Family, Link, LinkChange, Request, Route, Rtnetlink, Rule, RuleAction,
};
use jackfield_lab::emulator::{CloudInterface, Subnet};
use jackfield_lab::probe::{Echo, FirstAnswers, PacketStream, ProbeError, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug, RouterAdvertisement, Violation};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn all(record: &CloudInterface) -> Vec<IpAddr> {
    record.addresses().collect()
}

/// Asks an address by both transports, bound to a source where one is given.
fn reach(from: &Host, source: Option<IpAddr>, to: IpAddr) {
    for transport in Transport::ALL {
        let answer = probe(from, source, Echo::at(to), transport, LONG);
        assert!(answer.is_ok(), "{} {source:?} to {to} by {transport:?}: {answer:?}", from.name());
    }
}

/// Configures a plugged interface by hand: /32 and /128, and a table of its own for its sources.
/// The addresses last, or the first answers leave by the primary.
fn configure(instance: &Instance, name: &str, table: u32, record: &CloudInterface) {
    let index = instance.link(name).unwrap().index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![up.request(index)];
    let subnet = record.subnet.ipv4.unwrap();
    requests.push(Route::via_interface(subnet.into(), table, index).add());
    requests.push(Route::via_interface(record.subnet.ipv6[0].into(), table, index).add());
    let gateway = IpAddr::V4((u32::from(subnet.network()) + 1).into());
    for gateway in [gateway, ip("fe80:ec2::1")] {
        let everything = Family::of(gateway).everything();
        requests.push(Route::via_gateway(everything, table, index, gateway).add());
    }
    requests.extend(record.addresses().map(|address| {
        let rule = Rule::new(Family::of(address), table, RuleAction::Table(table));
        Rule { source: Some(address.into()), ..rule }.add()
    }));
    requests.extend(record.addresses().map(|address| by_hand(index, address)));
    instance.apply("configure an interface by hand", &requests).unwrap();
}

fn by_hand(interface: u32, address: IpAddr) -> Request {
    let flags = AddressFlags { no_dad: address.is_ipv6(), ..AddressFlags::default() };
    Address { interface, address: address.into(), protocol: 0, flags }.add()
}

/// A lab with an instance `a` in subnet 1.
fn lab() -> (Lab, Instance) {
    let lab = Lab::start().expect("these tests need the right to make namespaces");
    let a = lab.instance("a", &lab.subnet(1)).unwrap();
    (lab, a)
}

#[test]
fn a_primary_reaches_its_gateway_and_the_remote_host_and_is_reached() {
    let (lab, a) = lab();
    let own = all(a.primary());
    assert_eq!(own, [ip("10.0.1.10"), ip("2001:db8:0:1::a")]);
    let _gateway = lab.with_router(|router| Echo::start(router, &[ip("10.0.1.1")])).unwrap();
    reach(&a, None, ip("10.0.1.1"));
    let _remote = Echo::start(lab.remote(), &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]).unwrap();
    reach(&a, Some(own[0]), Lab::REMOTE_IPV4);
    reach(&a, Some(own[1]), Lab::REMOTE_IPV6);
    let _echo = Echo::start(&a, &own).unwrap();
    for address in own {
        reach(lab.remote(), None, address);
        lab.with_router(|router| reach(router, None, address));
    }
    assert_eq!(lab.violations(), []);
}

#[test]
fn clients_of_the_same_and_of_another_subnet_reach_each_other() {
    let (lab, a) = lab();
    let _echo = Echo::start(&a, &all(a.primary())).unwrap();
    for subnet in [1, 2] {
        let client = lab.client(&lab.subnet(subnet)).unwrap();
        let _echo = Echo::start(&client, &all(client.primary())).unwrap();
        for (theirs, ours) in client.primary().addresses().zip(a.primary().addresses()) {
            reach(&client, Some(theirs), ours);
            reach(&a, Some(ours), theirs);
        }
    }
    assert_eq!(lab.violations(), []);
}

#[test]
fn a_secondary_in_the_same_subnet_works_when_its_sources_have_a_table() {
    let (lab, a) = lab();
    let secondary = lab.interface(&lab.subnet(1), 3).unwrap();
    let plugged = lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    assert_eq!(plugged.name, "eth1");
    let link = a.link("eth1").unwrap();
    assert_eq!((link.address, link.up), (Some(secondary.mac.0), false));
    configure(&a, "eth1", 10_001, &secondary);
    let _echo = Echo::start(&a, &all(&secondary)).unwrap();
    let near = lab.client(&lab.subnet(1)).unwrap();
    let far = lab.client(&lab.subnet(2)).unwrap();
    for address in secondary.addresses() {
        for client in [&near, &far] {
            reach(client, None, address);
        }
        reach(lab.remote(), None, address);
    }
    assert_eq!(lab.violations(), []);
}

#[test]
fn a_wrong_source_is_dropped_and_seen_whatever_the_destination() {
    let (lab, a) = lab();
    let stray = [ip("10.0.1.99"), ip("2001:db8:0:1::99")];
    let index = a.link("eth0").unwrap().index;
    let requests = stray.map(|address| by_hand(index, address));
    a.apply("take addresses that are not ours", &requests).unwrap();
    let _remote = Echo::start(lab.remote(), &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]).unwrap();
    let _gateway = lab.with_router(|router| Echo::start(router, &[ip("10.0.1.1")])).unwrap();
    let metadata = [ip("169.254.169.254"), ip("fd00:ec2::254")];
    let pairs = [
        (stray[0], Lab::REMOTE_IPV4, Echo::PORT),
        (stray[1], Lab::REMOTE_IPV6, Echo::PORT),
        (stray[0], ip("10.0.1.1"), Echo::PORT),
        (stray[0], metadata[0], 80),
        (stray[1], metadata[1], 80),
    ];
    for (source, destination, port) in pairs {
        let before = lab.violations().len();
        let to = SocketAddr::new(destination, port);
        let answer = probe(&a, Some(source), to, Transport::Udp, Duration::from_millis(150));
        assert_eq!(answer, Err(ProbeError::NoAnswer), "{source} to {to}");
        let violation = Violation {
            interface: a.primary().mac,
            source,
            destination,
            protocol: 17,
            port: Some(port),
        };
        assert_eq!(lab.violations()[before..], [violation]);
    }
    for address in a.primary().addresses().zip([Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]) {
        reach(&a, Some(address.0), address.1);
    }
}

#[test]
fn a_secondary_that_leaves_by_the_primary_is_a_violation() {
    let (lab, a) = lab();
    let secondary = lab.interface(&lab.subnet(2), 1).unwrap();
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    let index = a.link("eth1").unwrap().index;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![up.request(index)];
    requests.extend(secondary.addresses().map(|address| by_hand(index, address)));
    a.apply("addresses, and no routes", &requests).unwrap();
    let _echo = Echo::start(&a, &all(&secondary)).unwrap();
    for address in secondary.addresses() {
        let answer = probe(lab.remote(), None, Echo::at(address), Transport::Udp, SHORT);
        assert_eq!(answer, Err(ProbeError::NoAnswer));
    }
    let seen = lab.violations();
    assert!(seen.iter().all(|violation| violation.interface == a.primary().mac), "{seen:?}");
    let sources: Vec<_> = seen.iter().map(|violation| violation.source).collect();
    assert!(secondary.addresses().all(|address| sources.contains(&address)), "{seen:?}");
}

#[test]
fn an_interface_moves_to_another_instance_with_its_addresses() {
    let (lab, a) = lab();
    let b = lab.instance("b", &lab.subnet(2)).unwrap();
    let moving = lab.interface(&lab.subnet(3), 2).unwrap();
    lab.attach(&a, moving.mac, &Plug::new(1)).unwrap();
    configure(&a, "eth1", 10_001, &moving);
    let echo = Echo::start(&a, &all(&moving)).unwrap();
    moving.addresses().for_each(|address| reach(lab.remote(), None, address));
    drop(echo);
    lab.move_to(moving.mac, &b, &Plug::new(2).named("ens7")).unwrap();
    assert!(a.link("eth1").is_err());
    configure(&b, "ens7", 10_002, &moving);
    let _echo = Echo::start(&b, &all(&moving)).unwrap();
    moving.addresses().for_each(|address| reach(lab.remote(), None, address));
    assert_eq!(lab.cloud().attachment(moving.mac), Some(("i-b".to_owned(), 2)));
    assert_eq!(lab.violations(), []);
}

#[test]
fn addresses_and_prefixes_come_go_and_move_at_run_time() {
    let (lab, a) = lab();
    let secondary = lab.interface(&lab.subnet(2), 1).unwrap();
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    configure(&a, "eth1", 10_001, &secondary);
    let (primary, mac) = (a.primary().mac, secondary.mac);
    // All of these are tried on the primary, whose routes fit them.
    let index = a.link("eth0").unwrap().index;
    let tried = [ip("10.0.1.77"), ip("2001:db8:0:1:f::7")];
    a.apply("take addresses", &tried.map(|address| by_hand(index, address))).unwrap();
    let _echo = Echo::start(&a, &tried).unwrap();
    let answers =
        |address| probe(lab.remote(), None, Echo::at(address), Transport::Udp, SHORT).is_ok();
    assert!(!answers(tried[0]) && !answers(tried[1]));
    lab.add_address(primary, tried[0]).unwrap();
    lab.add_prefix(primary, "2001:db8:0:1:f::/80".parse().unwrap()).unwrap();
    assert!(answers(tried[0]) && answers(tried[1]));
    assert_eq!(lab.violations(), []);
    lab.move_address(tried[0], primary, mac).unwrap();
    assert!(!answers(tried[0]), "it is now behind the other port");
    lab.move_address(tried[0], mac, primary).unwrap();
    assert!(answers(tried[0]));
    lab.remove_address(primary, tried[0]).unwrap();
    lab.remove_prefix(primary, "2001:db8:0:1:f::/80".parse().unwrap()).unwrap();
    assert!(!answers(tried[0]) && !answers(tried[1]));
}

/// Asks the metadata service as a plain client does.
fn ask(from: &Host, service: IpAddr, path: &str) -> String {
    let exchange = |request: String| -> std::io::Result<String> {
        let mut stream = TcpStream::connect((service, 80))?;
        stream.set_read_timeout(Some(LONG))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    };
    from.run(|| {
        let token = "X-aws-ec2-metadata-token";
        let put = format!("PUT /latest/api/token HTTP/1.1\r\n{token}-ttl-seconds: 60\r\n\r\n");
        let given = exchange(put).unwrap();
        exchange(format!("GET {path} HTTP/1.1\r\n{token}: {given}\r\n\r\n")).unwrap()
    })
    .unwrap()
}

#[test]
fn each_instance_is_told_its_own_metadata_in_both_families() {
    let (lab, a) = lab();
    let b = lab.instance("b", &lab.subnet(1)).unwrap();
    for service in [ip("169.254.169.254"), ip("fd00:ec2::254")] {
        for instance in [&a, &b] {
            let id = ask(instance, service, "/latest/meta-data/instance-id");
            assert_eq!(id, instance.id(), "{service}");
        }
    }
    let secondary = lab.interface(&lab.subnet(2), 1).unwrap();
    let path = "/latest/meta-data/network/interfaces/macs/";
    lab.attach(&b, secondary.mac, &Plug::new(1)).unwrap();
    let listed = format!("{}/\n{}/", b.primary().mac, secondary.mac);
    assert_eq!(ask(&b, ip("169.254.169.254"), path), listed);
    assert_eq!(ask(&a, ip("169.254.169.254"), path), format!("{}/", a.primary().mac));
    assert!(lab.cloud().requests().iter().all(|request| request.status == Some(200)));
    assert_eq!(lab.violations(), []);
}

#[test]
fn fifty_addresses_on_an_interface() {
    let (lab, a) = lab();
    let secondary = lab.interface(&lab.subnet(2), 50).unwrap();
    let plugged = lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    let addresses = all(&secondary);
    let every = Duration::from_micros(200);
    let watch = FirstAnswers::watch(lab.remote(), &addresses, every).unwrap();
    configure(&a, "eth1", 10_001, &secondary);
    let configured = Instant::now();
    let answers = watch.wait(LONG);
    assert_eq!(answers.len(), 100);
    let last = *answers.values().max().unwrap();
    assert!(last > plugged.appeared);
    let late = last.saturating_duration_since(configured);
    assert!(late < Duration::from_millis(500), "{late:?} after it was configured");
    assert_eq!(lab.violations(), []);
}

#[test]
fn a_container_behind_a_bridge_reaches_its_host_and_is_reached() {
    let (lab, a) = lab();
    let networks = ["172.17.0.0/16".parse().unwrap(), "fd17::/64".parse().unwrap()];
    let bridge = a.bridge("docker0", &networks).unwrap();
    let container = bridge.container("c1").unwrap();
    assert_eq!(container.addresses(), [ip("172.17.0.2"), ip("fd17::2")]);
    let _inside = Echo::start(&container, container.addresses()).unwrap();
    let own = all(a.primary());
    let _outside = Echo::start(&a, &own).unwrap();
    for (theirs, ours) in container.addresses().iter().zip(own) {
        reach(&container, Some(*theirs), ours);
        reach(&a, None, *theirs);
    }
    let second = bridge.container("c2").unwrap();
    reach(&second, None, ip("172.17.0.2"));
    assert_eq!(lab.violations(), []);
}

#[test]
fn a_stream_counts_what_it_loses() {
    let (lab, a) = lab();
    let address = a.primary().addresses().next().unwrap();
    let _echo = Echo::start(&a, &[address]).unwrap();
    let every = Duration::from_millis(1);
    let stream = PacketStream::start(lab.remote(), None, address, every).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let report = stream.finish();
    assert!(report.sent > 50 && report.lost.is_empty(), "{report:?}");

    let stream = PacketStream::start(lab.remote(), None, address, every).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    a.set_up("eth0", false).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let report = stream.finish();
    assert!(!report.lost.is_empty(), "{report:?}");
    assert!(!report.lost.contains(&0), "{report:?}");
}

#[test]
fn a_failure_says_what_it_was() {
    let (lab, a) = lab();
    let subnet = lab.subnet(1);
    let fails = |from: &Host, source, to, transport| {
        probe(from, source, to, transport, Duration::from_millis(150)).unwrap_err()
    };
    let address = Echo::at(a.primary().addresses().next().unwrap());
    let refused = ProbeError::Failed(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(fails(lab.remote(), None, address, Transport::Tcp), refused);
    assert_eq!(fails(lab.remote(), None, address, Transport::Udp), refused);
    let nobody = Echo::at(ip("10.0.1.200"));
    assert_eq!(fails(lab.remote(), None, nobody, Transport::Udp), ProbeError::NoAnswer);
    assert_eq!(fails(lab.remote(), None, nobody, Transport::Tcp), ProbeError::NoAnswer);
    let not_ours = ProbeError::Source(std::io::ErrorKind::AddrNotAvailable);
    assert_eq!(fails(&a, Some(ip("10.9.9.9")), nobody, Transport::Tcp), not_ours);
    // Names that are taken leave nothing behind.
    let secondary = lab.interface(&subnet, 1).unwrap();
    assert!(lab.attach(&a, secondary.mac, &Plug::new(0)).is_err());
    assert_eq!(lab.cloud().attachment(secondary.mac), None);
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
}

#[test]
fn an_interface_can_be_described_in_full() {
    let (lab, a) = lab();
    let subnet = Subnet::new("subnet-ipv6").with_ipv6("2001:db8:0:66::/64".parse().unwrap());
    let record = CloudInterface::new(lab.new_mac(), subnet)
        .with_address(ip("2001:db8:0:66::1234"))
        .with_owner("210987654321");
    lab.add_interface(record.clone()).unwrap();
    lab.attach(&a, record.mac, &Plug::new(3).on_card(1)).unwrap();
    let path = format!("/latest/meta-data/network/interfaces/macs/{}/", record.mac);
    let listed = ask(&a, ip("169.254.169.254"), &path);
    assert!(!listed.contains("ipv4") && listed.contains("network-card"), "{listed}");
}

#[test]
fn a_network_behind_an_instance_is_reached_by_a_static_route() {
    let (lab, a) = lab();
    let router = lab.client(&lab.subnet(1)).unwrap();
    let networks = ["192.168.50.0/24".parse().unwrap(), "2001:db8:50::/64".parse().unwrap()];
    let bridge = router.bridge("lan", &networks).unwrap();
    let behind = bridge.container("behind").unwrap();
    let index = a.link("eth0").unwrap().index;
    let routes = networks.map(|network: IpNet| {
        let gateways = router.primary().addresses();
        let gateway =
            gateways.into_iter().find(|gateway| network.addr().is_ipv4() == gateway.is_ipv4());
        Route::via_gateway(network, 254, index, gateway.unwrap()).add()
    });
    a.apply("static routes", &routes).unwrap();
    let own = all(a.primary());
    let _ours = Echo::start(&a, &own).unwrap();
    let _theirs = Echo::start(&behind, behind.addresses()).unwrap();
    let answer = probe(&behind, None, Echo::at(own[0]), Transport::Udp, SHORT);
    assert_eq!(answer, Err(ProbeError::NoAnswer), "the source check is on");
    assert!(!lab.violations().is_empty());
    let before = lab.violations().len();
    for network in networks {
        lab.route_through(router.primary().mac, network).unwrap();
    }
    for (theirs, ours) in behind.addresses().iter().zip(own) {
        reach(&behind, Some(*theirs), ours);
        reach(&a, Some(ours), *theirs);
    }
    assert_eq!(lab.violations().len(), before);
}

#[test]
fn an_interface_is_pulled_wherever_it_was_moved() {
    let (lab, a) = lab();
    let elsewhere = Host::new("elsewhere").unwrap();
    let secondary = lab.interface(&lab.subnet(2), 1).unwrap();
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    let index = a.link("eth1").unwrap().index;
    let namespace = Some(elsewhere.namespace().as_fd());
    let change = LinkChange { namespace, name: Some("net1"), ..LinkChange::default() };
    a.apply("move an interface to a container", &[change.request(index)]).unwrap();
    assert!(elsewhere.link("net1").is_ok());
    lab.detach(secondary.mac).unwrap();
    assert!(elsewhere.link("net1").is_err());
    // One that its namespace took along can be detached and plugged in again.
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    let index = a.link("eth1").unwrap().index;
    a.apply("delete an interface", &[Link::delete(index)]).unwrap();
    lab.add_address(secondary.mac, ip("10.0.2.99")).unwrap();
    lab.detach(secondary.mac).unwrap();
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
}

#[test]
fn after_a_power_cycle_an_instance_has_its_interfaces_and_nothing_of_what_its_kernel_knew() {
    let (lab, mut a) = lab();
    let record = lab.interface(&lab.subnet(2), 1).unwrap();
    lab.attach(&a, record.mac, &Plug::new(1)).unwrap();
    configure(&a, "eth1", 10001, &record);
    a.power_cycle().unwrap();
    for (name, mac) in [("eth0", a.primary().mac), ("eth1", record.mac)] {
        let link = a.link(name).unwrap();
        assert_eq!(link.address, Some(mac.0));
        assert!(!link.up);
    }
    let mut kernel = Rtnetlink::open_in(a.namespace()).unwrap();
    for family in Family::BOTH {
        let addresses = Address::list(&mut kernel, family).unwrap();
        assert!(addresses.iter().all(|address| address.interface == 1), "{addresses:?}");
    }
    configure(&a, "eth1", 10001, &record);
    let _echo = Echo::start(&a, &all(&record)).unwrap();
    for address in all(&record) {
        reach(lab.remote(), None, address);
    }
}

#[test]
fn large_packets_pass_once_the_interface_takes_them() {
    let (lab, a) = lab();
    let b = lab.instance("b", &lab.subnet(2)).unwrap();
    for instance in [&a, &b] {
        let index = instance.link("eth0").unwrap().index;
        let change = LinkChange { mtu: Some(9001), ..LinkChange::default() };
        instance.apply("raise the MTU", &[change.request(index)]).unwrap();
    }
    let to = b.primary().addresses().next().unwrap();
    let _echo = Echo::start_at(&b, [SocketAddr::new(to, 7)]).unwrap();
    let sent = a.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((to, 7)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.send(&[1; 8000]).unwrap();
        socket.recv(&mut [0; 9000])
    });
    assert_eq!(sent.unwrap().unwrap(), 8000);
}

/// What `ip -6 route` shows of a device's routes by advertisements.
fn advertised(host: &Host, device: &str) -> String {
    let mut command = host.command("ip").unwrap();
    let output = command.args(["-6", "route", "show", "proto", "ra", "dev", device]).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn wait_for_route(host: &Host, device: &str, router: Option<&str>) {
    let is_so = || match router {
        Some(router) => advertised(host, device).contains(&format!("default via {router}")),
        None => !advertised(host, device).contains("default"),
    };
    let end = Instant::now() + 4 * LONG;
    while !is_so() {
        assert!(Instant::now() < end, "{device}, {router:?}: {}", advertised(host, device));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_router_is_the_default_of_whoever_hears_it_or_asks_for_it() {
    let (lab, a) = lab();
    a.set_sysctl("net/ipv6/conf/default/accept_ra", "1").unwrap();
    let record = lab.interface(&lab.subnet(2), 1).unwrap();
    let router = "fe80::77".parse().unwrap();
    let advertisement = RouterAdvertisement { router, lifetime: Duration::from_secs(1800) };
    lab.attach(&a, record.mac, &Plug::new(1)).unwrap();
    a.set_up("eth1", true).unwrap();
    lab.advertise(record.mac, advertisement).unwrap();
    wait_for_route(&a, "eth1", Some("fe80::77"));
    lab.advertise(record.mac, RouterAdvertisement { lifetime: Duration::ZERO, ..advertisement })
        .unwrap();
    wait_for_route(&a, "eth1", None);

    // Nothing is heard while the link is down: it asks when it is up.
    lab.advertise(record.mac, advertisement).unwrap();
    lab.detach(record.mac).unwrap();
    lab.attach(&a, record.mac, &Plug::new(1)).unwrap();
    assert_eq!(advertised(&a, "eth1"), "");
    a.set_up("eth1", true).unwrap();
    wait_for_route(&a, "eth1", Some("fe80::77"));
    assert_eq!(lab.violations(), []);
}
