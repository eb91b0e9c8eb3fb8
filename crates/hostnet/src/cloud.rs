//! What the cloud is believed to want: metadata, remembered and judged.
//!
//! Metadata lags, lies for a while and fails. Here its three-valued answers become one picture that
//! the plan can act on: an unknown value never replaces a known one, an absence that would take an
//! address away has to be seen three times, and a number that may be lag is not believed.

use std::cell::{LazyCell, OnceCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use jackfield_metadata::{InterfaceFacts, InterfaceId, Known, Listing, MacAddr};

use crate::classify::Walk;
use crate::prefix;
use crate::snapshot::Snapshot;

/// How often an address or a prefix must be missing before it is taken away…
const ABSENCES: u8 = 3;
/// …in rounds that are at least this far apart.
const ABSENCE_INTERVAL: Duration = Duration::from_secs(30);

/// Where an interface is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// Network card.
    pub card: u32,
    /// Device number on the card.
    pub device: u32,
}

impl Slot {
    /// The routing table of the interface: the number that users of amazon-ec2-net-utils know.
    pub fn table(self, base: u32) -> u32 {
        base.saturating_add(self.offset())
    }

    /// The slot of which this is the routing table; `None` below the base.
    pub(crate) fn of_table(table: u32, base: u32) -> Option<Self> {
        let offset = table.checked_sub(base)?;
        Some(Slot { card: offset / 100, device: offset % 100 })
    }

    /// The number of the slot among all slots of the host.
    pub fn offset(self) -> u32 {
        self.card.saturating_mul(100).saturating_add(self.device)
    }
}

/// What the cloud wants of this host's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cloud {
    /// The instance's own MAC; `None` until metadata has said it.
    pub primary: Option<MacAddr>,
    /// What is known of each interface that was asked about.
    pub interfaces: BTreeMap<MacAddr, CloudInterface>,
}

impl Cloud {
    /// True where asking about the interface again soon would tell nothing that is missed. Where
    /// two claim one slot, what is known of one of them is out of date.
    pub fn is_content(&self, mac: MacAddr) -> bool {
        self.interfaces.get(&mac).is_some_and(|known| {
            let rivals =
                self.interfaces.iter().any(|(other, it)| *other != mac && it.slot == known.slot);
            known.is_content() && !rivals
        })
    }
}

/// What the cloud wants of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudInterface {
    /// Its identity; `None` until known.
    pub interface_id: Option<InterfaceId>,
    /// Where it is attached; `None` until metadata says something that can be believed.
    pub slot: Option<Slot>,
    /// The prefixes of its subnet, both families.
    pub subnets: Vec<IpNet>,
    /// The addresses that it shall have.
    pub addresses: BTreeSet<IpAddr>,
    /// The prefixes that are delegated to it.
    pub prefixes: BTreeSet<IpNet>,
    /// The first address of each family: those of the primary interface are left to the system,
    /// which has them by DHCP.
    pub first: Vec<IpAddr>,
    /// True where every key was read or is absent by authority.
    pub complete: bool,
    /// Why something is unknown, in words.
    pub unknown: Vec<String>,
}

impl CloudInterface {
    /// The subnet prefix in which an address lies.
    pub fn subnet_of(&self, address: IpAddr) -> Option<IpNet> {
        self.subnets.iter().copied().find(|subnet| subnet.contains(&address))
    }

    /// True where enough is known to plug it: its slot, and an address with its subnet.
    pub fn is_usable(&self) -> bool {
        self.slot.is_some() && self.addresses.iter().any(|ip| self.subnet_of(*ip).is_some())
    }

    /// True where asking again soon would tell nothing that is missed.
    pub fn is_content(&self) -> bool {
        self.complete
            && self.slot.is_some()
            && !self.addresses.is_empty()
            && self.addresses.iter().all(|address| self.subnet_of(*address).is_some())
    }
}

/// What was heard of the cloud so far.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    primary: Option<MacAddr>,
    records: BTreeMap<MacAddr, Record>,
    /// What follows, once it was asked for.
    cloud: OnceCell<Arc<Cloud>>,
}

#[derive(Debug, Clone)]
struct Record {
    /// The device of this attachment: a MAC that comes back on another device is attached anew.
    interface: u32,
    facts: Option<InterfaceFacts>,
    addresses: Held<IpAddr>,
    prefixes: Held<IpNet>,
    heard: Option<Instant>,
}

/// What the interface has, as far as it is believed.
#[derive(Debug, Clone)]
struct Held<T>(BTreeMap<T, Absence>);

/// How often something that is held was missing from metadata.
#[derive(Debug, Clone, Copy, Default)]
struct Absence {
    rounds: u8,
    last: Option<Instant>,
}

impl<T: Ord + Copy> Held<T> {
    fn new(held: impl Iterator<Item = T>) -> Self {
        Held(held.map(|held| (held, Absence::default())).collect())
    }

