//! systemd-network-generator and NetworkManager's nm-initrd-generator, which read the kernel command
//! line in an initial RAM disk.

use std::process::Command;

use jackfield_vmconf::{Format, IpForm, StaticNetworkConf, VmConf, render};

use super::seen::Seen;
use super::{Directory, Reader, output};
use crate::support::*;

const SYSTEMD: Reader =
    Reader { file: "/lib/systemd/systemd-network-generator", package: "systemd" };
const NETWORK_MANAGER: Reader =
    Reader { file: "/usr/lib/NetworkManager/nm-initrd-generator", package: "network-manager" };

/// The files that systemd-network-generator makes.
fn systemd(arguments: &str) -> Vec<(String, String)> {
    let root = Directory::new();
    let mut command = Command::new(SYSTEMD.file);
    command.arg(format!("--root={}", root.path().display())).arg("--");
    output(command.args(arguments.split_whitespace()));
    root.files("run/systemd/network")
}

/// The `.network` files, as they are understood.
fn systemd_networks(arguments: &str) -> Vec<Seen> {
    let files = systemd(arguments).into_iter();
    let networks = files.filter(|(path, _)| path.ends_with(".network"));
    networks.map(|(_, text)| Seen::in_unit(&text)).collect()
}

/// The connections, as they are understood, in the order of their names.
fn network_manager(arguments: &str) -> Vec<Seen> {
    let mut command = Command::new(NETWORK_MANAGER.file);
    let text = output(command.arg("-s").arg("--").args(arguments.split_whitespace()));
    let mut connections: Vec<&str> = text.split("*** Connection").skip(1).collect();
    connections.sort_unstable();
    connections.into_iter().map(Seen::in_key_file).collect()
}

/// Every form of `ip=` that is there to be printed.
fn ip_forms() -> Vec<StaticNetworkConf> {
    let mut nameless = plain();
    nameless.vm_if_name = None;
    let mut no_servers = plain();
    no_servers.vm_nameservers.clear();
    let mut one_server = plain();
    one_server.vm_nameservers.truncate(1);
    let mut no_gateway = plain();
    no_gateway.vm_ips = vec![ip("10.0.0.2/24", None)];
    let mut point_to_point = plain();
    point_to_point.vm_ips = vec![ip("10.0.0.2/31", None)];
    vec![plain(), nameless, no_servers, one_server, no_gateway, point_to_point]
}

fn dracut(vm: &VmConf) -> String {
    render(vm, Format::Dracut).unwrap().text
}

/// In the order in which they are given, for readers that keep name servers for all interfaces.
fn name_servers(seen: &[Seen]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for server in seen.iter().flat_map(|seen| &seen.name_servers) {
        if !all.contains(server) {
            all.push(server.clone());
        }
    }
    all.sort();
    all
}

fn without_name_servers(mut seen: Vec<Seen>) -> Vec<Seen> {
    for seen in &mut seen {
        seen.name_servers.clear();
        seen.search.clear();
    }
    seen
}

#[test]
fn systemd_reads_every_form_of_ip() {
    if !SYSTEMD.is_installed() {
        return;
    }
    for conf in ip_forms() {
        let argument = format!("ip={}", conf.ip_boot_param().unwrap());
        assert_eq!(systemd_networks(&argument), [Seen::expected(&conf)], "{argument}");
    }
}

#[test]
fn systemd_refuses_the_form_of_the_go_sdk() {
    if !SYSTEMD.is_installed() {
        return;
    }
    let value = plain().ip_boot_param_as(IpForm::GoSdk).unwrap();
    let root = Directory::new();
    let mut command = Command::new(SYSTEMD.file);
    command.arg(format!("--root={}", root.path().display())).arg("--").arg(format!("ip={value}"));
    assert!(!command.output().unwrap().status.success(), "then it could be the default");
}

#[test]
fn network_manager_reads_every_form_of_ip() {
    if !NETWORK_MANAGER.is_installed() {
        return;
    }
    for conf in ip_forms() {
        let argument = format!("ip={}", conf.ip_boot_param().unwrap());
        assert_eq!(network_manager(&argument), [Seen::expected(&conf)], "{argument}");
    }
}

#[test]
fn systemd_reads_what_is_for_dracut() {
    if !SYSTEMD.is_installed() {
        return;
    }
    for conf in [plain(), dual_stack(), full()] {
        let seen = systemd_networks(&dracut(&conf.clone().into()));
        assert_eq!(seen, [Seen::expected(&conf).without_search()]);
    }
    let seen = systemd_networks(&dracut(&off_link().into()));
    assert_eq!(seen, [Seen::expected(&off_link()).with_route_to("192.0.2.1/32")]);

    let files = systemd(&dracut(&full().into()));
    let link = files.iter().find(|(path, _)| path.ends_with("90-eth0.link")).unwrap();
    assert!(link.1.contains("MACAddress=02:00:00:00:00:01") && link.1.contains("Name=eth0"));
}

#[test]
fn network_manager_reads_what_is_for_dracut() {
    if !NETWORK_MANAGER.is_installed() {
        return;
    }
    for conf in [plain(), dual_stack(), full()] {
        let seen = network_manager(&dracut(&conf.clone().into()));
        assert_eq!(seen, [Seen::expected(&conf).without_search()]);
    }
    let seen = network_manager(&dracut(&off_link().into()));
    assert_eq!(seen, [Seen::expected(&off_link()).with_route_to("192.0.2.1/32")]);
}

#[test]
fn both_read_two_interfaces() {
    let vm = two_interfaces();
    let expected = Seen::all_expected(&vm);
    let arguments = dracut(&vm);
    for (reader, read) in
        [(SYSTEMD, systemd_networks as fn(&str) -> Vec<Seen>), (NETWORK_MANAGER, network_manager)]
    {
        if reader.is_installed() {
            let seen = read(&arguments);
            assert_eq!(name_servers(&seen), name_servers(&expected), "{}", reader.file);
            let expected = without_name_servers(expected.clone());
            assert_eq!(without_name_servers(seen), expected, "{}", reader.file);
        }
    }
}

#[test]
fn a_route_without_a_next_hop_is_on_the_link() {
    let mut conf = plain();
    conf.vm_routes = vec![
        route(serde_json::json!({ "dst": "10.8.0.0/16", "scope": 253 })),
        route(serde_json::json!({ "dst": "2001:db8:8::/48" })),
    ];
    let arguments = dracut(&conf.clone().into());
    if SYSTEMD.is_installed() {
        assert_eq!(systemd_networks(&arguments), [Seen::expected(&conf)]);
    }
    if NETWORK_MANAGER.is_installed() {
        assert_eq!(network_manager(&arguments), [Seen::expected(&conf)]);
    }
}
