//! The result: what the chain has said so far, and the pair of the tap and the guest's interface.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jackfield_cni::plugin::Request;
use jackfield_cni::types::{CniResult, Interface, IpConfig, Version};
use jackfield_kernel::{EthernetAddress, Link};

use crate::work::Made;

/// The addresses that the guest is to have: those of the interface in whose place it is, and those
/// that are nobody's where it is the only one in the container.
pub(crate) fn addresses(result: &CniResult, request: &Request) -> Vec<IpConfig> {
    let is_guest =
        |interface: &Interface| interface.sandbox.as_deref() == Some(request.container_id.as_str());
    let is_inside = |interface: &Interface| {
        let sandbox = interface.sandbox.as_deref();
        sandbox.is_some_and(|path| is_same_file(path, &request.netns)) && !is_guest(interface)
    };
    let is_redirected =
        |interface: &Interface| interface.name == request.ifname.as_str() && is_inside(interface);
    // Beside it there may be the tap, which has its guest's name.
    let is_tap = |tap: &Interface| {
        result.interfaces.iter().any(|guest| is_guest(guest) && guest.name == tap.name)
    };
    let mut inside = result.interfaces.iter().filter(|interface| is_inside(interface));
    let is_alone = inside.all(|interface| is_redirected(interface) || is_tap(interface));
    let belongs = |ip: &&IpConfig| match ip.interface {
        Some(_) => result.interface_of(ip).is_some_and(is_redirected),
        None => is_alone,
    };
    result.ips.iter().filter(belongs).cloned().collect()
}

fn is_same_file(one: &str, other: &Path) -> bool {
    let one = Path::new(one);
    let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    one == other || identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Adds the tap and the guest's interface to a result.
pub(crate) fn with_pair(
    before: &CniResult,
    request: &Request,
    made: &Made,
    interface: &Link,
    addresses: &[IpConfig],
) -> CniResult {
    let mut result = before.clone();
    let entry = |sandbox: String, mac: Option<EthernetAddress>| Interface {
        name: made.name.clone(),
        mac: mac.map(|mac| mac.map(|octet| format!("{octet:02x}")).join(":")),
        mtu: (request.version >= Version::V1_1_0).then_some(interface.mtu),
        sandbox: Some(sandbox),
        ..Interface::default()
    };
    let namespace = request.netns.to_string_lossy().into_owned();
    result.interfaces.push(entry(namespace, Some(made.address)));
    // The guest's own: no device, but what it should be like inside. It has the tap's name, by
    // which the two are found, and the container's ID for a sandbox.
    let guest = u32::try_from(result.interfaces.len()).ok();
    result.interfaces.push(entry(request.container_id.to_string(), interface.address));
    result.ips.extend(addresses.iter().map(|ip| IpConfig { interface: guest, ..ip.clone() }));
    result
}
