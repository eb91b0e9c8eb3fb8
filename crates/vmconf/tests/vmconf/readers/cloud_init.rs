//! cloud-init's reader of network-config, through its back-ends networkd and netplan, and netplan's own.

use std::process::Command;

use jackfield_vmconf::{Format, StaticNetworkConf, VmConf, render};

use super::seen::Seen;
use super::{Directory, Reader, output};
use crate::support::*;

const CLOUD_INIT: Reader = Reader { file: "/usr/bin/cloud-init", package: "cloud-init" };
const NETPLAN: Reader = Reader { file: "/usr/sbin/netplan", package: "netplan.io" };

/// The files that cloud-init makes of the document for one of its back-ends. It looks at the
/// interfaces of the machine, so it is given a namespace without any.
fn convert(vm: &VmConf, back_end: &str) -> Directory {
    let directory = Directory::new();
    let text = render(vm, Format::CloudInit).unwrap().text;
    let document = directory.write("network-config", &text);
    let mut command = Command::new("unshare");
    command.args(["-n", "/usr/bin/python3", CLOUD_INIT.file, "devel", "net-convert"]);
    command.args(["--kind", "yaml", "--distro", "debian", "--output-kind", back_end]);
    command.arg("--network-data").arg(document).arg("--directory").arg(directory.path());
    output(&mut command);
    directory
}

fn networks(files: &[(String, String)]) -> Vec<Seen> {
    let networks = files.iter().filter(|(path, _)| path.ends_with(".network"));
    networks.map(|(_, text)| Seen::in_unit(text)).collect()
}

/// What networkd gets by cloud-init's own reader.
fn by_networkd(conf: &StaticNetworkConf) -> Vec<Seen> {
    networks(&convert(&conf.clone().into(), "networkd").files("etc/systemd/network"))
}

/// What networkd gets by netplan.
fn by_netplan(vm: &VmConf) -> (Vec<Seen>, String) {
    let directory = convert(vm, "netplan");
    let mut command = Command::new(NETPLAN.file);
    output(command.arg("generate").arg("--root-dir").arg(directory.path()));
    let files = directory.files("run/systemd/network");
    (networks(&files), files.into_iter().map(|(_, text)| text).collect())
}

#[test]
fn cloud_init_reads_it() {
    if !CLOUD_INIT.is_installed() {
        return;
    }
    for conf in [plain(), dual_stack(), full()] {
        assert_eq!(by_networkd(&conf), [Seen::expected(&conf)]);
    }
    let expected = Seen::expected(&off_link()).with_route_to("192.0.2.1/32");
    assert_eq!(by_networkd(&off_link()), [expected]);
}

#[test]
fn cloud_init_reads_it_for_ifupdown() {
    if !CLOUD_INIT.is_installed() {
        return;
    }
    let files = convert(&full().into(), "eni").files("etc/network");
    let [(_, text)] = files.as_slice() else { panic!("{files:?}") };
    for line in [
        "address 10.0.0.2/24",
        "address 2001:db8::2/64",
        "mtu 1450",
        "gateway 2001:db8::1",
        "post-up route add default gw 10.0.0.1",
        "post-up route add -net 10.9.0.0/16 gw 10.0.0.254",
        "post-up route add -A inet6 2001:db8:9::/48 gw 2001:db8::fe",
        "dns-nameservers 1.1.1.1 8.8.8.8 2001:db8::53",
    ] {
        assert!(text.contains(line), "{line:?} is missing: {text}");
    }
}

#[test]
fn netplan_reads_it() {
    if !CLOUD_INIT.is_installed() || !NETPLAN.is_installed() {
        return;
    }
    for conf in [plain(), dual_stack(), full()] {
        let (seen, _) = by_netplan(&conf.clone().into());
        assert_eq!(seen, [Seen::expected(&conf)]);
    }
    let (seen, text) = by_netplan(&off_link().into());
    assert_eq!(seen, [Seen::expected(&off_link()).with_route_to("192.0.2.1/32")]);
    assert!(text.contains("GatewayOnLink=true"), "{text}");
}

#[test]
fn netplan_reads_two_interfaces_and_the_default_route_of_the_first() {
    if !CLOUD_INIT.is_installed() || !NETPLAN.is_installed() {
        return;
    }
    let vm = two_interfaces();
    let (seen, text) = by_netplan(&vm);
    let mut expected = Seen::all_expected(&vm);
    assert!(expected[1].routes.remove(&("0.0.0.0/0".to_owned(), "192.168.7.1".to_owned())));
    assert_eq!(seen, expected, "{text}");
}

#[test]
fn netplan_reads_all_that_a_route_has() {
    if !CLOUD_INIT.is_installed() || !NETPLAN.is_installed() {
        return;
    }
    let mut conf = plain();
    conf.vm_routes = vec![route(serde_json::json!({
        "dst": "10.9.0.0/16", "gw": "10.0.0.254", "mtu": 1400, "priority": 7, "table": 100, "scope": 0
    }))];
    let (seen, text) = by_netplan(&conf.clone().into());
    assert_eq!(seen, [Seen::expected(&conf)]);
    for line in ["Metric=7", "MTUBytes=1400", "Table=100"] {
        assert!(text.contains(line), "{line:?} is missing: {text}");
    }
}
