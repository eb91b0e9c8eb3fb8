//! An instance that has a network manager: an /etc and leases of its own, so that nothing of it is left on
//! this machine, a DHCP server on an interface's link, and those who talk with it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ipnet::IpNet;
use jackfield_lab::emulator::Subnet;
use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Host, Instance, Lab, Process};

use crate::harness::*;

/// How long one exchange may take on a machine that is busy.
const ANSWER: Duration = Duration::from_secs(3);

/// Whether these programs are here. Where they are not, that fails where nothing may be left out, and
/// is said elsewhere.
pub(crate) fn has_programs(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|path| !Path::new(path).exists()).collect();
    if missing.is_empty() {
        return true;
    }
    not_tested(format!("{missing:?} are not installed"));
    false
}

/// Runs `jackfield`, which must succeed; what it printed.
#[track_caller]
pub(crate) fn succeed_with(host: &Host, config: &ConfigFile, arguments: &[&str]) -> String {
    let output = jackfield_with(host, config, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Everything that iproute2 prints is equal, but who added an address and until when it is valid.
#[track_caller]
pub(crate) fn assert_equal_but_for_addresses(one: &NetworkState, other: &NetworkState) {
    let plain = |state: &NetworkState| -> BTreeSet<String> {
        state.lines().map(without_owner_of_address).collect()
    };
    let (one, other) = (plain(one), plain(other));
    let lost: Vec<_> = one.difference(&other).collect();
    let new: Vec<_> = other.difference(&one).collect();
    assert!(lost.is_empty() && new.is_empty(), "- {lost:#?}\n+ {new:#?}");
}

/// An address with its device and its prefix, of a line of `ip -o address`; every other line as it is,
/// but for the index that a new device has.
fn without_owner_of_address(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["address:", _, device, family @ ("inet" | "inet6"), address, ..] => {
            format!("{device} {family} {address}")
        }
        // The server's broadcast address is nobody's when an address is alone in its prefix.
        ["route", "-4:", "broadcast", address, "dev", device, ..]
            if device != "lo" && device != "eth0" =>
        {
            format!("broadcast {address}")
        }
        _ => line.to_owned(),
    }
}

/// A stage whose instance has files of its own where managers have theirs.
pub(crate) struct Place {
    pub(crate) stage: Stage,
    pub(crate) near: Instance,
}

impl Place {
    pub(crate) fn new() -> Self {
        let stage = Stage::new();
        shell(
            &stage.a,
            "cp -a /etc /run/etc
             mount --bind /run/etc /etc
             rm -rf /etc/network/interfaces.d /etc/systemd/network
             mkdir -p /etc/network/interfaces.d /etc/systemd/network /run/network
             mkdir -p /run/dhcp && mount --bind /run/dhcp /var/lib/dhcp
             echo 'source /etc/network/interfaces.d/*' >/etc/network/interfaces
             echo 'nameserver 192.0.2.53' >/etc/resolv.conf",
        );
        let near = stage.lab.client(&stage.subnets[1]).unwrap();
        Place { stage, near }
    }

    pub(crate) fn a(&self) -> &Instance {
        &self.stage.a
    }

    /// The subnet in which secondaries are plugged in.
    pub(crate) fn subnet(&self) -> &Subnet {
        &self.stage.subnets[1]
    }

    /// What of these directories is there, with what it says.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        let find =
            "find /etc/network /etc/dhcp /etc/systemd/network /etc/resolv.conf /var/lib/dhcp \
                    /run/systemd/network /run/network /run/*.pid -type f ! -name '.*' \
                    ! -name 'ifstate*' 2>/dev/null -exec sha256sum {} + || true
                    cat /run/network/ifstate 2>/dev/null || true";
        shell(self.a(), find).lines().map(str::to_owned).collect()
    }

    /// Everybody talks with these addresses, both ways, by TCP and UDP: a client in their subnet, one in
    /// the primary's, the remote host and the instance itself.
    #[track_caller]
    pub(crate) fn everybody_meets(&self, addresses: &[IpAddr], when: &str) {
        let lab = &self.stage.lab;
        let own = |instance: &Instance| instance.primary().addresses().collect::<Vec<_>>();
        let primary = lab.client(&self.stage.subnets[0]).unwrap();
        let clients: [(&str, &Host, Vec<IpAddr>); 4] = [
            ("a client in the interface's subnet", &self.near, own(&self.near)),
            ("a client in the primary's subnet", &primary, own(&primary)),
            ("the remote host", lab.remote(), vec![Lab::REMOTE_IPV4, Lab::REMOTE_IPV6]),
            ("the instance by its primary address", self.a(), own(self.a())),
        ];
        let _ours = Echo::start(self.a(), addresses).unwrap();
        let mut failed = Vec::new();
        for (name, host, theirs) in &clients {
            let _theirs = Echo::start(host, theirs).unwrap();
            for ours in addresses {
                let theirs = theirs.iter().find(|ip| ip.is_ipv4() == ours.is_ipv4()).unwrap();
                for by in Transport::ALL {
                    if let Err(error) = probe(host, Some(*theirs), Echo::at(*ours), by, ANSWER) {
                        failed.push(format!("{name} {theirs} -> {ours} by {by:?}: {error}\n"));
                    }
                    if let Err(error) = probe(self.a(), Some(*ours), Echo::at(*theirs), by, ANSWER)
                    {
                        failed.push(format!("{ours} -> {name} {theirs} by {by:?}: {error}\n"));
                    }
                }
            }
        }
        assert!(failed.is_empty(), "{when}:\n{}", failed.concat());
        assert_eq!(lab.violations(), [], "{when}");
    }

    /// Waits until nothing is left to do, and one interface is as it shall be.
    #[track_caller]
    pub(crate) fn is_configured(&self, config: &ConfigFile, name: &str) {
        self.is_configured_but_for(config, name, &[]);
    }

    /// As [`Place::is_configured`], with problems of exactly these codes.
    #[track_caller]
    pub(crate) fn is_configured_but_for(&self, config: &ConfigFile, name: &str, codes: &[&str]) {
        let mut last = String::new();
        let mut configured = || {
            let output = jackfield_with(self.a(), config, &["status", "--json", name]);
            last = String::from_utf8(output.stdout).unwrap();
            let status: serde_json::Value = serde_json::from_str(&last).unwrap_or_default();
            let status = &status["interfaces"][0];
            let problems = status["problems"].as_array().cloned().unwrap_or_default();
            let told = problems.iter().filter_map(|problem| problem["code"].as_str());
            status["state"] == "configured" && told.eq(codes.iter().copied())
        };
        let end = std::time::Instant::now() + PATIENCE;
        while !configured() {
            assert!(std::time::Instant::now() < end, "{name} is not configured: {last}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Clients of a test that failed.
        for (pid, _) in of_network(self.a(), "dhclient") {
            let _ = Command::new("kill").arg(pid).output();
        }
    }
}

/// The command lines of a program's processes in a host.
pub(crate) fn processes(host: &Host, program: &str) -> Vec<String> {
    of_network(host, program).into_iter().map(|(_, line)| line).collect()
}

/// The processes of a program whose network is the host's: their IDs and command lines.
fn of_network(host: &Host, program: &str) -> Vec<(String, String)> {
    let network = host.run(|| std::fs::read_link("/proc/thread-self/ns/net")).unwrap().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        // One that has ended meanwhile is none.
        let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let its = std::fs::read_link(entry.path().join("ns/net")).ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let pid = entry.file_name().to_string_lossy().into_owned();
        (comm.trim() == program && its == network).then_some((pid, line))
    });
    processes.collect()
}

