//! One interface, plugged into two instances in turn.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use jackfield_kernel::{EthernetAddress, Neighbour, NeighbourKind, Request};
use jackfield_lab::emulator::CloudInterface;
use jackfield_lab::probe::FirstAnswers;
use jackfield_lab::{Lab, Plug};

use crate::Failure;
use crate::contestant::Contestant;
use crate::files::Files;
use crate::state;

/// Pairs that are not counted.
pub(crate) const WARM_UP: usize = 3;
/// How often the last address of each family is asked.
const EVERY: Duration = Duration::from_micros(100);
const PATIENCE: Duration = Duration::from_secs(10);
/// How often all addresses are asked at the end.
const SWEEP: Duration = Duration::from_millis(100);
/// So that a client that limits its requests to so many a second does not have to wait.
const PAUSE: Duration = Duration::from_millis(100);
/// The gateway of every IPv6 subnet of EC2.
const IPV6_GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0xec2, 0, 0, 0, 0, 0, 1);

/// One plug, measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// From the interface's appearance to the last answer.
    pub(crate) time: Duration,
    /// Requests to the metadata service until then.
    pub(crate) requests: usize,
}

/// A plug of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) jackfield: Measured,
    pub(crate) floor: Measured,
}

/// jackfield and the floor, and the interface.
pub(crate) struct Contest {
    pub(crate) jackfield: Contestant,
    floor: Contestant,
    interface: CloudInterface,
    /// The router's link-layer address, once known.
    gateway: Option<EthernetAddress>,
    /// The state after a plug.
    plugged: Option<BTreeSet<String>>,
    // Behind the instances, which it holds up.
    pub(crate) lab: Lab,
}

impl Contest {
    /// Starts both, with an interface of so many addresses of each family.
    pub(crate) fn start(files: &Files, addresses: u32, udev: bool) -> Result<Self, Failure> {
        let lab = Lab::start()?;
        let mut instances =
            [lab.instance("a", &lab.subnet(1))?, lab.instance("b", &lab.subnet(1))?];
        if udev {
            for instance in &mut instances {
                instance.start_udev(&[])?;
            }
        }
        let [a, b] = instances;
        let log = |who: &str| {
            files.log(&format!("{who}-{addresses}{}", if udev { "-udevd" } else { "" }))
        };
        let configuration = files.configuration.to_string_lossy().into_owned();
        let arguments: &[&str] = &["--config", &configuration, "run"];
        let program = (files.jackfield.as_path(), arguments);
        let jackfield = Contestant::start("jackfield", &lab, a, program, log("jackfield"))?;
        let arguments: &[&str] = if udev { &["--udev"] } else { &[] };
        let program = (files.floor.as_path(), arguments);
        let floor = Contestant::start("the floor", &lab, b, program, log("floor"))?;
        let interface = lab.interface(&lab.subnet(2), addresses)?;
        Ok(Contest { jackfield, floor, interface, gateway: None, plugged: None, lab })
    }

    fn contestant(&self, who: Who) -> &Contestant {
        match who {
            Who::Jackfield => &self.jackfield,
            Who::Floor => &self.floor,
        }
    }

    /// Measures so many pairs.
    pub(crate) fn run(&mut self, pairs: usize) -> Result<Vec<Pair>, Failure> {
        let mut measured = Vec::new();
        for number in 0..WARM_UP + pairs {
            let jackfield = self.turn(Who::Jackfield)?;
            let floor = self.turn(Who::Floor)?;
            if number >= WARM_UP {
                measured.push(Pair { jackfield, floor });
            }
        }
        let violations = self.lab.violations();
        if let Some(first) = violations.first() {
            let count = violations.len();
            return Err(format!("{count} packets left by a wrong interface: {first:?}").into());
        }
        Ok(measured)
    }

    /// Plugs, measures, compares, unplugs.
    fn turn(&mut self, who: Who) -> Result<Measured, Failure> {
        let measured = self.plug(who)?;
        let contestant = match who {
            Who::Jackfield => &mut self.jackfield,
            Who::Floor => &mut self.floor,
        };
        match &self.plugged {
            Some(state) => contestant.reaches(state)?,
            None => {
                std::thread::sleep(Duration::from_millis(500));
                self.plugged = Some(contestant.state()?);
            }
        }
        self.lab.detach(self.interface.mac)?;
        contestant.is_empty()?;
        std::thread::sleep(PAUSE);
        Ok(measured)
    }

