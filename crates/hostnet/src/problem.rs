//! What stands in the way of an interface, said so that somebody can do something about it.

use std::borrow::Cow;
use std::fmt::Display;

use jackfield_kernel::Route;
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::cloud::CloudInterface;
use crate::neighbours::{Hold, Holder};
use crate::render::Manager;

/// Something that is wrong with an interface, or that it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word to match on.
    pub code: Cow<'static, str>,
    /// What is wrong.
    pub text: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    fn new(code: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { code: code.into(), text: text.into(), fix: fix.into() }
    }

    pub(crate) fn group_in_use(group: u32, by: &str) -> Self {
        Self::new(
            "group-in-use",
            format!("link group {group} is used by {by}, which is no cloud interface"),
            "set agent.link_group to a group that nothing uses, or take the device out of it",
        )
    }

    pub(crate) fn primary_in_group(name: &str, group: u32, ours: u32) -> Self {
        Self::new(
            "primary-in-group",
            format!(
                "the primary interface {name} is in link group {group}, and has to be in {ours}"
            ),
            "take it out of that group",
        )
    }

    pub(crate) fn table_in_use(table: u32, route: &Route) -> Self {
        Self::new(
            "table-in-use",
            format!(
                "routing table {table} holds a route of somebody else (to {}, protocol {})",
                route.destination, route.protocol
            ),
            "remove that route, or set agent.table_base to a range of tables that nothing uses",
        )
    }

    pub(crate) fn table_conflict(table: u32, other: &str) -> Self {
        Self::new(
            "table-conflict",
            format!("routing table {table} is {other}'s: metadata gives both the same place"),
            "wait: metadata may be late; where it stays so, one of them has to be re-attached",
        )
    }

    pub(crate) fn alias_too_long() -> Self {
        Self::new(
            "alias-too-long",
            "the device's alias leaves no room for what it was like before",
            "shorten the alias to 100 octets",
        )
    }

    pub(crate) fn no_mark_left(mask: u32) -> Self {
        Self::new(
            "no-mark-left",
            format!("the mark mask {mask:#x} has no number left for forwarded connections"),
            "set agent.mark_mask to more bits",
        )
    }

    pub(crate) fn not_listed() -> Self {
        Self::new(
            "not-listed",
            "metadata does not list this MAC",
            "wait: a new attachment is listed within some 30 s; a device that is no cloud \
             interface is left alone",
        )
    }

    pub(crate) fn metadata_silent() -> Self {
        Self::new(
            "metadata-silent",
            "the metadata service has not answered yet",
            "make sure that the instance metadata service is on and reachable (IMDSv2)",
        )
    }

    pub(crate) fn incomplete(known: &CloudInterface) -> Self {
        let mut missing = known.unknown.clone();
        if known.slot.is_none() {
            missing.push("device-number or network-card is not there yet".to_owned());
        }
        if !known.addresses.iter().any(|ip| known.subnet_of(*ip).is_some()) {
            missing.push("no address with its subnet yet".to_owned());
        }
        Self::new(
            "metadata-incomplete",
            format!("metadata is not complete: {}", missing.join("; ")),
            "wait: it is asked again until it is",
        )
    }

    pub(crate) fn awaiting_udev() -> Self {
        Self::new(
            "awaiting-udev",
            "udev has not finished with the device, and may rename it",
            "wait; where it stays so, see 'udevadm monitor' and the rules for network devices",
        )
    }

    pub(crate) fn no_subnet(what: impl Display) -> Self {
        Self::new(
            "no-subnet",
            format!("{what} lies in no subnet that metadata names for the interface"),
            "wait: the subnet may be late",
        )
    }

    pub(crate) fn ipv6_disabled(what: impl Display) -> Self {
        Self::new(
            "ipv6-disabled",
            format!("{what} is not added: IPv6 is switched off on the device"),
            "set net.ipv6.conf.<interface>.disable_ipv6 to 0",
        )
    }

    pub(crate) fn address_elsewhere(what: impl Display) -> Self {
        Self::new(
            "address-elsewhere",
            format!("{what} is still another interface's"),
            "wait: it moves when metadata lists it for one interface only",
        )
    }

    pub(crate) fn opted_out(path: &str) -> Self {
        Self::new(
            "opted-out",
            format!("{path} says EC2SYNC=no: the interface is left alone"),
            "remove that file, or the line, to have jackfield configure it",
        )
    }

    pub(crate) fn configured_by_hand(name: &str, path: &str) -> Self {
        Self::new(
            "configured-by-hand",
            format!("{path} configures {name} and is not jackfield's, which leaves it as it is"),
            "remove what it says of the interface, or add a line '# EC2SYNC=no' to keep it",
        )
    }

    pub(crate) fn name_not_plain(manager: Manager) -> Self {
        Self::new(
            "name-not-plain",
            format!("{manager} cannot be told of a device of this name"),
            "give it a name of letters, digits, '.', '_' and '-', or set backend = \"kernel\"",
        )
    }

    pub(crate) fn program_missing(manager: Manager, program: &str) -> Self {
        Self::new(
            "backend-missing",
            format!("backend = \"{manager}\", and there is no program '{program}'"),
            "install it, or set backend = \"kernel\"",
        )
    }

    pub(crate) fn left_to_manager(manager: Manager, name: &str, change: &Change) -> Self {
        let look = match manager {
            Manager::Ifupdown => format!("'ifquery --state' and 'ifup -v {name}'"),
            Manager::Networkd => format!("'networkctl status {name}'"),
        };
        Self::new(
            "awaiting-backend",
            format!("{manager} has not made '{change}'"),
            format!("wait; where it stays so, see {look}"),
        )
    }

    pub(crate) fn manager_failed(manager: Manager, text: &str) -> Self {
        Self::new("backend-failed", format!("{manager}: {text}"), "see what it says of itself")
    }

    pub(crate) fn foreign(holder: &Holder) -> Self {
        let Holder { name, hold: Hold::Owns(evidence) | Hold::Joins(evidence), cure, .. } = holder;
        let or = if holder.cure_is_seen { "or" } else { "and" };
        Self::new(
            "foreign",
            format!("it is left to {name} ({evidence})"),
            format!(
                "to have it managed here: {cure}; {or} set manage = true for it ([[interface]])"
            ),
        )
    }

    pub(crate) fn also_managed(holder: &Holder) -> Self {
        let Holder { name, hold: Hold::Owns(evidence) | Hold::Joins(evidence), cure, .. } = holder;
        Self::new(
            "also-managed",
            format!("{name} configures it too ({evidence})"),
            format!("{cure}; or set manage = false for it ([[interface]])"),
        )
    }

    pub(crate) fn deletes_others(text: &str, cure: &str) -> Self {
        Self::new("rules-deleted-by-others", text, cure)
    }

    pub(crate) fn left_alone(change: &str, culprit: Option<&str>, cure: Option<&str>) -> Self {
        let by = culprit.map_or("by somebody".to_owned(), |by| format!("by {by}"));
        let cure = cure.unwrap_or("keep whoever it is from doing that ('ip monitor' tells when)");
        Self::new(
            "left-alone",
            format!("'{change}' was undone again and again {by}, and is left alone"),
            format!(
                "{cure}; then 'jackfield scan' makes it again, or the agent itself in 10 minutes"
            ),
        )
    }

    pub(crate) fn to_change(changes: usize) -> Self {
        Self::new(
            "not-as-desired",
            format!("{changes} changes are to be made"),
            "see 'jackfield plan'; 'jackfield run' or 'jackfield scan' makes them",
        )
    }

    pub(crate) fn metadata_failed(text: &str) -> Self {
        Self::new(
            "metadata-unreachable",
            text,
            "make sure that the instance metadata service is on and reachable (IMDSv2)",
        )
    }
}
