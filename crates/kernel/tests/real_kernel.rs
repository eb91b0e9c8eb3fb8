//! Every request against the real kernel, each test in namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{
    Address, AddressFlags, DeviceAction, DeviceEvents, Family, Link, LinkChange, Monitor,
    Namespace, Neighbour, NeighbourKind, Notification, Refusal, Route, RouteFilter, RouteKind,
    Rtnetlink, Rule, RuleAction, Subject, VethEnd, bridge, veth_pair,
};

const OURS: u8 = 106;

/// A namespace with one veth pair in it, `inner` and `outer`, both up.
struct Bench {
    namespace: Namespace,
    kernel: Rtnetlink,
    interface: u32,
    other: u32,
}

fn end(name: &str) -> VethEnd<'_> {
    VethEnd { name, address: None, mtu: None, namespace: None }
}

fn link(kernel: &mut Rtnetlink, name: &str) -> Link {
    let links = Link::list(kernel).unwrap();
    links.into_iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no link {name}"))
}

fn bench() -> Bench {
    let namespace = Namespace::anonymous().expect("these tests need the right to make namespaces");
    let mut kernel = Rtnetlink::open_in(&namespace).unwrap();
    kernel.request("make a veth pair", veth_pair(end("inner"), end("outer"))).unwrap();
    let (interface, other) = (link(&mut kernel, "inner").index, link(&mut kernel, "outer").index);
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    // The loopback too: IPv4 has no local table before, and takes no gateway then.
    let requests = [1, interface, other].map(|index| up.request(index));
    assert_eq!(kernel.batch(&requests).unwrap(), vec![Ok(()); 3]);
    Bench { namespace, kernel, interface, other }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn secondary(interface: u32, address: &str) -> Address {
    let address = net(address);
    let flags = AddressFlags {
        no_prefix_route: true,
        no_dad: address.addr().is_ipv6(),
        tentative: false,
        permanent: true,
        deprecated: false,
    };
    Address { interface, address, protocol: OURS, flags }
}

#[test]
fn every_property_of_a_link_is_set_and_read_back() {
    let mut bench = bench();
    let change = LinkChange {
        mtu: Some(1400),
        group: Some(106),
        alias: Some("jackfield was here"),
        ..LinkChange::default()
    };
    let long = "eni-0123456789abcdef0-a-name-that-is-longer-than-fifteen";
    let answers = bench
        .kernel
        .batch(&[
            change.request(bench.interface),
            Link::add_alternative_name(bench.interface, long),
            Link::add_alternative_name(bench.interface, long),
        ])
        .unwrap();
    assert_eq!(answers[..2], [Ok(()), Ok(())]);
    assert!(answers[2].as_ref().is_err_and(Refusal::already_there));
    let inner = link(&mut bench.kernel, "inner");
    assert_eq!((inner.mtu, inner.group), (1400, 106));
    assert_eq!(inner.alias.as_deref(), Some("jackfield was here"));
    assert_eq!(inner.alternative_names, [long]);
    assert_eq!(inner.kind.as_deref(), Some("veth"));
    assert!(inner.up && inner.carrier && inner.ethernet);
    assert_eq!(inner.lower, Some(bench.other));

    let address = [2, 0xec, 0x20, 0, 0, 1];
    let back = LinkChange {
        alias: Some(""),
        up: Some(false),
        address: Some(address),
        name: Some("renamed"),
        ..LinkChange::default()
    };
    let requests =
        [Link::remove_alternative_name(bench.interface, long), back.request(bench.interface)];
    assert_eq!(bench.kernel.batch(&requests).unwrap(), [Ok(()), Ok(())]);
    let inner = link(&mut bench.kernel, "renamed");
    assert_eq!((inner.alias, inner.alternative_names, inner.up), (None, vec![], false));
    assert_eq!(inner.address, Some(address));
}

#[test]
fn a_refusal_carries_the_kernels_own_text() {
    let mut bench = bench();
    let change = LinkChange { mtu: Some(70_000), ..LinkChange::default() };
    let answer = bench.kernel.batch(&[change.request(bench.interface)]).unwrap();
    let refusal = answer[0].clone().unwrap_err();
    assert!(refusal.message.is_some_and(|text| text.contains("mtu")), "no text of the kernel");
}

#[test]
fn a_large_batch_is_answered_message_by_message_although_some_fail() {
    let mut bench = bench();
    let mut requests = Vec::new();
    for number in 0..1000_u32 {
        let address = format!("10.1.{}.{}/32", number / 250, number % 250 + 1);
        requests.push(secondary(bench.interface, &address).add());
        if number % 100 == 7 {
            requests.push(secondary(bench.interface, &address).add());
        }
    }
    let answers = bench.kernel.batch(&requests).unwrap();
    let refused: Vec<usize> =
        answers.iter().enumerate().filter(|(_, a)| a.is_err()).map(|(at, _)| at).collect();
    let expected: Vec<usize> = (0..10).map(|n| n * 101 + 8).collect();
    assert_eq!(refused, expected);
    let listed = Address::list(&mut bench.kernel, Family::V4).unwrap();
    assert_eq!(listed.iter().filter(|address| address.protocol == OURS).count(), 1000);
}

#[test]
fn addresses_of_both_families_come_back_as_they_were_added() {
    let mut bench = bench();
    for text in ["10.0.1.10/32", "2001:db8::10/128"] {
        let address = secondary(bench.interface, text);
        bench.kernel.request("add", address.add()).unwrap();
        let family = Family::of(address.address.addr());
        let ours = |kernel: &mut Rtnetlink| -> Vec<Address> {
            let mut all = Address::list(kernel, family).unwrap();
            all.retain(|address| address.protocol == OURS);
            all
        };
        assert_eq!(ours(&mut bench.kernel), std::slice::from_ref(&address));
        let routes = Route::list(
            &mut bench.kernel,
            family,
            RouteFilter { table: Some(254), ..RouteFilter::default() },
        );
        let made = |route: &Route| route.destination == address.address;
        assert!(!routes.unwrap().iter().any(made), "a prefix route was added");
        bench.kernel.request("remove", address.remove()).unwrap();
        assert_eq!(ours(&mut bench.kernel), []);
        let again = bench.kernel.batch(&[address.remove()]).unwrap();
        assert!(again[0].as_ref().is_err_and(Refusal::already_gone));
    }
}

#[test]
fn routes_of_both_families_come_back_as_they_were_added() {
    let mut bench = bench();
    for (subnet, gateway, everything) in
        [("10.0.2.0/24", "10.0.2.1", "0.0.0.0/0"), ("2001:db8:2::/64", "fe80:ec2::1", "::/0")]
    {
        let table = 10_001;
        let mut routes = vec![
            Route::via_interface(net(subnet), table, bench.interface),
            Route::via_gateway(net(everything), table, bench.interface, ip(gateway)),
            Route::unreachable(net(everything), table),
        ];
        for (metric, route) in [(1024, 0), (1024, 1), (4_278_198_272, 2)] {
            routes[route].metric = metric;
            routes[route].protocol = OURS;
        }
        routes[1].mtu = Some(1300);
        let adds: Vec<_> = routes.iter().map(Route::add).collect();
        assert_eq!(bench.kernel.batch(&adds).unwrap(), vec![Ok(()); 3], "{subnet}");
        let family = Family::of(ip(gateway));
        let filters = [
            RouteFilter { protocol: Some(OURS), ..RouteFilter::default() },
            RouteFilter { table: Some(table), ..RouteFilter::default() },
        ];
        for filter in filters {
            let mut listed = Route::list(&mut bench.kernel, family, filter).unwrap();
            listed.sort_by_key(|route| (route.metric, route.destination.prefix_len() == 0));
            assert_eq!(listed, routes, "{filter:?}");
        }
        let filter =
            RouteFilter { interface: Some(bench.interface), table: Some(table), protocol: None };
        assert_eq!(Route::list(&mut bench.kernel, family, filter).unwrap().len(), 2);
        let again = bench.kernel.batch(&adds).unwrap();
        assert!(again.iter().all(|answer| answer.as_ref().is_err_and(Refusal::already_there)));
        let removals: Vec<_> = routes.iter().map(Route::remove).collect();
        assert_eq!(bench.kernel.batch(&removals).unwrap(), vec![Ok(()); 3]);
        let again = bench.kernel.batch(&removals).unwrap();
        assert!(again.iter().all(|answer| answer.as_ref().is_err_and(Refusal::already_gone)));
        assert_eq!(Route::list(&mut bench.kernel, family, filters[1]).unwrap(), []);
    }
}

#[test]
fn multipath_routes_and_gateways_of_the_other_family_are_listed_with_their_next_hops() {
    let mut bench = bench();
    let script = "ip -n \"$1\" 2>/dev/null; ip addr add 10.9.0.1/24 dev inner && \
        ip route add 10.50.0.0/16 nexthop via 10.9.0.7 dev inner nexthop dev outer && \
        ip route add 10.60.0.0/16 via inet6 fe80::7 dev inner";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]);
    bench.namespace.start_inside(&mut command, None).unwrap();
    assert!(command.status().unwrap().success());
    let filter = RouteFilter { table: Some(254), ..RouteFilter::default() };
    let routes = Route::list(&mut bench.kernel, Family::V4, filter).unwrap();
    let hops = |destination: &str| -> Vec<(u32, Option<IpAddr>)> {
        let route = routes.iter().find(|route| route.destination == net(destination)).unwrap();
        route.next_hops.iter().map(|hop| (hop.interface, hop.gateway)).collect()
    };
    assert_eq!(
        hops("10.50.0.0/16"),
        [(bench.interface, Some(ip("10.9.0.7"))), (bench.other, None)]
    );
    assert_eq!(hops("10.60.0.0/16"), [(bench.interface, Some(ip("fe80::7")))]);
}

