//! A published port answers by every interface, whoever asks, whatever is plugged and unplugged
//! meanwhile, and whoever started first.

use std::net::IpAddr;
use std::time::Duration;

use jackfield_lab::probe::{Echo, PacketStream, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug};

use crate::engine::{Engine, Kind};
use crate::harness::*;

/// How long one exchange may take on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(3);

/// So many addresses that do not answer one client tell enough.
const ENOUGH: usize = 4;
/// Between two packets of a stream.
const INTERVAL: Duration = Duration::from_millis(5);

/// An instance with a primary interface in subnet 1, and those who ask.
struct Scene {
    stage: Stage,
    near: [Instance; 2],
}

impl Scene {
    /// With this reverse path filter on every interface, as the machine's administrator has it.
    fn new(reverse_path_filter: &str) -> Self {
        let stage = Stage::new();
        for which in ["all", "default", "eth0"] {
            let setting = format!("net/ipv4/conf/{which}/rp_filter");
            stage.a.set_sysctl(&setting, reverse_path_filter).unwrap();
        }
        let near = [0, 1].map(|subnet: usize| stage.lab.client(&stage.subnets[subnet]).unwrap());
        Scene { stage, near }
    }

    fn primary(&self) -> Attached {
        Attached::of(self.stage.a.primary(), 0)
    }

    /// Two interfaces in one subnet, and one in the primary's.
    fn plug_three(&self) -> [Attached; 3] {
        [(2, 1), (2, 2), (1, 3)].map(|(subnet, device)| {
            let attached = self.stage.attach(subnet, device, 1);
            configured_within(&self.stage.a, &attached, PATIENCE);
            attached
        })
    }

    fn nothing_is_left_to_do(&self) {
        let nothing = || jackfield(&self.stage.a, &["plan"]).status.success();
        eventually("nothing is left to do", PATIENCE, nothing);
    }

