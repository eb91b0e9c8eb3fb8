//! What each format prints, character by character, for some configurations: `golden/<case>/<format>`,
//! with warnings behind `~ ` and an error behind `! `. `BLESS=1` writes the files anew.

use std::path::Path;

use jackfield_vmconf::formats::{firecracker, ip, json, kernel_args, qemu};
use jackfield_vmconf::{Format, IpForm, RenderError, Rendered, VmConf, render};

use crate::support::*;

fn shown(rendered: Result<Rendered, RenderError>) -> String {
    match rendered {
        Err(error) => format!("! {error}\n"),
        Ok(Rendered { mut text, warnings }) => {
            for warning in warnings {
                text.push_str(&format!("~ {warning}\n"));
            }
            text
        }
    }
}

#[track_caller]
fn assert_golden(case: &str, name: &str, shown: &str) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vmconf/golden").join(case).join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, shown).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(shown, expected, "{case}/{name}");
}

fn every_format(case: &str, vm: &VmConf) {
    for format in Format::ALL {
        assert_golden(case, format.name(), &shown(render(vm, format)));
    }
}

#[test]
fn the_documented_example() {
    every_format("plain", &plain().into());
}

#[test]
fn both_families() {
    every_format("dual-stack", &dual_stack().into());
}

#[test]
fn everything_that_there_is() {
    every_format("full", &full().into());
}

#[test]
fn a_gateway_in_no_subnet() {
    every_format("off-link", &off_link().into());
}

#[test]
fn two() {
    every_format("two-interfaces", &two_interfaces());
}

#[test]
fn neither_name_nor_address() {
    let mut conf = plain();
    conf.vm_if_name = None;
    conf.vm_ips.clear();
    every_format("bare", &conf.into());
}

#[test]
fn routes_with_all_attributes() {
    let mut conf = plain();
    conf.vm_routes = vec![
        route(serde_json::json!({
            "dst": "10.9.0.0/16", "gw": "10.0.0.254",
            "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0
        })),
        route(serde_json::json!({ "dst": "10.8.0.0/16", "scope": 253 })),
    ];
    every_format("routes", &conf.into());
}

#[test]
fn formats_with_options() {
    let vm = full().into();
    assert_golden("options", "ip-go-sdk", &shown(ip::render(&plain().into(), IpForm::GoSdk)));
    let given = "console=ttyS0 quiet -- single".parse().unwrap();
    let options = kernel_args::Options { given, ..kernel_args::Options::default() };
    assert_golden("options", "kernel-args", &shown(kernel_args::render(&plain().into(), &options)));
    let bucket =
        firecracker::TokenBucket { size: 1000, one_time_burst: Some(50), refill_time: 100 };
    let options = firecracker::Options {
        version: "1.15".parse().unwrap(),
        rx_rate_limiter: Some(firecracker::RateLimiter { bandwidth: Some(bucket), ops: None }),
        tx_rate_limiter: Some(firecracker::RateLimiter { bandwidth: None, ops: Some(bucket) }),
        mmds: Some(firecracker::Mmds {
            version: firecracker::MmdsVersion::V2,
            ipv4_address: Some("169.254.170.2".parse().unwrap()),
        }),
    };
    assert_golden("options", "firecracker", &shown(firecracker::render(&vm, &options)));
    let snapshot = firecracker::render_snapshot_load(&two_interfaces());
    assert_golden("options", "firecracker-snapshot", &shown(Ok(snapshot)));
    assert_golden("options", "qemu-microvm", &shown(Ok(qemu::render(&vm, qemu::Device::Mmio))));
}

#[test]
fn json_is_read_back_as_it_was() {
    for vm in [full().into(), off_link().into(), two_interfaces()] {
        assert_eq!(json::parse(json::render(&vm).unwrap().text).unwrap(), vm);
    }
}
