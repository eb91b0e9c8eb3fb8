//! Results of every version, read, converted and written.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use jackfield_cni::Error;
use jackfield_cni::types::{CniResult, Version};
use serde_json::{Value, json};

/// All that 1.1.0 knows, and something unknown in each place.
fn everything() -> Value {
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "br0", "mac": "02:00:00:00:00:01", "mtu": 1400, "x": 1},
            {"name": "tap0", "sandbox": "/run/netns/a", "socketPath": "/s", "pciID": "0000:00:01.0"},
        ],
        "ips": [
            {"interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1", "x": [null]},
            {"address": "10.0.0.3/24"},
            {"interface": 0, "address": "fd00::2/64", "gateway": "fd00::1"},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "10.0.0.1", "mtu": 1300, "advmss": 1200, "priority": 7,
             "table": 0, "scope": 253, "x": {"y": 1.5}},
            {"dst": "fd01::/16"},
        ],
        "dns": {"nameservers": ["1.1.1.1"], "domain": "d", "search": ["s"], "options": ["o"], "x": 1},
        "x": {"deep": [1, "two", null]},
    })
}

fn parse(value: &Value) -> CniResult {
    CniResult::parse(value.to_string()).unwrap()
}

fn field_error(value: Value) -> (String, String) {
    match CniResult::parse(value.to_string()) {
        Err(Error::Field { field, reason, .. }) => (field, reason),
        other => panic!("{value}: {other:?}"),
    }
}

#[test]
fn everything_is_read_and_written_back_the_same() {
    assert_eq!(parse(&everything()).to_version(Version::V1_1_0).unwrap(), everything());
}

#[test]
fn from_1_1_to_1_0_is_a_new_label() {
    let mut expected = everything();
    expected["cniVersion"] = "1.0.0".into();
    assert_eq!(parse(&everything()).to_version(Version::V1_0_0).unwrap(), expected);
    assert_eq!(parse(&expected).to_version(Version::V1_1_0).unwrap(), everything());
}

#[test]
fn to_0_3_and_0_4_ips_get_a_version_and_interfaces_lose_what_is_newer() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0] {
        let mut expected = everything();
        expected["cniVersion"] = version.as_str().into();
        for (at, family) in ["4", "4", "6"].into_iter().enumerate() {
            expected["ips"][at]["version"] = family.into();
        }
        expected["interfaces"][0].as_object_mut().unwrap().remove("mtu");
        expected["interfaces"][1].as_object_mut().unwrap().remove("socketPath");
        expected["interfaces"][1].as_object_mut().unwrap().remove("pciID");
        assert_eq!(parse(&everything()).to_version(version).unwrap(), expected);
        assert_eq!(parse(&expected).to_version(version).unwrap(), expected, "reads back");
    }
}

#[test]
fn to_0_1_and_0_2_the_first_address_of_each_family_stays() {
    for version in [Version::V0_1_0, Version::V0_2_0] {
        let expected = json!({
            "cniVersion": version.as_str(),
            "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "x": [null],
                    "routes": [{"dst": "0.0.0.0/0", "gw": "10.0.0.1", "x": {"y": 1.5}}]},
            "ip6": {"ip": "fd00::2/64", "gateway": "fd00::1", "routes": [{"dst": "fd01::/16"}]},
            "dns": everything()["dns"],
            "x": everything()["x"],
        });
        assert_eq!(parse(&everything()).to_version(version).unwrap(), expected);
        assert_eq!(parse(&expected).to_version(version).unwrap(), expected, "reads back");
    }
}

#[test]
fn from_0_1_and_0_2_there_is_no_interface_and_no_index() {
    for version in ["", "0.1.0", "0.2.0"] {
        let legacy = json!({
            "cniVersion": version,
            "ip6": {"ip": "fd00::2/64"},
            "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
            "dns": {},
        });
        let expected = json!({
            "cniVersion": "1.1.0",
            "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}, {"address": "fd00::2/64"}],
            "routes": [{"dst": "0.0.0.0/0"}],
        });
        assert_eq!(parse(&legacy).to_version(Version::V1_1_0).unwrap(), expected);
    }
}

#[test]
fn a_route_of_a_family_without_an_address_stays_in_0_2() {
    let legacy = json!({
        "cniVersion": "0.2.0",
        "ip6": {"ip": "fd00::2/64", "routes": [{"dst": "10.0.0.0/8", "mtu": 1400}]},
        "dns": {},
    });
    assert_eq!(parse(&legacy).to_version(Version::V0_2_0).unwrap(), legacy);
}

#[test]
fn without_an_address_there_is_no_0_2() {
    let result = parse(&json!({"cniVersion": "1.0.0", "interfaces": [{"name": "lo"}]}));
    let message = result.to_version(Version::V0_2_0).unwrap_err().to_string();
    assert!(message.contains("from version 1.0.0 to 0.2.0"), "{message}");
    assert!(message.contains("no address"), "{message}");
}

#[test]
fn a_missing_version_is_0_1_0() {
    let result = parse(&json!({"ip4": {"ip": "10.0.0.2/24"}}));
    assert_eq!(result.cni_version, Version::V0_1_0);
    assert_eq!(result.ips[0].address, "10.0.0.2/24".parse().unwrap());
}

