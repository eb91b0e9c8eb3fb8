//! The kernel's state of an instance, as text that compares between instances.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jackfield_kernel::{Address, Family, Link, Route, RouteFilter, Rtnetlink, Rule};
use jackfield_lab::Host;

use crate::Failure;

/// The primary interface: its MAC and addresses are an instance's own.
const PRIMARY: &str = "eth0";

/// Everything but what is the primary interface's own: devices, addresses, routes of every table,
/// rules, and the settings of the interfaces.
pub(crate) fn dump(kernel: &mut Rtnetlink, host: &Host) -> Result<BTreeSet<String>, Failure> {
    let mut lines = BTreeSet::new();
    let links = Link::list(kernel)?;
    let primary = links.iter().find(|link| link.name == PRIMARY).map(|link| link.index);
    // The same devices have the same numbers, whatever the kernel counted them by.
    let mut names: Vec<(&str, u32)> =
        links.iter().map(|link| (link.name.as_str(), link.index)).collect();
    names.sort_unstable();
    let numbers: BTreeMap<u32, u32> =
        names.iter().zip(0..).map(|((_, index), number)| (*index, number)).collect();
    let number = |index: u32| numbers.get(&index).copied().unwrap_or(u32::MAX);
    for link in &links {
        let own = Some(link.index) == primary;
        let link = Link {
            index: number(link.index),
            address: link.address.filter(|_| !own),
            // The router's end.
            lower: None,
            ..link.clone()
        };
        lines.insert(format!("{link:?}"));
    }
    for family in Family::BOTH {
        for address in Address::list(kernel, family)? {
            if Some(address.interface) != primary {
                let interface = number(address.interface);
                lines.insert(format!("{:?}", Address { interface, ..address }));
            }
        }
        for mut route in Route::list(kernel, family, RouteFilter::default())? {
            if !primary.is_some_and(|primary| route.uses(primary)) {
                for hop in &mut route.next_hops {
                    hop.interface = number(hop.interface);
                }
                lines.insert(format!("{route:?}"));
            }
        }
        for rule in Rule::list(kernel, family)? {
            lines.insert(format!("{rule:?}"));
        }
    }
    let settings = host.run(|| {
        let mut settings = Vec::new();
        for link in &links {
            for family in ["ipv4", "ipv6"] {
                let directory = Path::new("/proc/sys/net").join(family).join("conf");
                for file in std::fs::read_dir(directory.join(&link.name)).into_iter().flatten() {
                    let Ok(file) = file else { continue };
                    // Some can only be written, or have no value.
                    if let Ok(text) = std::fs::read_to_string(file.path()) {
                        settings.push(format!("{} = {}", file.path().display(), text.trim()));
                    }
                }
            }
        }
        settings
    })?;
    lines.extend(settings);
    Ok(lines)
}

/// What is there and should not be, and what should be there and is not.
pub(crate) fn difference(is: &BTreeSet<String>, wanted: &BTreeSet<String>) -> String {
    let more = is.difference(wanted).map(|line| format!("  too much: {line}\n"));
    let less = wanted.difference(is).map(|line| format!("  missing:  {line}\n"));
    more.chain(less).collect()
}
