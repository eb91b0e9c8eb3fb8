//! What is judged to be a tool's, from files and a snapshot alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};

use jackfield_hostnet::import::{Content, Fate, Files, Findings, Takeover, Tool, find};
use jackfield_hostnet::{Change, Cloud, CloudInterface, Edit, InterfaceRef, Slot, Snapshot};
use jackfield_kernel::{Address, AddressFlags, Family, Link, Mark, Route, Rule, RuleAction};
use jackfield_metadata::MacAddr;

const PRIMARY: u32 = 2;
const SECONDARY: u32 = 3;

fn mac(index: u32) -> [u8; 6] {
    [0x02, 0xec, 0x20, 0, 0, u8::try_from(index).unwrap()]
}

fn link(index: u32, name: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        alternative_names: Vec::new(),
        kind: None,
        ethernet: true,
        address: Some(mac(index)),
        up: true,
        carrier: true,
        mtu: 9001,
        min_mtu: 68,
        max_mtu: 0,
        group: 0,
        alias: None,
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    }
}

fn known(device: u32) -> CloudInterface {
    CloudInterface {
        slot: Some(Slot { card: 0, device }),
        addresses: BTreeSet::from([format!("10.0.2.{}", 9 + device).parse().unwrap()]),
        subnets: vec!["10.0.2.0/24".parse().unwrap()],
        complete: true,
        ..CloudInterface::default()
    }
}

/// eth0, which is the primary, and eth1, which is 10.0.2.10.
fn host() -> (Snapshot, Cloud) {
    let snapshot = Snapshot {
        links: vec![link(PRIMARY, "eth0"), link(SECONDARY, "eth1")],
        device_kinds: vec!["physical".to_owned()],
        ..Snapshot::default()
    };
    let interfaces =
        [(PRIMARY, known(0)), (SECONDARY, known(1))].map(|(i, it)| (MacAddr::from(mac(i)), it));
    (snapshot, Cloud { primary: Some(MacAddr::from(mac(PRIMARY))), interfaces: interfaces.into() })
}

fn files(texts: &[(&str, &str)]) -> Files {
    let file =
        |(path, text): &(&str, &str)| ((*path).to_owned(), Content::File(text.as_bytes().to_vec()));
    Files { files: texts.iter().map(file).collect(), packages: BTreeMap::new() }
}

fn fates(findings: &Findings) -> Vec<(&str, &Fate)> {
    findings.files.iter().map(|file| (file.path.as_str(), &file.fate)).collect()
}

const STANZA: &str = "/etc/network/interfaces.d/eth1.cfg";
const GENERATED: &str = "# This file is automaticatically generated\n\
    # See https://github.com/bkr/ubuntu-ec2net for source\nauto eth1\niface eth1 inet dhcp\n\
    post-up ip route add default via 10.0.2.1 dev eth1 table 10001\n";

fn judged(path: &str, text: &str) -> Option<Fate> {
    let (snapshot, cloud) = host();
    let findings = find(&snapshot, &cloud, &files(&[(path, text)]), None);
    findings.files.first().map(|file| file.fate.clone())
}

#[test]
fn a_stanza_is_the_tools_as_long_as_nobody_added_a_line() {
    assert_eq!(judged(STANZA, GENERATED), Some(Fate::Remove));
    let longer = format!("{GENERATED}post-up /usr/local/bin/mine\n");
    assert_eq!(judged(STANZA, &longer), Some(Fate::Changed));
    let marks =
        "post-up iptables -t mangle -A PREROUTING -i eth1 -j MARK --set-xmark 0x10001/0xffffffff\n";
    assert_eq!(judged(STANZA, &format!("{GENERATED}{marks}")), Some(Fate::Remove));
    let of_other = GENERATED.replace("iface eth1", "iface eth2");
    assert_eq!(judged(STANZA, &of_other), Some(Fate::Changed));
    // ifupdown's own business.
    assert_eq!(judged(STANZA, "auto eth1\niface eth1 inet dhcp\n"), None);
    assert_eq!(judged(STANZA, "# Written by jackfield for 02:ec:20:00:00:03, eth1\n"), None);
}

#[test]
fn ec2sync_no_is_found_as_the_tools_find_it() {
    for line in ["EC2SYNC=no", "  EC2SYNC=no  # mine", "# EC2SYNC=no"] {
        let text = format!("{GENERATED}{line}\n");
        assert_eq!(judged(STANZA, &text), Some(Fate::OptedOut), "{line}");
    }
    assert_eq!(judged(STANZA, &format!("{GENERATED}EC2SYNC=none\n")), Some(Fate::Changed));
    assert_eq!(judged(STANZA, &format!("{GENERATED}EC2SYNC=yes\n")), Some(Fate::Remove));
}

