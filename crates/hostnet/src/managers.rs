//! What there is on disk of other network managers: files of ours that tell them something, files of
//! others that must stay as they are, and what they have taken up.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jackfield_kernel::Link;
use jackfield_metadata::MacAddr;

use crate::config::Config;
use crate::render::{INTERFACES, INTERFACES_D, Manager, NETWORKS, PID, names, owner};
use crate::snapshot::{OURS, Snapshot};

/// Where ifupdown looks for what holds until the next boot, on images that are made so.
const INTERFACES_RUN: &str = "/run/network/interfaces.d";
/// Which interfaces ifupdown has brought up.
const IFSTATE: &str = "/run/network/ifstate";
/// Where the DHCP client reads what an interface's hooks do.
const HOOKS: &str = "/etc/dhcp/dhclient-enter-hooks.d";
/// …and its configuration.
const CLIENTS: &str = "/etc/dhcp";
/// What networkd tells of each link, by its index.
const NETIF: &str = "/run/systemd/netif/links";
/// Programs are looked for here too: not every root shell has it in its path.
const PROGRAMS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What there is of other network managers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Managers {
    /// Files of ours, by path.
    pub files: BTreeMap<String, OwnFile>,
    /// Interfaces that somebody else has configured in ifupdown, by name.
    pub by_hand: BTreeMap<String, ByHand>,
    /// A program of each manager that is configured and cannot be told anything.
    pub missing: BTreeMap<Manager, String>,
    /// Which interfaces each of them has taken up, by name.
    pub up: BTreeSet<(Manager, String)>,
    /// Interfaces of which one is being told.
    pub at_work: BTreeSet<MacAddr>,
    /// Interfaces of which one was told a moment ago.
    pub told: BTreeSet<MacAddr>,
    /// Why one could not be told, or refused.
    pub failed: BTreeMap<MacAddr, String>,
}

/// A file of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFile {
    /// Whom it tells something.
    pub manager: Manager,
    /// Of which interface.
    pub mac: MacAddr,
    /// The name that that had.
    pub name: String,
    /// All of it.
    pub text: String,
}

/// Somebody else's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByHand {
    /// Where it is.
    pub path: String,
    /// Whether it says `EC2SYNC=no`.
    pub opted_out: bool,
}

impl Managers {
    /// Looks what there is.
    pub(crate) fn read(config: &Config, links: &[Link]) -> Self {
        let mut managers = Managers::default();
        let configured: BTreeSet<Manager> = configured(config).collect();
        for manager in &configured {
            let missing = manager.programs().iter().find(|program| find_program(program).is_none());
            if let Some(program) = missing {
                managers.missing.insert(*manager, (*program).to_owned());
            }
        }
        // What was told once may have to be taken back, whoever is configured now. Of what can be no
        // file of ours only the name is read.
        managers.read_interfaces(configured.contains(&Manager::Ifupdown));
        for path in files_in(HOOKS, "jackfield-").chain(files_in(CLIENTS, "dhclient-")) {
            managers.take_own(Manager::Ifupdown, &path);
        }
        for path in files_in(NETWORKS, "10-jackfield-") {
            managers.take_own(Manager::Networkd, &path);
        }
        if !managers.files.is_empty() {
            managers.read_state(links);
        }
        managers
    }

    /// Whether any of them has a part in it: one is configured, or was told something.
    pub(crate) fn have_a_part(&self, config: &Config) -> bool {
        !self.files.is_empty() || configured(config).next().is_some()
    }

    fn read_interfaces(&mut self, others_too: bool) {
        let mut paths: Vec<PathBuf> = files_in(INTERFACES_D, "").collect();
        if others_too {
            paths.extend(files_in(INTERFACES_RUN, ""));
            paths.push(PathBuf::from(INTERFACES));
        } else {
            paths.retain(|path| path.extension().is_some_and(|extension| extension == "cfg"));
        }
        for path in paths {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let opted_out = text.lines().any(is_opt_out);
            if !opted_out && owner(&text).is_some() {
                self.take_own(Manager::Ifupdown, &path);
                continue;
            }
            let by_hand = ByHand { path: path.to_string_lossy().into_owned(), opted_out };
            let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
            let named = configured_in(&text).map(str::to_owned);
            for name in named.chain(stem.filter(|_| path != Path::new(INTERFACES))) {
                let known = self.by_hand.entry(name).or_insert_with(|| by_hand.clone());
                if opted_out {
                    known.clone_from(&by_hand);
                }
            }
        }
    }

    fn take_own(&mut self, manager: Manager, path: &Path) {
        let Ok(text) = fs::read_to_string(path) else { return };
        let Some((mac, name)) = owner(&text) else { return };
        let name = name.to_owned();
        let path = path.to_string_lossy().into_owned();
        self.files.insert(path, OwnFile { manager, mac, name, text });
    }