#[test]
fn rules_of_both_families_come_back_as_they_were_added() {
    let mut bench = bench();
    for family in Family::BOTH {
        let source = if family == Family::V4 { "10.0.2.10/32" } else { "2001:db8::10/128" };
        let rules = [
            Rule {
                suppress_prefix_length: Some(0),
                suppress_group: Some(106),
                protocol: OURS,
                ..Rule::new(family, 14_000, RuleAction::Table(254))
            },
            Rule {
                source: Some(net(source)),
                input_interface: Some("lo".to_owned()),
                protocol: OURS,
                ..Rule::new(family, 14_100, RuleAction::Table(10_001))
            },
            Rule {
                destination: Some(net(source)),
                protocol: OURS,
                ..Rule::new(family, 14_200, RuleAction::Goto(15_000))
            },
            Rule { protocol: OURS, ..Rule::new(family, 15_000, RuleAction::Nop) },
            Rule { protocol: OURS, ..Rule::new(family, 15_001, RuleAction::Unreachable) },
        ];
        let adds: Vec<_> = rules.iter().map(Rule::add).collect();
        assert_eq!(bench.kernel.batch(&adds).unwrap(), vec![Ok(()); 5]);
        let mut listed = Rule::list(&mut bench.kernel, family).unwrap();
        listed.retain(|rule| rule.protocol == OURS);
        assert_eq!(listed, rules);
        let again = bench.kernel.batch(&adds).unwrap();
        assert!(again.iter().all(|answer| answer.as_ref().is_err_and(Refusal::already_there)));
        let removals: Vec<_> = rules.iter().map(Rule::remove).collect();
        assert_eq!(bench.kernel.batch(&removals).unwrap(), vec![Ok(()); 5]);
        assert!(
            bench.kernel.batch(&removals).unwrap()[0].as_ref().is_err_and(Refusal::already_gone)
        );
    }
}

