//! In a chain after Debian's containernetworking-plugins, as in the documents: `ptp`, `host-local`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::harness::*;

const PLUGINS: &str = "/usr/lib/cni";

fn require_plugins() {
    assert!(
        Path::new(PLUGINS).join("ptp").exists(),
        "{PLUGINS}/ptp is missing: install Debian's package containernetworking-plugins, as .ci/run \
         does"
    );
}

/// A directory for leases, which goes with its holder.
struct Leases(PathBuf);

impl Leases {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jackfield-tap-leases-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Leases(path)
    }

    fn config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "fcnet",
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": self.0,
                "ranges": [[{"subnet": "192.168.127.0/24"}], [{"subnet": "fd00:127::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        })
    }

    fn held(&self) -> usize {
        let leases = std::fs::read_dir(self.0.join("fcnet")).into_iter().flatten().flatten();
        let is_lease = |name: &str| name.starts_with(|c: char| c.is_ascii_hexdigit());
        leases.filter(|entry| is_lease(&entry.file_name().to_string_lossy())).count()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs `ptp` as the runtime would.
fn ptp(place: &Place, command: &str, container: &str, config: &Value) -> Value {
    let mut process = Command::new(format!("{PLUGINS}/ptp"));
    process.env_clear().env("PATH", std::env::var("PATH").unwrap());
    process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", container);
    process.env("CNI_NETNS", place.netns()).env("CNI_IFNAME", "eth0").env("CNI_PATH", PLUGINS);
    place.host.start_inside(&mut process, None).unwrap();
    let mut child = process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "ptp {command}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// One VM from nothing to traffic, and back to nothing.
fn up_and_down(leases: &Leases, container: &str) {
    let mut place = Place::empty();
    let empty = place.state();
    let config = leases.config();
    let before = ptp(&place, "ADD", container, &config);
    let add = place.call("ADD").container(container).prev_result(&before);
    let result = add.result();
    let call = |command| place.call(command).container(container).prev_result(&result);
    call("CHECK").succeed();
    let guest: Vec<&Value> =
        result["ips"].as_array().unwrap().iter().filter(|ip| ip["interface"] == 3).collect();
    assert_eq!(guest.len(), 2, "both families: {result}");
    let address = ip(guest[0]["address"].as_str().unwrap().split('/').next().unwrap());
    let mac = result["interfaces"][3]["mac"].as_str().unwrap();
    let tap = result["interfaces"][2]["name"].as_str().unwrap();
    let vm = place.guest(tap, mac, address);
    assert!(place.reaches(address, 500), "{container}");
    drop(vm);
    call("DEL").succeed();
    ptp(&place, "DEL", container, &config);
    assert_eq!(place.state(), empty, "{container}");
}

#[test]
fn a_vm_comes_up_answers_and_goes_down_after_ptp_with_host_local() {
    require_plugins();
    let leases = Leases::new();
    up_and_down(&leases, "vm-1");
    assert_eq!(leases.held(), 0);
}

#[test]
fn eight_at_once_do_not_get_in_one_anothers_way() {
    require_plugins();
    let leases = Leases::new();
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let leases = &leases;
            scope.spawn(move || {
                for round in 0..3 {
                    up_and_down(leases, &format!("vm-{worker}-{round}"));
                }
            });
        }
    });
    assert_eq!(leases.held(), 0);
}

#[test]
fn eight_attachments_in_one_namespace_at_once_get_a_tap_each() {
    let mut place = Place::empty();
    let before = place.state();
    for number in 0..8 {
        place.run(&format!("ip link add eth{number} type veth peer other{number}"));
    }
    let with_interfaces = place.state();
    let calls = |command: &'static str| {
        std::thread::scope(|scope| {
            for number in 0..8 {
                let place = &place;
                scope.spawn(move || {
                    let mut before = place.prev_result();
                    before["interfaces"][1]["name"] = format!("eth{number}").into();
                    let name = format!("eth{number}");
                    let call = place.call(command).variable("CNI_IFNAME", name);
                    call.container(&format!("vm-{number}")).prev_result(&before).succeed();
                });
            }
        });
    };
    calls("ADD");
    let mut look = Place {
        host: place.host.try_clone().unwrap(),
        sandbox: place.sandbox.try_clone().unwrap(),
        kernel: jackfield_kernel::Rtnetlink::open_in(&place.sandbox).unwrap(),
    };
    assert_eq!(look.taps().len(), 8);
    calls("DEL");
    assert_eq!(place.state(), with_interfaces);
    for number in 0..8 {
        place.run(&format!("ip link del eth{number}"));
    }
    assert_eq!(place.state(), before);
}
