//! An instance in which an engine and the agent run, and those who ask the published port.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Plug, Violation};

use crate::engine::{Engine, PODMAN_NETWORKS};
use crate::harness::*;

/// How long one exchange may take on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(3);

/// How long somebody waits who asks all the time.
const IMPATIENCE: Duration = Duration::from_millis(50);
/// And between two questions.
const PAUSE: Duration = Duration::from_millis(10);
/// So many addresses that do not answer one client tell enough.
const ENOUGH: usize = 4;

/// An instance with a primary interface in subnet 1, and those who ask.
pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) near: [Instance; 2],
    /// Asks all the time, and nothing else: what was asked when there was no container stays as it
    /// was for that client and its port.
    pub(crate) far: Instance,
    /// Addresses of interfaces that were pulled, and how many packets were dropped until one was
    /// plugged again.
    pulled: RefCell<Vec<IpAddr>>,
    told: Cell<usize>,
}

impl Scene {
    /// With this reverse path filter on every interface, as the machine's administrator has it.
    pub(crate) fn new(reverse_path_filter: &str) -> Self {
        let stage = Stage::new();
        for which in ["all", "default", "eth0"] {
            let setting = format!("net/ipv4/conf/{which}/rp_filter");
            stage.a.set_sysctl(&setting, reverse_path_filter).unwrap();
        }
        let near = [0, 1].map(|subnet: usize| stage.lab.client(&stage.subnets[subnet]).unwrap());
        let far = stage.lab.client(&stage.subnets[2]).unwrap();
        Scene { stage, near, far, pulled: RefCell::default(), told: Cell::default() }
    }

    pub(crate) fn primary(&self) -> Attached {
        Attached::of(self.stage.a.primary(), 0)
    }

    /// Two interfaces in one subnet, and one in the primary's.
    pub(crate) fn plug_three(&self) -> [Attached; 3] {
        [(2, 1), (2, 2), (1, 3)].map(|(subnet, device)| {
            let attached = self.stage.attach(subnet, device, 1);
            self.is_configured(&attached);
            attached
        })
    }

    /// Pulls an interface. With it go its connections; a container that is just closing one does
    /// not know that.
    pub(crate) fn pull(&self, interface: &Attached) {
        self.pulled.borrow_mut().extend(&interface.addresses);
        self.stage.lab.detach(interface.mac).unwrap();
    }

    /// Plugs it in again.
    #[track_caller]
    pub(crate) fn plug_again(&self, interface: &Attached, device: u32) {
        assert_eq!(self.violations(), [], "before {} is plugged again", interface.name);
        self.told.set(self.stage.lab.violations().len());
        self.pulled.borrow_mut().retain(|address| !interface.addresses.contains(address));
        self.stage.lab.attach(&self.stage.a, interface.mac, &Plug::new(device)).unwrap();
        self.is_configured(interface);
    }

    /// Waits until an interface has all its addresses, and the kernel takes them for the host's: of
    /// IPv6 that is later, and what is asked in between goes elsewhere for good.
    pub(crate) fn is_configured(&self, interface: &Attached) {
        let a = &self.stage.a;
        configured_within(a, interface, PATIENCE);
        eventually("the addresses are local", PATIENCE, || {
            let routes = ["-4", "-6"].map(|family| format!("ip {family} route show table local;"));
            let routes = shell(a, &routes.concat());
            interface.addresses.iter().all(|address| routes.contains(&format!("local {address} ")))
        });
    }

    /// Waits until the agent has nothing to do, and the host forwards IPv6: while its own address on
    /// a bridge is looked for on others, it asks no container where it is.
    pub(crate) fn nothing_is_left_to_do(&self) {
        let a = &self.stage.a;
        eventually("nothing is left to do", PATIENCE, || {
            jackfield(a, &["plan"]).status.success()
                && shell(a, "ip -6 address show tentative").is_empty()
        });
    }

    /// What left by an interface whose address it does not have. Not what is still on its way to a
    /// container: netavark translates destinations before and after the bridge is there, and what
    /// comes in meanwhile goes out again by the default route.
    fn violations(&self) -> Vec<Violation> {
        let networks = PODMAN_NETWORKS.map(|network| network.parse::<IpNet>().unwrap());
        let mut violations = self.stage.lab.violations().split_off(self.told.get());
        violations.retain(|packet| !self.pulled.borrow().contains(&packet.source));
        violations.retain(|packet| !networks.iter().any(|net| net.contains(&packet.destination)));
        violations
    }