    /// Takes in what is listed. A list that was not `read` counts for nothing.
    fn learn(&mut self, now: Instant, listed: &BTreeSet<T>, read: impl Fn(&T) -> bool) {
        self.0.extend(listed.iter().map(|held| (*held, Absence::default())));
        self.0.retain(|held, absence| {
            if listed.contains(held) || !read(held) {
                return true;
            }
            if absence.last.is_none_or(|last| now.duration_since(last) >= ABSENCE_INTERVAL) {
                absence.rounds = absence.rounds.saturating_add(1);
                absence.last = Some(now);
            }
            absence.rounds < ABSENCES
        });
    }

    /// What is listed on another interface of this host, and no longer on this one, has moved: no
    /// need to see its absence again.
    fn leave(&mut self, own: &BTreeSet<T>, all: &BTreeSet<T>) {
        self.0.retain(|held, _| own.contains(held) || !all.contains(held));
    }

    fn all(&self) -> BTreeSet<T> {
        self.0.keys().copied().collect()
    }
}

impl Memory {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of which devices are there: what was heard of a device that is gone is forgotten,
    /// and addresses of a present one that we work for are held until metadata has spoken.
    ///
    /// Returns the MACs whose attachment is new or gone, of which nothing may be remembered
    /// elsewhere either.
    pub fn see(&mut self, snapshot: &Snapshot) -> Vec<MacAddr> {
        let present: BTreeMap<MacAddr, u32> =
            snapshot.candidates().map(|candidate| (candidate.mac, candidate.link.index)).collect();
        let mut changed = Vec::new();
        self.records.retain(|mac, record| {
            let same = present.get(mac) == Some(&record.interface);
            if !same {
                changed.push(*mac);
            }
            same
        });
        let walk = LazyCell::new(|| Walk::new(&snapshot.rules, &snapshot.routes));
        for (mac, interface) in present {
            self.records.entry(mac).or_insert_with(|| {
                changed.push(mac);
                Record {
                    interface,
                    facts: None,
                    addresses: Held::new(snapshot.served_addresses(interface, &walk)),
                    prefixes: Held::new(prefix::routed(snapshot, interface)),
                    heard: None,
                }
            });
        }
        if !changed.is_empty() {
            self.cloud.take();
        }
        changed
    }

    /// The instance's own MAC is known.
    pub fn learn_primary(&mut self, mac: MacAddr) {
        self.primary = Some(mac);
        self.cloud.take();
    }

    /// The instance's own MAC, once known.
    pub fn primary(&self) -> Option<MacAddr> {
        self.primary
    }

    /// When metadata last told something of the interface.
    pub fn heard(&self, mac: MacAddr) -> Option<Instant> {
        self.records.get(&mac)?.heard
    }

    /// Takes in what one round of answers tells of interfaces.
    pub fn learn<'l>(
        &mut self,
        now: Instant,
        listings: impl IntoIterator<Item = (MacAddr, &'l Listing)>,
    ) {
        for (mac, listing) in listings {
            self.learn_of(now, mac, listing);
        }
        self.move_between_interfaces();
        self.cloud.take();
    }

    fn learn_of(&mut self, now: Instant, mac: MacAddr, listing: &Listing) {
        // Metadata omits interfaces that are here: not being listed says nothing.
        let Listing::Listed(facts) = listing else { return };
        let Some(record) = self.records.get_mut(&mac) else { return };
        record.heard = Some(now);
        let merged = match record.facts.take() {
            Some(old) => merge(old, facts.clone()),
            None => facts.clone(),
        };
        let listed = addresses(facts).into_iter().flatten().collect();
        record.addresses.learn(now, &listed, |address| match address {
            IpAddr::V4(_) => !facts.ipv4_addresses.is_unknown(),
            IpAddr::V6(_) => !facts.ipv6_addresses.is_unknown(),
        });
        record.prefixes.learn(now, &prefixes(facts), |prefix| match prefix {
            IpNet::V4(_) => !facts.ipv4_prefixes.is_unknown(),
            IpNet::V6(_) => !facts.ipv6_prefixes.is_unknown(),
        });
        record.facts = Some(merged);
    }

    /// What metadata lists on one interface and no longer on the one that holds it has moved.
    fn move_between_interfaces(&mut self) {
        let lists = |record: &Record| -> (BTreeSet<IpAddr>, BTreeSet<IpNet>) {
            let facts = record.facts.iter();
            let own = facts.clone().flat_map(addresses).flatten().collect();
            (own, facts.flat_map(prefixes).collect())
        };
        let own: Vec<_> = self.records.values().map(lists).collect();
        let all_addresses = own.iter().flat_map(|(addresses, _)| addresses).copied().collect();
        let all_prefixes = own.iter().flat_map(|(_, prefixes)| prefixes).copied().collect();
        for (record, (addresses, prefixes)) in self.records.values_mut().zip(&own) {
            record.addresses.leave(addresses, &all_addresses);
            record.prefixes.leave(prefixes, &all_prefixes);
        }
    }

    /// What the cloud wants, as far as it is known.
    pub fn cloud(&self) -> Arc<Cloud> {
        Arc::clone(self.cloud.get_or_init(|| Arc::new(self.believed())))
    }

