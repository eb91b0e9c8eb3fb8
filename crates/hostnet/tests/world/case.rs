//! A random machine in a random cloud, with a history.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jackfield_hostnet::config::{Config, InterfaceOverride, MainRoute, Match, Mtu, Prefixes};
use jackfield_hostnet::{
    Change, Cloud, Desired, Edit, Forwarding, InterfaceRef, MAIN, Memory, OURS, Plan,
    REVERSE_PATH_FILTER, Scope, Snapshot, desired, plan,
};
use jackfield_kernel::{
    Address, AddressFlags, Family, Link, MarksTable, NextHop, Route, RouteKind, Rule, RuleAction,
};
use jackfield_metadata::{InterfaceFacts, InterfaceId, Known, Listing, MacAddr, Problem};

use super::dice::Dice;
use super::kernel::{Kernel, link};

pub(crate) const PRIMARY: u32 = 2;
pub(crate) const HALF_A_MINUTE: Duration = Duration::from_secs(31);
pub(crate) const BRIDGE: u32 = 7;
const PORT: u32 = 8;

const SUBNETS: [&str; 3] = ["10.0.0.0/20", "10.0.16.0/20", "10.0.32.0/24"];
const SUBNETS6: [&str; 3] = ["2001:db8:0:0::/64", "2001:db8:0:1::/64", "2001:db8:0:2::/64"];

/// One interface as the cloud really has it, whatever metadata says.
#[derive(Debug, Clone)]
pub(crate) struct Eni {
    pub(crate) mac: MacAddr,
    pub(crate) index: u32,
    pub(crate) device: u32,
    pub(crate) card: Option<u32>,
    pub(crate) subnet: usize,
    pub(crate) ipv4: Vec<Ipv4Addr>,
    pub(crate) ipv6: Vec<Ipv6Addr>,
    /// Delegated prefixes.
    pub(crate) prefixes: Vec<IpNet>,
}

/// What metadata said once, and what was configured then.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) config: Config,
    pub(crate) primary: Option<MacAddr>,
    pub(crate) facts: Vec<(MacAddr, Listing)>,
    /// How often metadata said it, half a minute apart.
    pub(crate) said: u32,
    /// How many changes of the plan were made before the process was killed.
    pub(crate) kill: u32,
}

/// What somebody else does to the machine.
#[derive(Debug, Clone)]
pub(crate) enum Meddling {
    Down(u32),
    Up(u32),
    Delete(u32),
    RemoveRule(u32),
    RemoveRoute(u32),
    RemoveAddress(u32),
    Enslave(u32),
    /// A lease on the address that the cloud names first.
    Lease(u32),
}

/// A case: a machine without anything of ours, its history, and what is known now.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) machine: Kernel,
    pub(crate) earlier: Vec<Round>,
    pub(crate) meddling: Vec<Meddling>,
    /// Whether the process that looks now has a memory of the earlier rounds.
    pub(crate) remembers: bool,
    pub(crate) now: Round,
}

/// What a case comes down to.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) kernel: Kernel,
    pub(crate) cloud: Cloud,
    pub(crate) config: Config,
}

/// What of a case shall be left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Without {
    /// What an interface's history leaves.
    pub(crate) history: bool,
    /// What the requests of the kernel crate cannot make: multipath and special routes.
    pub(crate) unmakeable: bool,
    /// Metadata that fails, lags or lies.
    pub(crate) noise: bool,
}

impl Scene {
    pub(crate) fn view(&self) -> Snapshot {
        self.kernel.view(&self.config.agent, &self.cloud)
    }

    pub(crate) fn think(&self, scope: &Scope) -> (Snapshot, Desired, Plan) {
        let snapshot = self.view();
        let desired = desired(&snapshot, &self.cloud, &self.config, scope);
        let plan = plan(&snapshot, &desired);
        (snapshot, desired, plan)
    }

    /// Plans and makes the changes until nothing is left to do; returns the plans that were made.
    pub(crate) fn settle(&mut self) -> Vec<Plan> {
        self.settle_in(&Scope::Everything)
    }

    pub(crate) fn settle_in(&mut self, scope: &Scope) -> Vec<Plan> {
        let mut made = Vec::new();
        loop {
            let (_, _, plan) = self.think(scope);
            if plan.is_empty() || made.len() > 6 {
                return made;
            }
            self.kernel.make(&plan);
            made.push(plan);
        }
    }
}

