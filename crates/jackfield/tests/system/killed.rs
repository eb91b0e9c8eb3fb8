//! Killed at any moment: the kernel is the only database, so the next start finishes or cleans up,
//! and in between no address is usable by a wrong path.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_kernel::CHUNK;
use jackfield_lab::emulator::MacAddr;
use jackfield_lab::probe::{Transport, probe};
use jackfield_lab::{Host, Lab, Plug, Process};

use crate::harness::*;
use crate::kernel_state::{KernelState, Observer};

/// By which the outside is changed or asked: what happens between two of them nobody sees. Each
/// is tried in every run of the tests, all others in the long ones.
const TELLING: &[&str] = &["sendto", "sendmsg", "write", "writev", "connect", "bind", "exit_group"];
/// What is changed is changed by the last of these. Where there is so much that it takes several,
/// these are what matters.
const CHUNKS: &[&str] = &["sendto"];
const LAST: u32 = 24;
/// Whatever the command calls.
const ALL: &[&str] = &[];

const SIGKILL: i32 = 9;

pub(crate) fn require_strace() {
    let found = Command::new("strace").arg("--version").stdout(Stdio::null()).status();
    assert!(
        found.is_ok_and(|status| status.success()),
        "strace is missing, by which these tests kill at a chosen system call: install Debian's \
         package strace, as .ci/run does"
    );
}

/// Runs a command that is killed when it is about to make its `nth` system call of this name. False:
/// it did not make so many, and succeeded.
pub(crate) fn is_killed(
    host: &Host,
    config: &ConfigFile,
    call: &str,
    nth: u32,
    command: &[&str],
) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let mut strace = host.command("strace").unwrap();
    strace.args(["-f", "-o", "/dev/null", "-e", &inject, JACKFIELD, "--config", config.path()]);
    let output = strace.args(command).output().unwrap();
    if output.status.signal() == Some(SIGKILL) {
        return true;
    }
    assert!(output.status.success(), "{command:?}, to be killed at {call} {nth}: {output:?}");
    false
}

/// The names of the system calls that a command makes, which must succeed, and how many of each.
fn system_calls(host: &Host, config: &ConfigFile, command: &[&str]) -> BTreeMap<String, u32> {
    let mut strace = host.command("strace").unwrap();
    strace.args(["-f", "-qq", JACKFIELD, "--config", config.path()]);
    let output = strace.args(command).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    let trace = String::from_utf8_lossy(&output.stderr);
    let names = trace.lines().filter_map(|line| {
        // "[pid 123] name(arguments) = result"
        let line =
            line.rsplit_once("] ").filter(|_| line.starts_with("[pid")).map_or(line, |l| l.1);
        Some(line.split_once('(')?.0.to_owned())
    });
    let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut counts = BTreeMap::new();
    for name in names.filter(is_name) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// A command that is killed, and what must hold afterwards.
struct Case<'a> {
    stage: &'a Stage,
    /// Brings the host to where the command starts.
    prepare: &'a dyn Fn(),
    command: &'a [&'a str],
    /// What the command makes of it.
    done: &'a KernelState,
    /// What may be started next, and what that must end in. The first is started after every kill,
    /// each of them in every state that some kill leaves behind.
    next: &'a [(Next<'a>, &'a KernelState)],
}

#[derive(Clone, Copy)]
enum Next<'a> {
    Command(&'a [&'a str]),
    Agent,
}

/// How often was killed, and how many different half-done states that left.
#[derive(Debug, Default)]
struct Kills {
    kills: u32,
    half_done: usize,
}

