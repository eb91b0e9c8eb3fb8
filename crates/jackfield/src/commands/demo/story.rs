//! The story: what happens, and how each claim is proven by packets or by a dump.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use jackfield_lab::emulator::{CloudInterface, MacAddr};
use jackfield_lab::probe::{Echo, FirstAnswers, PacketStream, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug};

use super::agent::Agent;
use super::dump::{Dump, settings};
use super::telling::{Proven, Telling};
use crate::failure::Failure;

/// How long anything may take before the demo gives up: a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often an address is asked until it answers.
const ASKED_EVERY: Duration = Duration::from_millis(1);
/// How often a packet goes to the primary while all this happens.
const STREAM_EVERY: Duration = Duration::from_millis(5);

type Step<T> = Result<(T, Proven), String>;

/// The cloud as it is before anything is plugged in.
struct Stage {
    lab: Lab,
    a: Instance,
    b: Instance,
    /// What the remote host answers with.
    _remote: Echo,
    _primary: Echo,
    /// To the primary of a, all the time.
    stream: PacketStream,
    before: [Before; 2],
}

/// What an instance was like.
struct Before {
    dump: Dump,
    settings: BTreeMap<String, String>,
}

struct Agents {
    a: Agent,
    b: Agent,
}

pub(super) fn tell(telling: &mut Telling) -> Result<(), Failure> {
    let stage = telling.step("cloud", cloud)?;
    let agents = telling.step("agents", || agents(&stage))?;
    let Stage { lab, a, b, .. } = &stage;
    let (first, echo) = telling.step("plug", || plug(&stage, &agents, a, 1))?;
    telling.step("traffic", || traffic(lab, &[(a, &first)]))?;
    let (second, _second_echo) = telling.step("second", || plug(&stage, &agents, a, 2))?;
    telling.step("both", || traffic(lab, &[(a, &first), (a, &second)]))?;
    // Nobody answers on a any more, whatever happens to the addresses there.
    drop(echo);
    let _echo = telling.step("move", || move_to_b(&stage, &agents, &first))?;
    telling.step("moved", || traffic(lab, &[(b, &first), (a, &second)]))?;
    telling.step("unplug", || unplug(&stage, &[&first, &second]))?;
    telling.step("end", || nothing_left(stage, agents))
}

fn cloud() -> Step<Stage> {
    let began = Instant::now();
    let lab = Lab::start().map_err(text)?;
    let subnet = lab.subnet(1);
    let a = lab.instance("a", &subnet).map_err(text)?;
    let b = lab.instance("b", &subnet).map_err(text)?;
    let remote = Echo::start(lab.remote(), &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]).map_err(text)?;
    let own: Vec<IpAddr> = a.primary().addresses().collect();
    let primary = Echo::start(&a, &own).map_err(text)?;
    let to = own.first().copied().ok_or("the primary has no address")?;
    // Before the dump: its exchange shows that the primary works.
    ask(lab.remote(), None, to, Transport::Udp)?;
    let stream = PacketStream::start(lab.remote(), None, to, STREAM_EVERY).map_err(text)?;
    let before = [before(&a)?, before(&b)?];
    let lines = vec![
        "instances a and b, a router, a remote host, a metadata service".to_owned(),
        "the router drops a packet whose source is not its interface's".to_owned(),
    ];
    let took = began.elapsed();
    let stage = Stage { lab, a, b, _remote: remote, _primary: primary, stream, before };
    Ok((stage, Proven { took, lines }))
}

fn before(instance: &Instance) -> Result<Before, String> {
    Ok(Before { dump: Dump::of(instance)?, settings: settings(instance)? })
}

fn agents(stage: &Stage) -> Step<Agents> {
    let began = Instant::now();
    let deadline = began + PATIENCE;
    let agents =
        Agents { a: Agent::start(&stage.a, deadline)?, b: Agent::start(&stage.b, deadline)? };
    let lines = vec!["'jackfield run' is started on a and on b".to_owned()];
    Ok((agents, Proven { took: began.elapsed(), lines }))
}

