//! What the kernel answers when it is asked for the way of a packet.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

use jackfield_kernel::{
    Family, Link, Namespace, NeighbourEntry, NeighbourState, RouteKind, RouteQuery, RouteRefusal,
    Rtnetlink, SelectingRule,
};

struct Host {
    namespace: Namespace,
    kernel: Rtnetlink,
}

impl Host {
    fn new(script: &str) -> Self {
        let namespace =
            Namespace::anonymous().expect("these tests need the right to make namespaces");
        let kernel = Rtnetlink::open_in(&namespace).unwrap();
        let host = Host { namespace, kernel };
        host.run(script);
        host
    }

    fn run(&self, script: &str) {
        let output = self
            .namespace
            .run(|| Command::new("sh").args(["-ec", script]).output().unwrap())
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }

    fn index(&mut self, name: &str) -> u32 {
        let links = Link::list(&mut self.kernel).unwrap();
        links.iter().find(|link| link.name == name).unwrap().index
    }
}

const TWO: &str = "
    sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    sysctl -qw net.ipv6.conf.all.forwarding=1
    ip link set lo up
    for number in 1 2; do
        ip link add d$number type veth peer name p$number
        ip link set d$number up; ip link set p$number up
        ip address add 10.0.$number.2/24 dev d$number
        ip address add 2001:db8:$number::2/64 dev d$number nodad
    done
    ip route add default via 10.0.1.1
    ip -6 route add default via 2001:db8:1::1
    ip route add default via 10.0.2.1 table 1002 mtu 1400
    ip -6 route add default via 2001:db8:2::1 table 1002 mtu 1400";

#[test]
fn the_way_of_a_packet_is_told_with_table_gateway_mtu_and_entry() {
    let mut host = Host::new(TWO);
    host.run(
        "ip rule add from 10.0.2.2 lookup 1002; ip -6 rule add from 2001:db8:2::2 lookup 1002",
    );
    let (d1, d2) = (host.index("d1"), host.index("d2"));
    for (far, sources, gateways) in [
        ("192.0.2.9", ["10.0.1.2", "10.0.2.2"], ["10.0.1.1", "10.0.2.1"]),
        (
            "2001:db8:ffff::9",
            ["2001:db8:1::2", "2001:db8:2::2"],
            ["2001:db8:1::1", "2001:db8:2::1"],
        ),
    ] {
        let expected = [(254, d1, None), (1002, d2, Some(1400))];
        for ((source, gateway), (table, device, mtu)) in sources.iter().zip(gateways).zip(expected)
        {
            let query = RouteQuery::from_here(source.parse().unwrap(), far.parse().unwrap());
            let answer = query.ask(&mut host.kernel).unwrap().unwrap();
            let hop = answer.next_hop.unwrap();
            assert_eq!((answer.kind, answer.table), (RouteKind::Unicast, table), "{query:?}");
            assert_eq!((hop.interface, hop.gateway), (device, Some(gateway.parse().unwrap())));
            assert_eq!(answer.mtu, mtu);
            let matched = answer.matched.unwrap();
            assert_eq!((matched.destination.prefix_len(), matched.table), (0, table));
        }
        // Another one comes in, for this host.
        let query = RouteQuery {
            input_interface: Some(d1),
            ..RouteQuery::from_here(far.parse().unwrap(), sources[0].parse().unwrap())
        };
        let answer = query.ask(&mut host.kernel).unwrap().unwrap();
        assert_eq!((answer.kind, answer.next_hop), (RouteKind::Local, None));
    }
}

#[test]
fn mark_ports_protocol_and_user_count() {
    let mut host = Host::new(TWO);
    let (d1, d2) = (host.index("d1"), host.index("d2"));
    for (family, far, source) in
        [("-4", "192.0.2.9", "10.0.1.2"), ("-6", "2001:db8:ffff::9", "2001:db8:1::2")]
    {
        let plain = RouteQuery {
            protocol: Some(6),
            ..RouteQuery::from_here(source.parse().unwrap(), far.parse().unwrap())
        };
        for (selector, query) in [
            ("fwmark 0x5/0xff", RouteQuery { mark: 0x105, ..plain }),
            ("ipproto udp", RouteQuery { protocol: Some(17), ..plain }),
            ("ipproto tcp dport 443", RouteQuery { destination_port: Some(443), ..plain }),
            ("sport 1000-2000", RouteQuery { source_port: Some(1500), ..plain }),
            ("uidrange 4000-4001", RouteQuery { user: Some(4001), ..plain }),
        ] {
            host.run(&format!("ip {family} rule add priority 50 {selector} lookup 1002"));
            let mut device = |query: &RouteQuery| {
                query.ask(&mut host.kernel).unwrap().unwrap().next_hop.unwrap().interface
            };
            assert_eq!((device(&query), device(&plain)), (d2, d1), "{family} {selector}");
            host.run(&format!("ip {family} rule del priority 50"));
        }
    }
}

