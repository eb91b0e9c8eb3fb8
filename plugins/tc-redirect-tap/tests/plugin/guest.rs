//! A guest without a VM: a program that opens the tap as Firecracker does, and answers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use jackfield_kernel::{Namespace, Tap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// `struct virtio_net_hdr` before each frame.
const HEADER: usize = 10;
const ETHERNET: usize = HEADER + 14;

/// Answers ARP requests for an address, and sends each UDP packet back to whom it came from.
pub(crate) struct Guest {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    pub(crate) fn start(sandbox: &Namespace, tap: &str, mac: [u8; 6], address: Ipv4Addr) -> Self {
        let tap = sandbox.run(|| Tap::open(tap).unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || serve(tap, mac, address, &stopped));
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

fn serve(mut tap: Tap, mac: [u8; 6], address: Ipv4Addr, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let ready = poll(&mut [PollFd::new(&tap.as_fd(), PollFlags::IN)], Some(&wait));
        if ready != Ok(1) {
            continue;
        }
        // Deleted under us.
        let Ok(length) = tap.read(&mut buffer) else { return };
        if let Some(answer) = answer(&buffer[..length], mac, address) {
            let _ = tap.write_all(&answer);
        }
    }
}

fn answer(frame: &[u8], mac: [u8; 6], address: Ipv4Addr) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    answer[..HEADER].fill(0);
    let sender: [u8; 6] = frame.get(HEADER + 6..HEADER + 12)?.try_into().ok()?;
    answer[HEADER..HEADER + 6].copy_from_slice(&sender);
    answer[HEADER + 6..HEADER + 12].copy_from_slice(&mac);
    let body = frame.get(ETHERNET..)?;
    let out = &mut answer[ETHERNET..];
    match frame.get(HEADER + 12..ETHERNET)? {
        [0x08, 0x06] if body.get(6..8)? == [0, 1] && body.get(24..28)? == address.octets() => {
            out[7] = 2;
            out[18..28].copy_from_slice(&body[8..18]);
            out[8..14].copy_from_slice(&mac);
            out[14..18].copy_from_slice(&address.octets());
        }
        // Without options, and to us. What is swapped leaves both checksums as they are.
        [0x08, 0x00]
            if body.first()? == &0x45 && body[9] == 17 && body[16..20] == address.octets() =>
        {
            out[12..16].copy_from_slice(&body[16..20]);
            out[16..20].copy_from_slice(&body[12..16]);
            out[20..22].copy_from_slice(&body[22..24]);
            out[22..24].copy_from_slice(&body[20..22]);
        }
        _ => return None,
    }
    Some(answer)
}

/// Sends a datagram of so many octets to a guest, and waits for it to come back.
pub(crate) fn reaches(host: &Namespace, guest: IpAddr, octets: usize) -> bool {
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let sent = vec![7; octets];
        let mut back = vec![0; octets + 1];
        (0..10).any(|_| {
            let _ = socket.send_to(&sent, SocketAddr::new(guest, 7));
            socket.recv(&mut back).is_ok_and(|length| back[..length] == sent)
        })
    };
    host.run(ask).unwrap()
}