#[test]
fn a_rule_that_selects_by_more_than_is_modelled_is_marked_so() {
    let mut bench = bench();
    let mut command = std::process::Command::new("ip");
    command.args(["rule", "add", "pref", "50", "ipproto", "tcp", "dport", "80", "lookup", "77"]);
    bench.namespace.start_inside(&mut command, None).unwrap();
    assert!(command.status().unwrap().success());
    let rules = Rule::list(&mut bench.kernel, Family::V4).unwrap();
    let rule = rules.iter().find(|rule| rule.priority == 50).unwrap();
    assert!(rule.selects_further);
    assert!(rules.iter().filter(|rule| rule.priority != 50).all(|rule| !rule.selects_further));
}

#[test]
fn listing_a_table_that_was_never_used_gives_nothing() {
    let mut bench = bench();
    for family in Family::BOTH {
        let filter = RouteFilter { table: Some(4_000_000), ..RouteFilter::default() };
        assert_eq!(Route::list(&mut bench.kernel, family, filter).unwrap(), []);
    }
}

#[test]
fn a_veth_end_appears_at_once_in_another_namespace_with_its_address() {
    let mut bench = bench();
    let target = Namespace::anonymous().unwrap();
    let address = [2, 0xec, 0x20, 0, 0, 7];
    let inside =
        VethEnd { name: "eth1", address: Some(address), mtu: Some(9001), namespace: Some(&target) };
    bench.kernel.request("make a pair", veth_pair(end("port1"), inside)).unwrap();
    let mut there = Rtnetlink::open_in(&target).unwrap();
    let eth1 = link(&mut there, "eth1");
    assert_eq!((eth1.address, eth1.mtu, eth1.up), (Some(address), 9001, false));
    assert!(eth1.lower_elsewhere);
    bench
        .kernel
        .request(
            "move",
            LinkChange {
                namespace: Some(std::os::fd::AsFd::as_fd(&target)),
                ..LinkChange::default()
            }
            .request(bench.other),
        )
        .unwrap();
    let outer = link(&mut there, "outer").index;
    there.request("delete", Link::delete(outer)).unwrap();
    assert!(Link::list(&mut bench.kernel).unwrap().iter().all(|link| link.name != "inner"));
}

