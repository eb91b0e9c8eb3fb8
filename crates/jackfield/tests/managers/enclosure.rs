//! A place in an instance for a manager of networks: a bus, and directories of its own where the
//! machine has its configuration and state. The instance has its own /run already.
//!
//! Nothing of it is seen outside the instance's mounts, with which it ends.

use std::path::Path;
use std::process::{Command, Stdio};

use jackfield_lab::{Host, Process};

use crate::harness::{PATIENCE, eventually, not_tested, shell};

/// What a daemon is, and the Debian package that has it.
pub(crate) struct Program {
    pub(crate) file: &'static str,
    pub(crate) package: &'static str,
}

const BUS: Program = Program { file: "/usr/bin/dbus-daemon", package: "dbus" };

/// Everybody may have any name, and talk to anybody: nobody else is there.
const BUS_CONFIGURATION: &str = r#"<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"#;

/// Whether all of them are installed. In CI they must be.
pub(crate) fn are_installed(programs: &[Program]) -> bool {
    let mut all = programs.iter().chain(std::iter::once(&BUS));
    let Some(Program { file, package }) = all.find(|it| !Path::new(it.file).exists()) else {
        return true;
    };
    not_tested(format!("{file} is missing: install the Debian package {package}"));
    false
}

/// Dropped, the daemons that it started are killed.
pub(crate) struct Enclosure<'a> {
    host: &'a Host,
    /// The manager ends before its bus.
    daemon: Option<Process>,
    _bus: Process,
}

impl<'a> Enclosure<'a> {
    /// Gives the instance a bus, and empty directories instead of these.
    pub(crate) fn new(host: &'a Host, directories: &[&str]) -> Self {
        for directory in directories {
            shell(host, &format!("mount -t tmpfs -o mode=755 tmpfs {directory}"));
        }
        shell(host, "mkdir -p /run/dbus");
        let enclosure_file = "/run/dbus/bus.conf";
        write(host, enclosure_file, BUS_CONFIGURATION);
        let mut command = host.command(BUS.file).unwrap();
        command.args(["--nofork", "--nopidfile", &format!("--config-file={enclosure_file}")]);
        let bus = Process::start(quiet(&mut command)).unwrap();
        let enclosure = Enclosure { host, daemon: None, _bus: bus };
        eventually("the bus listens", PATIENCE, || enclosure.exists("/run/dbus/system_bus_socket"));
        enclosure
    }

    /// Writes a file that the manager reads.
    pub(crate) fn write(&self, path: &str, text: &str) {
        write(self.host, path, text);
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.host.run(|| Path::new(path).exists()).unwrap()
    }

    /// Starts the manager, instead of the one that runs.
    pub(crate) fn start(&mut self, program: &str, arguments: &[&str]) {
        self.stop();
        let log = self.host.run(|| {
            std::fs::File::options().create(true).append(true).open("/run/manager.log").unwrap()
        });
        let mut command = self.host.command(program).unwrap();
        command.args(arguments).stdin(Stdio::null());
        let log = log.unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(Process::start(&mut command).unwrap());
    }

    /// Asks the manager to stop as an init does, and waits until it has.
    pub(crate) fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        let pid = daemon.child().id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        daemon.child().wait().unwrap();
    }

    /// What the manager said.
    pub(crate) fn log(&self) -> String {
        self.host.run(|| std::fs::read_to_string("/run/manager.log")).unwrap().unwrap_or_default()
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn write(host: &Host, path: &str, text: &str) {
    let written = host.run(|| -> std::io::Result<()> {
        let path = Path::new(path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        std::fs::write(path, text)
    });
    written.unwrap().unwrap();
}
