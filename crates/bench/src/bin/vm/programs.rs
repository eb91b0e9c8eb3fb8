//! The programs under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::arguments::{Arguments, Subject};

const FLOOR: &str = include_str!("../../../floor/tap.c");
/// The kernel's headers, behind those of the C library.
const HEADERS: [&str; 4] =
    ["-idirafter", "/usr/include", "-idirafter", "/usr/include/x86_64-linux-gnu"];

/// Where they are.
pub(crate) struct Programs {
    /// The release build of the plugin.
    pub(crate) plugin: PathBuf,
    /// The release build of jackfield, where it is measured.
    pub(crate) jackfield: PathBuf,
    /// The floor, compiled, static.
    pub(crate) floor: PathBuf,
    /// By what.
    pub(crate) compiler: String,
}

impl Programs {
    /// Finds the plugin, compiles the floor.
    pub(crate) fn prepare(arguments: &Arguments) -> Result<Self, Failure> {
        let own = std::env::current_exe()?;
        // target/PROFILE/vm
        let target = own.parent().and_then(Path::parent).ok_or("vm is in no target directory")?;
        let built = |target: PathBuf| target.join("release").join("tc-redirect-tap");
        let plugin = match &arguments.plugin {
            Some(path) => path.clone(),
            // Static: a dynamic one takes longer to start.
            None => built(target.join(format!("{}-unknown-linux-musl", std::env::consts::ARCH))),
        };
        let plugin = plugin.canonicalize().map_err(|error| {
            let path = plugin.display();
            format!("{path}: {error}; build it: cargo plugins, or give another by --plugin")
        })?;
        let jackfield = match &arguments.jackfield {
            Some(path) => path.clone(),
            None => target.join("release").join("jackfield"),
        };
        if arguments.subject != Subject::Plugin && !jackfield.exists() {
            let path = jackfield.display();
            return Err(format!("{path} is missing; build it: cargo build --release").into());
        }
        let directory = target.join("bench");
        std::fs::create_dir_all(&directory)?;
        let (source, floor) = (directory.join("tap.c"), directory.join("tap"));
        std::fs::write(&source, FLOOR)?;
        let candidates = match &arguments.compiler {
            Some(compiler) => vec![compiler.as_str()],
            None => vec!["musl-gcc", "cc"],
        };
        let mut said = String::new();
        for compiler in candidates {
            match compile(compiler, &source, &floor) {
                Ok(()) => {
                    let compiler = compiler.to_owned();
                    return Ok(Programs { plugin, jackfield, floor, compiler });
                }
                Err(error) => said = format!("{compiler}: {error}"),
            }
        }
        Err(format!("cannot compile the floor: {said}").into())
    }

    /// The time that /bin/true takes.
    pub(crate) fn start_true(&self) -> Result<Duration, Failure> {
        let mut command = Command::new("/bin/true");
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let time = start.elapsed();
        if status.success() { Ok(time) } else { Err("/bin/true fails".into()) }
    }
}

fn compile(compiler: &str, source: &Path, program: &Path) -> Result<(), Failure> {
    let mut command = Command::new(compiler);
    command.args(["-O2", "-static"]).args(HEADERS).arg("-o").args([program, source]);
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
}