/// Plugs a new interface of subnet 2 into an instance.
fn plug(
    stage: &Stage,
    agents: &Agents,
    instance: &Instance,
    device: u32,
) -> Step<(CloudInterface, Echo)> {
    let interface = stage.lab.interface(&stage.lab.subnet(2), 1).map_err(text)?;
    let (echo, proven) = appear(stage, &agents.a, instance, &interface, device, || Ok(()))?;
    Ok(((interface, echo), proven))
}

/// Attaches an interface and waits until all its addresses answer the remote host; the time counts
/// from the moment at which the device is there.
fn appear(
    stage: &Stage,
    agent: &Agent,
    instance: &Instance,
    interface: &CloudInterface,
    device: u32,
    before: impl FnOnce() -> Result<(), String>,
) -> Step<Echo> {
    let lab = &stage.lab;
    let addresses: Vec<IpAddr> = interface.addresses().collect();
    let requests = lab.cloud().request_count();
    before()?;
    let answers = FirstAnswers::watch(lab.remote(), &addresses, ASKED_EVERY).map_err(text)?;
    let plugged = lab.attach(instance, interface.mac, &Plug::new(device)).map_err(text)?;
    let answered = answers.wait(PATIENCE);
    let about = interface.mac.to_string();
    let requests = lab.cloud().requests_since(requests);
    let requests = requests.iter().filter(|request| request.path.contains(&about)).count();
    let after = |address: &IpAddr| {
        let at = answered.get(address)?;
        Some((*address, at.saturating_duration_since(plugged.appeared)))
    };
    let times: Vec<(IpAddr, Duration)> = addresses.iter().filter_map(after).collect();
    if let Some(silent) = addresses.iter().find(|address| !answered.contains_key(address)) {
        let said = agent.complaint().map(|line| format!("; it says: {line}")).unwrap_or_default();
        return Err(format!("no answer from {silent} within {} s{said}", PATIENCE.as_secs()));
    }
    let took = times.iter().map(|(_, time)| *time).max().unwrap_or_default();
    let each: Vec<String> = times
        .iter()
        .map(|(address, time)| format!("{address} after {:.1} ms", time.as_secs_f64() * 1e3))
        .collect();
    let host = instance.name();
    let lines = vec![
        format!("{} is plugged into {host}: {} answers", interface.interface_id, plugged.name),
        format!("heard by the remote host: {}", each.join(", ")),
        format!(
            "{requests} requests to the metadata service about it; routing table {}",
            numbers(&Dump::of(instance)?.tables_of(&addresses))
        ),
    ];
    let echo = Echo::start(instance, &addresses).map_err(text)?;
    Ok((echo, Proven { took, lines }))
}

/// Each address of each interface, both ways, by TCP and UDP.
fn traffic(lab: &Lab, interfaces: &[(&Instance, &CloudInterface)]) -> Step<()> {
    let began = Instant::now();
    let mut exchanges = 0;
    for (instance, interface) in interfaces {
        for address in interface.addresses() {
            let far = if address.is_ipv4() { Lab::REMOTE_IPV4 } else { Lab::REMOTE_IPV6 };
            for transport in Transport::ALL {
                ask(lab.remote(), None, address, transport)?;
                ask(instance, Some(address), far, transport)?;
                exchanges += 2;
            }
        }
    }
    if let Some(violation) = lab.violations().first() {
        let interface = name_of(interfaces, violation.interface);
        return Err(format!("a packet from {} left by {interface}", violation.source));
    }
    let whose: Vec<String> = interfaces
        .iter()
        .map(|(instance, interface)| format!("{} on {}", interface.interface_id, instance.name()))
        .collect();
    let lines = vec![
        format!("{exchanges} exchanges, to it and from it, by TCP and UDP, IPv4 and IPv6"),
        format!("{}; packets by a wrong interface: 0", whose.join(", ")),
    ];
    Ok(((), Proven { took: began.elapsed(), lines }))
}