#[test]
fn what_the_version_of_a_result_does_not_know_is_never_read_as_what_a_newer_one_means() {
    let result = parse(&json!({"cniVersion": "0.2.0", "ips": [{"address": "nonsense"}],
                               "ip4": {"ip": "10.0.0.2/24"}}));
    assert_eq!(result.extra["ips"], json!([{"address": "nonsense"}]));
    let newer = result.to_version(Version::V1_1_0).unwrap();
    assert_eq!(newer["ips"], json!([{"address": "10.0.0.2/24"}]));
}

#[test]
fn dns_is_always_there_before_1_0_and_never_empty_after() {
    let result = parse(&json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]}));
    for version in Version::ALL {
        let written = result.to_version(version).unwrap();
        let expected = (version <= Version::V0_4_0).then(|| json!({}));
        assert_eq!(written.get("dns"), expected.as_ref(), "{version}");
    }
}

#[test]
fn null_and_empty_are_absent() {
    let result = parse(&json!({
        "cniVersion": "1.0.0", "ips": null, "routes": null, "dns": null,
        "interfaces": [{"name": "a", "mac": "", "sandbox": null, "mtu": 0}],
    }));
    let expected = parse(&json!({"cniVersion": "1.0.0", "interfaces": [{"name": "a"}]}));
    assert_eq!(result, expected);
}

