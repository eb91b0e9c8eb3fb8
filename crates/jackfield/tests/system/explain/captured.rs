//! `explain` beside where packets really go: in random set-ups each packet is explained, sent, and
//! captured on every device.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use jackfield_hostnet::config::AgentConfig;
use jackfield_hostnet::explain::{
    ExplainError, Explanation, Facts, Leg, Protocol, Question, Stops, explain,
};
use jackfield_kernel::Rtnetlink;
use socket2::{Domain, Socket, Type};

use super::frame::{Packet, VIRTIO_NET_HEADER, frame, mac_of, read};
use super::scene::Scene;
use crate::harness::PATIENCE;

/// How many set-ups are tried, unless `JACKFIELD_CASES` says otherwise.
const CASES: u64 = 200;
/// Seeds that once were explained wrongly, and are tried besides: of two routes that are alike the
/// kernel takes the first (IPv4), or the one by which the packet comes in (IPv6).
const ONCE_WRONG: [u64; 2] = [1234, 1456];
/// So many at the same time.
const WORKERS: usize = 6;
/// Packets in each.
const PACKETS: usize = 6;

/// A frame that was captured: by which device, to which MAC.
type Seen = (String, [u8; 6]);

impl Scene {
    /// `None`: nothing leads to the source, so that it is not known by which interface it comes in.
    fn explain(&self, packet: &Packet, input: Option<&str>) -> Option<Explanation> {
        let question = Question {
            protocol: Some(if packet.tcp { Protocol::Tcp } else { Protocol::Udp }),
            source_port: Some(packet.source.port()),
            destination_port: Some(packet.destination.port()),
            mark: packet.mark,
            input: input.map(str::to_owned),
            ..Question::new(packet.source.ip(), packet.destination.ip())
        };
        let ends = [question.source, question.destination];
        let explained = self.host.run(|| {
            let mut kernel = Rtnetlink::open().unwrap();
            let facts = Facts::read(&mut kernel, ends, &AgentConfig::default()).unwrap();
            explain(&question, &facts, &mut kernel)
        });
        let known = |ip| self.locals.contains(&ip);
        match explained.unwrap() {
            Err(ExplainError::NoInput(source)) if !known(source) && !known(ends[1]) => None,
            explained => Some(explained.unwrap()),
        }
    }

    /// Sends it as a process of the host, which goes on listening.
    fn send(&self, packet: &Packet) -> Socket {
        let kind = if packet.tcp { Type::STREAM } else { Type::DGRAM };
        let socket = self.socket(kind, packet.source);
        socket.set_mark(packet.mark).unwrap();
        // That it is refused is seen by that nothing comes.
        let _ = match packet.tcp {
            true => socket.connect(&packet.destination.into()),
            false => socket.send_to(b"?", &packet.destination.into()).map(drop),
        };
        socket
    }

    /// Somebody who listens where the packet is to arrive, where that is on this host.
    fn receiver(&self, packet: &Packet) -> Option<Socket> {
        if !self.locals.contains(&packet.destination.ip()) {
            return None;
        }
        let kind = if packet.tcp { Type::STREAM } else { Type::DGRAM };
        let socket = self.socket(kind, packet.destination);
        if packet.tcp {
            socket.listen(8).unwrap();
        }
        Some(socket)
    }

    /// Fails where the packet is captured elsewhere than at these places, of which there is at most one.
    fn is_captured(&mut self, packet: &Packet, expected: Option<&Seen>, told: &str) {
        let wanted: Vec<Seen> = expected.cloned().into_iter().collect();
        let seen = self.capture(packet, expected);
        assert_eq!(seen, wanted, "captured, and told of {packet:?}: {told}");
    }

    fn is_open(&self, name: &str) -> bool {
        self.wires.iter().any(|wire| wire.name == name && wire.open)
    }

