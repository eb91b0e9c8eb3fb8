//! What is known of a VM: its networks by the cache, its namespace by the mark, and what follows from
//! both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jackfield_cni::runtime::{CachedAttachment, Runtime};
use jackfield_cni::types::CniResult;
use jackfield_cni::{ContainerId, InterfaceName, NetworkName};
use jackfield_vmconf::same_path;

use crate::error::Result;
use crate::mark::{Mark, Stage};
use crate::places::Places;
use crate::record::Record;
use crate::sandbox::{self, Found, Sandbox, default_path};

/// One network of a VM, as the cache tells of it.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) cached: CachedAttachment,
    pub(crate) record: Record,
    pub(crate) cache_dir: PathBuf,
}

impl Attached {
    pub(crate) fn network(&self) -> &NetworkName {
        &self.cached.name
    }

    pub(crate) fn ifname(&self) -> &InterfaceName {
        &self.cached.conf.ifname
    }

    /// The result of its ADD, where that was finished.
    pub(crate) fn result(&self) -> Option<&CniResult> {
        self.cached.result.as_ref().ok()?.as_ref()
    }

    /// The name of the VM's tap.
    pub(crate) fn tap(&self) -> Option<&str> {
        let of_vm = Some(self.cached.conf.container_id.as_str());
        let interfaces = &self.result()?.interfaces;
        let pseudo = interfaces.iter().find(|it| it.sandbox.as_deref() == of_vm)?;
        Some(&pseudo.name)
    }
}

/// What is there of a VM.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) vm: ContainerId,
    /// In the order in which they were attached.
    pub(crate) attached: Vec<Attached>,
    /// The namespace: one that carries the VM's mark, or the one that its networks name and that was
    /// there before.
    pub(crate) sandbox: Option<Sandbox>,
    /// Files on which a namespace was about to be mounted.
    pub(crate) interrupted: Vec<PathBuf>,
}

/// How a VM's network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Complete.
    Up,
    /// Something is missing, but it may be in use: only `down` removes it.
    Incomplete,
    /// Nothing can use it: interrupted work, or a namespace that is gone.
    Leftover,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Incomplete => "incomplete",
            State::Leftover => "leftover",
        }
    }
}

impl Known {
    fn new(vm: &ContainerId) -> Self {
        Known { vm: vm.clone(), attached: Vec::new(), sandbox: None, interrupted: Vec::new() }
    }

    /// What there is of a VM at the usual place, at the places where its networks say, and at
    /// `path`; `None` where there is nothing. With `everywhere`, every namespace is looked at where
    /// that shows none.
    pub(crate) fn find(
        places: &Places,
        vm: &ContainerId,
        path: Option<&Path>,
        everywhere: bool,
    ) -> Result<Option<Self>> {
        let mut known = Known::new(vm);
        let cache_dir = places.cache_dir();
        known.attached = attached(&cache_dir, Some(vm))?;
        let usual = default_path(vm);
        known.look_at(path.unwrap_or(&usual))?;
        known.look_at(&usual)?;
        known.look_where_networks_say()?;
        if everywhere && known.is_empty() {
            known.sandbox = sandbox::all()?.into_iter().find(|sandbox| sandbox.is_of(vm));
        }
        known.look_into_the_marks_cache(&[cache_dir])?;
        Ok((!known.is_empty()).then_some(known))
    }

    /// Every VM that there is something of.
    pub(crate) fn all(places: &Places) -> Result<Vec<Self>> {
        let mut all: BTreeMap<ContainerId, Known> = BTreeMap::new();
        let mut caches = vec![places.cache_dir()];
        for sandbox in sandbox::all()? {
            let Some(Mark { vm, cache_dir, .. }) = sandbox.mark.clone() else { continue };
            if !caches.contains(&cache_dir) {
                caches.push(cache_dir);
            }
            let known = all.entry(vm.clone()).or_insert_with(|| Known::new(&vm));
            // One namespace can be mounted at several paths: the first is as good as any.
            known.sandbox.get_or_insert(sandbox);
        }
        for cache in &caches {
            for attached in attached(cache, None)? {
                let vm = attached.cached.conf.container_id.clone();
                all.entry(vm.clone()).or_insert_with(|| Known::new(&vm)).attached.push(attached);
            }
        }
        for (path, mark) in sandbox::interrupted() {
            let known = all.entry(mark.vm.clone()).or_insert_with(|| Known::new(&mark.vm));
            known.interrupted.push(path);
        }
        let mut all: Vec<_> = all.into_values().collect();
        for known in &mut all {
            known.look_where_networks_say()?;
        }
        Ok(all)
    }

    fn is_empty(&self) -> bool {
        self.attached.is_empty() && self.sandbox.is_none() && self.interrupted.is_empty()
    }

