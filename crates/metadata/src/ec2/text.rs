//! What EC2's answers may look like, strictly: one line that is not what it should be makes the
//! whole answer unusable. The reasons never quote the answer.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{Ipv4Net, Ipv6Net};

/// The largest device number and network card that is believed.
const MAX_NUMBER: u32 = 65_535;
/// No cloud network is larger; what claims to be would swallow other people's addresses.
const SHORTEST_IPV4_PREFIX: u8 = 8;
/// The same for IPv6.
const SHORTEST_IPV6_PREFIX: u8 = 16;

/// The lines of an answer: at least one, none empty, none with blanks or control characters.
pub(super) fn lines(text: &str, most: usize) -> Result<Vec<&str>, String> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Err("the answer is empty".into());
    }
    let mut lines = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        if index >= most {
            return Err(format!("the answer has more than {most} lines"));
        }
        if line.is_empty() || !line.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("line {} of the answer is garbage", index + 1));
        }
        lines.push(line);
    }
    Ok(lines)
}

/// The one line of an answer.
pub(super) fn one(text: &str) -> Result<&str, String> {
    match lines(text, 1)?.as_slice() {
        [line] => Ok(line),
        _ => Err("the answer is not one line".into()),
    }
}

/// The one line of an answer, as `what`.
pub(super) fn single<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    one(text)?.parse().map_err(|_| format!("the answer is no {what}"))
}

/// A small decimal number without sign or leading zeros.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let line = one(text)?;
    let canonical =
        line.bytes().all(|byte| byte.is_ascii_digit()) && (line == "0" || !line.starts_with('0'));
    match line.parse() {
        Ok(number) if canonical && number <= MAX_NUMBER => Ok(number),
        _ => Err(format!("the answer is no number up to {MAX_NUMBER}")),
    }
}

/// Each line read by `read`, which gives nothing for a line to be left out; repeated ones once.
fn list<T: PartialEq>(
    text: &str,
    most: usize,
    what: &str,
    read: impl Fn(&str) -> Option<Option<T>>,
) -> Result<Vec<T>, String> {
    let mut values = Vec::new();
    for (index, line) in lines(text, most)?.into_iter().enumerate() {
        let value =
            read(line).ok_or_else(|| format!("line {} of the answer is no {what}", index + 1))?;
        values.extend(value.filter(|value| !values.contains(value)));
    }
    Ok(values)
}

/// IPv4 addresses, in order, without link-local ones: an IPv6-only subnet's DHCP gives those.
pub(super) fn ipv4_addresses(text: &str, most: usize) -> Result<Vec<Ipv4Addr>, String> {
    list(text, most, "IPv4 address", |line| {
        let address: Ipv4Addr = line.parse().ok()?;
        let usable = !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !address.is_broadcast();
        usable.then(|| (!address.is_link_local()).then_some(address))
    })
}

/// IPv6 addresses, in order.
pub(super) fn ipv6_addresses(text: &str, most: usize) -> Result<Vec<Ipv6Addr>, String> {
    list(text, most, "IPv6 address", |line| {
        let address: Ipv6Addr = line.parse().ok()?;
        let usable = !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !address.is_unicast_link_local()
            && address.to_ipv4_mapped().is_none();
        usable.then_some(Some(address))
    })
}

/// IPv4 prefixes, masked.
pub(super) fn ipv4_prefixes(text: &str, most: usize) -> Result<Vec<Ipv4Net>, String> {
    list(text, most, "IPv4 prefix", |line| ipv4_prefix(line).map(Some))
}

/// IPv6 prefixes, masked.
pub(super) fn ipv6_prefixes(text: &str, most: usize) -> Result<Vec<Ipv6Net>, String> {
    list(text, most, "IPv6 prefix", |line| {
        let prefix: Ipv6Net = line.parse().ok()?;
        (prefix.prefix_len() >= SHORTEST_IPV6_PREFIX).then(|| Some(prefix.trunc()))
    })
}

/// One IPv4 prefix, masked.
pub(super) fn ipv4_subnet(text: &str) -> Result<Ipv4Net, String> {
    ipv4_prefix(one(text)?).ok_or_else(|| "the answer is no IPv4 prefix".into())
}

fn ipv4_prefix(line: &str) -> Option<Ipv4Net> {
    let prefix: Ipv4Net = line.parse().ok()?;
    (prefix.prefix_len() >= SHORTEST_IPV4_PREFIX).then(|| prefix.trunc())
}
