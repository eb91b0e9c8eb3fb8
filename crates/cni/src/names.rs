//! Names that become parts of paths, environments and devices: checked where they come in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;

/// A container's identifier; for a VM, the VM's. Letters, digits, `_`, `.` and `-`, the first a
/// letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

/// The name of a network: the `name` of its configuration. The rules are a container ID's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(String);

/// The name of an interface in the container, as the kernel takes it: 1 to 15 bytes, not `.` or
/// `..`, without `/`, `:` and white space; also without `%`, for which the kernel puts a number in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// The name of a plugin: the `type` of its configuration, and the name of its executable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginName(String);

fn check_identifier(text: &str) -> Result<(), &'static str> {
    let Some(first) = text.bytes().next() else { return Err("it is empty") };
    if !first.is_ascii_alphanumeric() {
        return Err("it does not begin with a letter or digit");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !text.bytes().all(allowed) {
        return Err("only letters, digits, '_', '.' and '-' are allowed");
    }
    Ok(())
}

fn check_interface(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > 15 {
        return Err("it is longer than 15 bytes");
    }
    if text == "." || text == ".." {
        return Err("it is a directory's");
    }
    let refused = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if text.contains(refused) {
        return Err("'/', ':', '%', white space and control characters are not allowed");
    }
    Ok(())
}

fn check_plugin(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it is empty"),
        "." | ".." => Err("it is a directory's"),
        _ if text.contains('/') || text.contains(char::is_control) => {
            Err("'/' and control characters are not allowed")
        }
        _ => Ok(()),
    }
}

/// What all names have: they are made from checked text only, and read as text.
macro_rules! name {
    ($name:ident, $what:literal, $check:path) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// # Errors
            ///
            /// [`Error::Name`] with the rule that is broken.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => Err(Error::Name { what: $what, value: text, reason }),
                }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

name!(ContainerId, "container ID", check_identifier);
name!(NetworkName, "network name", check_identifier);
name!(InterfaceName, "interface name", check_interface);
name!(PluginName, "plugin name", check_plugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_those_of_the_specification() {
        for good in ["a", "0", "vm-1_x.y", "A..b"] {
            assert_eq!(ContainerId::new(good).unwrap().as_str(), good);
            assert_eq!(NetworkName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "../a", "a b", "a\n", "ä", "a;b", "a\0"] {
            assert!(ContainerId::new(bad).is_err(), "{bad:?}");
            assert!(NetworkName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_are_those_that_the_kernel_takes_as_they_are() {
        for good in ["eth0", "a", "fifteen-bytes-x", "...", "é"] {
            assert_eq!(InterfaceName::new(good).unwrap().as_str(), good);
        }
        let bad =
            ["", ".", "..", "a/b", "a:b", "a b", "a\u{a0}b", "vm%d", "sixteen-bytes-xx", "a\0"];
        for bad in bad {
            assert!(InterfaceName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn plugin_names_are_those_of_a_file_in_a_directory() {
        for good in ["bridge", "host-local", "..."] {
            assert_eq!(PluginName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "../bridge", "/bin/sh", "a\0"] {
            assert!(PluginName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_kind_the_value_and_the_rule() {
        let message = ContainerId::new("a/\n").unwrap_err().to_string();
        assert_eq!(
            message,
            r#"container ID "a/\n": only letters, digits, '_', '.' and '-' are allowed"#
        );
    }
}
