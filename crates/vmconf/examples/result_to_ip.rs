//! How long a CNI result takes to become the value of `ip=`, beside serde_json's parse of the same
//! bytes into a plain value: `cargo run --release -p jackfield-vmconf --example result_to_ip`.
//!
//! Both are timed in turns, a batch each, and the median of the ratios is printed with its 95 %
//! confidence interval.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "not for use")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use jackfield_cni::types::CniResult;
use jackfield_vmconf::{Attachment, InterfaceName, StaticNetworkConf};

/// What [ptp, host-local, tc-redirect-tap] print.
const RESULT: &str = r#"{
    "cniVersion": "1.0.0",
    "interfaces": [
        { "name": "veth4a1b7c2d", "mac": "5e:0b:3c:76:4b:1a" },
        { "name": "eth0", "mac": "02:3f:5d:8a:10:9c", "sandbox": "/var/run/netns/vm1" },
        { "name": "tap0", "mac": "be:f2:3c:1f:c6:59", "sandbox": "/var/run/netns/vm1" },
        { "name": "tap0", "mac": "02:3f:5d:8a:10:9c", "sandbox": "vm1" }
    ],
    "ips": [{ "interface": 3, "address": "10.0.0.2/24", "gateway": "10.0.0.1" }],
    "routes": [{ "dst": "0.0.0.0/0", "gw": "10.0.0.1" }],
    "dns": { "nameservers": ["1.1.1.1", "8.8.8.8"], "domain": "example.com" }
}"#;

const PAIRS: usize = 400;
const BATCH: u32 = 500;

fn main() {
    let name: InterfaceName = "eth0".parse().unwrap();
    let ours = || {
        let result = CniResult::parse(black_box(RESULT)).unwrap();
        let attachment = Attachment::of("vm1").named(Some(&name));
        StaticNetworkConf::from_result(&result, &attachment).unwrap().ip_boot_param().unwrap()
    };
    let parse = || serde_json::from_str::<serde_json::Value>(black_box(RESULT)).unwrap();
    let mut pairs: Vec<(Duration, Duration)> =
        (0..PAIRS).map(|_| (time(ours), time(parse))).collect();
    let ratio = |(ours, parse): &(Duration, Duration)| ours.as_secs_f64() / parse.as_secs_f64();
    let mut ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    ratios.sort_by(f64::total_cmp);
    pairs.sort();
    // Ranks of the median's interval: n/2 ± 1.96·√n/2.
    let half = (1.96 * f64::sqrt(PAIRS as f64) / 2.0) as usize;
    let (ours, parse) = pairs[PAIRS / 2];
    println!("result to ip= {ours:?}, parse into a value {parse:?} (medians, one run of it)");
    println!(
        "ratio {:.2} ({:.2} to {:.2})",
        ratios[PAIRS / 2],
        ratios[PAIRS / 2 - half],
        ratios[PAIRS / 2 + half]
    );
}

fn time<T>(run: impl Fn() -> T) -> Duration {
    let began = Instant::now();
    for _ in 0..BATCH {
        black_box(run());
    }
    began.elapsed() / BATCH
}
