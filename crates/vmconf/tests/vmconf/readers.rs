//! What is printed is read back the same by those who read it in a guest: the real programs, from
//! their Debian packages.
//!
//! Where one is not installed, the test says so, and fails in CI.

mod cloud_init;
mod dracut;
mod initrd;
mod klibc;
mod networkd;
mod seen;

use std::path::{Path, PathBuf};
use std::process::Command;

/// A reader: the file that must be there, and the Debian package that has it.
struct Reader {
    file: &'static str,
    package: &'static str,
}

impl Reader {
    /// It is installed. In CI it must be.
    #[track_caller]
    fn is_installed(&self) -> bool {
        let Reader { file, package } = self;
        let there = Path::new(file).exists();
        if !there && std::env::var_os("CI").is_some() {
            panic!("{file} is missing: install the Debian package {package}");
        }
        if !there {
            eprintln!("NOT TESTED: {file} is missing: install the Debian package {package}");
        }
        there
    }
}

/// What a program printed. It must succeed and have nothing to complain of.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{command:?}: {complaints}\n{text}");
    text
}

/// A directory that is removed with its value.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vmconf-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// All files below a folder of it, in the order of their paths.
    fn files(&self, below: &str) -> Vec<(String, String)> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.join(below)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = std::fs::read_to_string(&path).unwrap();
                    files.push((path.display().to_string(), text));
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