#[test]
fn a_script_is_the_tools_where_a_release_has_it_and_a_packages_is_left_to_it() {
    let path = "/usr/lib/systemd/system/refresh-policy-routes@.timer";
    let released = "[Timer]\nOnActiveSec=30\nOnUnitInactiveSec=60\nRandomizedDelaySec=5\n";
    assert_eq!(judged(path, released), Some(Fate::Remove));
    assert_eq!(judged(path, &released.replace("60", "5")), Some(Fate::Changed));
    let (snapshot, cloud) = host();
    let mut all = files(&[(path, released)]);
    all.packages.insert(path.to_owned(), "amazon-ec2-net-utils".to_owned());
    let findings = find(&snapshot, &cloud, &all, None);
    let package = Fate::Package("amazon-ec2-net-utils".to_owned());
    assert_eq!(fates(&findings), [(path, &package)]);
    assert_eq!(findings.tools, [(Tool::Ec2NetUtils2, path.to_owned())]);
    // Others have a program of this name; one that reads the tool's functions is the tool's.
    assert_eq!(judged("/sbin/ec2ifup", "#!/bin/sh\nexec ifup $1\n"), None);
    let edited = "#!/bin/sh\n. /etc/network/ec2net-functions\n";
    assert_eq!(judged("/sbin/ec2ifup", edited), Some(Fate::Changed));
}

#[test]
fn what_cannot_be_read_is_named_and_a_link_of_somebody_else_is_left() {
    let (snapshot, cloud) = host();
    let network = "/run/systemd/network/07-eth1.network";
    let theirs = Content::Link("/usr/lib/systemd/network/80-ec2.network".to_owned());
    let others = Content::Link("/etc/mine.network".to_owned());
    let unreadable = Content::Unreadable("Permission denied".to_owned());
    for (content, fate) in [
        (theirs, Fate::Remove),
        (others, Fate::Changed),
        (unreadable, Fate::Unreadable("Permission denied".to_owned())),
    ] {
        let all = Files { files: [(network.to_owned(), content)].into(), ..Files::default() };
        assert_eq!(fates(&find(&snapshot, &cloud, &all, None)), [(network, &fate)]);
    }
}

#[test]
fn a_program_that_both_have_is_that_ones_who_is_here() {
    let (snapshot, cloud) = host();
    let text = "#!/bin/bash\n. /etc/network/ec2net-functions\n";
    // One file, where /sbin is a link.
    let programs = [("/sbin/ec2ifup", text), ("/usr/sbin/ec2ifup", text)];
    let here = [programs[0], programs[1], (STANZA, GENERATED)];
    let findings = find(&snapshot, &cloud, &files(&here), None);
    assert_eq!(findings.tools.iter().map(|it| it.0).collect::<Vec<Tool>>(), [Tool::UbuntuEc2net]);
    assert_eq!(fates(&findings), [(STANZA, &Fate::Remove), ("/sbin/ec2ifup", &Fate::Changed)]);
}

#[test]
fn a_drop_in_that_somebody_added_is_left_and_files_of_an_interface_that_is_gone_go() {
    let (snapshot, cloud) = host();
    let mine = (
        "/run/systemd/network/70-eth1.network.d/50-mine.conf",
        "[Address]\nAddress=10.0.2.77/24\n",
    );
    let theirs = (
        "/run/systemd/network/70-eth1.network.d/ec2net_alias.conf",
        "[Address]\nAddress=10.0.2.11/32\n",
    );
    let gone = ("/etc/sysconfig/network-scripts/ifcfg-eth7", "DEVICE=eth7\nEC2SYNC=yes\n");
    let primary = ("/etc/sysconfig/network-scripts/ifcfg-eth0", "DEVICE=eth0\nEC2SYNC=yes\n");
    let findings = find(&snapshot, &cloud, &files(&[mine, theirs, gone, primary]), None);
    assert_eq!(
        fates(&findings),
        [
            (primary.0, &Fate::Stays),
            (gone.0, &Fate::Remove),
            (mine.0, &Fate::Changed),
            (theirs.0, &Fate::Remove)
        ]
    );
}

