//! A published port answers by every interface, whoever asks, whatever is plugged and unplugged
//! meanwhile, and whoever started first.

use std::net::IpAddr;
use std::time::Duration;

use jackfield_lab::probe::{Echo, PacketStream, Transport};

use crate::engine::{Engine, Kind};
use crate::harness::*;
use crate::scene::{Scene, while_asked};

/// Between two packets of a stream: what comes while the container is not let run has room in the
/// buffer of its socket.
const INTERVAL: Duration = Duration::from_millis(20);

/// Who is there first, when the other starts.
#[derive(Clone, Copy)]
enum First {
    Engine,
    Agent,
    /// The agent, with `containers = "on"`: it does not wait for an engine.
    Expectant,
}

/// The whole story of an engine beside the agent.
fn a_published_port_answers_by_every_interface(kind: Kind, first: First, filter: &str) {
    if !kind.is_installed() {
        return;
    }
    let scene = Scene::new(filter);
    let (lab, a, alone) = (&scene.stage.lab, &scene.stage.a, [scene.primary()]);
    let _echoes = [lab.remote(), &*scene.near[0], &*scene.near[1]].map(|host| {
        let any = ["0.0.0.0", "::"].map(|text| text.parse().unwrap());
        Echo::start(host, &any).unwrap()
    });

    let (agent, engine, secondaries);
    match first {
        First::Engine => {
            engine = Engine::start(a, kind);
            engine.publish();
            scene.everybody_is_answered_by(&alone, "the engine alone");
            scene.the_container_reaches_everybody(&engine, &alone, "the engine alone");
            agent = Agent::start(a);
            secondaries = scene.plug_three();
        }
        First::Agent | First::Expectant => {
            let containers = if let First::Agent = first { "auto" } else { "on" };
            let config = format!("{LAB_CONFIG}[defaults]\ncontainers = \"{containers}\"\n");
            agent = Agent::with_config(a, &config);
            secondaries = scene.plug_three();
            let start = || {
                let engine = Engine::start(a, kind);
                engine.publish();
                engine
            };
            // Docker has its chains for NAT long before a container; Podman makes them together with
            // the first port, and whoever asks in that moment may be quicker than we are.
            let seen_in_time = containers == "on" || matches!(kind, Kind::Docker { .. });
            let asked = if seen_in_time { &secondaries[..] } else { &[] };
            engine = while_asked(&scene.far, asked, start);
        }
    }
    scene.nothing_is_left_to_do();
    let all = [&alone[..], &secondaries].concat();
    scene.everybody_is_answered_by(&all, "with all interfaces");
    scene.the_container_reaches_everybody(&engine, &all, "with all interfaces");

    one_is_pulled_and_plugged_again(&scene, &all);
    while_asked(&scene.far, &all, || {
        engine.restart();
        scene.nothing_is_left_to_do();
        scene.everybody_is_answered_by(&all, "the engine was started again");
        scene.the_container_reaches_everybody(&engine, &all, "the engine was started again");

        // What is in the kernel does not need us, and we find it again.
        agent.stop();
        scene.everybody_is_answered_by(&all, "the agent was stopped");
    });
    let agent = Agent::start(a);
    while_asked(&scene.far, &all, || {
        agent.wait_until_started();
        scene.nothing_is_left_to_do();
        scene.everybody_is_answered_by(&all, "the agent was started again");

        engine.unpublish();
        engine.publish();
        scene.nothing_is_left_to_do();
        scene.everybody_is_answered_by(&all, "published anew");
    });

    secondaries.iter().for_each(|interface| scene.pull(interface));
    scene.nothing_is_left_to_do();
    scene.everybody_is_answered_by(&alone, "all are unplugged");
    scene.the_container_reaches_everybody(&engine, &alone, "all are unplugged");
    agent.stop();
    engine.close();
    let containers = || a.links().unwrap().iter().any(|link| link.name.starts_with("veth"));
    eventually("the container's link is gone", PATIENCE, || !containers());
}

/// Nobody who talks with another interface is disturbed: not a packet is lost.
fn one_is_pulled_and_plugged_again(scene: &Scene, all: &[Attached]) {
    let lab = &scene.stage.lab;
    let (pulled, device) = (&all[2], 2);
    let rest: Vec<Attached> = all.iter().filter(|it| it.mac != pulled.mac).cloned().collect();
    let addresses: Vec<IpAddr> = rest.iter().flat_map(|it| it.addresses.clone()).collect();
    let streams: Vec<PacketStream> = addresses
        .iter()
        .map(|address| PacketStream::start(lab.remote(), None, *address, INTERVAL).unwrap())
        .collect();
    while_asked(&scene.far, &rest, || {
        for _ in 0..3 {
            scene.pull(pulled);
            scene.nothing_is_left_to_do();
            scene.everybody_is_answered_by(&rest, "one is unplugged");
            scene.plug_again(pulled, device);
            scene.nothing_is_left_to_do();
            scene.everybody_is_answered_by(all, "it is plugged again");
        }
    });
    let reports: Vec<_> =
        addresses.iter().zip(streams.into_iter().map(PacketStream::finish)).collect();
    let whole = reports.iter().all(|(_, report)| report.sent > 0 && report.lost.is_empty());
    assert!(whole, "{reports:#?}");
}

#[test]
fn docker_that_starts_after_the_agent() {
    let docker = Kind::Docker { proxy: true, ipv6: true };
    a_published_port_answers_by_every_interface(docker, First::Agent, "1");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn docker_that_starts_before_the_agent() {
    let docker = Kind::Docker { proxy: true, ipv6: true };
    a_published_port_answers_by_every_interface(docker, First::Engine, "2");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn docker_without_its_proxy() {
    let docker = Kind::Docker { proxy: false, ipv6: true };
    a_published_port_answers_by_every_interface(docker, First::Agent, "0");
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn docker_as_it_comes_carries_connections_of_ipv6_by_its_proxy() {
    let docker = Kind::Docker { proxy: true, ipv6: false };
    if !docker.is_installed() {
        return;
    }
    let scene = Scene::new("1");
    let agent = Agent::start(&scene.stage.a);
    let interfaces = [&[scene.primary()][..], &scene.plug_three()].concat();
    let engine = Engine::start(&scene.stage.a, docker);
    engine.publish();
    scene.nothing_is_left_to_do();
    // It answers datagrams by whatever address leads to who asked.
    let carried = |address: IpAddr, by: Transport| address.is_ipv4() || by == Transport::Tcp;
    scene.everybody_is_answered_where(carried, &interfaces, "as it comes");
    agent.stop();
    engine.close();
}

#[test]
#[ignore = "long: .ci/run runs it"]
fn podman_that_starts_after_the_agent() {
    let podman = Kind::Podman { network: "netavark" };
    a_published_port_answers_by_every_interface(podman, First::Expectant, "2");
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
