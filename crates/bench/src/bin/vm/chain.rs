//! A VM's whole network, as a user makes it: `jackfield vm up` and `vm down` with the chain [ptp with
//! host-local, tc-redirect-tap], in turn with a script that runs the same plugins one by one.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_kernel::{LinkChange, MountNamespace, Namespace, Rtnetlink};
use rustix::mount::{MountFlags, mount};

use crate::Failure;

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";
const SCRIPT: &str = include_str!("one-by-one");
const LIST: &str = r#"{
    "cniVersion": "1.0.0",
    "name": "ours",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": "10.80.0.0/16" }]],
                "routes": [{ "dst": "0.0.0.0/0" }]
            }
        },
        { "type": "tc-redirect-tap" }
    ]
}"#;

/// A host with a network and mounts of its own, which goes with what holds it.
pub(crate) struct Host {
    network: Namespace,
    mounts: MountNamespace,
    jackfield: PathBuf,
}

/// Who makes a VM's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    /// `jackfield vm`.
    Jackfield,
    /// The script.
    Script,
}

impl Host {
    /// With the network `ours` and, for the script, `theirs`, which differ in name and subnet only.
    pub(crate) fn new(jackfield: &Path, plugin: &Path) -> Result<Self, Failure> {
        if !Path::new(PLUGINS).join("ptp").exists() {
            let package = "Debian's package containernetworking-plugins";
            return Err(format!("{PLUGINS}/ptp is missing: install {package}").into());
        }
        let network = Namespace::anonymous()?;
        let mounts = MountNamespace::anonymous(&network, || {
            for directory in ["/run", "/etc", "/opt", "/var/lib"] {
                mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"mode=755"))?;
            }
            std::fs::create_dir_all("/opt/cni/bin")?;
            std::os::unix::fs::symlink(plugin, "/opt/cni/bin/tc-redirect-tap")?;
            std::fs::create_dir_all("/etc/cni/conf.d")?;
            std::fs::write("/etc/cni/conf.d/ours.conflist", LIST)?;
            std::fs::write("/opt/one-by-one", SCRIPT)
        })?;
        let mut kernel = Rtnetlink::open_in(&network)?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        kernel.request("set the loopback up", up.request(1))?;
        Ok(Host { network, mounts, jackfield: jackfield.to_owned() })
    }

    /// Makes the network of VM number so-and-so.
    pub(crate) fn up(&self, maker: Maker, number: usize) -> Result<Duration, Failure> {
        let id = id(maker, number);
        match maker {
            Maker::Jackfield => self.time(&self.jackfield, &["vm", "up", &id, "--network", "ours"]),
            Maker::Script => self.time(Path::new("/bin/sh"), &["/opt/one-by-one", "up", &id]),
        }
    }

    /// Takes it down again.
    pub(crate) fn down(&self, maker: Maker, number: usize) -> Result<Duration, Failure> {
        let id = id(maker, number);
        match maker {
            Maker::Jackfield => self.time(&self.jackfield, &["vm", "down", &id]),
            Maker::Script => self.time(Path::new("/bin/sh"), &["/opt/one-by-one", "down", &id]),
        }
    }

    /// Fails where something is left of any VM.
    pub(crate) fn is_empty(&self) -> Result<(), Failure> {
        let left = "ls /run/netns /var/lib/cni/networks/*/10.* /var/lib/cni/results /run/*.json";
        let script = format!("{left} 2>/dev/null | grep -v : | grep . || true; ip -o link");
        let mut command = self.command(Path::new("/bin/sh"), &["-c", &script])?;
        let output = command.output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.lines().collect::<Vec<_>>().as_slice() {
            [loopback] if loopback.contains(": lo:") => Ok(()),
            _ => Err(format!("something is left: {text}").into()),
        }
    }

    fn time(&self, program: &Path, arguments: &[&str]) -> Result<Duration, Failure> {
        let mut command = self.command(program, arguments)?;
        let start = Instant::now();
        let output = command.output()?;
        let time = start.elapsed();
        if output.status.success() {
            return Ok(time);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{} {arguments:?}: {}: {said}", program.display(), output.status).into())
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Result<Command, Failure> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null());
        self.network.start_inside(&mut command, Some(self.mounts.as_fd()))?;
        Ok(command)
    }
}

fn id(maker: Maker, number: usize) -> String {
    match maker {
        Maker::Jackfield => format!("ours-{number}"),
        Maker::Script => format!("theirs-{number}"),
    }
}
