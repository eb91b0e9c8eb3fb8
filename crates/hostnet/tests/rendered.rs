//! What managers are told, character by character: `golden/render/<case>/<file>`. `BLESS=1` writes the
//! files anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jackfield_hostnet::carry::leave_to_managers;
use jackfield_hostnet::config::{Backend, Config};
use jackfield_hostnet::render::{Manager, render};
use jackfield_hostnet::{
    Cloud, CloudInterface, Edit, MAIN, OwnFile, Plan, Scope, Slot, Snapshot, desired, plan,
};
use jackfield_kernel::{Link, Route};
use jackfield_metadata::MacAddr;

const PRIMARY: [u8; 6] = [2, 0xec, 0x20, 0, 0, 1];
const SECONDARY: [u8; 6] = [2, 0xec, 0x20, 0, 0, 3];

fn link(index: u32, name: &str, address: [u8; 6], mtu: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        alternative_names: Vec::new(),
        kind: None,
        ethernet: true,
        address: Some(address),
        up: index == 2,
        carrier: true,
        mtu,
        min_mtu: 68,
        max_mtu: 9216,
        group: 0,
        alias: None,
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    }
}

/// A host with a primary `eth0`, and a secondary `eth1` that has just come.
fn snapshot() -> Snapshot {
    Snapshot {
        links: vec![link(2, "eth0", PRIMARY, 9001), link(3, "eth1", SECONDARY, 1500)],
        device_kinds: vec!["physical".to_owned()],
        keeps_address_protocol: true,
        ..Snapshot::default()
    }
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn cloud(subnets: &[&str], addresses: &[&str], prefixes: &[&str]) -> Cloud {
    let addresses = ips(addresses);
    let of = |ipv4: bool| addresses.iter().copied().find(move |ip| ip.is_ipv4() == ipv4);
    let secondary = CloudInterface {
        interface_id: Some("eni-0123456789abcdef0".parse().unwrap()),
        slot: Some(Slot { card: 0, device: 1 }),
        subnets: nets(subnets),
        addresses: addresses.iter().copied().collect(),
        prefixes: nets(prefixes).into_iter().collect(),
        first: [of(true), of(false)].into_iter().flatten().collect(),
        complete: true,
        unknown: Vec::new(),
    };
    let primary = CloudInterface {
        slot: Some(Slot { card: 0, device: 0 }),
        subnets: nets(&["10.0.1.0/24"]),
        addresses: ips(&["10.0.1.10"]).into_iter().collect(),
        first: ips(&["10.0.1.10"]),
        complete: true,
        ..CloudInterface::default()
    };
    Cloud {
        primary: Some(PRIMARY.into()),
        interfaces: BTreeMap::from([
            (MacAddr::from(PRIMARY), primary),
            (MacAddr::from(SECONDARY), secondary),
        ]),
    }
}

fn config(backend: Backend) -> Config {
    let mut config = Config::default();
    config.defaults.backend = backend;
    config
}

#[track_caller]
fn assert_golden(case: &str, cloud: &Cloud) {
    let root: PathBuf =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/render").join(case);
    for backend in [Backend::Ifupdown, Backend::Networkd] {
        let desired = desired(&snapshot(), cloud, &config(backend), &Scope::Everything);
        let [carried] = &desired.carried[..] else { panic!("{:?}", desired.interfaces) };
        for file in render(carried) {
            let name = Path::new(&file.path).file_name().unwrap();
            let golden = root.join(name);
            let shown = format!("# {}\n{}", file.path, file.text);
            if std::env::var_os("BLESS").is_some() {
                std::fs::create_dir_all(&root).unwrap();
                std::fs::write(&golden, &shown).unwrap();
            }
            assert_eq!(shown, std::fs::read_to_string(&golden).unwrap(), "{}", golden.display());
        }
    }
}

const DUAL: [&str; 2] = ["10.0.2.0/24", "2001:db8:0:2::/64"];

#[test]
fn both_families() {
    assert_golden("dual-stack", &cloud(&DUAL, &["10.0.2.10", "2001:db8:0:2::a"], &[]));
}

#[test]
fn several_addresses_of_which_one_is_by_dhcp() {
    let addresses = ["10.0.2.20", "10.0.2.10", "10.0.2.11", "2001:db8:0:2::a", "2001:db8:0:2::b"];
    assert_golden("several", &cloud(&DUAL, &addresses, &[]));
}

#[test]
fn without_ipv4_nobody_is_asked_by_dhcp() {
    assert_golden("ipv6-only", &cloud(&DUAL[1..], &["2001:db8:0:2::a"], &[]));
}

#[test]
fn delegated_prefixes_stay_with_jackfield() {
    let prefixes = ["10.0.2.64/28", "2001:db8:0:2:1::/80"];
    let with = cloud(&DUAL, &["10.0.2.10"], &prefixes);
    assert_golden("prefixes", &with);
    // Of IPv6 there are the prefix and the routes, and no address.
    let of_them = |plan: &Plan| {
        let routes = plan.changes.iter().filter(|change| match &change.edit {
            Edit::AddRoute(route) => {
                prefixes.iter().any(|net| route.destination.to_string() == *net)
            }
            _ => false,
        });
        routes.count()
    };
    assert_eq!(of_them(&thought(&snapshot(), &with, Backend::Networkd).0), 2);
}

/// What is planned, and what is left to the manager.
fn thought(snapshot: &Snapshot, cloud: &Cloud, backend: Backend) -> (Plan, Vec<String>) {
    let desired = desired(snapshot, cloud, &config(backend), &Scope::Everything);
    let mut plan = plan(snapshot, &desired);
    let left = leave_to_managers(snapshot, &desired, &mut plan);
    (plan, left.iter().map(ToString::to_string).collect())
}

fn texts(plan: &Plan) -> BTreeSet<String> {
    plan.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn rules_and_the_journal_come_first_and_the_manager_is_told_last() {
    let cloud = cloud(&DUAL[..1], &["10.0.2.10"], &[]);
    for backend in [Backend::Ifupdown, Backend::Networkd] {
        let (plan, left) = thought(&snapshot(), &cloud, backend);
        let texts = plan.changes.iter().map(ToString::to_string).collect::<Vec<_>>();
        let at = |part: &str| texts.iter().position(|text| text.contains(part));
        assert!(at("14100: from 10.0.2.10 lookup 10001") < at("alias \"jackfield:"), "{texts:#?}");
        assert!(at("unreachable default").is_some(), "{texts:#?}");
        let told = texts.iter().position(|text| text.starts_with("+ file ")).unwrap();
        assert_eq!(told, texts.len() - 1, "{texts:#?}");
        for part in [
            "+ address 10.0.2.10/32",
            "eth1 down -> up",
            "mtu 1500 -> 9001",
            "+ route default via",
            "+ route 10.0.2.0/24",
        ] {
            assert!(left.iter().any(|text| text.contains(part)), "{part}: {left:#?}");
            assert!(
                !texts.iter().any(|text| text.contains(part) && !text.contains("jackfield")),
                "{texts:#?}"
            );
        }
    }
}

/// As a manager that has been told has it: the files are there, and it has taken them up.
fn taken_up(snapshot: &mut Snapshot, cloud: &Cloud, manager: Manager, backend: Backend) {
    let desired = desired(snapshot, cloud, &config(backend), &Scope::Everything);
    for file in desired.carried.iter().flat_map(render) {
        let own =
            OwnFile { manager, mac: SECONDARY.into(), name: "eth1".to_owned(), text: file.text };
        snapshot.managers.files.insert(file.path, own);
    }
    snapshot.managers.up.insert((manager, "eth1".to_owned()));
}

#[test]
fn one_address_more_is_written_to_ifupdowns_file_and_the_interface_stays_up() {
    let mut snapshot = snapshot();
    let few = cloud(&DUAL[..1], &["10.0.2.10"], &[]);
    taken_up(&mut snapshot, &few, Manager::Ifupdown, Backend::Ifupdown);
    let more = cloud(&DUAL[..1], &["10.0.2.10", "10.0.2.11"], &[]);
    let (plan, left) = thought(&snapshot, &more, Backend::Ifupdown);
    assert!(texts(&plan).contains("+ address 10.0.2.11/32 dev eth1"), "{:#?}", texts(&plan));
    assert_eq!(left, ["+ address 10.0.2.10/32 dev eth1"]);
    let Some(Edit::Carry(work)) = plan.changes.last().map(|change| &change.edit) else {
        panic!("{:#?}", texts(&plan))
    };
    assert_eq!((&work.down, &work.up), (&None, &None));
    assert_eq!(work.write.len(), 1);
}

#[test]
fn a_device_that_came_again_is_taken_down_and_up() {
    let mut snapshot = snapshot();
    let cloud = cloud(&DUAL[..1], &["10.0.2.10"], &[]);
    taken_up(&mut snapshot, &cloud, Manager::Ifupdown, Backend::Ifupdown);
    snapshot.links[1].index = 7;
    let (plan, _) = thought(&snapshot, &cloud, Backend::Ifupdown);
    let Some(Edit::Carry(work)) = plan.changes.last().map(|change| &change.edit) else {
        panic!("{:#?}", texts(&plan))
    };
    assert_eq!(work.down.as_deref(), Some("eth1"));
    assert_eq!(work.up.as_deref(), Some("eth1"));
}

#[test]
fn files_of_an_interface_that_is_gone_or_not_a_managers_any_more_go() {
    for manager in Manager::ALL {
        let backend = match manager {
            Manager::Ifupdown => Backend::Ifupdown,
            Manager::Networkd => Backend::Networkd,
        };
        let cloud = cloud(&DUAL[..1], &["10.0.2.10"], &[]);
        let mut there = snapshot();
        taken_up(&mut there, &cloud, manager, backend);
        let mut gone = there.clone();
        gone.links.pop();
        for (snapshot, backend) in [(gone, backend), (there.clone(), Backend::Kernel)] {
            let (plan, _) = thought(&snapshot, &cloud, backend);
            let works: Vec<_> = plan
                .changes
                .iter()
                .filter_map(|change| match &change.edit {
                    Edit::Carry(work) => Some(work),
                    _ => None,
                })
                .collect();
            let [work] = works[..] else { panic!("{:#?}", texts(&plan)) };
            assert_eq!(work.remove, there.managers.files.keys().cloned().collect::<Vec<_>>());
            assert!(work.write.is_empty() && work.up.is_none(), "{work:?}");
        }
        // As long as metadata has not said what it is, all stays.
        let mut unknown = cloud.clone();
        unknown.interfaces.remove(&MacAddr::from(SECONDARY));
        let (plan, _) = thought(&there, &unknown, backend);
        assert!(!texts(&plan).iter().any(|text| text.contains(" file ")), "{:#?}", texts(&plan));
    }
}

#[test]
fn routes_of_others_are_copied_by_jackfield_and_are_in_no_file() {
    let mut snapshot = snapshot();
    let gateway = "10.0.2.7".parse().unwrap();
    snapshot.routes.push(Route {
        protocol: 4,
        ..Route::via_gateway("192.0.2.0/24".parse().unwrap(), MAIN, 3, gateway)
    });
    let cloud = cloud(&DUAL[..1], &["10.0.2.10"], &[]);
    let desired = desired(&snapshot, &cloud, &config(Backend::Networkd), &Scope::Everything);
    assert!(
        desired
            .routes
            .iter()
            .any(|route| route.table == 10_001 && route.destination.to_string() == "192.0.2.0/24")
    );
    assert!(desired.carried.iter().flat_map(render).all(|file| !file.text.contains("192.0.2.0")));
}