#[test]
fn both_generations_have_the_same_file_of_dhclient() {
    let client =
        ("/etc/dhcp/dhclient-eth1.conf", "supersede dhcp-server-identifier 255.255.255.255;\n");
    let (snapshot, cloud) = host();
    // Alone it is anybody's.
    assert_eq!(find(&snapshot, &cloud, &files(&[client]), None), Findings::default());
    let ifcfg = ("/etc/sysconfig/network-scripts/ifcfg-eth1", "DEVICE=eth1\nEC2SYNC=yes\n");
    let findings = find(&snapshot, &cloud, &files(&[client, ifcfg]), None);
    assert!(findings.files.iter().all(|file| file.tool == Tool::Ec2NetUtils1), "{findings:?}");
    assert_eq!(findings.files.len(), 2);
    let only = find(&snapshot, &cloud, &files(&[client, ifcfg]), Some(&[Tool::UbuntuEc2net]));
    assert_eq!(only.files, []);
}

fn from(source: &str, priority: u32, table: u32, protocol: u8) -> Rule {
    Rule {
        source: Some(source.parse().unwrap()),
        protocol,
        ..Rule::new(Family::V4, priority, RuleAction::Table(table))
    }
}

#[test]
fn rules_are_theirs_by_shape_priority_and_source() {
    let (mut snapshot, cloud) = host();
    let marked = Rule {
        mark: Some(Mark { value: 0x10001, mask: u32::MAX }),
        ..Rule::new(Family::V4, 32_763, RuleAction::Table(10_001))
    };
    let theirs = [from("10.0.2.10/32", 32_765, 10_001, 0), marked.clone()];
    let former = from("10.0.2.99/32", 32_764, 10_001, 0);
    let others = [
        from("10.0.2.10/32", 100, 10_001, 0),
        from("192.0.2.1/32", 32_762, 10_001, 0),
        from("10.0.2.10/32", 32_761, 10_001, 4),
        Rule { mark: Some(Mark { value: 1, mask: u32::MAX }), ..marked },
    ];
    snapshot.rules.extend(theirs.iter().chain([&former]).chain(&others).cloned());
    // Another table is nobody's business here.
    snapshot.rules.push(from("10.0.2.10/32", 32_760, 200, 0));
    let route = Route::via_gateway(
        "0.0.0.0/0".parse().unwrap(),
        10_001,
        SECONDARY,
        "10.0.2.1".parse().unwrap(),
    );
    snapshot.routes.push(Route { protocol: 3, ..route });
    let findings = find(&snapshot, &cloud, &files(&[(STANZA, GENERATED)]), None);
    let taken = findings.interfaces.iter().find(|it| it.index == SECONDARY).unwrap();
    assert_eq!(taken.takeover, Takeover::Takes);
    assert_eq!(findings.strange.len(), others.len(), "{:?}", findings.strange);
    let primary = findings.interfaces.iter().find(|it| it.index == PRIMARY);
    assert!(primary.is_none_or(|it| matches!(it.takeover, Takeover::Leaves(_))));
}

#[test]
fn rules_of_an_interface_that_is_gone_are_found_where_nobody_uses_the_table() {
    let (mut snapshot, cloud) = host();
    let orphan = from("10.0.9.9/32", 32_765, 10_004, 0);
    snapshot.rules.extend([orphan.clone(), from("10.0.9.9/32", 32_764, 10_005, 0)]);
    snapshot.rules.push(from("10.0.9.9/32", 200, 10_004, 0));
    let used = Route::via_interface("10.0.9.0/24".parse().unwrap(), 10_005, PRIMARY);
    snapshot.routes.push(used);
    let findings = find(&snapshot, &cloud, &files(&[(STANZA, GENERATED)]), None);
    assert_eq!(findings.orphans, std::slice::from_ref(&orphan));
    // Told as any other change.
    let interface: Option<InterfaceRef> = None;
    let change = Change { interface, edit: Edit::RemoveRule(orphan) };
    assert_eq!(change.to_string(), "- rule 32765: from 10.0.9.9/32 lookup 10004");
}

