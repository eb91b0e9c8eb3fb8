//! The runtime with the plugins of Debian's containernetworking-plugins, in real namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jackfield_cni::config::NetworkList;
use jackfield_cni::runtime::{Runtime, RuntimeConf};
use jackfield_cni::types::{CniResult, Version};
use jackfield_cni::{Error, NetworkName};
use jackfield_kernel::{Address, Family, Link, Namespace, Rtnetlink};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A machine and a container, both without a name, and a directory for leases and cache.
struct Bench {
    host: Namespace,
    container: Namespace,
    directory: TempDir,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        assert!(
            Path::new(PLUGINS).join("bridge").exists(),
            "these tests need Debian's containernetworking-plugins"
        );
        let directory = TempDir::new().unwrap();
        let mut runtime = Runtime::new(vec![PLUGINS.into()]);
        runtime.cache_dir = directory.path().join("cache");
        let anonymous = || Namespace::anonymous().expect("the right to make namespaces");
        Self { host: anonymous(), container: anonymous(), directory, runtime }
    }

    fn conf(&self) -> RuntimeConf {
        let netns = format!("/proc/{}/fd/{}", std::process::id(), self.container.as_raw_fd());
        RuntimeConf::new("vm1".parse().unwrap(), Some(netns.into()), "eth0".parse().unwrap())
    }

    fn host_local(&self) -> Value {
        json!({
            "type": "host-local",
            "dataDir": self.leases(),
            "ranges": [[{"subnet": "10.99.0.0/24"}], [{"subnet": "fd99::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        })
    }

    /// `bridge`, dual stack, and `tuning`, which sets the MAC that it is given.
    fn bridge(&self, version: Version) -> NetworkList {
        list(
            version,
            json!([
                {"type": "bridge", "bridge": "br-cni", "isGateway": true, "ipam": self.host_local()},
                {"type": "tuning", "capabilities": {"mac": true},
                 "dataDir": self.directory.path().join("tuning")},
            ]),
        )
    }

    fn ptp(&self, version: Version) -> NetworkList {
        list(version, json!([{"type": "ptp", "mtu": 1400, "ipam": self.host_local()}]))
    }

    fn leases(&self) -> PathBuf {
        self.directory.path().join("leases")
    }

    /// The addresses that host-local holds for somebody.
    fn held(&self) -> BTreeSet<String> {
        let names = fs::read_dir(self.leases().join("net")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.starts_with("last_reserved_ip") && name != "lock").collect()
    }

    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }

    fn assert_clean(&self) {
        assert_eq!(links(&self.container), ["lo"]);
        assert!(links(&self.host).iter().all(|name| name == "lo" || name == "br-cni"));
        assert_eq!(self.held(), BTreeSet::new());
        assert!(self.runtime.cached_attachments(None).unwrap().0.is_empty());
    }
}

fn list(version: Version, plugins: Value) -> NetworkList {
    let list = json!({"name": "net", "cniVersion": version, "plugins": plugins});
    NetworkList::parse(list.to_string()).unwrap()
}

fn links(namespace: &Namespace) -> Vec<String> {
    let mut kernel = Rtnetlink::open_in(namespace).unwrap();
    Link::list(&mut kernel).unwrap().into_iter().map(|link| link.name).collect()
}

fn eth0(namespace: &Namespace) -> Link {
    let mut kernel = Rtnetlink::open_in(namespace).unwrap();
    Link::list(&mut kernel).unwrap().into_iter().find(|link| link.name == "eth0").unwrap()
}

/// The addresses of eth0 that are not link-local.
fn addresses(namespace: &Namespace) -> BTreeSet<IpNet> {
    let index = eth0(namespace).index;
    let mut kernel = Rtnetlink::open_in(namespace).unwrap();
    let all = Family::BOTH.map(|family| Address::list(&mut kernel, family).unwrap());
    let here = all.into_iter().flatten().filter(|address| address.interface == index);
    let link_local: IpNet = "fe80::/10".parse().unwrap();
    here.map(|address| address.address).filter(|it| !link_local.contains(it)).collect()
}

fn addresses_of(result: &CniResult) -> BTreeSet<IpNet> {
    result.ips.iter().map(|ip| ip.address).collect()
}

#[test]
fn a_dual_stack_bridge_with_a_given_mac_comes_is_checked_and_goes() {
    for version in [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0] {
        let bench = Bench::new();
        let network = bench.bridge(version);
        let mut conf = bench.conf();
        let mac = "02:ca:fe:00:00:01";
        conf.capability_args.insert("mac".into(), mac.into());

        let result = bench.on_host(|| bench.runtime.add(&network, &conf)).unwrap();
        assert_eq!(result.cni_version, version);
        assert_eq!(addresses(&bench.container), addresses_of(&result));
        assert_eq!(result.ips.len(), 2);
        let interface = result.interface_of(&result.ips[0]).unwrap();
        assert_eq!((interface.name.as_str(), interface.mac.as_deref()), ("eth0", Some(mac)));
        assert_eq!(interface.sandbox.as_deref(), conf.netns.as_deref().unwrap().to_str());
        let octets = eth0(&bench.container).address.unwrap();
        assert_eq!(octets, [0x02, 0xca, 0xfe, 0, 0, 1]);
        assert_eq!(bench.held().len(), 2);

        if version >= Version::V0_4_0 {
            bench.on_host(|| bench.runtime.check(&network, &conf)).unwrap();
        }
        bench.on_host(|| bench.runtime.del(&network, &conf)).unwrap();
        bench.assert_clean();
        bench.on_host(|| bench.runtime.del(&network, &conf)).expect("a second DEL");
    }
}

#[test]
fn ptp_in_every_version_that_has_interfaces() {
    for version in [Version::V0_3_0, Version::V0_3_1, Version::V0_4_0, Version::V1_0_0] {
        let bench = Bench::new();
        let (network, conf) = (bench.ptp(version), bench.conf());
        let result = bench.on_host(|| bench.runtime.add(&network, &conf)).unwrap();
        assert_eq!(addresses(&bench.container), addresses_of(&result));
        assert_eq!(eth0(&bench.container).mtu, 1400);
        assert_eq!(result.routes.len(), 2);
        bench.on_host(|| bench.runtime.del(&network, &conf)).unwrap();
        bench.assert_clean();
    }
}

#[test]
fn check_fails_when_the_address_is_gone() {
    let bench = Bench::new();
    let (network, conf) = (bench.ptp(Version::V1_0_0), bench.conf());
    bench.on_host(|| bench.runtime.add(&network, &conf)).unwrap();
    bench.on_host(|| bench.runtime.check(&network, &conf)).unwrap();
    let mut kernel = Rtnetlink::open_in(&bench.container).unwrap();
    for address in Address::list(&mut kernel, Family::V4).unwrap() {
        if address.interface == eth0(&bench.container).index {
            kernel.request("remove the address", address.remove()).unwrap();
        }
    }
    let error = bench.on_host(|| bench.runtime.check(&network, &conf)).unwrap_err();
    assert!(error.to_string().contains("CHECK by plugin ptp"), "{error}");
    bench.on_host(|| bench.runtime.del(&network, &conf)).unwrap();
    bench.assert_clean();
}

#[test]
fn a_chain_that_fails_at_its_end_leaves_no_lease_and_no_interface() {
    let bench = Bench::new();
    for last in
        [json!({"type": "not-installed"}), json!({"type": "tuning", "sysctl": {"a/b": "c"}})]
    {
        let plugins = json!([{"type": "ptp", "ipam": bench.host_local()}, last]);
        let network = list(Version::V1_0_0, plugins);
        let error = bench.on_host(|| bench.runtime.add(&network, &bench.conf())).unwrap_err();
        assert!(matches!(error, Error::Plugin { command: "ADD", .. }), "{error}");
        bench.assert_clean();
    }
}

/// A plain file is what is left of a namespace whose mount is gone.
#[test]
fn del_with_the_namespace_gone_and_from_the_cache_alone_gives_the_addresses_back() {
    for left in ["gone", "a-plain-file"] {
        let bench = Bench::new();
        let mut conf = bench.conf();
        bench.on_host(|| bench.runtime.add(&bench.ptp(Version::V1_0_0), &conf)).unwrap();
        assert_eq!(bench.held().len(), 2);

        fs::write(bench.directory.path().join("a-plain-file"), "").unwrap();
        conf.netns = Some(bench.directory.path().join(left));
        let name: NetworkName = "net".parse().unwrap();
        let cached = bench.runtime.cached(&name, &conf).unwrap().unwrap();
        let network = cached.network.unwrap();
        bench.on_host(|| bench.runtime.del(&network, &conf)).unwrap();
        assert_eq!(bench.held(), BTreeSet::new());
        assert!(bench.runtime.cached(&name, &conf).unwrap().is_none());
    }
}

#[test]
fn debians_plugins_tell_their_versions() {
    let runtime = Runtime::new(vec![PLUGINS.into()]);
    let versions = runtime.version(&"bridge".parse().unwrap()).unwrap();
    for version in Version::ALL.into_iter().filter(|version| *version <= Version::V1_0_0) {
        assert!(versions.contains(&version.to_string()), "{version}: {versions:?}");
    }
}
