//! VMs without a VM: a network stack of its own behind a real tap.

use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use jackfield_kernel::Tap;
use jackfield_lab::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A guest whose `eth0` is the other end of a tap of its host's, as with the network card of a VM: a
/// program has the tap open, and carries each frame.
pub(crate) struct Vm {
    guest: Host,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Vm {
    /// Both ends are down.
    pub(crate) fn behind(host: &Host, tap: &str) -> Self {
        let guest = Host::new(tap).unwrap();
        let open = |host: &Host, name: &str| host.run(|| Tap::create(Some(name))).unwrap().unwrap();
        let ends = [open(host, tap), open(&guest, "eth0")];
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || carry(ends, &stopped));
        Vm { guest, stop, thread: Some(thread) }
    }
}

impl Deref for Vm {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.guest
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is read from one end is written to the other: a frame behind its `struct virtio_net_hdr`,
/// which is the same for both.
fn carry(mut ends: [Tap; 2], stop: &AtomicBool) {
    let mut frame = [0; 65_536];
    let wait = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let ready = {
            let [one, other] = &ends;
            let mut polled = [one, other].map(|end| PollFd::new(end, PollFlags::IN));
            let _ = poll(&mut polled, Some(&wait));
            polled.map(|end| end.revents().contains(PollFlags::IN))
        };
        for (number, _) in ready.iter().enumerate().filter(|(_, ready)| **ready) {
            // Deleted under us.
            let Ok(length) = ends[number].read(&mut frame) else { return };
            // Fails while that end is down.
            let _ = ends[1 - number].write_all(&frame[..length]);
        }
    }
}
