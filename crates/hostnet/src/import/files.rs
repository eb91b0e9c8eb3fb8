//! What the tools leave on disk, and which of it is as they wrote it.
//!
//! What is generated for an interface is compared line by line with what they generate: one line more,
//! and somebody changed it. Scripts are compared by fingerprint (`known.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::kernel::by_name;
use super::known::{INSTALLED, Installed, fingerprint};
use super::settings::{self, Answer};
use super::{Fate, FoundFile, Tool};
use crate::neighbours::amazon_networks;
use crate::render;

/// More of a file is not read.
const LONGEST: u64 = 1 << 20;

pub(super) const INTERFACES: &str = "/etc/network/interfaces.d";
const DHCP: &str = "/etc/dhcp";
const SCRIPTS: &str = "/etc/sysconfig/network-scripts";
const NETWORKS: &str = "/run/systemd/network";
const STATE: &str = "/run/amazon-ec2-net-utils";
const DPKG: &str = "/var/lib/dpkg/info";
const RPM: [&str; 2] = ["/var/lib/rpm", "/usr/lib/sysimage/rpm"];
/// The drop-ins of 70-NAME.network.
const DROP_INS: [&str; 4] =
    ["eni.conf", "ec2net_policy_4.conf", "ec2net_policy_6.conf", "ec2net_alias.conf"];
/// What 70-NAME.network is a link to.
const DEFAULT: &str = "systemd/network/80-ec2.network";

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file, and what it says.
    File(Vec<u8>),
    /// A symbolic link, and where it leads.
    Link(String),
    /// It cannot be read, and why.
    Unreadable(String),
}

impl Content {
    /// What is there now; `None` where nothing is that may be a tool's.
    pub(super) fn at(at: &Path) -> Option<Self> {
        Some(match fs::symlink_metadata(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Content::Unreadable(error.to_string()),
            Ok(is) if is.is_symlink() => match fs::read_link(at) {
                Ok(target) => Content::Link(target.to_string_lossy().into_owned()),
                Err(error) => Content::Unreadable(error.to_string()),
            },
            Ok(is) if !is.is_file() => return None,
            Ok(is) if is.len() > LONGEST => Content::Unreadable("it is too long".to_owned()),
            Ok(_) => match fs::read(at) {
                Ok(text) => Content::File(text),
                Err(error) => Content::Unreadable(error.to_string()),
            },
        })
    }
}

/// The files of the tools, by their absolute path, and whose package they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Files {
    /// What is there.
    pub files: BTreeMap<String, Content>,
    /// Which of it a package brought, and what that is called.
    pub packages: BTreeMap<String, String>,
}

impl Files {
    /// Reads them below `root`.
    pub fn read(root: &Path) -> Self {
        let mut files = Files::default();
        for installed in INSTALLED {
            files.take(root, installed.path.to_owned());
        }
        files.take_directory(root, INTERFACES, |name| name.ends_with(".cfg"));
        files.take_directory(root, DHCP, |name| name.starts_with("dhclient-"));
        files.take_directory(root, SCRIPTS, |name| {
            ["ifcfg-", "route-", "route6-"].iter().any(|start| name.starts_with(start))
        });
        files.take_directory(root, NETWORKS, |_| true);
        let drop_ins: Vec<String> = directories(root, NETWORKS);
        for directory in drop_ins.iter().filter(|it| it.ends_with(".network.d")) {
            files.take_directory(root, directory, |_| true);
        }
        files.take_directory(root, STATE, |name| name.starts_with('.'));
        files.take_packages(root);
        files
    }

    fn take(&mut self, root: &Path, path: String) {
        if let Some(content) = Content::at(&below(root, &path)) {
            self.files.insert(path, content);
        }
    }

    fn take_directory(&mut self, root: &Path, directory: &str, wanted: impl Fn(&str) -> bool) {
        for name in names(root, directory).into_iter().filter(|name| wanted(name)) {
            self.take(root, format!("{directory}/{name}"));
        }
    }