#[test]
fn bridges_and_neighbours_are_made() {
    let mut bench = bench();
    bench.kernel.request("make a bridge", bridge("docker0")).unwrap();
    let docker0 = link(&mut bench.kernel, "docker0");
    assert_eq!(docker0.kind.as_deref(), Some("bridge"));
    let join = LinkChange { controller: Some(docker0.index), ..LinkChange::default() };
    bench.kernel.request("join", join.request(bench.other)).unwrap();
    assert_eq!(link(&mut bench.kernel, "outer").controller, Some(docker0.index));
    for address in ["10.0.0.9", "fe80::9"] {
        let mut neighbour = Neighbour {
            interface: bench.interface,
            address: ip(address),
            kind: NeighbourKind::Permanent([2, 0, 0, 0, 0, 9]),
        };
        bench.kernel.request("set a neighbour", neighbour.set()).unwrap();
        bench.kernel.request("set it again", neighbour.set()).unwrap();
        bench.kernel.request("remove it", neighbour.remove()).unwrap();
        neighbour.kind = NeighbourKind::Proxy;
        bench.kernel.request("answer for it", neighbour.set()).unwrap();
        bench.kernel.request("stop", neighbour.remove()).unwrap();
    }
}

#[test]
fn sysctls_are_read_and_written_only_under_the_right_name() {
    let bench = bench();
    let setting = Setting { family: Family::V6, name: "accept_ra_defrtr" };
    let interface = bench.interface;
    bench
        .namespace
        .run(|| {
            assert_eq!(sysctl::read(interface, "inner", &[setting]).unwrap(), [(setting, 1)]);
            let unknown = Setting { family: Family::V6, name: "no_such_setting" };
            let written = sysctl::write(interface, "inner", &[(unknown, 0), (setting, 0)]);
            assert!(matches!(&written[..], [Err(_), Ok(())]), "{written:?}");
            assert_eq!(sysctl::read(interface, "inner", &[setting]).unwrap(), [(setting, 0)]);
            assert_eq!(sysctl::read(interface, "outer", &[setting]).unwrap(), []);
            let other = Setting { family: Family::V4, name: "rp_filter" };
            for refused in sysctl::write(interface, "outer", &[(setting, 0), (other, 0)]) {
                assert_eq!(refused.unwrap_err().errno(), Some(Refusal::NO_DEVICE));
            }
            assert_eq!(sysctl::read(bench.other, "outer", &[setting]).unwrap(), [(setting, 1)]);
        })
        .unwrap();
}

