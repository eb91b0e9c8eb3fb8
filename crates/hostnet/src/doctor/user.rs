//! Whom hooks are run as, and which of them he may run.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::facts::{AGENT_UNIT, SCAN_UNIT, Unit};
use crate::hooks::{Programs, Refused};

const ROOT: u32 = 0;
/// Of the three bits of a user, a group or all others. To look something up in a directory, and to run
/// a file, are the same one.
const READ: u32 = 4;
const EXECUTE: u32 = 1;

/// A user, and the groups that he is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    id: u32,
    groups: Vec<u32>,
}

impl User {
    /// Who runs hooks here: the agent, or who would run it where the unit is on and we may look at what
    /// is its user's; otherwise we do.
    pub(super) fn of_hooks(agent: Option<u32>, units: &[Unit]) -> Self {
        let ours = Self::of_process("self").unwrap_or(User { id: ROOT, groups: Vec::new() });
        let agent = agent.and_then(|pid| Self::of_process(&pid.to_string()));
        let of_unit = || {
            let unit = unit_of_hooks(units).filter(|_| ours.id == ROOT)?;
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            Self::of_unit(unit, &read("/etc/passwd"), &read("/etc/group"))
        };
        agent.or_else(of_unit).unwrap_or(ours)
    }

    fn of_process(process: &str) -> Option<Self> {
        Self::read(&fs::read_to_string(format!("/proc/{process}/status")).ok()?)
    }

    /// From what `/proc/PID/status` says: of each the real, the effective, the saved and the file
    /// system's.
    fn read(status: &str) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<u32>> {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            line.split_whitespace().map(|number| number.parse().ok()).collect()
        };
        let effective = |key: &str| numbers(key)?.get(1).copied();
        let mut groups = numbers("Groups")?;
        groups.push(effective("Gid")?);
        Some(User { id: effective("Uid")?, groups })
    }

    /// The user of a unit, by what stands in `/etc/passwd` and `/etc/group`.
    fn of_unit(unit: &Unit, passwd: &str, group: &str) -> Option<Self> {
        let (id, own) = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, id, group) = (fields.next()?, fields.nth(1)?, fields.next()?);
            let is = name == unit.user || id == unit.user;
            is.then(|| Some((id.parse().ok()?, group.parse().ok()?))).flatten()
        })?;
        let further = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id, members) = (fields.next()?, fields.nth(1)?, fields.next()?);
            let is = members.split(',').any(|member| member == unit.user)
                || unit.groups.split_whitespace().any(|group| group == name || group == id);
            is.then(|| id.parse().ok()).flatten()
        });
        Some(User { id, groups: further.chain([own]).collect() })
    }

    /// What is run for him, and what is not.
    pub(super) fn programs(&self, directory: &Path) -> Programs {
        let mut programs = Programs::in_directory(directory, self.id);
        // Where it is safe, what was there is what it leads to.
        let found = fs::canonicalize(directory);
        if let Some(why) = found.ok().and_then(|found| self.kept_from(&found)) {
            // Why nothing of it is run may be known already.
            if programs.refused.iter().all(|refused| refused.path != directory) {
                let refused = Refused {
                    path: directory.to_owned(),
                    why: format!("{why}; nothing in it is run"),
                };
                programs = Programs { run: Vec::new(), refused: vec![refused] };
            }
            return programs;
        }
        for program in std::mem::take(&mut programs.run) {
            match self.kept_from(&program.file) {
                None => programs.run.push(program),
                Some(why) => programs.refused.push(Refused { path: program.path, why }),
            }
        }
        programs
    }

    /// Why he may not read and run a file, or read a directory and look something up in it.
    fn kept_from(&self, path: &Path) -> Option<String> {
        let user = self.id;
        path.ancestors().find_map(|at| {
            let is = fs::metadata(at).ok()?;
            match at == path {
                true if !self.may(&is, READ | EXECUTE) => {
                    Some(format!("user {user}, who runs hooks, may not read and execute it"))
                }
                false if !self.may(&is, EXECUTE) => Some(format!(
                    "user {user}, who runs hooks, may not look anything up in {}",
                    at.display()
                )),
                _ => None,
            }
        })
    }

    /// The bits of the owner, of the group or of all others, whichever he is. Root may always: that
    /// something can be run at all is looked at before.
    fn may(&self, is: &fs::Metadata, wanted: u32) -> bool {
        let shift = match () {
            () if self.id == is.uid() => 6,
            () if self.groups.contains(&is.gid()) => 3,
            () => 0,
        };
        self.id == ROOT || (is.mode() >> shift) & wanted == wanted
    }
}