    fn believed(&self) -> Cloud {
        let primary_facts = self
            .primary
            .and_then(|mac| self.records.get(&mac))
            .and_then(|record| record.facts.as_ref());
        let interfaces = self
            .records
            .iter()
            .filter_map(|(mac, record)| {
                let facts = record.facts.as_ref()?;
                let slot = match self.primary {
                    Some(primary) => believed_slot(facts, *mac == primary, primary_facts),
                    None => None,
                };
                let mut subnets: Vec<IpNet> = Vec::new();
                subnets.extend(facts.ipv4_subnet.value().copied().map(IpNet::V4));
                subnets.extend(
                    facts.ipv6_subnets.value().into_iter().flatten().copied().map(IpNet::V6),
                );
                Some((
                    *mac,
                    CloudInterface {
                        interface_id: facts.interface_id.value().cloned(),
                        slot,
                        subnets,
                        addresses: record.addresses.all(),
                        prefixes: record.prefixes.all(),
                        first: addresses(facts).iter().filter_map(|l| l.first().copied()).collect(),
                        complete: facts.is_complete(),
                        unknown: facts.problems.iter().map(ToString::to_string).collect(),
                    },
                ))
            })
            .collect();
        Cloud { primary: self.primary, interfaces }
    }
}

/// Where the interface is attached, as far as metadata can be believed.
fn believed_slot(
    facts: &InterfaceFacts,
    is_primary: bool,
    primary: Option<&InterfaceFacts>,
) -> Option<Slot> {
    let device = match facts.device_number.value() {
        // 0 is what an attachment shows that has not propagated; the primary alone really has it.
        Some(0) if !is_primary => None,
        device => device.copied(),
    }?;
    let card = match facts.network_card {
        Known::Value(card) => Some(card),
        // Types with one card do not have the key. Whether this is one, the primary tells: its
        // attachment has long propagated.
        Known::Absent => match primary.map(|primary| &primary.network_card) {
            Some(Known::Absent) => Some(0),
            _ => None,
        },
        Known::Unknown => None,
    }?;
    Some(Slot { card, device })
}

/// The newer facts, with the older ones where the newer are unknown.
fn merge(old: InterfaceFacts, new: InterfaceFacts) -> InterfaceFacts {
    let (Known::Value(old_id), Known::Value(new_id)) = (&old.interface_id, &new.interface_id)
    else {
        return keep(old, new);
    };
    // The same MAC on the same device, and another interface: nothing of the old one holds.
    if old_id == new_id { keep(old, new) } else { new }
}

fn keep(old: InterfaceFacts, new: InterfaceFacts) -> InterfaceFacts {
    fn newer<T>(old: Known<T>, new: Known<T>) -> Known<T> {
        if new.is_unknown() { old } else { new }
    }
    InterfaceFacts {
        mac: new.mac,
        interface_id: newer(old.interface_id, new.interface_id),
        device_number: newer(old.device_number, new.device_number),
        network_card: newer(old.network_card, new.network_card),
        ipv4_addresses: newer(old.ipv4_addresses, new.ipv4_addresses),
        ipv6_addresses: newer(old.ipv6_addresses, new.ipv6_addresses),
        ipv4_prefixes: newer(old.ipv4_prefixes, new.ipv4_prefixes),
        ipv6_prefixes: newer(old.ipv6_prefixes, new.ipv6_prefixes),
        // A subnet that was there and is not listed any more while its addresses are is lag.
        ipv4_subnet: newer_subnet(old.ipv4_subnet, new.ipv4_subnet),
        ipv6_subnets: match (&old.ipv6_subnets, &new.ipv6_subnets) {
            (Known::Value(_), Known::Absent) => old.ipv6_subnets,
            _ => newer(old.ipv6_subnets, new.ipv6_subnets),
        },
        problems: new.problems,
    }
}

fn newer_subnet(old: Known<Ipv4Net>, new: Known<Ipv4Net>) -> Known<Ipv4Net> {
    match new {
        Known::Value(_) => new,
        Known::Absent | Known::Unknown => match old {
            Known::Value(_) => old,
            Known::Absent | Known::Unknown => new,
        },
    }
}

/// The addresses that were read, list by list.
fn addresses(facts: &InterfaceFacts) -> [Vec<IpAddr>; 2] {
    let ipv4 = facts.ipv4_addresses.value().into_iter().flatten().copied().map(IpAddr::V4);
    let ipv6 = facts.ipv6_addresses.value().into_iter().flatten().copied().map(IpAddr::V6);
    [ipv4.collect(), ipv6.collect()]
}

/// The delegated prefixes that were read.
fn prefixes(facts: &InterfaceFacts) -> BTreeSet<IpNet> {
    let ipv4 = facts.ipv4_prefixes.value().into_iter().flatten().copied().map(IpNet::V4);
    let ipv6 = facts.ipv6_prefixes.value().into_iter().flatten().copied().map(IpNet::V6);
    ipv4.chain(ipv6).collect()
}
