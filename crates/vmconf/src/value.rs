//! Values that go into a guest's configuration, checked once, where they are read.
//!
//! Each type admits only text that stands for itself in every format that is printed: on a kernel
//! command line, in a unit file, in YAML, in resolv.conf and among the arguments of a VMM. So no
//! format has anything to escape, and nothing can smuggle in a second parameter.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is no value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: {reason}")]
pub struct ValueError {
    /// What it should have been, such as `interface name`.
    pub kind: &'static str,
    /// The text as it was given.
    pub text: String,
    /// Why it is refused.
    pub reason: &'static str,
}

/// A checked text: what is common to the types below.
macro_rules! checked_text {
    ($name:ident, $kind:literal, $check:path) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                match $check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(reason) => Err(ValueError { kind: $kind, text: text.to_owned(), reason }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = ValueError;

            fn try_from(text: String) -> Result<Self, ValueError> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(ValueError { kind: $kind, text, reason }),
                }
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// The name of a Linux network device: at most 15 characters, letters, digits and `_ . - + @`.
///
/// The kernel takes nearly every byte; what it takes beside these means something else on a command
/// line, to a shell or in the `Name=` of a unit file. Names that are settings of all devices (`all`,
/// `default`) are refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);
checked_text!(InterfaceName, "interface name", check_interface_name);

fn check_interface_name(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-+@".contains(&b);
    match text {
        "" => Err("it is empty"),
        "." | ".." | "all" | "default" => Err("the name is reserved"),
        _ if text.len() > 15 => Err("longer than the kernel's 15 characters"),
        _ if text.starts_with('-') => Err("it starts with '-'"),
        _ if !text.bytes().all(allowed) => Err("only letters, digits and _ . - + @ are allowed"),
        _ => Ok(()),
    }
}

/// A domain name, in ASCII, without or with the dot at its end; `.` alone is the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainName(String);
checked_text!(DomainName, "domain name", check_domain_name);

fn check_domain_name(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let name = text.strip_suffix('.').unwrap_or(text);
    if text == "." {
        return Ok(());
    }
    if name.len() > 253 {
        return Err("longer than 253 characters");
    }
    for label in name.split('.') {
        match label.len() {
            0 => return Err("it has an empty label"),
            1..=63 => {}
            _ => return Err("it has a label of over 63 characters"),
        }
        if label.starts_with('-') {
            return Err("a label starts with '-'");
        }
        if !label.bytes().all(allowed) {
            return Err("only letters, digits, - _ and . are allowed (others in their xn-- form)");
        }
    }
    Ok(())
}

/// An option of the resolver as in resolv.conf(5), such as `ndots:5` or `edns0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResolverOption(String);
checked_text!(ResolverOption, "resolver option", check_resolver_option);

fn check_resolver_option(text: &str) -> Result<(), &'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_:.".contains(&b);
    match text {
        "" => Err("it is empty"),
        _ if text.len() > 64 => Err("longer than 64 characters"),
        _ if !text.bytes().all(allowed) => Err("only letters, digits and - _ : . are allowed"),
        _ => Ok(()),
    }
}

/// The path of a network namespace on the host: absolute, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetnsPath(String);
checked_text!(NetnsPath, "path of a network namespace", check_netns_path);

fn check_netns_path(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it is empty"),
        _ if !text.starts_with('/') => Err("it is not absolute"),
        _ if text.chars().any(char::is_control) => Err("it has a control character"),
        _ => Ok(()),
    }
}

/// An Ethernet address that one interface can have: not zero, not a group's.
///
/// Read from six pairs of hexadecimal digits, with `:` or `-` between them; written with `:` in lower
/// case, as udev wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr([u8; 6]);

impl MacAddr {
    /// # Errors
    ///
    /// [`ValueError`] for zero and for an address of a group.
    pub fn new(octets: [u8; 6]) -> Result<Self, ValueError> {
        let mac = Self(octets);
        let reason = match octets {
            [0, 0, 0, 0, 0, 0] => "it is zero",
            [first, ..] if first & 1 == 1 => "it is the address of a group",
            _ => return Ok(mac),
        };
        Err(ValueError { kind: MAC, text: mac.to_string(), reason })
    }