    /// Everybody asks every address of these interfaces by TCP and UDP, and is answered, by the
    /// interface that was asked: the cloud lets no other answer out.
    #[track_caller]
    pub(crate) fn everybody_is_answered_by(&self, interfaces: &[Attached], when: &str) {
        self.everybody_is_answered_where(|_, _| true, interfaces, when);
    }

    /// As [`Scene::everybody_is_answered_by`], of these addresses and transports alone.
    #[track_caller]
    pub(crate) fn everybody_is_answered_where(
        &self,
        asked: impl Fn(IpAddr, Transport) -> bool + Sync,
        interfaces: &[Attached],
        when: &str,
    ) {
        let asked = &asked;
        let clients = [
            ("the instance itself", &*self.stage.a),
            ("the remote host", self.stage.lab.remote()),
            ("a client in the primary's subnet", &*self.near[0]),
            ("a client in the subnet of two secondaries", &*self.near[1]),
        ];
        let failed: Vec<String> = std::thread::scope(|scope| {
            let asking = clients.map(|(name, client)| {
                scope.spawn(move || {
                    let unanswered = unanswered(client, interfaces, asked);
                    unanswered.into_iter().map(move |what| format!("{name}: {what}\n"))
                })
            });
            asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let violations = self.violations();
        if !failed.is_empty() {
            let dropped: Vec<String> =
                violations.iter().take(ENOUGH).map(|packet| format!("{packet:?}\n")).collect();
            let ours = shell(&self.stage.a, "ip rule; ip -6 rule; nft list tables || true");
            let (failed, dropped) = (failed.concat(), dropped.concat());
            panic!("{when}:\n{failed}dropped by the cloud:\n{dropped}{ours}");
        }
        assert_eq!(violations, [], "{when}");
    }

    /// The container begins connections of its own: to others, and to what is published.
    #[track_caller]
    pub(crate) fn the_container_reaches_everybody(
        &self,
        engine: &Engine<'_>,
        published: &[Attached],
        when: &str,
    ) {
        let near = self.near.iter().flat_map(|client| client.primary().addresses());
        let others: Vec<IpAddr> =
            [Lab::REMOTE_IPV4, Lab::REMOTE_IPV6].into_iter().chain(near).collect();
        let published: Vec<IpAddr> =
            published.iter().flat_map(|interface| interface.addresses.clone()).collect();
        let mut answers = Transport::ALL.map(|transport| engine.asks(&others, transport)).to_vec();
        if engine.kind().lets_a_container_reach_itself() {
            // By UDP docker-proxy answers from another address than was asked.
            answers.push(engine.asks(&published, Transport::Tcp));
        }
        let violations = self.violations();
        assert!(answers.iter().all(Result::is_ok), "{when}: {answers:#?}, {violations:#?}");
    }
}

/// Which addresses do not answer whoever asks from there, and how.
fn unanswered(
    from: &Host,
    interfaces: &[Attached],
    asked: &impl Fn(IpAddr, Transport) -> bool,
) -> Vec<String> {
    let mut failed = Vec::new();
    for interface in interfaces {
        for address in &interface.addresses {
            for transport in Transport::ALL.into_iter().filter(|by| asked(*address, *by)) {
                if let Err(error) = probe(from, None, Echo::at(*address), transport, ANSWER) {
                    let name = &interface.name;
                    failed.push(format!("{address} of {name} by {transport:?}: {error}"));
                    if failed.len() >= ENOUGH {
                        return failed;
                    }
                }
            }
        }
    }
    failed
}

/// Does something while a host asks again and again, each time by a new connection. Meanwhile some
/// may be answered and some may not; but whatever is said in answer must come by the right path.
pub(crate) fn while_asked<T>(from: &Host, interfaces: &[Attached], work: impl FnOnce() -> T) -> T {
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = End(&over);
        scope.spawn(|| {
            let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
            let all = addresses.flat_map(|address| Transport::ALL.map(|by| (*address, by)));
            for (address, transport) in all.collect::<Vec<_>>().into_iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                let _ = probe(from, None, Echo::at(address), transport, IMPATIENCE);
                std::thread::sleep(PAUSE);
            }
        });
        work()
    })
}
