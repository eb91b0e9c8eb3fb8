//! The random cases of the model, replayed in the real kernel: in network namespaces of their own,
//! with veth pairs as interfaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use jackfield_hostnet::config::AgentConfig;
use jackfield_hostnet::{
    Cloud, Memory, OURS, Plan, Scope, Snapshot, apply, desired, marker_table, plan,
};
use jackfield_kernel::{
    Family, Link, LinkChange, Namespace, Request, Route, RouteFilter, RouteKind, Rtnetlink,
    VethEnd, bridge, sysctl, veth_pair,
};
use world::case::{BRIDGE, Case, Deed, HALF_A_MINUTE, PRIMARY, Scene, Without, learn};
use world::dice::Dice;
use world::kernel::{KERNEL, Kernel, difference};

const CASES: u64 = 60;

/// A machine of the model, made real. The other ends of its cables lie in a second namespace.
struct Real {
    namespace: Namespace,
    _elsewhere: Namespace,
    kernel: Rtnetlink,
    keeps_address_protocol: bool,
}

impl Real {
    fn build(model: &Kernel) -> Real {
        let namespace =
            Namespace::anonymous().expect("these tests need the right to make namespaces");
        let elsewhere = Namespace::anonymous().unwrap();
        let mut far = Rtnetlink::open_in(&elsewhere).unwrap();
        let mut kernel = Rtnetlink::open_in(&namespace).unwrap();
        let keeps_address_protocol = model.keeps_address_protocol;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        send(&mut kernel, "lo up", up.request(1));
        for link in model.links.iter().filter(|link| link.index > 1) {
            skip_to(&mut kernel, link.index);
            let (name, mtu) = (link.name.as_str(), Some(link.mtu));
            if link.kind.as_deref() == Some("bridge") {
                send(&mut kernel, name, bridge(name));
            } else {
                let near = VethEnd { name, address: link.address, mtu, namespace: None };
                let other = VethEnd { name, address: None, mtu, namespace: Some(&elsewhere) };
                send(&mut kernel, name, veth_pair(near, other));
                let peers = Link::list(&mut far).unwrap();
                let peer = peers.iter().find(|peer| peer.name == name).unwrap();
                send(&mut far, name, up.request(peer.index));
            }
            let change = LinkChange {
                group: Some(link.group),
                alias: link.alias.as_deref(),
                controller: link.controller,
                ..LinkChange::default()
            };
            send(&mut kernel, name, change.request(link.index));
            for other in &link.alternative_names {
                send(&mut kernel, other, Link::add_alternative_name(link.index, other));
            }
        }
        let mut real = Real { namespace, _elsewhere: elsewhere, kernel, keeps_address_protocol };
        real.namespace
            .run(|| {
                for ((index, setting), value) in &model.settings {
                    let name = &model.link(*index).unwrap().name;
                    let written = sysctl::write(*index, name, &[(*setting, *value)]);
                    written.into_iter().for_each(|result| result.unwrap());
                }
            })
            .unwrap();
        let kernel = &mut real.kernel;
        let (ipv4, ipv6): (Vec<_>, Vec<_>) =
            model.addresses.iter().partition(|is| is.address.addr().is_ipv4());
        for is in ipv4 {
            send(kernel, &is.address.to_string(), is.add());
        }
        for link in model.links.iter().filter(|link| link.up) {
            send(kernel, &link.name, up.request(link.index));
        }
        for is in ipv6 {
            send(kernel, &is.address.to_string(), is.add());
        }
        for route in model.routes.iter().filter(|route| route.protocol != KERNEL) {
            send(kernel, &format!("{route:?}"), route.add());
        }
        for rule in model.rules.iter().filter(|rule| rule.protocol != KERNEL) {
            send(kernel, &format!("{rule:?}"), rule.add());
        }
        real
    }

    /// What a look at the machine shows.
    fn view(&mut self, agent: &AgentConfig, cloud: &Cloud) -> Snapshot {
        let Real { namespace, kernel, keeps_address_protocol, .. } = self;
        let slots = cloud.interfaces.values().filter_map(|interface| interface.slot);
        let tables: BTreeSet<u32> = slots.map(|slot| slot.table(agent.table_base)).collect();
        let read = || Snapshot::read(kernel, agent, &tables, *keeps_address_protocol);
        namespace.run(read).unwrap().unwrap()
    }

