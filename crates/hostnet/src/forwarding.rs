//! What the machine is like as somebody who forwards for containers and VMs.

use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{Error, Family, MarksTable, Nftables, NftablesState, Rule};

use crate::snapshot::{OURS, REVERSE_PATH_FILTER};

/// What the machine forwards, and which connections are marked for that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// Whether it forwards at all, of either family.
    pub on: bool,
    /// Whether somebody translates destinations of what arrives, as published ports of containers
    /// are.
    pub destination_nat: bool,
    /// IPv4 `rp_filter` of all interfaces together: of this and the interface's own the larger
    /// counts.
    pub reverse_path_filter: i32,
    /// Our table of connection marks; `None` where we are not let look.
    pub marks: Option<MarksTable>,
}

impl Forwarding {
    /// Looks, in the calling thread's network namespace. nf_tables is looked at only where packets
    /// are forwarded, or rules of ours tell that they were: a look loads its modules.
    pub(crate) fn read(rules: &[Rule]) -> Result<Self, Error> {
        let forwards = |family| sysctl::read_of_all(Setting { family, name: "forwarding" });
        let on = Family::BOTH.into_iter().any(|family| forwards(family).is_some_and(|on| on != 0));
        let marked = rules.iter().any(|rule| rule.protocol == OURS && rule.mark.is_some());
        let reverse_path_filter = sysctl::read_of_all(REVERSE_PATH_FILTER).unwrap_or(0);
        let mut forwarding = Forwarding {
            on,
            reverse_path_filter,
            marks: Some(MarksTable::Absent),
            ..Forwarding::default()
        };
        if !on && !marked {
            return Ok(forwarding);
        }
        let state = match Nftables::open()? {
            Some(mut kernel) => NftablesState::read(&mut kernel),
            None => Ok(NftablesState::default()),
        };
        match state {
            Ok(state) => {
                forwarding.marks = Some(state.marks);
                forwarding.destination_nat = state.destination_nat || iptables_has_nat();
            }
            // Whoever may not look may not change it either, and is shown what was found last.
            Err(error) if error.is_permission() => {
                forwarding.marks = None;
                forwarding.destination_nat = marked;
            }
            Err(error) => return Err(error),
        }
        Ok(forwarding)
    }
}

/// Whether the older iptables, which nf_tables does not tell of, has a table for NAT.
fn iptables_has_nat() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|file| {
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        names.is_ok_and(|names| names.lines().any(|name| name == "nat"))
    })
}
