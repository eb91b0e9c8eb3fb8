//! Ethernet addresses, as the metadata service writes them.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address. Written as six pairs of lower-case hexadecimal digits with colons.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

/// The text is not six pairs of hexadecimal digits with colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no Ethernet address: six pairs of hexadecimal digits with colons are expected")]
pub struct InvalidMacAddr(String);

impl FromStr for MacAddr {
    type Err = InvalidMacAddr;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            *octet = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| InvalidMacAddr(text.to_owned()))?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(InvalidMacAddr(text.to_owned())),
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
    use super::*;

    #[test]
    fn text_and_value_agree() {
        let mac: MacAddr = "02:EC:20:00:00:0a".parse().unwrap();
        assert_eq!(mac, MacAddr([2, 0xec, 0x20, 0, 0, 10]));
        assert_eq!(mac.to_string(), "02:ec:20:00:00:0a");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "02:ec:20:00:00", "02:ec:20:00:00:01:02", "2:ec:20:0:0:1", "02:ec:20:00:00:+1"]
        {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
