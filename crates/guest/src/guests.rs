//! What is the same for all that is done with VMs.

use std::time::Duration;

use jackfield_cni::ContainerId;
use jackfield_cni::config::{self, NetworkList};
use jackfield_cni::runtime::{Runtime, RuntimeConf};

use crate::error::{Error, Result, file};
use crate::known::{Attached, Known};
use crate::lock::Lock;
use crate::mark::Stage;
use crate::places::Places;

/// The VMs of this machine: where their parts are, and how long things may take.
#[derive(Debug, Clone)]
pub struct Guests {
    /// Where things are.
    pub places: Places,
    /// How long one plugin may take.
    pub plugin_deadline: Duration,
    /// How long somebody else who works on the same VM is waited for.
    pub lock_wait: Duration,
}

impl Default for Guests {
    /// Usual places, and 60 s for each.
    fn default() -> Self {
        Guests {
            places: Places::default(),
            plugin_deadline: Runtime::DEADLINE,
            lock_wait: Runtime::DEADLINE,
        }
    }
}

impl Guests {
    pub(crate) fn lock(&self, vm: &ContainerId) -> Result<Lock> {
        Lock::take(vm, self.lock_wait, self.plugin_deadline)
    }

    pub(crate) fn find(&self, vm: &ContainerId) -> Result<Option<Known>> {
        Known::find(&self.places, vm, None, true)
    }

    /// The runtime that a network was attached with.
    pub(crate) fn runtime_of(&self, attached: &Attached) -> Runtime {
        let given = self.places.plugin_dirs.clone();
        Runtime {
            plugin_dirs: given.unwrap_or_else(|| attached.record.plugin_dirs.clone()),
            cache_dir: attached.cache_dir.clone(),
            deadline: self.plugin_deadline,
            ..Runtime::new(Vec::new())
        }
    }

    /// The configuration that a network was attached with; where the cache's cannot be read, the
    /// one that there is now.
    pub(crate) fn network_of(&self, attached: &Attached) -> Result<NetworkList> {
        attached.cached.network.clone().or_else(|error| {
            let found = config::load(&self.places.conf_dirs(), attached.network());
            // Why the cache's cannot be used says more.
            found.map_err(|_| error.into())
        })
    }

    /// Takes all of a VM down, last network first, and carries on past what fails.
    pub(crate) fn tear_down(&self, mut known: Known) -> Vec<Error> {
        let mut failed = Vec::new();
        let mut caches = vec![self.places.cache_dir()];
        caches.extend(known.attached.iter().map(|attached| attached.cache_dir.clone()));
        caches.extend(
            known.sandbox.iter().filter_map(|it| Some(it.mark.as_ref()?.cache_dir.clone())),
        );
        caches.sort();
        caches.dedup();
        if let Some(sandbox) = known.sandbox.as_mut().filter(|it| it.is_of(&known.vm)) {
            failed.extend(sandbox.set_stage(Stage::Ending).err());
        }
        for attached in known.attached.iter().rev() {
            failed.extend(self.detach(&known, attached).err());
        }
        if let Some(sandbox) = known.sandbox.filter(|sandbox| sandbox.is_of(&known.vm)) {
            failed.extend(sandbox.remove().err());
        }
        let others: Vec<_> = Lock::vms().into_iter().filter(Lock::is_held).collect();
        for cache_dir in caches {
            let runtime = Runtime { cache_dir, ..Runtime::new(Vec::new()) };
            failed.extend(runtime.forget_unfinished(&known.vm, &others).map_err(Error::from).err());
        }
        for path in known.interrupted {
            failed.extend(std::fs::remove_file(&path).map_err(file("remove", path)).err());
        }
        failed
    }

    fn detach(&self, known: &Known, attached: &Attached) -> Result<()> {
        let conf = RuntimeConf { netns: known.netns_of(attached), ..attached.cached.conf.clone() };
        Ok(self.runtime_of(attached).del(&self.network_of(attached)?, &conf)?)
    }
}