impl Case {
    pub(crate) fn draw(dice: &mut Dice, without: Without) -> Case {
        let mut enis = enis(dice);
        let machine = machine(dice, &enis, without);
        let mut config = config(dice, &enis);
        let mut earlier = Vec::new();
        let mut meddling = Vec::new();
        if !without.history {
            for _ in 0..dice.below(3) {
                let kill = if dice.chance(40) { dice.below(60) } else { u32::MAX };
                earlier.push(round(dice, &enis, &config, kill, without));
                if dice.chance(60) {
                    change_cloud(dice, &mut enis);
                }
                if dice.chance(15) {
                    let marked = machine.keeps_address_protocol;
                    change_config(dice, &mut config, marked);
                }
            }
            if dice.chance(50) {
                for _ in 0..=dice.below(3) {
                    let index = PRIMARY + 1 + dice.below(4);
                    let many = dice.below(40);
                    meddling.push(match dice.below(8) {
                        0 => Meddling::RemoveRule(many),
                        1 => Meddling::RemoveRoute(many),
                        2 => Meddling::RemoveAddress(many),
                        3 => Meddling::Down(index),
                        4 => Meddling::Up(index),
                        5 => Meddling::Delete(index),
                        6 => Meddling::Lease(index),
                        _ => Meddling::Enslave(index),
                    });
                }
            }
        }
        let remembers = dice.chance(50);
        let now = round(dice, &enis, &config, u32::MAX, without);
        Case { machine, earlier, meddling, remembers, now }
    }

    /// Lives through the case's history.
    pub(crate) fn scene(&self) -> Scene {
        let mut kernel = self.machine.clone();
        let mut memory = Memory::new();
        let mut at = Instant::now();
        for round in &self.earlier {
            let scene = Scene {
                cloud: learn(&mut memory, &kernel, round, at),
                kernel,
                config: round.config.clone(),
            };
            let (_, _, mut plan) = scene.think(&Scope::Everything);
            plan.changes.truncate(round.kill as usize);
            kernel = scene.kernel;
            kernel.make(&plan);
            at += HALF_A_MINUTE * round.said;
        }
        for meddling in &self.meddling {
            if let Some(deed) = meddling.deed(&kernel) {
                deed.happen(&mut kernel);
            }
        }
        if !self.remembers {
            memory = Memory::new();
        }
        let cloud = learn(&mut memory, &kernel, &self.now, at);
        Scene { kernel, cloud, config: self.now.config.clone() }
    }
}

pub(crate) fn learn(memory: &mut Memory, kernel: &Kernel, round: &Round, at: Instant) -> Cloud {
    memory.see(&kernel.view(&round.config.agent, &memory.cloud()));
    if let Some(primary) = round.primary {
        memory.learn_primary(primary);
    }
    for time in 0..round.said {
        let told = round.facts.iter().map(|(mac, listing)| (*mac, listing));
        memory.learn(at + HALF_A_MINUTE * time, told);
    }
    (*memory.cloud()).clone()
}

/// What a meddling comes down to on one machine.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Change(Change),
    Delete(u32),
    Enslave { port: u32, bridge: u32 },
}

