//! Docker and Podman, with one container that answers on a published port.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use jackfield_lab::Host;
use jackfield_lab::probe::{Echo, Transport};

use crate::enclosure::{Enclosure, succeeded};
use crate::harness::{PATIENCE, eventually, not_tested};

/// Which engine, and how it does what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With docker-proxy, or by packet filter rules alone; containers with IPv6 addresses, or as it
    /// comes, without.
    Docker { proxy: bool, ipv6: bool },
    /// With the network made by `netavark`, or by CNI plugins (`cni`).
    Podman { network: &'static str },
}

impl Kind {
    /// It is installed, with what the tests need besides. In CI it must be.
    pub(crate) fn is_installed(self) -> bool {
        let compiler = ("/usr/bin/cc", "gcc");
        let filter = ("/usr/sbin/iptables", "iptables");
        let needed = match self {
            Kind::Docker { .. } => [compiler, filter, ("/usr/sbin/dockerd", "docker.io")].to_vec(),
            Kind::Podman { network } => {
                let plugins = match network {
                    "cni" => ("/usr/lib/cni/portmap", "containernetworking-plugins"),
                    _ => ("/usr/lib/podman/netavark", "netavark"),
                };
                [compiler, filter, plugins, ("/usr/bin/podman", "podman")].to_vec()
            }
        };
        let missing = needed.into_iter().find(|(file, _)| !Path::new(file).exists());
        let Some((file, package)) = missing else { return true };
        not_tested(format!("{file} is missing: install the Debian package {package}"));
        false
    }

    /// By the host's address and the published port: not in networks of netavark 1.4.
    pub(crate) fn lets_a_container_reach_itself(self) -> bool {
        self != Kind::Podman { network: "netavark" }
    }
}

/// Everything of the engine's is below this directory, which goes with its enclosure.
const DOCKER: [&str; 2] = ["--host", "unix:///run/docker.sock"];
const DOCKERD: &str = "dockerd --host unix:///run/docker.sock --pidfile /run/docker.pid \
    --data-root /run/docker-data --exec-root /run/docker --storage-driver vfs";
const DOCKERD_IPV6: &str = "--experimental --ipv6 --fixed-cidr-v6 fd17::/64 --ip6tables";
/// With the runtime that Docker has: crun wants to raise limits, which not every root may.
pub(crate) const PODMAN: [&str; 12] = [
    "--root",
    "/run/podman-data",
    "--runroot",
    "/run/podman",
    "--storage-driver",
    "vfs",
    "--cgroup-manager",
    "cgroupfs",
    "--events-backend",
    "file",
    "--runtime",
    "runc",
];

/// The networks of the containers of Podman.
pub(crate) const PODMAN_NETWORKS: [&str; 2] = ["10.87.0.0/24", "fd87::/64"];

/// The name of the container and of its image.
const NAME: &str = "answer";

/// An engine that runs. Dropped, it is killed with all its containers.
pub(crate) struct Engine<'a> {
    kind: Kind,
    enclosure: Enclosure<'a>,
}

