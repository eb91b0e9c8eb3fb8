//! A metadata service that fails in every way there is: what works goes on working, requests stay
//! bounded, and when the service is back, so is everything else.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use jackfield_lab::emulator::{Effect, Fault};
use jackfield_lab::probe::{Echo, PacketStream};
use jackfield_lab::{Instance, Lab};

use crate::harness::*;

/// A refresh each second: every fault is met in steady state too.
const HASTY: &str = "[agent]\nrefresh = \"1s\"\ndevice_kinds = [\"physical\", \"veth\"]\n";

/// Within this a refresh comes, also where none is configured.
const A_REFRESH: Duration = Duration::from_secs(40);

/// Every way in which an answer can be bad.
fn effects() -> Vec<(&'static str, Effect)> {
    let ms = Duration::from_millis;
    vec![
        ("400", Effect::Status(400)),
        ("401", Effect::Status(401)),
        ("403", Effect::Status(403)),
        ("404", Effect::Status(404)),
        ("429", Effect::Status(429)),
        ("500", Effect::Status(500)),
        ("503", Effect::Status(503)),
        ("slow", Effect::Delay(ms(300))),
        ("too slow", Effect::Delay(ms(3_000))),
        ("drip", Effect::Drip(ms(50))),
        ("hanging", Effect::Hang),
        ("reset", Effect::Reset),
        ("closed", Effect::Close),
        ("truncated", Effect::Truncate(4)),
        ("truncated without length", Effect::TruncateSilently(4)),
        ("empty", Effect::Body(Vec::new())),
        ("a page for people", Effect::Body(b"<html>\n<body>Sorry.</body>\n</html>".to_vec())),
        ("garbage", Effect::GarbageBody),
        ("garbage status line", Effect::GarbageStatusLine),
        ("oversize", Effect::Oversize(100 << 20)),
        ("endless lines", Effect::EndlessLines),
        ("endless line", Effect::EndlessLine),
        ("endless header", Effect::EndlessHeader),
    ]
}

/// What is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Everything.
    All,
    /// The listing of each interface's keys.
    Listings,
    /// One key of each interface.
    Key(&'static str),
    /// The requests for session tokens; those that there are become invalid.
    Tokens,
}

impl Target {
    fn strike(self, lab: &Lab, effect: &Effect) {
        let fault = Fault::new(effect.clone());
        let fault = match self {
            Target::All => fault,
            Target::Listings => fault.on_path("/latest/meta-data/network/interfaces/macs/*/"),
            Target::Key(key) => fault.on_path(format!("*/{key}")),
            Target::Tokens => fault.on_path("/latest/api/token"),
        };
        lab.cloud().add_fault(fault);
        if self == Target::Tokens {
            lab.cloud().expire_tokens();
        }
    }
}

/// How long faults last, and what holds meanwhile and after.
#[derive(Debug, Clone, Copy)]
struct Measure {
    config: &'static str,
    fault: Duration,
    recovery: Duration,
    /// The most requests in a second of fault, on average.
    requests_a_second: f64,
    /// The most rounds in a minute of fault.
    rounds_a_minute: f64,
}

/// What came of one fault.
#[derive(Debug, Default)]
struct Outcome {
    requests_a_second: f64,
    rounds_a_minute: f64,
    recovery: Duration,
}

/// An instance with an interface that works and is watched while faults come and go.
struct Patient {
    stage: Stage,
    working: Attached,
    streams: Vec<PacketStream>,
    _echo: Echo,
}

impl Patient {
    fn new(shape: Shape) -> Self {
        let stage = Stage::of(shape);
        let working = stage.attach(2, 1, 2);
        succeed(&stage.a, &["plug", "eth1"]);
        let mut addresses = working.addresses.clone();
        addresses.extend(stage.a.primary().addresses());
        // Many of these start at once.
        answers_within(stage.lab.remote(), &stage.a, &addresses, 3 * PATIENCE);
        let echo = Echo::start(&stage.a, &addresses).unwrap();
        let every = Duration::from_millis(100);
        let stream = |address: &IpAddr| {
            PacketStream::start(stage.lab.remote(), None, *address, every).unwrap()
        };
        let streams = addresses.iter().map(stream).collect();
        Patient { stage, working, streams, _echo: echo }
    }

    /// All but the interfaces that are plugged in under faults, and their tables.
    fn state(&self) -> NetworkState {
        let mut without = ["eth2", "eth3", "10002", "10003"].map(str::to_owned).to_vec();
        for name in ["eth2", "eth3"] {
            // The metric of the routes for its prefixes.
            let index = self.stage.a.link(name).ok().map(|link| link.index);
            without.extend(index.map(|index| (1 << 31 | index).to_string()));
        }
        let without: Vec<&str> = without.iter().map(String::as_str).collect();
        NetworkState::without(&self.stage.a, &without)
    }