impl Meddling {
    pub(crate) fn deed(&self, kernel: &Kernel) -> Option<Deed> {
        fn nth<T: Clone>(ours: Vec<&T>, many: u32) -> Option<T> {
            (!ours.is_empty()).then(|| ours[many as usize % ours.len()].clone())
        }
        let edit = match self {
            Meddling::Down(_) => Edit::Up { from: true, to: false },
            Meddling::Up(_) => Edit::Up { from: false, to: true },
            Meddling::Delete(index) => return Some(Deed::Delete(kernel.link(*index)?.index)),
            Meddling::Enslave(index) => {
                let (port, bridge) = (kernel.link(*index)?.index, kernel.link(BRIDGE)?.index);
                return Some(Deed::Enslave { port, bridge });
            }
            Meddling::RemoveRule(many) => {
                let ours = kernel.rules.iter().filter(|is| is.protocol == OURS).collect();
                Edit::RemoveRule(nth(ours, *many)?)
            }
            Meddling::RemoveRoute(many) => {
                // Without its marker, an address cannot be told from one of somebody else.
                let marker = |is: &&Route| is.kind == RouteKind::Blackhole;
                let ours = |is: &&Route| is.protocol == OURS && !marker(is);
                let ours = kernel.routes.iter().filter(ours).collect();
                Edit::RemoveRoute(nth(ours, *many)?)
            }
            Meddling::RemoveAddress(many) => {
                let ours = kernel.addresses.iter().filter(|is| is.protocol == OURS).collect();
                Edit::RemoveAddress(nth(ours, *many)?)
            }
            Meddling::Lease(index) => {
                let ours = |is: &&Address| is.interface == *index && is.protocol == OURS;
                let IpNet::V4(first) = kernel.addresses.iter().find(ours)?.address else {
                    return None;
                };
                let address = Ipv4Net::new(first.addr(), 20).unwrap();
                Edit::AddAddress(foreign(*index, address.into(), 0))
            }
        };
        let interface = match self {
            Meddling::Down(index) | Meddling::Up(index) => {
                let link = kernel.link(*index)?;
                Some(InterfaceRef { index: *index, name: link.name.clone(), mac: None })
            }
            _ => None,
        };
        Some(Deed::Change(Change { interface, edit }))
    }
}

impl Deed {
    pub(crate) fn happen(&self, kernel: &mut Kernel) {
        match self {
            Deed::Change(change) => {
                let _ = kernel.change(change);
            }
            Deed::Delete(index) => kernel.delete(*index),
            Deed::Enslave { port, bridge } => {
                kernel.link_mut(*port).unwrap().controller = Some(*bridge);
            }
        }
    }
}

fn subnet(of: usize) -> Ipv4Net {
    SUBNETS[of].parse().unwrap()
}

fn subnet6(of: usize) -> Ipv6Net {
    SUBNETS6[of].parse().unwrap()
}

fn ipv4(eni: usize, of: usize, number: u32) -> Ipv4Addr {
    let base = u32::from(subnet(of).network());
    Ipv4Addr::from(base + 10 + 16 * u32::try_from(eni).unwrap() + number)
}

fn ipv6(eni: usize, of: usize, number: u32) -> Ipv6Addr {
    let base = u128::from(subnet6(of).network());
    Ipv6Addr::from(base + 0x10 * (eni as u128 + 1) + u128::from(number))
}

/// A /28 or a /80 of the subnet.
fn prefix(eni: usize, of: usize, number: u32) -> IpNet {
    if number.is_multiple_of(2) {
        let base = u32::from(subnet(of).network()) + 96;
        let first = base + 16 * (2 * u32::try_from(eni).unwrap() + number / 2 % 2);
        Ipv4Net::new(first.into(), 28).unwrap().into()
    } else {
        let base = u128::from(subnet6(of).network());
        let first = base + ((eni as u128 + 1) << 56) + (u128::from(number) << 48);
        Ipv6Net::new(first.into(), 80).unwrap().into()
    }
}

fn enis(dice: &mut Dice) -> Vec<Eni> {
    let cards = dice.chance(25);
    let count = 1 + dice.below(5) as usize;
    (0..count)
        .map(|i| {
            let subnet = if i == 0 { 0 } else { dice.below(3) as usize };
            let second_card = cards && i > 1 && dice.chance(50);
            let numbers4 = if i > 0 && dice.chance(10) { 0 } else { 1 + dice.below(3) };
            let numbers6 = dice.below(3).max(u32::from(numbers4 == 0));
            let prefixes = if dice.chance(40) { 1 + dice.below(2) } else { 0 };
            let first = dice.below(4);
            Eni {
                prefixes: (first..first + prefixes).map(|n| prefix(i, subnet, n)).collect(),
                mac: MacAddr::from([2, 0xec, 0x20, 0, 0, u8::try_from(i).unwrap() + 1]),
                index: PRIMARY + u32::try_from(i).unwrap(),
                device: u32::try_from(i).unwrap(),
                card: cards.then_some(u32::from(second_card)),
                subnet,
                ipv4: (0..numbers4).map(|n| ipv4(i, subnet, n)).collect(),
                ipv6: (0..numbers6).map(|n| ipv6(i, subnet, n)).collect(),
            }
        })
        .collect()
}

