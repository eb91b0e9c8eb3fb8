//! What the tests are written with: the agent and the commands as processes, and the machine's
//! state as iproute2 tells it.

// Not every module of the tests needs everything.
#![allow(dead_code)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jackfield_kernel::{Address, Family, Link, Rtnetlink};
use jackfield_lab::emulator::{CloudInterface, Subnet};
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug, Process};

/// The program under test.
pub(crate) const JACKFIELD: &str = env!("CARGO_BIN_EXE_jackfield");

/// The lab's interfaces are veth ends.
pub(crate) const LAB_CONFIG: &str = "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n";

/// How long anything may take that is promised without a time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A file that goes with its holder.
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    pub(crate) fn new(text: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("jackfield-test-{}-{number}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        ConfigFile(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `jackfield run` in a host. Dropped, it is killed.
pub(crate) struct Agent {
    process: Process,
    pid: u32,
    log: Arc<Mutex<Vec<String>>>,
    config: ConfigFile,
}

impl Agent {
    pub(crate) fn start(host: &Host) -> Self {
        Self::with_config(host, LAB_CONFIG)
    }

    pub(crate) fn with_config(host: &Host, config: &str) -> Self {
        Self::with_environment(host, config, &[])
    }

    pub(crate) fn with_environment(
        host: &Host,
        config: &str,
        environment: &[(&str, &str)],
    ) -> Self {
        let config = ConfigFile::new(config);
        let mut command = host.command(JACKFIELD).unwrap();
        command.envs(environment.iter().copied());
        command.args(["--config", config.path(), "-v", "run"]).stderr(Stdio::piped());
        let mut process = Process::start(&mut command).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(process.child().stderr.take().unwrap()).lines();
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let pid = process.child().id();
        Agent { process, pid, log, config }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Writes another configuration, which is not read yet.
    pub(crate) fn configure(&self, config: &str) {
        std::fs::write(self.config.path(), config).unwrap();
    }

    /// SIGHUP: it shall read the configuration again.
    pub(crate) fn hang_up(&self) {
        self.wait_until_started();
        let pid = self.pid.to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    }

    /// What it said so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it listens to events and signals.
    pub(crate) fn wait_until_started(&self) {
        let started = || self.log().iter().any(|line| line.ends_with(": started"));
        eventually("the agent has started", PATIENCE, started);
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Vec<String> {
        self.wait_until_started();
        let status = Command::new("kill").arg(self.pid().to_string()).status().unwrap();
        assert!(status.success());
        let ended = self.process.child().wait().unwrap();
        assert!(ended.success(), "the agent ended with {ended}: {:#?}", self.log());
        self.log()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.process.child().try_wait().unwrap().is_none()
    }
}

/// Runs `jackfield` with the lab's configuration in a host, to its end.
pub(crate) fn jackfield(host: &Host, arguments: &[&str]) -> Output {
    let config = ConfigFile::new(LAB_CONFIG);
    jackfield_with(host, &config, arguments)
}

pub(crate) fn jackfield_with(host: &Host, config: &ConfigFile, arguments: &[&str]) -> Output {
    let mut command = host.command(JACKFIELD).unwrap();
    command.args(["--config", config.path()]).args(arguments).output().unwrap()
}

/// As [`jackfield`], where it must succeed; what it printed.
pub(crate) fn succeed(host: &Host, arguments: &[&str]) -> String {
    let output = jackfield(host, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `jackfield status --json`.
pub(crate) fn status(host: &Host) -> serde_json::Value {
    serde_json::from_str(&succeed(host, &["status", "--json"])).unwrap()
}

/// The exit status and what was written to standard error.
pub(crate) fn failure(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// Everything of a host's network that a plug could touch, as iproute2 prints it: rules, routes of
/// every table, addresses, devices, settings.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NetworkState(BTreeSet<String>);

impl NetworkState {
    pub(crate) fn of(host: &Host) -> Self {
        Self::without(host, &[])
    }

    /// As [`NetworkState::of`], without what is said of these devices.
    pub(crate) fn without(host: &Host, devices: &[&str]) -> Self {
        let mut lines = BTreeSet::new();
        for family in ["-4", "-6"] {
            lines.extend(run(host, "ip", &[family, "rule", "show"], &format!("rule {family}")));
            let routes = ["-N", "-d", family, "route", "show", "table", "all"];
            lines.extend(run(host, "ip", &routes, &format!("route {family}")));
        }
        lines.extend(run(host, "ip", &["-o", "-N", "-d", "address", "show"], "address"));
        lines.extend(run(host, "ip", &["-o", "-N", "-d", "link", "show"], "link"));
        for link in host.links().unwrap() {
            for key in ["accept_ra", "accept_ra_defrtr", "accept_ra_pinfo", "disable_ipv6"] {
                let path = format!("net/ipv6/conf/{}/{key}", link.name);
                if let Ok(value) = host.sysctl(&path) {
                    lines.insert(format!("sysctl {} {key}={}", link.name, value.trim()));
                }
            }
            if let Ok(value) = host.sysctl(&format!("net/ipv4/conf/{}/rp_filter", link.name)) {
                lines.insert(format!("sysctl {} rp_filter={}", link.name, value.trim()));
            }
        }
        let of_device = |line: &String| {
            devices.iter().any(|device| line.split([' ', ':', '@']).any(|word| word == *device))
        };
        lines.retain(|line| !of_device(line));
        NetworkState(lines)
    }

    /// As [`NetworkState::of`], once no duplicate of an address is looked for any more, and nothing
    /// changes that follows from it.
    pub(crate) fn settled(host: &Host) -> Self {
        let mut state = Self::of(host);
        eventually("nothing changes any more", PATIENCE, || {
            let before = std::mem::replace(&mut state, Self::of(host));
            before == state && !state.lines().any(|line| line.contains(" tentative"))
        });
        state
    }

    /// As [`NetworkState::settled`], without lines that have this.
    pub(crate) fn settled_without(host: &Host, part: &str) -> Self {
        let mut state = Self::settled(host);
        state.0.retain(|line| !line.contains(part));
        state
    }

    /// True where something of it is ours.
    pub(crate) fn has_ours(&self) -> bool {
        self.0.iter().any(|line| line.contains("proto 106") || line.contains("jackfield:"))
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    fn difference(&self, other: &NetworkState) -> String {
        let lost = self.0.difference(&other.0).map(|line| format!("- {line}\n"));
        let new = other.0.difference(&self.0).map(|line| format!("+ {line}\n"));
        lost.chain(new).collect()
    }
}

impl std::fmt::Debug for NetworkState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Fails with what differs where the two differ.
#[track_caller]
pub(crate) fn assert_same(before: &NetworkState, after: &NetworkState) {
    let difference = before.difference(after);
    assert!(difference.is_empty(), "the network differs:\n{difference}");
}

/// Waits until the network is as it was, and fails with what differs where it never is.
#[track_caller]
pub(crate) fn becomes(before: &NetworkState, host: &Host) {
    let end = Instant::now() + PATIENCE;
    while *before != NetworkState::of(host) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_same(before, &NetworkState::of(host));
}

fn run(host: &Host, program: &str, arguments: &[&str], label: &str) -> Vec<String> {
    let output = host.command(program).unwrap().args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| format!("{label}: {}", without_counters(line))).collect()
}

/// Times that run down and counters differ from one look to the next, and mean nothing.
fn without_counters(line: &str) -> String {
    let mut words = line.split_whitespace().peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            // A device that was up once keeps its queueing discipline.
            "expires" | "hoplimit" | "users" | "age" | "qdisc" => {
                words.next();
            }
            _ => kept.push(word),
        }
    }
    kept.join(" ")
}

/// Says why a test cannot run here. In CI every test must.
#[track_caller]
pub(crate) fn not_tested(why: impl std::fmt::Display) {
    assert!(std::env::var_os("CI").is_none(), "{why}");
    // Past the test harness, which shows nothing of what a passed test prints.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {why}");
}

/// Runs a command of the system in a host, which must succeed; what it printed.
pub(crate) fn shell(host: &Host, script: &str) -> String {
    let output = host.command("sh").unwrap().args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until it holds.
#[track_caller]
pub(crate) fn eventually(
    what: &str,
    within: Duration,
    mut holds: impl FnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// What the cloud gives a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Addresses of both families.
    DualStack,
    /// No IPv4, nor a metadata service by it.
    Ipv6Only,
    /// Addresses of both families, and a delegated prefix of each for every secondary. What the
    /// primary's make of main is there whatever is plugged.
    Prefixes,
}

/// A lab with an instance `a` whose primary is in subnet 1.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) a: Instance,
    pub(crate) subnets: Vec<Subnet>,
    shape: Shape,
    /// How many interfaces have prefixes.
    delegated: AtomicU8,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::of(Shape::DualStack)
    }

    /// As [`Stage::new`], without IPv4.
    pub(crate) fn ipv6_only() -> Self {
        Self::of(Shape::Ipv6Only)
    }

    pub(crate) fn of(shape: Shape) -> Self {
        let subnet = if shape == Shape::Ipv6Only { Lab::ipv6_subnet } else { Lab::subnet };
        let lab = Lab::start().expect("these tests need the right to make namespaces");
        let subnets: Vec<Subnet> = (1..=3).map(|n| subnet(&lab, n)).collect();
        let a = lab.instance("a", &subnets[0]).unwrap();
        Stage { lab, a, subnets, shape, delegated: AtomicU8::new(0) }
    }

    /// Makes an interface with so many addresses of each family in subnet `subnet` (1 to 3), and
    /// with prefixes where the shape says so, plugged in nowhere.
    pub(crate) fn interface(&self, subnet: usize, addresses: u32) -> CloudInterface {
        let interface = self.lab.interface(&self.subnets[subnet - 1], addresses).unwrap();
        self.delegate(&interface, subnet);
        interface
    }

    /// Prefixes above the addresses that the lab gives out, from the subnet's end.
    fn delegate(&self, interface: &CloudInterface, subnet: usize) {
        if self.shape == Shape::Prefixes {
            let number = self.delegated.fetch_add(1, Ordering::Relaxed);
            let ipv4 = format!("10.0.{subnet}.{}/28", 240 - 16 * number);
            let ipv6 = format!("2001:db8:0:{subnet}:{:x}::/80", 1 + number);
            for prefix in [ipv4, ipv6] {
                self.lab.add_prefix(interface.mac, prefix.parse().unwrap()).unwrap();
            }
        }
    }

    /// True where the host has addresses of IPv4.
    pub(crate) fn has_ipv4(&self) -> bool {
        self.shape != Shape::Ipv6Only
    }

    /// Makes an interface as [`Stage::interface`] does, and plugs it in as device `device`, named
    /// `ethDEVICE`.
    pub(crate) fn attach(&self, subnet: usize, device: u32, addresses: u32) -> Attached {
        let interface = self.interface(subnet, addresses);
        self.lab.attach(&self.a, interface.mac, &Plug::new(device)).unwrap();
        Attached::of(&interface, device)
    }
}

/// An interface that was plugged in.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    pub(crate) mac: jackfield_lab::emulator::MacAddr,
    pub(crate) name: String,
    pub(crate) addresses: Vec<std::net::IpAddr>,
}

impl Attached {
    pub(crate) fn of(interface: &jackfield_lab::emulator::CloudInterface, device: u32) -> Self {
        Attached {
            mac: interface.mac,
            name: format!("eth{device}"),
            addresses: interface.addresses().collect(),
        }
    }
}

/// Waits until every address answers `from`, by UDP; `host` answers there by an echo of its own.
#[track_caller]
pub(crate) fn answers_within(
    from: &Host,
    host: &Host,
    addresses: &[std::net::IpAddr],
    within: Duration,
) -> Duration {
    let _echo = Echo::start(host, addresses).unwrap();
    answers_within_of(from, addresses, within)
}

/// As [`answers_within`], where an echo is there already.
#[track_caller]
pub(crate) fn answers_within_of(
    from: &Host,
    addresses: &[std::net::IpAddr],
    within: Duration,
) -> Duration {
    let mut missing = addresses.to_vec();
    let start = Instant::now();
    while !missing.is_empty() {
        missing.retain(|address| {
            probe(from, None, Echo::at(*address), Transport::Udp, Duration::from_millis(50))
                .is_err()
        });
        assert!(start.elapsed() < within, "no answer from {missing:?} within {within:?}");
    }
    start.elapsed()
}

/// Waits until every address is on its interface: the last that is done of a plug.
#[track_caller]
pub(crate) fn configured_within(host: &Host, interface: &Attached, within: Duration) -> Duration {
    let mut kernel = Rtnetlink::open_in(host.namespace()).unwrap();
    let what = format!("{} has all of its addresses", interface.name);
    eventually(&what, within, || {
        let present: BTreeSet<IpAddr> = addresses_of(&mut kernel, &interface.name);
        interface.addresses.iter().all(|address| present.contains(address))
    })
}

/// The addresses of a device; none where there is no such device.
pub(crate) fn addresses_of(kernel: &mut Rtnetlink, name: &str) -> BTreeSet<IpAddr> {
    let links = Link::list(kernel).unwrap();
    let Some(link) = links.into_iter().find(|link| link.name == name) else {
        return BTreeSet::new();
    };
    let lists = Family::BOTH.map(|family| Address::list(kernel, family).unwrap());
    let of_link = lists.into_iter().flatten().filter(|address| address.interface == link.index);
    of_link.map(|address| address.address.addr()).collect()
}

/// What iproute2 tells of changes of a host's network, from the start to the end of a watch.
pub(crate) struct IpMonitor<'a> {
    host: &'a Host,
    process: Process,
    lines: Arc<Mutex<Vec<String>>>,
}

/// An address that a watch gives the loopback: a change that shows that all before it were told.
const SENTINEL: &str = "127.106.106.106";

impl<'a> IpMonitor<'a> {
    pub(crate) fn start(host: &'a Host) -> Self {
        let mut command = host.command("ip").unwrap();
        let subjects = ["link", "address", "route", "rule"];
        command.args(["-o", "-d", "-N", "monitor"]).args(subjects);
        let mut process =
            Process::start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        fn collect(from: impl std::io::Read + Send + 'static, into: &Arc<Mutex<Vec<String>>>) {
            let into = Arc::clone(into);
            let mut from = BufReader::new(from);
            std::thread::spawn(move || {
                let mut line = Vec::new();
                while matches!(from.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                    let text = String::from_utf8_lossy(&line).trim().replace('\\', " ");
                    into.lock().unwrap().push(text);
                    line.clear();
                }
            });
        }
        collect(process.child().stdout.take().unwrap(), &lines);
        // "netlink receive error" where it could not keep up: it counts as an event.
        collect(process.child().stderr.take().unwrap(), &lines);
        let watch = IpMonitor { host, process, lines };
        watch.sentinel();
        watch.lines.lock().unwrap().clear();
        watch
    }

    /// Changes something of no interest until the watch has told of it, and so of all before it.
    fn sentinel(&self) {
        let mark = self.lines.lock().unwrap().len();
        let told = |of: &str| {
            let lines = self.lines.lock().unwrap();
            lines[mark..].iter().any(|line| line.contains(SENTINEL) && line.contains(of))
        };
        eventually("ip monitor tells of a change", PATIENCE, || {
            shell(self.host, &format!("ip address add {SENTINEL}/32 dev lo"));
            shell(self.host, &format!("ip address delete {SENTINEL}/32 dev lo"));
            told("Deleted")
        });
    }

    /// Everything that it told of, but what it changed itself.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.sentinel();
        let _ = self.process.child().kill();
        let mut lines = self.lines.lock().unwrap().clone();
        lines.retain(|line| !line.contains(SENTINEL));
        lines
    }
}
