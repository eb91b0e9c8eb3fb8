//! Random sources: addresses and prefixes of interfaces, clustered in subnets as a cloud gives
//! them, mixed with those of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jackfield_hostnet::classify::{Selectors, compile};
use jackfield_hostnet::{Desired, Plan, Snapshot, plan};
use jackfield_kernel::{Family, Rule};

use super::lookup::{Lookup, change};

pub(crate) const FIRST: u32 = 14_000;
pub(crate) const LAST: u32 = 29_999;

/// Numbers that follow from a seed (SplitMix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}

/// Whose the sources are, by the rule that the most specific counts.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    pub(crate) family: Family,
    pub(crate) addresses: BTreeMap<IpAddr, Option<u32>>,
    pub(crate) prefixes: BTreeMap<IpNet, u32>,
    /// The subnet of each table.
    pub(crate) tables: BTreeMap<u32, IpNet>,
}

/// How the sources lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) family: Family,
    pub(crate) subnets: u64,
    pub(crate) tables: u64,
    /// Addresses and prefixes.
    pub(crate) count: usize,
    /// True where neighbours are often another's.
    pub(crate) interleaved: bool,
    /// Of a hundred, how many are prefixes.
    pub(crate) prefixes: u64,
}

impl Sources {
    pub(crate) fn draw(numbers: &mut Numbers, shape: Shape) -> Self {
        let mut sources = Sources {
            family: shape.family,
            addresses: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            tables: BTreeMap::new(),
        };
        for table in 0..shape.tables {
            let subnet = subnet(shape.family, table % shape.subnets);
            sources.tables.insert(10_001 + u32::try_from(table).unwrap(), subnet);
        }
        while sources.addresses.len() + sources.prefixes.len() < shape.count {
            sources.add(numbers, shape);
        }
        sources
    }