#[test]
fn routes_of_initscripts_are_the_tools_by_its_number_and_tell_nothing_alone() {
    let (snapshot, cloud) = host();
    let path = "/etc/sysconfig/network-scripts/route-eth1";
    let by_number = "default via 10.0.2.1 dev eth1 table 10001\n";
    for (path, text) in [
        ("/etc/sysconfig/network-scripts/route-tun0", "default via 10.8.0.1 dev tun0 table 100\n"),
        (path, "default via 10.0.2.1 dev eth1 table 100\n"),
        (path, by_number),
    ] {
        let alone = find(&snapshot, &cloud, &files(&[(path, text)]), None);
        assert_eq!(alone, Findings::default(), "{text}");
    }
    let ifcfg = ("/etc/sysconfig/network-scripts/ifcfg-eth1", "DEVICE=eth1\nEC2SYNC=yes\n");
    let theirs = format!(
        "{by_number}10.0.2.0/24 dev eth1 proto kernel scope link src 10.0.2.10 table 10001\n\
         default via 10.0.2.1 dev eth1 metric 10001\n"
    );
    let beside = |text: &str| {
        let findings = find(&snapshot, &cloud, &files(&[ifcfg, (path, text)]), None);
        let fates: Vec<(String, Fate)> =
            findings.files.into_iter().map(|file| (file.path, file.fate)).collect();
        assert_eq!(fates.last(), Some(&(ifcfg.0.to_owned(), Fate::Remove)), "what tells goes last");
        fates.into_iter().find(|it| it.0 == path).map(|it| it.1)
    };
    assert_eq!(beside(&theirs), Some(Fate::Remove));
    assert_eq!(beside("default via 10.0.2.1 dev eth1 table 100\n"), None);
    for own in ["table 100", "metric 100", "table 10002"] {
        let longer = format!("{theirs}default via 10.0.2.1 dev eth1 {own}\n");
        assert_eq!(beside(&longer), Some(Fate::Changed), "{own}");
    }
}

const TIMER: &str = "/usr/lib/systemd/system/refresh-policy-routes@.timer";
const RELEASED: &str = "[Timer]\nOnActiveSec=30\nOnUnitInactiveSec=60\nRandomizedDelaySec=5\n";
const ALIASES: &str = "/run/systemd/network/70-eth1.network.d/ec2net_alias.conf";
const UDEV: &str = "/usr/lib/udev/rules.d/99-vpc-policy-routes.rules";

/// amazon-ec2-net-utils has eth1.
fn with_machinery() -> Files {
    let mut all = files(&[
        (TIMER, RELEASED),
        (ALIASES, "[Address]\nAddress=10.0.2.11/32\n"),
        (UDEV, "SUBSYSTEM==\"net\"\n"),
    ]);
    all.packages.insert(UDEV.to_owned(), "amazon-ec2-net-utils".to_owned());
    all
}

fn address(interface: u32, address: &str) -> Address {
    let flags = AddressFlags { permanent: true, ..AddressFlags::default() };
    Address { interface, address: address.parse().unwrap(), protocol: 0, flags }
}

fn actions(findings: &Findings) -> Vec<(&str, &str)> {
    findings.files.iter().map(|file| (file.path.as_str(), file.fate.action())).collect()
}

#[test]
fn an_interface_that_is_left_keeps_what_the_tool_needs_to_go_on_with_it() {
    let (mut snapshot, cloud) = host();
    let mut all = with_machinery();
    let hook = "/etc/network/ec2net.hotplug";
    all.files.insert(hook.to_owned(), Content::File(b"# any\n".to_vec()));
    all.packages.insert(hook.to_owned(), "ubuntu-ec2net".to_owned());
    let taken = find(&snapshot, &cloud, &all, None);
    let expected = [(UDEV, "package"), (ALIASES, "remove"), (hook, "package"), (TIMER, "remove")];
    assert_eq!(actions(&taken), expected);
    // An address of somebody's own keeps eth1 with amazon-ec2-net-utils; the other is not needed for it.
    snapshot.addresses =
        vec![address(SECONDARY, "10.0.2.10/24"), address(SECONDARY, "10.0.2.77/24")];
    let left = find(&snapshot, &cloud, &all, None);
    let is = &left.interfaces.iter().find(|it| it.index == SECONDARY).unwrap().takeover;
    assert!(matches!(is, Takeover::Leaves(_)), "{left:#?}");
    let expected = [(UDEV, "leave"), (ALIASES, "leave"), (hook, "package"), (TIMER, "leave")];
    assert_eq!(actions(&left), expected);
    let reason = "eth1, which is left, works by it".to_owned();
    for file in left.files.iter().filter(|file| [UDEV, TIMER].contains(&file.path.as_str())) {
        assert_eq!(file.fate.reason().as_ref(), Some(&reason));
    }
    // It may have rules alone: by whose work they are there cannot be told.
    all.files.remove(ALIASES);
    snapshot.rules.push(from("10.0.2.10/32", 10_001, 10_001, 4));
    let left = find(&snapshot, &cloud, &all, None);
    assert_eq!(actions(&left), [(UDEV, "leave"), (hook, "leave"), (TIMER, "leave")]);
}

