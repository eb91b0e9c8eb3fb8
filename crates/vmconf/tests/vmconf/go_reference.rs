//! What goes wrong in the Go reference for guest configuration, each its own test: the input, and
//! what is right.

use jackfield_cni::types::CniResult;
use jackfield_vmconf::formats::firecracker;
use jackfield_vmconf::{
    Attachment, Format, IpForm, Mtu, RenderError, ResultError, StaticNetworkConf, VmConf, render,
};
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn the_documented_example_is_exact_in_the_form_of_the_go_sdk() {
    let conf = conf_of(&example());
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1:8.8.8.8:";
    assert_eq!(conf.ip_boot_param_as(IpForm::GoSdk).unwrap(), expected);
}

#[test]
fn by_default_there_is_no_trailing_colon() {
    let mut result = example();
    let conf = conf_of(&result);
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1:8.8.8.8";
    assert_eq!(conf.ip_boot_param().unwrap(), expected);

    result["dns"]["nameservers"] = json!(["1.1.1.1"]);
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1";
    assert_eq!(conf_of(&result).ip_boot_param().unwrap(), expected);

    result["dns"] = json!({});
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off";
    assert_eq!(conf_of(&result).ip_boot_param().unwrap(), expected);
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:::";
    assert_eq!(conf_of(&result).ip_boot_param_as(IpForm::GoSdk).unwrap(), expected);
}

#[test]
fn without_a_name_the_field_is_empty() {
    let conf = StaticNetworkConf::from_result(&parsed(&example()), &Attachment::of("vm1")).unwrap();
    let expected = "10.0.0.2::10.0.0.1:255.255.255.0:::off:1.1.1.1:8.8.8.8";
    assert_eq!(conf.ip_boot_param().unwrap(), expected);
}

#[test]
fn no_gateway_is_an_empty_field() {
    let mut result = example();
    result["ips"][0].as_object_mut().unwrap().remove("gateway");
    let expected = "10.0.0.2:::255.255.255.0::eth0:off:1.1.1.1:8.8.8.8";
    assert_eq!(conf_of(&result).ip_boot_param().unwrap(), expected);
}

#[test]
fn an_ipv6_address_is_an_error_for_ip_and_carried_where_it_can_be() {
    let mut result = example();
    result["ips"] = json!([{ "address": "fd00::2/64", "gateway": "fd00::1", "interface": 2 }]);
    let conf = conf_of(&result);
    let error = conf.ip_boot_param().unwrap_err();
    assert!(matches!(error, RenderError::Address { .. }), "{error}");
    assert!(error.to_string().contains("fd00::2/64 of eth0"), "{error}");

    let vm = VmConf::from(conf);
    assert!(matches!(render(&vm, Format::KernelArgs), Err(RenderError::Address { .. })));
    for format in [Format::Json, Format::Networkd, Format::CloudInit] {
        assert!(render(&vm, format).unwrap().text.contains("fd00::2/64"), "{format}");
    }
    assert!(
        render(&vm, Format::Dracut).unwrap().text.contains("ip=[fd00::2]::[fd00::1]:64::eth0:off")
    );
}

#[test]
fn an_interface_name_with_a_second_parameter_in_it_is_refused() {
    for name in ["eth0 init=/bin/sh", "eth0:off", "eth0\ninit=/bin/sh", "eth0\"", "a\u{a0}b"] {
        assert!(name.parse::<jackfield_vmconf::InterfaceName>().is_err(), "{name:?}");
        let mut result = example();
        result["interfaces"][1]["name"] = json!(name);
        result["interfaces"][2]["name"] = json!(name);
        let error = refused(&result);
        assert!(matches!(error, ResultError::Value { .. }), "{error}");
        assert!(error.to_string().contains("interfaces[2].name"), "{error}");
    }
}

#[test]
fn a_name_server_with_a_second_parameter_in_it_is_refused() {
    for server in
        ["1.1.1.1 init=/bin/sh", "1.1.1.1:8.8.8.8", "1.1.1.1\n", "dns.example", "", "01.1.1.1"]
    {
        let mut result = example();
        result["dns"]["nameservers"][1] = json!(server);
        let error = refused(&result).to_string();
        assert!(error.contains("dns.nameservers[1]"), "{error}");
        assert!(error.contains(&format!("{server:?}")), "{error}");
    }
}

#[test]
fn domains_and_options_with_more_than_themselves_are_refused() {
    for (field, value) in [
        ("domain", json!("a b")),
        ("domain", json!("a\nnameserver 6.6.6.6")),
        ("search", json!(["a; rm"])),
        ("search", json!(["%H.example"])),
        ("search", json!(["\"a\""])),
        ("options", json!(["ndots:1\nnameserver 6.6.6.6"])),
        ("options", json!([""])),
    ] {
        let mut result = example();
        result["dns"][field] = value;
        assert!(refused(&result).to_string().contains(&format!("dns.{field}")));
    }
}

