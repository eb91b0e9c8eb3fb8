//! Results that try to say more than they may: each value that reaches a text, with everything that
//! means something in one of the formats.

use jackfield_cni::types::CniResult;
use jackfield_vmconf::{Attachment, Format, KernelCommandLine, StaticNetworkConf, VmConf, render};
use serde_json::{Value, json};

use crate::support::*;

/// What would end a value and begin something else, or be read as something else, somewhere.
const ENDINGS: [&str; 24] = [
    " init=/bin/sh",
    "\tip=dhcp",
    "\n",
    "\nExecStart=/bin/sh",
    "\r\nx",
    "\u{b}",
    "\u{c}",
    "\0",
    "\"",
    "'",
    "\\",
    "%H",
    "%%",
    ": {a: b}",
    " #",
    "#",
    ",script=/bin/sh",
    ";id",
    "$(id)",
    "`id`",
    "\u{a0}",
    "\u{2028}",
    "]",
    "*",
];

/// Every text of a result that ends up in a configuration.
fn set(result: &mut Value, field: &str, value: &str) {
    match field {
        "name" => {
            result["interfaces"][1]["name"] = json!(value);
            result["interfaces"][2]["name"] = json!(value);
        }
        "mac" => result["interfaces"][2]["mac"] = json!(value),
        "address" => result["ips"][0]["address"] = json!(value),
        "gateway" => result["ips"][0]["gateway"] = json!(value),
        "dst" => result["routes"] = json!([{ "dst": value }]),
        "gw" => result["routes"] = json!([{ "dst": "10.9.0.0/16", "gw": value }]),
        "nameserver" => result["dns"]["nameservers"] = json!([value]),
        "domain" => result["dns"]["domain"] = json!(value),
        "search" => result["dns"]["search"] = json!([value]),
        "option" => result["dns"]["options"] = json!([value]),
        _ => panic!("{field}"),
    }
}

const FIELDS: [(&str, &str); 10] = [
    ("name", "tap0"),
    ("mac", "02:00:00:00:00:01"),
    ("address", "10.0.0.2/24"),
    ("gateway", "10.0.0.1"),
    ("dst", "10.9.0.0/16"),
    ("gw", "10.0.0.254"),
    ("nameserver", "1.1.1.1"),
    ("domain", "example.com"),
    ("search", "example.com"),
    ("option", "ndots:2"),
];

fn accepted(result: &Value) -> bool {
    let Ok(result) = CniResult::parse(result.to_string()) else { return false };
    StaticNetworkConf::from_result(&result, &Attachment::of("vm1")).is_ok()
}

#[test]
fn every_value_is_refused_with_anything_behind_before_or_in_it() {
    for (field, value) in FIELDS {
        let mut result = example();
        set(&mut result, field, value);
        assert!(accepted(&result), "{field} {value:?}");
        let (first, second) = value.split_at(value.len() / 2);
        for ending in ENDINGS {
            for hostile in [
                format!("{value}{ending}"),
                format!("{ending}{value}"),
                format!("{first}{ending}{second}"),
            ] {
                let mut result = example();
                set(&mut result, field, &hostile);
                assert!(!accepted(&result), "{field} {hostile:?}");
            }
        }
    }
}

#[test]
fn a_name_in_the_guest_is_checked_as_well() {
    for ending in ENDINGS {
        assert!(format!("e{ending}").parse::<jackfield_vmconf::InterfaceName>().is_err());
    }
    assert!("eth0:".parse::<jackfield_vmconf::InterfaceName>().is_err());
}

#[test]
fn the_namespace_path_is_in_json_only_and_escaped_there() {
    let hostile = "/run/netns/\"a b\\,x=y:%H$(id)";
    let mut result = example();
    result["interfaces"][1]["sandbox"] = json!(hostile);
    let vm = VmConf::from(conf_of(&result));
    for format in Format::ALL {
        let text = render(&vm, format).unwrap().text;
        if format == Format::Json {
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read["interfaces"][0]["netns_path"], hostile);
        } else {
            assert!(!text.contains("netns"), "{format}: {text}");
        }
    }
}

#[test]
fn what_is_printed_for_a_command_line_is_as_many_arguments_as_it_should_be() {
    let line = |format| {
        let text = render(&plain().into(), format).unwrap().text;
        let line: KernelCommandLine = text.parse().unwrap();
        line.arguments().iter().map(|argument| argument.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(line(Format::KernelArgs), ["ip"]);
    let expected = ["ifname", "ip", "nameserver", "nameserver", "rd.neednet"];
    assert_eq!(line(Format::Dracut), expected);
}

#[test]
fn a_command_line_that_the_kernel_would_cut_off_is_refused() {
    let mut conf = plain();
    for number in 0..60 {
        let dst = format!("10.{number}.0.0/16");
        conf.vm_routes.push(route(json!({ "dst": dst, "gw": "10.0.0.254" })));
    }
    let error = render(&conf.into(), Format::Dracut).unwrap_err().to_string();
    assert!(error.contains("bytes are too many: 2047 fit"), "{error}");
}
