//! A stream of numbered packets there and back, and what of it was lost.

use super::{Echo, ProbeError, is_ready, make_room, open, try_send};
use crate::error::{Attempt, Result};
use crate::host::Host;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SocketType};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the last answers are waited for, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// A stream that is running: a UDP packet to an [`Echo`] at each interval.
#[derive(Debug)]
pub struct PacketStream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<StreamReport>>,
}

/// What came of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamReport {
    /// How many packets were sent.
    pub sent: u64,
    /// The numbers of those that had no answer, counted from 0.
    pub lost: Vec<u64>,
    /// The longest time without an answer, between the first and the last.
    pub longest_silence: Duration,
}

impl PacketStream {
    /// Starts sending from a host, bound to a source address where one is given.
    ///
    /// # Errors
    ///
    /// Where the source cannot be used.
    pub fn start(
        from: &Host,
        source: Option<IpAddr>,
        to: IpAddr,
        every: Duration,
    ) -> Result<Self, ProbeError> {
        let opened = from.run(|| open(source, to, SocketType::DGRAM));
        let socket = opened.map_err(|error| ProbeError::Host(error.to_string()))??;
        make_room(&socket);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("stream".to_owned());
        let thread = builder
            .spawn(move || run(&socket, to, every, &stopped))
            .attempt(|| "start a stream".to_owned())
            .map_err(|error| ProbeError::Host(error.to_string()))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Stops sending, waits for the last answers and reports.
    #[must_use]
    pub fn finish(mut self) -> StreamReport {
        self.end().unwrap_or_default()
    }

    fn end(&mut self) -> Option<StreamReport> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for PacketStream {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(socket: &OwnedFd, to: IpAddr, every: Duration, stop: &AtomicBool) -> StreamReport {
    let to = Echo::at(to);
    let mut answered: Vec<bool> = Vec::new();
    let mut longest_silence = Duration::ZERO;
    let mut last: Option<Instant> = None;
    let mut next = Instant::now();
    let mut end = None;
    loop {
        let now = Instant::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + PATIENCE);
        }
        let until = match end {
            Some(end) if now >= end || answered.iter().all(|answered| *answered) => break,
            Some(end) => end,
            None => {
                if now >= next {
                    try_send(socket, &(answered.len() as u64).to_be_bytes(), to);
                    answered.push(false);
                    // A thread that was not let run does not make up for it.
                    next = (next + every).max(now);
                }
                next
            }
        };
        if !matches!(is_ready(socket, PollFlags::IN, until), Ok(true)) {
            continue;
        }
        let mut number = [0; 8];
        while let Ok((length, _)) = rustix::net::recv(socket, &mut number, RecvFlags::empty()) {
            let number = usize::try_from(u64::from_be_bytes(number)).unwrap_or(usize::MAX);
            if length == 8
                && let Some(answered) = answered.get_mut(number)
            {
                *answered = true;
                let now = Instant::now();
                let silence = last.map(|last| now.duration_since(last)).unwrap_or_default();
                longest_silence = longest_silence.max(silence);
                last = Some(now);
            }
        }
    }
    let lost = (0_u64..).zip(&answered).filter(|(_, answered)| !**answered);
    StreamReport {
        sent: answered.len() as u64,
        lost: lost.map(|(number, _)| number).collect(),
        longest_silence,
    }
}
