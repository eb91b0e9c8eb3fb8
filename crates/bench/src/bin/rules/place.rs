//! A host with its interfaces, made real: a namespace whose cables end in a second one, and a third
//! one behind it, from which it forwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use ipnet::IpNet;
use jackfield_hostnet::config::Config;
use jackfield_hostnet::{Applied, Cloud, MAIN, Plan, Snapshot, apply, desired, plan};
use jackfield_kernel::{
    Address, AddressFlags, EthernetAddress, Family, Link, LinkChange, Neighbour, NeighbourKind,
    Request, Route, RouteKind, Rtnetlink, Rule, RuleAction, VethEnd, veth_pair,
};
use jackfield_lab::Host;

use crate::Failure;
use crate::site::{Site, mac};

/// Plans that it may take until nothing is left to do.
const PATIENCE: usize = 4;
/// Where the linear contestant's rules for addresses are.
const SOURCE_RULES: u32 = 100;
const PORT: u16 = 4000;

/// Who selects the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// Nobody: the same host, the same addresses, no rule.
    Nobody,
    /// One rule a selector.
    Linear,
    /// What jackfield plans.
    Jackfield,
}

/// A host, and all around it.
pub(crate) struct Place {
    pub(crate) near: Host,
    pub(crate) inner: Host,
    _far: Host,
    pub(crate) listeners: [TcpListener; 2],
    /// Addresses from which it sends, of each family.
    pub(crate) sources: [Vec<IpAddr>; 2],
    /// Addresses from which it forwards: one in each delegated prefix.
    pub(crate) delegated: [Vec<IpAddr>; 2],
}

/// How many rules there are of each family.
pub(crate) type RuleCounts = [usize; 2];

/// What answers connections, and what drops packets without a word.
pub(crate) fn remote(family: Family, answers: bool) -> SocketAddr {
    let host = if answers { 10 } else { 20 };
    let ip: IpAddr = match family {
        Family::V4 => Ipv4Addr::new(198, 51, 100, host).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, host.into()).into(),
    };
    SocketAddr::new(ip, PORT)
}

/// An address behind the host that is in nobody's prefix.
pub(crate) fn stranger(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(172, 16, 0, 2).into(),
        Family::V6 => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2).into(),
    }
}

