//! The moment at which an address answers for the first time.
//!
//! Asked by ICMP echo, which the kernel of the asked one answers by itself: an answer shows that
//! the address is there and that packets from it find their way out.

use super::{is_ready, try_send};
use crate::error::{Attempt, Result};
use crate::fabric::checksum;
use crate::host::Host;
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Addresses that are asked over and over until each has answered.
#[derive(Debug)]
pub struct FirstAnswers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<BTreeMap<IpAddr, Instant>>>,
}

static WATCHES: AtomicU16 = AtomicU16::new(1);

impl FirstAnswers {
    /// Starts asking from a host: each address that has not answered yet once in each interval.
    ///
    /// # Errors
    ///
    /// Where the host gives no raw socket.
    pub fn watch(from: &Host, addresses: &[IpAddr], every: Duration) -> Result<Self> {
        let attempt = || format!("ask from '{}'", from.name());
        let sockets = from.run(open)?.attempt(attempt)?;
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            sockets,
            id: WATCHES.fetch_add(1, Ordering::Relaxed),
            addresses: addresses.to_vec(),
            answered: BTreeMap::new(),
        };
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("first-answer".to_owned());
        let thread = builder.spawn(move || watch.run(every, &stopped)).attempt(attempt)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Waits until all have answered or the time is over, and says when each did.
    #[must_use]
    pub fn wait(mut self, timeout: Duration) -> BTreeMap<IpAddr, Instant> {
        let end = Instant::now() + timeout;
        while let Some(thread) = &self.thread
            && !thread.is_finished()
            && Instant::now() < end
        {
            std::thread::sleep(Duration::from_micros(500));
        }
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<BTreeMap<IpAddr, Instant>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for FirstAnswers {
    fn drop(&mut self) {
        self.end();
    }
}

/// A raw socket for each family.
fn open() -> rustix::io::Result<[OwnedFd; 2]> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let raw = SocketType::RAW;
    Ok([
        rustix::net::socket_with(AddressFamily::INET, raw, flags, Some(ipproto::ICMP))?,
        rustix::net::socket_with(AddressFamily::INET6, raw, flags, Some(ipproto::ICMPV6))?,
    ])
}

struct Watch {
    sockets: [OwnedFd; 2],
    id: u16,
    addresses: Vec<IpAddr>,
    answered: BTreeMap<IpAddr, Instant>,
}

impl Watch {
    fn run(mut self, every: Duration, stop: &AtomicBool) -> BTreeMap<IpAddr, Instant> {
        while !stop.load(Ordering::Relaxed) && self.answered.len() < self.addresses.len() {
            let next = Instant::now() + every;
            for (number, address) in (0_u16..).zip(&self.addresses) {
                if !self.answered.contains_key(address) {
                    self.ask(*address, number);
                }
            }
            // The rest of the interval belongs to the answers.
            loop {
                self.listen();
                let [ipv4, ipv6] = &self.sockets;
                let now = Instant::now();
                if now >= next || self.answered.len() >= self.addresses.len() {
                    break;
                }
                let half = now + (next - now).min(Duration::from_micros(50));
                let _ = is_ready(ipv4, PollFlags::IN, half);
                let _ = is_ready(ipv6, PollFlags::IN, Instant::now());
            }
        }
        self.answered
    }

    fn ask(&self, address: IpAddr, number: u16) {
        let [ipv4, ipv6] = &self.sockets;
        let (kind, socket) = if address.is_ipv4() { (8, ipv4) } else { (128, ipv6) };
        let [id, number] = [self.id, number].map(u16::to_be_bytes);
        let mut message = vec![kind, 0, 0, 0, id[0], id[1], number[0], number[1]];
        if address.is_ipv4() {
            // The kernel sums up IPv6 by itself.
            let sum = checksum(&message).to_be_bytes();
            message.splice(2..4, sum);
        }
        try_send(socket, &message, SocketAddr::new(address, 0));
    }

    fn listen(&mut self) {
        let mut buffer = [0; 256];
        for (socket, kind) in self.sockets.iter().zip([0, 129]) {
            while let Ok((length, _)) = rustix::net::recv(socket, &mut buffer, RecvFlags::empty()) {
                let packet = buffer.get(..length).unwrap_or_default();
                // An IPv4 raw socket gives the packet with its header.
                let header = match (kind, packet.first()) {
                    (0, Some(first)) => usize::from(first & 0xf) * 4,
                    _ => 0,
                };
                let Some(&[first, _, _, _, id_a, id_b, number_a, number_b]) =
                    packet.get(header..header + 8)
                else {
                    continue;
                };
                let number = usize::from(u16::from_be_bytes([number_a, number_b]));
                if first == kind
                    && u16::from_be_bytes([id_a, id_b]) == self.id
                    && let Some(address) = self.addresses.get(number)
                {
                    self.answered.entry(*address).or_insert_with(Instant::now);
                }
            }
        }
    }
}