    /// How long prefixes are; longer ones, which a cloud does not give, may lie within others.
    fn lengths(&self) -> &'static [u8] {
        match self.family {
            Family::V4 => &[26, 28],
            Family::V6 => &[80, 96],
        }
    }

    /// One or some more.
    pub(crate) fn add(&mut self, numbers: &mut Numbers, shape: Shape) {
        let table = 10_001 + u32::try_from(numbers.below(shape.tables)).unwrap();
        let subnet = self.tables[&table];
        if numbers.below(100) < shape.prefixes {
            let lengths = self.lengths();
            let length = lengths[numbers.below(lengths.len() as u64) as usize];
            let net = IpNet::new(address(numbers, subnet), length).unwrap().trunc();
            self.prefixes.insert(net, table);
            return;
        }
        let run = if shape.interleaved { 1 } else { 1 + numbers.below(40) };
        let mut ip = address(numbers, subnet);
        for _ in 0..run {
            if self.addresses.len() + self.prefixes.len() >= shape.count || !subnet.contains(&ip) {
                return;
            }
            let owner = (numbers.below(20) > 0).then_some(table);
            // Runs are whole but for what others have in them.
            self.addresses.entry(ip).or_insert(owner);
            ip = match ip {
                IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip).wrapping_add(1)).into(),
                IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip).wrapping_add(1)).into(),
            };
        }
    }

    pub(crate) fn selectors(&self) -> Selectors {
        let mut selectors = Selectors::default();
        for (ip, owner) in &self.addresses {
            match owner {
                Some(table) => selectors.address(*ip, *table),
                None => selectors.other(*ip),
            }
        }
        self.prefixes.iter().for_each(|(net, table)| selectors.prefix(*net, *table));
        self.tables.iter().for_each(|(table, net)| selectors.subnet(*net, *table));
        selectors
    }

    /// Where packets from there go: the oracle.
    pub(crate) fn owner(&self, ip: IpAddr) -> Option<u32> {
        let lengths = self.lengths().iter().rev();
        let nets = lengths.map(|length| IpNet::new(ip, *length).unwrap().trunc());
        let around = nets.filter_map(|net| self.prefixes.get(&net)).next().copied();
        self.addresses.get(&ip).copied().flatten().or(around)
    }

    /// The addresses, and some of each prefix.
    pub(crate) fn samples(&self, numbers: &mut Numbers) -> BTreeSet<IpAddr> {
        let mut samples: BTreeSet<IpAddr> = self.addresses.keys().copied().collect();
        for net in self.prefixes.keys() {
            samples.extend([net.network(), net.broadcast(), address(numbers, *net)]);
        }
        samples
    }

    /// The rules for all this, where these are there.
    pub(crate) fn compiled(&self, present: &[Rule]) -> Vec<Rule> {
        compile(&self.selectors(), present, FIRST, LAST).into_iter().collect()
    }

    /// What is to be changed where these rules are there.
    pub(crate) fn plan(&self, present: &[Rule]) -> Plan {
        let snapshot = Snapshot { rules: present.to_vec(), ..Snapshot::default() };
        let rules = self.compiled(present).into_iter().collect();
        plan(&snapshot, &Desired { rules, first_rule: FIRST, ..Desired::default() })
    }

    /// Makes rules what they shall be. Returns how many changes that took.
    pub(crate) fn apply(&self, rules: &mut Vec<Rule>) -> usize {
        let plan = self.plan(rules);
        for edit in &plan.changes {
            assert!(change(rules, edit), "the kernel refuses {edit}");
        }
        plan.changes.len()
    }

    /// What is wrong with the rules; and how many a packet meets at most.
    pub(crate) fn judge(&self, rules: &[Rule], numbers: &mut Numbers) -> (Vec<String>, usize) {
        let lookup = Lookup::new(rules, self.family);
        let mut wrong = Vec::new();
        let mut most = 0;
        for ip in self.samples(numbers) {
            let found = lookup.find(ip, true);
            most = most.max(found.visited);
            if found.table != self.owner(ip) {
                wrong.push(format!("{ip} to {:?}, not {:?}", found.table, self.owner(ip)));
            }
        }
        // What is forwarded comes from prefixes; whatever else comes in is not ours.
        for net in self.prefixes.keys() {
            for ip in [net.network(), address(numbers, *net)] {
                let (found, nobody) = (lookup.find(ip, false), !self.addresses.contains_key(&ip));
                if nobody && found.table != self.owner(ip) {
                    wrong.push(format!("{ip}, forwarded, to {:?}", found.table));
                }
            }
        }
        for subnet in self.tables.values() {
            let ip = address(numbers, *subnet);
            if self.owner(ip).is_none() && lookup.find(ip, false).table.is_some() {
                wrong.push(format!("{ip}, forwarded, is nobody's"));
            }
        }
        (wrong, most)
    }
}

pub(crate) fn subnet(family: Family, number: u64) -> IpNet {
    match family {
        Family::V4 => {
            let bits = 0x0a00_0000 | u32::try_from(number << 12).unwrap();
            IpNet::new(Ipv4Addr::from(bits).into(), 20).unwrap()
        }
        Family::V6 => {
            let bits = 0x2001_0db8_u128 << 96 | u128::from(number) << 64;
            IpNet::new(Ipv6Addr::from(bits).into(), 64).unwrap()
        }
    }
}

/// An address in a prefix: often one of the first, as people number them.
pub(crate) fn address(numbers: &mut Numbers, net: IpNet) -> IpAddr {
    let host = match numbers.below(3) {
        0 => numbers.next(),
        1 => numbers.below(1 << 12),
        _ => numbers.below(1 << 8),
    };
    match net.network() {
        IpAddr::V4(ip) => Ipv4Addr::from(
            u32::from(ip)
                | (host as u32
                    & u32::from(match net {
                        IpNet::V4(net) => net.hostmask(),
                        IpNet::V6(_) => unreachable!(),
                    })),
        )
        .into(),
        IpAddr::V6(ip) => Ipv6Addr::from(
            u128::from(ip)
                | (u128::from(host)
                    & u128::from(match net {
                        IpNet::V6(net) => net.hostmask(),
                        IpNet::V4(_) => unreachable!(),
                    })),
        )
        .into(),
    }
}
