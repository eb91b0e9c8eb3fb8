//! Answers ARP and neighbour discovery for everything in a subnet that the asker does not hold
//! itself, as the fabric of a cloud does.
//!
//! The kernel's own proxies answer for single addresses in IPv6, and after a random delay that an
//! unprivileged user cannot change. Each answer is given several times: one end of a veth pair
//! drops what it is told to send until its queue starts, a moment after the other end came up,
//! and a lost first answer would cost the asker a whole second.

use super::frame::{self, Question};
use super::{GATEWAY_IPV6, METADATA_IPV4};
use crate::emulator::{CloudInterface, MacAddr};
use crate::error::{Attempt, Result};
use crate::host::Host;
use jackfield_kernel::EthernetAddress;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType,
};
use socket2::{SockFilter, SockRef};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// When an answer is given again, counted from the question.
const AGAIN: [Duration; 3] =
    [Duration::from_millis(2), Duration::from_millis(10), Duration::from_millis(40)];

/// The thread that answers. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Responder {
    known: Known,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// What each asker holds and which router MAC it is told.
type Known = Arc<Mutex<BTreeMap<MacAddr, (EthernetAddress, CloudInterface)>>>;

impl Responder {
    pub(super) fn start(fabric: &Host) -> Result<Self> {
        let attempt = || "answer ARP and neighbour discovery in the fabric".to_owned();
        let sockets = fabric.run(open)?.attempt(attempt)?;
        let stop = Arc::new(stop_event().attempt(attempt)?);
        let known = Known::default();
        let worker = Worker {
            sockets,
            stop: Arc::clone(&stop),
            known: Arc::clone(&known),
            again: VecDeque::new(),
        };
        let builder = std::thread::Builder::new().name("responder".to_owned());
        let thread = builder.spawn(move || worker.run()).attempt(attempt)?;
        Ok(Self { known, stop, thread: Some(thread) })
    }

    pub(super) fn know(&self, router: EthernetAddress, record: &CloudInterface) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(record.mac, (router, record.clone()));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a thread of the fabric is told to end by.
pub(super) fn stop_event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC)?)
}

/// One socket for ARP, one for neighbour solicitations, on all ports.
fn open() -> io::Result<[OwnedFd; 2]> {
    let arp = packet_socket(frame::ARP)?;
    let solicitations = packet_socket(frame::IPV6)?;
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(&solicitations).attach_filter(&[
        SockFilter::new(LOAD_OCTET, 0, 0, frame::NEXT_HEADER),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, 58),
        SockFilter::new(LOAD_OCTET, 0, 0, frame::ICMPV6_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(frame::SOLICITATION)),
        SockFilter::new(RETURN, 0, 0, u32::from(u16::MAX)),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    Ok([arp, solicitations])
}

/// A socket that receives whole frames of one protocol from every link of the namespace.
pub(super) fn packet_socket(protocol: u16) -> io::Result<OwnedFd> {
    let protocol = NonZeroU32::new(u32::from(protocol.to_be())).map(Protocol::from_raw);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (family, kind) = (AddressFamily::PACKET, SocketType::RAW);
    Ok(rustix::net::socket_with(family, kind, flags, protocol)?)
}

struct Worker {
    sockets: [OwnedFd; 2],
    stop: Arc<OwnedFd>,
    known: Known,
    again: VecDeque<Again>,
}

/// An answer that is to be given again.
struct Again {
    due: Instant,
    socket: usize,
    frame: Vec<u8>,
    to: SocketAddrAny,
}

impl Worker {
    fn run(mut self) {
        while self.wait() {
            for socket in 0..self.sockets.len() {
                self.answer(socket);
            }
            let now = Instant::now();
            let due = self.again.partition_point(|again| again.due <= now);
            for again in self.again.drain(..due).collect::<Vec<_>>() {
                self.send(again.socket, &again.frame, &again.to);
            }
        }
    }

    /// Waits for a question, a repetition that is due, or the end.
    fn wait(&self) -> bool {
        let next =
            self.again.front().map(|again| again.due.saturating_duration_since(Instant::now()));
        let timeout = next.and_then(|next| Timespec::try_from(next).ok());
        let [arp, solicitations] = &self.sockets;
        let mut polled = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::new(arp, PollFlags::IN),
            PollFd::new(solicitations, PollFlags::IN),
        ];
        let waited = poll(&mut polled, timeout.as_ref());
        let [stop, ..] = &polled;
        !stop.revents().contains(PollFlags::IN)
            && matches!(waited, Ok(_) | Err(rustix::io::Errno::INTR))
    }

    fn answer(&mut self, socket: usize) {
        let mut buffer = [0; 256];
        while let Some(fd) = self.sockets.get(socket)
            && let Ok((length, _, Some(from))) =
                rustix::net::recvfrom(fd, &mut buffer, RecvFlags::empty())
        {
            let question = buffer.get(..length).and_then(Question::read);
            let Some(frame) = question.and_then(|question| self.decide(&question)) else {
                continue;
            };
            self.send(socket, &frame, &from);
            let now = Instant::now();
            for after in AGAIN {
                let again =
                    Again { due: now + after, socket, frame: frame.clone(), to: from.clone() };
                let at = self.again.partition_point(|other| other.due <= again.due);
                self.again.insert(at, again);
            }
        }
    }

    /// The answer, where the asker is to have one.
    fn decide(&self, question: &Question) -> Option<Vec<u8>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (router, record) = known.get(&question.asker)?;
        let target = question.target;
        let in_subnet = match target {
            IpAddr::V4(target) => record.subnet.ipv4.is_some_and(|block| block.contains(&target)),
            IpAddr::V6(target) => record.subnet.ipv6.iter().any(|block| block.contains(&target)),
        };
        let is_gateway = target == IpAddr::V6(GATEWAY_IPV6) || target == IpAddr::V4(METADATA_IPV4);
        let answers = (in_subnet && !record.holds(target)) || is_gateway;
        answers.then(|| question.answer(*router, is_gateway))
    }

    fn send(&self, socket: usize, frame: &[u8], to: &SocketAddrAny) {
        if let Some(socket) = self.sockets.get(socket) {
            // Fails where the port is gone.
            let _ = rustix::net::sendto(socket, frame, SendFlags::empty(), to);
        }
    }
}
