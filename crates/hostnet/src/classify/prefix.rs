//! A prefix of either family as bits from the left.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use jackfield_kernel::Family;

/// Ordered so that a prefix stands right before all that lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    /// Zero behind the length.
    bits: u128,
    /// Length in bits.
    len: u8,
}

impl Prefix {
    /// Everything.
    pub(super) const ALL: Prefix = Prefix { bits: 0, len: 0 };

    pub(super) fn of(net: IpNet) -> Self {
        let bits = match net.addr() {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        Prefix { bits, len: 128 }.cut(net.prefix_len())
    }

    pub(super) fn net(self, family: Family) -> IpNet {
        let (ip, longest) = match family {
            Family::V4 => {
                let bits = u32::try_from(self.bits >> 96).unwrap_or(u32::MAX);
                (IpAddr::V4(Ipv4Addr::from(bits)), 32)
            }
            Family::V6 => (IpAddr::V6(Ipv6Addr::from(self.bits)), 128),
        };
        IpNet::new(ip, self.len.min(longest)).unwrap_or_else(|_| IpNet::from(ip))
    }

    pub(super) fn len(self) -> u8 {
        self.len
    }

    /// Its first bits, at most `len` of them.
    pub(super) fn cut(self, len: u8) -> Self {
        let len = len.min(self.len);
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        Prefix { bits: self.bits & mask, len }
    }

    /// The longest prefix in which both lie.
    pub(super) fn common(self, other: Self) -> Self {
        let same = (self.bits ^ other.bits).leading_zeros();
        self.cut(u8::try_from(same).unwrap_or(u8::MAX).min(other.len))
    }

    pub(super) fn contains(self, other: Self) -> bool {
        self.len <= other.len && other.cut(self.len) == self
    }

    /// The bit behind the first `at`.
    pub(super) fn bit(self, at: u8) -> bool {
        self.bits.checked_shl(u32::from(at)).is_some_and(|bits| bits.leading_ones() > 0)
    }
}
