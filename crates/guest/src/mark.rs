//! Whose a namespace is: said by the alias of its loopback.
//!
//! ```text
//! jackfield vm: vm1 made up /var/lib/cni
//! ```
//!
//! The kernel is the only database: the alias goes with the namespace, and survives every crash but the
//! machine's, which the namespace does not survive either. A namespace is marked before it gets
//! its path, so none of ours is without.

use std::fmt;
use std::path::{Path, PathBuf};

use jackfield_cni::ContainerId;

use crate::error::{Error, Result};

/// The kernel takes this many octets.
const MAX_ALIAS: usize = 255;

const BEGINNING: &str = "jackfield vm: ";

/// How far a VM's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `up` works on it, or was interrupted.
    Making,
    /// `up` has finished.
    Up,
    /// `down` works on it, or was interrupted.
    Ending,
}

/// What the alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The VM.
    pub(crate) vm: ContainerId,
    /// Made for the VM, and to be removed with it; otherwise it was there before.
    pub(crate) made: bool,
    pub(crate) stage: Stage,
    /// Where its networks are remembered.
    pub(crate) cache_dir: PathBuf,
}

impl Mark {
    /// A mark of a VM that is being made, and that fits into an alias in every stage.
    ///
    /// # Errors
    /// [`Error::Path`] where the cache's path and the VM's ID are too long together.
    pub(crate) fn new(vm: &ContainerId, made: bool, cache_dir: &Path) -> Result<Self> {
        let mark =
            Mark { vm: vm.clone(), made, stage: Stage::Ending, cache_dir: cache_dir.to_owned() };
        if mark.to_string().len() > MAX_ALIAS {
            let reason = "with the VM's ID it is too long for the alias of an interface";
            return Err(Error::Path { path: cache_dir.to_owned(), reason });
        }
        Ok(Mark { stage: Stage::Making, ..mark })
    }

    /// Reads an alias; `None` where it is none of ours.
    pub(crate) fn read(alias: &str) -> Option<Self> {
        let mut fields = alias.strip_prefix(BEGINNING)?.splitn(4, ' ');
        let vm = ContainerId::new(fields.next()?).ok()?;
        let made = match fields.next()? {
            "made" => true,
            "given" => false,
            _ => return None,
        };
        let stage = match fields.next()? {
            "making" => Stage::Making,
            "up" => Stage::Up,
            "ending" => Stage::Ending,
            _ => return None,
        };
        Some(Mark { vm, made, stage, cache_dir: fields.next()?.into() })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { vm, made, stage, cache_dir } = self;
        let made = if *made { "made" } else { "given" };
        let stage = match stage {
            Stage::Making => "making",
            Stage::Up => "up",
            Stage::Ending => "ending",
        };
        write!(f, "{BEGINNING}{vm} {made} {stage} {}", cache_dir.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let vm = ContainerId::new("vm1").unwrap();
        for made in [true, false] {
            for stage in [Stage::Making, Stage::Up, Stage::Ending] {
                let new = Mark::new(&vm, made, Path::new("/var/lib/my cache")).unwrap();
                let mark = Mark { stage, ..new };
                assert_eq!(Mark::read(&mark.to_string()), Some(mark));
            }
        }
    }

    #[test]
    fn what_others_wrote_is_no_mark() {
        for alias in ["", "uplink", "jackfield: table=10001", "jackfield vm: ../x made up /"] {
            assert_eq!(Mark::read(alias), None, "{alias}");
        }
        assert_eq!(Mark::read("jackfield vm: vm1 made up"), None);
        assert_eq!(Mark::read("jackfield vm: vm1 stolen up /x"), None);
    }

    #[test]
    fn a_mark_that_would_be_cut_off_is_refused() {
        let vm = ContainerId::new("v".repeat(120)).unwrap();
        let long = format!("/{}", "d".repeat(120));
        assert!(Mark::new(&vm, true, Path::new(&long)).is_err());
        assert!(Mark::new(&vm, true, Path::new("/var/lib/cni")).is_ok());
    }
}