/// The address of a neighbour that is only ever a next hop.
pub(crate) fn hop(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(169, 254, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

fn peer(interface: u32) -> EthernetAddress {
    let [_, _, high, low] = interface.to_be_bytes();
    [2, 0xec, 0x21, 0, high, low]
}

const TAP: EthernetAddress = [2, 0xec, 0x22, 0, 0, 1];
const INSIDE: EthernetAddress = [2, 0xec, 0x22, 0, 0, 2];

/// jackfield's configuration here.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.agent.device_kinds = vec!["veth".to_owned()];
    config
}

impl Place {
    /// A host whose rules `maker` makes. Without a site, it has nothing but its primary.
    pub(crate) fn new(site: Option<Site>, around: Site, maker: Maker) -> Result<Self, Failure> {
        let near = host("near")?;
        let far = host("far")?;
        let inner = host("inner")?;
        for forwarding in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            near.set_sysctl(forwarding, "1")?;
        }
        let interfaces: Vec<u32> =
            std::iter::once(0).chain(site.into_iter().flat_map(Site::numbers)).collect();
        cable(&near, &far, &interfaces)?;
        let primary = near.link("eth0")?.index;
        let own = own_addresses();
        let mut requests = vec![up(primary)];
        requests.extend(own.map(|address| on(primary, address).add()));
        near.apply("set the primary up", &requests)?;
        if let Some(site) = site {
            configure(&near, site, maker)?;
        }
        near.apply("know the routers", &routers(&near, site, primary)?)?;
        let defaults = Family::BOTH.map(|family| {
            let hop = hop(family);
            Route::via_gateway(family.everything(), MAIN, primary, hop).add()
        });
        near.apply("route by the primary", &defaults)?;
        answer(&far)?;
        let delegated = Family::BOTH.map(|family| {
            let prefixes = around.numbers().map(|number| around.delegated(number, family));
            prefixes.filter_map(|prefix| prefix.hosts().nth(1)).collect::<Vec<IpAddr>>()
        });
        let sources = Family::BOTH.map(|family| match site {
            Some(site) => site.all(family),
            None => own.iter().map(IpNet::addr).filter(|ip| Family::of(*ip) == family).collect(),
        });
        live_behind(&near, &inner, around, &delegated)?;
        let listen = |family| -> Result<TcpListener, Failure> {
            let listener = far.run(|| TcpListener::bind(remote(family, true)))??;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listeners = [listen(Family::V4)?, listen(Family::V6)?];
        Ok(Place { near, inner, _far: far, listeners, sources, delegated })
    }

    /// How many rules it has, the kernel's own included.
    pub(crate) fn rules(&self) -> Result<RuleCounts, Failure> {
        let mut kernel = Rtnetlink::open_in(self.near.namespace())?;
        let mut count = |family| Rule::list(&mut kernel, family).map(|rules| rules.len());
        Ok([count(Family::V4)?, count(Family::V6)?])
    }
}

pub(crate) fn host(name: &str) -> Result<Host, Failure> {
    let host = Host::new(name)?;
    // Nothing but what is measured.
    for (setting, value) in [("accept_dad", "0"), ("router_solicitations", "0"), ("accept_ra", "0")]
    {
        host.set_sysctl(&format!("net/ipv6/conf/default/{setting}"), value)?;
    }
    Ok(host)
}

/// Gives a host interfaces; the other ends of their cables are up.
pub(crate) fn cable(near: &Host, far: &Host, interfaces: &[u32]) -> Result<(), Failure> {
    let mut requests = Vec::new();
    for number in interfaces {
        let name = format!("eth{number}");
        let end =
            VethEnd { name: &name, address: Some(mac(*number).into()), mtu: None, namespace: None };
        let other = VethEnd {
            name: &name,
            address: Some(peer(*number)),
            mtu: None,
            namespace: Some(far.namespace()),
        };
        requests.push(veth_pair(end, other));
    }
    near.apply("make interfaces", &requests)?;
    let others = far.links()?;
    let others: Vec<Request> = others.iter().map(|link| up(link.index)).collect();
    far.apply("set the other ends up", &others)?;
    Ok(())
}

pub(crate) fn up(interface: u32) -> Request {
    LinkChange { up: Some(true), ..LinkChange::default() }.request(interface)
}

pub(crate) fn on(interface: u32, address: IpNet) -> Address {
    let flags = AddressFlags { no_prefix_route: true, no_dad: true, ..AddressFlags::default() };
    Address { interface, address, protocol: 0, flags }
}

/// The addresses of the primary.
pub(crate) fn own_addresses() -> [IpNet; 2] {
    [
        IpAddr::from(Ipv4Addr::new(10, 0, 0, 10)).into(),
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0xfff, 0, 0, 0, 0, 10)).into(),
    ]
}

/// What is desired of the host, and what is to be changed for it.
pub(crate) fn think(
    kernel: &mut Rtnetlink,
    cloud: &Cloud,
    config: &Config,
) -> Result<Plan, Failure> {
    let snapshot = look(kernel, cloud, config)?;
    let wanted = desired(&snapshot, cloud, config, &jackfield_hostnet::Scope::Everything);
    Ok(plan(&snapshot, &wanted))
}

/// In the calling thread's namespace.
pub(crate) fn look(
    kernel: &mut Rtnetlink,
    cloud: &Cloud,
    config: &Config,
) -> Result<Snapshot, Failure> {
    let slots = cloud.interfaces.values().filter_map(|interface| interface.slot);
    let tables = slots.map(|slot| slot.table(config.agent.table_base)).collect();
    Ok(Snapshot::read(kernel, &config.agent, &tables, true)?)
}

/// Fails where something was refused.
pub(crate) fn all_done(applied: &Applied) -> Result<(), Failure> {
    match applied.refused.first() {
        Some((change, why)) => Err(format!("{change}: {why}").into()),
        None => Ok(()),
    }
}

/// Makes the interfaces work.
fn configure(near: &Host, site: Site, maker: Maker) -> Result<(), Failure> {
    let (config, cloud) = (config(), site.cloud()?);
    near.run(|| {
        let mut kernel = Rtnetlink::open()?;
        for _ in 0..PATIENCE {
            let mut plan = think(&mut kernel, &cloud, &config)?;
            if maker != Maker::Jackfield {
                plan.changes.retain(|change| change.object() != "rule");
            }
            if plan.is_empty() {
                if maker == Maker::Linear {
                    return linear(&mut kernel, site, &config);
                }
                return Ok(());
            }
            all_done(&apply(&mut kernel, &plan)?)?;
        }
        Err("there is always something left to do".into())
    })?
}