impl Case<'_> {
    /// Kills at each of these system calls, one after the other; at all where none is named.
    fn at_each(&self, calls: &[&str]) -> Kills {
        require_strace();
        let config = ConfigFile::new(LAB_CONFIG);
        let mut observer = Observer::new(&self.stage.a);
        (self.prepare)();
        let mut names = system_calls(&self.stage.a, &config, self.command);
        names.retain(|name, _| calls.is_empty() || calls.contains(&name.as_str()));
        let mut seen: Vec<KernelState> = Vec::new();
        let mut kills = 0;
        for (call, count) in &names {
            let first = if calls == CHUNKS { count.saturating_sub(LAST).max(1) } else { 1 };
            for nth in first.. {
                (self.prepare)();
                let before = observer.look();
                if !is_killed(&self.stage.a, &config, call, nth, self.command) {
                    observer.look().assert_is(self.done, "not killed");
                    break;
                }
                kills += 1;
                let left = observer.look();
                let when = format!("{:?} killed at {call} {nth}", self.command);
                let is_new = left != before && left != *self.done && !seen.contains(&left);
                if is_new {
                    self.assert_no_wrong_path(&left, &when);
                    seen.push(left.clone());
                }
                let next = if is_new { self.next } else { &self.next[..1] };
                for (number, (next, expected)) in next.iter().enumerate() {
                    if number > 0 {
                        self.kill_again(&config, call, nth, &mut observer, &left);
                    }
                    self.recover(*next, &mut observer, expected, &when);
                }
            }
        }
        assert_eq!(self.stage.lab.violations(), []);
        let kills = Kills { kills, half_done: seen.len() };
        println!("{:?} killed at each of {:?}: {kills:?}", self.command, names.keys());
        kills
    }

    /// Kills at the same place once more. A list that changes under a look is read again, so that
    /// now and then the same call is some calls later or earlier.
    fn kill_again(
        &self,
        config: &ConfigFile,
        call: &str,
        nth: u32,
        observer: &mut Observer<'_>,
        left: &KernelState,
    ) {
        for offset in [0, 1, -1, 0, 2, 1, -2, 0] {
            let nth = nth.saturating_add_signed(offset).max(1);
            (self.prepare)();
            is_killed(&self.stage.a, config, call, nth, self.command);
            if observer.look() == *left {
                return;
            }
        }
        println!("{:?} was not killed in the same state again at {call} {nth}", self.command);
    }

    fn recover(
        &self,
        next: Next<'_>,
        observer: &mut Observer<'_>,
        expected: &KernelState,
        when: &str,
    ) {
        match next {
            Next::Command(command) => {
                succeed(&self.stage.a, command);
                observer.look().assert_is(expected, &format!("{when}, then {command:?}"));
            }
            Next::Agent => {
                let agent = Agent::start(&self.stage.a);
                let end = Instant::now() + PATIENCE;
                while observer.look() != *expected && Instant::now() < end {
                    std::thread::sleep(Duration::from_millis(2));
                }
                agent.stop();
                observer.look().assert_is(expected, &format!("{when}, then the agent"));
            }
        }
    }

    fn assert_no_wrong_path(&self, left: &KernelState, when: &str) {
        assert_eq!(left.wrong_paths(), Vec::<String>::new(), "{when}: {left:?}");
        send_from_each(self.stage, left);
        assert_eq!(self.stage.lab.violations(), [], "{when}: {left:?}");
    }
}

/// Sends by UDP and TCP from each of our addresses that is the interface's by right: to the
/// remote host, and to neighbours in each subnet.
fn send_from_each(stage: &Stage, state: &KernelState) {
    let neighbours = stage.subnets.iter().flat_map(|subnet| {
        let ipv4 = subnet.ipv4.map(|net| IpAddr::V4((u32::from(net.network()) + 200).into()));
        let ipv6 = subnet.ipv6.iter().map(|n| (u128::from(n.network()) + 200).into());
        ipv4.into_iter().chain(ipv6.map(IpAddr::V6))
    });
    let remote = [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6];
    let destinations: Vec<IpAddr> = neighbours.chain(remote).collect();
    // Many of them are alike: some dozens tell.
    let step = state.our_addresses().count().div_ceil(24).max(1);
    for address in state.our_addresses().step_by(step) {
        let source = address.address.addr();
        let link = state.links.iter().find(|link| link.index == address.interface).unwrap();
        let record = stage.lab.cloud().interface(MacAddr(link.address.unwrap())).unwrap();
        if !record.addresses().any(|its| its == source) {
            continue;
        }
        for to in destinations.iter().filter(|to| to.is_ipv4() == source.is_ipv4()) {
            for transport in Transport::ALL {
                // Whether it arrives does not matter, only by which way it goes.
                let to = (*to, 7).into();
                let _ = probe(&stage.a, Some(source), to, transport, Duration::from_millis(1));
            }
        }
    }
}