    /// Whose the installed ones are: dpkg's lists tell, where rpm has a database only rpm knows.
    fn take_packages(&mut self, root: &Path) {
        let installed: Vec<&str> = INSTALLED
            .iter()
            .map(|installed| installed.path)
            .filter(|path| self.files.contains_key(*path))
            .collect();
        if installed.is_empty() {
            return;
        }
        if RPM.iter().any(|rpm| below(root, rpm).is_dir()) {
            let of_rpm = installed.iter().filter(|path| !path.contains("/local/"));
            let of_rpm = of_rpm.map(|path| ((*path).to_owned(), String::new()));
            self.packages.extend(of_rpm);
        }
        for name in names(root, DPKG) {
            let Some(package) = name.strip_suffix(".list") else { continue };
            let Ok(list) = fs::read_to_string(below(root, &format!("{DPKG}/{name}"))) else {
                continue;
            };
            let package = package.split(':').next().unwrap_or(package);
            // /sbin is /usr/sbin, and either may be what the package says.
            let plain = |path: &str| path.strip_prefix("/usr").unwrap_or(path).to_owned();
            for path in &installed {
                if list.lines().any(|line| plain(line) == plain(path)) {
                    self.packages.insert((*path).to_owned(), package.to_owned());
                }
            }
        }
    }

    /// The interfaces for which there may be files: whoever is here, or was.
    pub(super) fn interfaces(&self) -> BTreeSet<String> {
        let name = |path: &String| {
            let (directory, file) = path.rsplit_once('/')?;
            let name = match directory {
                INTERFACES => file.strip_suffix(".cfg")?,
                DHCP => file.strip_prefix("dhclient-")?.strip_suffix(".conf")?,
                SCRIPTS => file.split_once('-')?.1,
                _ => {
                    let network = path.strip_prefix(NETWORKS)?.split('/').nth(1)?;
                    let (_, name) = network.split_once('-')?;
                    name.split_once(".network")?.0
                }
            };
            Some(name.to_owned())
        };
        self.files.keys().filter_map(name).collect()
    }

    /// Every file that is a tool's, in the order in which they are removed.
    pub(super) fn found(&self, interfaces: &[String]) -> Vec<FoundFile> {
        let mut generated = Vec::new();
        for (path, content) in &self.files {
            generated.extend(
                interfaces.iter().find_map(|name| Generated::of(path, name)).and_then(|it| {
                    let (interface, tool) = (Some(it.interface.to_owned()), it.tool);
                    let fate = it.fate(content)?;
                    Some(FoundFile { path: path.clone(), tool, interface, fate })
                }),
            );
            if path.starts_with(STATE) {
                let (path, tool) = (path.clone(), Tool::Ec2NetUtils2);
                generated.push(FoundFile { path, tool, interface: None, fate: Fate::Remove });
            }
        }
        let installed = INSTALLED.iter().filter_map(|it| self.installed(it));
        let (acting, telling): (Vec<FoundFile>, Vec<FoundFile>) =
            installed.partition(|file| acts(&file.path));
        // What tells nothing by itself goes before what tells.
        generated.sort_by_key(|file| !(is_shared(file) || is_routes(file)));
        acting.into_iter().chain(generated).chain(telling).collect()
    }

    fn installed(&self, it: &Installed) -> Option<FoundFile> {
        let fate = match (self.files.get(it.path)?, self.packages.get(it.path)) {
            // A link to nothing masks it, and is nobody's file.
            (Content::Link(target), _) if target == "/dev/null" => return None,
            (_, Some(package)) => Fate::Package(package.clone()),
            (Content::Unreadable(why), None) => Fate::Unreadable(why.clone()),
            (Content::File(text), None) if it.fingerprints.contains(&fingerprint(text)) => {
                Fate::Remove
            }
            (_, None) => Fate::Changed,
        };
        // Others have files of these names too.
        if !it.tells && fate == Fate::Changed && !self.says(it.path, "ec2net-functions") {
            return None;
        }
        Some(FoundFile { path: it.path.to_owned(), tool: it.tool, interface: None, fate })
    }

    fn says(&self, path: &str, text: &str) -> bool {
        matches!(self.files.get(path), Some(Content::File(is))
            if String::from_utf8_lossy(is).contains(text))
    }

