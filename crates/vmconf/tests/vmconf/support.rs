//! Results and configurations that tests start from.

use jackfield_cni::types::CniResult;
use jackfield_vmconf::{
    Attachment, Mtu, Rendered, ResultError, StaticNetworkConf, VmConf, VmIp, VmRoute,
};
use serde_json::{Value, json};

/// What `tc-redirect-tap` says of the documented example.
pub(crate) fn example() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [
            { "name": "veth0", "mac": "02:00:00:00:00:0a" },
            { "name": "tap0", "mac": "02:00:00:00:00:0b", "sandbox": "/var/run/netns/vm1" },
            { "name": "tap0", "mac": "02:00:00:00:00:01", "sandbox": "vm1" }
        ],
        "ips": [{ "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 2 }],
        "dns": { "nameservers": ["1.1.1.1", "8.8.8.8"] }
    })
}

pub(crate) fn parsed(result: &Value) -> CniResult {
    CniResult::parse(result.to_string()).unwrap()
}

/// The configuration of container `vm1`, named eth0.
pub(crate) fn conf_of(result: &Value) -> StaticNetworkConf {
    let name = "eth0".parse().unwrap();
    StaticNetworkConf::from_result(&parsed(result), &Attachment::of("vm1").named(Some(&name)))
        .unwrap()
}

pub(crate) fn refused(result: &Value) -> ResultError {
    StaticNetworkConf::from_result(&parsed(result), &Attachment::of("vm1")).unwrap_err()
}

pub(crate) fn addresses(conf: &StaticNetworkConf) -> Vec<String> {
    conf.vm_ips.iter().map(|ip| ip.address().to_string()).collect()
}

pub(crate) fn warnings(rendered: &Rendered) -> Vec<String> {
    rendered.warnings.iter().map(ToString::to_string).collect()
}

pub(crate) fn ip(address: &str, gateway: Option<&str>) -> VmIp {
    VmIp::new(address.parse().unwrap(), gateway.map(|gateway| gateway.parse().unwrap())).unwrap()
}

pub(crate) fn route(route: Value) -> VmRoute {
    serde_json::from_value(route).unwrap()
}

/// The documented example.
pub(crate) fn plain() -> StaticNetworkConf {
    conf_of(&example())
}

/// Both families, each with its gateway.
pub(crate) fn dual_stack() -> StaticNetworkConf {
    let mut conf = plain();
    conf.vm_ips.push(ip("2001:db8::2/64", Some("2001:db8::1")));
    conf.vm_nameservers.push("2001:db8::53".parse().unwrap());
    conf
}

/// With everything that there is.
pub(crate) fn full() -> StaticNetworkConf {
    let mut conf = dual_stack();
    conf.vm_mtu = Some(Mtu::new(1450).unwrap());
    conf.vm_routes = vec![
        route(json!({ "dst": "0.0.0.0/0", "gw": "10.0.0.1" })),
        route(json!({ "dst": "10.9.0.0/16", "gw": "10.0.0.254" })),
        route(json!({ "dst": "2001:db8:9::/48", "gw": "2001:db8::fe" })),
    ];
    conf.vm_domain = Some("example.com".parse().unwrap());
    conf.vm_search_domains =
        vec!["example.com".parse().unwrap(), "corp.example.com".parse().unwrap()];
    conf.vm_resolver_options = vec!["ndots:2".parse().unwrap(), "edns0".parse().unwrap()];
    conf
}

/// An address of its own, with a gateway that is in no subnet.
pub(crate) fn off_link() -> StaticNetworkConf {
    let mut conf = plain();
    conf.vm_ips = vec![ip("10.0.0.2/32", Some("192.0.2.1"))];
    conf
}

/// [`full`], and a second interface on another network.
pub(crate) fn two_interfaces() -> VmConf {
    let mut second = plain();
    second.tap_name = "tap1".parse().unwrap();
    second.vm_if_name = Some("eth1".parse().unwrap());
    second.vm_mac = Some("02:00:00:00:00:02".parse().unwrap());
    second.vm_ips = vec![ip("192.168.7.2/24", Some("192.168.7.1"))];
    second.vm_nameservers.clear();
    VmConf::new(vec![full(), second]).unwrap()
}