#[test]
fn changes_are_notified_with_who_made_them() {
    let mut bench = bench();
    let mut monitor = bench.namespace.run(Monitor::open).unwrap().unwrap();
    let address = secondary(bench.interface, "10.0.1.10/32");
    let rule = Rule { protocol: OURS, ..Rule::new(Family::V6, 14_000, RuleAction::Table(10_001)) };
    let mut route = Route::unreachable(net("::/0"), 10_001);
    route.protocol = OURS;
    route.metric = 77;
    bench.kernel.batch(&[address.add(), rule.add(), route.add(), rule.remove()]).unwrap();
    let mut told = Vec::new();
    monitor.receive(|notification| told.push(notification)).unwrap();
    let by = bench.kernel.port();
    let expect = |subject: Subject, removed| Notification::Changed { subject, removed, by };
    for expected in [
        expect(Subject::Address(address), false),
        expect(Subject::Rule(rule.clone()), false),
        expect(Subject::Route(route), false),
        expect(Subject::Rule(rule), true),
    ] {
        assert!(told.contains(&expected), "{expected:?} is not in {told:#?}");
    }
}

#[test]
fn what_is_replaced_is_there_all_the_while() {
    let mut bench = bench();
    let monitor = bench.namespace.run(Monitor::open).unwrap();
    let mut monitor = monitor.unwrap();
    let interface = bench.interface;
    for (address, everything, gateway, metric) in [
        ("10.0.1.10/32", "0.0.0.0/0", "10.0.1.1", 0),
        ("2001:db8::a/128", "::/0", "fe80:ec2::1", 1024),
    ] {
        let ours = secondary(interface, address);
        let theirs = Address { protocol: 0, ..ours.clone() };
        let via = Route::via_gateway(net(everything), 10_001, interface, gateway.parse().unwrap());
        let ours_via = Route { metric, protocol: OURS, ..via };
        let theirs_via = Route { protocol: 3, ..ours_via.clone() };
        let added = bench.kernel.batch(&[theirs.add(), theirs_via.add()]).unwrap();
        assert_eq!(added, [Ok(()), Ok(())]);
        let refused = bench.kernel.batch(&[ours.add(), ours_via.add()]).unwrap();
        assert!(refused.iter().all(|it| it.as_ref().is_err_and(Refusal::already_there)));
        let replaced = bench.kernel.batch(&[ours.replace(), ours_via.replace()]).unwrap();
        assert_eq!(replaced, [Ok(()), Ok(())]);
        let family = ours_via.family();
        let addresses = Address::list_of(&mut bench.kernel, family, interface).unwrap();
        let same = addresses.iter().filter(|is| is.address == ours.address);
        assert_eq!(same.map(|is| is.protocol).collect::<Vec<u8>>(), [OURS]);
        let filter = RouteFilter { table: Some(10_001), ..RouteFilter::default() };
        let routes = Route::list(&mut bench.kernel, family, filter).unwrap();
        assert_eq!(routes.iter().map(|is| is.protocol).collect::<Vec<u8>>(), [OURS]);
    }
    let mut removed = Vec::new();
    let take = |told: Notification| {
        if let Notification::Changed { removed: true, subject, .. } = told {
            removed.push(subject);
        }
    };
    monitor.receive(take).unwrap();
    assert!(removed.is_empty(), "{removed:#?}");
}

