//! Carries the taking over out.
//!
//! 0. Journals are written, so that an agent knows the interfaces for jackfield's.
//! 1. What is jackfield's is made, beside theirs: rules, device, routes, addresses. What is in the
//!    way (a route of the same destination and metric, the same address) works as long as it is there.
//! 2. Whoever would make theirs again is told to let go: DHCP clients, timers, networkd.
//! 3. What was in the way is replaced in its place; then their rules go, their routes, their addresses.
//! 4. Their files go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use jackfield_kernel::{Address, Refusal, Request, Route};
use serde_json::json;

use super::files::below;
use super::kernel::{Theirs, without};
use super::silence::silence;
use super::{Content, Fate, Files, Findings, Takeover, Tool, find};
use crate::api::client::{AgentClient, ClientError};
use crate::change::{Change, Edit, InterfaceRef};
use crate::config::Backend;
use crate::desired::{Role, Scope, address};
use crate::machine::View;
use crate::once::{OnceError, Session};
use crate::plan::Plan;
use crate::snapshot::{MAIN, OURS, Snapshot};

/// Between two tries while metadata lags.
const PAUSE: Duration = Duration::from_millis(400);
/// How long a busy agent may take to answer.
const AGENT: Duration = Duration::from_secs(20);
/// How often is looked whether something of theirs is there again.
const PASSES: u32 = 10;

/// Why nothing, or not all, was taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// As any other command.
    #[error(transparent)]
    Once(#[from] OnceError),
    /// A file cannot be removed or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody who would make theirs again cannot be told to let go.
    #[error("{0}")]
    NotSilent(String),
    /// Something of theirs comes again and again.
    #[error("somebody makes again what is removed: {0}")]
    MadeAgain(String),
}

impl From<jackfield_kernel::Error> for ImportError {
    fn from(error: jackfield_kernel::Error) -> Self {
        ImportError::Once(error.into())
    }
}

/// What was found, and what was done about it or would be.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    /// What was found.
    pub findings: Findings,
    /// The changes in the kernel.
    pub changes: Vec<Change>,
    /// What was done besides, or would be.
    pub done: Vec<String>,
    /// What is left to somebody else.
    pub steps: Vec<String>,
}

/// What the machine is like, and what is to be made of it.
struct Look {
    snapshot: Snapshot,
    findings: Findings,
    view: View,
}

impl Session {
    /// Looks for what other tools have configured and, where that is asked for, takes it over and
    /// removes what is theirs. Every interface stays up, and every address works all the while.
    ///
    /// # Errors
    /// Where metadata or the kernel cannot be talked to or refuses, or a file cannot be removed.
    pub fn import(
        &mut self,
        only: Option<&[Tool]>,
        remove: bool,
        wait: Duration,
    ) -> Result<Imported, ImportError> {
        let files = Files::read(Path::new("/"));
        let (snapshot, _) = self.machine().look()?;
        // Who is not here is known without metadata.
        let cloud = self.machine().memory().cloud();
        if find(&snapshot, &cloud, &files, only).tools.is_empty() {
            return Ok(Imported::default());
        }
        let look = self.settled(&files, only, Instant::now() + wait)?;
        let mut imported = Imported {
            changes: look.changes(),
            steps: steps(&look.findings, &files),
            ..Imported::default()
        };
        if remove {
            self.claim(&look.view.plan)?;
            self.make(&look.view.plan)?;
            imported.done = silence(&look.findings, &look.snapshot)?;
            self.remove_from_kernel(&files, only, &look.findings)?;
            imported.done.extend(remove_files(&look.findings, &files, Path::new("/"))?);
            self.machine().forget_neighbours();
            let taken = look.findings.taken().map(|it| it.index).collect();
            let view = self.view(&Scope::Only(taken))?;
            self.make(&view.plan)?;
        }
        imported.findings = look.findings;
        Ok(imported)
    }