#[test]
fn an_interface_that_is_the_readers_own_or_unknown_keeps_no_machinery() {
    let (snapshot, cloud) = host();
    let off = ("/run/systemd/network/70-eth1.network.d/eni.conf", "# EC2SYNC=no\n");
    let mut all = with_machinery();
    all.files.insert(off.0.to_owned(), Content::File(off.1.into()));
    let opted_out = find(&snapshot, &cloud, &all, None);
    let unknown = Cloud { interfaces: BTreeMap::new(), ..cloud };
    for findings in [opted_out, find(&snapshot, &unknown, &with_machinery(), None)] {
        let is = &findings.interfaces.iter().find(|it| it.index == SECONDARY).unwrap().takeover;
        assert!(matches!(is, Takeover::Leaves(_)), "{findings:#?}");
        let all = actions(&findings);
        assert!(all.contains(&(UDEV, "package")) && all.contains(&(TIMER, "remove")), "{all:?}");
    }
}

const IFCFG: &str = "/etc/sysconfig/network-scripts/ifcfg-eth1";

fn of_ifcfg(line: &str) -> (Takeover, Fate, Vec<String>) {
    let (snapshot, cloud) = host();
    let text = format!("DEVICE=eth1\nEC2SYNC=yes\n{line}\n");
    let findings = find(&snapshot, &cloud, &files(&[(IFCFG, &text)]), None);
    let is = findings.interfaces.iter().find(|it| it.index == SECONDARY).unwrap();
    (is.takeover.clone(), findings.files[0].fate.clone(), findings.config.clone())
}

#[test]
fn settings_are_read_as_a_shell_reads_them() {
    for line in ["EC2SYNC=\"no\"", "EC2SYNC='no'", "  EC2SYNC=\"no\" # mine", "EC2SYNC='no'#"] {
        let (takeover, fate, config) = of_ifcfg(line);
        assert_eq!(takeover, Takeover::Leaves(format!("EC2SYNC=no in {IFCFG}")), "{line}");
        assert_eq!(fate, Fate::OptedOut, "{line}");
        assert!(config[0].contains("manage = false"), "{line}: {config:?}");
    }
    assert_eq!(of_ifcfg("EC2SYNC=\"yes\"").0, Takeover::Takes);
    for (line, key) in [
        ("MAINROUTETABLE=\"no\"", "main_route = \"none\""),
        (" MAINROUTETABLE='no'  # mine", "main_route = \"none\""),
        ("EC2PROVISIONPFXIPS='yes'", "prefixes = \"local\""),
    ] {
        let (takeover, _, config) = of_ifcfg(line);
        assert_eq!(takeover, Takeover::Takes, "{line}");
        assert!(config.len() == 1 && config[0].contains(key), "{line}: {config:?}");
    }
    for line in ["MAINROUTETABLE=\"yes\"", "EC2PROVISIONPFXIPS=no", "# MAINROUTETABLE=no"] {
        let (takeover, _, config) = of_ifcfg(line);
        assert_eq!((takeover, config.len()), (Takeover::Takes, 0), "{line}");
    }
}

#[test]
fn a_setting_that_is_neither_yes_nor_no_leaves_the_interface_and_is_named() {
    for line in [
        "EC2SYNC=NO",
        "EC2SYNC=",
        "EC2SYNC=\"no",
        "EC2SYNC=$SYNC",
        "MAINROUTETABLE=maybe",
        "EC2PROVISIONPFXIPS=\"1\"",
    ] {
        let (takeover, fate, config) = of_ifcfg(line);
        let reason = format!("{line} in {IFCFG} is neither yes nor no");
        assert_eq!(takeover, Takeover::Leaves(reason), "{line}");
        assert_eq!((fate.action(), config.len()), ("leave", 0), "{line}");
    }
}

#[test]
fn rules_of_an_interface_that_is_here_are_nobodys_left_overs() {
    let (mut snapshot, mut cloud) = host();
    let (third, fourth) = (4, 5);
    snapshot.links.extend([link(third, "ens7"), Link { up: false, ..link(fourth, "eth4") }]);
    cloud.interfaces.insert(MacAddr::from(mac(third)), known(3));
    // Down, or left alone, it has no route in its table.
    let gone = [from("10.0.9.9/32", 10_009, 10_009, 4), from("10.0.9.9/32", 32_760, 10_006, 0)];
    snapshot.rules = vec![
        from("10.0.9.9/32", 32_765, 10_001, 0),
        from("10.0.9.9/32", 10_003, 10_003, 4),
        from("10.0.9.9/32", 32_764, 10_004, 0),
    ];
    snapshot.rules.extend(gone.clone());
    let mut all = with_machinery();
    all.files.insert(STANZA.to_owned(), Content::File(GENERATED.into()));
    assert_eq!(find(&snapshot, &cloud, &all, None).orphans, gone);
}