    /// The six octets in the order of transmission.
    #[must_use]
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

const MAC: &str = "MAC address";

impl FromStr for MacAddr {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let error = |reason| ValueError { kind: MAC, text: text.to_owned(), reason };
        let malformed =
            || error("expected six pairs of hexadecimal digits, such as 02:00:00:00:00:01");
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut pairs = text.split(separator);
        let mut octets = [0; 6];
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(malformed)?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        if pairs.next().is_some() {
            return Err(malformed());
        }
        Self::new(octets).map_err(|refused| error(refused.reason))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ValueError;

    fn try_from(text: String) -> Result<Self, ValueError> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> String {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The MTU of an interface in bytes: 68 (the least that IPv4 allows) to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

impl Mtu {
    /// # Errors
    ///
    /// [`ValueError`] for less than 68 and more than 65535.
    pub fn new(bytes: u32) -> Result<Self, ValueError> {
        if (68..=65_535).contains(&bytes) {
            return Ok(Self(bytes));
        }
        let reason = "expected 68 to 65535 bytes";
        Err(ValueError { kind: "MTU", text: bytes.to_string(), reason })
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = ValueError;

    fn try_from(bytes: u32) -> Result<Self, ValueError> {
        Self::new(bytes)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> u32 {
        mtu.0
    }
}

impl FromStr for Mtu {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.parse().map_err(|_| ValueError {
            kind: "MTU",
            text: text.to_owned(),
            reason: "expected a number of bytes",
        })?;
        Self::new(number)
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(text: &str) -> bool {
        text.parse::<InterfaceName>().is_ok()
    }

    #[test]
    fn an_interface_name_is_one_that_stands_for_itself_everywhere() {
        for good in ["eth0", "a", "tap-1.2", "vm_1", "123456789012345", "eth0@x", "a+b"] {
            assert!(names(good), "{good}");
        }
        let bad = [
            "",
            ".",
            "..",
            "all",
            "default",
            "1234567890123456",
            "-a",
            "a b",
            "a:b",
            "a/b",
            "a\nb",
            "a%d",
            "a\"b",
            "a'b",
            "a,b",
            "a=b",
            "a*",
            "a?",
            "[a]",
            "!a",
            "a#b",
            "a$b",
            "a\\b",
            "ä",
            "a\u{a0}b",
            "a\0b",
            "a;b",
            "~a",
            "{a}",
            "a&b",
            "a|b",
            "<a",
        ];
        for bad in bad {
            assert!(!names(bad), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_text() {
        let error = "eth0 init=/bin/sh".parse::<InterfaceName>().unwrap_err().to_string();
        assert!(error.contains("\"eth0 init=/bin/sh\" is no interface name"), "{error}");
    }

    #[test]
    fn a_mac_address_is_of_one_interface() {
        let mac: MacAddr = "0A-bc-00-00-00-01".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:bc:00:00:00:01");
        assert_eq!(mac.octets(), [0x0a, 0xbc, 0, 0, 0, 1]);
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "00:00:00:00:00:00",
            "01:00:5e:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "02:00-00:00:00:01",
            "+2:00:00:00:00:01",
            "02:00:00:00:00:01 ",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_domain_name_has_labels() {
        for good in ["a", "example.com", "example.com.", "_tcp.x-y", "."] {
            assert!(good.parse::<DomainName>().is_ok(), "{good:?}");
        }
        let long = "a".repeat(64);
        for bad in
            ["", "a..b", ".a", "a b", "a\nsearch b", "a/b", "bücher.example", "-a", "~.", &long]
        {
            assert!(bad.parse::<DomainName>().is_err(), "{bad:?}");
        }
        assert!("a.".repeat(127).parse::<DomainName>().is_ok());
        assert!("a.".repeat(128).parse::<DomainName>().is_err());
    }

    #[test]
    fn a_resolver_option_is_one_word() {
        for good in ["ndots:5", "edns0", "use-vc"] {
            assert!(good.parse::<ResolverOption>().is_ok(), "{good:?}");
        }
        for bad in ["", "a b", "a\nb", "a#", "a;b"] {
            assert!(bad.parse::<ResolverOption>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_mtu_has_bounds() {
        assert!(Mtu::new(67).is_err() && Mtu::new(65_536).is_err());
        assert_eq!("1500".parse::<Mtu>().unwrap().bytes(), 1500);
        assert!("-1".parse::<Mtu>().is_err());
    }

    #[test]
    fn a_namespace_path_is_absolute() {
        assert!("/var/run/netns/x".parse::<NetnsPath>().is_ok());
        for bad in ["", "x", "netns/x", "/run/\nx", "/run/\0"] {
            assert!(bad.parse::<NetnsPath>().is_err(), "{bad:?}");
        }
    }
}
