//! CHECK: whether an attachment is as ADD left it.

use std::net::IpAddr;

use jackfield_cni::plugin::{Attachment, ErrorCode, PluginError, Request};
use jackfield_cni::types::CniResult;
use jackfield_kernel::{Address, Family, Link, Rtnetlink};

use crate::add::missing_result;
use crate::failure;
use crate::result;
use crate::sandbox;
use crate::settings::Settings;
use crate::survey::{Arriving, OurTap, Survey};

/// The plugin's own error number: the attachment is not as it should be.
const NOT_AS_IT_WAS: ErrorCode = ErrorCode(100);

pub(crate) fn check(request: &Request) -> Result<(), PluginError> {
    let settings = Settings::of(request)?;
    let result = request.prev_result.as_ref().ok_or_else(missing_result)?;
    let mut kernel = sandbox::enter(request)?;
    let survey = Survey::take(&mut kernel)?;
    let attachment =
        Attachment { container_id: request.container_id.clone(), ifname: request.ifname.clone() };
    let wrong = |problem: String| PluginError::new(NOT_AS_IT_WAS, problem);
    let interface = survey
        .named(request.ifname.as_str())
        .ok_or_else(|| wrong(format!("the interface {} is gone", request.ifname)))?;
    let taps = survey.taps_of(&attachment);
    let [tap] = taps.as_slice() else {
        let found = taps.len();
        return Err(wrong(format!(
            "expected one tap device of container {} for {}, found {found}",
            request.container_id, request.ifname
        )));
    };
    problem_of_devices(tap, interface, &settings)
        .or(problem_of_redirects(&mut kernel, tap, interface)?)
        .or(problem_of_result(tap, interface, request, result))
        .or(problem_of_addresses(&mut kernel, interface, request, result)?)
        .map_or(Ok(()), |problem| Err(wrong(problem)))
}

/// What is wrong with the tap beside its interface.
pub(crate) fn problem_of_devices(
    tap: &OurTap<'_>,
    interface: &Link,
    settings: &Settings,
) -> Option<String> {
    let name = &tap.link.name;
    let wanted = settings.name.as_ref();
    if let Some(wanted) = wanted.filter(|wanted| wanted.as_str() != name) {
        return Some(format!("the tap device is {name}, not {wanted}"));
    }
    if !tap.link.up {
        return Some(format!("the tap device {name} is down"));
    }
    let (mtu, expected) = (tap.link.mtu, interface.mtu);
    if mtu != expected {
        let interface = &interface.name;
        return Some(format!("the tap device {name} has MTU {mtu}, {interface} has {expected}"));
    }
    for (what, is, wanted) in [
        ("user", tap.settings.owner, settings.owner),
        ("group", tap.settings.group, settings.group),
    ] {
        if is != Some(wanted) {
            let is = is.map_or("nobody".to_owned(), |is| is.to_string());
            return Some(format!("the tap device {name} belongs to {what} {is}, not to {wanted}"));
        }
    }
    if !tap.settings.persistent || !tap.settings.virtio_net_header || tap.settings.multi_queue {
        return Some(format!(
            "the tap device {name} is not persistent, with a single queue and vnet_hdr: {:?}",
            tap.settings
        ));
    }
    None
}

/// What is wrong with how each of the two hands everything to the other.
pub(crate) fn problem_of_redirects(
    kernel: &mut Rtnetlink,
    tap: &OurTap<'_>,
    interface: &Link,
) -> Result<Option<String>, PluginError> {
    for (from, to) in [(tap.link, interface), (interface, tap.link)] {
        let arriving = Arriving::of(kernel, from.index)?;
        let of_attachment: Vec<_> =
            arriving.ours().filter(|(_, mark)| mark.is_of(&tap.mark.attachment)).collect();
        let ours = of_attachment.first().map(|(filter, _)| filter);
        let is_right = ours.is_some_and(|filter| {
            filter.matches_everything && filter.redirects_to == Some(to.index)
        });
        if !is_right || of_attachment.len() > 1 {
            return Ok(Some(format!(
                "{} does not redirect everything that arrives to {}",
                from.name, to.name
            )));
        }
    }
    Ok(None)
}

/// What the result says of the two, which is not so.
fn problem_of_result(
    tap: &OurTap<'_>,
    interface: &Link,
    request: &Request,
    result: &CniResult,
) -> Option<String> {
    let name = &tap.link.name;
    let (mut found_tap, mut found_guest) = (false, false);
    for entry in result.interfaces.iter().filter(|entry| entry.name == *name) {
        let is_guest = entry.sandbox.as_deref() == Some(request.container_id.as_str());
        let device = if is_guest { interface } else { tap.link };
        found_guest |= is_guest;
        found_tap |= !is_guest;
        if let Some(problem) = problem_of_mac(entry.mac.as_deref(), device) {
            return Some(problem);
        }
    }
    if !found_tap || !found_guest {
        let missing = if found_tap { "its guest's interface" } else { "it" };
        return Some(format!("the tap device is {name}, and prevResult does not have {missing}"));
    }
    let original = result::addresses(result, request);
    let pseudo = result.ips.iter().filter(|ip| {
        let entry = result.interface_of(ip);
        entry.is_some_and(|entry| {
            entry.name == *name && entry.sandbox.as_deref() == Some(request.container_id.as_str())
        })
    });
    let guest: Vec<_> = pseudo.map(|ip| (ip.address, ip.gateway)).collect();
    let original: Vec<_> = original.iter().map(|ip| (ip.address, ip.gateway)).collect();
    (guest != original).then(|| {
        format!("prevResult gives the guest the addresses {guest:?}, its interface {original:?}")
    })
}

/// Go plugins leave it out now and then.
fn problem_of_mac(expected: Option<&str>, device: &Link) -> Option<String> {
    let expected = expected.filter(|mac| !mac.is_empty())?;
    let is = device.address.map(|mac| mac.map(|octet| format!("{octet:02x}")).join(":"));
    let is = is.unwrap_or_default();
    (!is.eq_ignore_ascii_case(expected))
        .then(|| format!("{} has the MAC address {is}, prevResult says {expected}", device.name))
}

/// The addresses are those of the interface in whose place the guest is: it must still have them.
fn problem_of_addresses(
    kernel: &mut Rtnetlink,
    interface: &Link,
    request: &Request,
    result: &CniResult,
) -> Result<Option<String>, PluginError> {
    let expected = result::addresses(result, request);
    for family in Family::BOTH {
        let of_family = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
        let mut wanted = expected.iter().map(|ip| ip.address).peekable();
        if !wanted.any(|net| of_family(&net.addr())) {
            continue;
        }
        let there = Address::list(kernel, family).map_err(failure::kernel)?;
        for ip in expected.iter().filter(|ip| of_family(&ip.address.addr())) {
            let has = |address: &Address| {
                address.interface == interface.index && address.address.addr() == ip.address.addr()
            };
            if !there.iter().any(has) {
                let name = &interface.name;
                return Ok(Some(format!("{name} does not have the address {}", ip.address)));
            }
        }
    }
    Ok(None)
}
