//! Takes over what ubuntu-ec2net and amazon-ec2-net-utils have configured, without an interface that
//! goes down, and removes what is theirs.
//!
//! What they leave is looked for ([`Files::read`], the snapshot), and judged by what their sources say
//! that they write; that is pure. What is to be made of an interface is what [`desired()`] says of a
//! machine on which they never were: the snapshot without theirs. `take_over.rs` carries it out, in an order in which
//! an address, its rule and its routes are there all the while.
//!
//! Nothing is remembered. Their files go last, and of them those last that tell that they are here, so
//! whatever is killed at whatever time, the next run goes on.
//!
//! [`desired()`]: crate::desired()

mod files;
mod kernel;
mod known;
mod settings;
mod silence;
mod take_over;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jackfield_kernel::{Link, Rule};
use jackfield_metadata::MacAddr;

use crate::cloud::Cloud;
use crate::snapshot::Snapshot;
use files::{is_routes, is_shared};
use kernel::Theirs;
use settings::Answer;

pub use files::{Content, Files};
pub(crate) use kernel::{OTHERS as TABLES, by_name as table_by_name};
pub use take_over::{ImportError, Imported};

/// Who is taken over from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tool {
    /// ubuntu-ec2net and its forks: ifupdown, dhclient and its hooks.
    UbuntuEc2net,
    /// ec2-net-utils up to 1.7, of Amazon Linux 1 and 2: initscripts, dhclient and its hooks.
    Ec2NetUtils1,
    /// amazon-ec2-net-utils from 2.0, of Amazon Linux 2023: systemd-networkd and timers.
    Ec2NetUtils2,
}

impl Tool {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Tool::UbuntuEc2net => "ubuntu-ec2net",
            Tool::Ec2NetUtils1 => "amazon-ec2-net-utils 1.x",
            Tool::Ec2NetUtils2 => "amazon-ec2-net-utils 2.x",
        }
    }
}

/// What is to be done with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is as the tool wrote it, and is removed.
    Remove,
    /// A package brought it, and takes it away again; empty where only rpm knows which.
    Package(String),
    /// Somebody changed it, or it is of a version that is not known.
    Changed,
    /// It cannot be read.
    Unreadable(String),
    /// It says `EC2SYNC=no`: the tool keeps off the interface.
    OptedOut,
    /// It is about the primary, or about an interface that is not taken over.
    Stays,
    /// This interface is left, and works on by the tool.
    Needed(String),
}

impl Fate {
    /// `remove`, `package` or `leave`.
    pub fn action(&self) -> &'static str {
        match self {
            Fate::Remove => "remove",
            Fate::Package(_) => "package",
            _ => "leave",
        }
    }

    /// Why it is not removed.
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            Fate::Remove => return None,
            Fate::Package(name) if name.is_empty() => "rpm says whose it is".to_owned(),
            Fate::Package(name) => format!("of package {name}"),
            Fate::Changed => {
                "changed by hand, or of a version that is not known: remove it yourself".to_owned()
            }
            Fate::Unreadable(why) => format!("cannot be read: {why}"),
            Fate::OptedOut => "EC2SYNC=no: the interface is yours".to_owned(),
            Fate::Stays => "about an interface that is not taken over".to_owned(),
            Fate::Needed(by) => format!("{by}, which is left, works by it"),
        })
    }
}

/// A file that is a tool's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundFile {
    /// Absolute.
    pub path: String,
    /// Whose.
    pub tool: Tool,
    /// The interface that it is about; `None`: about all.
    pub interface: Option<String>,
    /// What is done with it.
    pub fate: Fate,
}

/// What is done about an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Takeover {
    /// It is taken over.
    Takes,
    /// It works by jackfield already; what is left of the tools is removed.
    Ours,
    /// It is left as it is, and why.
    Leaves(String),
}

/// An interface of which a tool has something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundInterface {
    /// Interface index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC.
    pub mac: MacAddr,
    /// What is done.
    pub takeover: Takeover,
    /// It is left for a reason for which the tool is to go on with it.
    needs_tool: bool,
    theirs: Theirs,
}

/// What was found of the tools.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Who is here, and by which file that is known.
    pub tools: Vec<(Tool, String)>,
    /// The interfaces that they have configured.
    pub interfaces: Vec<FoundInterface>,
    /// Their files, in the order in which they are removed.
    pub files: Vec<FoundFile>,
    /// Rules of theirs for interfaces that are gone.
    pub orphans: Vec<Rule>,
    /// What the configuration needs for it to stay as it was.
    pub config: Vec<String>,
    /// What looks like theirs and is not of their shape: it is left.
    pub strange: Vec<String>,
}

