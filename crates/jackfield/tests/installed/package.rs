//! The Debian package, and machines that have it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use jackfield_lab::Lab;
use jackfield_lab::probe::{Echo, PacketStream, StreamReport, Transport, probe};
use serde_json::Value;

use crate::harness::*;
use crate::machine::Machine;

/// How long one exchange may take on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(3);
/// How often a packet of a stream is sent.
const EVERY: Duration = Duration::from_millis(2);
/// What the newer package is called.
const NEWER: &str = "99.0-1";

/// Who plugs on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The agent, as the package is installed.
    Agent,
    /// Units that udev starts, and one at boot.
    Udev,
}

impl Mode {
    /// Its unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Mode::Agent => "jackfield.service",
            Mode::Udev => "jackfield-scan.service",
        }
    }
}

/// The package that `scripts/package` made, or that `JACKFIELD_PACKAGE` names. `None`, which is said,
/// where there is none and nobody insists.
fn package() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("JACKFIELD_PACKAGE") {
        return Some(named.into());
    }
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/package");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut packages = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let found = packages.next();
    if found.is_none() {
        not_tested(format!("there is no package in {directory}: run scripts/package"));
    }
    found
}

/// The package, and the same with a higher version.
pub(crate) fn packages() -> Option<&'static [PathBuf; 2]> {
    static BOTH: OnceLock<Option<[PathBuf; 2]>> = OnceLock::new();
    BOTH.get_or_init(|| package().map(|package| [newer(&package), package])).as_ref()
}

/// Packs a package again as a newer one, beside the tests.
fn newer(package: &PathBuf) -> PathBuf {
    let to = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/newer.deb"));
    let script = r#"
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        dpkg-deb --raw-extract "$1" "$work/it"
        sed -i "s/^Version: .*/Version: $3/" "$work/it/DEBIAN/control"
        dpkg-deb --root-owner-group -Znone --build "$work/it" "$work/newer.deb"
        mv "$work/newer.deb" "$2""#;
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).arg(package).arg(&to).arg(NEWER);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    to
}

/// The streams that run while something is done.
pub(crate) struct Streams {
    streams: Vec<(IpAddr, PacketStream)>,
    /// Where the lab answers.
    _echo: Option<Echo>,
}

impl Streams {
    /// Starts a stream from the remote host to each address, where somebody answers.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, addresses: Vec<IpAddr>, every: Duration) -> Self {
        let start =
            |address| (address, PacketStream::start(lab.remote(), None, address, every).unwrap());
        Streams { streams: addresses.into_iter().map(start).collect(), _echo: None }
    }

    /// Each packet of these has an answer.
    #[track_caller]
    pub(crate) fn lose_nothing(self) {
        for (address, stream) in self.streams {
            let StreamReport { sent, lost, longest_silence } = stream.finish();
            assert!(sent > 10, "{address}: {sent} packets");
            let lost: Vec<_> = lost.into_iter().collect();
            assert!(lost.is_empty(), "{address}: {lost:?} of {sent} lost, {longest_silence:?}");
        }
    }
}

impl Machine {
    /// Installs the package as an operator does, in a mode, with the lab's devices in the
    /// configuration.
    #[track_caller]
    pub(crate) fn install(&self, mode: Mode) {
        let [_, package] = packages().unwrap();
        self.dpkg(package);
        self.is_active("jackfield");
        self.disk().write("/etc/jackfield/config.toml", LAB_CONFIG);
        match mode {
            Mode::Agent => self.shell("systemctl restart jackfield"),
            Mode::Udev => self
                .shell("systemctl disable --now jackfield; systemctl enable --now jackfield-scan"),
        };
        self.is_active(mode.unit());
    }

    /// A unit is active.
    #[track_caller]
    pub(crate) fn is_active(&self, unit: &str) {
        let state = self.shell(&format!("systemctl is-active {unit} || true"));
        let status = || self.shell(&format!("systemctl status --lines 50 --full {unit} || true"));
        assert_eq!(state, "active", "{}", status());
    }

    /// Installs the newer package over the one that is there.
    #[track_caller]
    pub(crate) fn upgrade(&self) {
        let [newer, _] = packages().unwrap();
        self.dpkg(newer);
        assert_eq!(self.shell("dpkg-query --show --showformat='${Version}' jackfield"), NEWER);
    }

    #[track_caller]
    fn dpkg(&self, package: &PathBuf) {
        std::fs::create_dir_all(self.disk().file("/var/cache/lab")).unwrap();
        std::fs::copy(package, self.disk().file("/var/cache/lab/it.deb")).unwrap();
        self.shell("DEBIAN_FRONTEND=noninteractive dpkg --install /var/cache/lab/it.deb");
    }