#[test]
fn an_interface_index_out_of_range_is_a_clear_error() {
    let mut result = example();
    result["ips"][0]["interface"] = json!(3);
    let error = CniResult::parse(result.to_string()).unwrap_err().to_string();
    assert!(error.contains("ips[0].interface") && error.contains('3'), "{error}");

    // Also where the result was not read from text.
    let mut built = parsed(&example());
    built.ips[0].interface = Some(7);
    let error = StaticNetworkConf::from_result(&built, &Attachment::of("vm1")).unwrap_err();
    let expected =
        "the address 10.0.0.2/24 of the CNI result is on interface 7, but the result has 3";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_negative_interface_index_is_a_clear_error() {
    let mut result = example();
    result["ips"][0]["interface"] = json!(-1);
    let error = CniResult::parse(result.to_string()).unwrap_err().to_string();
    assert!(error.contains("ips[0].interface"), "{error}");
}

#[test]
fn null_entries_are_clear_errors() {
    for field in ["interfaces", "ips", "routes"] {
        let mut result = example();
        result["routes"] = json!([{ "dst": "0.0.0.0/0" }]);
        result[field][0] = Value::Null;
        let error = CniResult::parse(result.to_string()).unwrap_err().to_string();
        assert!(error.contains(&format!("{field}[0]")), "{error}");
    }
}

#[test]
fn two_addresses_are_both_the_guests_and_an_error_for_ip() {
    let mut result = example();
    let second = json!({ "address": "10.0.1.2/24", "gateway": "10.0.1.1", "interface": 2 });
    result["ips"].as_array_mut().unwrap().push(second);
    let conf = conf_of(&result);
    assert_eq!(addresses(&conf), ["10.0.0.2/24", "10.0.1.2/24"]);
    let error = conf.ip_boot_param().unwrap_err().to_string();
    assert!(error.contains("10.0.1.2/24"), "{error}");
    let text = render(&VmConf::from(conf), Format::Networkd).unwrap().text;
    assert!(text.contains("Address=10.0.0.2/24") && text.contains("Address=10.0.1.2/24"), "{text}");
}

#[test]
fn dual_stack_is_carried_and_an_error_for_ip() {
    let conf = dual_stack();
    assert_eq!(addresses(&conf), ["10.0.0.2/24", "2001:db8::2/64"]);
    let error = conf.ip_boot_param().unwrap_err().to_string();
    assert!(error.contains("2001:db8::2/64"), "{error}");
}

#[test]
fn no_address_is_for_a_guest_that_asks_dhcp() {
    let mut result = example();
    result["ips"] = json!([]);
    let conf = conf_of(&result);
    assert!(matches!(conf.ip_boot_param(), Err(RenderError::NoAddress { .. })));
    let vm = VmConf::from(conf);
    assert!(matches!(render(&vm, Format::Ip), Err(RenderError::NoAddress { .. })));
    let args = render(&vm, Format::KernelArgs).unwrap();
    assert_eq!(args.text, "");
    assert!(args.warnings[0].to_string().contains("asking for an address"), "{:?}", args.warnings);
    assert!(render(&vm, Format::Networkd).unwrap().text.contains("DHCP=yes"));
    assert!(render(&vm, Format::CloudInit).unwrap().text.contains("dhcp4: true"));
    assert!(render(&vm, Format::Dracut).unwrap().text.contains("ip=eth0:dhcp"));
}

#[test]
fn an_address_without_interface_index_is_the_vms() {
    let mut result = example();
    result["ips"][0].as_object_mut().unwrap().remove("interface");
    assert_eq!(addresses(&conf_of(&result)), ["10.0.0.2/24"]);
}

#[test]
fn an_address_of_another_interface_is_not_the_vms() {
    let mut result = example();
    let host = json!({ "address": "10.0.0.1/24", "interface": 0 });
    result["ips"].as_array_mut().unwrap().push(host);
    assert_eq!(addresses(&conf_of(&result)), ["10.0.0.2/24"]);
}

#[test]
fn which_interface_is_the_vms_must_be_said_once() {
    let mut result = example();
    let twice = result["interfaces"][2].clone();
    result["interfaces"].as_array_mut().unwrap().push(twice);
    assert!(matches!(refused(&result), ResultError::SeveralVmInterfaces { .. }));
}

#[test]
fn a_sandbox_by_another_path_is_the_same_namespace() {
    let result = parsed(&example());
    for netns in ["/var/run/netns/vm1", "/run/netns/vm1", "/run/netns/../netns/vm1"] {
        let attachment = Attachment::of("vm1").in_namespace(netns);
        let conf = StaticNetworkConf::from_result(&result, &attachment).unwrap();
        assert_eq!(conf.netns_path.as_str(), "/var/run/netns/vm1");
    }
    let attachment = Attachment::of("vm1").in_namespace("/run/netns/vm2");
    let error = StaticNetworkConf::from_result(&result, &attachment).unwrap_err();
    assert!(matches!(error, ResultError::NoTap { .. }), "{error}");
    assert!(error.to_string().contains("in /run/netns/vm2"), "{error}");
}

#[test]
fn who_can_look_at_the_files_says_what_the_same_namespace_is() {
    let result = parsed(&example());
    let same = |one: &str, other: &str| (one, other) == ("/proc/7/ns/net", "/var/run/netns/vm1");
    let attachment = Attachment::of("vm1").in_namespace("/proc/7/ns/net");
    assert!(StaticNetworkConf::from_result(&result, &attachment).is_err());
    let attachment = attachment.comparing(&same);
    assert!(StaticNetworkConf::from_result(&result, &attachment).is_ok());
}

#[test]
fn the_tap_is_the_one_of_the_namespace() {
    let mut result = example();
    let other = json!({ "name": "tap0", "sandbox": "/run/netns/other" });
    result["interfaces"].as_array_mut().unwrap().push(other);
    assert!(matches!(refused(&result), ResultError::SeveralTaps { .. }));
    let attachment = Attachment::of("vm1").in_namespace("/run/netns/other");
    let conf = StaticNetworkConf::from_result(&parsed(&result), &attachment).unwrap();
    assert_eq!(conf.netns_path.as_str(), "/run/netns/other");
}

#[test]
fn a_result_without_the_pair_says_what_it_has() {
    let mut result = example();
    result["interfaces"].as_array_mut().unwrap().remove(2);
    result["ips"] = json!([]);
    let error = refused(&result);
    assert!(matches!(error, ResultError::NoVmInterface { .. }));
    assert!(error.to_string().contains("\"tap0\" (sandbox \"/var/run/netns/vm1\")"), "{error}");

    let mut result = example();
    result["interfaces"][1]["name"] = json!("tap1");
    assert!(matches!(refused(&result), ResultError::NoTap { .. }));
}

#[test]
fn a_tap_name_over_15_characters_is_refused() {
    let mut result = example();
    result["interfaces"][1]["name"] = json!("tap0123456789012");
    result["interfaces"][2]["name"] = json!("tap0123456789012");
    assert!(refused(&result).to_string().contains("15 characters"));
}

#[test]
fn a_tap_name_that_the_kernel_would_number_is_refused() {
    let mut result = example();
    result["interfaces"][1]["name"] = json!("vm%d");
    result["interfaces"][2]["name"] = json!("vm%d");
    assert!(matches!(refused(&result), ResultError::Value { .. }));
}

#[test]
fn the_mtu_is_the_wanted_else_the_taps_else_the_results() {
    let mut result = example();
    let mtu = |result: &Value, wanted: Option<u32>, tap: Option<u32>| {
        let mtu = |bytes: u32| Mtu::new(bytes).unwrap();
        let attachment =
            Attachment::of("vm1").with_wanted_mtu(wanted.map(mtu)).with_tap_mtu(tap.map(mtu));
        let conf = StaticNetworkConf::from_result(&parsed(result), &attachment).unwrap();
        conf.vm_mtu.map(Mtu::bytes)
    };
    assert_eq!(mtu(&result, None, None), None);
    result["cniVersion"] = json!("1.1.0");
    result["interfaces"][1]["mtu"] = json!(1400);
    assert_eq!(mtu(&result, None, None), Some(1400));
    result["interfaces"][2]["mtu"] = json!(1300);
    assert_eq!(mtu(&result, None, None), Some(1300));
    assert_eq!(mtu(&result, None, Some(1450)), Some(1450));
    assert_eq!(mtu(&result, Some(9000), Some(1450)), Some(9000));
    result["interfaces"][2]["mtu"] = json!(70_000);
    assert!(refused(&result).to_string().contains("70000"));
}

#[test]
fn an_mtu_that_would_take_ipv6_away_is_refused() {
    let mut result = example();
    let with = |result: &Value, mtu| {
        let attachment = Attachment::of("vm1").with_wanted_mtu(Some(Mtu::new(mtu).unwrap()));
        StaticNetworkConf::from_result(&parsed(result), &attachment)
    };
    assert!(with(&result, 1279).is_ok());
    result["ips"] = json!([{ "address": "fd00::2/64", "interface": 2 }]);
    assert!(with(&result, 1280).is_ok());
    let error = with(&result, 1279).unwrap_err().to_string();
    assert!(error.contains("1279") && error.contains("fd00::2/64"), "{error}");
}

#[test]
fn routes_have_all_that_the_result_gives_them() {
    let mut result = example();
    result["cniVersion"] = json!("1.1.0");
    result["routes"] = json!([{
        "dst": "10.9.0.0/16", "gw": "10.0.0.254",
        "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0
    }]);
    let json = render(&VmConf::from(conf_of(&result)), Format::Json).unwrap().text;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["interfaces"][0]["vm_routes"], result["routes"]);
}

