//! Ethernet hardware addresses, the names by which metadata knows interfaces.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;

/// The hardware address of an Ethernet interface.
///
/// Written as six lower-case hexadecimal pairs with colons, as EC2 and Linux do. Orders by its
/// octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// The six octets, in transmission order.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddr> for [u8; 6] {
    fn from(mac: MacAddr) -> Self {
        mac.0
    }
}

impl FromStr for MacAddr {
    type Err = ParseError;

    /// Reads six hexadecimal pairs of either case with colons between them, and nothing else.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError::new(text, "MAC address", "six hexadecimal pairs with colons");
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or_else(error)?;
            // from_str_radix alone would also take "+f".
            if pair.len() != 2 || !pair.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        match pairs.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(error()),
        }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::MacAddr;

    #[test]
    fn text_of_either_case_is_one_address() {
        let mac: MacAddr = "02:EC:20:00:ff:01".parse().unwrap();
        assert_eq!(mac, MacAddr::from([0x02, 0xec, 0x20, 0x00, 0xff, 0x01]));
        assert_eq!(mac.to_string(), "02:ec:20:00:ff:01");
        assert_eq!(mac.octets(), [0x02, 0xec, 0x20, 0x00, 0xff, 0x01]);
    }

    #[test]
    fn anything_but_six_pairs_is_refused() {
        for text in [
            "",
            "02:ec:20:00:00",
            "02:ec:20:00:00:01:02",
            "02:ec:20:00:00:1",
            "02:ec:20:00:00:001",
            "02:ec:20:00:00:+1",
            "02:ec:20:00:00:0g",
            "02-ec-20-00-00-01",
            " 02:ec:20:00:00:01",
            "02:ec:20:00:00:01/",
            "02:ec:20:00:00:é",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text:?}");
        }
    }
}