    /// The text of a file.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        match self.files.get(path) {
            Some(Content::File(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }
}

/// What somebody runs when an interface comes or its lease does.
fn acts(path: &str) -> bool {
    path.ends_with(".rules") || path.contains("-hooks.d/") || path.contains("/dhclient.d/")
}

/// dhclient's configuration, which is the same of both who use it: alone it is anybody's.
pub(super) fn is_shared(file: &FoundFile) -> bool {
    file.path.starts_with("/etc/dhcp/dhclient-") && file.interface.is_some()
}

/// Routes of initscripts: alone they are anybody's.
pub(super) fn is_routes(file: &FoundFile) -> bool {
    let name = file.path.strip_prefix(SCRIPTS).unwrap_or_default();
    file.interface.is_some() && name.starts_with("/route")
}

fn names(root: &Path, directory: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(below(root, directory)) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn directories(root: &Path, directory: &str) -> Vec<String> {
    let paths = names(root, directory).into_iter().map(|name| format!("{directory}/{name}"));
    paths.filter(|path| below(root, path).is_dir()).collect()
}

pub(super) fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// A file that a tool generates for an interface.
struct Generated<'a> {
    interface: &'a str,
    tool: Tool,
    shape: Shape,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// ifupdown's stanza.
    Stanza,
    /// dhclient's configuration, of either tool.
    Dhclient,
    /// `KEY=value` of initscripts.
    Ifcfg,
    /// Routes of initscripts, as `ip route add` reads them.
    Routes,
    /// A link to the configuration of every interface.
    Network,
    /// What `setup-policy-routes` says of networkd's `.network` file.
    DropIn,
    /// What somebody else says of it.
    Foreign,
}

impl<'a> Generated<'a> {
    fn of(path: &str, interface: &'a str) -> Option<Self> {
        let (tool, shape) = if path == format!("{INTERFACES}/{interface}.cfg") {
            (Tool::UbuntuEc2net, Shape::Stanza)
        } else if path == format!("{DHCP}/dhclient-{interface}.conf") {
            (Tool::UbuntuEc2net, Shape::Dhclient)
        } else if path == format!("{SCRIPTS}/ifcfg-{interface}") {
            (Tool::Ec2NetUtils1, Shape::Ifcfg)
        } else if [format!("{SCRIPTS}/route-{interface}"), format!("{SCRIPTS}/route6-{interface}")]
            .contains(&path.to_owned())
        {
            (Tool::Ec2NetUtils1, Shape::Routes)
        } else {
            let of_network = amazon_networks(interface).into_iter().find_map(|network| {
                let rest = path.strip_prefix(&network)?;
                match rest {
                    "" => Some(Shape::Network),
                    _ if DROP_INS.iter().any(|name| rest.strip_prefix(".d/") == Some(name)) => {
                        Some(Shape::DropIn)
                    }
                    _ => rest.starts_with(".d/").then_some(Shape::Foreign),
                }
            });
            (Tool::Ec2NetUtils2, of_network?)
        };
        Some(Generated { interface, tool, shape })
    }

    /// What is to be done with it; `None` where it is none of the tool's.
    fn fate(&self, content: &Content) -> Option<Fate> {
        let text = match content {
            Content::Unreadable(why) => return Some(Fate::Unreadable(why.clone())),
            Content::Link(target) => {
                let theirs = self.shape == Shape::Network && target.ends_with(DEFAULT);
                return Some(if theirs { Fate::Remove } else { Fate::Changed });
            }
            Content::File(text) => String::from_utf8_lossy(text),
        };
        if render::owner(&text).is_some() || !self.is_meant(&text) {
            return None;
        }
        if settings::says(&text, settings::SYNC, Answer::No) {
            return Some(Fate::OptedOut);
        }
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let made = !matches!(self.shape, Shape::Network | Shape::Foreign);
        let plain = made && lines.into_iter().all(|it| self.has_line(it));
        Some(if plain { Fate::Remove } else { Fate::Changed })
    }

    /// Whether the tool has to do with it at all.
    fn is_meant(&self, text: &str) -> bool {
        match self.shape {
            Shape::Stanza => {
                text.contains("automaticatically generated") || text.contains("EC2SYNC=")
            }
            Shape::Ifcfg => text.contains("EC2SYNC="),
            Shape::Dhclient => text.contains("supersede dhcp-server-identifier 255.255.255.255;"),
            Shape::Routes => text.lines().any(|line| self.has_line(line)),
            Shape::Network | Shape::DropIn | Shape::Foreign => true,
        }
    }