/// Rows on what the kernel makes of `ip=`.
mod kernel {
    use super::*;

    fn of(address: &str, gateway: Option<&str>) -> Result<String, RenderError> {
        let mut result = example();
        result["ips"] = json!([{ "address": address, "gateway": gateway, "interface": 2 }]);
        result["dns"] = json!({});
        conf_of(&result).ip_boot_param()
    }

    #[test]
    fn a_netmask_that_it_takes_for_none_is_refused() {
        let error = of("10.0.0.2/32", None).unwrap_err();
        assert!(matches!(error, RenderError::Address { .. }), "{error}");
        assert!(of("10.0.0.2/32", Some("192.0.2.1")).is_err());
        assert!(of("10.0.0.2/0", None).is_err());
    }

    #[test]
    fn a_gateway_on_a_31_is_refused_and_an_address_on_it_is_not() {
        let error = of("10.0.0.2/31", Some("10.0.0.3")).unwrap_err();
        assert!(matches!(error, RenderError::Gateway { .. }), "{error}");
        assert_eq!(of("10.0.0.2/31", None).unwrap(), "10.0.0.2:::255.255.255.254::eth0:off");
    }

    #[test]
    fn a_gateway_off_the_link_is_refused() {
        let error = of("10.0.0.2/24", Some("10.0.1.1")).unwrap_err();
        assert!(matches!(error, RenderError::Gateway { .. }), "{error}");
    }