/// One message there and back.
fn ask(
    from: &Host,
    source: Option<IpAddr>,
    to: IpAddr,
    transport: Transport,
) -> Result<(), String> {
    probe(from, source, Echo::at(to), transport, PATIENCE).map(drop).map_err(|error| {
        let source = source.map(|source| format!(" ({source})")).unwrap_or_default();
        format!("{transport:?} from {}{source} to {to}: {error}", from.name())
    })
}

fn move_to_b(stage: &Stage, agents: &Agents, interface: &CloudInterface) -> Step<Echo> {
    let addresses: Vec<IpAddr> = interface.addresses().collect();
    let tables = Dump::of(&stage.a)?.tables_of(&addresses);
    if tables.is_empty() {
        return Err("it has no routing table on a".to_owned());
    }
    let detach = || stage.lab.detach(interface.mac).map_err(text);
    let (echo, mut proven) = appear(stage, &agents.b, &stage.b, interface, 1, detach)?;
    let end = Instant::now() + PATIENCE;
    while let Some(left) = Dump::of(&stage.a)?.what_is_left(&addresses, &tables) {
        if Instant::now() > end {
            return Err(format!("a still has {left}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    if let Some(first) = proven.lines.first_mut() {
        *first = format!("{} is pulled from a and plugged into b", interface.interface_id);
    }
    let tables = numbers(&tables);
    proven.lines.push(format!("left on a of its addresses, rules and table {tables}: nothing"));
    Ok((echo, proven))
}

fn unplug(stage: &Stage, interfaces: &[&CloudInterface]) -> Step<()> {
    let began = Instant::now();
    for interface in interfaces {
        stage.lab.detach(interface.mac).map_err(text)?;
    }
    let pulled = began.elapsed();
    let end = began + PATIENCE;
    for (instance, before) in [&stage.a, &stage.b].into_iter().zip(&stage.before) {
        while let Some(difference) = before.dump.difference(&Dump::of(instance)?) {
            if Instant::now() > end {
                return Err(format!("{} is not as it was: {difference}", instance.name()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let took = began.elapsed();
    let lines = vec![
        "both interfaces are pulled, and a and b are as they were before".to_owned(),
        format!("{:.1} ms of it: the kernel takes two devices away", pulled.as_secs_f64() * 1e3),
    ];
    Ok(((), Proven { took, lines }))
}

fn nothing_left(stage: Stage, agents: Agents) -> Step<()> {
    let began = Instant::now();
    agents.a.stop()?;
    agents.b.stop()?;
    let text = "the agents are stopped and nothing is left; equal before and after:";
    let mut lines = vec![text.to_owned()];
    for (instance, before) in [&stage.a, &stage.b].into_iter().zip(&stage.before) {
        let name = instance.name();
        if let Some(difference) = before.dump.difference(&Dump::of(instance)?) {
            return Err(format!("{name} is not as it was: {difference}"));
        }
        let settings = settings(instance)?;
        if let Some(path) = before
            .settings
            .keys()
            .chain(settings.keys())
            .find(|path| settings.get(*path) != before.settings.get(*path))
        {
            return Err(format!("{path} is not as it was on {name}"));
        }
        lines.push(format!("{name}: {}, {} settings", before.dump, settings.len()));
    }
    let report = stage.stream.finish();
    if !report.lost.is_empty() {
        let (lost, sent) = (report.lost.len(), report.sent);
        return Err(format!("{lost} of {sent} packets to the primary of a were lost"));
    }
    lines.push(format!("the primary of a answered {} of {0} packets meanwhile", report.sent));
    Ok(((), Proven { took: began.elapsed(), lines }))
}

fn name_of(interfaces: &[(&Instance, &CloudInterface)], mac: MacAddr) -> String {
    let found = interfaces.iter().find(|(_, interface)| interface.mac == mac);
    found.map_or_else(|| mac.to_string(), |(_, interface)| interface.interface_id.clone())
}

fn numbers(tables: &BTreeSet<u32>) -> String {
    tables.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
