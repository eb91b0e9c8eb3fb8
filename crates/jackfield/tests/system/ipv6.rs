//! IPv6: hosts and subnets that have nothing else, subnets of several blocks, and the router.

use std::net::IpAddr;

use jackfield_lab::emulator::CloudInterface;
use jackfield_lab::probe::Echo;
use jackfield_lab::{Lab, Plug};

use crate::clients::Client;
use crate::harness::*;

/// As everywhere: who is asked in the primary's subnet, in the interface's, and far away.
fn everybody_meets(stage: &Stage, interfaces: &[Attached]) {
    let near: Vec<_> =
        stage.subnets.iter().map(|subnet| stage.lab.client(subnet).unwrap()).collect();
    let addresses: Vec<Vec<IpAddr>> =
        near.iter().map(|client| client.primary().addresses().collect()).collect();
    let mut clients = vec![Client::new("the remote host", stage.lab.remote(), &[Lab::REMOTE_IPV6])];
    clients.extend(near.iter().zip(&addresses).map(|(host, own)| Client::new("near", host, own)));
    let _theirs: Vec<Echo> = clients.iter().map(Client::echo).collect();
    for interface in interfaces {
        let _echo = Echo::start(&stage.a, &interface.addresses).unwrap();
        let pairs = clients.iter().flat_map(|client| {
            interface.addresses.iter().flat_map(|ip| client.meet(&stage.a, *ip))
        });
        assert_eq!(pairs.collect::<Vec<String>>(), Vec::<String>::new(), "{}", interface.name);
    }
    assert_eq!(stage.lab.violations(), []);
}

#[test]
fn a_host_without_ipv4_is_configured_by_the_ipv6_address_of_the_metadata_service() {
    let stage = Stage::ipv6_only();
    let before = NetworkState::of(&stage.a);
    let agent = Agent::start(&stage.a);
    let interfaces =
        [(2, 1), (2, 2), (1, 3)].map(|(subnet, device)| stage.attach(subnet, device, 2));
    for interface in &interfaces {
        assert!(interface.addresses.iter().all(IpAddr::is_ipv6));
        configured_within(&stage.a, interface, PATIENCE);
    }
    everybody_meets(&stage, &interfaces);
    let asked = stage.lab.cloud().requests();
    assert!(!asked.is_empty() && asked.iter().all(|request| request.local.is_ipv6()));
    // Nothing of IPv4 was made for interfaces that have none.
    let ipv4 = shell(&stage.a, "ip -4 rule show; ip -4 route show table all");
    assert!(!ipv4.contains("106") && !ipv4.contains("10001"), "{ipv4}");
    for interface in &interfaces {
        stage.lab.detach(interface.mac).unwrap();
    }
    becomes(&before, &stage.a);
    agent.stop();
}

/// As DHCP gives one in a subnet without IPv4: it leads nowhere, and nobody says so.
#[test]
fn a_link_local_ipv4_address_does_not_keep_metadata_from_being_asked_by_ipv6() {
    let stage = Stage::ipv6_only();
    shell(&stage.a, "ip address add 169.254.10.2/16 dev eth0");
    let agent = Agent::start(&stage.a);
    for device in [1, 2] {
        let interface = stage.attach(2, device, 1);
        configured_within(&stage.a, &interface, PATIENCE);
        answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    }
    agent.stop();
}

#[test]
fn the_commands_work_on_a_host_without_ipv4() {
    let stage = Stage::ipv6_only();
    let interface = stage.attach(2, 1, 2);
    let before = NetworkState::of(&stage.a);
    succeed(&stage.a, &["plug", "eth1"]);
    answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    assert_eq!(status(&stage.a)["interfaces"][1]["state"], "configured");
    assert!(succeed(&stage.a, &["scan"]).contains("no netlink write"));
    succeed(&stage.a, &["unplug", "eth1"]);
    assert_same(&before, &NetworkState::of(&stage.a));
}

#[test]
fn an_interface_in_a_subnet_without_ipv4_works_on_a_host_that_has_it() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let record = stage.lab.interface(&stage.lab.ipv6_subnet(2), 2).unwrap();
    stage.lab.attach(&stage.a, record.mac, &Plug::new(1)).unwrap();
    let interface = Attached::of(&record, 1);
    configured_within(&stage.a, &interface, PATIENCE);
    everybody_meets(&stage, &[interface]);
    assert_eq!(status(&stage.a)["interfaces"][1]["problems"].as_array().unwrap().len(), 0);
    agent.stop();
}

/// Written out in full, as metadata may have them: what the kernel has is the same.
#[test]
fn addresses_of_several_blocks_work_however_they_are_written() {
    let stage = Stage::new();
    let subnet = stage.subnets[1].clone().with_ipv6("2001:db8:0:12::/64".parse().unwrap());
    let mac = stage.lab.new_mac();
    let texts = ["2001:db8:0:2::77", "2001:db8:0:12::77"];
    let full = ["2001:0db8:0000:0002:0000:0000:0000:0077", "2001:0DB8:0:12:0:0:0:77"];
    let blocks = ["2001:0db8:0000:0002:0000:0000:0000:0000/64", "2001:db8:0:12:0:0:0:0/64"];
    let mut record = CloudInterface::new(mac, subnet)
        .with_literal("ipv6s", full.join("\n"))
        .with_literal("subnet-ipv6-cidr-blocks", blocks.join("\n"));
    for text in ["10.0.2.77"].into_iter().chain(texts) {
        record = record.with_address(text.parse().unwrap());
    }
    stage.lab.add_interface(record.clone()).unwrap();
    stage.lab.attach(&stage.a, mac, &Plug::new(1)).unwrap();
    succeed(&stage.a, &["plug", "eth1"]);
    let interface = Attached::of(&record, 1);
    answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    let table = shell(&stage.a, "ip -6 route show table 10001");
    for block in ["2001:db8:0:2::/64", "2001:db8:0:12::/64"] {
        assert!(table.contains(&format!("{block} dev eth1")), "{table}");
    }
    assert!(succeed(&stage.a, &["plug", "eth1"]).contains("no netlink write"));
    assert_eq!(stage.lab.violations(), []);
}

/// A manager that listens to advertisements keeps their default route in main.
#[test]
fn the_router_that_advertisements_name_is_used_while_their_route_is_there() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let interface = stage.attach(2, 1, 1);
    configured_within(&stage.a, &interface, PATIENCE);
    let by = |router: &str| {
        let default = shell(&stage.a, "ip -6 route show table 10001 default");
        default.contains(&format!("default via {router} dev eth1"))
    };
    assert!(by("fe80:ec2::1"));
    stage.lab.with_router(|router| {
        for link in router.links().unwrap().iter().filter(|link| link.name.starts_with("port")) {
            shell(router, &format!("ip address add fe80::77/64 dev {} nodad", link.name));
        }
    });
    shell(&stage.a, "ip -6 route add default via fe80::77 dev eth1 proto ra metric 20000");
    eventually("the advertised router is used", PATIENCE, || by("fe80::77"));
    answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    shell(&stage.a, "ip -6 route delete default via fe80::77 dev eth1 proto ra metric 20000");
    eventually("the one of every subnet is used again", PATIENCE, || by("fe80:ec2::1"));
    answers_within(stage.lab.remote(), &stage.a, &interface.addresses, PATIENCE);
    assert_eq!(stage.lab.violations(), []);
    agent.stop();
}