/// Addresses come, go and move; a secondary may lose all that it had for others.
fn change_cloud(dice: &mut Dice, enis: &mut [Eni]) {
    for _ in 0..=dice.below(3) {
        let count = u32::try_from(enis.len()).unwrap();
        let (from, to) = (dice.below(count) as usize, dice.below(count) as usize);
        match dice.below(7) {
            0 => {
                let number = 3 + dice.below(4);
                let new = ipv4(to, enis[to].subnet, number);
                if !enis.iter().any(|eni| eni.ipv4.contains(&new)) {
                    enis[to].ipv4.push(new);
                }
            }
            1 if enis[from].ipv4.len() > 1 => {
                enis[from].ipv4.pop();
            }
            2 if enis[from].ipv4.len() > 1 => {
                let moved = enis[from].ipv4.pop().unwrap();
                enis[to].ipv4.push(moved);
            }
            3 => {
                if let Some(moved) = enis[from].ipv6.pop() {
                    enis[to].ipv6.push(moved);
                }
            }
            5 => {
                if let Some(moved) = enis[from].prefixes.pop() {
                    enis[to].prefixes.push(moved);
                }
            }
            6 => {
                let new = prefix(to, enis[to].subnet, 4 + dice.below(4));
                if !enis.iter().any(|eni| eni.prefixes.contains(&new)) {
                    enis[to].prefixes.push(new);
                }
            }
            4 if from > 0 => {
                let subnet = enis[from].subnet;
                enis[from].ipv4 = vec![ipv4(from, subnet, 8 + dice.below(4))];
            }
            _ => {}
        }
    }
}

fn config(dice: &mut Dice, enis: &[Eni]) -> Config {
    let mut config = Config::default();
    config.agent.device_kinds = vec!["veth".to_owned()];
    if dice.chance(15) {
        config.agent.link_group = 7;
    }
    config.defaults.mtu = match dice.below(4) {
        0 | 1 => Mtu::Primary,
        2 => Mtu::Keep,
        _ => Mtu::Octets(1400),
    };
    if dice.chance(25) {
        config.defaults.main_route = MainRoute::None;
    }
    if dice.chance(30) {
        config.defaults.prefixes = Prefixes::Local;
    }
    config.defaults.manage = !dice.chance(5);
    if dice.chance(25) {
        let eni = dice.one_of(enis).unwrap();
        let mut matches = Match::default();
        match dice.below(4) {
            0 => matches.mac = Some(eni.mac),
            1 => matches.device_number = Some(eni.device),
            2 => matches.interface_id = Some(interface_id(eni)),
            _ => matches.name = Some(name(eni)),
        }
        config.interfaces.push(InterfaceOverride {
            matches,
            manage: Some(!config.defaults.manage),
            mtu: Some(Mtu::Octets(1300)),
            main_route: None,
            containers: None,
            prefixes: dice.chance(50).then_some(Prefixes::Route),
            backend: None,
        });
    }
    config
}

fn change_config(dice: &mut Dice, config: &mut Config, change_base: bool) {
    match dice.below(4) {
        0 => config.agent.rule_priority = 15_000,
        1 if change_base => config.agent.table_base += dice.one_of(&[10_000, 1, 2]).unwrap(),
        2 => config.defaults.main_route = MainRoute::None,
        3 => config.defaults.manage = !config.defaults.manage,
        _ => config.defaults.mtu = Mtu::Keep,
    }
}

pub(crate) fn name(eni: &Eni) -> String {
    format!("ens{}", 3 + eni.index)
}

fn interface_id(eni: &Eni) -> InterfaceId {
    format!("eni-0{}", eni.device).parse().unwrap()
}

fn round(dice: &mut Dice, enis: &[Eni], config: &Config, kill: u32, without: Without) -> Round {
    let primary = (without.noise || !dice.chance(10)).then(|| enis[0].mac);
    let mut facts = Vec::new();
    for eni in enis {
        let noisy = !without.noise && dice.chance(35);
        if noisy && dice.chance(15) {
            facts.push((eni.mac, Listing::NotListed));
        } else if !(noisy && dice.chance(15)) {
            let mut truth = facts_of(eni);
            if noisy {
                disturb(dice, &mut truth, true);
            }
            facts.push((eni.mac, Listing::Listed(truth)));
        }
    }
    let said = if dice.chance(50) { 3 } else { 1 };
    Round { config: config.clone(), primary, facts, said, kill }
}

