//! A disk with Debian on it: what `scripts/debian-root` made, under a layer in memory that takes all that
//! is written.
//!
//! A process of its own holds it, so that it stays while the machine is off, and goes with the test
//! whichever way that ends.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use jackfield_lab::{Instance, Process};

use crate::harness::not_tested;

/// The holder has the root file system `$1`, under its layer, as /run/root.
const HOLD: &str = r#"
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/upper /run/work /run/root
    mount -t overlay -o "lowerdir=$1,upperdir=/run/upper,workdir=/run/work" overlay /run/root
    echo held
    exec sleep infinity
"#;

/// A disk. Dropped, what was written is gone.
pub(crate) struct Disk {
    holder: Process,
}

impl Disk {
    /// A disk with the root file system of this name; `None`, which is said, where there is none and
    /// nobody insists.
    pub(crate) fn new(name: &str) -> Option<Self> {
        let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/debian"));
        let root = root.join(name);
        if !root.join("usr/lib/systemd/systemd").exists() {
            let root = root.display();
            not_tested(format!("there is no Debian in {root}: run scripts/debian-root {name}"));
            return None;
        }
        let mut hold = Command::new("setpriv");
        hold.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", HOLD, "sh"]);
        let (holder, said) = start(hold.arg(root.canonicalize().unwrap()));
        assert_eq!(said, "held");
        Some(Disk { holder })
    }

    /// The process that holds it.
    pub(crate) fn holder(&self) -> u32 {
        self.holder.id()
    }

    /// A file on it, by its path there.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root/run/root", self.holder()));
        root.join(path.trim_start_matches('/'))
    }

    /// Writes a file on it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let file = self.file(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    /// Runs a script where the disk is, as /run/root; what it printed.
    pub(crate) fn run(&self, script: &str, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder()));
        command.args(["sh", "-ec", script, "sh"]).args(arguments).stdin(Stdio::null());
        let Output { status, stdout, stderr } = command.output().unwrap();
        if status.success() {
            return Ok(String::from_utf8(stdout).unwrap());
        }
        Err(String::from_utf8_lossy(&stderr).trim().to_owned())
    }

    /// What the image of a cloud has besides its packages: a name, and a primary that is configured.
    pub(crate) fn prepare(&self, a: &Instance) {
        self.write("/etc/machine-id", "6a61636b6669656c64206c6162000001\n");
        self.write("/etc/hostname", "lab\n");
        let primary = a.primary();
        let mut network = format!("[Match]\nMACAddress={}\n", primary.mac);
        network += "[Network]\nIPv6AcceptRA=no\n";
        for address in primary.addresses() {
            let (length, gateway) = match address.is_ipv4() {
                true => (24, "10.0.1.1"),
                false => (64, "fe80:ec2::1"),
            };
            network += &format!("Address={address}/{length}\nGateway={gateway}\n");
        }
        self.write("/etc/systemd/network/10-primary.network", &network);
        self.want("/lib/systemd/system/systemd-networkd.service");
    }

    /// Has a unit started at boot.
    pub(crate) fn want(&self, unit: &str) {
        let wants = self.file("/etc/systemd/system/multi-user.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        let (_, name) = unit.rsplit_once('/').unwrap();
        std::os::unix::fs::symlink(unit, wants.join(name)).unwrap();
    }
}

/// Starts a command; it, and the first line that it says.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> (Process, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(command).unwrap();
    let mut said = String::new();
    BufReader::new(process.child().stdout.take().unwrap()).read_line(&mut said).unwrap();
    if said.is_empty() {
        let mut why = String::new();
        process.child().stderr.take().unwrap().read_to_string(&mut why).unwrap();
        panic!("no machine: {why}");
    }
    (process, said.trim().to_owned())
}