/// A DHCP server on the cloud's end of an interface's link, as every subnet of a cloud has one. It sends
/// everything that a server may send, a name of the host but.
pub(crate) struct DhcpServer {
    _process: Process,
    directory: String,
}

impl DhcpServer {
    pub(crate) fn start(place: &Place, interface: &Attached, lease: u32) -> Self {
        let far = place.a().link(&interface.name).unwrap().lower.unwrap();
        let leased = interface.addresses.iter().find(|ip| ip.is_ipv4()).unwrap();
        let mut subnets = place.stage.subnets.iter().filter_map(|subnet| subnet.ipv4);
        let subnet = subnets.find(|subnet| IpNet::from(*subnet).contains(leased)).unwrap();
        let router = subnet.hosts().next().unwrap();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("jackfield-dhcp-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(&directory).unwrap();
        let process = place.stage.lab.with_router(|fabric| {
            let port = fabric.links().unwrap().into_iter().find(|link| link.index == far).unwrap();
            let file = format!("{directory}/{}.conf", port.name);
            let text = format!(
                "interface {}\nstart {leased}\nend {leased}\nmax_leases 1\n\
                 lease_file {directory}/leases\npidfile {directory}/pid\n\
                 static_lease {} {leased}\nmin_lease 2\n\
                 opt lease {lease}\nopt subnet 255.255.255.0\nopt router {router}\n\
                 opt dns 10.0.0.2\nopt domain lab.example\nopt mtu 1400\n",
                port.name, interface.mac
            );
            std::fs::write(&file, text).unwrap();
            std::fs::write(format!("{directory}/leases"), "").unwrap();
            let mut command = fabric.command("/usr/sbin/udhcpd").unwrap();
            command
                .args(["-f", &file])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            Process::start(&mut command).unwrap()
        });
        DhcpServer { _process: process, directory }
    }
}

impl Drop for DhcpServer {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
