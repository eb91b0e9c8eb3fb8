//! The keys of an interface that decide something, and what their values are.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::text;
use crate::{InterfaceFacts, InterfaceId, Known, MacAddr, Problem};

/// A key below `network/interfaces/macs/<mac>/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    InterfaceId,
    DeviceNumber,
    NetworkCard,
    Ipv4Addresses,
    Ipv6Addresses,
    Ipv4Prefixes,
    Ipv6Prefixes,
    Ipv4Subnet,
    Ipv6Subnets,
}

/// The value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    InterfaceId(InterfaceId),
    DeviceNumber(u32),
    NetworkCard(u32),
    Ipv4Addresses(Vec<Ipv4Addr>),
    Ipv6Addresses(Vec<Ipv6Addr>),
    Ipv4Prefixes(Vec<Ipv4Net>),
    Ipv6Prefixes(Vec<Ipv6Net>),
    Ipv4Subnet(Ipv4Net),
    Ipv6Subnets(Vec<Ipv6Net>),
}

impl Key {
    /// All keys, those that take part in identifying the interface first.
    pub(super) const ALL: [Key; 9] = [
        Key::InterfaceId,
        Key::DeviceNumber,
        Key::NetworkCard,
        Key::Ipv4Addresses,
        Key::Ipv6Addresses,
        Key::Ipv4Prefixes,
        Key::Ipv6Prefixes,
        Key::Ipv4Subnet,
        Key::Ipv6Subnets,
    ];

    /// The key as the listing shows it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Key::InterfaceId => "interface-id",
            Key::DeviceNumber => "device-number",
            Key::NetworkCard => "network-card",
            Key::Ipv4Addresses => "local-ipv4s",
            Key::Ipv6Addresses => "ipv6s",
            Key::Ipv4Prefixes => "ipv4-prefix",
            Key::Ipv6Prefixes => "ipv6-prefix",
            Key::Ipv4Subnet => "subnet-ipv4-cidr-block",
            Key::Ipv6Subnets => "subnet-ipv6-cidr-blocks",
        }
    }

    /// Whether the value can change while the interface stays attached.
    pub(super) const fn can_change(self) -> bool {
        match self {
            Key::Ipv4Addresses
            | Key::Ipv6Addresses
            | Key::Ipv4Prefixes
            | Key::Ipv6Prefixes
            | Key::Ipv6Subnets => true,
            Key::InterfaceId | Key::DeviceNumber | Key::NetworkCard | Key::Ipv4Subnet => false,
        }
    }

    /// Reads the answer for this key, of at most `lines` lines.
    pub(super) fn parse(self, answer: &str, lines: usize) -> Result<Fact, String> {
        Ok(match self {
            Key::InterfaceId => Fact::InterfaceId(text::single(answer, "interface ID")?),
            Key::DeviceNumber => Fact::DeviceNumber(text::number(answer)?),
            Key::NetworkCard => Fact::NetworkCard(text::number(answer)?),
            Key::Ipv4Addresses => Fact::Ipv4Addresses(text::ipv4_addresses(answer, lines)?),
            Key::Ipv6Addresses => Fact::Ipv6Addresses(text::ipv6_addresses(answer, lines)?),
            Key::Ipv4Prefixes => Fact::Ipv4Prefixes(text::ipv4_prefixes(answer, lines)?),
            Key::Ipv6Prefixes => Fact::Ipv6Prefixes(text::ipv6_prefixes(answer, lines)?),
            Key::Ipv4Subnet => Fact::Ipv4Subnet(text::ipv4_subnet(answer)?),
            Key::Ipv6Subnets => Fact::Ipv6Subnets(text::ipv6_prefixes(answer, lines)?),
        })
    }
}

/// The keys of an interface that its listing holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ListedKeys(Vec<Key>);

impl ListedKeys {
    /// Reads the listing of one interface. Keys that nothing is decided by are passed over, but
    /// the listing is the authority on what is absent, so each line must look like a key.
    pub(super) fn parse(answer: &str, lines: usize) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (index, line) in text::lines(answer, lines)?.into_iter().enumerate() {
            let name = line.strip_suffix('/').unwrap_or(line);
            let plausible = !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
            if !plausible {
                return Err(format!("line {} of the answer is no key", index + 1));
            }
            keys.extend(Key::ALL.into_iter().find(|key| key.name() == line));
        }
        Ok(Self(keys))
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.0.contains(&key)
    }
}

