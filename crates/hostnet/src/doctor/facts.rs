//! What there is to judge. Everything here only looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jackfield_kernel::sysctl::{self, Setting};
use jackfield_kernel::{Family, Nftables, Route, RouteFilter, Rtnetlink};
use jackfield_metadata::{Client, ClientOptions, Error as MetadataError, MacAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::json;

use super::firewall::{self, MarkUse};
use super::user::User;
use crate::agent;
use crate::api::client::AgentClient;
use crate::change::Change;
use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::desired::{DesiredInterface, Role, Scope};
use crate::hooks::Programs;
use crate::managers::{find_program, program_path};
use crate::neighbours::{self, Presence};
use crate::once::{OnceError, Session};
use crate::snapshot::{MAIN, OURS, Snapshot};
use crate::status::{AgentStatus, InterfaceStatus, Status, status};

/// How long an endpoint of the metadata service may take.
const METADATA: Duration = Duration::from_secs(2);
/// How long the agent may take.
const AGENT: Duration = Duration::from_secs(2);
/// How long a program may take that tells what firewalls and systemd say.
const PROGRAM: Duration = Duration::from_secs(3);
/// More of what one says is not read.
const LONGEST: u64 = 4 << 20;
/// `CAP_NET_ADMIN`, as a bit of what /proc says.
const NET_ADMIN: u64 = 1 << 12;
/// How far above the base tables of interfaces can be: cards and devices.
pub(super) const TABLES: u32 = 3_200;

pub(super) const ARP_IGNORE: Setting = Setting { family: Family::V4, name: "arp_ignore" };
pub(super) const ACCEPT_RA: Setting = Setting { family: Family::V6, name: "accept_ra" };
pub(super) const FORWARDING6: Setting = Setting { family: Family::V6, name: "forwarding" };
pub(super) const RP_FILTER: Setting = crate::snapshot::REVERSE_PATH_FILTER;

/// The units of the two modes: with an agent, and without.
pub(super) const AGENT_UNIT: &str = "jackfield.service";
pub(super) const SCAN_UNIT: &str = "jackfield-scan.service";

/// What is to be installed beside other managers, where it may be, and what stands in it.
const INSTALLED: [(&str, [&str; 3], &str); 2] = [
    (
        "86-jackfield.rules",
        ["/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"],
        include_str!("../../../../packaging/udev/86-jackfield.rules"),
    ),
    (
        "50-jackfield.conf",
        [
            "/etc/systemd/networkd.conf.d",
            "/usr/lib/systemd/networkd.conf.d",
            "/lib/systemd/networkd.conf.d",
        ],
        include_str!("../../../../packaging/networkd/50-jackfield.conf"),
    ),
];
/// What ubuntu-ec2net's scripts leave.
const UBUNTU_EC2NET: [&str; 2] =
    ["/etc/network/ec2net.hotplug", "/etc/udev/rules.d/53-ec2-network-interfaces.rules"];

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigurationFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is there.
    pub there: bool,
    /// Why it is not in force.
    pub error: Option<String>,
}

/// An endpoint of the metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFacts {
    /// Its URL.
    pub url: String,
    /// The instance's MAC, as it told it.
    pub answer: Result<MacAddr, MetadataError>,
    /// How long that took.
    pub took: Duration,
    /// How many requests that took. Two do: one for a token, one for an answer.
    pub requests: u64,
}

/// A file that comes with jackfield, to be installed where another manager reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name.
    pub name: &'static str,
    /// Where it was found.
    pub path: Option<String>,
    /// Whether it is the one of this version.
    pub same: bool,
}

/// A unit of systemd's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `UnitFileState`: `enabled`, `disabled`, `masked`…; empty where there is no such unit.
    pub enabled: String,
    /// `ActiveState`: `active`, `inactive`, `failed`…
    pub active: String,
    /// `User`; empty where there is none.
    pub user: String,
    /// `SupplementaryGroups`: names or numbers, by spaces.
    pub groups: String,
}