    fn finish(self) {
        for stream in self.streams {
            let mut report = stream.finish();
            // The last answers are not waited for as long as a busy machine needs.
            report.lost.retain(|number| number + 10 < report.sent);
            assert!(report.lost.is_empty(), "{:?} lost packets: {report:?}", self.working);
        }
        assert_eq!(self.stage.lab.violations(), []);
    }
}

/// Lets a fault strike in steady state, during a plug and at start-up.
fn endure(shape: Shape, effect: &Effect, target: Target, measure: Measure) -> Outcome {
    let patient = Patient::new(shape);
    let (lab, a) = (&patient.stage.lab, &patient.stage.a);
    let mut outcome = Outcome::default();
    let agent = Agent::with_config(a, measure.config);
    eventually("metadata was read", PATIENCE, || {
        agent.log().iter().any(|line| line.contains("Content"))
    });
    NetworkState::settled(a);
    let before = patient.state();
    let mut during = |agent: &Agent, attach: Option<(usize, u32)>| {
        let (mark, rounds) = (lab.cloud().request_count(), rounds_of(agent));
        let began = Instant::now();
        let attached = attach.map(|(subnet, device)| patient.stage.attach(subnet, device, 2));
        let met = lab.cloud().wait_for_requests(mark, A_REFRESH, |requests| {
            requests.iter().any(|request| request.faulty)
        });
        assert!(met, "no request met the fault");
        std::thread::sleep(measure.fault.saturating_sub(began.elapsed()));
        assert_same(&before, &patient.state());
        let seconds = began.elapsed().as_secs_f64();
        // Of a short fault, what is asked at once counts as if it had taken a second longer.
        let requests = lab.cloud().requests_since(mark).len() as f64 / (seconds + 1.0);
        outcome.requests_a_second = outcome.requests_a_second.max(requests);
        let minutes = seconds / 60.0;
        let rounds = (rounds_of(agent) - rounds) as f64 / minutes;
        outcome.rounds_a_minute = outcome.rounds_a_minute.max(rounds);
        attached
    };
    target.strike(lab, effect);
    during(&agent, None);
    // The same fault, and then an interface that is new.
    let attached = during(&agent, Some((3, 2))).unwrap();
    lab.cloud().clear_faults();
    let recovered = answers_within(lab.remote(), a, &attached.addresses, measure.recovery);
    outcome.recovery = outcome.recovery.max(recovered);
    assert_same(&before, &patient.state());
    agent.stop();
    target.strike(lab, effect);
    let agent = Agent::with_config(a, measure.config);
    let attached = during(&agent, Some((2, 3))).unwrap();
    lab.cloud().clear_faults();
    let recovered = answers_within(lab.remote(), a, &attached.addresses, measure.recovery);
    outcome.recovery = outcome.recovery.max(recovered);
    assert_same(&before, &patient.state());
    agent.stop();
    patient.finish();
    assert!(outcome.requests_a_second <= measure.requests_a_second, "{outcome:?}");
    assert!(outcome.rounds_a_minute <= measure.rounds_a_minute, "{outcome:?}");
    outcome
}

/// How often metadata was asked.
fn rounds_of(agent: &Agent) -> usize {
    agent.log().iter().filter(|line| line.contains("asking metadata")).count()
}

/// Tries all effects on the target, several side by side, and fails with all that went wrong.
fn endure_all(target: Target, side_by_side: usize, measure: Measure) {
    endure_each(Shape::DualStack, effects(), target, side_by_side, measure);
}

/// All effects on everything, and on the key of the addresses that every shape has.
pub(crate) fn every_fault_is_endured(shape: Shape) {
    for target in [Target::All, Target::Key("ipv6s")] {
        endure_each(shape, effects(), target, 8, SHORT);
    }
}

/// A service that fails, that hangs, and that says what nobody can read.
pub(crate) fn three_faults_of_the_whole_service_are_endured(shape: Shape) {
    let names = ["503", "hanging", "garbage"];
    let chosen = effects().into_iter().filter(|(name, _)| names.contains(name)).collect();
    endure_each(shape, chosen, Target::All, names.len(), SHORT);
}

