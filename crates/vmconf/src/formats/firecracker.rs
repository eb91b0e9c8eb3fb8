//! Firecracker's network interfaces, as JSON: a part of its configuration file, or the overrides with
//! which a snapshot is loaded.
//!
//! Each entry of `network-interfaces` is also the body of `PUT /network-interfaces/<iface_id>`. It
//! describes the device: the tap, the MAC and, from version 1.16, the MTU. What the guest configures
//! goes another way. Firecracker has to run in the interface's `netns_path`.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::conf::{StaticNetworkConf, VmConf};
use crate::render::{Format, Lost, RenderError, Rendered, Warning};
use crate::value::{InterfaceName, MacAddr};

/// A version of Firecracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Version {
    /// The first that takes an MTU. Those before it refuse the whole configuration for it.
    pub const WITH_MTU: Self = Self { major: 1, minor: 16 };
}

/// A text that is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no version of Firecracker: expected two numbers such as 1.16")]
pub struct VersionError(String);

impl std::str::FromStr for Version {
    type Err = VersionError;

    /// Reads `1.16`, `1.16.2` and `v1.16.2`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        let parse = || {
            let mut numbers = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
            let major = numbers.next()?.parse().ok()?;
            Some(Self { major, minor: numbers.next()?.parse().ok()? })
        };
        parse().ok_or_else(|| VersionError(text.to_owned()))
    }
}

/// Bytes or operations that come back with time, as Firecracker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenBucket {
    /// How much there is at most.
    pub size: u64,
    /// How much there is beside that at the start, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_burst: Option<u64>,
    /// In what time it fills, in milliseconds.
    pub refill_time: u64,
}

/// A limit on one direction of an interface, passed through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

/// The microVM's metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mmds {
    /// Which version of it: [`MmdsVersion::V2`] asks for session tokens.
    pub version: MmdsVersion,
    /// Where the guest reaches it; `None` is 169.254.169.254.
    pub ipv4_address: Option<Ipv4Addr>,
}

/// A version of the metadata service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// Without tokens.
    V1,
    /// With session tokens.
    #[default]
    V2,
}

/// What to render, and for which Firecracker.
#[derive(Debug, Clone)]
pub struct Options {
    /// The version that reads it.
    pub version: Version,
    /// What the guest may receive.
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    pub tx_rate_limiter: Option<RateLimiter>,
    /// The metadata service, on all interfaces.
    pub mmds: Option<Mmds>,
}

impl Default for Options {
    /// The newest version known here, without limits and without metadata service.
    fn default() -> Self {
        Self {
            version: Version::WITH_MTU,
            rx_rate_limiter: None,
            tx_rate_limiter: None,
            mmds: None,
        }
    }
}

/// One entry of `network-interfaces`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterface<'a> {
    /// `eth0`, `eth1`… by position, which is what the guest's kernel calls them.
    pub iface_id: String,
    /// The tap.
    pub host_dev_name: &'a InterfaceName,
    /// The guest's MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<MacAddr>,
    /// The guest's MTU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// What the guest may receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// What the guest may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

#[derive(Serialize)]
struct MmdsConfig {
    version: MmdsVersion,
    network_interfaces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ipv4_address: Option<Ipv4Addr>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Configuration<'a> {
    network_interfaces: Vec<NetworkInterface<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mmds_config: Option<MmdsConfig>,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    network_overrides: Vec<NetworkOverride<'a>>,
}

#[derive(Serialize)]
struct NetworkOverride<'a> {
    iface_id: String,
    host_dev_name: &'a InterfaceName,
}

/// The entries of `network-interfaces`, in order.
#[must_use]
pub fn network_interfaces<'a>(vm: &'a VmConf, options: &Options) -> Vec<NetworkInterface<'a>> {
    let takes_mtu = options.version >= Version::WITH_MTU;
    let entry = |(position, conf): (usize, &'a StaticNetworkConf)| NetworkInterface {
        iface_id: iface_id(position),
        host_dev_name: &conf.tap_name,
        guest_mac: conf.vm_mac,
        mtu: conf.vm_mtu.filter(|_| takes_mtu).map(u32::from),
        rx_rate_limiter: options.rx_rate_limiter,
        tx_rate_limiter: options.tx_rate_limiter,
    };
    vm.interfaces().iter().enumerate().map(entry).collect()
}

/// The keys `network-interfaces` and, where wanted, `mmds-config` of the configuration file.
///
/// # Errors
///
/// None: the type is that of all formats.
pub fn render(vm: &VmConf, options: &Options) -> Result<Rendered, RenderError> {
    let ids = (0..vm.interfaces().len()).map(iface_id);
    let configuration = Configuration {
        network_interfaces: network_interfaces(vm, options),
        mmds_config: options.mmds.map(|mmds| MmdsConfig {
            version: mmds.version,
            network_interfaces: ids.collect(),
            ipv4_address: mmds.ipv4_address,
        }),
    };
    let takes_mtu = options.version >= Version::WITH_MTU;
    let lost_mtu = |conf: &StaticNetworkConf| {
        let mtu = conf.vm_mtu.filter(|_| !takes_mtu)?;
        let reason = "Firecracker takes an MTU from version 1.16";
        Some(Warning::new(Format::Firecracker, conf, Lost::Mtu(mtu), reason))
    };
    let warnings = vm.interfaces().iter().filter_map(lost_mtu).collect();
    Ok(Rendered { text: pretty(&configuration), warnings })
}

/// The key `network_overrides` of `PUT /snapshot/load`: the same interfaces on other taps. The guest
/// keeps the MAC, MTU and addresses that it had.
pub fn render_snapshot_load(vm: &VmConf) -> Rendered {
    let interfaces = vm.interfaces().iter().enumerate();
    let network_overrides = interfaces
        .map(|(position, conf)| NetworkOverride {
            iface_id: iface_id(position),
            host_dev_name: &conf.tap_name,
        })
        .collect();
    Rendered { text: pretty(&Snapshot { network_overrides }), warnings: Vec::new() }
}

/// Letters, digits and underscores, as Firecracker wants it.
fn iface_id(position: usize) -> String {
    format!("eth{position}")
}

fn pretty(document: &impl Serialize) -> String {
    // Strings, numbers and lists: nothing that serde_json could refuse.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_two_numbers() {
        assert_eq!("1.16".parse::<Version>().unwrap(), Version::WITH_MTU);
        assert!("v1.9.1".parse::<Version>().unwrap() < Version::WITH_MTU);
        assert!("2.0".parse::<Version>().unwrap() > Version::WITH_MTU);
        for bad in ["", "1", "1.", "x.1", "1.-1"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