impl<'a> Engine<'a> {
    /// Starts it in an instance, with the image and nothing that runs.
    pub(crate) fn start(host: &'a Host, kind: Kind) -> Self {
        let engine = Engine { kind, enclosure: Enclosure::new(host) };
        match kind {
            Kind::Docker { proxy, ipv6 } => engine.start_daemon(proxy, ipv6),
            Kind::Podman { network } => {
                // Not every machine has the control group's pids controller.
                let configuration = format!(
                    "[containers]\npids_limit = 0\n[network]\nnetwork_backend = \"{network}\"\n"
                );
                engine.enclosure.shell(&format!("echo '{configuration}' >/run/containers.conf"));
                let [four, six] = PODMAN_NETWORKS;
                let create = ["network", "create", "--ipv6", "--disable-dns"];
                let subnets = ["--subnet", four, "--subnet", six];
                let arguments = [&create[..], &subnets[..], &[NAME]].concat();
                succeeded(engine.command().args(arguments));
            }
        }
        let mut import = engine.command();
        import.args(["import", "-", NAME]).stdin(Stdio::from(image()));
        succeeded(&mut import);
        engine
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Runs the container, its port published by TCP and UDP, on all addresses.
    pub(crate) fn publish(&self) {
        let mut command = self.command();
        command.args(["run", "--detach", "--restart", "always", "--name", NAME]);
        let port = Echo::PORT;
        command.args(["--publish", &format!("{port}:{port}/tcp")]);
        command.args(["--publish", &format!("{port}:{port}/udp")]);
        if let Kind::Podman { .. } = self.kind {
            command.args(["--network", NAME]);
        }
        succeeded(command.args([NAME, "/answer"]));
        self.wait_for_container();
    }

    /// Removes the container.
    pub(crate) fn unpublish(&self) {
        succeeded(self.command().args(["rm", "--force", NAME]));
    }

    /// Stops the engine and starts it again, its container with it. Podman has nothing that runs
    /// but the container.
    pub(crate) fn restart(&self) {
        match self.kind {
            Kind::Docker { proxy, ipv6 } => {
                let pid = self.enclosure.shell("cat /run/docker.pid");
                self.enclosure.shell(&format!("kill {pid}"));
                let gone = format!("[ -e /proc/{} ] || echo gone", pid.trim());
                eventually("dockerd has ended", PATIENCE, || {
                    !self.enclosure.shell(&gone).is_empty()
                });
                self.start_daemon(proxy, ipv6);
            }
            Kind::Podman { .. } => {
                succeeded(self.command().args(["stop", NAME]));
                succeeded(self.command().args(["start", NAME]));
            }
        }
        self.wait_for_container();
    }

    /// The container asks these by connections of its own, one after another.
    pub(crate) fn asks(&self, all: &[IpAddr], transport: Transport) -> Result<(), String> {
        let transport = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let mut command = self.command();
        command.args(["exec", NAME, "/answer", transport]).args(all.iter().map(IpAddr::to_string));
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let failed = || format!("by {transport}: {}: {}", output.status, errors.trim());
        output.status.success().then_some(()).ok_or_else(failed)
    }

    /// Kills it, and looks that nothing is left.
    pub(crate) fn close(self) {
        self.enclosure.close();
    }

    fn command(&self) -> Command {
        match self.kind {
            Kind::Docker { .. } => {
                let mut command = self.enclosure.command("docker");
                command.args(DOCKER);
                command
            }
            Kind::Podman { .. } => {
                let mut command = self.enclosure.command("podman");
                command.args(PODMAN).env("CONTAINERS_CONF", "/run/containers.conf");
                command
            }
        }
    }

    fn start_daemon(&self, proxy: bool, ipv6: bool) {
        let ipv6 = if ipv6 { DOCKERD_IPV6 } else { "" };
        let start = format!("{DOCKERD} {ipv6} --userland-proxy={proxy} >>/run/dockerd.log 2>&1 &");
        self.enclosure.shell(&start);
        let runs = || self.command().arg("version").output().unwrap().status.success();
        let end = std::time::Instant::now() + PATIENCE;
        while !runs() {
            let log = self.enclosure.shell("tail -n 20 /run/dockerd.log");
            assert!(std::time::Instant::now() < end, "dockerd does not run: {log}");
        }
    }

    fn wait_for_container(&self) {
        let itself = [IpAddr::from([127, 0, 0, 1])];
        eventually("the container runs", PATIENCE, || self.asks(&itself, Transport::Tcp).is_ok());
    }
}

/// An archive of the image: one static program.
fn image() -> std::fs::File {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let directory = target.join(format!("answer-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let program = directory.join("answer");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/containers/answer.c");
        succeeded(Command::new("cc").args(["-static", "-O1", "-o"]).arg(&program).arg(source));
        let made = directory.join("answer.tar");
        succeeded(Command::new("tar").current_dir(&directory).args([
            "-cf",
            "answer.tar",
            "answer",
        ]));
        // Another process of these tests has the same one.
        let archive = target.join("answer.tar");
        std::fs::rename(made, &archive).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        archive
    });
    std::fs::File::open(image).unwrap()
}
