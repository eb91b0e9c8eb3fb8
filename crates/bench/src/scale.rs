//! The pure functions on the largest host that there is: 80 interfaces of 64 addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use jackfield_hostnet::config::Config;
use jackfield_hostnet::{
    ACCEPT_DEFAULT, ACCEPT_PREFIX, Cloud, CloudInterface, DISABLE_IPV6, Edit, Plan, Scope, Slot,
    Snapshot, desired, plan,
};
use jackfield_kernel::{Family, Link, Rule, RuleAction};
use jackfield_metadata::MacAddr;

use crate::Failure;
use crate::report::{line, milliseconds};
use crate::statistics::median;

const INTERFACES: u8 = 80;
/// Half of them of each family.
const ADDRESSES: u8 = 64;
const RUNS: usize = 20;

/// Times desired and plan where everything is to be made, and where everything is there.
pub(crate) fn measure() -> Result<(), Failure> {
    let config = Config::default();
    let cloud = cloud()?;
    let mut snapshot = host(&config);
    let (changes, time) = run(&snapshot, &cloud, &config);
    line(
        "desired and plan",
        format!(
            "{INTERFACES} interfaces of {ADDRESSES} addresses: {:.1} ms for {} changes",
            milliseconds(time),
            changes.changes.len()
        ),
    );
    apply(&mut snapshot, &changes);
    let (rest, time) = run(&snapshot, &cloud, &config);
    if !rest.is_empty() {
        return Err(format!("{} changes are planned again", rest.changes.len()).into());
    }
    line("", format!("the same with nothing to do: {:.1} ms", milliseconds(time)));
    Ok(())
}

fn run(snapshot: &Snapshot, cloud: &Cloud, config: &Config) -> (Plan, Duration) {
    let mut times = Vec::new();
    let mut result = Plan::default();
    for _ in 0..RUNS {
        let began = Instant::now();
        let wanted = desired(snapshot, cloud, config, &Scope::Everything);
        result = plan(snapshot, &wanted);
        times.push(began.elapsed().as_secs_f64());
    }
    (result, Duration::from_secs_f64(median(&times)))
}

fn mac(number: u8) -> MacAddr {
    MacAddr::from([2, 0, 0, 0, 0, number])
}

/// Interface 0 is the primary; five interfaces on each card.
fn cloud() -> Result<Cloud, Failure> {
    let mut interfaces = BTreeMap::new();
    for number in 0..INTERFACES {
        let ipv4 = |host| Ipv4Addr::new(10, 0, number, host);
        let ipv6 = |host: u8| Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, host.into());
        let hosts = (0..ADDRESSES / 2).map(|host| host.saturating_add(10));
        let addresses =
            hosts.flat_map(|host| [IpAddr::V4(ipv4(host)), IpAddr::V6(ipv6(host))]).collect();
        let slot = Slot { card: u32::from(number / 5), device: u32::from(number % 5) };
        let interface = CloudInterface {
            interface_id: Some(format!("eni-{number:017x}").parse()?),
            slot: Some(slot),
            subnets: vec![
                IpNet::V4(Ipv4Net::new(ipv4(0), 24)?),
                IpNet::V6(Ipv6Net::new(ipv6(0), 64)?),
            ],
            addresses,
            complete: true,
            ..CloudInterface::default()
        };
        interfaces.insert(mac(number), interface);
    }
    Ok(Cloud { primary: Some(mac(0)), interfaces })
}

/// A host with all these interfaces, of which nothing is configured.
fn host(config: &Config) -> Snapshot {
    let mut snapshot = Snapshot {
        device_kinds: config.agent.device_kinds.clone(),
        keeps_address_protocol: true,
        ..Snapshot::default()
    };
    for number in 0..INTERFACES {
        let index = u32::from(number) + 2;
        snapshot.links.push(Link {
            index,
            name: format!("ens{number}"),
            alternative_names: Vec::new(),
            kind: None,
            ethernet: true,
            address: Some(mac(number).into()),
            up: number == 0,
            carrier: number == 0,
            mtu: 9001,
            min_mtu: 128,
            max_mtu: 9216,
            group: 0,
            alias: None,
            controller: None,
            lower: None,
            lower_elsewhere: false,
            parent_device: None,
        });
        for (setting, value) in [(ACCEPT_DEFAULT, 1), (ACCEPT_PREFIX, 1), (DISABLE_IPV6, 0)] {
            snapshot.settings.insert((index, setting), value);
        }
    }
    for family in Family::BOTH {
        snapshot.rules.push(Rule::new(family, 32_766, RuleAction::Table(254)));
    }
    snapshot
}

/// Makes the changes to the snapshot, as the kernel would make them to the machine.
fn apply(snapshot: &mut Snapshot, plan: &Plan) {
    for change in &plan.changes {
        let index = change.interface.as_ref().map_or(0, |interface| interface.index);
        let link = snapshot.links.iter_mut().find(|link| link.index == index);
        match &change.edit {
            Edit::AddAddress(address) => snapshot.addresses.push(address.clone()),
            Edit::AddRoute(route) => snapshot.routes.push(route.clone()),
            Edit::AddRule(rule) => snapshot.rules.push(rule.clone()),
            Edit::Setting { setting, to, .. } => {
                snapshot.settings.insert((index, *setting), *to);
            }
            edit => {
                let Some(link) = link else { continue };
                match edit {
                    Edit::Up { to, .. } => link.up = *to,
                    Edit::Mtu { to, .. } => link.mtu = *to,
                    Edit::Group { to, .. } => link.group = *to,
                    Edit::Alias { to, .. } => link.alias.clone_from(to),
                    Edit::AddName(name) => link.alternative_names.push(name.clone()),
                    // Nothing is removed from a host on which there was nothing.
                    _ => {}
                }
            }
        }
    }
    snapshot.routes.sort();
}