#[test]
fn errors_name_the_field_and_the_value() {
    let with = |name: &str, value: Value| {
        let mut result = json!({"cniVersion": "1.0.0", "interfaces": [{"name": "a"}]});
        result[name] = value;
        field_error(result)
    };
    let ips = |ip: Value| with("ips", json!([{"address": "10.0.0.9/24"}, ip]));

    let (field, reason) = ips(json!({"address": "10.0.0.2/24", "interface": 1}));
    assert_eq!(field, "ips[1].interface");
    assert_eq!(reason, "1 is out of range: the result has 1 interfaces");

    let (field, reason) = ips(json!({"address": "10.0.0.2/24", "interface": -1}));
    assert_eq!(field, "ips[1].interface");
    assert!(reason.contains("-1"), "{reason}");

    let (field, reason) = ips(Value::Null);
    assert_eq!(field, "ips[1]");
    assert!(reason.contains("null"), "{reason}");

    let (field, reason) = ips(json!({"address": "10.0.0.2"}));
    assert_eq!(field, "ips[1].address");
    assert!(reason.contains("\"10.0.0.2\""), "{reason}");

    let (field, reason) = ips(json!({"address": "10.0.0.2/24", "gateway": "a\nb"}));
    assert_eq!(field, "ips[1].gateway");
    assert!(reason.contains(r#""a\nb""#), "{reason}");

    let (field, reason) = ips(json!({}));
    assert_eq!(field, "ips[1]");
    assert!(reason.contains("address"), "{reason}");

    assert_eq!(with("interfaces", json!([null])).0, "interfaces[0]");
    assert_eq!(with("interfaces", json!([{"name": "a", "mtu": -3}])).0, "interfaces[0].mtu");
    assert_eq!(with("routes", json!([null])).0, "routes[0]");
    assert_eq!(with("routes", json!([{"dst": "10/8"}])).0, "routes[0].dst");
    assert_eq!(with("dns", json!({"nameservers": [null]})).0, "dns.nameservers[0]");
    assert_eq!(with("cniVersion", json!(1)).0, "cniVersion");
    assert_eq!(field_error(json!({"ip4": {"ip": "x"}})).0, "ip4.ip");
    assert_eq!(field_error(json!([])).0, "the whole");
    assert_eq!(field_error(Value::Null).0, "the whole");
}

#[test]
fn an_unknown_version_is_refused_whatever_else_is_wrong() {
    for ips in [json!([]), json!([null])] {
        let text = json!({"cniVersion": "1.2.0", "ips": ips}).to_string();
        let unsupported = Error::UnsupportedVersion { version: "1.2.0".into() };
        assert_eq!(CniResult::parse(text), Err(unsupported));
    }
}

#[test]
fn what_is_no_json_is_a_syntax_error() {
    for text in ["", "{", "{}{}", "\u{0}", r#"{"ips":[}"#] {
        assert!(matches!(CniResult::parse(text), Err(Error::Syntax { .. })), "{text:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(CniResult::parse(format!(r#"{{"x":{deep}"#)).is_err());
}

mod properties {
    use std::net::IpAddr;

    use ipnet::IpNet;
    use jackfield_cni::types::{CniResult, Dns, Extra, Interface, IpConfig, Route, Version};
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::Value;

    fn version() -> impl Strategy<Value = Version> {
        proptest::sample::select(Version::ALL.to_vec())
    }

    fn text() -> impl Strategy<Value = String> {
        vec(any::<char>(), 1..6).prop_map(|characters| characters.into_iter().collect())
    }

    fn net() -> impl Strategy<Value = IpNet> {
        (any::<IpAddr>(), 0..=128u8).prop_map(|(address, length)| {
            let most = if address.is_ipv4() { 32 } else { 128 };
            IpNet::new(address, length.min(most)).unwrap()
        })
    }

    fn extra() -> impl Strategy<Value = Extra> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            vec(any::<bool>(), 0..3).prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        // Begins with a character that no known field begins with.
        vec((text().prop_map(|name| format!("_{name}")), value), 0..3)
            .prop_map(|fields| fields.into_iter().collect())
    }

    fn interface() -> impl Strategy<Value = Interface> {
        let texts = || option::of(text());
        (text(), texts(), option::of(1..u32::MAX), texts(), texts(), texts(), extra()).prop_map(
            |(name, mac, mtu, sandbox, socket_path, pci_id, extra)| Interface {
                name,
                mac,
                mtu,
                sandbox,
                socket_path,
                pci_id,
                extra,
            },
        )
    }

    fn ip() -> impl Strategy<Value = IpConfig> {
        (option::of(any::<u32>()), net(), option::of(any::<IpAddr>()), extra()).prop_map(
            |(interface, address, gateway, extra)| IpConfig { interface, address, gateway, extra },
        )
    }

    fn route() -> impl Strategy<Value = Route> {
        let size = || option::of(1..u32::MAX);
        let number = || option::of(any::<u32>());
        (net(), option::of(any::<IpAddr>()), size(), size(), size(), number(), number(), extra())
            .prop_map(|(dst, gw, mtu, advmss, priority, table, scope, extra)| Route {
                dst,
                gw,
                mtu,
                advmss,
                priority,
                table,
                scope,
                extra,
            })
    }

    fn dns() -> impl Strategy<Value = Dns> {
        let texts = || vec(text(), 0..3);
        (texts(), option::of(text()), texts(), texts(), extra()).prop_map(
            |(nameservers, domain, search, options, extra)| Dns {
                nameservers,
                domain,
                search,
                options,
                extra,
            },
        )
    }

    prop_compose! {
        fn result()(
            interfaces in vec(interface(), 0..4),
            mut ips in vec(ip(), 0..4),
            routes in vec(route(), 0..4),
            dns in dns(),
            extra in extra(),
        ) -> CniResult {
            for ip in &mut ips {
                let count = u32::try_from(interfaces.len()).unwrap();
                ip.interface = ip.interface.and_then(|index| index.checked_rem(count));
            }
            CniResult { cni_version: Version::LATEST, interfaces, ips, routes, dns, extra }
        }
    }

    fn reread(result: &CniResult, version: Version) -> CniResult {
        let read = CniResult::parse(result.to_json(version).unwrap()).unwrap();
        assert_eq!(read.cni_version, version);
        read
    }

    /// What a version can say of a result, by the rules of the specification's Go library.
    fn as_said_in(result: &CniResult, version: Version) -> CniResult {
        let mut said = result.clone();
        said.cni_version = version;
        if version <= Version::V0_4_0 {
            for interface in &mut said.interfaces {
                (interface.mtu, interface.socket_path, interface.pci_id) = (None, None, None);
            }
        }
        if version <= Version::V0_2_0 {
            said.interfaces.clear();
            let mut ips = Vec::new();
            let mut routes = Vec::new();
            for is_ipv4 in [true, false] {
                let of_family = |address: IpAddr| address.is_ipv4() == is_ipv4;
                let Some(ip) = result.ips.iter().find(|ip| of_family(ip.address.addr())) else {
                    continue;
                };
                ips.push(IpConfig { interface: None, ..ip.clone() });
                let its = result.routes.iter().filter(|route| of_family(route.dst.addr()));
                routes.extend(
                    its.map(|it| Route { extra: it.extra.clone(), ..Route::new(it.dst, it.gw) }),
                );
            }
            (said.ips, said.routes) = (ips, routes);
        }
        said
    }

    proptest! {
        /// Every pair of versions: what is written as one, read, written as the other and read
        /// again is what both can say, and nothing else.
        #[test]
        fn conversions_lose_what_a_version_cannot_say_and_nothing_else(result in result()) {
            for from in Version::ALL {
                let unsayable = result.ips.is_empty() && from <= Version::V0_2_0;
                prop_assert_eq!(result.to_version(from).is_err(), unsayable);
                if unsayable {
                    continue;
                }
                let first = reread(&result, from);
                prop_assert_eq!(&first, &as_said_in(&result, from));
                for to in Version::ALL {
                    match first.to_version(to) {
                        Ok(_) => prop_assert_eq!(reread(&first, to), as_said_in(&first, to)),
                        Err(_) => prop_assert!(first.ips.is_empty() && to <= Version::V0_2_0),
                    }
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = CniResult::parse(&bytes);
        }

        #[test]
        fn no_broken_document_makes_it_panic(
            result in result(), version in version(), at in any::<prop::sample::Index>(), byte: u8
        ) {
            if let Ok(json) = result.to_json(version) {
                let mut bytes = json.into_bytes();
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if let Ok(read) = CniResult::parse(&bytes) {
                    for version in Version::ALL {
                        let _ = read.to_json(version);
                    }
                }
            }
        }
    }
}
