//! Instances, and the bridges with containers behind them that run on one.

use crate::emulator::CloudInterface;
use crate::error::Result;
use crate::fabric::MAIN;
use crate::host::{self, Host, Process};
use crate::lab::Lab;
use crate::udev;
use ipnet::IpNet;
use jackfield_kernel::{Family, LinkChange, Route, VethEnd, bridge, veth_pair};
use std::cell::Cell;
use std::net::IpAddr;
use std::ops::Deref;

/// A machine of the cloud. Dropped, its interfaces are pulled and stay in the cloud.
#[derive(Debug)]
pub struct Instance {
    /// Ended before the rest of the instance.
    udev: Option<Process>,
    host: Host,
    lab: Lab,
    id: String,
    primary: CloudInterface,
}

impl Instance {
    pub(crate) fn new(lab: Lab, host: Host, id: String, primary: CloudInterface) -> Self {
        Self { udev: None, host, lab, id, primary }
    }

    /// The ID by which the metadata service knows it: `i-` and its name.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The primary interface as it was at the start.
    #[must_use]
    pub fn primary(&self) -> &CloudInterface {
        &self.primary
    }

    /// Starts a real systemd-udevd in the instance: with the machine's rules and, besides, these
    /// files, each a name like `70-names.rules` and its text. Events of what is there already are
    /// handled when this returns.
    ///
    /// # Errors
    ///
    /// Where there is no udevd, or the process is not root on this machine.
    pub fn start_udev(&mut self, rules: &[(&str, &str)]) -> Result<()> {
        self.udev = None;
        self.udev = Some(udev::start(&self.host, rules)?);
        Ok(())
    }

    /// Waits until udevd has handled all events so far.
    ///
    /// # Errors
    ///
    /// Where it does not run.
    pub fn settle_udev(&self) -> Result<()> {
        udev::settle(&self.host)
    }

    /// Ends the machine and starts it anew: nothing that its kernel knew is there any more. All
    /// interfaces are in it from the start as hardware is, down and without addresses, each named
    /// after its device number; that includes the primary, which nobody has configured.
    ///
    /// What still runs in what it was stays there, and has no interfaces any more.
    ///
    /// # Errors
    ///
    /// As [`Lab::instance`].
    pub fn power_cycle(&mut self) -> Result<()> {
        self.udev = None;
        self.host = Host::with_mounts(self.host.name())?;
        let cloud = self.lab.cloud();
        let mut fabric = self.lab.fabric();
        for mac in cloud.attached_to(&self.id) {
            let Some((_, device_number)) = cloud.attachment(mac) else { continue };
            fabric.unplug(mac)?;
            let record = cloud.interface(mac)?;
            fabric.plug(&record, self.host.namespace(), &format!("eth{device_number}"))?;
        }
        Ok(())
    }

    /// Makes a bridge like docker0, with the first address of each network, and lets the instance
    /// forward.
    ///
    /// # Errors
    ///
    /// Where it has a link of that name.
    pub fn bridge(&self, name: &str, networks: &[IpNet]) -> Result<Bridge<'_>> {
        self.set_sysctl("net/ipv4/ip_forward", "1")?;
        self.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        self.apply("make a bridge", &[bridge(name)])?;
        let index = self.link(name)?.index;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut requests = vec![up.request(index)];
        for network in networks {
            let gateway = host::first_of(network.addr(), network.prefix_len());
            requests.extend(host::address(index, gateway, network.prefix_len()));
        }
        self.apply("configure a bridge", &requests)?;
        let networks = networks.to_vec();
        Ok(Bridge { instance: self, index, networks, containers: Cell::new(0) })
    }
}

impl Deref for Instance {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.udev = None;
        let cloud = self.lab.cloud();
        for mac in cloud.attached_to(&self.id) {
            // All that can be wrong is that it is gone already.
            let _ = self.lab.detach(mac);
        }
        cloud.remove_instance(&self.id);
    }
}

/// A bridge of an instance, for containers.
#[derive(Debug)]
pub struct Bridge<'a> {
    instance: &'a Instance,
    index: u32,
    networks: Vec<IpNet>,
    containers: Cell<u8>,
}

impl Bridge<'_> {
    /// A container behind the bridge: a host whose `eth0` has an address of each network and
    /// whose default routes lead to the bridge.
    ///
    /// # Errors
    ///
    /// Without the right to make namespaces.
    pub fn container(&self, name: &str) -> Result<Container> {
        let number = self.containers.get() + 1;
        self.containers.set(number);
        let host = Host::new(name)?;
        let port = format!("vethc{number}");
        let near = VethEnd { name: &port, address: None, mtu: None, namespace: None };
        let far = VethEnd { name: "eth0", namespace: Some(host.namespace()), ..near };
        self.instance.apply("make a container's link", &[veth_pair(near, far)])?;
        let controller = Some(self.index);
        let join = LinkChange { up: Some(true), controller, ..LinkChange::default() };
        let port = self.instance.link(&port)?.index;
        self.instance.apply("join a container to its bridge", &[join.request(port)])?;
        let index = host.link("eth0")?.index;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        let mut requests = vec![up.request(index)];
        let mut addresses = Vec::new();
        for network in &self.networks {
            let gateway = host::first_of(network.addr(), network.prefix_len());
            let address = match gateway {
                IpAddr::V4(first) => IpAddr::V4((u32::from(first) + u32::from(number)).into()),
                IpAddr::V6(first) => IpAddr::V6((u128::from(first) + u128::from(number)).into()),
            };
            addresses.push(address);
            requests.extend(host::address(index, address, network.prefix_len()));
            let everything = Family::of(address).everything();
            requests.push(Route::via_gateway(everything, MAIN, index, gateway).add());
        }
        host.apply("configure a container", &requests)?;
        Ok(Container { host, addresses })
    }
}

/// A namespace behind a bridge.
#[derive(Debug)]
pub struct Container {
    host: Host,
    addresses: Vec<IpAddr>,
}

impl Container {
    /// Its addresses, one of each network of the bridge.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl Deref for Container {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}