/// One rule a selector, behind the rule that asks main.
fn linear(kernel: &mut Rtnetlink, site: Site, config: &Config) -> Result<(), Failure> {
    let first = config.agent.rule_priority;
    let mut requests = Vec::new();
    for family in Family::BOTH {
        let main = Rule {
            suppress_prefix_length: Some(0),
            suppress_group: Some(config.agent.link_group),
            ..Rule::new(family, first, RuleAction::Table(MAIN))
        };
        requests.push(main.add());
        for number in site.numbers() {
            let table = RuleAction::Table(Site::slot(number).table(config.agent.table_base));
            let addresses = (0..site.addresses).map(|n| site.address(number, n, family).into());
            let selectors = addresses.chain([site.delegated(number, family)]);
            requests.extend(selectors.map(|source| {
                let rule = Rule::new(family, first + SOURCE_RULES, table);
                Rule { source: Some(source), ..rule }.add()
            }));
        }
    }
    match kernel.batch(&requests)?.into_iter().find_map(Result::err) {
        Some(refusal) => Err(format!("add a rule: {refusal}").into()),
        None => Ok(()),
    }
}

fn neighbour(interface: u32, address: IpAddr, at: EthernetAddress) -> Request {
    Neighbour { interface, address, kind: NeighbourKind::Permanent(at) }.set()
}

/// The routers of all interfaces, none of which has to be asked for.
fn routers(near: &Host, site: Option<Site>, primary: u32) -> Result<Vec<Request>, Failure> {
    let mut requests = Vec::new();
    requests.extend(Family::BOTH.map(|family| neighbour(primary, hop(family), peer(0))));
    let links = near.links()?;
    for number in site.into_iter().flat_map(Site::numbers) {
        let Some(site) = site else { continue };
        let wanted = EthernetAddress::from(mac(number));
        let is = |link: &&Link| link.address == Some(wanted);
        let link = links.iter().find(is).ok_or_else(|| format!("interface {number} is gone"))?;
        let router = |family| neighbour(link.index, site.gateway(number, family), peer(number));
        requests.extend(Family::BOTH.map(router));
    }
    Ok(requests)
}

/// Makes the far end answer one address by the primary's cable, whatever the interface by which it
/// was asked, and drop what is for the other.
fn answer(far: &Host) -> Result<(), Failure> {
    let cable = far.link("eth0")?.index;
    let mut requests = Vec::new();
    for family in Family::BOTH {
        requests.push(on(1, remote(family, true).ip().into()).add());
        let nowhere = IpNet::from(remote(family, false).ip());
        let nowhere = Route::unreachable(nowhere, MAIN);
        requests.push(Route { kind: RouteKind::Blackhole, ..nowhere }.add());
        requests.push(neighbour(cable, hop(family), mac(0).into()));
        requests.push(Route::via_gateway(family.everything(), MAIN, cable, hop(family)).add());
    }
    far.apply("make the far end", &requests)?;
    Ok(())
}

/// Connects the host to what is behind it: one address in each delegated prefix, and a stranger.
fn live_behind(
    near: &Host,
    inner: &Host,
    site: Site,
    delegated: &[Vec<IpAddr>; 2],
) -> Result<(), Failure> {
    let end = VethEnd { name: "tap0", address: Some(TAP), mtu: None, namespace: None };
    let inside = VethEnd {
        name: "eth0",
        address: Some(INSIDE),
        mtu: None,
        namespace: Some(inner.namespace()),
    };
    near.apply("make what is behind", &[veth_pair(end, inside)])?;
    let (tap, eth0) = (near.link("tap0")?.index, inner.link("eth0")?.index);
    let mut here = vec![up(tap)];
    let mut there = vec![up(eth0)];
    for (family, delegated) in Family::BOTH.into_iter().zip(delegated) {
        for ip in delegated.iter().copied().chain([stranger(family)]) {
            there.push(on(eth0, ip.into()).add());
        }
        there.push(neighbour(eth0, hop(family), TAP));
        there.push(Route::via_gateway(family.everything(), MAIN, eth0, hop(family)).add());
        here.push(Route::via_interface(stranger(family).into(), MAIN, tap).add());
        for number in site.numbers() {
            let prefix = site.delegated(number, family);
            here.push(Route::via_interface(prefix, MAIN, tap).add());
        }
    }
    near.apply("route to what is behind", &here)?;
    inner.apply("make what is behind", &there)?;
    Ok(())
}