#[test]
fn a_refusal_says_what_it_is() {
    let mut host = Host::new(TWO);
    for (family, source, base) in
        [("-4", "10.0.1.2", "192.0.2."), ("-6", "2001:db8:1::2", "2001:db8:ffff::")]
    {
        let at = |number: u32| format!("{base}{number}");
        host.run(&format!(
            "ip {family} route add unreachable {}; ip {family} route add prohibit {}
             ip {family} route add blackhole {}; ip {family} rule add to {} unreachable",
            at(1),
            at(2),
            at(3),
            at(4)
        ));
        for (number, why) in [
            (1, RouteRefusal::HostUnreachable),
            (2, RouteRefusal::Prohibited),
            (3, RouteRefusal::Invalid),
            (4, RouteRefusal::NetworkUnreachable),
        ] {
            let to = at(number).parse().unwrap();
            let query = RouteQuery::from_here(source.parse().unwrap(), to);
            assert_eq!(query.ask(&mut host.kernel).unwrap(), Err(why), "{to}");
        }
    }
    // The kernel cannot be asked about this protocol, which is no property of the way.
    let far = "192.0.2.9".parse().unwrap();
    let query = RouteQuery {
        protocol: Some(47),
        ..RouteQuery::from_here("10.0.1.2".parse().unwrap(), far)
    };
    assert!(query.ask(&mut host.kernel).is_err());
}

#[test]
fn the_reverse_path_filter_and_forwarding_are_in_the_answer_of_ipv4() {
    let mut host = Host::new(TWO);
    let d2 = host.index("d2");
    let (far, here) = ("192.0.2.9".parse().unwrap(), "10.0.1.2".parse().unwrap());
    let inbound = RouteQuery { input_interface: Some(d2), ..RouteQuery::from_here(far, here) };
    assert!(inbound.ask(&mut host.kernel).unwrap().is_ok());
    host.run("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let refusal = inbound.ask(&mut host.kernel).unwrap().unwrap_err();
    assert!([RouteRefusal::Invalid, RouteRefusal::ReversePath].contains(&refusal), "{refusal}");
    host.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.ip_forward=0");
    let through = RouteQuery { destination: "192.0.2.77".parse().unwrap(), ..inbound };
    let through = RouteQuery { source: Some("10.0.2.77".parse().unwrap()), ..through };
    assert_eq!(through.ask(&mut host.kernel).unwrap(), Err(RouteRefusal::HostUnreachable));
}

#[test]
fn rules_are_listed_with_everything_that_they_select_by() {
    let mut host = Host::new(
        "ip rule add priority 10 not from 10.0.0.0/8 ipproto tcp sport 10-20 dport 443 \
         uidrange 5-7 lookup 100
         ip rule add priority 11 dsfield 0x10 lookup 100
         ip -6 rule add priority 10 ipproto udp lookup 100",
    );
    let rules = SelectingRule::list(&mut host.kernel, Family::V4).unwrap();
    let at = |priority: u32| {
        let rule = rules.iter().find(|is| is.rule.priority == priority).unwrap();
        rule.selection.clone()
    };
    let first = at(10);
    assert_eq!((first.inverted, first.unknown), (true, false));
    assert_eq!((first.protocol, first.users), (Some(6), Some(5..=7)));
    assert_eq!((first.source_ports, first.destination_ports), (Some(10..=20), Some(443..=443)));
    assert_eq!(at(11).tos, 0x10);
    assert_eq!(at(32766), jackfield_kernel::RuleSelection::default());
    let rules = SelectingRule::list(&mut host.kernel, Family::V6).unwrap();
    assert_eq!(rules[1].selection.protocol, Some(17));
}

#[test]
fn neighbours_are_listed_with_what_is_known_of_them() {
    let mut host = Host::new(TWO);
    host.run(
        "ip neigh replace 10.0.1.1 lladdr 02:00:00:00:00:01 dev d1 nud permanent
         ip neigh replace 10.0.1.7 dev d1 nud failed
         ip neigh replace 10.0.2.1 lladdr 02:00:00:00:00:02 dev d2 nud stale
         ip -6 neigh replace 2001:db8:1::1 lladdr 02:00:00:00:00:01 dev d1 nud permanent",
    );
    let d1 = host.index("d1");
    let list = NeighbourEntry::list_of(&mut host.kernel, Family::V4, d1).unwrap();
    let find = |address: &str| list.iter().find(|is| is.address.to_string() == address).copied();
    let known = find("10.0.1.1").unwrap();
    assert_eq!(
        (known.state, known.link_address),
        (NeighbourState::Known, Some([2, 0, 0, 0, 0, 1]))
    );
    assert_eq!(find("10.0.1.7").unwrap().state, NeighbourState::Failed);
    assert_eq!(find("10.0.2.1"), None);
    let list = NeighbourEntry::list_of(&mut host.kernel, Family::V6, d1).unwrap();
    assert!(list.iter().any(|is| is.link_address == Some([2, 0, 0, 0, 0, 1])), "{list:?}");
}