    fn read_state(&mut self, links: &[Link]) {
        let ifstate = fs::read_to_string(IFSTATE).unwrap_or_default();
        let up: BTreeSet<&str> =
            ifstate.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        for (path, file) in &self.files {
            let taken = match file.manager {
                // An interface whose client has ended keeps its address until the lease is over.
                Manager::Ifupdown => {
                    path.starts_with(INTERFACES_D)
                        && up.contains(file.name.as_str())
                        && (!file.text.contains(&pid_file(&file.name)) || client_runs(&file.name))
                }
                Manager::Networkd => links
                    .iter()
                    .filter(|link| link.name == file.name)
                    .filter_map(|link| fs::read_to_string(format!("{NETIF}/{}", link.index)).ok())
                    .any(|state| {
                        state.lines().any(|line| line.strip_prefix("NETWORK_FILE=") == Some(path))
                    }),
            };
            if taken {
                self.up.insert((file.manager, file.name.clone()));
            }
        }
    }

    /// Whether ifupdown has something of the interface to take down, however incomplete.
    pub(crate) fn ifup_knows(name: &str) -> bool {
        let ifstate = fs::read_to_string(IFSTATE).unwrap_or_default();
        ifstate.lines().any(|line| line.split_once('=').is_some_and(|(is, _)| is == name))
    }

    /// The files of ours about an interface that tell a manager something.
    pub fn about(&self, manager: Manager, mac: MacAddr) -> impl Iterator<Item = (&str, &OwnFile)> {
        let about = move |file: &OwnFile| file.manager == manager && file.mac == mac;
        self.files.iter().filter(move |(_, file)| about(file)).map(|(path, file)| (&**path, file))
    }
}

impl Snapshot {
    /// Takes in what there is of other managers. Who has an address of theirs that a file of ours
    /// names has it from us: no manager says so in the kernel.
    pub(crate) fn take_in_managers(&mut self, managers: Managers) {
        for is in &mut self.addresses {
            let link = self.links.iter().find(|link| link.index == is.interface);
            let mac = link.and_then(|link| link.address).map(MacAddr::from);
            let mut files = managers.files.values().filter(|file| Some(file.mac) == mac);
            let alone = is.address.prefix_len() == is.address.max_prefix_len();
            if alone && files.any(|file| names(&file.text, is.address.addr())) {
                is.protocol = OURS;
            }
        }
        self.managers = managers;
    }
}

/// The managers that are somebody's back-end.
fn configured(config: &Config) -> impl Iterator<Item = Manager> {
    let overrides = config.interfaces.iter().filter_map(|exception| exception.backend);
    overrides.chain([config.defaults.backend]).filter_map(|backend| backend.manager())
}

/// The files of a directory whose names begin so; none where there is none. What begins with a dot is
/// nobody's yet.
fn files_in(directory: &str, start: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let named = |name: &str| name.starts_with(start) && !name.starts_with('.');
    let mut paths: Vec<PathBuf> = entries
        .filter(|entry| named(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths.into_iter()
}

/// `EC2SYNC=no` on a line of its own, which for ifup has to be a comment.
fn is_opt_out(line: &str) -> bool {
    let line = line.trim_start_matches(|c: char| c == '#' || c.is_whitespace()).trim_end();
    let Some((key, value)) = line.split_once('=') else { return false };
    key == "EC2SYNC" && value.trim_matches(['"', '\'']).eq_ignore_ascii_case("no")
}

/// The interfaces that a file of `interfaces(5)` is about.
fn configured_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| {
        let mut words = line.split_whitespace();
        let count = match words.next() {
            Some("iface") => 1,
            Some("auto") => usize::MAX,
            Some(word) if word.starts_with("allow-") => usize::MAX,
            _ => 0,
        };
        words.take(count)
    })
}

fn pid_file(name: &str) -> String {
    format!("{PID}{name}.pid")
}

fn client_runs(name: &str) -> bool {
    let Ok(pid) = fs::read_to_string(pid_file(name)) else { return false };
    let comm = format!("/proc/{}/comm", pid.trim());
    fs::read_to_string(comm).is_ok_and(|comm| comm.trim() == "dhclient")
}

/// Where a program is.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&program_path()).map(|directory| directory.join(name)).find(|path| {
        fs::metadata(path).is_ok_and(|is| is.is_file() && is.permissions().mode() & 0o111 != 0)
    })
}

/// Where programs are looked for.
pub(crate) fn program_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> =
        std::env::split_paths(&path).chain(PROGRAMS.map(PathBuf::from)).collect();
    // Not where somebody happens to be.
    let directories = directories.into_iter().filter(|directory| directory.is_absolute());
    // Fails where a directory's name has a colon: none of ours has, and the rest was one string.
    std::env::join_paths(directories).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_founding_documents_opt_out_is_a_line_of_its_own() {
        for line in ["EC2SYNC=no", "# EC2SYNC=no", "  #EC2SYNC=\"no\"  ", "EC2SYNC='NO'"] {
            assert!(is_opt_out(line), "{line}");
        }
        for line in ["EC2SYNC=yes", "# say EC2SYNC=no to opt out", "", "XEC2SYNC=no"] {
            assert!(!is_opt_out(line), "{line}");
        }
    }

    #[test]
    fn who_is_configured_in_a_file_is_told_by_its_stanzas() {
        let text = "# iface x inet dhcp\nauto lo eth0\nallow-hotplug eth1\niface eth2 inet dhcp\n  up iface\n";
        assert_eq!(configured_in(text).collect::<Vec<_>>(), ["lo", "eth0", "eth1", "eth2"]);
    }
}