#[test]
fn a_refusing_route_keeps_its_kind() {
    let mut bench = bench();
    for (kind, everything) in [(RouteKind::Blackhole, "0.0.0.0/0"), (RouteKind::Prohibit, "::/0")] {
        let mut route = Route::unreachable(net(everything), 9_999);
        (route.kind, route.protocol, route.metric) = (kind, OURS, 5);
        bench.kernel.request("add", route.add()).unwrap();
        let filter = RouteFilter { table: Some(9_999), ..RouteFilter::default() };
        let listed = Route::list(&mut bench.kernel, route.family(), filter).unwrap();
        assert_eq!(listed, [route]);
    }
}

#[test]
fn device_events_of_the_namespace_arrive() {
    let mut bench = bench();
    let mut events = bench.namespace.run(DeviceEvents::open).unwrap().unwrap();
    bench.kernel.request("make a pair", veth_pair(end("a0"), end("a1"))).unwrap();
    let index = link(&mut bench.kernel, "a0").index;
    let rename = LinkChange { name: Some("b0"), ..LinkChange::default() };
    bench.kernel.request("rename", rename.request(index)).unwrap();
    bench.kernel.request("delete", Link::delete(index)).unwrap();
    let mut told = Vec::new();
    events.receive(|event| told.extend(event)).unwrap();
    let actions: Vec<_> =
        told.iter().filter(|event| event.interface == index).map(|e| e.action).collect();
    assert_eq!(actions, [DeviceAction::Add, DeviceAction::Move, DeviceAction::Remove]);
}

#[test]
fn named_namespaces_are_made_found_and_deleted() {
    let name = format!("jackfield-test-{}", std::process::id());
    let path = std::path::Path::new("/run/netns").join(&name);
    let made = Namespace::create_named(&name).unwrap();
    let found = Namespace::at(&path).unwrap();
    let twice = Namespace::create_named(&name).map(|_| ());
    let deleted = Namespace::delete_named(&name);
    assert!(made.is_same(&found).unwrap());
    assert!(!made.is_same(&Namespace::current().unwrap()).unwrap());
    assert!(twice.unwrap_err().to_string().contains(&name));
    deleted.unwrap();
    assert!(!path.exists());
    assert!(Namespace::delete_named(&name).is_err());
    for bad in ["", ".", "..", "a/b"] {
        assert!(Namespace::create_named(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_plain_file_is_no_namespace() {
    let error = Namespace::at(std::path::Path::new("/etc/hostname")).unwrap_err().to_string();
    assert!(error.contains("/etc/hostname") && error.contains("no network namespace"), "{error}");
    let error = Namespace::at(std::path::Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn settings_of_forwarding_are_told_of_whoever_changes_them() {
    let bench = bench();
    let mut monitor = bench.namespace.run(Monitor::open).unwrap().unwrap();
    let mut told = |of: &str, key: &str, value: &str| {
        let path = format!("/proc/sys/net/{of}/{key}");
        bench.namespace.run(|| std::fs::write(path, value)).unwrap().unwrap();
        let mut settings = Vec::new();
        monitor
            .receive(|notification| {
                if let Notification::Changed { subject: Subject::Settings(of), .. } = notification {
                    settings.push(of);
                }
            })
            .unwrap();
        settings
    };
    assert_eq!(told("ipv4/conf/inner", "rp_filter", "1"), [Some(bench.interface)]);
    for family in ["ipv4", "ipv6"] {
        let all = format!("{family}/conf/all");
        told(&all, "forwarding", "0");
        assert!(told(&all, "forwarding", "1").contains(&None), "{family}");
        assert_eq!(told(&all, "forwarding", "1"), [], "{family}");
    }
}