/// Everything that is judged.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The kernel's release.
    pub release: String,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Whether it has nf_tables; `None` where that was not looked at, since a look loads modules.
    pub nf_tables: Option<bool>,
    /// Whether this process may look at everything.
    pub privileged: bool,
    /// The file, and what stands in it, or the defaults.
    pub file: ConfigurationFile,
    /// What is in force.
    pub config: Config,
    /// Programs that are run; `None` where there is no directory of them.
    pub hooks: Option<Programs>,
    /// The metadata service.
    pub endpoints: Vec<EndpointFacts>,
    /// The MACs that it lists.
    pub listed: Option<BTreeSet<MacAddr>>,
    /// What the machine is like.
    pub snapshot: Snapshot,
    /// What each interface shall be.
    pub interfaces: Vec<DesiredInterface>,
    /// What is to be changed.
    pub changes: Vec<Change>,
    /// What there is to say of each interface.
    pub status: Vec<InterfaceStatus>,
    /// Other managers.
    pub neighbours: Vec<Presence>,
    /// Who deletes what is not his own, what he deletes, and how that is cured.
    pub deleter: Option<(String, String)>,
    /// Files of scripts that jackfield takes the place of.
    pub predecessors: Vec<String>,
    /// What comes with jackfield.
    pub installed: Vec<Installed>,
    /// Settings of interfaces.
    pub settings: BTreeMap<(u32, Setting), i32>,
    /// Settings of all interfaces together.
    pub of_all: BTreeMap<Setting, i32>,
    /// Routes of others in tables that can be an interface's, and default routes of others in any.
    pub routes_of_others: Vec<Route>,
    /// What firewalls do with marks; `None` where that could not be read.
    pub firewall: Option<Vec<MarkUse>>,
    /// Whether an agent runs in this network namespace.
    pub agent_runs: bool,
    /// Its process, where that is in our process namespace.
    pub agent_process: Option<u32>,
    /// What it says of itself, where it answers.
    pub agent: Option<AgentStatus>,
    /// The units, where systemd runs.
    pub units: Option<Vec<Unit>>,
}

impl Facts {
    /// Looks, in the network namespace of the calling thread. `config` was read from `file`, or from
    /// the default one.
    ///
    /// # Errors
    /// Where the kernel cannot be talked to.
    pub fn read(
        config: Result<Config, ConfigError>,
        file: Option<&Path>,
        options: &ClientOptions,
    ) -> Result<Self, OnceError> {
        let path = file.unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
        let there = path.exists();
        let (config, error) = match config {
            Ok(config) => (config, None),
            Err(error) => (Config::default(), Some(error.to_string())),
        };
        let mut facts = Facts {
            release: line("/proc/sys/kernel/osrelease").unwrap_or_default(),
            ipv6: Path::new("/proc/sys/net/ipv6").exists(),
            privileged: is_privileged(),
            file: ConfigurationFile { path, there, error },
            config: config.clone(),
            agent_runs: agent::is_running(),
            ..Facts::default()
        };
        facts.ask_metadata(options);
        facts.look(config, options)?;
        facts.look_further()?;
        facts.look_at_hooks();
        Ok(facts)
    }

    fn ask_metadata(&mut self, options: &ClientOptions) {
        for endpoint in &options.endpoints {
            let only = ClientOptions { endpoints: vec![endpoint.clone()], ..options.clone() };
            let client = Client::new(only);
            let began = Instant::now();
            let answer = client.primary(began + METADATA);
            let (took, requests) = (began.elapsed(), client.requests());
            if answer.is_ok() && self.listed.is_none() {
                self.listed = client.listed(Instant::now() + METADATA).ok();
            }
            let url = endpoint.to_string();
            self.endpoints.push(EndpointFacts { url, answer, took, requests });
        }
    }

    /// Looks at the machine as every command does.
    fn look(&mut self, config: Config, options: &ClientOptions) -> Result<(), OnceError> {
        let mut session = Session::open(config, options.clone())?;
        let answered = self.endpoints.iter().any(|endpoint| endpoint.answer.is_ok());
        // Who does not answer is not asked once more.
        let heard = match answered {
            true => session.crawl(Instant::now() + METADATA)?,
            false => Ok(()),
        };
        let view = session.view(&Scope::Everything)?;
        // What it leaves alone only the agent knows.
        let (process, told) = ask_agent();
        self.agent_process = process;
        let told = told.unwrap_or_else(|| {
            status(session.machine(), &view, heard.as_ref().err(), Instant::now())
        });
        self.agent = told.agent;
        self.status = told.interfaces;
        self.neighbours = told.neighbours;
        self.deleter =
            neighbours::deleter(&view.snapshot).map(|(_, text, cure)| (text, cure.to_owned()));
        self.interfaces = view.desired.interfaces;
        self.changes = view.plan.changes;
        self.snapshot = view.snapshot;
        Ok(())
    }

