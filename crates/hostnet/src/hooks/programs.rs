//! Which files of the directory are programs to run.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Only their owner may change them, who is root or the one who runs them.
const BY_OTHERS: u32 = 0o002;
const BY_GROUP: u32 = 0o020;
const EXECUTABLE: u32 = 0o111;
/// In such a directory everybody may write, and nobody may rename what is not his own.
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;
/// More links on the way to a file are one to itself. As Linux has it.
const LINKS: u32 = 40;
/// What editors and package managers leave behind is not worth a word.
const LEFT_BEHIND: [&str; 8] =
    ["~", "#", ".bak", ".orig", ".swp", ".rpmsave", ".rpmnew", ".rpmorig"];

/// What there is in a directory of hooks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Programs {
    /// What is run, in this order.
    pub run: Vec<Program>,
    /// What is not, although somebody may have meant it to be.
    pub refused: Vec<Refused>,
}

/// A program that is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is in the directory, which is how it is called.
    pub path: PathBuf,
    /// The file itself, which no link leads to.
    pub file: PathBuf,
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
            Ok(_) => {}
        }
        let found = match resolve(directory, user) {
            Ok(found) => found,
            Err(why) => {
                refuse(directory, format!("{why}; nothing in it is run"));
                return programs;
            }
        };
        let entries = match fs::read_dir(&found) {
            Ok(entries) => entries,
            Err(error) => {
                refuse(directory, format!("it cannot be read: {error}"));
                return programs;
            }
        };
        let mut names: Vec<OsString> =
            entries.filter_map(|it| Some(it.ok()?.file_name())).collect();
        names.sort();
        for name in names {
            let path = directory.join(&name);
            let text = name.to_string_lossy();
            if is_left_behind(&text) {
                continue;
            }
            match program(&found.join(&name), &text, user) {
                Ok(file) => programs.run.push(Program { path, file }),
                Err(why) => programs.refused.push(Refused { path, why }),
            }
        }
        programs
    }
}

/// The file to run, or why it is not. Of a link, where it leads counts.
fn program(path: &Path, name: &str, user: u32) -> Result<PathBuf, String> {
    let is = fs::metadata(path).map_err(|error| format!("it cannot be looked at: {error}"))?;
    if !is.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if is.mode() & EXECUTABLE == 0 {
        return Err("it is not executable: chmod +x it, or take it away".to_owned());
    }
    // As run-parts has it.
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.chars().all(plain) {
        let why = "its name has to be of letters, digits, '_' and '-' alone, without an extension";
        return Err(why.to_owned());
    }
    resolve(path, user)
}

/// Where a path leads, by a way on which nobody else can have it lead elsewhere: who may write to a
/// directory may put something else in its place. The path that comes of it has no links.
fn resolve(path: &Path, user: u32) -> Result<PathBuf, String> {
    let names = |path: &Path| -> Vec<OsString> {
        let parts = path.components().rev();
        parts.map(|part| part.as_os_str().to_owned()).collect()
    };
    // The next one last.
    let mut left = names(path);
    let mut at = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop() {
        match Path::new(&name).components().next() {
            Some(Component::CurDir) => continue,
            Some(Component::ParentDir) => {
                at.pop();
                continue;
            }
            _ => {}
        }
        let next = at.join(&name);
        let is = fs::symlink_metadata(&next).map_err(|error| unknown(&next, &error))?;
        if is.is_symlink() {
            links += 1;
            if links > LINKS {
                return Err("too many links lead to it".to_owned());
            }
            // Nobody writes to a link, but who owns it may replace it.
            if let Some(why) = owner(&is, user) {
                return Err(on_the_way(&next, &why));
            }
            left.extend(names(&fs::read_link(&next).map_err(|error| unknown(&next, &error))?));
            continue;
        }
        let shared = is.uid() == ROOT && is.mode() & STICKY != 0;
        if let Some(why) = unsafe_because(&is, user).filter(|_| !left.is_empty() && !shared) {
            return Err(on_the_way(&next, &why));
        }
        at = next;
    }
    let is = fs::symlink_metadata(&at).map_err(|error| unknown(&at, &error))?;
    unsafe_because(&is, user).map_or(Ok(at), Err)
}

