//! Writing a result as a given version.

use serde_json::Value;

use super::{CniResult, Dns, Extra, Interface, IpConfig, Route, Version};
use crate::Error;

/// Writes a result as `version`.
pub(super) fn result(result: &CniResult, version: Version) -> Result<Value, Error> {
    result.check_indices()?;
    let object =
        if version.is_legacy() { legacy(result, version)? } else { current(result, version) };
    Ok(object.finish())
}

fn current(result: &CniResult, version: Version) -> Object {
    let loses_device = version <= Version::V0_4_0 && result.cni_version >= Version::V1_0_0;
    let names = ["cniVersion", "interfaces", "ips", "routes", "dns"];
    let mut object = Object::new(&result.extra, &names);
    object.put("cniVersion", version.as_str());
    object.put_list("interfaces", &result.interfaces, |it| interface(it, loses_device));
    object.put_list("ips", &result.ips, |it| ip(it, version));
    object.put_list("routes", &result.routes, |it| route(it, false));
    // Readers of 0.3 and 0.4 have always seen it.
    if version <= Version::V0_4_0 || !result.dns.is_empty() {
        object.put("dns", dns(&result.dns));
    }
    object
}

fn interface(interface: &Interface, loses_device: bool) -> Value {
    let names = ["name", "mac", "mtu", "sandbox", "socketPath", "pciID"];
    let mut object = Object::new(&interface.extra, &names);
    object.put("name", interface.name.as_str());
    object.put_some("mac", interface.mac.as_deref());
    object.put_some("sandbox", interface.sandbox.as_deref());
    if !loses_device {
        object.put_some("mtu", interface.mtu);
        object.put_some("socketPath", interface.socket_path.as_deref());
        object.put_some("pciID", interface.pci_id.as_deref());
    }
    object.finish()
}

fn ip(ip: &IpConfig, version: Version) -> Value {
    let mut object = Object::new(&ip.extra, &["interface", "address", "gateway"]);
    if version <= Version::V0_4_0 {
        object.put("version", if ip.address.addr().is_ipv4() { "4" } else { "6" });
    }
    object.put_some("interface", ip.interface);
    object.put("address", ip.address.to_string());
    object.put_some("gateway", ip.gateway.map(|gateway| gateway.to_string()));
    object.finish()
}

fn route(route: &Route, only_next_hop: bool) -> Value {
    let names = ["dst", "gw", "mtu", "advmss", "priority", "table", "scope"];
    let mut object = Object::new(&route.extra, &names);
    object.put("dst", route.dst.to_string());
    object.put_some("gw", route.gw.map(|gw| gw.to_string()));
    if !only_next_hop {
        object.put_some("mtu", route.mtu);
        object.put_some("advmss", route.advmss);
        object.put_some("priority", route.priority);
        object.put_some("table", route.table);
        object.put_some("scope", route.scope);
    }
    object.finish()
}

fn dns(dns: &Dns) -> Value {
    let mut object = Object::new(&dns.extra, &["nameservers", "domain", "search", "options"]);
    object.put_list("nameservers", &dns.nameservers, |it| it.as_str().into());
    object.put_some("domain", dns.domain.as_deref());
    object.put_list("search", &dns.search, |it| it.as_str().into());
    object.put_list("options", &dns.options, |it| it.as_str().into());
    object.finish()
}

/// Versions 0.1.0 and 0.2.0: one address a family, with the routes of that family.
fn legacy(result: &CniResult, version: Version) -> Result<Object, Error> {
    let from = result.cni_version;
    let mut object = Object::new(&result.extra, &["cniVersion", "ip4", "ip6", "dns"]);
    object.put("cniVersion", version.as_str());
    object.put("dns", dns(&result.dns));
    let first = |is_ipv4| result.ips.iter().find(|ip| ip.address.addr().is_ipv4() == is_ipv4);
    let [ipv4, ipv6] = [first(true), first(false)];
    if ipv4.is_none() && ipv6.is_none() && !from.is_legacy() {
        let reason = "it has no address, and that version cannot do without";
        return Err(Error::Conversion { from, to: version, reason });
    }
    for (name, ip, is_ipv4) in [("ip4", ipv4, true), ("ip6", ipv6, false)] {
        if let Some(ip) = ip {
            // A route of a family without an address stays where it can only have been before.
            let takes_all = from.is_legacy() && (ipv4.is_none() || ipv6.is_none());
            let takes = |route: &Route| takes_all || route.dst.addr().is_ipv4() == is_ipv4;
            object.put(name, legacy_ip(ip, result, takes));
        }
    }
    Ok(object)
}

fn legacy_ip(ip: &IpConfig, result: &CniResult, takes: impl Fn(&Route) -> bool) -> Value {
    let mut object = Object::new(&ip.extra, &["ip", "gateway", "routes"]);
    object.put("ip", ip.address.to_string());
    object.put_some("gateway", ip.gateway.map(|gateway| gateway.to_string()));
    let routes: Vec<&Route> = result.routes.iter().filter(|route| takes(route)).collect();
    object.put_list("routes", &routes, |it| route(it, !result.cni_version.is_legacy()));
    object.finish()
}

/// A JSON object in the making: what was not known first, so that it never stands in for what is.
struct Object(Extra);

impl Object {
    /// `names` are the fields that the object has in the version that is written.
    fn new(extra: &Extra, names: &[&str]) -> Self {
        let mut fields = extra.clone();
        for name in names {
            fields.remove(*name);
        }
        Self(fields)
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn put_some(&mut self, name: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_list<T>(&mut self, name: &str, list: &[T], value: impl Fn(&T) -> Value) {
        if !list.is_empty() {
            self.put(name, list.iter().map(value).collect::<Vec<_>>());
        }
    }

    fn finish(self) -> Value {
        Value::Object(self.0)
    }
}