    /// Looks at what only matters here.
    fn look_further(&mut self) -> Result<(), OnceError> {
        let wanted = [RP_FILTER, ARP_IGNORE, ACCEPT_RA, FORWARDING6];
        for candidate in self.snapshot.candidates() {
            let link = candidate.link;
            let values = sysctl::read(link.index, &link.name, &wanted)?;
            self.settings.extend(values.into_iter().map(|(is, value)| ((link.index, is), value)));
        }
        let of_all = wanted.into_iter().filter_map(|is| Some((is, sysctl::read_of_all(is)?)));
        self.of_all = of_all.collect();
        let base = self.config.agent.table_base;
        let matters = |route: &Route| {
            let in_range =
                (base.saturating_sub(1)..base.saturating_add(TABLES)).contains(&route.table);
            let leads_out = route.destination.prefix_len() == 0 && route.table != MAIN;
            route.protocol != OURS && (in_range || leads_out)
        };
        let mut kernel = Rtnetlink::open()?;
        for family in Family::BOTH {
            if family == Family::V4 || self.ipv6 {
                let routes =
                    Route::list_where(&mut kernel, family, RouteFilter::default(), matters)?;
                self.routes_of_others.extend(routes);
            }
        }
        // A look at nf_tables loads modules: only where packets are forwarded it was looked at anyway.
        if self.snapshot.forwarding.on {
            self.nf_tables = Some(Nftables::open()?.is_some());
            self.firewall = self.privileged.then(firewall_marks).flatten();
        }
        self.predecessors = UBUNTU_EC2NET
            .into_iter()
            .filter(|it| does_something(Path::new(it)))
            .map(Into::into)
            .collect();
        self.installed = INSTALLED
            .iter()
            .map(|(name, places, text)| {
                let found = places.iter().map(|place| format!("{place}/{name}"));
                let found =
                    found.filter_map(|path| Some((fs::read_to_string(&path).ok()?, path))).next();
                Installed {
                    name,
                    same: found.as_ref().is_some_and(|(is, _)| is == text),
                    path: found.map(|(_, path)| path),
                }
            })
            .collect();
        // As sd_booted(3) tells.
        if Path::new("/run/systemd/system").is_dir() {
            let properties = "Id,UnitFileState,ActiveState,User,SupplementaryGroups";
            let shown = ["show", "-p", properties, AGENT_UNIT, SCAN_UNIT];
            self.units = output("systemctl", &shown).map(|text| units(&text));
        }
        Ok(())
    }

    /// As who runs them.
    fn look_at_hooks(&mut self) {
        let directory = &self.config.hooks.directory;
        if directory.exists() {
            let user =
                User::of_hooks(self.agent_process, self.units.as_deref().unwrap_or_default());
            self.hooks = Some(user.programs(directory));
        }
    }

    /// The interfaces that are plugged.
    pub(super) fn plugged(&self) -> impl Iterator<Item = &DesiredInterface> {
        self.interfaces.iter().filter(|is| matches!(is.role, Role::Plugged | Role::Held))
    }

    /// The instance's own interface, once known.
    pub(super) fn primary(&self) -> Option<&DesiredInterface> {
        self.interfaces.iter().find(|is| is.role == Role::Primary)
    }

    /// A setting of an interface, of which the larger counts, its own or that of all together.
    pub(super) fn larger(&self, interface: u32, setting: Setting) -> Option<i32> {
        let own = self.settings.get(&(interface, setting)).copied()?;
        Some(own.max(self.of_all.get(&setting).copied().unwrap_or(0)))
    }
}

/// The agent of this network namespace, and what it says, where it answers.
fn ask_agent() -> (Option<u32>, Option<Status>) {
    let Ok(mut agent) = AgentClient::connect(AGENT) else { return (None, None) };
    let told = agent.call("Status", &json!({ "interfaces": [] })).ok();
    (agent.pid(), told.and_then(|told| serde_json::from_value(told).ok()))
}