/// What metadata says of an interface when all is well.
pub(crate) fn facts_of(eni: &Eni) -> InterfaceFacts {
    fn listed<T: Clone>(list: &[T]) -> Known<Vec<T>> {
        if list.is_empty() { Known::Absent } else { Known::Value(list.to_vec()) }
    }
    let (mut ipv4_prefixes, mut ipv6_prefixes) = (Vec::new(), Vec::new());
    for prefix in &eni.prefixes {
        match prefix {
            IpNet::V4(prefix) => ipv4_prefixes.push(*prefix),
            IpNet::V6(prefix) => ipv6_prefixes.push(*prefix),
        }
    }
    InterfaceFacts {
        mac: eni.mac,
        interface_id: Known::Value(interface_id(eni)),
        device_number: Known::Value(eni.device),
        network_card: eni.card.map_or(Known::Absent, Known::Value),
        ipv4_addresses: listed(&eni.ipv4),
        ipv6_addresses: listed(&eni.ipv6),
        ipv4_prefixes: listed(&ipv4_prefixes),
        ipv6_prefixes: listed(&ipv6_prefixes),
        ipv4_subnet: if eni.ipv4.is_empty() {
            Known::Absent
        } else {
            Known::Value(subnet(eni.subnet))
        },
        ipv6_subnets: if eni.ipv6.is_empty() {
            Known::Absent
        } else {
            Known::Value(vec![subnet6(eni.subnet)])
        },
        problems: Vec::new(),
    }
}

/// Values that were not read and, where metadata may also lag, values that are not there yet.
pub(crate) fn disturb(dice: &mut Dice, facts: &mut InterfaceFacts, lags: bool) {
    let mut unread: Vec<&'static str> = Vec::new();
    macro_rules! disturb {
        ($field:ident, $key:literal) => {
            if dice.chance(20) {
                if lags && dice.chance(40) {
                    facts.$field = Known::Absent;
                } else {
                    facts.$field = Known::Unknown;
                    unread.push($key);
                }
            }
        };
    }
    disturb!(interface_id, "interface-id");
    disturb!(device_number, "device-number");
    disturb!(network_card, "network-card");
    disturb!(ipv4_addresses, "local-ipv4s");
    disturb!(ipv6_addresses, "ipv6s");
    disturb!(ipv4_prefixes, "ipv4-prefix");
    disturb!(ipv6_prefixes, "ipv6-prefix");
    disturb!(ipv4_subnet, "subnet-ipv4-cidr-block");
    disturb!(ipv6_subnets, "subnet-ipv6-cidr-blocks");
    if lags && dice.chance(20) {
        facts.device_number = Known::Value(0);
    }
    let problem = |key| Problem { key, reason: "no answer".to_owned() };
    facts.problems.extend(unread.into_iter().map(problem));
}

fn foreign(interface: u32, address: IpNet, protocol: u8) -> Address {
    let flags = AddressFlags {
        no_prefix_route: false,
        no_dad: address.addr().is_ipv6(),
        tentative: false,
        permanent: true,
        deprecated: false,
    };
    Address { interface, address, protocol, flags }
}

fn machine(dice: &mut Dice, enis: &[Eni], without: Without) -> Kernel {
    let mut kernel = Kernel::new();
    kernel.keeps_address_protocol = !dice.chance(25);
    let bridge = dice.chance(50);
    for eni in enis {
        let mut device = link(eni.index, &name(eni), Some("veth"), Some(eni.mac.octets()));
        if eni.index > PRIMARY && dice.chance(10) {
            // Listed already, and not here yet.
            device.address = Some([2, 0xee, 0, 0, 0, u8::try_from(eni.index).unwrap()]);
        }
        device.mtu = *dice.one_of(&[1500, 9001, 1400]).unwrap();
        if dice.chance(10) {
            device.alias = Some("uplink to rack 7".to_owned());
        }
        if dice.chance(6) {
            device.group = 5;
        }
        if dice.chance(10) {
            device.alternative_names.push(format!("enp{}s0", eni.index));
        }
        let up = eni.index == PRIMARY || dice.chance(40);
        kernel.links.push(device);
        let no_ipv6 = eni.index > PRIMARY && dice.chance(8);
        let accept = [1, 0];
        let (default, prefix) = (*dice.one_of(&accept).unwrap(), *dice.one_of(&accept).unwrap());
        kernel.settings_of(eni.index, default, prefix, i32::from(no_ipv6));
        others_on(dice, &mut kernel, eni, up, without);
    }
    if bridge {
        others_around(dice, &mut kernel);
    }
    others_rules(dice, &mut kernel, enis);
    if dice.chance(30) && !without.unmakeable {
        forwarding(dice, &mut kernel, enis);
    }
    kernel
}

