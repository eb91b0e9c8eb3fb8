//! systemd-networkd. `state` and `links/INDEX` below /run/systemd/netif are what it writes about
//! itself and about each interface (systemd 252, src/network/networkd-state-file.c); a `.network`
//! file tells which interfaces it is for (systemd.network(5)).

use jackfield_kernel::Link;

use super::disk::SYSTEMD;
use super::{Disk, Hold, is_mac_of, is_ours, keyed, names};
use crate::snapshot::Snapshot;

const STATE: &str = "/run/systemd/netif/state";

/// Whether a `.network` file is for an interface, as far as it tells by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Others,
    /// By something that is not looked at here: a driver, a path, a property…
    Perhaps,
    /// For whatever has a name like that.
    Whatever,
    /// For this one: it gives its MAC or its name.
    This,
}

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    snapshot.neighbours.text(STATE).map(|_| STATE.to_owned())
}

pub(super) fn hold(snapshot: &Snapshot, link: &Link) -> Option<Hold> {
    let disk = &snapshot.neighbours;
    // Files are configuration of one that does not run, where it does not.
    disk.text(STATE)?;
    let state_file = format!("/run/systemd/netif/links/{}", link.index);
    let state = disk.text(&state_file);
    let of_state = |key| state.and_then(|state| keyed::last(state, "", key));
    match of_state("ADMIN_STATE") {
        // It has not decided yet.
        None | Some("pending" | "initialized") => {}
        Some("unmanaged") => return None,
        Some(admin) => {
            let file = of_state("NETWORK_FILE");
            if file.is_some_and(is_ours) {
                return None;
            }
            let by = file.map(|file| format!(" by {file}")).unwrap_or_default();
            let evidence = format!("{state_file}: {admin}{by}");
            let text = file.and_then(|file| disk.text(file));
            return Some(match text.map(|text| is_for(text, link)) {
                Some(For::This) => Hold::Owns(evidence),
                _ => Hold::Joins(evidence),
            });
        }
    }
    for (path, text) in networks(disk) {
        let whom = is_for(text, link);
        if !matches!(whom, For::This | For::Whatever) {
            continue;
        }
        let unmanaged = keyed::last(text, "Link", "Unmanaged").is_some_and(keyed::is_true);
        if unmanaged || is_ours(path) {
            return None;
        }
        return Some(match whom {
            For::This => Hold::Owns(path.to_owned()),
            _ => Hold::Joins(path.to_owned()),
        });
    }
    None
}

/// Whether it manages an interface, by a file of somebody else.
pub(crate) fn has(disk: &Disk, interface: u32) -> bool {
    let state = disk.text(&format!("/run/systemd/netif/links/{interface}"));
    let of_state = |key| state.and_then(|state| keyed::last(state, "", key));
    let managed = of_state("ADMIN_STATE").is_some_and(|admin| admin != "unmanaged");
    managed && !of_state("NETWORK_FILE").is_some_and(is_ours)
}

/// What it deletes of others: nothing, where it is not here or is told not to.
pub(super) fn deletes(disk: &Disk) -> Option<&'static str> {
    disk.text(STATE)?;
    let rules = manages_foreign(disk, "ManageForeignRoutingPolicyRules");
    let routes = manages_foreign(disk, "ManageForeignRoutes");
    match (rules, routes) {
        (true, true) => Some("rules and routes"),
        (true, false) => Some("rules"),
        (false, true) => Some("routes"),
        (false, false) => None,
    }
}

/// networkd.conf(5): both are on unless switched off, and drop-ins come after the file.
fn manages_foreign(disk: &Disk, key: &str) -> bool {
    let main =
        SYSTEMD.iter().find_map(|directory| disk.text(&format!("{directory}/networkd.conf")));
    let directories = SYSTEMD.map(|directory| format!("{directory}/networkd.conf.d"));
    let drop_ins = disk.layered(&directories).into_iter().map(|(_, text)| text);
    let mut said =
        main.into_iter().chain(drop_ins).filter_map(|text| keyed::last(text, "Network", key));
    said.next_back().is_none_or(keyed::is_true)
}

/// The first that matches an interface is its configuration.
fn networks(disk: &Disk) -> Vec<(&str, &str)> {
    disk.layered(&SYSTEMD.map(|directory| format!("{directory}/network")))
}

fn is_for(text: &str, link: &Link) -> For {
    let names = names(link);
    let (mut perhaps, mut this) = (false, false);
    for (section, key, value) in keyed::assignments(text) {
        if section != "Match" || value.is_empty() {
            continue;
        }
        let words = || value.trim_start_matches('!').split_whitespace();
        match key {
            "MACAddress" | "PermanentMACAddress" => {
                if !words().any(|word| is_mac_of(word, link)) {
                    return For::Others;
                }
                this = true;
            }
            "Name" => {
                let matched: Vec<(bool, Option<bool>)> = words()
                    .flat_map(|word| names.iter().map(move |name| (word, *name)))
                    .map(|(word, name)| (word == name, keyed::matches(word, name)))
                    .collect();
                let inverted = value.starts_with('!');
                if matched.iter().any(|(_, matches)| matches.is_none()) {
                    perhaps = true;
                } else if matched.iter().any(|(_, matches)| *matches == Some(true)) == inverted {
                    return For::Others;
                }
                this |= !inverted && matched.iter().any(|(same, _)| *same);
            }
            _ => perhaps = true,
        }
    }
    match (this, perhaps) {
        (true, _) => For::This,
        (false, true) => For::Perhaps,
        (false, false) => For::Whatever,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::tests::link;

    #[test]
    fn a_file_is_for_an_interface_where_it_names_it() {
        let link = link(3, "eth1");
        for (text, whom) in [
            ("[Match]\nName=eth1\n", For::This),
            ("[Match]\nName=ens5 eth1\n", For::This),
            ("[Match]\nMACAddress=02-EC-20-00-00-03\n[Network]\nDHCP=yes\n", For::This),
            ("[Match]\nMACAddress=02:ec:20:00:00:04\nName=eth*\n", For::Others),
            ("[Match]\nName=en* eth*\n", For::Whatever),
            ("[Match]\nName=!eth1\n", For::Others),
            ("[Match]\nName=!eth0\n", For::Whatever),
            ("[Match]\nName=eth[0-9]\n", For::Perhaps),
            ("[Match]\nDriver=ena ixgbevf vif\n", For::Perhaps),
            ("[Network]\nDHCP=yes\n", For::Whatever),
            ("[Match]\nName=eth0\n", For::Others),
        ] {
            assert_eq!(is_for(text, &link), whom, "{text}");
        }
    }
}
