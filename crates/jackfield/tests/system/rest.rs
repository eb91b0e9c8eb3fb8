//! An agent with nothing to do, and what it tells the service manager.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::harness::*;
use crate::watch::Watch;

const HASTY: &str = "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n";

/// A number in /proc/PID/status, of the first thread.
fn status_of(agent: &mut Agent, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_refresh_asks_one_listing_an_interface_and_what_can_change() {
    let stage = Stage::new();
    let agent = Agent::with_config(&stage.a, HASTY);
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let cloud = stage.lab.cloud();
    let macs = [stage.a.primary().mac, attached.mac];
    let listing = |mac| format!("/latest/meta-data/network/interfaces/macs/{mac}/");
    // From the next listing on, until five refreshes have passed.
    let mark = cloud.request_count();
    let enough = cloud.wait_for_requests(mark, PATIENCE, |requests| {
        macs.iter()
            .all(|mac| requests.iter().filter(|request| request.path == listing(*mac)).count() >= 6)
    });
    assert!(enough);
    let requests = cloud.requests_since(mark);
    let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
    for request in &requests {
        assert_eq!((request.method.as_str(), request.status), ("GET", Some(200)), "{request:#?}");
        *asked.entry(&request.path).or_default() += 1;
    }
    let expected: Vec<String> = macs
        .iter()
        .flat_map(|mac| {
            let keys = ["", "ipv6s", "local-ipv4s", "subnet-ipv6-cidr-blocks"];
            keys.map(|key| format!("{}{key}", listing(*mac)))
        })
        .collect();
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), expected, "{asked:#?}");
    for mac in macs {
        let of_it = asked.iter().filter(|(path, _)| path.contains(&listing(mac)));
        let counts: Vec<u64> = of_it.map(|(_, count)| *count).collect();
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        // The first and the last round are seen in part.
        assert!(most - least <= 2, "{asked:#?}");
    }
    eprintln!("a refresh: {} requests an interface", expected.len() / macs.len());
    agent.stop();
}

#[test]
fn at_rest_there_is_one_thread_that_sleeps() {
    let stage = Stage::new();
    let mut agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 3);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let cloud = stage.lab.cloud();
    // Late addresses are looked for up to 16 s after the plug, and then with the refresh.
    let quiet = Duration::from_secs(9);
    let mut mark = cloud.request_count();
    while cloud.wait_for_requests(mark, quiet, |requests| !requests.is_empty()) {
        mark = cloud.request_count();
    }
    let watch = Watch::start(&stage.a);
    let wakes = |agent: &mut Agent| status_of(agent, "voluntary_ctxt_switches");
    // A refresh may come in between; the next one is half a minute away then.
    let measured = (0..3).find_map(|_| {
        let (mark, before) = (cloud.request_count(), wakes(&mut agent));
        let asked = cloud.wait_for_requests(mark, Duration::from_secs(10), |r| !r.is_empty());
        let woken = wakes(&mut agent) - before;
        if asked {
            std::thread::sleep(Duration::from_secs(1));
        }
        (!asked).then_some(woken)
    });
    let woken = measured.unwrap();
    let (threads, memory) = (status_of(&mut agent, "Threads"), status_of(&mut agent, "VmRSS"));
    eprintln!("{woken} wake-ups in 10 s, {threads} threads, {memory} KiB resident");
    assert!(woken <= 3, "{woken} wake-ups in 10 s");
    assert_eq!(threads, 1);
    assert!(watch.ours().is_empty(), "{:#?}", watch.ours());
    let log = agent.log();
    let started = log.iter().rposition(|line| line.contains("asking metadata")).unwrap();
    let written = log[started..].iter().any(|line| line.contains("info") || line.contains("warn"));
    assert!(!written, "{log:#?}");
    agent.stop();
}

/// A service manager's end of the notification socket.
pub(crate) struct ServiceManager {
    socket: UnixDatagram,
    directory: std::path::PathBuf,
}

impl ServiceManager {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jackfield-notify-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let socket = UnixDatagram::bind(directory.join("socket")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        ServiceManager { socket, directory }
    }

    pub(crate) fn path(&self) -> String {
        self.directory.join("socket").to_str().unwrap().to_owned()
    }

    /// The next message, and when it came.
    pub(crate) fn next(&self) -> (String, Instant) {
        let mut message = [0; 256];
        let length = self.socket.recv(&mut message).unwrap();
        let text = String::from_utf8_lossy(&message[..length]).trim_end().to_owned();
        (text, Instant::now())
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn the_service_manager_hears_of_readiness_of_life_and_of_the_end() {
    let stage = Stage::new();
    let manager = ServiceManager::new();
    let path = manager.path();
    let period = Duration::from_secs(2);
    let usec = period.as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", path.as_str()), ("WATCHDOG_USEC", usec.as_str())];
    let mut agent = Agent::with_environment(&stage.a, LAB_CONFIG, &environment);
    let (first, mut last) = manager.next();
    assert_eq!(first, "READY=1");
    for _ in 0..3 {
        let (message, at) = manager.next();
        assert_eq!(message, "WATCHDOG=1");
        assert!(at - last < period, "nothing for {:?}", at - last);
        last = at;
    }
    // Also while metadata hangs, of which nothing else may wait.
    let hang = jackfield_lab::emulator::Effect::Hang;
    stage.lab.cloud().add_fault(jackfield_lab::emulator::Fault::new(hang));
    stage.attach(2, 1, 1);
    for _ in 0..3 {
        let (message, at) = manager.next();
        assert_eq!(message, "WATCHDOG=1");
        assert!(at - last < period, "nothing for {:?}", at - last);
        last = at;
    }
    assert!(agent.is_running());
    let asked = Instant::now();
    agent.stop();
    eprintln!("stopped within {:?}", asked.elapsed());
    let stopping = loop {
        let (message, at) = manager.next();
        if message != "WATCHDOG=1" {
            break (message, at);
        }
    };
    assert_eq!(stopping.0, "STOPPING=1");
}
