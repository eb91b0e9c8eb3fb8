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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_keep_their_order_and_drop_what_is_said_twice() {
        let addresses = ipv4_addresses("10.0.0.9\n10.0.0.1\n10.0.0.9\n", 10).unwrap();
        assert_eq!(addresses, [Ipv4Addr::new(10, 0, 0, 9), Ipv4Addr::new(10, 0, 0, 1)]);
    }

    #[test]
    fn link_local_ipv4_addresses_are_none() {
        assert_eq!(ipv4_addresses("169.254.7.7", 10), Ok(Vec::new()));
        let addresses = ipv4_addresses("169.254.7.7\n10.0.0.1", 10).unwrap();
        assert_eq!(addresses, [Ipv4Addr::new(10, 0, 0, 1)]);
    }

    #[test]
    fn one_bad_line_spoils_the_list() {
        for text in [
            "",
            "\n",
            "\n\n",
            "10.0.0.1\n\n",
            "\n10.0.0.1",
            "10.0.0.1\r\n10.0.0.2",
            "10.0.0.1 ",
            " 10.0.0.1",
            "10.0.0.1\0",
            "10.0.0.01",
            "10.0.0.256",
            "10.0.0",
            "10.0.0.1/32",
            "010.0.0.1",
            "0x0a.0.0.1",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "10.0.0.1,10.0.0.2",
            "<html>",
            "2001:db8::1",
        ] {
            assert!(ipv4_addresses(text, 10).is_err(), "{text:?}");
        }
        for text in
            ["::", "::1", "fe80::1", "fe80::1%eth0", "ff02::1", "::ffff:10.0.0.1", "10.0.0.1"]
        {
            assert!(ipv6_addresses(text, 10).is_err(), "{text:?}");
        }
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/7", "0.0.0.0/0", "10.0.0.0/", "10.0.0.0/+8"]
        {
            assert!(ipv4_prefixes(text, 10).is_err(), "{text:?}");
        }
        for text in ["2001:db8::", "2001:db8::/129", "::/0", "10.0.0.0/28", "2001:db8::/8"] {
            assert!(ipv6_prefixes(text, 10).is_err(), "{text:?}");
        }
    }

    #[test]
    fn more_lines_than_allowed_are_an_error_and_not_a_shorter_list() {
        assert_eq!(lines("a\nb\nc", 3).unwrap().len(), 3);
        assert!(lines("a\nb\nc\nd", 3).is_err());
        assert!(one("a\nb").is_err());
    }

    #[test]
    fn long_and_short_ipv6_text_is_the_same() {
        let long = "2001:0db8:0000:0000:0000:0000:0000:0001\n2001:DB8::1";
        let addresses = ipv6_addresses(long, 10).unwrap();
        assert_eq!(addresses, ["2001:db8::1".parse::<Ipv6Addr>().unwrap()]);
        let prefixes = ipv6_prefixes("2001:db8:0:0:0::/80\n2001:db8::/80", 10).unwrap();
        assert_eq!(prefixes, ["2001:db8::/80".parse::<Ipv6Net>().unwrap()]);
    }

    #[test]
    fn host_bits_are_masked() {
        assert_eq!(ipv4_subnet("10.0.1.7/24"), Ok("10.0.1.0/24".parse().unwrap()));
        let prefixes = ipv6_prefixes("2001:db8::7/64", 10).unwrap();
        assert_eq!(prefixes[0].to_string(), "2001:db8::/64");
    }

    #[test]
    fn numbers_are_small_and_plain() {
        assert_eq!(number("0"), Ok(0));
        assert_eq!(number("15\n"), Ok(15));
        assert_eq!(number("65535"), Ok(65_535));
        for text in
            ["", "-1", "+1", "01", "1.0", "0x1", "65536", "99999999999999999999", "1\n2", "٣"]
        {
            assert!(number(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn lists_read_what_was_written(bits: Vec<u32>) {
            let usable = |address: &Ipv4Addr| {
                let text = address.to_string();
                ipv4_addresses(&text, 1).is_ok() && !address.is_link_local()
            };
            let mut addresses: Vec<_> =
                bits.into_iter().map(Ipv4Addr::from_bits).filter(usable).collect();
            addresses.sort();
            addresses.dedup();
            let text: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
            if !text.is_empty() {
                prop_assert_eq!(ipv4_addresses(&text.join("\n"), 1000), Ok(addresses));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9a-f:./\n]*") {
            let _ = (ipv4_addresses(&text, 9), ipv6_addresses(&text, 9));
            let _ = (ipv4_prefixes(&text, 9), ipv6_prefixes(&text, 9));
            let _ = (ipv4_subnet(&text), number(&text), lines(&text, 9));
        }
    }
}