    /// Makes changes; returns what was refused, in words.
    fn make(&mut self, plan: &Plan) -> Vec<String> {
        let Real { namespace, kernel, .. } = self;
        let applied = namespace.run(|| apply(kernel, plan)).unwrap().unwrap();
        applied.refused.iter().map(|(change, _)| change.to_string()).collect()
    }

    fn suffer(&mut self, deed: &Deed) {
        match deed {
            Deed::Change(change) => {
                self.make(&Plan { changes: vec![change.clone()] });
            }
            Deed::Delete(index) => send(&mut self.kernel, "delete", Link::delete(*index)),
            Deed::Enslave { port, bridge } => {
                let change = LinkChange { controller: Some(*bridge), ..LinkChange::default() };
                send(&mut self.kernel, "enslave", change.request(*port));
            }
        }
    }

    /// Everything that is in the kernel, but for what it keeps about its own addresses.
    fn dump(&mut self, agent: &AgentConfig) -> Vec<String> {
        let mut all = self.view(agent, &Cloud::default());
        all.routes.clear();
        for family in Family::BOTH {
            let list = Route::list(&mut self.kernel, family, RouteFilter::default()).unwrap();
            all.routes.extend(list.into_iter().filter(|is| is.table != 255 || is.protocol == OURS));
        }
        lines(&all)
    }
}

fn send(kernel: &mut Rtnetlink, attempt: &str, request: Request) {
    kernel.request(attempt, request).unwrap_or_else(|error| panic!("{attempt}: {error}"));
}

/// Wastes interface numbers until the next one is this.
fn skip_to(kernel: &mut Rtnetlink, index: u32) {
    let highest = |kernel: &mut Rtnetlink| {
        Link::list(kernel).unwrap().iter().map(|link| link.index).max().unwrap()
    };
    let mut next = highest(kernel) + 1;
    while next < index {
        send(kernel, "waste a number", bridge("waste"));
        let wasted = highest(kernel);
        send(kernel, "waste a number", Link::delete(wasted));
        next = wasted + 1;
    }
}

/// A line for each thing; without what the model does not have: link-local addresses and their
/// routes, carriers, and what a device can do.
fn lines(snapshot: &Snapshot) -> Vec<String> {
    let link_local = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast() || ip.is_loopback(),
    };
    let mut kernel = Kernel {
        links: snapshot.links.clone(),
        addresses: snapshot.addresses.clone(),
        routes: snapshot.routes.clone(),
        rules: snapshot.rules.clone(),
        settings: snapshot.settings.clone(),
        ..Kernel::default()
    };
    for link in &mut kernel.links {
        (link.carrier, link.lower, link.lower_elsewhere) = (false, None, false);
        (link.min_mtu, link.max_mtu) = (0, 0);
        link.alternative_names.sort();
        if link.index == BRIDGE {
            // Follows its ports.
            (link.address, link.mtu) = (None, 0);
        }
    }
    kernel.addresses.retain(|is| !link_local(is.address.addr()));
    for is in &mut kernel.addresses {
        is.flags.tentative = false;
    }
    kernel.routes.retain(|route| !link_local(route.destination.addr()));
    kernel.lines()
}

fn words(plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = plan.changes.iter().map(ToString::to_string).collect();
    words.sort();
    words
}

/// One machine, in the model and for real.
struct Twins {
    seed: u64,
    scene: Scene,
    real: Real,
}

impl Twins {
    fn same(&mut self, when: &str) -> Snapshot {
        let (agent, cloud) = (&self.scene.config.agent, &self.scene.cloud);
        let (model, real) = (self.scene.view(), self.real.view(agent, cloud));
        let difference = difference(&lines(&model), &lines(&real));
        assert!(
            difference.is_empty(),
            "seed {}, {when}: not as the model\n{difference}",
            self.seed
        );
        real
    }

