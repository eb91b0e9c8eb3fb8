//! systemd-networkd and udev, in a namespace of their own: what the kernel has afterwards.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_vmconf::formats::networkd;
use jackfield_vmconf::{StaticNetworkConf, VmConf};

use super::{Directory, Reader, output};
use crate::support::*;

const NETWORKD: Reader = Reader { file: "/lib/systemd/systemd-networkd", package: "systemd" };
const UDEVADM: Reader = Reader { file: "/usr/bin/udevadm", package: "udev" };

/// A namespace with an interface `kern0` that has the MAC, where the files are the configuration. It
/// lives as long as its standard input is open. A read-only /sys tells networkd that no udev runs.
const SCRIPT: &str = r#"
    mount -t tmpfs tmpfs /run && mount --bind "$1" /etc/systemd/network && mount -t sysfs -o ro sysfs /sys &&
    mkdir -p /run/systemd/netif && chown systemd-network: /run/systemd/netif &&
    ip link add kern0 address 02:00:00:00:00:01 type veth peer name peer0 && ip link set peer0 up &&
    echo ready && exec cat
"#;

struct Guest {
    process: std::process::Child,
    files: Directory,
}

impl Guest {
    fn new(vm: &VmConf) -> Self {
        let directory = Directory::new();
        // networkd reads them as its own user.
        Command::new("chmod").arg("755").arg(directory.path()).status().unwrap();
        for file in networkd::files(vm).unwrap().0 {
            directory.write(file.path.rsplit('/').next().unwrap(), &file.text);
        }
        let mut process = Command::new("unshare")
            .args(["-n", "-m", "sh", "-c", SCRIPT, "sh"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process, files: directory }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let target = self.process.id().to_string();
        command.args(["--target", &target, "--net", "--mount", program]).args(arguments);
        command
    }

    fn ip(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        output(&mut self.command("ip", &arguments))
    }

    /// Runs networkd until it has configured the interface; gives what it logged.
    fn configure(&self) -> String {
        let mut command = self.command(NETWORKD.file, &[]);
        let log = self.files.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        command.env("SYSTEMD_LOG_LEVEL", "info").env("SYSTEMD_LOG_TARGET", "console");
        let mut networkd = command.stderr(file).stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let state =
                self.command("sh", &["-c", "cat /run/systemd/netif/links/*"]).output().unwrap();
            let state = String::from_utf8(state.stdout).unwrap();
            if state.contains("ADMIN_STATE=configured") {
                break;
            }
            let log = std::fs::read_to_string(&log).unwrap();
            let running = networkd.try_wait().unwrap().is_none();
            assert!(running && Instant::now() < deadline, "{state}\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        networkd.kill().unwrap();
        networkd.wait().unwrap();
        std::fs::read_to_string(&log).unwrap()
    }

    fn links_state(&self) -> String {
        output(&mut self.command("sh", &["-c", "cat /run/systemd/netif/links/*"]))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn is_installed() -> bool {
    NETWORKD.is_installed()
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

fn configured(conf: StaticNetworkConf) -> Guest {
    let guest = Guest::new(&conf.into());
    let log = guest.configure();
    for complaint in ["ignoring", "Failed to parse", "Unknown", "Invalid"] {
        assert!(!log.contains(complaint), "{log}");
    }
    guest
}

#[test]
fn networkd_configures_everything() {
    if !is_installed() {
        return;
    }
    let guest = configured(full());
    assert_has(&guest.ip("link show dev kern0"), &["mtu 1450"]);
    assert_has(&guest.ip("addr show dev kern0"), &["inet 10.0.0.2/24 ", "inet6 2001:db8::2/64 "]);
    assert_has(
        &guest.ip("-4 route show"),
        &["default via 10.0.0.1 dev kern0", "10.9.0.0/16 via 10.0.0.254 dev kern0"],
    );
    assert_has(
        &guest.ip("-6 route show"),
        &["default via 2001:db8::1 dev kern0", "2001:db8:9::/48 via 2001:db8::fe dev kern0"],
    );
    assert_has(
        &guest.links_state(),
        &["DNS=1.1.1.1 8.8.8.8 2001:db8::53", "DOMAINS=example.com corp.example.com"],
    );
}

#[test]
fn networkd_configures_a_gateway_in_no_subnet() {
    if !is_installed() {
        return;
    }
    let guest = configured(off_link());
    assert_has(
        &guest.ip("-4 route show"),
        &["default via 192.0.2.1 dev kern0 proto static onlink"],
    );
}

#[test]
fn networkd_configures_all_that_a_route_has() {
    if !is_installed() {
        return;
    }
    let mut conf = plain();
    conf.vm_routes = vec![
        route(serde_json::json!({
            "dst": "10.9.0.0/16", "gw": "10.0.0.254",
            "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100, "scope": 0
        })),
        route(serde_json::json!({ "dst": "10.8.0.0/16", "scope": 253 })),
    ];
    let guest = configured(conf);
    assert_has(
        &guest.ip("-4 route show table 100"),
        &["10.9.0.0/16 via 10.0.0.254 dev kern0", "metric 7 ", "mtu 1400 ", "advmss 1360"],
    );
    let main = guest.ip("-4 route show");
    assert_has(&main, &["10.8.0.0/16 dev kern0 proto static scope link", "default via 10.0.0.1"]);
}

#[test]
fn udev_gives_the_interface_its_name() {
    if !UDEVADM.is_installed() {
        return;
    }
    let guest = Guest::new(&full().into());
    let arguments = ["test-builtin", "net_setup_link", "/sys/class/net/kern0"];
    let said = guest.command("udevadm", &arguments).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert_has(&said, &["10-jackfield-eth0.link", "ID_NET_NAME=eth0"]);
}