    /// Every file on its disk, and what else a package leaves.
    pub(crate) fn files(&self) -> Vec<String> {
        let text = self.shell(include_str!("guest/files.sh"));
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Everything of its network: besides what a plug could touch, tables of nftables and settings.
    pub(crate) fn network(&self) -> Vec<String> {
        let state = NetworkState::settled(self.a());
        // The other end of the primary's link is another one after a power cycle.
        let plain = |line: &str| match (line.find("eth0@if"), line.find(": <")) {
            (Some(from), Some(to)) => format!("{}{}", &line[..from + 4], &line[to..]),
            _ => line.to_owned(),
        };
        // Without what the kernel counts.
        let more = self.shell(
            "nft list ruleset; sysctl --all --pattern '^net' 2>/dev/null | grep -v '_conntrack_count'",
        );
        state.lines().map(plain).chain(more.lines().map(str::to_owned)).collect()
    }

    /// `jackfield status --json` in it.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.shell("jackfield status --json")).unwrap()
    }

    /// Makes an interface with two addresses of each family in subnet 2, and plugs it in.
    pub(crate) fn attach(&self, device: u32) -> Attached {
        self.stage.attach(2, device, 2)
    }

    /// Waits until an interface is configured without problems, and nothing is left to do.
    #[track_caller]
    pub(crate) fn is_configured(&self, interface: &Attached) -> Duration {
        let took = configured_within(self.a(), interface, PATIENCE);
        let mut last = Value::Null;
        let mut configured = || {
            last = self.status();
            let mut all = last["interfaces"].as_array().unwrap().iter();
            all.any(|it| {
                it["name"] == *interface.name
                    && it["state"] == "configured"
                    && it["problems"].as_array().unwrap().is_empty()
            })
        };
        let end = std::time::Instant::now() + PATIENCE;
        while !configured() {
            assert!(
                std::time::Instant::now() < end,
                "{} is not configured: {last:#}",
                interface.name
            );
        }
        eventually("nothing is left to do", PATIENCE, || {
            self.command("jackfield").arg("plan").output().unwrap().status.success()
        });
        took
    }

    /// The addresses of the primary, and of these.
    pub(crate) fn addresses(&self, interfaces: &[&Attached]) -> Vec<IpAddr> {
        let primary = self.a().primary().addresses();
        primary.chain(interfaces.iter().flat_map(|it| it.addresses.iter().copied())).collect()
    }

    /// The remote host talks with the primary and with each of these, and they with it, by TCP and UDP.
    #[track_caller]
    pub(crate) fn talks(&self, interfaces: &[&Attached]) {
        let ours = self.addresses(interfaces);
        let remote = self.stage.lab.remote();
        let _here = Echo::start(self.a(), &ours).unwrap();
        let _there = Echo::start(remote, &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]).unwrap();
        let mut failed = String::new();
        for address in &ours {
            let there = if address.is_ipv4() { Lab::REMOTE_IPV4 } else { Lab::REMOTE_IPV6 };
            for by in Transport::ALL {
                if let Err(error) = probe(remote, Some(there), Echo::at(*address), by, ANSWER) {
                    failed += &format!("remote -> {address} by {by:?}: {error}\n");
                }
                if let Err(error) = probe(self.a(), Some(*address), Echo::at(there), by, ANSWER) {
                    failed += &format!("{address} -> remote by {by:?}: {error}\n");
                }
            }
        }
        assert!(failed.is_empty(), "{failed}{:?}", NetworkState::of(self.a()));
        assert_eq!(self.stage.lab.violations(), []);
    }

    /// Starts a stream from the remote host to the primary and each of these, which answer.
    #[track_caller]
    pub(crate) fn streams(&self, interfaces: &[&Attached]) -> Streams {
        let addresses = self.addresses(interfaces);
        let echo = Echo::start(self.a(), &addresses).unwrap();
        Streams { _echo: Some(echo), ..Streams::start(&self.stage.lab, addresses, EVERY) }
    }

    /// The process of a unit, 0 where there is none.
    pub(crate) fn main_process(&self, unit: &str) -> u32 {
        self.shell(&format!("systemctl show --property MainPID --value {unit}")).parse().unwrap()
    }
}

/// Two lists are the same, but for their order.
#[track_caller]
pub(crate) fn assert_same_lines(before: &[String], after: &[String], what: &str) {
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(lost.is_empty() && new.is_empty(), "{what}:\n- {lost:#?}\n+ {new:#?}");
}
