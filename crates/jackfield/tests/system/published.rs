//! A container's port, published at every address of the host by the rules that container engines
//! make, written by each of the programs that they use for it.

use std::net::IpAddr;

use jackfield_lab::Host;

use crate::harness::*;

/// The port that is published, and leads to the container's echo.
pub(crate) const PUBLISHED: u16 = 8080;

/// By which program the port is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Nft,
    /// Writes rules of nf_tables in words of the older iptables.
    IptablesNft,
    /// The older iptables itself.
    IptablesLegacy,
}

impl Program {
    /// Publishes the container's echo, and lets the container out by the primary.
    pub(crate) fn publish(self, host: &Host, container: &[IpAddr]) {
        match self {
            Program::Nft => drop(nft(host, &publish(container))),
            Program::IptablesNft => iptables(host, "-nft", container),
            Program::IptablesLegacy => iptables(host, "-legacy", container),
        }
    }
}

/// What `nft` is told. To the host's own requests the container's answers are translated back in the
/// host, so they need nothing more; those of the container's neighbours on the bridge, whom it would
/// answer directly, are made the host's own, as netavark does it.
pub(crate) fn publish(container: &[IpAddr]) -> String {
    let [four, six] = families(container);
    let translate = format!(
        "fib daddr type local meta nfproto ipv4 meta l4proto {{ tcp, udp }} \
             th dport {PUBLISHED} dnat ip to {four}:7
         fib daddr type local meta nfproto ipv6 meta l4proto {{ tcp, udp }} \
             th dport {PUBLISHED} dnat ip6 to [{six}]:7"
    );
    format!(
        "table inet engine {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                {translate}
            }}
            chain output {{
                type nat hook output priority -100
                {translate}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oifname \"eth*\" ip saddr 172.17.0.0/16 masquerade
                oifname \"eth*\" ip6 saddr fd17::/64 masquerade
                oifname docker0 ip saddr {{ 172.17.0.0/16, 10.88.0.0/16 }} masquerade
                oifname docker0 ip6 saddr {{ fd17::/64, fd88::/64 }} masquerade
            }}
        }}"
    )
}

/// Docker's rules: the chain DOCKER, to which PREROUTING and OUTPUT lead, and what is masqueraded.
fn iptables(host: &Host, variant: &str, container: &[IpAddr]) {
    for address in container {
        let (program, loopback, networks, to) = match address {
            IpAddr::V4(ip) => {
                ("iptables", "127.0.0.0/8", ["172.17.0.0/16", "10.88.0.0/16"], format!("{ip}:7"))
            }
            IpAddr::V6(ip) => {
                ("ip6tables", "::1/128", ["fd17::/64", "fd88::/64"], format!("[{ip}]:7"))
            }
        };
        let [bridge, behind] = networks;
        shell(
            host,
            &format!(
                "nat() {{ {program}{variant} -w -t nat \"$@\"; }}
                 nat -N DOCKER
                 nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
                 nat -A OUTPUT ! -d {loopback} -m addrtype --dst-type LOCAL -j DOCKER
                 nat -A POSTROUTING -s {bridge} ! -o docker0 -j MASQUERADE
                 nat -A POSTROUTING -s {bridge} -o docker0 -j MASQUERADE
                 nat -A POSTROUTING -s {behind} -o docker0 -j MASQUERADE
                 for protocol in tcp udp; do
                     nat -A DOCKER -p $protocol --dport {PUBLISHED} -j DNAT --to-destination {to}
                 done"
            ),
        );
    }
}

pub(crate) fn families(addresses: &[IpAddr]) -> [IpAddr; 2] {
    [true, false].map(|v4| *addresses.iter().find(|ip| ip.is_ipv4() == v4).unwrap())
}

pub(crate) fn nft(host: &Host, script: &str) -> String {
    let output = host.command("nft").unwrap().arg(script).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn tables(host: &Host) -> Vec<String> {
    nft(host, "list tables").lines().map(str::to_owned).collect()
}

pub(crate) fn has_marks(host: &Host) -> bool {
    tables(host).iter().any(|table| table == "table inet jackfield")
}

pub(crate) fn filter(host: &Host, interface: &str) -> String {
    host.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter")).unwrap()
}

/// Waits until the host forwards IPv6 to its containers: while its link-local address there is looked
/// for on others, it asks no container where it is.
#[track_caller]
pub(crate) fn forwards(host: &Host) {
    eventually("every address is in use", PATIENCE, || {
        shell(host, "ip -6 address show tentative").is_empty()
    });
}