    fn plug(&mut self, who: Who) -> Result<Measured, Failure> {
        let contestant = self.contestant(who);
        let mark = self.lab.cloud().request_count();
        let last: Vec<IpAddr> = [
            self.interface.ipv4.iter().max().map(|ip| IpAddr::V4(*ip)),
            self.interface.ipv6.iter().max().map(|ip| IpAddr::V6(*ip)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let watch = FirstAnswers::watch(self.lab.remote(), &last, EVERY)?;
        let plugged = self.lab.attach(&contestant.instance, self.interface.mac, &Plug::new(1))?;
        self.introduce_gateways(who, &plugged.name)?;
        let contestant = self.contestant(who);
        let answers = watch.wait(PATIENCE);
        let no_answer = || {
            let (name, log) = (contestant.name, contestant.log.display());
            format!("{name}: not every address answers: see {log}")
        };
        let mut end = *answers.values().max().ok_or_else(no_answer)?;
        if answers.len() < last.len() {
            return Err(no_answer().into());
        }
        // The others were there as well, if each answers the first time it is asked. Otherwise the
        // last of them is the last.
        let all: Vec<IpAddr> = self.interface.addresses().collect();
        let began = Instant::now();
        let answers = FirstAnswers::watch(self.lab.remote(), &all, SWEEP)?.wait(PATIENCE);
        if answers.len() < all.len() {
            return Err(no_answer().into());
        }
        if let Some(late) = answers.values().max().filter(|at| **at > began + SWEEP / 2) {
            end = *late;
        }
        let requests = self.lab.cloud().requests_since(mark);
        let own = |id: &Option<String>| id.as_deref() == Some(contestant.instance.id());
        let requests = requests.iter().filter(|r| own(&r.instance) && r.at <= end).count();
        Ok(Measured { time: end.saturating_duration_since(plugged.appeared), requests })
    }

    /// Tells the instance the router's link-layer address, so that no address resolution, of which
    /// a veth pair sometimes loses the first packet, blurs the time. Lists of devices wait for the
    /// lock that the changes of devices hold: as a rule they are done without.
    fn introduce_gateways(&mut self, who: Who, name: &str) -> Result<(), Failure> {
        let contestant = match who {
            Who::Jackfield => &mut self.jackfield,
            Who::Floor => &mut self.floor,
        };
        // A namespace numbers its devices one after another.
        if let (Some(index), Some(mac)) = (contestant.next_index, self.gateway) {
            contestant.next_index = Some(index.saturating_add(1));
            let requests = introduction(&self.interface, index, mac);
            if contestant.instance.apply("introduce the gateways", &requests).is_ok() {
                return Ok(());
            }
        }
        let link = contestant.instance.link(name)?;
        contestant.next_index = Some(link.index.saturating_add(1));
        let ports = self.lab.with_router(|router| router.links())?;
        let port = ports.iter().find(|port| Some(port.index) == link.lower);
        let mac = port.and_then(|port| port.address).ok_or("the interface has no port")?;
        self.gateway = Some(mac);
        let requests = introduction(&self.interface, link.index, mac);
        contestant.instance.apply("introduce the gateways", &requests)?;
        Ok(())
    }

    /// Leaves the interface plugged into jackfield's instance.
    pub(crate) fn leave_plugged(&mut self) -> Result<(), Failure> {
        self.plug(Who::Jackfield)?;
        if let Some(state) = &self.plugged {
            self.jackfield.reaches(state)?;
        }
        Ok(())
    }

    /// The difference between what is and what a plug leads to, in words; empty where there is
    /// none.
    pub(crate) fn drift(&mut self) -> Result<String, Failure> {
        let is = self.jackfield.state()?;
        Ok(self.plugged.as_ref().map(|wanted| state::difference(&is, wanted)).unwrap_or_default())
    }
}

/// Neighbour entries for the gateways of both families.
fn introduction(interface: &CloudInterface, index: u32, mac: EthernetAddress) -> Vec<Request> {
    let router = interface
        .subnet
        .ipv4
        .map(|subnet| Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1)).into());
    let kind = NeighbourKind::Permanent(mac);
    [Some(IpAddr::V6(IPV6_GATEWAY)), router]
        .into_iter()
        .flatten()
        .map(|address| Neighbour { interface: index, address, kind }.set())
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Who {
    Jackfield,
    Floor,
}