/// A stage with `eth1` plugged in, what it is like before a plug, and what after.
struct Plugged {
    stage: Stage,
    attached: Attached,
    before: KernelState,
    after: KernelState,
    network_before: NetworkState,
}

impl Plugged {
    /// With prefixes.
    fn new(addresses: u32) -> Self {
        Self::of(Shape::Prefixes, addresses)
    }

    fn of(shape: Shape, addresses: u32) -> Self {
        let stage = Stage::of(shape);
        let attached = stage.attach(2, 1, addresses);
        Self::with(stage, attached)
    }

    fn with(stage: Stage, attached: Attached) -> Self {
        let network_before = NetworkState::of(&stage.a);
        let before = Observer::new(&stage.a).look();
        succeed(&stage.a, &["plug", "eth1"]);
        let after = Observer::new(&stage.a).look();
        succeed(&stage.a, &["unplug", "eth1"]);
        Observer::new(&stage.a).look().assert_is(&before, "plugged and unplugged");
        Plugged { stage, attached, before, after, network_before }
    }

    fn killed_while_plugging(&self, calls: &[&str]) -> Kills {
        let Plugged { stage, before, after, .. } = self;
        let next = [
            (Next::Command(&["plug", "eth1"]), after),
            (Next::Command(&["scan"]), after),
            (Next::Command(&["unplug", "eth1"]), before),
            (Next::Agent, after),
        ];
        let prepare = || drop(succeed(&stage.a, &["unplug", "eth1"]));
        let command = &["plug", "eth1"];
        let case = Case { stage, prepare: &prepare, command, done: after, next: &next };
        let kills = case.at_each(calls);
        answers_within(stage.lab.remote(), &stage.a, &self.attached.addresses, PATIENCE);
        kills
    }

    fn killed_while_unplugging(&self, calls: &[&str]) -> Kills {
        let Plugged { stage, before, after, .. } = self;
        let next = [
            (Next::Command(&["unplug", "eth1"]), before),
            (Next::Command(&["plug", "eth1"]), after),
            (Next::Command(&["scan"]), after),
            (Next::Agent, after),
        ];
        let prepare = || drop(succeed(&stage.a, &["plug", "eth1"]));
        let command = &["unplug", "eth1"];
        let case = Case { stage, prepare: &prepare, command, done: before, next: &next };
        let kills = case.at_each(calls);
        assert_same(&self.network_before, &NetworkState::of(&stage.a));
        kills
    }
}

#[test]
fn a_plug_that_is_killed_is_finished_or_undone_by_the_next_command() {
    let kills = Plugged::new(2).killed_while_plugging(TELLING);
    assert!(kills.kills > 20 && kills.half_done >= 1, "{kills:?}");
}

