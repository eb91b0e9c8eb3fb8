//! Everything that the kernel told while it was watched: what was there for an instant only shows
//! here, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use jackfield_kernel::{Monitor, Notification, RouteKind, RuleAction, Subject};
use jackfield_lab::Host;

/// The protocol of everything that is ours.
const OURS: u8 = 106;
const MAIN: u32 = 254;

/// Notes every rtnetlink notification of a host.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Vec<Seen>>>,
    thread: Option<JoinHandle<()>>,
}

/// One notification.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) subject: Subject,
    pub(crate) removed: bool,
}

/// An interface of which something may be ours, and what.
#[derive(Debug, Clone)]
pub(crate) struct Allowed {
    pub(crate) interface: u32,
    pub(crate) table: u32,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) prefixes: Vec<IpNet>,
}

impl Watch {
    pub(crate) fn start(host: &Host) -> Self {
        let mut monitor = host.run(Monitor::open).unwrap().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (stopped, sink) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut last = false;
            while !std::mem::replace(&mut last, stopped.load(Ordering::Relaxed)) {
                let told = monitor.receive(|notification| match notification {
                    Notification::Changed { subject, removed, .. } => {
                        sink.lock().unwrap().push(Seen { at: Instant::now(), subject, removed });
                    }
                    Notification::Lost => panic!("notifications were lost"),
                });
                told.unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Watch { stop, seen, thread: Some(thread) }
    }

    /// What was seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// What of it was ours.
    pub(crate) fn ours(&self) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(Seen::is_ours);
        seen
    }

    /// Stops, and says all that was seen.
    pub(crate) fn finish(mut self) -> Vec<Seen> {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the watch ended early");
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

impl Seen {
    pub(crate) fn is_ours(&self) -> bool {
        match &self.subject {
            Subject::Link(_) | Subject::Settings(_) => false,
            Subject::Address(address) => address.protocol == OURS,
            Subject::Route(route) => route.protocol == OURS,
            Subject::Rule(rule) => rule.protocol == OURS,
        }
    }
}

/// Fails where something of ours was there, be it for an instant, that is not one of these
/// interfaces' own: its addresses, in its table, through itself.
#[track_caller]
pub(crate) fn assert_only(seen: &[Seen], allowed: &[Allowed]) {
    for seen in seen.iter().filter(|seen| seen.is_ours()) {
        assert!(is_allowed(&seen.subject, allowed), "{:#?} is none of {allowed:#?}", seen.subject);
    }
}

fn is_allowed(subject: &Subject, allowed: &[Allowed]) -> bool {
    match subject {
        Subject::Link(_) | Subject::Settings(_) => true,
        Subject::Address(address) => allowed.iter().any(|own| {
            own.interface == address.interface && own.addresses.contains(&address.address.addr())
        }),
        Subject::Route(route) => {
            let through =
                |own: &Allowed| route.next_hops.iter().all(|hop| hop.interface == own.interface);
            // What becomes of packets to a prefix: its metric tells whose it is.
            let refuses = |own: &Allowed| {
                route.kind == RouteKind::Unreachable
                    && route.metric == 1 << 31 | own.interface
                    && own.prefixes.contains(&route.destination)
            };
            match route.table {
                MAIN if allowed.iter().any(refuses) => true,
                MAIN => !route.next_hops.is_empty() && allowed.iter().any(through),
                table => allowed.iter().any(|own| own.table == table && through(own)),
            }
        }
        Subject::Rule(rule) => match (rule.action, rule.source) {
            (RuleAction::Table(MAIN), None) => true,
            (RuleAction::Table(table), Some(source)) => {
                let leads_wrong = |own: &Allowed| {
                    own.table != table
                        && (own.addresses.iter().any(|ip| source.contains(ip))
                            || own.prefixes.iter().any(|net| source.contains(net)))
                };
                allowed.iter().any(|own| own.table == table) && !allowed.iter().any(leads_wrong)
            }
            (RuleAction::Goto(_) | RuleAction::Nop, _) => true,
            _ => false,
        },
    }
}

/// Fails where an address of ours was on two interfaces at one instant.
#[track_caller]
pub(crate) fn assert_never_on_two(seen: &[Seen]) {
    let mut holders: BTreeMap<IpAddr, BTreeSet<u32>> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.is_ours()) {
        let Subject::Address(address) = &seen.subject else { continue };
        let holders = holders.entry(address.address.addr()).or_default();
        if seen.removed {
            holders.remove(&address.interface);
        } else {
            holders.insert(address.interface);
        }
        assert!(holders.len() < 2, "{} was on {holders:?}", address.address);
    }
}
