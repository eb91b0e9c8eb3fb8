//! Listeners and the threads that serve them.

use super::Cloud;
use super::connection::Connection;
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// More connections than this at a time wait their turn.
const MOST_THREADS: usize = 1024;
const STACK: usize = 256 * 1024;

/// The running service. Dropped, it closes its listeners and connections, and every thread of it
/// has ended.
#[derive(Debug)]
pub struct Emulator {
    addresses: Vec<SocketAddr>,
    listeners: Vec<Arc<Listener>>,
    control: Arc<Control>,
}

/// One listener. Each of its threads accepts and serves by itself, so that no connection is
/// handed from one thread to another; the last idle one starts another before it gets busy.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    cloud: Cloud,
    control: Arc<Control>,
    idle: AtomicUsize,
}

/// Ends what runs.
#[derive(Debug, Default)]
pub(super) struct Control {
    running: Mutex<Running>,
    stopped: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    is_stopping: bool,
    threads: Vec<JoinHandle<()>>,
    streams: HashMap<u64, Arc<TcpStream>>,
    accepted: u64,
}

impl Emulator {
    /// Serves the cloud's metadata on these listeners, each in the namespace that it was bound in.
    ///
    /// # Errors
    ///
    /// Where a listener has no address, or no thread could be started.
    pub fn start(listeners: Vec<TcpListener>, cloud: Cloud) -> io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let control = Arc::new(Control::default());
        let listeners: Vec<_> = listeners
            .into_iter()
            .map(|socket| {
                let (cloud, control) = (cloud.clone(), Arc::clone(&control));
                Arc::new(Listener { socket, cloud, control, idle: AtomicUsize::new(0) })
            })
            .collect();
        // From here on a failure drops the emulator, and with it what was started.
        let emulator = Self { addresses, listeners, control };
        for listener in &emulator.listeners {
            listener.start_thread()?;
        }
        Ok(emulator)
    }

    /// Where it listens, in the order of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let threads = {
            let mut running = self.control.running();
            running.is_stopping = true;
            for stream in running.streams.values() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut running.threads)
        };
        self.control.stopped.notify_all();
        for listener in &self.listeners {
            // On Linux this ends every accept on the listener.
            let _ = rustix::net::shutdown(&listener.socket, rustix::net::Shutdown::Both);
        }
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Listener {
    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let mut running = self.control.running();
        if running.is_stopping || running.threads.len() >= MOST_THREADS {
            return Ok(());
        }
        let listener = Arc::clone(self);
        self.idle.fetch_add(1, Ordering::AcqRel);
        let builder = thread::Builder::new().name("metadata".to_owned()).stack_size(STACK);
        running.threads.push(builder.spawn(move || listener.work())?);
        Ok(())
    }

    fn work(self: &Arc<Self>) {
        loop {
            let accepted = self.socket.accept();
            if self.control.running().is_stopping {
                return;
            }
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, or the client is gone already.
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            if self.idle.fetch_sub(1, Ordering::AcqRel) == 1 {
                let _ = self.start_thread();
            }
            self.serve(stream);
            self.idle.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn serve(&self, stream: TcpStream) {
        let stream = Arc::new(stream);
        let Some(number) = self.control.enter(&stream) else { return };
        // A client that is gone, or says no HTTP, ends its connection and nothing else.
        let connection = Connection { stream: &stream, cloud: &self.cloud, control: &self.control };
        let _ = connection.serve();
        self.control.running().streams.remove(&number);
    }
}

impl Control {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection to be shut down at the end; none where the end has come.
    fn enter(&self, stream: &Arc<TcpStream>) -> Option<u64> {
        let mut running = self.running();
        if running.is_stopping {
            return None;
        }
        running.accepted += 1;
        let number = running.accepted;
        running.streams.insert(number, Arc::clone(stream));
        Some(number)
    }

    /// Sleeps, or fails where the end comes first.
    pub(super) fn sleep(&self, duration: Duration) -> io::Result<()> {
        if duration.is_zero() {
            return Ok(());
        }
        let goes_on = |running: &mut Running| !running.is_stopping;
        let slept = self.stopped.wait_timeout_while(self.running(), duration, goes_on);
        if slept.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            Ok(())
        } else {
            Err(io::ErrorKind::Interrupted.into())
        }
    }
}