    /// Whether it is a line that the tool writes. The sources: `rewrite_primary` of ec2net-functions,
    /// 50_ec2_rewrite_primary_enter_hook.sh, `create_if_overrides`, `create_rules` and
    /// `create_ipv4_aliases` of lib.sh.
    fn has_line(&self, line: &str) -> bool {
        let name = self.interface;
        let words: Vec<&str> = line.split_whitespace().collect();
        match self.shape {
            Shape::Stanza => match words[..] {
                ["#", "This", "file", "is", "automaticatically", "generated"]
                | ["auto", _]
                | ["EC2SYNC=yes"]
                | ["metric", _] => true,
                ["#", "See", page, "for", "source"] => page.ends_with("/ubuntu-ec2net"),
                ["#", "use", "fwmark", ..] => line.ends_with("(docker support)"),
                ["iface", of, "inet", "dhcp"] => of == name,
                [
                    "post-up",
                    "ip",
                    "route",
                    "add",
                    "default",
                    "via",
                    _,
                    "dev",
                    of,
                    "table" | "metric",
                    _,
                ]
                | [
                    "post-up",
                    "ip",
                    "route",
                    "add",
                    "default",
                    "via",
                    _,
                    "dev",
                    of,
                    "table",
                    _,
                    "||",
                    "true",
                ] => of == name,
                [
                    "post-up",
                    "iptables",
                    "-t",
                    "mangle",
                    "-A",
                    "PREROUTING",
                    "-i",
                    of,
                    "-j",
                    target,
                    ..,
                ] => of == name && ["MARK", "CONNMARK"].contains(&target),
                ["post-up", "sysctl", "-wq", setting] => {
                    setting == format!("net.ipv4.conf.{name}.rp_filter=2")
                }
                ["post-up" | "pre-down", "bash", "-c", ..] => line.contains("dev docker0 table"),
                _ => false,
            },
            Shape::Dhclient => {
                ["supersede dhcp-server-identifier 255.255.255.255;", "timeout 300;"]
                    .contains(&line)
            }
            Shape::Ifcfg => match line.split_once('=') {
                Some(("DEVICE", of)) => of == name,
                Some(("HWADDR" | "EC2PROVISIONPFXIPS" | "MAINROUTETABLE", _)) => true,
                Some((key, value)) => [
                    ("BOOTPROTO", "dhcp"),
                    ("ONBOOT", "yes"),
                    ("TYPE", "Ethernet"),
                    ("USERCTL", "yes"),
                    ("PEERDNS", "no"),
                    ("IPV6INIT", "yes"),
                    ("DHCPV6C", "yes"),
                    ("DHCPV6C_OPTIONS", "-nw"),
                    ("PERSISTENT_DHCLIENT", "yes"),
                    ("DEFROUTE", "no"),
                    ("EC2SYNC", "yes"),
                ]
                .contains(&(key, value)),
                None => false,
            },
            Shape::Routes => {
                let (of, number) = match words[..] {
                    ["default", "via", _, "dev", of, "table" | "metric", number]
                    | [
                        _,
                        "dev",
                        of,
                        "proto",
                        "kernel",
                        "scope",
                        "link",
                        "src",
                        _,
                        "table",
                        number,
                    ] => (of, number),
                    _ => return false,
                };
                of == name && by_name(name).is_some_and(|table| number == table.to_string())
            }
            Shape::Network | Shape::Foreign => false,
            Shape::DropIn => {
                const SECTIONS: [&str; 8] = [
                    "[Match]",
                    "[Network]",
                    "[DHCPv4]",
                    "[DHCPv6]",
                    "[IPv6AcceptRA]",
                    "[Route]",
                    "[RoutingPolicyRule]",
                    "[Address]",
                ];
                const KEYS: [&str; 13] = [
                    "MACAddress",
                    "DHCP",
                    "RouteMetric",
                    "UseRoutes",
                    "UseGateway",
                    "RouteTable",
                    "Table",
                    "Gateway",
                    "Destination",
                    "Metric",
                    "From",
                    "Priority",
                    "Address",
                ];
                SECTIONS.contains(&line)
                    || line
                        == format!(
                            "# Configuration for {name} generated by policy-routes@{name}.service"
                        )
                    || line == "AddPrefixRoute=false"
                    || line.split_once('=').is_some_and(|(key, _)| KEYS.contains(&key))
            }
        }
    }
}
