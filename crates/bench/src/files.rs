//! The programs under test, and the files that they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

const FLOOR: &str = include_str!("../floor/floor.c");
/// The lab's interfaces are ends of veth pairs.
const CONFIGURATION: &str = "[agent]\ndevice_kinds = [\"physical\", \"veth\"]\n";

/// Where everything is. The directory is in the target directory, and stays there.
pub(crate) struct Files {
    /// The release build of jackfield.
    pub(crate) jackfield: PathBuf,
    /// The floor, compiled.
    pub(crate) floor: PathBuf,
    /// jackfield's configuration.
    pub(crate) configuration: PathBuf,
    directory: PathBuf,
}

impl Files {
    /// Finds jackfield, compiles the floor.
    pub(crate) fn prepare(jackfield: Option<&Path>) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        // target/PROFILE/bench
        let profile = own.parent().ok_or("the bench is in no directory")?;
        let target = profile.parent().ok_or("the bench is in no target directory")?;
        let jackfield = match jackfield {
            Some(path) => path.to_owned(),
            None => target.join("release").join("jackfield"),
        };
        let jackfield = jackfield.canonicalize().map_err(|error| {
            let path = jackfield.display();
            format!("{path}: {error}; build it: cargo build --release -p jackfield")
        })?;
        let directory = target.join("bench");
        std::fs::create_dir_all(&directory)?;
        let configuration = directory.join("jackfield.toml");
        std::fs::write(&configuration, CONFIGURATION)?;
        let (source, floor) = (directory.join("floor.c"), directory.join("floor"));
        std::fs::write(&source, FLOOR)?;
        let compiled = Command::new("cc")
            .args(["-O2", "-Wall", "-o"])
            .args([&floor, &source])
            .output()
            .map_err(|error| format!("cannot run cc, which the floor is compiled with: {error}"))?;
        if !compiled.status.success() {
            let said = String::from_utf8_lossy(&compiled.stderr).into_owned();
            return Err(format!("cannot compile the floor: {said}").into());
        }
        Ok(Files { jackfield, floor, configuration, directory })
    }

    /// A file for what a program says.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }
}
