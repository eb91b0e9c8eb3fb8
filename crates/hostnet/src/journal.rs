//! The journal of an interface: what it was like before it was plugged, kept in the device's alias.
//!
//! The kernel is the only database. The alias goes where the device goes, survives a crash and a
//! restart, and is gone with the device. It is written before anything else of the device is
//! changed, and cleared after everything else was put back.
//!
//! ```text
//! jackfield: table=10001 mtu=1500 group=0 up=0 ra=1,1 rp=1 name=eni-0123 alias=what stood there before
//! ```

use std::fmt;

use jackfield_kernel::Link;

/// The kernel takes this many octets.
const MAX_ALIAS: usize = 255;

const MARK: &str = "jackfield:";

/// What an interface was like before it was plugged, and which table it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its routing table.
    pub table: u32,
    /// MTU before.
    pub mtu: u32,
    /// Link group before.
    pub group: u32,
    /// Whether it was up before.
    pub up: bool,
    /// IPv6 `accept_ra_defrtr` and `accept_ra_pinfo` before; `None` where the kernel has no IPv6.
    pub router_advertisements: Option<(i32, i32)>,
    /// IPv4 `rp_filter` before, where it was changed.
    pub reverse_path_filter: Option<i32>,
    /// The alternative name that was added.
    pub name: Option<String>,
    /// Alias before.
    pub alias: Option<String>,
}

impl Journal {
    /// The journal that the device has; `None` where it was not plugged.
    pub fn of(link: &Link) -> Option<Journal> {
        Journal::read(link.alias.as_deref()?)
    }

    /// Reads an alias; `None` where it is not a journal.
    pub fn read(alias: &str) -> Option<Journal> {
        let mut rest = alias.strip_prefix(MARK)?;
        let (mut table, mut mtu, mut group, mut up) = (None, None, None, None);
        let (mut router_advertisements, mut name, mut before) = (None, None, None);
        let mut reverse_path_filter = None;
        while let Some(field) = rest.strip_prefix(' ') {
            if let Some(text) = field.strip_prefix("alias=") {
                before = Some(text.to_owned());
                rest = "";
                continue;
            }
            let end = field.find(' ').unwrap_or(field.len());
            let (field, behind) = field.split_at_checked(end)?;
            rest = behind;
            let (key, value) = field.split_once('=')?;
            match key {
                "table" => table = value.parse().ok(),
                "mtu" => mtu = value.parse().ok(),
                "group" => group = value.parse().ok(),
                "up" => up = value.parse::<u8>().ok().map(|up| up != 0),
                "ra" => {
                    let (defrtr, pinfo) = value.split_once(',')?;
                    router_advertisements = Some((defrtr.parse().ok()?, pinfo.parse().ok()?));
                }
                "rp" => reverse_path_filter = Some(value.parse().ok()?),
                "name" => name = Some(value.to_owned()),
                // A later version may write more.
                _ => {}
            }
        }
        Some(Journal {
            table: table?,
            mtu: mtu?,
            group: group?,
            up: up?,
            router_advertisements,
            reverse_path_filter,
            name,
            alias: before,
        })
    }

    /// The alias that says it; `None` where it would be longer than the kernel takes.
    pub fn write(&self) -> Option<String> {
        let text = self.to_string();
        (text.len() <= MAX_ALIAS).then_some(text)
    }
}

impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Journal { table, mtu, group, up, .. } = self;
        write!(f, "{MARK} table={table} mtu={mtu} group={group} up={}", u8::from(*up))?;
        if let Some((defrtr, pinfo)) = self.router_advertisements {
            write!(f, " ra={defrtr},{pinfo}")?;
        }
        if let Some(filter) = self.reverse_path_filter {
            write!(f, " rp={filter}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " name={name}")?;
        }
        if let Some(alias) = &self.alias {
            write!(f, " alias={alias}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn journals() -> impl Strategy<Value = Journal> {
        let ra = prop::option::of((any::<i32>(), any::<i32>()));
        let name = prop::option::of("eni-[0-9a-f]{8,17}");
        let alias = prop::option::of("[ -~]{1,100}");
        let rp = prop::option::of(any::<i32>());
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>(), ra, rp, name, alias).prop_map(
            |(table, mtu, group, up, router_advertisements, reverse_path_filter, name, alias)| {
                Journal {
                    table,
                    mtu,
                    group,
                    up,
                    router_advertisements,
                    reverse_path_filter,
                    name,
                    alias,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(journal in journals()) {
            let text = journal.write().unwrap();
            prop_assert_eq!(Journal::read(&text), Some(journal));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", tail in ".*") {
            let _ = Journal::read(&text);
            let _ = Journal::read(&format!("{MARK} {tail}"));
        }
    }

    #[test]
    fn a_journal_without_what_was_added_later_is_read() {
        let journal = Journal::read("jackfield: table=10001 mtu=1500 group=0 up=0 ra=1,1").unwrap();
        assert_eq!((journal.table, journal.reverse_path_filter), (10_001, None));
    }

    #[test]
    fn an_alias_of_somebody_else_is_no_journal() {
        for text in ["", "uplink to rack 7", "jackfield", "jackfield: table=x", "jackfield: up=1"] {
            assert_eq!(Journal::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_journal_that_does_not_fit_is_not_written() {
        let journal = Journal {
            table: 10_001,
            mtu: 1500,
            group: 0,
            up: false,
            router_advertisements: None,
            reverse_path_filter: None,
            name: None,
            alias: Some("x".repeat(250)),
        };
        assert_eq!(journal.write(), None);
    }
}