/// Looks for what the tools have left; pure.
pub fn find(snapshot: &Snapshot, cloud: &Cloud, files: &Files, only: Option<&[Tool]>) -> Findings {
    let links: Vec<(&Link, MacAddr)> = snapshot.candidates().map(|it| (it.link, it.mac)).collect();
    let mut names: Vec<String> = links.iter().map(|(link, _)| link.name.clone()).collect();
    // Of those that are gone, files stay.
    let is_here = |name: &String| snapshot.links.iter().any(|link| link.name == *name);
    names.extend(files.interfaces().into_iter().filter(|name| !is_here(name)));
    let mut found = files.found(&names);
    let has = |found: &[FoundFile], tool| {
        found.iter().any(|it| it.tool == tool && !is_shared(it) && !is_routes(it))
    };
    let has_first = has(&found, Tool::Ec2NetUtils1);
    found.retain(|file| has_first || !is_routes(file));
    // Both generations configure dhclient by the same file.
    if !has(&found, Tool::UbuntuEc2net) {
        found.retain(|file| has_first || !is_shared(file));
        for file in found.iter_mut().filter(|file| is_shared(file)) {
            file.tool = Tool::Ec2NetUtils1;
        }
    }
    // Both have programs of the same names, and /sbin may be /usr/sbin.
    let is_program = |file: &FoundFile| file.path.contains("/sbin/");
    let certain: BTreeSet<Tool> =
        found.iter().filter(|file| !is_program(file)).map(|file| file.tool).collect();
    found.retain(|file| !is_program(file) || certain.is_empty() || certain.contains(&file.tool));
    found.retain(|file| only.is_none_or(|only| only.contains(&file.tool)));
    let mut findings = Findings::default();
    for tool in [Tool::UbuntuEc2net, Tool::Ec2NetUtils1, Tool::Ec2NetUtils2] {
        let telling = found.iter().rev().find(|file| file.tool == tool);
        findings.tools.extend(telling.map(|file| (tool, file.path.clone())));
    }
    let tools: BTreeSet<Tool> = findings.tools.iter().map(|(tool, _)| *tool).collect();
    for (link, mac) in links {
        let its = |file: &&FoundFile| file.interface.as_deref() == Some(link.name.as_str());
        let known = cloud.interfaces.get(&mac);
        let tables = kernel::tables(link, known, &tools);
        let theirs = match known {
            Some(known) if !tables.is_empty() => {
                kernel::theirs(snapshot, link, known, &tables, &tools)
            }
            _ => Theirs::default(),
        };
        let opted_out = found.iter().filter(its).find(|file| file.fate == Fate::OptedOut);
        let unclear = found.iter().filter(its).find_map(|it| {
            let text = files.text(&it.path)?;
            let line = settings::unclear(&text)?;
            Some(format!("{line} in {} is neither yes nor no", it.path))
        });
        let ours = snapshot.journals().any(|(with, _)| with.index == link.index);
        let mut needs_tool = false;
        let takeover = if cloud.primary == Some(mac) {
            Takeover::Leaves("the primary stays with who configured it".to_owned())
        } else if let Some(file) = opted_out {
            Takeover::Leaves(format!("EC2SYNC=no in {}", file.path))
        } else if known.is_none() {
            Takeover::Leaves("metadata does not list it".to_owned())
        } else if let Some(reason) = unclear {
            needs_tool = true;
            Takeover::Leaves(reason)
        } else if let Some(ip) = kernel::bystander(snapshot, &theirs) {
            needs_tool = true;
            Takeover::Leaves(format!(
                "the address {ip}, which metadata does not list, would go with those of the tool: \
                 add it with /32, or remove it"
            ))
        } else if ours {
            Takeover::Ours
        } else {
            Takeover::Takes
        };
        if let Some(file) = opted_out {
            findings.config.push(exception(mac, &file.path, "manage = false"));
        } else {
            let says = |option: &str, answer| {
                let mut its = found.iter().filter(its).filter_map(|it| files.text(&it.path));
                its.any(|text| settings::says(&text, option, answer))
            };
            if says(settings::MAIN_ROUTE, Answer::No) {
                let because = "MAINROUTETABLE=no";
                findings.config.push(exception(mac, because, "main_route = \"none\""));
            }
            if says(settings::PREFIXES, Answer::Yes) {
                let because = "EC2PROVISIONPFXIPS=yes";
                findings.config.push(exception(mac, because, "prefixes = \"local\""));
            }
        }
        let has_kernel = !(theirs.rules.is_empty() && theirs.routes.is_empty());
        let left = matches!(takeover, Takeover::Leaves(_));
        if has_kernel || found.iter().any(|file| its(&file)) || !tables.is_empty() && !left {
            if !left {
                findings.strange.extend(theirs.strange.iter().cloned());
            }
            let (index, name) = (link.index, link.name.clone());
            let found = FoundInterface { index, name, mac, takeover, needs_tool, theirs };
            findings.interfaces.push(found);
        }
    }
    findings.files = found;
    findings.keep_files_of_those_left();
    findings.orphans = kernel::orphans(snapshot, cloud, &tools);
    findings
}

