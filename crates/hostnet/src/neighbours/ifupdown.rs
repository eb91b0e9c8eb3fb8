//! ifupdown: a stanza `iface NAME` in /etc/network/interfaces or what it includes (interfaces(5)), and
//! /run/network/ifstate, which lists what is up. Debian's cloud images write a stanza for each new
//! interface below /run/network/interfaces.d: that is nobody's word about just this one.

use jackfield_kernel::Link;

use super::{Hold, names};
use crate::render;
use crate::snapshot::Snapshot;

const MAIN: &str = "/etc/network/interfaces";
const IFSTATE: &str = "/run/network/ifstate";
const GENERATED: &str = "/run/network/interfaces.d";

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    // Without a list of what is up, ifup was never run.
    snapshot.neighbours.text(IFSTATE).map(|_| IFSTATE.to_owned())
}

pub(super) fn hold(snapshot: &Snapshot, link: &Link) -> Option<Hold> {
    let disk = &snapshot.neighbours;
    let state = disk.text(IFSTATE)?;
    let names = names(link);
    let has_stanza = |text: &str| {
        text.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("iface") && words.next().is_some_and(|name| names.contains(name))
        })
    };
    let written = disk.text(MAIN).map(|text| (MAIN, text));
    let written = written.into_iter().chain(disk.files("/etc/network/interfaces.d"));
    let is_ours = |text: &str| render::owner(text).is_some();
    if let Some((path, _)) =
        written.filter(|(_, text)| !is_ours(text)).find(|(_, text)| has_stanza(text))
    {
        return Some(Hold::Owns(format!("{path}: iface {}", link.name)));
    }
    let up = state.lines().any(|line| line.split('=').next().is_some_and(|it| names.contains(it)));
    let generated = disk.files(GENERATED).find(|(_, text)| has_stanza(text));
    match generated {
        Some((path, _)) => Some(Hold::Joins(format!("{path}: iface {}", link.name))),
        None if up && !disk.files("/etc/network/interfaces.d").any(|(_, text)| is_ours(text)) => {
            Some(Hold::Joins(format!("{IFSTATE}: {}", link.name)))
        }
        None => None,
    }
}