    /// Writes the journals, and has an agent take note of them: until then these interfaces are the
    /// tool's to it, and rules for them would be left of something that is gone.
    fn claim(&mut self, plan: &Plan) -> Result<(), ImportError> {
        let is_journal = |change: &&Change| matches!(change.edit, Edit::Alias { .. });
        let changes: Vec<Change> = plan.changes.iter().filter(is_journal).cloned().collect();
        if changes.is_empty() {
            return Ok(());
        }
        self.make(&Plan { changes })?;
        // It answers between two passes: what it looks at afterwards is as it is now.
        let info = AgentClient::connect(AGENT).and_then(|mut agent| agent.call("Info", &json!({})));
        match info {
            Ok(_) | Err(ClientError::NoAgent) => Ok(()),
            Err(error) => {
                Err(ImportError::NotSilent(format!("{error}: stop the agent, or start it anew")))
            }
        }
    }

    /// Looks until metadata has told enough of every interface that is taken over, or has not in time.
    fn settled(
        &mut self,
        files: &Files,
        only: Option<&[Tool]>,
        deadline: Instant,
    ) -> Result<Look, ImportError> {
        loop {
            if let Err(error) = self.crawl(deadline)? {
                if Instant::now() + PAUSE >= deadline {
                    return Err(OnceError::Metadata(error).into());
                }
                std::thread::sleep(PAUSE);
                continue;
            }
            let look = self.look_for(files, only)?;
            let waits = look.view.desired.interfaces.iter().any(|interface| {
                interface.role == Role::Waiting
                    && look.findings.taken().any(|it| it.index == interface.index)
            });
            if !waits || Instant::now() + PAUSE >= deadline {
                return self.without_blocked(look, files, only);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn look_for(&mut self, files: &Files, only: Option<&[Tool]>) -> Result<Look, ImportError> {
        self.look_leaving(files, only, &BTreeMap::new())
    }

    /// As it is, where some interfaces are left as they are.
    fn look_leaving(
        &mut self,
        files: &Files,
        only: Option<&[Tool]>,
        left: &BTreeMap<u32, String>,
    ) -> Result<Look, ImportError> {
        let machine = self.machine();
        let (mut snapshot, _) = machine.look()?;
        machine.look_into_tables(&mut snapshot)?;
        let cloud = machine.memory().cloud();
        let mut findings = find(&snapshot, &cloud, files, only);
        for (interface, reason) in left {
            findings.leave(*interface, reason);
        }
        let as_if = without(&snapshot, &findings.theirs(), &findings.evidence());
        let taken = findings.taken().map(|it| it.index).collect();
        let view = machine.view(as_if, &Scope::Only(taken));
        Ok(Look { snapshot, findings, view })
    }

    /// What cannot be plugged is left as it is, with all that the tools have for it.
    fn without_blocked(
        &mut self,
        mut look: Look,
        files: &Files,
        only: Option<&[Tool]>,
    ) -> Result<Look, ImportError> {
        let mut left = BTreeMap::new();
        while let Some((interface, reason)) = look.blocked() {
            if left.insert(interface, reason).is_some() {
                break;
            }
            look = self.look_leaving(files, only, &left)?;
        }
        // It is configured already as it says.
        let machine = self.machine();
        let unmanaged: Vec<String> = look
            .snapshot
            .candidates()
            .filter(|it| !machine.is_managed(it.link, it.mac))
            .map(|it| it.mac.to_string())
            .collect();
        look.findings.config.retain(|text| {
            !(text.contains("manage = false") && unmanaged.iter().any(|mac| text.contains(mac)))
        });
        Ok(look)
    }

    /// Until nothing of theirs is left.
    fn remove_from_kernel(
        &mut self,
        files: &Files,
        only: Option<&[Tool]>,
        findings: &Findings,
    ) -> Result<(), ImportError> {
        let left: BTreeMap<u32, String> = findings
            .interfaces
            .iter()
            .filter_map(|it| match &it.takeover {
                Takeover::Leaves(reason) => Some((it.index, reason.clone())),
                _ => None,
            })
            .collect();
        let mut rest = String::new();
        for _ in 0..PASSES {
            let look = self.look_leaving(files, only, &left)?;
            self.make(&look.view.plan)?;
            let requests = look.removal();
            let Some((first, _)) = requests.first() else { return Ok(()) };
            rest.clone_from(first);
            let (texts, requests): (Vec<String>, Vec<Request>) = requests.into_iter().unzip();
            let answers = self.machine().kernel().batch(&requests)?;
            for (text, answer) in texts.into_iter().zip(answers) {
                match answer {
                    Err(refusal) if !refusal.already_gone() && !refusal.already_there() => {
                        let not_permitted = [Refusal::NOT_PERMITTED, Refusal::ACCESS_DENIED]
                            .contains(&refusal.errno);
                        let reason = refusal.to_string();
                        return Err(
                            OnceError::Refused { change: text, reason, not_permitted }.into()
                        );
                    }
                    _ => {}
                }
            }
        }
        Err(ImportError::MadeAgain(rest))
    }
}

type Key = (ipnet::IpNet, u32, u32, u8);

/// The kernel has room for one route of these.
fn key(route: &Route) -> Key {
    (route.destination, route.table, route.metric, route.tos)
}

impl Look {
    fn all_theirs(&self) -> impl Iterator<Item = &Theirs> {
        self.findings.taken().map(|it| &it.theirs)
    }

    /// An interface that cannot be taken over, and why.
    fn blocked(&self) -> Option<(u32, String)> {
        let taken = |index: u32| self.findings.taken().any(|it| it.index == index);
        let desired = &self.view.desired;
        let in_the_way = desired.interfaces.iter().find_map(|interface| {
            let plugged = interface.role == Role::Plugged && interface.backend == Backend::Kernel;
            let why = || match interface.problems.first() {
                _ if interface.backend != Backend::Kernel => {
                    "its backend is another manager: take it over with backend = \"kernel\" first"
                        .to_owned()
                }
                Some(problem) => format!("{}; {}", problem.text, problem.fix),
                None => "it is configured not to be managed".to_owned(),
            };
            (taken(interface.index) && !plugged).then(|| (interface.index, why()))
        });
        let other_number = || {
            // In main, theirs and ours are behind every other default route.
            desired.routes.iter().filter(|ours| ours.table != MAIN).find_map(|ours| {
                let ours_by = ours.next_hops.first()?.interface;
                let theirs = self.all_theirs().flat_map(|theirs| &theirs.routes);
                let theirs = theirs.filter(|theirs| key(theirs) == key(ours));
                let by = theirs.filter_map(|theirs| theirs.next_hops.first()).next()?.interface;
                let name = |index| self.snapshot.link(index).map_or("?", |link| link.name.as_str());
                (by != ours_by && taken(ours_by)).then(|| {
                    let text = format!(
                        "table {} is {}'s with the tool and {}'s with jackfield: take it over with \
                         another table_base in [agent], such as 20000",
                        ours.table,
                        name(by),
                        name(ours_by)
                    );
                    (ours_by, text)
                })
            })
        };
        in_the_way.or_else(other_number)
    }

    /// All changes in the kernel, as they are told of.
    fn changes(&self) -> Vec<Change> {
        let mut changes = self.view.plan.changes.clone();
        for it in self.findings.taken() {
            let about = InterfaceRef { index: it.index, name: it.name.clone(), mac: Some(it.mac) };
            let rules = it.theirs.rules.iter().cloned().map(Edit::RemoveRule);
            let routes = it.theirs.routes.iter().cloned().map(Edit::RemoveRoute);
            let addresses = it.theirs.addresses.iter().cloned().map(Edit::RemoveAddress);
            let edits = rules.chain(routes).chain(addresses);
            changes.extend(edits.map(|edit| Change { interface: Some(about.clone()), edit }));
        }
        let orphans = self.findings.orphans.iter().cloned();
        changes
            .extend(orphans.map(|rule| Change { interface: None, edit: Edit::RemoveRule(rule) }));
        changes
    }

    /// What takes their things' place, and what removes the others, in order.
    fn removal(&self) -> Vec<(String, Request)> {
        let mut requests = Vec::new();
        let is_ours = |route: &&Route| route.protocol == OURS;
        let there: BTreeSet<Key> = self.snapshot.routes.iter().filter(is_ours).map(key).collect();
        let wanted: BTreeMap<Key, &Route> =
            self.view.desired.routes.iter().map(|route| (key(route), route)).collect();
        let mut replaced = BTreeSet::new();
        for route in self.all_theirs().flat_map(|theirs| &theirs.routes) {
            let key = key(route);
            if let Some(ours) = wanted.get(&key)
                && !there.contains(&key)
                && replaced.insert(key)
            {
                requests.push((format!("route {}", ours.destination), ours.replace()));
            }
        }
        // What is not to be ours is nobody's to remove.
        let addresses: Vec<&Address> = self
            .all_theirs()
            .flat_map(|theirs| &theirs.addresses)
            .filter(|it| self.wants(it.interface, it.address.addr()))
            .collect();
        for theirs in addresses.iter().filter(|it| is_the_same_as_ours(it)) {
            let ours = address(theirs.interface, theirs.address.addr());
            requests.push((format!("address {}", ours.address), ours.replace()));
        }
        let rules = self.all_theirs().flat_map(|theirs| &theirs.rules);
        for rule in rules.chain(&self.findings.orphans) {
            requests.push((format!("rule {}", rule.priority), rule.remove()));
        }
        let routes = self.all_theirs().flat_map(|theirs| &theirs.routes);
        for route in routes.filter(|route| !replaced.contains(&key(route))) {
            requests.push((format!("route {}", route.destination), route.remove()));
        }
        // Those that were added last are listed last, and go with the first of their subnet.
        for it in addresses.iter().rev().filter(|it| !is_the_same_as_ours(it)) {
            requests.push((format!("address {}", it.address), it.remove()));
        }
        requests
    }

    fn wants(&self, interface: u32, ip: IpAddr) -> bool {
        let interfaces = &self.view.desired.interfaces;
        interfaces.iter().any(|it| {
            it.index == interface && it.addresses.as_ref().is_some_and(|own| own.contains(&ip))
        })
    }
}

/// Whether the kernel has room for it or for ours: IPv4 tells addresses of different prefix lengths apart.
fn is_the_same_as_ours(theirs: &Address) -> bool {
    let alone = theirs.address.prefix_len() == theirs.address.max_prefix_len();
    alone || theirs.address.addr().is_ipv6()
}

/// Removes them, but what is not any more as it was judged.
pub(super) fn remove_files(
    findings: &Findings,
    files: &Files,
    root: &Path,
) -> Result<Vec<String>, ImportError> {
    let mut done = Vec::new();
    for file in findings.files.iter().filter(|file| file.fate == Fate::Remove) {
        let at = below(root, &file.path);
        match Content::at(&at) {
            None => {}
            is if is.as_ref() != files.files.get(&file.path) => {
                done.push(format!("left {}: it was changed meanwhile", file.path));
            }
            Some(_) => match fs::remove_file(&at) {
                Ok(()) => done.push(format!("removed {}", file.path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let path = file.path.clone();
                    return Err(ImportError::File { what: "remove", path, source });
                }
            },
        }
        // Theirs alone, and gone where nothing else is in it.
        if let Some(directory) = at.parent()
            && directory.to_string_lossy().ends_with(".network.d")
        {
            let _ = fs::remove_dir(directory);
        }
    }
    if findings.has(Tool::Ec2NetUtils2) {
        let _ = fs::remove_dir(below(root, "/run/amazon-ec2-net-utils/setup-policy-routes"));
        let _ = fs::remove_dir(below(root, "/run/amazon-ec2-net-utils"));
    }
    Ok(done)
}

/// What nobody does for the reader.
fn steps(findings: &Findings, files: &Files) -> Vec<String> {
    let mut steps = BTreeSet::new();
    for file in &findings.files {
        match &file.fate {
            Fate::Package(name) if name.is_empty() => {
                steps.insert(format!("dnf remove $(rpm -qf --qf '%{{NAME}}' {})", file.path));
            }
            Fate::Package(name) => {
                steps.insert(format!("apt purge {name}"));
            }
            _ => {}
        }
        // Marks of packets, for containers: jackfield's own are by nf_tables, and ours go without.
        for line in files.text(&file.path).iter().flat_map(|text| text.lines()) {
            if let Some(rule) = line.trim().strip_prefix("post-up iptables -t mangle -A ") {
                steps.insert(format!("iptables -t mangle -D {rule}"));
            }
        }
    }
    steps.into_iter().collect()
}
