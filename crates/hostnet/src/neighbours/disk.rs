//! What neighbours leave on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// More of a file is not read.
const LONGEST: u64 = 65_536;

/// Where systemd looks for configuration, in the order in which a file of one directory replaces
/// those of the same name in the next (systemd.network(5), networkd.conf(5)).
pub(super) const SYSTEMD: [&str; 4] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Where udev looks for rules, in the same order (udev(7)).
pub(super) const UDEV: [&str; 4] = [
    "/etc/udev/rules.d",
    "/run/udev/rules.d",
    "/usr/local/lib/udev/rules.d",
    "/usr/lib/udev/rules.d",
];

/// The rules that neighbours have udev run for new interfaces.
pub(super) const UDEV_RULES: [&str; 3] = [
    "10-cloud-init-hook-hotplug.rules",
    "90-cloud-init-hook-hotplug.rules",
    "99-vpc-policy-routes.rules",
];

/// Directories of which every file with this end counts.
const DIRECTORIES: [(&str, &str); 5] = [
    ("/etc/NetworkManager/system-connections", ""),
    ("/run/NetworkManager/system-connections", ".nmconnection"),
    ("/usr/lib/NetworkManager/system-connections", ".nmconnection"),
    ("/etc/network/interfaces.d", ""),
    ("/run/network/interfaces.d", ""),
];

const FILES: [&str; 3] =
    ["/run/systemd/netif/state", "/etc/network/interfaces", "/run/network/ifstate"];

/// Files that say something by being there.
const MARKS: [&str; 2] = ["/run/aws-node/ipam.json", "/var/lib/ecs/data/agent.db"];

/// Directories with a file about each interface, by its index.
const BY_INDEX: [&str; 2] = ["/run/systemd/netif/links", "/run/NetworkManager/devices"];

/// The files of neighbours, by their absolute path. What may not be read, or is no text, is not here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Disk {
    files: BTreeMap<String, String>,
}

impl Disk {
    /// Reads them below `root`, and what is said of the interfaces with these indices.
    pub fn read(root: &Path, interfaces: &BTreeSet<u32>) -> Self {
        let mut disk = Disk::default();
        for systemd in SYSTEMD {
            disk.read_directory(root, &format!("{systemd}/network"), ".network");
            disk.read_file(root, format!("{systemd}/networkd.conf"));
            disk.read_directory(root, &format!("{systemd}/networkd.conf.d"), ".conf");
        }
        for (directory, end) in DIRECTORIES {
            disk.read_directory(root, directory, end);
        }
        for file in FILES {
            disk.read_file(root, file.to_owned());
        }
        for directory in UDEV {
            for name in UDEV_RULES {
                disk.read_file(root, format!("{directory}/{name}"));
            }
        }
        for directory in BY_INDEX {
            for interface in interfaces {
                disk.read_file(root, format!("{directory}/{interface}"));
            }
        }
        for mark in MARKS {
            if below(root, mark).exists() {
                disk.files.insert(mark.to_owned(), String::new());
            }
        }
        disk
    }

    fn read_directory(&mut self, root: &Path, directory: &str, end: &str) {
        let Ok(entries) = std::fs::read_dir(below(root, directory)) else { return };
        for entry in entries.filter_map(Result::ok) {
            if let Ok(name) = entry.file_name().into_string()
                && name.ends_with(end)
            {
                self.read_file(root, format!("{directory}/{name}"));
            }
        }
    }

    fn read_file(&mut self, root: &Path, path: String) {
        let Ok(file) = std::fs::File::open(below(root, &path)) else { return };
        let mut text = String::new();
        if file.take(LONGEST).read_to_string(&mut text).is_ok() {
            self.files.insert(path, text);
        }
    }

    /// As if these files were not there.
    #[must_use]
    pub(crate) fn without(mut self, paths: &BTreeSet<String>) -> Self {
        self.files.retain(|path, _| !paths.contains(path));
        self
    }

    /// The text of a file.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// The files of a directory, by their paths.
    pub(super) fn files(&self, directory: &str) -> impl Iterator<Item = (&str, &str)> {
        let prefix = format!("{directory}/");
        let files = self.files.range(prefix.clone()..);
        files
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The files of directories, each name from the first directory that has it, in the order of
    /// the names.
    pub(super) fn layered(&self, directories: &[String]) -> Vec<(&str, &str)> {
        let mut by_name: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for directory in directories {
            for (path, text) in self.files(directory) {
                let name = path.rsplit('/').next().unwrap_or(path);
                by_name.entry(name).or_insert((path, text));
            }
        }
        by_name.into_values().collect()
    }

    /// A rule of udev that is in force: the first of its name, unless that is empty.
    pub(super) fn udev_rule(&self, name: &str) -> Option<String> {
        let paths = UDEV.iter().map(|directory| format!("{directory}/{name}"));
        let (path, text) =
            paths.filter_map(|path| Some((path.clone(), self.text(&path)?))).next()?;
        (!text.trim().is_empty()).then_some(path)
    }
}

fn below(root: &Path, path: &str) -> std::path::PathBuf {
    root.join(path.trim_start_matches('/'))
}
