//! The result of an ADD, in the shape of the newest version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::json::{address, network, null_is_default, positive, text};
use super::{Extra, Version, read, write};
use crate::Error;

/// The result of an ADD: what was made, and what the container or guest is to be given.
///
/// It has the fields of version 1.1.0, whatever version it was read from. `extra`, here and in
/// its parts, keeps the fields that the version it was read from does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct CniResult {
    /// The version that it was read from; for a new one the newest.
    pub cni_version: Version,
    /// The interfaces, those of the host included. Never there in versions 0.1.0 and 0.2.0.
    pub interfaces: Vec<Interface>,
    /// The addresses, those of 0.1.0 and 0.2.0 with IPv4 first.
    pub ips: Vec<IpConfig>,
    /// The routes.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
    /// Fields that are not known.
    pub extra: Extra,
}

/// An interface that a plugin made, moved or speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Interface {
    /// The name, unchecked: it is not always that of a Linux device.
    pub name: String,
    /// The hardware address, unchecked.
    #[serde(default, deserialize_with = "text")]
    pub mac: Option<String>,
    /// The MTU in bytes. From version 1.1.0.
    #[serde(default, deserialize_with = "positive")]
    pub mtu: Option<u32>,
    /// The path of the network namespace, or whatever isolates the interface; `None` for one of the
    /// host.
    #[serde(default, deserialize_with = "text")]
    pub sandbox: Option<String>,
    /// The path of a socket, for interfaces in user space. From version 1.1.0.
    #[serde(rename = "socketPath", default, deserialize_with = "text")]
    pub socket_path: Option<String>,
    /// The platform's identifier of a PCI device. From version 1.1.0.
    #[serde(rename = "pciID", default, deserialize_with = "text")]
    pub pci_id: Option<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IpConfig {
    /// Which of the result's interfaces it is on: an index of [`CniResult::interfaces`] that is
    /// in range in every result that was read.
    pub interface: Option<u32>,
    /// The address with its prefix length, host bits kept.
    #[serde(deserialize_with = "network")]
    pub address: IpNet,
    /// The gateway of this address.
    #[serde(default, deserialize_with = "address")]
    pub gateway: Option<IpAddr>,
    /// Fields that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Route {
    /// The destination, host bits kept.
    #[serde(deserialize_with = "network")]
    pub dst: IpNet,
    /// The next hop; `None` leaves it to the plugin or to the address's gateway.
    #[serde(default, deserialize_with = "address")]
    pub gw: Option<IpAddr>,
    /// The MTU along it, in bytes.
    #[serde(default, deserialize_with = "positive")]
    pub mtu: Option<u32>,
    /// The TCP segment size to advertise, in bytes.
    #[serde(default, deserialize_with = "positive")]
    pub advmss: Option<u32>,
    /// The metric; lower is preferred.
    #[serde(default, deserialize_with = "positive")]
    pub priority: Option<u32>,
    /// The routing table's number.
    pub table: Option<u32>,
    /// The scope's number: 0 global, 253 link, 254 host.
    pub scope: Option<u32>,
    /// Fields that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

/// Name resolution.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct Dns {
    /// Name servers, most preferred first, unchecked.
    #[serde(default, deserialize_with = "null_is_default")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, deserialize_with = "text")]
    pub domain: Option<String>,
    /// Search domains, most preferred first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub search: Vec<String>,
    /// Options of the resolver, as in resolv.conf(5).
    #[serde(default, deserialize_with = "null_is_default")]
    pub options: Vec<String>,
    /// Fields that are not known.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for CniResult {
    fn default() -> Self {
        Self {
            cni_version: Version::LATEST,
            interfaces: Vec::new(),
            ips: Vec::new(),
            routes: Vec::new(),
            dns: Dns::default(),
            extra: Extra::new(),
        }
    }
}

impl CniResult {
    /// Reads a result of any version.
    ///
    /// Lists and fields that are `null` are read as absent, as are empty strings and, for an MTU,
    /// segment size or metric, 0: this is how the Go library writes and reads them. An *entry* of a
    /// list that is `null` is an error.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`], [`Error::Field`] with the path and the value,
    /// [`Error::UnsupportedVersion`].
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, Error> {
        read::result(json.as_ref(), Version::V0_1_0)
    }

    /// Like [`parse`](Self::parse), for a result that stands beside a configuration: where it has
    /// no version, it has the configuration's. Plugins that leave it out mean that.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_for(json: impl AsRef<[u8]>, configuration: Version) -> Result<Self, Error> {
        read::result(json.as_ref(), configuration)
    }

    /// Writes it as a given version, by the Go library's rules of conversion:
    ///
    /// - from 1.x to 0.3 and 0.4, interfaces lose `mtu`, `socketPath` and `pciID`;
    /// - to 0.1 and 0.2, the first IPv4 and the first IPv6 address remain, with the routes of their
    ///   families reduced to destination and next hop;
    /// - what is not known stays.
    ///
    /// # Errors
    ///
    /// [`Error::Conversion`] where no address remains for 0.1 or 0.2, which cannot say so;
    /// [`Error::Field`] where an address points at an interface that is not there.
    pub fn to_version(&self, version: Version) -> Result<Value, Error> {
        write::result(self, version)
    }

    /// Like [`to_version`](Self::to_version), as text.
    ///
    /// # Errors
    ///
    /// As [`to_version`](Self::to_version).
    pub fn to_json(&self, version: Version) -> Result<String, Error> {
        Ok(self.to_version(version)?.to_string())
    }

    /// The interface that an address is on.
    #[must_use]
    pub fn interface_of(&self, ip: &IpConfig) -> Option<&Interface> {
        self.interfaces.get(usize::try_from(ip.interface?).ok()?)
    }

    /// # Errors
    ///
    /// [`Error::Field`] where an address points at an interface that is not there.
    pub(super) fn check_indices(&self) -> Result<(), Error> {
        let count = self.interfaces.len();
        for (position, ip) in self.ips.iter().enumerate() {
            let Some(index) = ip.interface else { continue };
            if self.interface_of(ip).is_none() {
                return Err(Error::Field {
                    document: "CNI result",
                    field: format!("ips[{position}].interface"),
                    reason: format!("{index} is out of range: the result has {count} interfaces"),
                });
            }
        }
        Ok(())
    }
}

impl IpConfig {
    /// An address with nothing else.
    #[must_use]
    pub fn new(address: IpNet) -> Self {
        Self { interface: None, address, gateway: None, extra: Extra::new() }
    }
}

impl Route {
    /// A route with nothing but its destination and next hop.
    #[must_use]
    pub fn new(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self {
            dst,
            gw,
            mtu: None,
            advmss: None,
            priority: None,
            table: None,
            scope: None,
            extra: Extra::new(),
        }
    }
}

impl Dns {
    /// There is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