    /// Everybody asks every address of these interfaces by TCP and UDP, and is answered, by the
    /// interface that was asked: the cloud lets no other answer out.
    #[track_caller]
    fn everybody_is_answered_by(&self, interfaces: &[Attached], when: &str) {
        let clients = [
            ("the instance itself", &*self.stage.a),
            ("the remote host", self.stage.lab.remote()),
            ("a client in the primary's subnet", &*self.near[0]),
            ("a client in the subnet of two secondaries", &*self.near[1]),
        ];
        let failed: Vec<String> = std::thread::scope(|scope| {
            let asking = clients.map(|(name, client)| {
                scope.spawn(move || {
                    let unanswered = unanswered(client, interfaces);
                    unanswered.into_iter().map(move |what| format!("{name}: {what}\n"))
                })
            });
            asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let violations = self.stage.lab.violations();
        if !failed.is_empty() {
            let dropped: Vec<String> =
                violations.iter().take(ENOUGH).map(|packet| format!("{packet:?}\n")).collect();
            let ours = shell(&self.stage.a, "ip rule; ip -6 rule; nft list tables || true");
            let (failed, dropped) = (failed.concat(), dropped.concat());
            panic!("{when}:\n{failed}dropped by the cloud:\n{dropped}{ours}");
        }
        assert_eq!(violations, [], "{when}");
    }

    /// The container begins connections of its own: to others, and to what is published.
    #[track_caller]
    fn the_container_reaches_everybody(
        &self,
        engine: &Engine<'_>,
        published: &[Attached],
        when: &str,
    ) {
        let near = self.near.iter().flat_map(|client| client.primary().addresses());
        let others: Vec<IpAddr> =
            [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6].into_iter().chain(near).collect();
        let published: Vec<IpAddr> =
            published.iter().flat_map(|interface| interface.addresses.clone()).collect();
        let mut answers = Transport::ALL.map(|transport| engine.asks(&others, transport)).to_vec();
        if engine.kind().lets_a_container_reach_itself() {
            // By UDP docker-proxy answers from another address than was asked.
            answers.push(engine.asks(&published, Transport::Tcp));
        }
        let violations = self.stage.lab.violations();
        assert!(answers.iter().all(Result::is_ok), "{when}: {answers:#?}, {violations:#?}");
    }
}

/// Which addresses do not answer whoever asks from there, and how.
fn unanswered(from: &Host, interfaces: &[Attached]) -> Vec<String> {
    let mut failed = Vec::new();
    for interface in interfaces {
        for address in &interface.addresses {
            for transport in Transport::ALL {
                if let Err(error) = probe(from, None, Echo::at(*address), transport, ANSWER) {
                    let name = &interface.name;
                    failed.push(format!("{address} of {name} by {transport:?}: {error}"));
                    if failed.len() >= ENOUGH {
                        return failed;
                    }
                }
            }
        }
    }
    failed
}

/// Who is there first, when the other starts.
enum First {
    Engine,
    Agent,
}

/// The whole story of an engine beside the agent.
fn a_published_port_answers_by_every_interface(kind: Kind, first: First, filter: &str) {
    if !kind.is_installed() {
        return;
    }
    let scene = Scene::new(filter);
    let (lab, a, primary) = (&scene.stage.lab, &scene.stage.a, scene.primary());
    let _echoes = [lab.remote(), &*scene.near[0], &*scene.near[1]].map(|host| {
        let any = ["0.0.0.0", "::"].map(|text| text.parse().unwrap());
        Echo::start(host, &any).unwrap()
    });

    let (agent, engine, secondaries);
    match first {
        First::Engine => {
            engine = Engine::start(a, kind);
            engine.publish();
            let alone = std::slice::from_ref(&primary);
            scene.everybody_is_answered_by(alone, "the engine alone");
            scene.the_container_reaches_everybody(&engine, alone, "the engine alone");
            agent = Agent::start(a);
            secondaries = scene.plug_three();
        }
        First::Agent => {
            agent = Agent::start(a);
            secondaries = scene.plug_three();
            engine = Engine::start(a, kind);
            engine.publish();
        }
    }
    scene.nothing_is_left_to_do();
    let [one, other, third] = secondaries.clone();
    let all = [[primary.clone()].as_slice(), &secondaries].concat();
    scene.everybody_is_answered_by(&all, "with all interfaces");
    scene.the_container_reaches_everybody(&engine, &all, "with all interfaces");

    // One is pulled and plugged again: nobody who talks with another is disturbed.
    let stay: Vec<IpAddr> =
        [&primary, &one, &third].into_iter().flat_map(|it| it.addresses.clone()).collect();
    let streams: Vec<PacketStream> = stay
        .iter()
        .map(|address| PacketStream::start(lab.remote(), None, *address, INTERVAL).unwrap())
        .collect();
    for _ in 0..3 {
        lab.detach(other.mac).unwrap();
        scene.nothing_is_left_to_do();
        let rest = [primary.clone(), one.clone(), third.clone()];
        scene.everybody_is_answered_by(&rest, "one is unplugged");
        lab.attach(a, other.mac, &Plug::new(2)).unwrap();
        configured_within(a, &other, PATIENCE);
        scene.nothing_is_left_to_do();
        scene.everybody_is_answered_by(&all, "it is plugged again");
    }
    for (address, stream) in stay.iter().zip(streams) {
        let report = stream.finish();
        assert!(report.sent > 0 && report.lost.is_empty(), "{address}: {report:?}");
    }

    engine.restart();
    scene.nothing_is_left_to_do();
    scene.everybody_is_answered_by(&all, "the engine was started again");
    scene.the_container_reaches_everybody(&engine, &all, "the engine was started again");

    // What is in the kernel does not need us, and we find it again.
    agent.stop();
    scene.everybody_is_answered_by(&all, "the agent was stopped");
    let agent = Agent::start(a);
    agent.wait_until_started();
    scene.nothing_is_left_to_do();
    scene.everybody_is_answered_by(&all, "the agent was started again");

    // The same port, published anew.
    engine.unpublish();
    scene.nothing_is_left_to_do();
    engine.publish();
    scene.nothing_is_left_to_do();
    scene.everybody_is_answered_by(&all, "published anew");

    for interface in &secondaries {
        lab.detach(interface.mac).unwrap();
    }
    scene.nothing_is_left_to_do();
    let alone = [primary];
    scene.everybody_is_answered_by(&alone, "all are unplugged");
    scene.the_container_reaches_everybody(&engine, &alone, "all are unplugged");
    agent.stop();
    engine.close();
    let containers = || a.links().unwrap().iter().any(|link| link.name.starts_with("veth"));
    eventually("the container's link is gone", PATIENCE, || !containers());
}

#[test]
fn docker_that_starts_after_the_agent() {
    let docker = Kind::Docker { proxy: true };
    a_published_port_answers_by_every_interface(docker, First::Agent, "1");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn docker_that_starts_before_the_agent() {
    let docker = Kind::Docker { proxy: true };
    a_published_port_answers_by_every_interface(docker, First::Engine, "2");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn docker_without_its_proxy() {
    let docker = Kind::Docker { proxy: false };
    a_published_port_answers_by_every_interface(docker, First::Agent, "0");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn podman_that_starts_after_the_agent() {
    let podman = Kind::Podman { network: "netavark" };
    a_published_port_answers_by_every_interface(podman, First::Agent, "2");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn podman_that_starts_before_the_agent() {
    let podman = Kind::Podman { network: "netavark" };
    a_published_port_answers_by_every_interface(podman, First::Engine, "1");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn podman_with_cni_plugins() {
    let podman = Kind::Podman { network: "cni" };
    a_published_port_answers_by_every_interface(podman, First::Agent, "1");
}
