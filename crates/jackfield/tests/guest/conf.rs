//! `vm conf` prints what the golden files hold, in every format.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::machine::{JACKFIELD, Machine};

const ONE: &str = include_str!("conf/one.result.json");
const DUAL: &str = include_str!("conf/dual.result.json");

/// Every format.
pub(crate) const FORMATS: [&str; 10] = [
    "json",
    "ip",
    "kernel-args",
    "firecracker",
    "cloud-hypervisor",
    "qemu",
    "networkd",
    "cloud-init",
    "dracut",
    "resolv-conf",
];
/// Those of one IPv4 address.
const IPV4_ONLY: [&str; 2] = ["ip", "kernel-args"];

/// Runs `jackfield vm conf` with a result on standard input.
fn conf(result: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(JACKFIELD);
    command.args(["vm", "conf", "--container-id", "vm1"]).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(result.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest/conf").join(name)
}

/// What is printed, then what is said. `JACKFIELD_BLESS=1` writes the files anew.
#[track_caller]
fn assert_prints(name: &str, result: &str, arguments: &[&str]) {
    let output = conf(result, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let told = String::from_utf8([output.stdout, b"---\n".into(), output.stderr].concat()).unwrap();
    let path = golden(name);
    if std::env::var_os("JACKFIELD_BLESS").is_some() {
        std::fs::write(&path, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
}

#[test]
fn each_format_prints_one_interface() {
    for format in FORMATS {
        let arguments = ["--format", format, "--vm-ifname", "eth0", "--mtu", "1450"];
        assert_prints(&format!("one.{format}"), ONE, &arguments);
    }
}

#[test]
fn each_format_that_can_prints_both_families() {
    for format in FORMATS.iter().filter(|format| !IPV4_ONLY.contains(format)) {
        let arguments = ["--format", format, "--vm-ifname", "eth0"];
        assert_prints(&format!("dual.{format}"), DUAL, &arguments);
    }
    for format in IPV4_ONLY {
        let output = conf(DUAL, &["--format", format]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.contains("IPv4 alone") && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn options_of_formats_are_followed() {
    for (name, arguments) in [
        ("one.ip.go-sdk", &["--format", "ip", "--ip-form", "go-sdk", "--vm-ifname", "eth0"][..]),
        (
            "one.kernel-args.merged",
            &["--format", "kernel-args", "--kernel-args", "console=ttyS0 a=\"b c\" -- single"],
        ),
        (
            "one.dracut.merged",
            &["--format", "dracut", "--vm-ifname", "eth0", "--kernel-args", "quiet -- x"],
        ),
        (
            "one.firecracker.1.9",
            &["--format", "firecracker", "--firecracker-version", "1.9", "--mtu", "1450"],
        ),
        (
            "one.firecracker.mmds",
            &[
                "--format",
                "firecracker",
                "--mmds",
                "V2",
                "--mmds-address",
                "169.254.170.2",
                "--rx-rate-limiter",
                r#"{"bandwidth":{"size":1000,"refill_time":100}}"#,
            ],
        ),
        ("one.firecracker.snapshot", &["--format", "firecracker", "--snapshot"]),
        ("one.qemu.mmio", &["--format", "qemu", "--qemu-device", "mmio"]),
    ] {
        assert_prints(name, ONE, arguments);
    }
    let output = conf(ONE, &["--format", "kernel-args", "--kernel-args", "ip=dhcp"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("ip=dhcp") && stderr.contains("--kernel-args"), "{stderr}");
}

#[test]
fn what_is_not_carried_is_an_error_with_strict() {
    let output = conf(ONE, &["--format", "ip", "--strict"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
    assert!(stderr.contains("MAC address") && stderr.contains("--strict"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1);
    assert!(conf(ONE, &["--format", "networkd", "--strict"]).status.success());
}

#[test]
fn a_result_that_is_none_is_told_in_one_line() {
    let wrong_sandbox = ONE.replace("\"vm1\"", "\"vm2\"");
    for (result, said) in [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[]", "CNI result"),
        (r#"{"cniVersion":"9.0.0"}"#, "9.0.0"),
        (wrong_sandbox.as_str(), "no interface for the VM"),
        (&ONE.replace("10.0.0.2/24", "10.0.0.2/99"), "ips[0]"),
        (&ONE.replace("1.1.1.1", "eth0 init=/bin/sh"), "name server"),
    ] {
        let output = conf(result, &[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.contains(said) && stderr.lines().count() == 1, "{result}: {stderr}");
    }
    let mut command = Command::new(JACKFIELD);
    let missing = ["vm", "conf", "--container-id", "vm1", "--result", "/nowhere/result"];
    let output = command.args(missing).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("/nowhere/result") && stderr.contains("--result"), "{stderr}");
}

#[test]
fn the_mtu_is_the_flags_else_the_taps_else_the_results() {
    let machine = Machine::new();
    let up = machine.json(&["up", "vm1", "--network", "dual"]);
    let result = machine.shell("cat /var/lib/cni/results/dual-vm1-eth0");
    let entry: serde_json::Value = serde_json::from_str(&result).unwrap();
    machine.write("/run/result.json", &entry["result"].to_string());
    let conf =
        ["conf", "--container-id", "vm1", "--result", "/run/result.json", "--vm-ifname", "eth0"];
    assert_eq!(machine.json(&conf), up);
    machine.shell("ip -n vm1 link set tap0 mtu 1333");
    assert_eq!(machine.json(&conf)["interfaces"][0]["vm_mtu"], 1333);
    let flag = [&conf[..], &["--mtu", "1300"]].concat();
    assert_eq!(machine.json(&flag)["interfaces"][0]["vm_mtu"], 1300);
    machine.succeed(&["down", "vm1"]);
}