    fn socket(&self, kind: Type, at: SocketAddr) -> Socket {
        let open = || {
            let domain = if self.v4 { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, kind, None)?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            socket.bind(&at.into())?;
            Ok::<Socket, std::io::Error>(socket)
        };
        self.host.run(open).unwrap().unwrap()
    }

    /// Lets it come in by a device.
    fn inject(&mut self, packet: &Packet, by: &str) {
        let wire = self.wires.iter_mut().find(|wire| wire.name == by).unwrap();
        let frame = frame(packet, wire.mac);
        // A device that is down takes nothing.
        let _ = wire.tap.write(&frame);
    }

    /// By which devices it left by now, and to which MAC.
    fn captured(&mut self, packet: &Packet) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        for wire in &mut self.wires {
            while let Ok(length) = wire.tap.read(&mut buffer) {
                let frame = buffer.get(VIRTIO_NET_HEADER..length).unwrap_or_default();
                if read(frame).is_some_and(|is| is == Packet { mark: 0, ..*packet }) {
                    seen.push((wire.name.clone(), frame[..6].try_into().unwrap()));
                }
            }
        }
        seen.dedup();
        seen
    }

    /// Waits for a packet that is to come; one that is not to come would have done so: taps are
    /// written by whoever sends, before that returns.
    fn capture(&mut self, packet: &Packet, expected: Option<&Seen>) -> Vec<Seen> {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.captured(packet);
            if expected.is_none() || !seen.is_empty() || Instant::now() >= end {
                return seen;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Where it is to be captured.
    fn expected(&self, leg: &Leg, goes: bool) -> Option<Seen> {
        let name = leg.interface.clone().filter(|_| goes && leg.kind == Some("unicast"))?;
        let wire = self.wires.iter().find(|wire| wire.name == name)?;
        let next_hop = leg.gateway.unwrap_or(leg.destination);
        Some((name, mac_of(wire.number, next_hop)))
    }
}

/// What was compared, so that a set-up in which nothing goes anywhere is not taken for proof.
#[derive(Debug, Default)]
struct Tally {
    sent: u32,
    forwarded: u32,
    received: u32,
    answered: u32,
    refused: u32,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.forwarded += other.forwarded;
        self.received += other.received;
        self.answered += other.answered;
        self.refused += other.refused;
    }
}

/// One set-up, and some packets in it.
fn agrees_in(seed: u64, tally: &mut Tally) {
    let mut rng = Rng::with_seed(seed);
    let mut scene = Scene::random(&mut rng);
    let mut dropped = Vec::new();
    for number in 0..PACKETS {
        let from_here = number % 2 == 0;
        let packet = scene.packet(&mut rng, from_here);
        let input = match from_here {
            true => None,
            // Said, or worked out.
            false => rng.bool().then(|| {
                let open: Vec<_> = scene.wires.iter().filter(|wire| wire.open).collect();
                Some(open.get(rng.usize(..open.len().max(1)))?.name.clone())
            }),
        };
        let input = input.flatten();
        let Some(explanation) = scene.explain(&packet, input.as_deref()) else { continue };
        let told = format!(
            "JACKFIELD_SEED={seed}, packet {number}: {packet:?}\n{}\n{explanation:#?}",
            scene.script
        );
        assert!(explanation.way.agrees, "the walk ends elsewhere: {told}");
        if let Some(answer) = &explanation.answer {
            assert!(answer.agrees, "the walk of the answer ends elsewhere: {told}");
        }
        match from_here {
            true => sent(&mut scene, &packet, &explanation, &told, tally),
            false => came_in(&mut scene, &packet, &explanation, &told, tally),
        }
        if !explanation.delivers {
            tally.refused += 1;
            dropped.push(packet);
        }
    }
    for packet in dropped {
        assert_eq!(scene.captured(&packet), [], "JACKFIELD_SEED={seed}: {packet:?}");
    }
}

