//! Reading a result of any version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::json::{address, from_slice, network, null_is_default};
use super::{CniResult, Dns, Extra, Interface, IpConfig, Route, Version};
use crate::Error;

const DOCUMENT: &str = "CNI result";

/// Reads a result; `unlabelled` is the version of one that says none. The common shape is tried
/// first, so that the version needs no pass of its own.
pub(super) fn result(json: &[u8], unlabelled: Version) -> Result<CniResult, Error> {
    let version = |text: &str| if text.is_empty() { Ok(unlabelled) } else { text.parse() };
    let attempt = from_slice::<CurrentResult>(DOCUMENT, json);
    let version = match &attempt {
        Ok(current) => version(&current.cni_version)?,
        Err(_) => version(&from_slice::<Labelled>(DOCUMENT, json)?.cni_version)?,
    };
    if version.is_legacy() {
        return Ok(from_slice::<LegacyResult>(DOCUMENT, json)?.into_result(version));
    }
    attempt.and_then(|current| current.into_result(version))
}

/// Only the version, whatever else there is.
#[derive(Deserialize)]
struct Labelled {
    #[serde(rename = "cniVersion", default, deserialize_with = "null_is_default")]
    cni_version: String,
}

/// From version 0.3.0 on.
#[derive(Deserialize)]
struct CurrentResult {
    #[serde(rename = "cniVersion", default, deserialize_with = "null_is_default")]
    cni_version: String,
    #[serde(default, deserialize_with = "null_is_default")]
    interfaces: Vec<Interface>,
    #[serde(default, deserialize_with = "null_is_default")]
    ips: Vec<IpConfig>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<Route>,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: Dns,
    #[serde(flatten)]
    extra: Extra,
}

impl CurrentResult {
    fn into_result(self, version: Version) -> Result<CniResult, Error> {
        let Self { mut ips, interfaces, routes, dns, extra, .. } = self;
        if version <= Version::V0_4_0 {
            // `version`, "4" or "6", only says again what the address says.
            for ip in &mut ips {
                ip.extra.remove("version");
            }
        }
        let result = CniResult { cni_version: version, interfaces, ips, routes, dns, extra };
        result.check_indices()?;
        Ok(result)
    }
}

/// Versions 0.1.0 and 0.2.0.
#[derive(Deserialize)]
struct LegacyResult {
    #[serde(rename = "cniVersion", default, deserialize_with = "null_is_default")]
    _cni_version: String,
    ip4: Option<LegacyIp>,
    ip6: Option<LegacyIp>,
    #[serde(default, deserialize_with = "null_is_default")]
    dns: Dns,
    #[serde(flatten)]
    extra: Extra,
}

#[derive(Deserialize)]
struct LegacyIp {
    #[serde(deserialize_with = "network")]
    ip: IpNet,
    #[serde(default, deserialize_with = "address")]
    gateway: Option<IpAddr>,
    #[serde(default, deserialize_with = "null_is_default")]
    routes: Vec<Route>,
    #[serde(flatten)]
    extra: Extra,
}

impl LegacyResult {
    fn into_result(self, version: Version) -> CniResult {
        let mut ips = Vec::new();
        let mut routes = Vec::new();
        for legacy in [self.ip4, self.ip6].into_iter().flatten() {
            let LegacyIp { ip, gateway, routes: its_routes, extra } = legacy;
            ips.push(IpConfig { interface: None, address: ip, gateway, extra });
            routes.extend(its_routes);
        }
        CniResult {
            cni_version: version,
            interfaces: Vec::new(),
            ips,
            routes,
            dns: self.dns,
            extra: self.extra,
        }
    }
}
