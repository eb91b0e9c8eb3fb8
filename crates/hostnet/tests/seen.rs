//! A look at the devices of which there is news shows what a look at everything shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use jackfield_hostnet::config::AgentConfig;
use jackfield_hostnet::{MAIN, News, OURS, Snapshot};
use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{
    Address, AddressFlags, Family, Link, LinkChange, Namespace, Request, Route, Rtnetlink, VethEnd,
    veth_pair,
};

const TABLE: u32 = 10_001;

struct Host {
    namespace: Namespace,
    kernel: Rtnetlink,
    agent: AgentConfig,
}

impl Host {
    fn new() -> Self {
        let namespace =
            Namespace::anonymous().expect("this test needs the right to make namespaces");
        let kernel = Rtnetlink::open_in(&namespace).unwrap();
        // A link-local address comes when the kernel gets round to it, between two looks perhaps.
        let none = || std::fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1");
        namespace.run(none).unwrap().unwrap();
        let device_kinds = vec!["physical".to_owned(), "veth".to_owned()];
        Host { namespace, kernel, agent: AgentConfig { device_kinds, ..AgentConfig::default() } }
    }

    fn make(&mut self, request: Request) {
        self.kernel.request(format!("{request:?}"), request).unwrap();
    }

    /// Makes a device that is up, with an address of each family, a route in main and one of ours.
    fn device(&mut self, name: &str, number: u8) -> u32 {
        let end = |name| VethEnd { name, address: None, mtu: None, namespace: None };
        let other = format!("{name}-far");
        self.make(veth_pair(end(name), end(&other)));
        for name in [name, &other] {
            let index = self.link(name).index;
            self.make(LinkChange { up: Some(true), ..LinkChange::default() }.request(index));
        }
        let index = self.link(name).index;
        for address in [format!("10.0.{number}.1/24"), format!("2001:db8:{number}::1/64")] {
            let flags = AddressFlags { no_dad: true, ..AddressFlags::default() };
            let address = address.parse().unwrap();
            self.make(Address { interface: index, address, protocol: OURS, flags }.add());
        }
        for (table, protocol, net) in [(MAIN, 4, 1), (TABLE, OURS, 2), (7, OURS, 3), (TABLE, 4, 4)]
        {
            let net = format!("192.0.{net}.{number}/32").parse().unwrap();
            self.make(Route { protocol, ..Route::via_interface(net, table, index) }.add());
        }
        index
    }

    fn link(&mut self, name: &str) -> Link {
        let links = Link::list(&mut self.kernel).unwrap();
        links.into_iter().find(|link| link.name == name).unwrap()
    }

    fn look(&mut self, tables: &BTreeSet<u32>) -> Snapshot {
        let Host { namespace, kernel, agent } = self;
        namespace.run(|| Snapshot::read(kernel, agent, tables, true)).unwrap().unwrap()
    }

    fn look_at(&mut self, news: &[Link], mut seen: Snapshot, tables: &BTreeSet<u32>) -> Snapshot {
        let Host { namespace, kernel, agent } = self;
        let known = |link: &Link| News { link: link.clone(), is_bare: false };
        let news = news.iter().map(known).collect();
        let take_in = || seen.take_in(kernel, agent, news, tables);
        namespace.run(take_in).unwrap().unwrap();
        seen
    }
}

fn sorted(mut snapshot: Snapshot) -> Snapshot {
    snapshot.addresses.sort_by_key(|address| (address.interface, address.address));
    snapshot.rules.sort_by_key(|rule| format!("{rule:?}"));
    snapshot
}

#[test]
fn a_look_at_a_newcomer_shows_the_same_as_a_look_at_everything() {
    let mut host = Host::new();
    host.device("eth0", 0);
    let seen = host.look(&BTreeSet::new());
    host.device("eth1", 1);
    let tables = BTreeSet::from([TABLE]);
    let news = [host.link("eth1"), host.link("eth1-far")];
    let after = host.look_at(&news, seen.clone(), &tables);
    assert_eq!(sorted(after.clone()), sorted(host.look(&tables)));
    assert_eq!(after.candidates().count(), seen.candidates().count() + 2);
    let ours = |at: &Snapshot| at.routes.iter().filter(|route| route.protocol == OURS).count();
    assert_eq!(ours(&after), 2 * ours(&seen), "{after:#?}");
}

#[test]
fn of_a_newcomer_that_has_nothing_nothing_is_to_be_read() {
    let mut host = Host::new();
    host.device("eth0", 0);
    let tables = BTreeSet::from([TABLE]);
    let mut seen = host.look(&tables);
    let end = |name| VethEnd { name, address: None, mtu: None, namespace: None };
    host.make(veth_pair(end("eth1"), end("eth1-far")));
    let news = ["eth1", "eth1-far"].map(|name| News { link: host.link(name), is_bare: true });
    let Host { namespace, kernel, agent } = &mut host;
    let take_in = || seen.take_in(kernel, agent, news.to_vec(), &tables);
    namespace.run(take_in).unwrap().unwrap();
    assert_eq!(sorted(seen), sorted(host.look(&tables)));
}

#[test]
fn a_look_at_a_device_that_changed_shows_the_same_as_a_look_at_everything() {
    let mut host = Host::new();
    host.device("eth0", 0);
    let index = host.device("eth1", 1);
    let tables = BTreeSet::from([TABLE]);
    let setting = Setting { family: Family::V6, name: "accept_ra_pinfo" };
    for change in [
        LinkChange { up: Some(false), ..LinkChange::default() },
        LinkChange { name: Some("ens6"), mtu: Some(1400), ..LinkChange::default() },
        LinkChange {
            alias: Some("jackfield: table=10003 mtu=1500 group=0 up=0"),
            ..Default::default()
        },
        LinkChange { up: Some(true), group: Some(106), ..LinkChange::default() },
    ] {
        let seen = host.look(&tables);
        host.make(change.request(index));
        let links = Link::list(&mut host.kernel).unwrap();
        let changed: Vec<Link> =
            links.into_iter().filter(|link| !seen.links.contains(link)).collect();
        let name = changed.iter().find(|link| link.index == index).unwrap().name.clone();
        let value = seen.setting(index, setting).unwrap();
        let written =
            host.namespace.run(|| sysctl::write(index, &name, &[(setting, 1 - value)])).unwrap();
        assert!(matches!(&written[..], [Ok(())]), "{written:?}");
        let after = host.look_at(&changed, seen.clone(), &tables);
        assert_ne!(sorted(after.clone()), sorted(seen));
        assert_eq!(sorted(after), sorted(host.look(&tables)), "{change:?}");
    }
}