/// A packet that is made here, and what answers it.
fn sent(
    scene: &mut Scene,
    packet: &Packet,
    explanation: &Explanation,
    told: &str,
    tally: &mut Tally,
) {
    let receiver = scene.receiver(packet);
    let expected = scene.expected(&explanation.way, explanation.delivers);
    let sender = scene.send(packet);
    scene.is_captured(packet, expected.as_ref(), told);
    tally.sent += u32::from(expected.is_some());
    if let Some(receiver) = receiver {
        // Between two addresses of the host, a connection is complete at once.
        let is = arrived(&receiver, packet.tcp, explanation.delivers);
        assert_eq!(is, explanation.delivers, "received: {told}");
        tally.received += u32::from(is);
    }
    let Some(answer) = explanation.answer.as_ref().filter(|_| !packet.tcp) else { return };
    let Some(by) = answer.input.clone().filter(|by| scene.is_open(by)) else { return };
    scene.inject(&packet.reply(), &by);
    let is = arrived(&sender, false, answered(explanation));
    assert_eq!(is, answered(explanation), "the answer, received: {told}");
    tally.answered += u32::from(is);
}

/// A packet that comes in, and how it is answered where it is for this host.
fn came_in(
    scene: &mut Scene,
    packet: &Packet,
    explanation: &Explanation,
    told: &str,
    tally: &mut Tally,
) {
    let by = explanation.way.input.clone().expect("it comes in by something");
    if !scene.is_open(&by) {
        return;
    }
    let receiver = scene.receiver(packet);
    let expected = scene.expected(&explanation.way, explanation.delivers);
    scene.inject(packet, &by);
    scene.is_captured(packet, expected.as_ref(), told);
    tally.forwarded += u32::from(expected.is_some());
    let Some(receiver) = receiver else { return };
    let expected = explanation
        .answer
        .as_ref()
        .and_then(|answer| scene.expected(answer, explanation.delivers && answered(explanation)));
    if !packet.tcp {
        let is = arrived(&receiver, false, explanation.delivers);
        assert_eq!(is, explanation.delivers, "received: {told}");
        if !is {
            return;
        }
        // That it is refused is seen by that nothing comes.
        let _ = receiver.send_to(b"!", &packet.source.into());
    }
    scene.is_captured(&packet.reply(), expected.as_ref(), told);
    tally.received += u32::from(explanation.delivers);
    tally.answered += u32::from(expected.is_some());
}

/// Whether nothing is said to stop the answer.
fn answered(explanation: &Explanation) -> bool {
    explanation.obstacles.iter().all(|is| is.stops != Some(Stops::Answer))
}

/// Whether a socket has received something, once it has where it is to.
fn arrived(receiver: &Socket, tcp: bool, expected: bool) -> bool {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 16];
        let got = match tcp {
            true => receiver.accept().is_ok(),
            false => receiver.recv_from(&mut buffer).is_ok(),
        };
        if got || !expected || Instant::now() >= end {
            return got;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `JACKFIELD_SEED` replays one seed, which a failure names; `JACKFIELD_CASES` sets how many are tried.
#[test]
fn what_is_explained_is_what_is_captured() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut all = Tally::default();
    if let Some(seed) = number("JACKFIELD_SEED") {
        return agrees_in(seed, &mut all);
    }
    let cases = number("JACKFIELD_CASES").unwrap_or(CASES);
    // Most of the time is the kernel's, which makes and removes devices.
    let seeds: Vec<u64> = ONCE_WRONG.into_iter().chain(0..cases).collect();
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut tally = Tally::default();
        loop {
            match seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                Some(seed) => agrees_in(*seed, &mut tally),
                None => return tally,
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            match worker.join() {
                Ok(tally) => all.add(&tally),
                Err(failure) => std::panic::resume_unwind(failure),
            }
        }
    });
    println!("{cases} set-ups: {all:?}");
    if cases >= CASES {
        let Tally { sent, forwarded, received, answered, refused } = all;
        let least = [sent, forwarded, received, answered, refused].into_iter().min();
        assert!(least >= Some(100), "too little of something: {all:?}");
    }
}