fn endure_each(
    shape: Shape,
    effects: Vec<(&'static str, Effect)>,
    target: Target,
    side_by_side: usize,
    measure: Measure,
) {
    let cases = Mutex::new(effects);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..side_by_side {
            scope.spawn(|| {
                loop {
                    let Some((name, effect)) = cases.lock().unwrap().pop() else { return };
                    let ended =
                        std::panic::catch_unwind(|| endure(shape, &effect, target, measure));
                    match ended {
                        Ok(outcome) => eprintln!("{name} on {target:?}: {outcome:.1?}"),
                        Err(_) => failures.lock().unwrap().push(name),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "not endured on {target:?}: {failures:?}");
}

const SHORT: Measure = Measure {
    config: HASTY,
    fault: Duration::from_secs(1),
    recovery: PATIENCE,
    // What 300 packets a second are, each request on a connection of its own.
    requests_a_second: 50.0,
    rounds_a_minute: f64::INFINITY,
};

/// With the refresh as it is by default.
const LONG: Measure = Measure {
    config: LAB_CONFIG,
    fault: Duration::from_secs(60),
    recovery: A_REFRESH,
    // A round of ten requests every other second, each sent twice where a kept connection breaks.
    requests_a_second: 20.0,
    rounds_a_minute: 90.0,
};

#[test]
fn every_fault_of_the_whole_service_is_endured() {
    endure_all(Target::All, 8, SHORT);
}

#[test]
fn every_fault_of_the_listings_is_endured() {
    endure_all(Target::Listings, 8, SHORT);
}

#[test]
fn every_fault_of_one_key_is_endured() {
    endure_all(Target::Key("local-ipv4s"), 8, SHORT);
}

#[test]
#[ignore = "long: 4 min, each fault for a minute"]
fn every_fault_of_the_whole_service_is_endured_for_a_minute() {
    endure_all(Target::All, effects().len(), LONG);
}

#[test]
#[ignore = "long: 4 min, each fault for a minute"]
fn every_fault_of_one_key_is_endured_for_a_minute() {
    endure_all(Target::Key("local-ipv4s"), effects().len(), LONG);
}

#[test]
fn a_session_that_cannot_be_renewed_is_endured() {
    for effect in [Effect::Status(403), Effect::Status(503), Effect::Hang, Effect::GarbageBody] {
        let outcome = endure(Shape::DualStack, &effect, Target::Tokens, SHORT);
        eprintln!("{effect:?} on tokens: {outcome:.1?}");
    }
}

#[test]
fn tokens_that_become_invalid_are_replaced_and_nobody_notices() {
    let stage = Stage::new();
    let agent = Agent::with_config(&stage.a, HASTY);
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let cloud = stage.lab.cloud();
    let mark = cloud.request_count();
    cloud.expire_tokens();
    let replaced = cloud.wait_for_requests(mark, PATIENCE, |requests| {
        requests.iter().filter(|request| request.status == Some(200)).count() > 8
    });
    assert!(replaced);
    let requests = cloud.requests_since(mark);
    let count = |status: u16, method: &str| {
        let like = requests.iter().filter(|r| r.status == Some(status) && r.method == method);
        like.count()
    };
    assert_eq!(count(200, "PUT"), 1, "{requests:#?}");
    // Those that were under way side by side.
    assert!((1..=8).contains(&count(401, "GET")), "{requests:#?}");
    assert!(!agent.log().iter().any(|line| line.contains("warning")), "{:#?}", agent.log());
    agent.stop();
}

#[test]
fn an_agent_that_starts_while_metadata_is_down_keeps_what_works_and_learns_when_it_is_back() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 3);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    agent.stop();
    let before = NetworkState::settled(&stage.a);
    stage.lab.cloud().add_fault(Fault::new(Effect::Reset));
    let mark = stage.lab.cloud().request_count();
    let agent = Agent::start(&stage.a);
    let asked = |requests: &[_]| requests.len() > 5;
    assert!(stage.lab.cloud().wait_for_requests(mark, PATIENCE, asked));
    assert_same(&before, &NetworkState::of(&stage.a));
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    // Nobody knows the new one's addresses, but what is pulled is cleaned up after all the same.
    stage.lab.detach(attached.mac).unwrap();
    eventually("nothing of it is left", PATIENCE, || {
        !NetworkState::of(&stage.a).lines().any(|line| line.contains("10001"))
    });
    stage.lab.cloud().clear_faults();
    let attached = stage.attach(3, 2, 3);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    agent.stop();
}

#[test]
fn a_rule_that_somebody_deletes_is_back_within_a_second_while_metadata_hangs() {
    let stage = Stage::new();
    let agent = Agent::with_config(&stage.a, HASTY);
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let cloud = stage.lab.cloud();
    cloud.add_fault(Fault::new(Effect::Hang));
    let mut slowest = Duration::ZERO;
    // More often than that in a minute it would be left alone.
    for _ in 0..3 {
        // A request hangs now.
        let mark = cloud.request_count();
        assert!(cloud.wait_for_requests(mark, PATIENCE, |requests| !requests.is_empty()));
        slowest = slowest.max(delete_a_rule_and_wait(&stage.a, &before));
    }
    eprintln!("a deleted rule was back within {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    agent.stop();
}

/// Deletes the rules of table 10001, and says how long it took until they were back.
fn delete_a_rule_and_wait(host: &Instance, before: &NetworkState) -> Duration {
    let watch = crate::watch::Watch::start(host);
    shell(host, "ip rule del table 10001; ip -6 rule del table 10001");
    becomes(before, host);
    let ours = watch.ours();
    let deleted = ours.iter().find(|seen| seen.removed).unwrap().at;
    ours.last().unwrap().at.duration_since(deleted)
}