fn exception(mac: MacAddr, because: &str, key: &str) -> String {
    format!("[[interface]]  # {because}\nmatch = {{ mac = \"{mac}\" }}\n{key}\n")
}

impl Findings {
    /// The interfaces that are taken over, or were.
    fn taken(&self) -> impl Iterator<Item = &FoundInterface> {
        self.interfaces.iter().filter(|it| !matches!(it.takeover, Takeover::Leaves(_)))
    }

    /// What is theirs in the kernel, and is to go.
    fn theirs(&self) -> Vec<Theirs> {
        self.taken().map(|it| it.theirs.clone()).collect()
    }

    /// The files of theirs by which an interface that is taken over would be somebody else's.
    fn evidence(&self) -> BTreeSet<String> {
        let left = |file: &&FoundFile| matches!(file.fate, Fate::OptedOut | Fate::Stays);
        let files = self.files.iter().filter(|file| !left(file));
        files.map(|file| file.path.clone()).collect()
    }

    /// Leaves an interface as it is, with what is about it.
    fn leave(&mut self, index: u32, reason: &str) {
        for it in self.interfaces.iter_mut().filter(|it| it.index == index) {
            it.needs_tool |= !matches!(it.takeover, Takeover::Leaves(_));
            it.takeover = Takeover::Leaves(reason.to_owned());
        }
        self.keep_files_of_those_left();
    }

    fn keep_files_of_those_left(&mut self) {
        let left = |it: &&FoundInterface| matches!(it.takeover, Takeover::Leaves(_));
        let left: BTreeSet<&String> =
            self.interfaces.iter().filter(left).map(|it| &it.name).collect();
        for file in self.files.iter_mut().filter(|file| file.fate == Fate::Remove) {
            if file.interface.as_ref().is_some_and(|name| left.contains(name)) {
                file.fate = Fate::Stays;
            }
        }
        let needed: BTreeMap<Tool, String> =
            self.tools.iter().filter_map(|(tool, _)| Some((*tool, self.needs(*tool)?))).collect();
        let of_all = |file: &&mut FoundFile| file.interface.is_none();
        for file in self.files.iter_mut().filter(of_all) {
            if let (Fate::Remove | Fate::Package(_), Some(by)) =
                (&file.fate, needed.get(&file.tool))
            {
                file.fate = Fate::Needed(by.clone());
            }
        }
    }

    /// An interface that is left and works on by a tool. Without a file of its own it may be anyone's.
    fn needs(&self, tool: Tool) -> Option<String> {
        let works_by = |it: &&FoundInterface| {
            let of_it = |file: &&FoundFile| file.interface.as_ref() == Some(&it.name);
            let mut its = self.files.iter().filter(of_it).peekable();
            let has_kernel = !(it.theirs.rules.is_empty() && it.theirs.routes.is_empty());
            match its.peek() {
                Some(_) => its.any(|file| file.tool == tool),
                None => has_kernel,
            }
        };
        let left = self.interfaces.iter().filter(|it| it.needs_tool);
        left.filter(works_by).map(|it| it.name.clone()).next()
    }

    /// Whether something of a tool is there for an interface that is taken over.
    fn has_left(&self, it: &FoundInterface) -> bool {
        let of_it = |file: &&FoundFile| file.interface.as_ref() == Some(&it.name);
        it.takeover == Takeover::Takes
            || !it.theirs.rules.is_empty()
            || !it.theirs.routes.is_empty()
            || self.files.iter().filter(of_it).any(|file| file.fate == Fate::Remove)
    }

    fn has(&self, tool: Tool) -> bool {
        self.tools.iter().any(|(is, _)| *is == tool)
    }
}