/// Facts of which nothing is known yet.
pub(super) fn nothing_known(mac: MacAddr) -> InterfaceFacts {
    InterfaceFacts {
        mac,
        interface_id: Known::Unknown,
        device_number: Known::Unknown,
        network_card: Known::Unknown,
        ipv4_addresses: Known::Unknown,
        ipv6_addresses: Known::Unknown,
        ipv4_prefixes: Known::Unknown,
        ipv6_prefixes: Known::Unknown,
        ipv4_subnet: Known::Unknown,
        ipv6_subnets: Known::Unknown,
        problems: Vec::new(),
    }
}

/// Enters a value.
pub(super) fn enter(facts: &mut InterfaceFacts, fact: Fact) {
    match fact {
        Fact::InterfaceId(value) => facts.interface_id = Known::Value(value),
        Fact::DeviceNumber(value) => facts.device_number = Known::Value(value),
        Fact::NetworkCard(value) => facts.network_card = Known::Value(value),
        Fact::Ipv4Addresses(value) => facts.ipv4_addresses = Known::Value(value),
        Fact::Ipv6Addresses(value) => facts.ipv6_addresses = Known::Value(value),
        Fact::Ipv4Prefixes(value) => facts.ipv4_prefixes = Known::Value(value),
        Fact::Ipv6Prefixes(value) => facts.ipv6_prefixes = Known::Value(value),
        Fact::Ipv4Subnet(value) => facts.ipv4_subnet = Known::Value(value),
        Fact::Ipv6Subnets(value) => facts.ipv6_subnets = Known::Value(value),
    }
}

/// Enters that the listing does not hold a key.
pub(super) fn enter_absent(facts: &mut InterfaceFacts, key: Key) {
    match key {
        Key::InterfaceId => facts.interface_id = Known::Absent,
        Key::DeviceNumber => facts.device_number = Known::Absent,
        Key::NetworkCard => facts.network_card = Known::Absent,
        Key::Ipv4Addresses => facts.ipv4_addresses = Known::Absent,
        Key::Ipv6Addresses => facts.ipv6_addresses = Known::Absent,
        Key::Ipv4Prefixes => facts.ipv4_prefixes = Known::Absent,
        Key::Ipv6Prefixes => facts.ipv6_prefixes = Known::Absent,
        Key::Ipv4Subnet => facts.ipv4_subnet = Known::Absent,
        Key::Ipv6Subnets => facts.ipv6_subnets = Known::Absent,
    }
}

/// Enters why a key's value stays unknown.
pub(super) fn enter_problem(facts: &mut InterfaceFacts, key: Key, reason: impl Into<String>) {
    facts.problems.push(Problem { key: key.name(), reason: reason.into() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_tells_which_keys_there_are() {
        let listing = "device-number\ninterface-id\nipv4-associations/\nlocal-ipv4s\nnew_key.2";
        let listed = ListedKeys::parse(listing, 100).unwrap();
        assert_eq!(
            Key::ALL.into_iter().filter(|key| listed.contains(*key)).collect::<Vec<_>>(),
            [Key::InterfaceId, Key::DeviceNumber, Key::Ipv4Addresses]
        );
    }

    #[test]
    fn a_listing_that_is_not_one_is_no_authority() {
        for text in
            ["", "\n", "device-number\n\nipv6s", "<?xml version", "<html>", "a b", "/", "a//"]
        {
            assert!(ListedKeys::parse(text, 100).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_key_has_a_place_in_the_facts() {
        let mut facts = nothing_known(MacAddr::from([2, 0, 0, 0, 0, 1]));
        for (key, answer) in [
            (Key::InterfaceId, "eni-1"),
            (Key::DeviceNumber, "1"),
            (Key::NetworkCard, "2"),
            (Key::Ipv4Addresses, "10.0.0.1"),
            (Key::Ipv6Addresses, "2001:db8::1"),
            (Key::Ipv4Prefixes, "10.0.0.16/28"),
            (Key::Ipv6Prefixes, "2001:db8:1::/80"),
            (Key::Ipv4Subnet, "10.0.0.0/24"),
            (Key::Ipv6Subnets, "2001:db8::/64"),
        ] {
            enter(&mut facts, key.parse(answer, 10).unwrap());
        }
        let known = facts.clone();
        assert!(!format!("{known:?}").contains("Unknown"), "{known:?}");
        for key in Key::ALL {
            enter_absent(&mut facts, key);
        }
        assert_eq!(format!("{facts:?}").matches("Absent").count(), Key::ALL.len());
    }
}
