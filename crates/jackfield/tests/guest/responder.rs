//! A guest without a VM: a program that opens the tap as Firecracker does, and answers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jackfield_kernel::{Namespace, Tap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// `struct virtio_net_hdr` before each frame.
const HEADER: usize = 10;
const BODY: usize = HEADER + 14;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// Answers who asks for its addresses' link-layer address, and sends each UDP packet back to whom it
/// came from.
pub(crate) struct Guest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

struct Identity {
    mac: [u8; 6],
    addresses: Vec<IpAddr>,
}

impl Guest {
    pub(crate) fn start(tap: Tap, mac: &str, addresses: Vec<IpAddr>) -> Self {
        let octets = mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
        let mac = octets.collect::<Vec<_>>().try_into().unwrap();
        let identity = Identity { mac, addresses };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(tap, &identity, &stopped));
        Guest { stop, thread: Some(thread) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut tap: Tap, identity: &Identity, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    while !stop.load(Ordering::Relaxed) {
        if poll(&mut [PollFd::new(&tap.as_fd(), PollFlags::IN)], Some(&wait)) != Ok(1) {
            continue;
        }
        // Deleted under us.
        let Ok(length) = tap.read(&mut buffer) else { return };
        if let Some(answer) = identity.answer(&buffer[..length]) {
            let _ = tap.write_all(&answer);
        }
    }
}

impl Identity {
    fn answer(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let body = match frame.get(HEADER + 12..BODY)? {
            [0x08, 0x06] => self.arp(frame.get(BODY..)?)?,
            [0x08, 0x00] => self.udp(frame.get(BODY..)?, 20, 9, 12, 4)?,
            [0x86, 0xdd] if *frame.get(BODY + 6)? == ICMPV6 => {
                self.neighbour(frame.get(BODY..)?)?
            }
            [0x86, 0xdd] => self.udp(frame.get(BODY..)?, 40, 6, 8, 16)?,
            _ => return None,
        };
        let mut answer = vec![0; HEADER];
        answer.extend_from_slice(frame.get(HEADER + 6..HEADER + 12)?);
        answer.extend_from_slice(&self.mac);
        answer.extend_from_slice(frame.get(HEADER + 12..BODY)?);
        answer.extend_from_slice(&body);
        Some(answer)
    }

    fn has(&self, address: &[u8]) -> bool {
        self.addresses.iter().any(|it| match it {
            IpAddr::V4(it) => it.octets() == address,
            IpAddr::V6(it) => it.octets() == address,
        })
    }

    fn arp(&self, body: &[u8]) -> Option<Vec<u8>> {
        if body.get(6..8)? != [0, 1] || !self.has(body.get(24..28)?) {
            return None;
        }
        let mut out = body.to_vec();
        out[7] = 2;
        out[18..28].copy_from_slice(&body[8..18]);
        out[8..14].copy_from_slice(&self.mac);
        out[14..18].copy_from_slice(&body[24..28]);
        Some(out)
    }

    /// What is swapped leaves all checksums as they are.
    fn udp(
        &self,
        body: &[u8],
        header: usize,
        protocol: usize,
        at: usize,
        long: usize,
    ) -> Option<Vec<u8>> {
        let to = body.get(at + long..at + 2 * long)?;
        if *body.get(protocol)? != UDP || !self.has(to) {
            return None;
        }
        let mut out = body.to_vec();
        out[at..at + long].copy_from_slice(to);
        out[at + long..at + 2 * long].copy_from_slice(&body[at..at + long]);
        out[header..header + 2].copy_from_slice(body.get(header + 2..header + 4)?);
        out[header + 2..header + 4].copy_from_slice(body.get(header..header + 2)?);
        Some(out)
    }

    fn neighbour(&self, body: &[u8]) -> Option<Vec<u8>> {
        let target = body.get(48..64)?;
        if *body.get(40)? != NEIGHBOUR_SOLICITATION || !self.has(target) {
            return None;
        }
        let mut out = body.get(..40)?.to_vec();
        // Type, code, checksum, flags (solicited, override), target, its link-layer address.
        let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0];
        message.extend_from_slice(target);
        message.extend_from_slice(&[2, 1]);
        message.extend_from_slice(&self.mac);
        out[4..6].copy_from_slice(&u16::try_from(message.len()).unwrap().to_be_bytes());
        out[8..24].copy_from_slice(target);
        out[24..40].copy_from_slice(&body[8..24]);
        let checksum = checksum(&out[8..40], &message);
        message[2..4].copy_from_slice(&checksum.to_be_bytes());
        out.extend_from_slice(&message);
        Some(out)
    }
}

/// Of an ICMPv6 message, with the addresses of its pseudo header.
fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = addresses.chunks(2).chain(message.chunks(2));
    let mut sum: u32 = words.map(|it| u32::from(u16::from_be_bytes([it[0], it[1]]))).sum();
    sum += u32::try_from(message.len()).unwrap() + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// How long an answer to one datagram is waited for.
const WAIT: Duration = Duration::from_millis(500);

/// Sends a datagram of so many octets to a guest, again and again, until it comes back or the time is
/// over.
pub(crate) fn reaches(from: &Namespace, guest: IpAddr, octets: usize, patience: Duration) -> bool {
    let any: IpAddr =
        if guest.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let ask = || {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        let sent = vec![7; octets];
        let mut back = vec![0; octets + 1];
        // The first packets wait for the neighbour, and for duplicate address detection.
        (0..patience.div_duration_f64(WAIT) as usize).any(|_| {
            let _ = socket.send_to(&sent, SocketAddr::new(guest, 7));
            socket.recv(&mut back).is_ok_and(|length| back[..length] == sent)
        })
    };
    from.run(ask).unwrap()
}