/// Containers with published ports, and whatever reverse path filter.
fn forwarding(dice: &mut Dice, kernel: &mut Kernel, enis: &[Eni]) {
    let filter = |dice: &mut Dice| i32::try_from(dice.below(3)).unwrap();
    for eni in enis {
        kernel.settings.insert((eni.index, REVERSE_PATH_FILTER), filter(dice));
    }
    kernel.forwarding = Forwarding {
        on: !dice.chance(10),
        destination_nat: !dice.chance(10),
        reverse_path_filter: filter(dice),
        marks: Some(MarksTable::Absent),
    };
}

/// What somebody else has on a candidate.
fn others_on(dice: &mut Dice, kernel: &mut Kernel, eni: &Eni, up: bool, without: Without) {
    let index = eni.index;
    let is_primary = index == PRIMARY;
    let net = IpNet::V4(subnet(eni.subnet));
    let mut has_ipv4 = false;
    if let Some(first) = eni.ipv4.first()
        && (is_primary || dice.chance(30))
    {
        let address = Ipv4Net::new(*first, subnet(eni.subnet).prefix_len()).unwrap();
        let protocol = if dice.chance(20) { 3 } else { 0 };
        kernel.add_address(&foreign(index, address.into(), protocol)).unwrap();
        has_ipv4 = true;
    } else if dice.chance(10) {
        // One that the cloud does not know of.
        let address: IpNet = format!("192.168.{index}.9/24").parse().unwrap();
        kernel.add_address(&foreign(index, address, 0)).unwrap();
        has_ipv4 = true;
    }
    if !up {
        return;
    }
    kernel.up(index).unwrap();
    let ipv6_on = kernel.settings[&(index, jackfield_hostnet::DISABLE_IPV6)] == 0;
    if let (true, true, Some(first)) = (ipv6_on, dice.chance(30), eni.ipv6.first()) {
        let length = *dice.one_of(&[64, 128]).unwrap();
        let address = Ipv6Net::new(*first, length).unwrap();
        kernel.add_address(&foreign(index, address.into(), 0)).unwrap();
    }
    let gateway: IpAddr = Ipv4Addr::from(u32::from(subnet(eni.subnet).network()) + 1).into();
    let mut routes = Vec::new();
    if has_ipv4 {
        if is_primary {
            let metric = *dice.one_of(&[100, 0]).unwrap();
            let default = Family::V4.everything();
            routes.push(Route {
                metric,
                protocol: 16,
                ..Route::via_gateway(default, MAIN, index, gateway)
            });
        } else if dice.chance(30) {
            let metric = *dice.one_of(&[200, 10_050]).unwrap() + index;
            let default = Family::V4.everything();
            routes.push(Route {
                metric,
                protocol: 16,
                ..Route::via_gateway(default, MAIN, index, gateway)
            });
        }
        let destination: IpNet = format!("192.168.{}.0/24", 100 + index).parse().unwrap();
        if dice.chance(30) {
            routes.push(Route {
                protocol: 4,
                metric: *dice.one_of(&[0, 50]).unwrap(),
                mtu: dice.chance(30).then_some(1400),
                ..Route::via_gateway(destination, MAIN, index, gateway)
            });
        }
        if dice.chance(20) {
            let source = kernel.addresses.iter().rfind(|is| is.interface == index).unwrap();
            let source = source.address.addr();
            let destination: IpNet = format!("192.168.{}.0/25", 150 + index).parse().unwrap();
            routes.push(Route {
                protocol: 4,
                preferred_source: source.is_ipv4().then_some(source),
                ..Route::via_interface(destination, MAIN, index)
            });
        }
        if dice.chance(15) {
            // The same as a subnet route of ours, but for its metric.
            routes.push(Route {
                protocol: 4,
                metric: 77 + index,
                ..Route::via_interface(net, MAIN, index)
            });
        }
        if !without.unmakeable && !is_primary && dice.chance(20) {
            let hop = |interface| NextHop { interface, gateway: None, on_link: false };
            let destination: IpNet = format!("192.168.{}.0/24", 200 + index).parse().unwrap();
            routes.push(Route {
                protocol: 4,
                next_hops: vec![hop(PRIMARY), hop(index)],
                special: dice.chance(30),
                ..Route::via_interface(destination, MAIN, PRIMARY)
            });
        }
    }
    if ipv6_on && dice.chance(30) {
        let destination: IpNet = format!("2001:db8:ff:{index}::/64").parse().unwrap();
        routes.push(Route {
            protocol: 4,
            metric: 1024,
            ..Route::via_interface(destination, MAIN, index)
        });
    }
    if ipv6_on && is_primary {
        let gateway: IpAddr = "fe80::1".parse().unwrap();
        let default = Family::V6.everything();
        routes.push(Route {
            protocol: 16,
            metric: 1024,
            ..Route::via_gateway(default, MAIN, index, gateway)
        });
    }
    for route in routes {
        kernel.add_route(&route).unwrap();
    }
}