/// The one that is on, or the first that is there.
fn unit_of_hooks(units: &[Unit]) -> Option<&Unit> {
    let there = || {
        let named = [AGENT_UNIT, SCAN_UNIT].into_iter();
        named
            .filter_map(|name| units.iter().find(|unit| unit.name == name))
            .filter(|unit| !unit.enabled.is_empty())
    };
    let is_on = |unit: &&Unit| unit.enabled == "enabled" || unit.active == "active";
    there().find(is_on).or_else(|| there().next())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\njackfield:x:997:996::/:/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:a,jackfield\njackfield:x:996:\nbin:x:2:\n";

    fn unit(name: &str, user: &str, enabled: &str) -> Unit {
        Unit {
            name: name.to_owned(),
            enabled: enabled.to_owned(),
            active: String::new(),
            user: user.to_owned(),
            groups: "root 2".to_owned(),
        }
    }

    #[test]
    fn the_user_of_a_unit_has_the_groups_of_both() {
        let user = User::of_unit(&unit(AGENT_UNIT, "jackfield", "enabled"), PASSWD, GROUP);
        assert_eq!(user, Some(User { id: 997, groups: vec![0, 4, 2, 996] }));
        assert_eq!(User::of_unit(&unit(AGENT_UNIT, "", "enabled"), PASSWD, GROUP), None);
        assert_eq!(User::of_unit(&unit(AGENT_UNIT, "other", "enabled"), PASSWD, GROUP), None);
    }

    #[test]
    fn the_unit_that_is_on_counts_and_one_that_is_not_there_does_not() {
        let name = |units: &[Unit]| unit_of_hooks(units).map(|unit| unit.name.clone());
        let units = |agent, scan| [unit(AGENT_UNIT, "a", agent), unit(SCAN_UNIT, "b", scan)];
        assert_eq!(name(&units("disabled", "enabled")), Some(SCAN_UNIT.to_owned()));
        assert_eq!(name(&units("disabled", "disabled")), Some(AGENT_UNIT.to_owned()));
        assert_eq!(name(&units("", "")), None);
    }

    #[test]
    fn what_a_process_may_is_what_counts() {
        let status = "Name:\tx\nUid:\t0\t997\t0\t997\nGid:\t0\t996\t0\t996\nGroups:\t0 4 \n";
        assert_eq!(User::read(status), Some(User { id: 997, groups: vec![0, 4, 996] }));
        assert_eq!(User::read("Name:\tx\n"), None);
        let ours = User::of_process("self").unwrap();
        assert_eq!(ours.id, jackfield_kernel::effective_user_and_group().0);
    }

    #[test]
    fn what_its_user_cannot_reach_or_run_is_told_of() {
        let name = format!("jackfield-user-{}", std::process::id());
        let directory = Directory(std::env::temp_dir().join(name));
        fs::create_dir(&directory.0).unwrap();
        let hook = directory.0.join("10-a");
        fs::write(&hook, "#!/bin/sh\n").unwrap();
        let is = fs::metadata(&hook).unwrap();
        // Nobody is of this group by chance.
        let stranger = User { id: is.uid() + 70_000, groups: vec![is.gid() + 70_000] };
        let friend = User { groups: vec![is.gid()], ..stranger.clone() };
        for (of_directory, of_hook, strangers, friends) in [
            (0o755, 0o755, true, true),
            (0o755, 0o750, false, true),
            (0o755, 0o705, true, false),
            (0o750, 0o755, false, true),
            (0o700, 0o755, false, false),
            (0o755, 0o711, false, false),
        ] {
            set(&directory.0, of_directory);
            set(&hook, of_hook);
            for (user, expected) in [(&stranger, strangers), (&friend, friends)] {
                let kept = user.kept_from(&hook);
                let kept = kept.or_else(|| user.kept_from(&directory.0));
                assert_eq!(kept.is_none(), expected, "{of_directory:o} {of_hook:o}: {kept:?}");
            }
            assert_eq!(User { id: ROOT, groups: Vec::new() }.kept_from(&hook), None);
        }
        // As its owner: the bits of the group and of others are not his.
        let owner = User { id: is.uid(), groups: vec![is.gid()] };
        set(&hook, 0o755);
        assert_eq!(owner.programs(&directory.0).run.len(), 1);
    }

    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
}