    /// Takes what is at a path, where it is this VM's by its mark.
    fn look_at(&mut self, path: &Path) -> Result<()> {
        match Found::at(path)? {
            Found::Namespace(sandbox) if sandbox.is_of(&self.vm) => {
                self.sandbox.get_or_insert(sandbox);
            }
            Found::Interrupted(mark)
                if mark.vm == self.vm && !self.interrupted.iter().any(|known| known == path) =>
            {
                self.interrupted.push(path.to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    /// A namespace that was there before need not have a mark, and one that was made has: another at
    /// its path is none of this VM's.
    fn look_where_networks_say(&mut self) -> Result<()> {
        let said: Vec<_> = (self.attached.iter())
            .filter_map(|it| Some((it.cached.conf.netns.clone()?, it.record.namespace_made)))
            .collect();
        for (path, made) in said {
            if self.sandbox.is_some() {
                return Ok(());
            }
            match Found::at(&path)? {
                Found::Namespace(sandbox) if sandbox.is_of(&self.vm) || !made => {
                    self.sandbox = Some(sandbox);
                }
                _ => self.look_at(&path)?,
            }
        }
        Ok(())
    }

    fn look_into_the_marks_cache(&mut self, looked_into: &[PathBuf]) -> Result<()> {
        let mark = self.sandbox.as_ref().and_then(|sandbox| sandbox.mark.as_ref());
        if let Some(mark) = mark.filter(|mark| mark.vm == self.vm)
            && !looked_into.contains(&mark.cache_dir)
        {
            self.attached.extend(attached(&mark.cache_dir, Some(&self.vm))?);
        }
        Ok(())
    }

    /// How far the VM's network is, by its mark.
    pub(crate) fn stage(&self) -> Option<Stage> {
        let mark = self.sandbox.as_ref()?.mark.as_ref()?;
        (mark.vm == self.vm).then_some(mark.stage)
    }

    /// The path of the namespace for one of the networks; `None` where it is gone.
    pub(crate) fn netns_of(&self, attached: &Attached) -> Option<PathBuf> {
        let said = attached.cached.conf.netns.as_ref()?;
        let sandbox = self.sandbox.as_ref()?;
        let same = same_path(said.to_str()?, sandbox.path.to_str()?);
        same.then(|| said.clone())
    }

    /// How it is, and what is wrong with it.
    pub(crate) fn judge(&self) -> (State, Vec<String>) {
        let mut problems = self.missing();
        let incomplete = !problems.is_empty();
        let state = match (&self.sandbox, self.stage()) {
            (None, _) => {
                let mut state = State::Leftover;
                for inhabitant in self.attached.iter().filter_map(|it| it.record.inhabitant()) {
                    state = State::Incomplete;
                    problems.push(format!("process {inhabitant} still is in its namespace"));
                }
                problems.dedup();
                problems.insert(0, "its network namespace is gone".to_owned());
                state
            }
            (_, Some(Stage::Making)) => {
                problems.insert(0, "it was being made when that was interrupted".to_owned());
                State::Leftover
            }
            (_, Some(Stage::Ending)) => {
                problems.insert(0, "it was being taken down when that was interrupted".to_owned());
                State::Leftover
            }
            (_, Some(Stage::Up)) if incomplete => State::Incomplete,
            (_, None) if incomplete => State::Leftover,
            _ => State::Up,
        };
        (state, problems)
    }

    /// Networks that were not attached to the end, or that the cache does not know any more.
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let networks = self.attached.first().map_or(0, |first| first.record.networks);
        if self.attached.len() < networks.max(1) {
            missing.push(match networks {
                0 => "the cache knows none of its networks".to_owned(),
                _ => format!("the cache knows {} of its {networks} networks", self.attached.len()),
            });
        }
        for attached in &self.attached {
            let name = attached.network();
            match &attached.cached.result {
                Ok(Some(_)) => {}
                Ok(None) => missing.push(format!("network {name} was not attached to the end")),
                Err(error) => missing.push(format!("network {name}: {error}")),
            }
        }
        missing
    }
}

/// The networks of VMs that a cache tells of: one VM's, or all.
fn attached(cache_dir: &Path, vm: Option<&ContainerId>) -> Result<Vec<Attached>> {
    let runtime = Runtime { cache_dir: cache_dir.to_owned(), ..Runtime::new(Vec::new()) };
    let (cached, broken) = runtime.cached_attachments(vm)?;
    for error in broken {
        log::warn!("{error}");
    }
    let mut attached: Vec<_> = cached
        .into_iter()
        .filter_map(|cached| {
            // Without a record it is another runtime's.
            let record = Record::of(&cached)?;
            Some(Attached { cached, record, cache_dir: cache_dir.to_owned() })
        })
        .collect();
    attached.sort_by_key(|it| it.record.position);
    Ok(attached)
}
