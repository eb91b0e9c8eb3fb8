//! NetworkManager. /run/NetworkManager/devices/INDEX tells whether it manages an interface
//! (NetworkManager 1.42, src/core/nm-config.c: `NM_CONFIG_DEVICE_STATE_DIR`); a profile tells for which
//! interface somebody wrote it (nm-settings-keyfile(5)). Profiles are readable for root alone.

use jackfield_kernel::Link;

use super::{Hold, is_mac_of, is_ours, keyed, names};
use crate::snapshot::Snapshot;

const DEVICES: &str = "/run/NetworkManager/devices";
const PROFILES: [&str; 3] = [
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    snapshot.neighbours.files(DEVICES).next().map(|(path, _)| path.to_owned())
}

pub(super) fn hold(snapshot: &Snapshot, link: &Link) -> Option<Hold> {
    let disk = &snapshot.neighbours;
    // Profiles are configuration of one that does not run, where it does not.
    presence(snapshot)?;
    let path = format!("{DEVICES}/{}", link.index);
    let of_device = |key| disk.text(&path).and_then(|text| keyed::last(text, "device", key));
    let managed = of_device("managed");
    if managed.is_some_and(|managed| !keyed::is_true(managed)) {
        return None;
    }
    let profiles = || PROFILES.iter().flat_map(|directory| disk.files(directory));
    let active = of_device("connection-uuid");
    let is_watched = |text| {
        keyed::last(text, "connection", "uuid") == active
            && keyed::last(text, ".nmmeta", "external").is_some_and(keyed::is_true)
    };
    // What somebody else configured it only looks at.
    if active.is_some() && profiles().any(|(_, text)| is_watched(text)) {
        return None;
    }
    let profile = profiles().find(|(path, text)| !is_ours(path) && is_for(text, link));
    match (profile, managed) {
        (Some((profile, _)), _) => Some(Hold::Owns(profile.to_owned())),
        (None, Some(_)) => Some(Hold::Joins(format!("{path}: managed"))),
        (None, None) => None,
    }
}

/// A profile that somebody wrote for just this interface: not one that NetworkManager made itself.
fn is_for(text: &str, link: &Link) -> bool {
    let value = |section, key| keyed::last(text, section, key);
    if value(".nmmeta", "nm-generated").is_some_and(keyed::is_true) {
        return false;
    }
    let name = value("connection", "interface-name");
    let mac = ["ethernet", "802-3-ethernet"].iter().find_map(|of| value(of, "mac-address"));
    name.is_none_or(|name| names(link).contains(name))
        && mac.is_none_or(|mac| is_mac_of(mac, link))
        && (name.is_some() || mac.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::tests::link;

    #[test]
    fn a_profile_is_for_an_interface_where_it_names_it() {
        let link = link(3, "eth1");
        for (text, is) in [
            ("[connection]\ninterface-name=eth1\n", true),
            ("[connection]\ninterface-name=eth0\n", false),
            ("[connection]\nid=any\n[ethernet]\nmac-address=02:EC:20:00:00:03\n", true),
            (
                "[connection]\ninterface-name=eth1\n[ethernet]\nmac-address=02:EC:20:00:00:04\n",
                false,
            ),
            ("[connection]\nid=Wired connection 1\ntype=ethernet\n", false),
            ("[connection]\ninterface-name=eth1\n[.nmmeta]\nnm-generated=true\n", false),
        ] {
            assert_eq!(is_for(text, &link), is, "{text}");
        }
    }
}
