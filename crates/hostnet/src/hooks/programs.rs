//! Which files of the directory are programs to run.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Only their owner may change them, who is root or the one who runs them.
const BY_OTHERS: u32 = 0o002;
const BY_GROUP: u32 = 0o020;
const EXECUTABLE: u32 = 0o111;
const ROOT: u32 = 0;
/// What editors and package managers leave behind is not worth a word.
const LEFT_BEHIND: [&str; 8] =
    ["~", "#", ".bak", ".orig", ".swp", ".rpmsave", ".rpmnew", ".rpmorig"];

/// What there is in a directory of hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Programs {
    /// What is run, in this order.
    pub run: Vec<PathBuf>,
    /// What is not, although somebody may have meant it to be.
    pub refused: Vec<Refused>,
}

/// A file, or the directory itself, that is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it is.
    pub path: PathBuf,
    /// Why, and what to do about it.
    pub why: String,
}

impl Programs {
    /// Looks into the directory, for programs that run as `user`. One that is missing is empty.
    pub fn in_directory(directory: &Path, user: u32) -> Self {
        let mut programs = Programs::default();
        let mut refuse = |path: &Path, why: String| {
            programs.refused.push(Refused { path: path.to_owned(), why });
        };
        match fs::metadata(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return programs,
            Err(error) => {
                refuse(directory, format!("it cannot be looked at: {error}"));
                return programs;
            }
            Ok(is) if !is.is_dir() => {
                refuse(directory, "it is no directory".to_owned());
                return programs;
            }
            Ok(is) => {
                if let Some(why) = unsafe_because(&is, user) {
                    refuse(directory, format!("{why}; nothing in it is run"));
                    return programs;
                }
            }
        }
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                refuse(directory, format!("it cannot be read: {error}"));
                return programs;
            }
        };
        let mut paths: Vec<PathBuf> = entries.filter_map(|it| Some(it.ok()?.path())).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_left_behind(&name) {
                continue;
            }
            match why_not(&path, &name, user) {
                None => programs.run.push(path),
                Some(why) => programs.refused.push(Refused { path, why }),
            }
        }
        programs
    }
}

/// Of a link, where it leads counts.
fn why_not(path: &Path, name: &str, user: u32) -> Option<String> {
    let is = match fs::metadata(path) {
        Ok(is) => is,
        Err(error) => return Some(format!("it cannot be looked at: {error}")),
    };
    if !is.is_file() {
        return Some("it is no regular file".to_owned());
    }
    if is.mode() & EXECUTABLE == 0 {
        return Some("it is not executable: chmod +x it, or take it away".to_owned());
    }
    // As run-parts has it.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.chars().all(plain) {
        let why = "its name has to be of letters, digits, '_' and '-' alone, without an extension";
        return Some(why.to_owned());
    }
    unsafe_because(&is, user)
}

/// Why somebody else could have it say something else.
fn unsafe_because(is: &fs::Metadata, user: u32) -> Option<String> {
    if is.uid() != ROOT && is.uid() != user {
        return Some(format!("its owner is user {}: chown it to root", is.uid()));
    }
    if is.mode() & BY_OTHERS != 0 {
        return Some("everybody may write to it: chmod o-w it".to_owned());
    }
    if is.mode() & BY_GROUP != 0 && is.gid() != ROOT {
        return Some(format!("its group {} may write to it: chmod g-w it", is.gid()));
    }
    None
}

fn is_left_behind(name: &str) -> bool {
    name.starts_with(['.', '#'])
        || name.contains(".dpkg-")
        || LEFT_BEHIND.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("jackfield-hooks-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Directory(path)
        }

        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        /// As those who own what is made here.
        fn look(&self) -> Programs {
            Programs::in_directory(&self.0, fs::metadata(&self.0).unwrap().uid())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn programs_are_run_in_the_order_of_their_names() {
        let directory = Directory::new("order");
        let paths = ["10-first", "20-second", "9-last", "Zebra"];
        let paths: Vec<PathBuf> =
            paths.iter().rev().map(|name| directory.file(name, 0o755)).rev().collect();
        let expected = Programs { run: paths, refused: Vec::new() };
        assert_eq!(directory.look(), expected);
    }

    #[test]
    fn what_is_missing_is_empty_and_what_editors_leave_behind_is_nothing() {
        let directory = Directory::new("empty");
        assert_eq!(Programs::in_directory(&directory.0.join("none"), 0), Programs::default());
        for name in ["10-a~", "#10-a#", ".10-a.swp", "10-a.dpkg-old", "10-a.bak", ".hidden"] {
            directory.file(name, 0o755);
        }
        assert_eq!(directory.look(), Programs::default());
    }

    #[test]
    fn what_is_not_safe_to_run_or_was_not_meant_to_be_is_refused_with_the_reason() {
        let directory = Directory::new("refused");
        directory.file("10-others", 0o757);
        directory.file("20-plain", 0o644);
        directory.file("30-script.sh", 0o755);
        fs::create_dir(directory.0.join("40-directory")).unwrap();
        symlink("/nonexistent/hook", directory.0.join("50-nowhere")).unwrap();
        symlink("/bin/true", directory.0.join("60-elsewhere")).unwrap();
        let programs = directory.look();
        assert_eq!(programs.run, [directory.0.join("60-elsewhere")]);
        let said: Vec<(&str, &str)> = programs
            .refused
            .iter()
            .map(|it| (it.path.file_name().unwrap().to_str().unwrap(), it.why.as_str()))
            .collect();
        for ((name, why), (expected, part)) in said.iter().zip([
            ("10-others", "everybody may write"),
            ("20-plain", "not executable"),
            ("30-script.sh", "without an extension"),
            ("40-directory", "no regular file"),
            ("50-nowhere", "cannot be looked at"),
        ]) {
            assert_eq!(*name, expected);
            assert!(why.contains(part), "{name}: {why}");
        }
        assert_eq!(said.len(), 5, "{said:?}");
    }

    #[test]
    fn the_files_of_other_users_and_what_their_groups_may_write_are_refused() {
        let directory = Directory::new("owners");
        let mine = directory.file("10-mine", 0o775);
        let is = fs::metadata(&mine).unwrap();
        let group = unsafe_because(&is, is.uid());
        assert_eq!(group.is_some(), is.gid() != ROOT, "{group:?}");
        // As somebody else who is not the owner of what is there.
        if is.uid() != ROOT {
            let why = unsafe_because(&is, is.uid() + 1).unwrap();
            assert!(why.contains("chown"), "{why}");
        } else if std::os::unix::fs::chown(&mine, Some(65_534), Some(65_534)).is_ok() {
            let is = fs::metadata(&mine).unwrap();
            assert!(unsafe_because(&is, ROOT).unwrap().contains("owner is user 65534"));
            assert!(unsafe_because(&is, 65_534).unwrap().contains("group 65534"));
        }
    }

    #[test]
    fn nothing_is_run_from_a_directory_that_others_may_write_to() {
        let directory = Directory::new("open");
        directory.file("10-a", 0o755);
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).unwrap();
        let programs = directory.look();
        assert_eq!(programs.run, Vec::<PathBuf>::new());
        assert!(programs.refused[0].why.contains("everybody may write"), "{programs:?}");
    }
}
