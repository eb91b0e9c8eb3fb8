//! The same with a kernel of its own, and interfaces that are plugged in as hardware, at which the defaults of
//! the configuration and of udev's rules look. `cargo test -p jackfield --test installed -- --ignored qemu`

use std::time::{Duration, Instant};

use jackfield_lab::Lab;
use jackfield_lab::probe::{Echo, Transport, probe};

use crate::emulated::Emulated;
use crate::harness::*;
use crate::package::{Mode, Streams, assert_same_lines, packages};

/// How long one exchange may take: one end of it is emulated.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a packet of a stream is sent.
const EVERY: Duration = Duration::from_millis(50);

impl Emulated {
    fn install(&mut self, package: &str) {
        self.shell(&format!(
            "DEBIAN_FRONTEND=noninteractive dpkg --install /var/cache/lab/{package}"
        ));
    }

    /// The lines that a script of the lab prints in it.
    fn lines(&mut self, script: &str) -> Vec<String> {
        let printed = self.shell(&format!("sh /usr/local/lib/lab/{script}"));
        printed.lines().map(str::to_owned).collect()
    }

    /// Waits until an interface is configured without problems, and nothing is left to do.
    #[track_caller]
    fn is_configured(&mut self, interface: &Attached) {
        let name = self.name_of(interface.mac);
        let end = Instant::now() + ANSWER;
        loop {
            let status = self.shell(&format!("jackfield status --json {name}"));
            let it: serde_json::Value = serde_json::from_str(&status).unwrap();
            let it = &it["interfaces"][0];
            if it["state"] == "configured" && it["problems"].as_array().unwrap().is_empty() {
                break;
            }
            assert!(Instant::now() < end, "{name} is not configured: {status}");
        }
        self.eventually("jackfield plan");
    }

    /// The addresses of the primary, and of these.
    fn addresses(&self, interfaces: &[&Attached]) -> Vec<std::net::IpAddr> {
        let primary = self.stage.a.primary().addresses();
        primary.chain(interfaces.iter().flat_map(|it| it.addresses.iter().copied())).collect()
    }

    /// The remote host talks with the primary and with each of these, and they with it, by TCP and UDP.
    #[track_caller]
    fn talks(&mut self, interfaces: &[&Attached]) {
        let there = |ours: &std::net::IpAddr| match ours.is_ipv4() {
            true => Lab::REMOTE_IPV4,
            false => Lab::REMOTE_IPV6,
        };
        let _there =
            Echo::start(self.stage.lab.remote(), &[Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]).unwrap();
        for ours in self.addresses(interfaces) {
            let theirs = there(&ours);
            for by in Transport::ALL {
                // The echo learns of a new address a moment later.
                eventually(&format!("remote -> {ours} by {by:?}"), ANSWER, || {
                    probe(self.stage.lab.remote(), Some(theirs), Echo::at(ours), by, ANSWER).is_ok()
                });
            }
            self.shell(&format!("perl /usr/local/lib/lab/ask.pl {ours} {theirs}"));
        }
        assert_eq!(self.stage.lab.violations(), []);
    }

    /// Starts a stream from the remote host to the primary and each of these.
    fn streams(&self, interfaces: &[&Attached]) -> Streams {
        Streams::start(&self.stage.lab, self.addresses(interfaces), EVERY)
    }

    /// Waits until nothing of ours is in the network.
    fn becomes_bare(&mut self) {
        self.eventually(
            "! { ip -N rule; ip -6 -N rule; ip -N route show table all; ip -6 -N route show table all; } \
             | grep -q 'proto 106' && ! ip link | grep -q jackfield:",
        );
    }
}

#[test]
#[ignore = "long: boots Debian in QEMU"]
fn qemu_from_installation_to_purge() {
    let Some([newer, package]) = packages() else { return };
    let start = Instant::now();
    let told = |what: &str| eprintln!("{:6.1} s: {what}", start.elapsed().as_secs_f32());
    let files = [("/var/cache/lab/it.deb", package), ("/var/cache/lab/newer.deb", newer)];
    let Some(mut machine) = Emulated::boot(&files) else { return };
    told(&format!("booted {}", machine.shell("uname -rv")));
    let files = machine.lines("files.sh");
    let network = machine.lines("network.sh");
    machine.talks(&[]);

    let streams = machine.streams(&[]);
    machine.install("it.deb");
    machine.shell("systemctl is-active jackfield");
    streams.lose_nothing();
    assert_same_lines(&network, &machine.lines("network.sh"), "network");
    told("installed");

    let streams = machine.streams(&[]);
    let one = machine.attach(1);
    machine.is_configured(&one);
    streams.lose_nothing();
    machine.talks(&[&one]);
    told("plugged in");

    let before = machine.lines("network.sh");
    let agent = machine.shell("systemctl show --property MainPID --value jackfield");
    let streams = machine.streams(&[&one]);
    machine.install("newer.deb");
    machine.eventually("jackfield plan");
    streams.lose_nothing();
    assert_ne!(machine.shell("systemctl show --property MainPID --value jackfield"), agent);
    assert_same_lines(&before, &machine.lines("network.sh"), "network");
    told("upgraded");

    machine.reboot();
    machine.is_configured(&one);
    machine.talks(&[&one]);
    told("rebooted");

    // The kernel kills it.
    let streams = machine.streams(&[&one]);
    machine.shell(
        "systemctl set-property --runtime jackfield MemoryMax=16K; \
         until journalctl -b -u jackfield | grep -q 'killed by the OOM killer'; do :; done; \
         systemctl set-property --runtime jackfield MemoryMax=infinity",
    );
    machine.eventually("systemctl is-active jackfield && jackfield plan");
    streams.lose_nothing();
    told("killed for its memory, and back");

    let streams = machine.streams(&[]);
    machine.detach(&one);
    machine.becomes_bare();
    streams.lose_nothing();
    told("unplugged");

    // Without an agent.
    let unit = Mode::Udev.unit();
    machine.shell(&format!("systemctl disable --now jackfield && systemctl enable --now {unit}"));
    let two = machine.attach(1);
    machine.is_configured(&two);
    machine.talks(&[&two]);
    machine.detach(&two);
    machine.becomes_bare();
    told("plugged in and unplugged without an agent");

    machine.shell("dpkg --purge jackfield");
    assert_same_lines(&files, &machine.lines("files.sh"), "files");
    assert_same_lines(&network, &machine.lines("network.sh"), "network");
    machine.talks(&[]);
    told("purged");
}
