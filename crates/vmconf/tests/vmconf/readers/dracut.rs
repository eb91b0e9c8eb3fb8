//! dracut's own parser, `ip_to_var` and `route_to_var` of its net-lib.sh.

use std::collections::BTreeMap;
use std::process::Command;

use jackfield_vmconf::formats::dracut;
use jackfield_vmconf::{IpForm, StaticNetworkConf};

use super::{Reader, output};
use crate::support::*;

const BASE: Reader =
    Reader { file: "/usr/lib/dracut/modules.d/99base/dracut-lib.sh", package: "dracut-core" };
const NETWORK: Reader =
    Reader { file: "/usr/lib/dracut/modules.d/40network/net-lib.sh", package: "dracut-network" };

/// Loads the parser. Without a prefix it would take the machine for an initial RAM disk, and change
/// it.
const LOAD: &str = "export PREFIX=/nonexistent && cd /usr/lib/dracut/modules.d && \
    . ./99base/dracut-dev-lib.sh && . ./99base/dracut-lib.sh && . ./40network/net-lib.sh";

/// The variables that a function of the parser sets.
fn parse(function: &str, value: &str) -> BTreeMap<String, String> {
    const NAMES: &str = "ip srv gw mask hostname dev autoconf macaddr mtu dns1 dns2 \
                         route_mask route_gw route_dev ifname_if ifname_mac";
    let script = format!(
        "{LOAD} && {function} \"$1\" && for n in {NAMES}; do \
         eval \"printf '%s=%s\\\\n' $n \\\"\\$$n\\\"\"; done"
    );
    let text = output(Command::new("sh").args(["-c", &script, "sh", value]));
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let given = pairs.filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn variables(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn is_installed() -> bool {
    BASE.is_installed() && NETWORK.is_installed()
}

/// The values of all arguments of a name.
fn values(conf: &StaticNetworkConf, name: &str) -> Vec<String> {
    let (arguments, _) = dracut::arguments(&conf.clone().into()).unwrap();
    let prefix = format!("{name}=");
    let of_name = arguments.iter().filter_map(|argument| argument.as_str().strip_prefix(&prefix));
    of_name.map(ToOwned::to_owned).collect()
}

#[test]
fn it_reads_every_form_of_ip() {
    if !is_installed() {
        return;
    }
    let mut expected = variables(&[
        ("ip", "10.0.0.2"),
        ("gw", "10.0.0.1"),
        ("mask", "255.255.255.0"),
        ("dev", "eth0"),
        ("autoconf", "off"),
        ("dns1", "1.1.1.1"),
        ("dns2", "8.8.8.8"),
    ]);
    let mut conf = plain();
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param().unwrap()), expected);
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param_as(IpForm::GoSdk).unwrap()), expected);
    conf.vm_nameservers.truncate(1);
    expected.remove("dns2");
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param().unwrap()), expected);
    conf.vm_nameservers.clear();
    expected.remove("dns1");
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param().unwrap()), expected);
    conf.vm_if_name = None;
    expected.remove("dev");
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param().unwrap()), expected);
    conf.vm_ips = vec![ip("10.0.0.2/24", None)];
    expected.remove("gw");
    assert_eq!(parse("ip_to_var", &conf.ip_boot_param().unwrap()), expected);
}

#[test]
fn it_reads_addresses_of_both_families_and_the_mtu() {
    if !is_installed() {
        return;
    }
    let ips: Vec<_> = values(&full(), "ip").iter().map(|value| parse("ip_to_var", value)).collect();
    let expected = [
        variables(&[
            ("ip", "10.0.0.2"),
            ("gw", "10.0.0.1"),
            ("mask", "255.255.255.0"),
            ("dev", "eth0"),
            ("autoconf", "off"),
            ("mtu", "1450"),
        ]),
        variables(&[
            ("ip", "2001:db8::2"),
            ("gw", "2001:db8::1"),
            ("mask", "64"),
            ("dev", "eth0"),
            ("autoconf", "off"),
        ]),
    ];
    assert_eq!(ips, expected);
}

#[test]
fn it_reads_routes_of_both_families() {
    if !is_installed() {
        return;
    }
    let routes: Vec<_> =
        values(&full(), "rd.route").iter().map(|value| parse("route_to_var", value)).collect();
    let expected = [
        variables(&[
            ("route_mask", "10.9.0.0/16"),
            ("route_gw", "10.0.0.254"),
            ("route_dev", "eth0"),
        ]),
        variables(&[
            ("route_mask", "2001:db8:9::/48"),
            ("route_gw", "2001:db8::fe"),
            ("route_dev", "eth0"),
        ]),
    ];
    assert_eq!(routes, expected);
    let [to_gateway] = values(&off_link(), "rd.route").try_into().unwrap();
    let expected = variables(&[("route_mask", "192.0.2.1/32"), ("route_dev", "eth0")]);
    assert_eq!(parse("route_to_var", &to_gateway), expected);
}

#[test]
fn it_reads_the_name_that_a_mac_gets() {
    if !is_installed() {
        return;
    }
    let mut conf = plain();
    conf.vm_if_name = Some("net0".parse().unwrap());
    let [value] = values(&conf, "ifname").try_into().unwrap();
    let expected = variables(&[("ifname_if", "net0"), ("ifname_mac", "02:00:00:00:00:01")]);
    assert_eq!(parse("parse_ifname_opts", &value), expected);
}

#[test]
fn it_reads_that_the_guest_asks_dhcp() {
    if !is_installed() {
        return;
    }
    let mut conf = full();
    conf.vm_ips.clear();
    conf.vm_routes.clear();
    let [value] = values(&conf, "ip").try_into().unwrap();
    let expected = variables(&[("dev", "eth0"), ("autoconf", "dhcp"), ("mtu", "1450")]);
    assert_eq!(parse("ip_to_var", &value), expected);
}
