//! Where a metadata service listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use crate::ParseError;

/// The base URL of a metadata service: `http://`, an IP address or `localhost`, and where needed
/// a port and a path. Names are not resolved: a metadata service is asked before a machine has
/// name resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    address: SocketAddr,
    /// Host and port as they were written, which is what the Host field wants.
    authority: Box<str>,
    /// Path prefix, empty or with a leading and without a trailing slash.
    prefix: Box<str>,
}

impl Endpoint {
    /// The address and port that requests go to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn from_ip(ip: IpAddr) -> Self {
        let authority = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { address: SocketAddr::new(ip, 80), authority: authority.into(), prefix: "".into() }
    }
}

impl FromStr for Endpoint {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || {
            let expected =
                "http://, an IP address (IPv6 in brackets), and optionally :PORT and a path";
            ParseError::new(text, "metadata URL", expected)
        };
        let rest = text.strip_prefix("http://").ok_or_else(error)?;
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let address = address(authority).ok_or_else(error)?;
        let prefix = path.trim_end_matches('/');
        if !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#')) {
            return Err(error());
        }
        Ok(Self { address, authority: authority.into(), prefix: prefix.into() })
    }
}

fn address(authority: &str) -> Option<SocketAddr> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return (address.port() != 0).then_some(address);
    }
    let (host, port) = match authority.rsplit_once(':') {
        // A colon inside of brackets belongs to the address.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    let ip = if host == "localhost" {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        IpAddr::V6(inner.parse().ok()?)
    } else {
        IpAddr::V4(host.parse().ok()?)
    };
    (port != 0).then(|| SocketAddr::new(ip, port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn addresses_with_and_without_port_and_path_are_read() {
        for (text, address, shown) in [
            ("http://169.254.169.254", "169.254.169.254:80", "http://169.254.169.254"),
            ("http://169.254.169.254/", "169.254.169.254:80", "http://169.254.169.254"),
            ("http://127.0.0.1:1338/x/", "127.0.0.1:1338", "http://127.0.0.1:1338/x"),
            ("http://[fd00:ec2::254]", "[fd00:ec2::254]:80", "http://[fd00:ec2::254]"),
            ("http://[::1]:81/y", "[::1]:81", "http://[::1]:81/y"),
            ("http://localhost:8080", "127.0.0.1:8080", "http://localhost:8080"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.address(), address.parse().unwrap(), "{text}");
            assert_eq!(endpoint.to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for text in [
            "",
            "169.254.169.254",
            "https://169.254.169.254",
            "http://",
            "http://example.com",
            "http://user@127.0.0.1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:65536",
            "http://127.0.0.1:",
            "http://fd00:ec2::254",
            "http://[fd00:ec2::254",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/a\r\nX: y",
            "http://127.0.0.1/a?b",
            "http://127.0.0.1\r\n",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