/// A bridge with a container behind it.
fn others_around(dice: &mut Dice, kernel: &mut Kernel) {
    let mut bridge = link(BRIDGE, "docker0", Some("bridge"), None);
    bridge.group = if dice.chance(5) { 106 } else { 0 };
    let mut port = link(PORT, "veth0", Some("veth"), Some([6, 0, 0, 0, 0, 1]));
    port.controller = Some(BRIDGE);
    kernel.links.extend([bridge, port]);
    let address = foreign(BRIDGE, "172.17.0.1/16".parse().unwrap(), 0);
    kernel.add_address(&address).unwrap();
    kernel.up(BRIDGE).unwrap();
    kernel.up(PORT).unwrap();
    let inside: IpAddr = "172.17.0.2".parse().unwrap();
    let mut routes = vec![Route {
        protocol: 4,
        ..Route::via_gateway("10.99.0.0/16".parse().unwrap(), MAIN, BRIDGE, inside)
    }];
    if dice.chance(10) {
        // Somebody uses a table that would be ours.
        let table = 10_000 + dice.below(5);
        routes.push(Route {
            protocol: 4,
            ..Route::via_interface("172.18.0.0/16".parse().unwrap(), table, BRIDGE)
        });
    }
    for route in routes {
        kernel.add_route(&route).unwrap();
    }
}

fn others_rules(dice: &mut Dice, kernel: &mut Kernel, enis: &[Eni]) {
    let table = RuleAction::Table;
    let mut rules = Vec::new();
    if dice.chance(20) {
        let source = Some("172.17.0.0/16".parse().unwrap());
        rules.push(Rule { source, protocol: 4, ..Rule::new(Family::V4, 1000, table(500)) });
    }
    if dice.chance(10) {
        rules.push(Rule { protocol: 4, ..Rule::new(Family::V6, 14_000, table(500)) });
    }
    if dice.chance(10) {
        rules.push(Rule { protocol: 4, ..Rule::new(Family::V4, 14_100, RuleAction::Unreachable) });
    }
    if let (true, Some(last)) = (dice.chance(10), enis.last())
        && let Some(first) = last.ipv4.first()
    {
        // As one of ours, by somebody else.
        let source = Some(IpNet::from(IpAddr::V4(*first)));
        let action = table(10_000 + last.device);
        rules.push(Rule { source, protocol: 4, ..Rule::new(Family::V4, 14_100, action) });
    }
    for rule in rules {
        kernel.add_rule(&rule).unwrap();
    }
}

/// The links by index.
pub(crate) fn links(kernel: &Kernel) -> BTreeMap<u32, &Link> {
    kernel.links.iter().map(|link| (link.index, link)).collect()
}

/// Whether a change takes something away.
pub(crate) fn removes(change: &Change) -> bool {
    match &change.edit {
        Edit::RemoveAddress(_) | Edit::RemoveRoute(_) | Edit::RemoveRule(_) => true,
        Edit::RemoveName(_) | Edit::Up { to: false, .. } => true,
        Edit::Alias { to, .. } => !to.as_ref().is_some_and(|to| to.starts_with("jackfield:")),
        _ => false,
    }
}