    /// Plans for both and makes the changes, up to a number of them.
    fn round(&mut self, scope: &Scope, kill: u32, when: &str) -> Plan {
        let seed = self.seed;
        let snapshot = self.same(when);
        let (_, _, of_model) = self.scene.think(scope);
        let desired = desired(&snapshot, &self.scene.cloud, &self.scene.config, scope);
        let mut of_real = plan(&snapshot, &desired);
        let difference = difference(&words(&of_model), &words(&of_real));
        assert!(difference.is_empty(), "seed {seed}, {when}: another plan\n{difference}");
        of_real.changes.truncate(kill as usize);
        let mut model: Vec<String> =
            self.scene.kernel.make(&of_real).iter().map(|(c, _)| c.to_string()).collect();
        let mut real = self.real.make(&of_real);
        model.sort();
        real.sort();
        assert_eq!(model, real, "seed {seed}, {when}: refused");
        of_real
    }
}

fn replay(seed: u64) {
    let without = Without { unmakeable: true, ..Without::default() };
    let case = Case::draw(&mut Dice::of_seed(seed), without);
    let mut real = Real::build(&case.machine);
    let mut memory = Memory::new();
    let mut at = Instant::now();
    let kernel = case.machine.clone();
    let config = case.now.config.clone();
    let before = real.dump(&config.agent);
    let mut twins = Twins { seed, scene: Scene { kernel, cloud: Cloud::default(), config }, real };
    twins.same("made");

    for (number, round) in case.earlier.iter().enumerate() {
        twins.scene.cloud = learn(&mut memory, &twins.scene.kernel, round, at);
        twins.scene.config = round.config.clone();
        twins.round(&Scope::Everything, round.kill, &format!("round {number}"));
        twins.same("then");
        at += HALF_A_MINUTE * round.said;
    }
    for meddling in &case.meddling {
        if let Some(deed) = meddling.deed(&twins.scene.kernel) {
            deed.happen(&mut twins.scene.kernel);
            twins.real.suffer(&deed);
            twins.same(&format!("{deed:?}"));
        }
    }
    if !case.remembers {
        memory = Memory::new();
    }
    twins.scene.cloud = learn(&mut memory, &twins.scene.kernel, &case.now, at);
    twins.scene.config = case.now.config.clone();
    let mut rounds = 0;
    while !twins.round(&Scope::Everything, u32::MAX, "now").is_empty() {
        rounds += 1;
        assert!(rounds < 6, "seed {seed}: never ends");
    }
    let writes = twins.real.kernel.writes();
    assert!(twins.round(&Scope::Everything, u32::MAX, "at rest").is_empty());
    assert_eq!(twins.real.kernel.writes(), writes, "seed {seed}: something was written");

    let all = twins.scene.kernel.links.iter().map(|link| link.index);
    let unplug = Scope::Unplug(all.filter(|index| *index != PRIMARY).collect());
    twins.round(&unplug, u32::MAX, "unplug");
    twins.same("unplugged");
    if case.earlier.is_empty() && case.meddling.is_empty() {
        take_off_the_primary(&mut twins);
        let agent = &twins.scene.config.agent;
        let difference = difference(&before, &twins.real.dump(agent));
        assert!(difference.is_empty(), "seed {seed}: not as before the plug\n{difference}");
    }
}

/// The primary is not unplugged, and keeps the addresses that are its own.
fn take_off_the_primary(twins: &mut Twins) {
    let ours = |is: &&jackfield_kernel::Address| is.interface == PRIMARY && is.protocol == OURS;
    let own: Vec<_> = twins.scene.kernel.addresses.iter().filter(ours).cloned().collect();
    let markers = marker_table(&twins.scene.config.agent);
    let of_primary = |route: &&Route| {
        let marker = route.table == markers && route.kind == RouteKind::Blackhole;
        // Or of a delegated prefix.
        (marker && route.metric == PRIMARY)
            || (route.protocol == OURS && route.metric == (1 << 31) + PRIMARY)
    };
    let routes: Vec<_> = twins.scene.kernel.routes.iter().filter(of_primary).cloned().collect();
    for address in own {
        send(&mut twins.real.kernel, "take off", address.remove());
    }
    for route in routes {
        assert!(!route.uses(PRIMARY), "{route:?}");
        send(&mut twins.real.kernel, "take off", route.remove());
    }
}

/// `JACKFIELD_SEED` replays one seed, which a failure names; `JACKFIELD_CASES` sets how many are tried.
#[test]
fn the_kernel_does_with_random_machines_what_the_model_does() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("JACKFIELD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("JACKFIELD_CASES").unwrap_or(CASES),
    };
    for seed in seeds {
        replay(seed);
    }
}
