//! The lab: a cloud on this machine.

use crate::emulator::{Cloud, CloudInterface, Emulator, MacAddr, Subnet};
use crate::error::{Attempt, Result};
use crate::fabric::{Fabric, GATEWAY_IPV6, MAIN, RouterAdvertisement, Violation};
use crate::host::{self, Host};
use crate::instance::Instance;
use crate::plug::{Plug, Plugged};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jackfield_kernel::{Family, LinkChange, Route};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// `RTPROT_DHCP`.
const DHCP: u8 = 16;
const PRIMARY_METRIC: u32 = 100;
/// The first host number that is given out in a subnet; a cloud keeps the lowest for itself.
const FIRST_HOST: u32 = 10;

/// A cloud of its own: fabric, remote host, metadata service. It goes when the last of it and of
/// its instances is dropped.
#[derive(Debug, Clone)]
pub struct Lab(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    cloud: Cloud,
    /// Before the fabric, in whose namespace it listens.
    _emulator: Emulator,
    fabric: Mutex<Fabric>,
    remote: Host,
    given: Mutex<Given>,
}

/// What was given out.
#[derive(Debug, Default)]
struct Given {
    interfaces: u32,
    clients: u32,
    hosts: BTreeMap<String, u32>,
}

impl Lab {
    /// The remote host's IPv4 address.
    pub const REMOTE_IPV4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10));
    /// The remote host's IPv6 address.
    pub const REMOTE_IPV6: IpAddr =
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10));

    /// Builds the fabric, the remote host and the metadata service.
    ///
    /// # Errors
    ///
    /// Without the right to make namespaces: see [`crate::enter_user_namespace`].
    pub fn start() -> Result<Self> {
        let fabric = Fabric::start()?;
        let remote = Host::new("remote")?;
        fabric.join(&remote, &[(Self::REMOTE_IPV4, 24), (Self::REMOTE_IPV6, 64)])?;
        let cloud = Cloud::new();
        let emulator = Emulator::start(fabric.metadata_listeners()?, cloud.clone())
            .attempt(|| "start the metadata service".to_owned())?;
        Ok(Self(Arc::new(Inner {
            cloud,
            _emulator: emulator,
            fabric: Mutex::new(fabric),
            remote,
            given: Mutex::default(),
        })))
    }

    /// What the metadata service knows: for lag, faults and the log of requests. What interfaces
    /// hold is changed through the lab, which tells the fabric besides.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.0.cloud
    }

    /// The host outside of the cloud, at [`Lab::REMOTE_IPV4`] and [`Lab::REMOTE_IPV6`].
    #[must_use]
    pub fn remote(&self) -> &Host {
        &self.0.remote
    }

    /// Runs `work` on the router, to ask from or listen at a gateway's address.
    pub fn with_router<T>(&self, work: impl FnOnce(&Host) -> T) -> T {
        work(self.fabric().host())
    }

    /// Every packet so far that was dropped because its source was not its interface's.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.fabric().violations()
    }

    /// Subnet number `n` of the lab's VPC: 10.0.`n`.0/24 and 2001:db8:0:`n`::/64.
    #[must_use]
    pub fn subnet(&self, n: u8) -> Subnet {
        let ipv4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, n, 0), 24);
        let ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 0);
        let vpc_ipv4 = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 16);
        let vpc_ipv6 = Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 56);
        Subnet::new(format!("subnet-{n}"))
            .with_ipv4(ipv4)
            .with_ipv6(Ipv6Net::new_assert(ipv6, 64))
            .in_vpc("vpc-lab", [vpc_ipv4.into(), vpc_ipv6.into()])
    }

    /// As [`Lab::subnet`], without IPv4: what is in it has IPv6 alone, instances included.
    #[must_use]
    pub fn ipv6_subnet(&self, n: u8) -> Subnet {
        Subnet { ipv4: None, vpc_ipv4: Vec::new(), ..self.subnet(n) }
    }

    /// A new interface with so many addresses of each family that the subnet has, attached
    /// nowhere.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses what the fabric needs.
    pub fn interface(&self, subnet: &Subnet, addresses: u32) -> Result<CloudInterface> {
        let mut record = CloudInterface::new(self.new_mac(), subnet.clone());
        for _ in 0..addresses {
            for address in self.new_addresses(subnet) {
                record = record.with_address(address);
            }
        }
        self.add_interface(record.clone())?;
        Ok(record)
    }

    /// Adds an interface of any description.
    ///
    /// # Errors
    ///
    /// Where the cloud has one of its MAC or of one of its addresses.
    pub fn add_interface(&self, record: CloudInterface) -> Result<()> {
        self.0.cloud.add_interface(record.clone())?;
        self.fabric().know(&record)
    }

    /// A MAC that no other interface of the lab has.
    #[must_use]
    pub fn new_mac(&self) -> MacAddr {
        let mut given = self.given();
        given.interfaces += 1;
        let [_, a, b, c] = given.interfaces.to_be_bytes();
        MacAddr([0x02, 0xec, 0x20, a, b, c])
    }

    /// An address of each family that the subnet has, given out for the first time.
    #[must_use]
    pub fn new_addresses(&self, subnet: &Subnet) -> Vec<IpAddr> {
        let mut given = self.given();
        let host = given.hosts.entry(subnet.id.clone()).or_insert(FIRST_HOST);
        let number = *host;
        *host += 1;
        let ipv4 = subnet
            .ipv4
            .map(|block| IpAddr::V4((u32::from(block.network()).saturating_add(number)).into()));
        let ipv6 = subnet.ipv6.first().map(|block| {
            IpAddr::V6((u128::from(block.network()).saturating_add(number.into())).into())
        });
        ipv4.into_iter().chain(ipv6).collect()
    }

    /// A new instance with a primary interface `eth0` in the subnet, configured as DHCP would have
    /// done it: nothing of ours is needed for it to work. It has a /run and a /sys of its own.
    ///
    /// # Errors
    ///
    /// Without the right to make namespaces.
    pub fn instance(&self, name: &str, subnet: &Subnet) -> Result<Instance> {
        let primary = self.interface(subnet, 1)?;
        let id = format!("i-{name}");
        let instance =
            Instance::new(self.clone(), Host::with_mounts(name)?, id.clone(), primary.clone());
        self.0.cloud.add_instance(id, primary.mac);
        self.attach(&instance, primary.mac, &Plug::new(0))?;
        configure(&instance, "eth0", &primary)?;
        Ok(instance)
    }

    /// A plain instance that only ever has its primary interface: a client to ask from.
    ///
    /// # Errors
    ///
    /// As [`Lab::instance`].
    pub fn client(&self, subnet: &Subnet) -> Result<Instance> {
        let number = {
            let mut given = self.given();
            given.clients += 1;
            given.clients
        };
        self.instance(&format!("client{number}"), subnet)
    }

    /// Plugs an interface into an instance: the metadata service knows, then the link appears,
    /// down and without addresses, as hot-plugged hardware does.
    ///
    /// # Errors
    ///
    /// Where it is attached, or the instance has a link of that name.
    pub fn attach(&self, instance: &Instance, mac: MacAddr, plug: &Plug) -> Result<Plugged> {
        let Plug { device_number, network_card, name, lag } = plug;
        let name = name.clone().unwrap_or_else(|| format!("eth{device_number}"));
        let cloud = &self.0.cloud;
        let record = cloud.interface(mac)?;
        cloud.attach_with_lag(mac, instance.id(), *device_number, *network_card, lag.clone())?;
        let plugged = self.fabric().plug(&record, instance.namespace(), &name);
        match plugged {
            Ok(made) => Ok(Plugged { name, began: made.began, appeared: made.appeared }),
            Err(error) => {
                let _ = self.detach(mac);
                Err(error)
            }
        }
    }

    /// Pulls an interface: its link is gone, wherever it was moved, and the metadata service
    /// knows.
    ///
    /// # Errors
    ///
    /// Where it is not attached.
    pub fn detach(&self, mac: MacAddr) -> Result<()> {
        self.fabric().unplug(mac)?;
        Ok(self.0.cloud.detach(mac)?)
    }

    /// Moves an interface with its addresses to another instance.
    ///
    /// # Errors
    ///
    /// As [`Lab::detach`] and [`Lab::attach`].
    pub fn move_to(&self, mac: MacAddr, instance: &Instance, plug: &Plug) -> Result<Plugged> {
        self.detach(mac)?;
        self.attach(instance, mac, plug)
    }

    /// Assigns an address to an interface, plugged in or not.
    ///
    /// # Errors
    ///
    /// Where another one holds it.
    pub fn add_address(&self, mac: MacAddr, address: IpAddr) -> Result<()> {
        self.0.cloud.add_address(mac, address)?;
        self.tell(mac)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    ///
    /// Where it does not hold it.
    pub fn remove_address(&self, mac: MacAddr, address: IpAddr) -> Result<()> {
        self.0.cloud.remove_address(mac, address)?;
        self.tell(mac)
    }

    /// Reassigns an address from one interface to another.
    ///
    /// # Errors
    ///
    /// Where the first does not hold it.
    pub fn move_address(&self, address: IpAddr, from: MacAddr, to: MacAddr) -> Result<()> {
        self.0.cloud.move_address(address, from, to)?;
        self.tell(from)?;
        self.tell(to)
    }

    /// Delegates a prefix to an interface.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn add_prefix(&self, mac: MacAddr, prefix: IpNet) -> Result<()> {
        self.0.cloud.add_prefix(mac, prefix)?;
        self.tell(mac)
    }

    /// Takes a delegated prefix back.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn remove_prefix(&self, mac: MacAddr, prefix: IpNet) -> Result<()> {
        self.0.cloud.remove_prefix(mac, prefix)?;
        self.tell(mac)
    }

    /// Routes a network through an interface, whose instance is to forward it: a route in the
    /// cloud's table, and no source check for that network. The metadata service shows none of
    /// it.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown, or another one has the network.
    pub fn route_through(&self, mac: MacAddr, network: IpNet) -> Result<()> {
        let record = self.0.cloud.interface(mac)?;
        self.fabric().route_through(&record, network)
    }

    /// Has the router of an interface's subnet advertise itself to the interface: once now, where
    /// it is plugged in, and whenever the interface asks.
    ///
    /// # Errors
    ///
    /// Where the interface is unknown.
    pub fn advertise(&self, mac: MacAddr, advertisement: RouterAdvertisement) -> Result<()> {
        let record = self.0.cloud.interface(mac)?;
        self.fabric().advertise(&record, advertisement)
    }

    fn tell(&self, mac: MacAddr) -> Result<()> {
        let record = self.0.cloud.interface(mac)?;
        self.fabric().know(&record)
    }

    pub(crate) fn fabric(&self) -> MutexGuard<'_, Fabric> {
        self.0.fabric.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.0.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Configures a primary interface as DHCP and a router advertisement do, and as it is long after:
/// its link-local address is in use, without which there is no neighbour discovery for others.
fn configure(host: &Host, link: &str, record: &CloudInterface) -> Result<()> {
    let index = host.link(link)?.index;
    let detection = format!("net/ipv6/conf/{link}/accept_dad");
    let usual = host.sysctl(&detection)?;
    host.set_sysctl(&detection, "0")?;
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let mut requests = vec![up.request(index)];
    for address in record.addresses() {
        let (length, gateway) = match address {
            IpAddr::V4(_) => {
                let Some(block) = record.subnet.ipv4 else { continue };
                let gateway = host::first_of(block.addr().into(), block.prefix_len());
                (block.prefix_len(), gateway)
            }
            IpAddr::V6(address) => {
                let blocks = record.subnet.ipv6.iter();
                let block = blocks.copied().find(|block| block.contains(&address));
                (block.map_or(128, |block| block.prefix_len()), GATEWAY_IPV6.into())
            }
        };
        requests.extend(host::address(index, address, length));
        let everything = Family::of(address).everything();
        let default = Route::via_gateway(everything, MAIN, index, gateway);
        let preferred_source = Some(address);
        let metric = PRIMARY_METRIC;
        requests.push(Route { protocol: DHCP, metric, preferred_source, ..default }.add());
    }
    host.apply("configure a primary interface", &requests)?;
    let end = Instant::now() + Duration::from_secs(2);
    while host.has_tentative_address()? && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    host.set_sysctl(&detection, &usual)
}
