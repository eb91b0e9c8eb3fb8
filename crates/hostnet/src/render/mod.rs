//! What an interface shall be like, in the words of those who stay with their network manager: files
//! for ifupdown and for systemd-networkd. Pure: one interface's part of the desired state in, files
//! out.
//!
//! A file has what is the interface's alone: that it is up, MTU, link group, addresses, its routing
//! table and its last resort in table main. Routes say that they are ours, as jackfield's own do. Rules
//! are in no file: they are made of the addresses of all interfaces together, have to be there before an
//! address is, and the kernel has no room for the same rule of two owners.

mod ifupdown;
mod networkd;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use jackfield_kernel::Route;
use jackfield_metadata::MacAddr;

pub use ifupdown::{INTERFACES, INTERFACES_D, LEASES, PID};
pub use networkd::NETWORKS;

/// How the first line of a file begins that is ours.
const HEADER: &str = "# Written by jackfield for ";

/// Who carries out what jackfield wants, where that is not jackfield itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Manager {
    /// Debian's ifupdown, with ISC's DHCP client.
    Ifupdown,
    /// systemd-networkd.
    Networkd,
}

impl Manager {
    /// Both.
    pub const ALL: [Manager; 2] = [Manager::Ifupdown, Manager::Networkd];

    /// As the configuration has it.
    pub fn name(self) -> &'static str {
        match self {
            Manager::Ifupdown => "ifupdown",
            Manager::Networkd => "networkd",
        }
    }

    /// Its name among the neighbours.
    pub(crate) fn neighbour(self) -> &'static str {
        match self {
            Manager::Ifupdown => "ifupdown",
            Manager::Networkd => "systemd-networkd",
        }
    }

    /// The programs without which it can be told nothing.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Manager::Ifupdown => &["ifup", "ifdown", "dhclient"],
            Manager::Networkd => &["networkctl"],
        }
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a manager is told of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Who is told.
    pub manager: Manager,
    /// Interface index.
    pub index: u32,
    /// Name, of which [`is_plain`] holds.
    pub name: String,
    /// MAC.
    pub mac: MacAddr,
    /// Link group.
    pub group: u32,
    /// MTU; `None`: as it is.
    pub mtu: Option<u32>,
    /// All its addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Which of them a DHCP server of its subnet hands out.
    pub leased: Option<Ipv4Addr>,
    /// Its own routes: those of its table that no one else gave it, and that in table main.
    pub routes: Vec<Route>,
}

impl Carried {
    /// The address that is asked for by DHCP.
    pub fn by_dhcp(&self) -> Option<IpAddr> {
        let leased = self.leased.map(IpAddr::V4)?;
        (self.manager == Manager::Ifupdown && self.addresses.contains(&leased)).then_some(leased)
    }
}

/// A file, and what is to stand in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    /// Where it is.
    pub path: String,
    /// All of it.
    pub text: String,
}

/// The files that tell a manager what an interface shall be like.
pub fn render(carried: &Carried) -> Vec<File> {
    match carried.manager {
        Manager::Ifupdown => ifupdown::render(carried),
        Manager::Networkd => networkd::render(carried),
    }
}

/// Whether a device's name means nothing but itself to a shell and in a configuration file. The kernel
/// takes nearly anything.
pub fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

/// The first line of a file of ours.
fn header(carried: &Carried, further: &str) -> String {
    let Carried { mac, name, .. } = carried;
    format!("{HEADER}{mac}, {name}{further}. It is written again when it differs.\n")
}

/// Whose file it is, where it is one of ours: the MAC and the name of its interface.
pub(crate) fn owner(text: &str) -> Option<(MacAddr, &str)> {
    let line = text.lines().next()?.strip_prefix(HEADER)?;
    let (mac, rest) = line.split_once(", ")?;
    // The name ends where ", index" or the sentence does.
    let name = rest.split_once(", ").or_else(|| rest.split_once(". ")).map(|(name, _)| name)?;
    Some((mac.parse().ok()?, name))
}

/// Whether a file of ours names an address of the interface.
pub(crate) fn names(text: &str, ip: IpAddr) -> bool {
    let mut words = text.split(|c: char| c.is_whitespace() || c == '=');
    words.any(|word| word.parse::<IpNet>() == Ok(IpNet::from(ip)))
}

/// An address as it is written: alone in its prefix.
fn alone(ip: IpAddr) -> IpNet {
    IpNet::from(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ours_tells_whose_it_is() {
        let text =
            "# Written by jackfield for 02:ec:20:00:00:03, eth1.5, index 3. It is …\nauto x\n";
        let mac = "02:ec:20:00:00:03".parse().unwrap();
        assert_eq!(owner(text), Some((mac, "eth1.5")));
        let text = "# Written by jackfield for 02:ec:20:00:00:03, eth1.5. It is written again.\n";
        assert_eq!(owner(text), Some((mac, "eth1.5")));
        for strange in [
            "",
            "auto eth1",
            "# Written by jackfield for eth1.",
            "# Written by jackfield for x, y. ",
        ] {
            assert_eq!(owner(strange), None, "{strange}");
        }
    }

    #[test]
    fn an_address_is_named_as_a_word() {
        let text = "Address=10.0.2.10/32\n up ip address add 2001:db8:0:0::a/128 dev eth1\n";
        for (ip, named) in
            [("10.0.2.10", true), ("2001:db8::a", true), ("10.0.2.1", false), ("0.0.2.10", false)]
        {
            assert_eq!(names(text, ip.parse().unwrap()), named, "{ip}");
        }
    }

    #[test]
    fn names_that_a_shell_would_read_are_not_plain() {
        for name in ["eth1", "ens6", "enp0s1.100", "a-b_c"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", "eth1;id", "$(id)", "eth*", "-h", ".x", "a'b", "!eth1", "ä"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