pub(crate) fn a_plug_and_an_unplug_are_killed_at_every_system_call(shape: Shape) {
    let plugged = Plugged::of(shape, 2);
    let kills = plugged.killed_while_plugging(ALL);
    assert!(kills.kills > 200 && kills.half_done >= 1, "{kills:?}");
    let kills = plugged.killed_while_unplugging(ALL);
    assert!(kills.kills > 100 && kills.half_done >= 1, "{kills:?}");
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn a_plug_that_is_killed_at_any_system_call_is_finished_or_undone_by_the_next_command() {
    let kills = Plugged::new(2).killed_while_plugging(ALL);
    assert!(kills.kills > 200 && kills.half_done >= 1, "{kills:?}");
}

#[test]
fn a_plug_of_so_many_addresses_that_they_are_not_sent_at_once_can_be_killed_in_between() {
    in_between(|| Plugged::new(120).killed_while_plugging(CHUNKS));
}

fn rules_of_a_plug(stage: &Stage) -> usize {
    let plan = jackfield(&stage.a, &["plan", "eth1"]);
    String::from_utf8(plan.stdout).unwrap().matches("+ rule").count()
}

#[test]
fn a_plug_that_is_killed_when_all_its_rules_are_there_and_no_journal_is_undone_by_an_unplug() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 2);
    // Between any two of the others the primary has one, so that each has a rule of its own.
    let subnet = &stage.subnets[1];
    let pairs = || stage.lab.new_addresses(subnet).into_iter().zip(stage.lab.new_addresses(subnet));
    'full: for _ in 0..100 {
        for (own, other) in pairs() {
            stage.lab.add_address(attached.mac, own).unwrap();
            let how = if own.is_ipv4() { "/32" } else { "/128 nodad" };
            shell(&stage.a, &format!("ip address add {other}{how} dev eth0"));
            if rules_of_a_plug(&stage) >= CHUNK {
                break 'full;
            }
        }
    }
    assert_eq!(rules_of_a_plug(&stage), CHUNK, "what comes next is the journal");
    let plugged = Plugged::with(stage, attached);
    in_between(|| plugged.killed_while_plugging(CHUNKS));
}