    #[test]
    fn a_gateway_that_is_no_host_is_refused() {
        for gateway in ["10.0.0.0", "10.0.0.255"] {
            let error = of("10.0.0.2/24", Some(gateway)).unwrap_err();
            assert!(matches!(error, RenderError::Gateway { .. }), "{error}");
        }
    }

    #[test]
    fn the_netmask_is_never_a_prefix_length() {
        for prefix in 1..=31 {
            let value = of(&format!("10.0.0.2/{prefix}"), None).unwrap();
            let mask: std::net::Ipv4Addr = value.split(':').nth(3).unwrap().parse().unwrap();
            assert_eq!(u32::from(mask).leading_ones(), prefix);
        }
    }

    #[test]
    fn an_ipv6_name_server_is_a_warning_and_not_printed() {
        let mut result = example();
        result["dns"]["nameservers"] = json!(["2001:db8::53", "1.1.1.1", "8.8.8.8", "9.9.9.9"]);
        let rendered = render(&VmConf::from(conf_of(&result)), Format::Ip).unwrap();
        let expected = "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1:8.8.8.8\n";
        assert_eq!(rendered.text, expected);
        let warnings = warnings(&rendered);
        assert!(warnings.iter().any(|w| w.contains("2001:db8::53")), "{warnings:?}");
        assert!(warnings.iter().any(|w| w.contains("9.9.9.9")), "{warnings:?}");
    }

    #[test]
    fn several_interfaces_are_refused() {
        let error = render(&two_interfaces(), Format::Ip).unwrap_err();
        assert!(matches!(error, RenderError::Interfaces { count: 2, .. }), "{error}");
        assert!(render(&two_interfaces(), Format::KernelArgs).is_err());
    }
}

#[test]
fn an_mtu_is_only_for_a_firecracker_that_takes_it() {
    let vm = VmConf::from(full());
    let version = |text: &str| firecracker::Options {
        version: text.parse().unwrap(),
        ..firecracker::Options::default()
    };
    let new = firecracker::render(&vm, &version("1.16")).unwrap();
    assert!(new.text.contains("\"mtu\": 1450"), "{}", new.text);
    assert!(new.warnings.is_empty());
    let old = firecracker::render(&vm, &version("1.15.1")).unwrap();
    assert!(!old.text.contains("mtu"), "{}", old.text);
    assert!(old.warnings[0].to_string().contains("the MTU 1450 is not carried"));
    assert!(old.strict().is_err());
}