/// Whether a file is there, and not a link to /dev/null, which says that nothing is to be there.
fn does_something(path: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|file| file != Path::new("/dev/null"))
}

/// The units that `systemctl show` tells of: lines of `Key=value`, an empty one between units.
fn units(text: &str) -> Vec<Unit> {
    let unit = |block: &str| {
        let value = |key: &str| {
            let lines = block.lines().filter_map(|line| line.split_once('='));
            lines.filter(|(is, _)| *is == key).map(|(_, value)| value.to_owned()).next()
        };
        let given = |key: &str| value(key).unwrap_or_default();
        Some(Unit {
            name: value("Id")?,
            enabled: given("UnitFileState"),
            active: given("ActiveState"),
            user: given("User"),
            groups: given("SupplementaryGroups"),
        })
    };
    text.split("\n\n").filter_map(unit).collect()
}

fn line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn is_privileged() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & NET_ADMIN != 0)
}

/// What nftables and both kinds of iptables say of marks; `None` where none of them can be asked.
fn firewall_marks() -> Option<Vec<MarkUse>> {
    let mut marks = output("nft", &["list", "ruleset"]).map(|text| firewall::of_nft(&text));
    for names in ["ip", "ip6"] {
        // The older ones make their tables by being asked for them.
        let tables = line(&format!("/proc/thread-self/net/{names}_tables_names"));
        let legacy = tables.is_some_and(|tables| !tables.is_empty());
        let asked = [("tables-nft-save", true), ("tables-legacy-save", legacy)];
        for (program, _) in asked.iter().filter(|(_, there)| *there) {
            if let Some(text) = output(&format!("{names}{program}"), &[]) {
                marks.get_or_insert_default().extend(firewall::of_iptables(&text));
            }
        }
    }
    marks
}

/// What a program prints; `None` where it is not there, fails or takes too long.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let path = find_program(program)?;
    let mut said = File::from(rustix::fs::memfd_create(program, MemfdFlags::CLOEXEC).ok()?);
    let mut command = Command::new(path);
    command.args(arguments).env("PATH", program_path()).env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(said.try_clone().ok()?).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    let in_time = ended.is_some_and(|ended| {
        let timeout = Timespec::try_from(PROGRAM).ok();
        let mut descriptors = [PollFd::new(&ended, PollFlags::IN)];
        poll(&mut descriptors, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    });
    if !in_time {
        let _ = child.kill();
    }
    let succeeded = child.wait().is_ok_and(|status| status.success());
    let mut text = Vec::new();
    said.rewind().ok()?;
    said.take(LONGEST).read_to_end(&mut text).ok()?;
    (in_time && succeeded).then(|| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemctl_shows_is_read() {
        let text = "User=jackfield\nSupplementaryGroups=root adm\nId=jackfield.service\n\
                    ActiveState=active\nUnitFileState=enabled\n\n\
                    Id=jackfield-scan.service\nActiveState=inactive\nUnitFileState=\n";
        let unit = |name: &str, enabled: &str, active: &str| Unit {
            name: name.to_owned(),
            enabled: enabled.to_owned(),
            active: active.to_owned(),
            ..Unit::default()
        };
        let agent = Unit {
            user: "jackfield".to_owned(),
            groups: "root adm".to_owned(),
            ..unit(AGENT_UNIT, "enabled", "active")
        };
        assert_eq!(units(text), [agent, unit(SCAN_UNIT, "", "inactive")]);
        assert_eq!(units(""), []);
    }

    #[test]
    fn what_is_masked_does_nothing() {
        let link = std::env::temp_dir().join(format!("jackfield-masked-{}", std::process::id()));
        assert!(!does_something(&link));
        for (to, expected) in [("/dev/null", false), ("/proc/self/status", true)] {
            std::os::unix::fs::symlink(to, &link).unwrap();
            let found = does_something(&link);
            fs::remove_file(&link).unwrap();
            assert_eq!(found, expected, "{to}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_or_fails_says_nothing() {
        assert_eq!(output("jackfield-no-such-program", &[]), None);
        assert_eq!(output("false", &[]), None);
        assert_eq!(output("echo", &["a"]), Some("a\n".to_owned()));
    }
}