fn unknown(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be looked at: {error}", path.display())
}

fn on_the_way(path: &Path, why: &str) -> String {
    format!("{} is on the way to it, and {why}", path.display())
}

/// Why somebody else could have it say something else.
fn unsafe_because(is: &fs::Metadata, user: u32) -> Option<String> {
    if let Some(why) = owner(is, user) {
        return Some(why);
    }
    if is.mode() & BY_OTHERS != 0 {
        return Some("everybody may write to it: chmod o-w it".to_owned());
    }
    if is.mode() & BY_GROUP != 0 && is.gid() != ROOT {
        return Some(format!("its group {} may write to it: chmod g-w it", is.gid()));
    }
    None
}

fn owner(is: &fs::Metadata, user: u32) -> Option<String> {
    let other = is.uid() != ROOT && is.uid() != user;
    other.then(|| format!("its owner is user {}: chown it to root", is.uid()))
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

        fn programs(&self, names: &[&str]) -> Vec<Program> {
            let program = |name: &&str| {
                let path = self.0.join(name);
                Program { file: path.clone(), path }
            };
            names.iter().map(program).collect()
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
        let names = ["10-first", "20-second", "9-last", "Zebra"];
        for name in names.iter().rev() {
            directory.file(name, 0o755);
        }
        let expected = Programs { run: directory.programs(&names), refused: Vec::new() };
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
        let elsewhere = directory.0.join("60-elsewhere");
        symlink("/bin/true", &elsewhere).unwrap();
        let programs = directory.look();
        let file = fs::canonicalize("/bin/true").unwrap();
        assert_eq!(programs.run, [Program { path: elsewhere, file }]);
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
    fn nothing_is_run_that_others_may_put_something_else_in_the_place_of() {
        let directory = Directory::new("way");
        let user = fs::metadata(&directory.0).unwrap().uid();
        let hooks = directory.0.join("open/hooks.d");
        fs::create_dir_all(&hooks).unwrap();
        fs::set_permissions(&hooks, fs::Permissions::from_mode(0o755)).unwrap();
        directory.file("open/hooks.d/10-a", 0o755);
        symlink("../../open/./hooks.d/10-a", hooks.join("20-link")).unwrap();
        symlink("30-loop", hooks.join("30-loop")).unwrap();
        let open = |mode| {
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(directory.0.join("open"), permissions).unwrap();
        };
        // The directory itself by way of one, and one of its files.
        open(0o777);
        let refused = Programs::in_directory(&hooks, user).refused;
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert!(refused[0].why.contains("open is on the way to it, and everybody"), "{refused:?}");
        let other = directory.0.join("other");
        fs::create_dir(&other).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
        let link = other.join("10-link");
        symlink("../open/hooks.d/20-link", &link).unwrap();
        let found = Programs::in_directory(&other, user);
        assert_eq!(found.run, []);
        assert!(found.refused[0].why.contains("open is on the way to it"), "{found:?}");

        open(0o755);
        let file = hooks.join("10-a");
        let found = Programs::in_directory(&other, user);
        assert_eq!(found.run, [Program { path: link, file: file.clone() }]);
        let found = Programs::in_directory(&hooks, user);
        let path = hooks.join("20-link");
        let expected = [Program { path: file.clone(), file: file.clone() }, Program { path, file }];
        assert_eq!(found.run, expected);
        assert_eq!(found.refused.len(), 1, "{found:?}");

        // Where a link is somebody else's, he says where it leads.
        if user == ROOT {
            std::os::unix::fs::lchown(other.join("10-link"), Some(65_534), None).unwrap();
            let found = Programs::in_directory(&other, user);
            assert!(found.refused[0].why.contains("owner is user 65534"), "{found:?}");
        }
    }

    #[test]
    fn nothing_is_run_from_a_directory_that_others_may_write_to() {
        let directory = Directory::new("open");
        directory.file("10-a", 0o755);
        fs::set_permissions(&directory.0, fs::Permissions::from_mode(0o777)).unwrap();
        let programs = directory.look();
        assert_eq!(programs.run, []);
        assert!(programs.refused[0].why.contains("everybody may write"), "{programs:?}");
    }
}
