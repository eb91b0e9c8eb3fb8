//! What a metadata service says about one network interface.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{Known, MacAddr, ParseError};

/// The identity that the cloud gives an interface for its whole life: `eni-` and lower-case
/// letters or digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(Box<str>);

impl InterfaceId {
    /// The longest identity accepted, in bytes. EC2's have 12 or 21.
    pub const MAX_LENGTH: usize = 64;

    /// The identity as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fits = text.len() <= Self::MAX_LENGTH
            && text.strip_prefix("eni-").is_some_and(|rest| {
                !rest.is_empty()
                    && rest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
            });
        if fits {
            Ok(Self(text.into()))
        } else {
            let expected = "'eni-' and at most 60 lower-case letters or digits";
            Err(ParseError::new(text, "interface ID", expected))
        }
    }
}

impl fmt::Display for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the metadata service says about one interface: parsed and masked, and not judged.
///
/// A device number of 0 or an absent network card may be lag. Whether to believe them is for the
/// reader of these facts to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// The hardware address under which the interface is listed.
    pub mac: MacAddr,
    /// Its identity in the cloud (`interface-id`).
    pub interface_id: Known<InterfaceId>,
    /// The number of its attachment (`device-number`), unique on one network card only; 0 until
    /// the attachment has propagated. At most 65,535.
    pub device_number: Known<u32>,
    /// The network card that it is attached to (`network-card`); absent on instance types with
    /// one card, and by lag on others. At most 65,535.
    pub network_card: Known<u32>,
    /// Its IPv4 addresses, the primary one first (`local-ipv4s`). Link-local ones, which an
    /// IPv6-only subnet shows, are left out, so the list may be empty.
    pub ipv4_addresses: Known<Vec<Ipv4Addr>>,
    /// Its IPv6 addresses (`ipv6s`).
    pub ipv6_addresses: Known<Vec<Ipv6Addr>>,
    /// IPv4 prefixes delegated to it (`ipv4-prefix`), masked. EC2 gives /28.
    pub ipv4_prefixes: Known<Vec<Ipv4Net>>,
    /// IPv6 prefixes delegated to it (`ipv6-prefix`), masked. EC2 gives /80.
    pub ipv6_prefixes: Known<Vec<Ipv6Net>>,
    /// The IPv4 prefix of its subnet (`subnet-ipv4-cidr-block`), masked.
    pub ipv4_subnet: Known<Ipv4Net>,
    /// The IPv6 prefixes of its subnet (`subnet-ipv6-cidr-blocks`), masked.
    pub ipv6_subnets: Known<Vec<Ipv6Net>>,
    /// Why each unknown value is unknown.
    pub problems: Vec<Problem>,
}

impl InterfaceFacts {
    /// Whether every value is known or absent by authority.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Why one value of an interface is [`Known::Unknown`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The metadata key, relative to the interface.
    pub key: &'static str,
    /// What went wrong, in words.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.reason)
    }
}

/// How much to ask about an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    /// The listing and only what can change while the interface is attached: its addresses and
    /// prefixes, and the IPv6 prefixes of its subnet where it has IPv6. The rest is what the
    /// client has learned before, and is asked where it has not.
    Changing,
    /// Everything. What cannot change (the IPv4 subnet of an interface ID) is still asked only
    /// once for each interface ID.
    Everything,
}

/// Whether the metadata service knows an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// It is listed, with these facts.
    Listed(InterfaceFacts),
    /// The service answered 404 for the interface.
    NotListed,
}

impl Listing {
    /// The facts, where the interface is listed.
    pub fn facts(&self) -> Option<&InterfaceFacts> {
        match self {
            Listing::Listed(facts) => Some(facts),
            Listing::NotListed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::InterfaceId;

    #[test]
    fn interface_ids_are_checked() {
        let id: InterfaceId = "eni-0a1b2c3d4e5f60718".parse().unwrap();
        assert_eq!(id.to_string(), "eni-0a1b2c3d4e5f60718");
        let long = format!("eni-{}", "a".repeat(61));
        for text in ["", "eni-", "eni-A", "eni-a b", "vpc-1", "eni-a\n", "eni-é", &long] {
            assert!(text.parse::<InterfaceId>().is_err(), "{text:?}");
        }
    }
}