#[test]
fn an_unplug_that_is_killed_is_finished_or_undone_by_the_next_command() {
    let kills = Plugged::new(2).killed_while_unplugging(TELLING);
    assert!(kills.kills > 10 && kills.half_done >= 1, "{kills:?}");
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn an_unplug_that_is_killed_at_any_system_call_is_finished_or_undone_by_the_next_command() {
    let kills = Plugged::new(2).killed_while_unplugging(ALL);
    assert!(kills.kills > 100 && kills.half_done >= 1, "{kills:?}");
}

#[test]
fn an_unplug_of_many_addresses_can_be_killed_in_between() {
    in_between(|| Plugged::new(120).killed_while_unplugging(CHUNKS));
}

/// A list that changes under a look is read again, so that a call in between may be missed: then
/// once more.
fn in_between(mut kill: impl FnMut() -> Kills) {
    assert!((0..5).any(|_| kill().half_done >= 1), "never killed in between");
}

/// A stage with two plugged interfaces, and changes of their addresses that a `scan` follows.
struct Changes {
    stage: Stage,
    one: Attached,
    two: Attached,
}

impl Changes {
    /// Both in one subnet, in which addresses can move, and with so many addresses.
    fn new(addresses: u32) -> Self {
        Self::of(Shape::DualStack, addresses)
    }

    fn of(shape: Shape, addresses: u32) -> Self {
        let stage = Stage::of(shape);
        let (one, two) = (stage.attach(2, 1, addresses), stage.attach(2, 2, addresses));
        succeed(&stage.a, &["scan"]);
        Changes { stage, one, two }
    }

    /// As many more of each, by turns, so that each address has a rule of its own.
    fn interleaved(addresses: u32) -> Self {
        let changes = Changes::new(1);
        let Changes { stage, one, two } = &changes;
        for mac in (0..addresses).flat_map(|_| [one.mac, two.mac]) {
            for ip in stage.lab.new_addresses(&stage.subnets[1]) {
                stage.lab.add_address(mac, ip).unwrap();
            }
        }
        changes.scan();
        changes
    }

    fn scan(&self) {
        succeed(&self.stage.a, &["scan"]);
    }

    fn look(&self) -> KernelState {
        Observer::new(&self.stage.a).look()
    }

    fn killed_while_scanning(
        &self,
        calls: &[&str],
        prepare: &dyn Fn(),
        done: &KernelState,
    ) -> Kills {
        let next = [(Next::Command(&["scan"]), done), (Next::Agent, done)];
        let case = Case { stage: &self.stage, prepare, command: &["scan"], done, next: &next };
        case.at_each(calls)
    }

    fn addresses_added(&self, count: usize, calls: &[&str]) -> Kills {
        let lab = &self.stage.lab;
        let (before, mac) = (self.look(), self.one.mac);
        let new = (0..count).flat_map(|_| lab.new_addresses(&self.stage.subnets[1]));
        let new: Vec<IpAddr> = new.collect();
        let add = || new.iter().for_each(|ip| lab.add_address(mac, *ip).unwrap());
        let take = || new.iter().for_each(|ip| lab.remove_address(mac, *ip).unwrap());
        add();
        self.scan();
        let done = self.look();
        let grown = done.our_addresses().count() - before.our_addresses().count();
        assert_eq!(grown, new.len());
        let prepare = || {
            take();
            // At once: an address that is missing from metadata would stay for a while.
            succeed(&self.stage.a, &["unplug", "eth1"]);
            succeed(&self.stage.a, &["plug", "eth1"]);
            self.look().assert_is(&before, "without the addresses");
            add();
        };
        self.killed_while_scanning(calls, &prepare, &done)
    }

    /// All but the first address of each family move from one interface to the other.
    fn addresses_moved(&self, calls: &[&str]) -> Kills {
        let lab = &self.stage.lab;
        let (one, two) = (self.one.mac, self.two.mac);
        let first = |ip: &&IpAddr| {
            self.one.addresses.iter().find(|its| its.is_ipv4() == ip.is_ipv4()) == Some(*ip)
        };
        let moving: Vec<IpAddr> =
            self.one.addresses.iter().filter(|ip| !first(ip)).copied().collect();
        let before = self.look();
        let move_all =
            |from, to| moving.iter().for_each(|ip| lab.move_address(*ip, from, to).unwrap());
        move_all(one, two);
        self.scan();
        let done = self.look();
        let prepare = || {
            move_all(two, one);
            self.scan();
            self.look().assert_is(&before, "moved back");
            move_all(one, two);
        };
        self.killed_while_scanning(calls, &prepare, &done)
    }

    fn interface_deleted(&self, calls: &[&str]) -> Kills {
        let lab = &self.stage.lab;
        let mac = self.two.mac;
        lab.detach(mac).unwrap();
        self.scan();
        let done = self.look();
        let prepare = || {
            lab.attach(&self.stage.a, mac, &Plug::new(2)).unwrap();
            self.scan();
            lab.detach(mac).unwrap();
        };
        self.killed_while_scanning(calls, &prepare, &done)
    }
}

#[test]
fn a_scan_that_is_killed_after_an_address_was_added_is_finished_by_the_next() {
    let kills = Changes::new(2).addresses_added(1, TELLING);
    assert!(kills.kills > 20, "{kills:?}");
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn a_scan_that_is_killed_anywhere_after_an_address_was_added_is_finished_by_the_next() {
    let kills = Changes::new(2).addresses_added(1, ALL);
    assert!(kills.kills > 200, "{kills:?}");
}

#[test]
fn a_scan_that_adds_many_addresses_can_be_killed_in_between() {
    in_between(|| Changes::new(1).addresses_added(120, CHUNKS));
}

#[test]
fn a_scan_that_is_killed_after_an_address_moved_is_finished_by_the_next() {
    let kills = Changes::new(2).addresses_moved(TELLING);
    assert!(kills.kills > 20, "{kills:?}");
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn a_scan_that_is_killed_anywhere_after_an_address_moved_is_finished_by_the_next() {
    let kills = Changes::new(2).addresses_moved(ALL);
    assert!(kills.kills > 200, "{kills:?}");
}

#[test]
fn a_scan_that_moves_many_addresses_can_be_killed_in_between() {
    in_between(|| Changes::new(60).addresses_moved(CHUNKS));
}

pub(crate) fn scans_are_killed_at_every_system_call(shape: Shape) {
    let kills = [
        Changes::of(shape, 2).addresses_added(1, ALL),
        Changes::of(shape, 2).addresses_moved(ALL),
        Changes::of(shape, 2).interface_deleted(ALL),
    ];
    assert!(kills.iter().all(|kills| kills.kills > 200), "{kills:?}");
}

#[test]
fn a_scan_that_is_killed_after_an_interface_was_deleted_is_finished_by_the_next() {
    let kills = Changes::new(2).interface_deleted(TELLING);
    assert!(kills.kills > 20, "{kills:?}");
}

#[test]
#[ignore = "long: killed at every system call, some hundreds"]
fn a_scan_that_is_killed_anywhere_after_an_interface_was_deleted_is_finished_by_the_next() {
    let kills = Changes::new(2).interface_deleted(ALL);
    assert!(kills.kills > 200, "{kills:?}");
}

#[test]
fn a_scan_after_an_interface_with_many_addresses_was_deleted_can_be_killed_in_between() {
    in_between(|| Changes::interleaved(120).interface_deleted(CHUNKS));
}

/// Starts the agent so that it is killed when it is about to make its `nth` system call of these.
/// The process is the agent itself: its tracer is detached, and ends with it.
fn doomed_agent(host: &Host, config: &ConfigFile, call: &str, nth: u32) -> Process {
    let inject = format!("inject={call}:signal=KILL:when={nth}");
    let mut strace = host.command("strace").unwrap();
    strace.args(["-D", "-f", "-o", "/dev/null", "-e", &inject]);
    strace.args([JACKFIELD, "--config", config.path(), "-q", "run"]);
    Process::start(strace.stdout(Stdio::null()).stderr(Stdio::null())).unwrap()
}

#[test]
fn an_agent_that_is_killed_while_it_plugs_finishes_when_it_is_started_again() {
    killed_while_it_plugs_an_agent_finishes(Shape::Prefixes);
}

pub(crate) fn killed_while_it_plugs_an_agent_finishes(shape: Shape) {
    require_strace();
    let Plugged { stage, before, after, .. } = Plugged::of(shape, 2);
    let config = ConfigFile::new(LAB_CONFIG);
    let mut observer = Observer::new(&stage.a);
    let mut kills = Kills::default();
    let mut seen: Vec<KernelState> = Vec::new();
    for calls in ["sendto", "write"] {
        for nth in 1.. {
            let mut agent = doomed_agent(&stage.a, &config, calls, nth);
            let mut killed = false;
            eventually("the agent is killed or has finished", PATIENCE, || {
                killed = agent.child().try_wait().unwrap().is_some();
                killed || observer.look() == after
            });
            drop(agent);
            let left = observer.look();
            assert_eq!(left.wrong_paths(), Vec::<String>::new(), "killed at {calls} {nth}");
            if !seen.contains(&left) {
                send_from_each(&stage, &left);
                assert_eq!(stage.lab.violations(), [], "killed at {calls} {nth}: {left:?}");
                seen.push(left);
            }
            if killed {
                kills.kills += 1;
                let again = Agent::start(&stage.a);
                eventually("the next agent finishes", PATIENCE, || observer.look() == after);
                again.stop();
            }
            succeed(&stage.a, &["unplug", "eth1"]);
            observer.look().assert_is(&before, &format!("killed at {calls} {nth}, unplugged"));
            if !killed {
                break;
            }
        }
    }
    kills.half_done = seen.iter().filter(|state| **state != before && **state != after).count();
    println!("the agent killed at each sendto and write: {kills:?}");
    assert!(kills.kills > 20 && kills.half_done >= 1, "{kills:?}");
}

/// Plugs, unplugs and changes of addresses, at random, while the agent is killed at random.
pub(crate) fn storm(shape: Shape, time: Duration) {
    let seed = std::env::var("JACKFIELD_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("JACKFIELD_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let stage = Stage::of(shape);
    let lab = &stage.lab;
    let mut observer = Observer::new(&stage.a);
    let (before, network_before) = (observer.look(), NetworkState::of(&stage.a));
    // Two of them share a subnet. None of these addresses ever moves, so what is sent from them
    // must never go by another way.
    let devices = [1, 2, 3];
    let interfaces = [2, 2, 3].map(|subnet| stage.interface(subnet, 2));
    let mut attached = BTreeSet::new();
    // Those that come, go and move.
    let mut extra: Vec<(IpAddr, usize)> = Vec::new();
    for ip in lab.new_addresses(&stage.subnets[1]) {
        lab.add_address(interfaces[0].mac, ip).unwrap();
        extra.push((ip, 0));
    }
    let mut agent = Agent::start(&stage.a);
    let (mut kills, mut changes) = (0, 0);
    let end = Instant::now() + time;
    let mut next_kill = Instant::now();
    while Instant::now() < end {
        let which = random.usize(..interfaces.len());
        let mac = interfaces[which].mac;
        match random.u32(..6) {
            0..=2 if attached.insert(which) => {
                lab.attach(&stage.a, mac, &Plug::new(devices[which])).unwrap();
            }
            0..=1 => {
                lab.detach(mac).unwrap();
                attached.remove(&which);
            }
            3 => {
                let (ip, holder) = random.choice(extra.iter_mut()).unwrap();
                let to = 1 - *holder;
                lab.move_address(*ip, interfaces[*holder].mac, interfaces[to].mac).unwrap();
                *holder = to;
            }
            4 => {
                let sources: Vec<IpAddr> =
                    interfaces.iter().flat_map(|interface| interface.addresses()).collect();
                let source = random.choice(sources).unwrap();
                let to = if source.is_ipv4() { Lab::REMOTE_IPV4 } else { Lab::REMOTE_IPV6 };
                let wait = Duration::from_millis(1);
                let _ = probe(&stage.a, Some(source), (to, 7).into(), Transport::Udp, wait);
            }
            _ => {
                let wrong = observer.look().wrong_paths();
                // The lists are read one after the other: only what lasts is wrong.
                if !wrong.is_empty() {
                    eventually("no wrong path", PATIENCE, || {
                        observer.look().wrong_paths().is_empty()
                    });
                }
            }
        }
        changes += 1;
        if Instant::now() >= next_kill {
            drop(agent);
            kills += 1;
            agent = Agent::start(&stage.a);
            next_kill = Instant::now() + Duration::from_millis(random.u64(..60));
        }
        std::thread::sleep(Duration::from_millis(random.u64(..15)));
    }
    let moved: BTreeSet<IpAddr> = extra.iter().map(|(ip, _)| *ip).collect();
    let unexpected = || {
        let all = lab.violations().into_iter();
        all.filter(|violation| !moved.contains(&violation.source)).collect::<Vec<_>>()
    };
    assert_eq!(unexpected(), []);
    for which in 0..interfaces.len() {
        if attached.insert(which) {
            lab.attach(&stage.a, interfaces[which].mac, &Plug::new(devices[which])).unwrap();
        }
    }
    let settled = || jackfield(&stage.a, &["plan"]).status.success();
    eventually("nothing is left to do", PATIENCE, settled);
    let all: Vec<IpAddr> = interfaces
        .iter()
        .flat_map(|interface| {
            lab.cloud().interface(interface.mac).unwrap().addresses().collect::<Vec<_>>()
        })
        .collect();
    answers_within(lab.remote(), &stage.a, &all, PATIENCE);
    agent.stop();
    let ended = observer.look();
    for device in &devices {
        succeed(&stage.a, &["unplug", &format!("eth{device}")]);
    }
    assert!(!observer.look().has_ours(), "{:?}", observer.look());
    succeed(&stage.a, &["scan"]);
    ended.assert_is(&observer.look(), "after the storm");
    let agent = Agent::start(&stage.a);
    for interface in &interfaces {
        lab.detach(interface.mac).unwrap();
    }
    eventually("all is as it was", PATIENCE, || observer.look() == before);
    assert_same(&network_before, &NetworkState::of(&stage.a));
    agent.stop();
    assert_eq!(unexpected(), []);
    println!("{changes} changes, {kills} kills");
}

#[test]
fn an_agent_that_is_killed_at_random_in_a_storm_ends_in_the_right_state() {
    storm(Shape::DualStack, Duration::from_secs(6));
}

#[test]
#[ignore = "long: two minutes of storm"]
fn an_agent_that_is_killed_at_random_in_a_long_storm_ends_in_the_right_state() {
    storm(Shape::DualStack, Duration::from_secs(120));
}
