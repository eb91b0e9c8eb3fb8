//! What no VM owns any more, removed.
//!
//! A VM owns its network from the moment at which `up` succeeds until `down` begins. What is of a VM
//! and is outside of that is a *leftover*:
//!
//! - a namespace whose mark says that `up` or `down` works on it, while nobody does;
//! - networks in the cache whose namespace is gone, and no process is in it;
//! - networks in a namespace that was there before and cannot be marked, where not all of the VM's
//!   networks were attached to the end;
//! - the file on which a namespace was about to be mounted.
//!
//! A VM that is up is not touched, whether something uses it or not: who made it may be about to
//! start it. Nor is one that is up and of which something is missing.

use std::collections::BTreeMap;

use jackfield_cni::config::{self, NetworkList};
use jackfield_cni::plugin::Attachment;
use jackfield_cni::runtime::Runtime;
use jackfield_cni::types::Version;
use jackfield_cni::{ContainerId, NetworkName};

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::guests::Guests;
use crate::known::{Known, State};
use crate::lock::{AllLock, Lock};

/// What a clean-up did.
#[derive(Debug, Default)]
pub struct Gc {
    /// VMs of which leftovers were removed.
    pub removed: Vec<ContainerId>,
    /// Networks whose plugins were asked to remove what is left of attachments.
    pub networks: Vec<NetworkName>,
    /// What could not be done; the rest is done.
    pub failed: Vec<Error>,
    /// What was left alone, and why.
    pub remarks: Vec<String>,
}

impl Guests {
    /// Removes what no VM owns any more, then has plugins remove what is left of attachments that
    /// nobody knows: those of networks that a VM has or had, whose version has GC, with all
    /// attachments that any known cache tells of as the valid ones.
    ///
    /// # Errors
    /// The cache or the mounts cannot be read. What fails after that is in [`Gc::failed`].
    pub fn gc(&self) -> Result<Gc> {
        let mut gc = Gc::default();
        let known = Known::all(&self.places)?;
        let plugin_gc = Networks::of(self, &known);
        let mut vms: Vec<_> = (known.into_iter())
            .filter(|known| known.judge().0 == State::Leftover)
            .map(|known| known.vm)
            .collect();
        // Their locks, at least.
        vms.extend(Lock::vms());
        vms.sort();
        vms.dedup();
        for vm in vms {
            if let Err(error) = self.remove_leftover(&vm, &mut gc) {
                gc.failed.push(error);
            }
        }
        if let Err(error) = self.plugins_gc(&plugin_gc, &mut gc) {
            gc.failed.push(error);
        }
        Ok(gc)
    }

    fn remove_leftover(&self, vm: &ContainerId, gc: &mut Gc) -> Result<()> {
        let _lock = match Lock::take(vm, Duration::ZERO, self.plugin_deadline) {
            Err(Error::Busy { vm, .. }) => {
                gc.remarks.push(format!("VM {vm}: another process works on it"));
                return Ok(());
            }
            lock => lock?,
        };
        // Now that nobody changes it any more.
        let Some(known) = self.find(vm)? else { return Ok(()) };
        if known.judge().0 == State::Leftover {
            let failed = self.tear_down(known);
            if failed.is_empty() {
                gc.removed.push(vm.clone());
            }
            gc.failed.extend(failed);
        }
        Ok(())
    }

    fn plugins_gc(&self, networks: &Networks, gc: &mut Gc) -> Result<()> {
        if networks.lists.is_empty() {
            return Ok(());
        }
        // What somebody attaches meanwhile would not be among the valid ones.
        let Some(_all) = AllLock::take(self.lock_wait)? else {
            gc.remarks.push("plugins were not asked: VMs were worked on all the time".to_owned());
            return Ok(());
        };
        let valid = networks.valid()?;
        for (name, (list, runtime)) in &networks.lists {
            match valid.get(name) {
                // An empty list would mean that nothing is valid, and so would a lost cache.
                None => gc.remarks.push(format!(
                    "network {name}: its plugins were not asked: the cache knows no attachment"
                )),
                Some(valid) => match runtime.gc(list, valid) {
                    Ok(()) => gc.networks.push(name.clone()),
                    Err(error) => gc.failed.push(error.into()),
                },
            }
        }
        Ok(())
    }
}

/// Networks whose plugins know GC.
struct Networks {
    lists: BTreeMap<NetworkName, (NetworkList, Runtime)>,
    caches: Vec<PathBuf>,
}

impl Networks {
    fn of(guests: &Guests, known: &[Known]) -> Self {
        let mut networks =
            Networks { lists: BTreeMap::new(), caches: vec![guests.places.cache_dir()] };
        let directories = guests.places.conf_dirs();
        for attached in known.iter().flat_map(|known| &known.attached) {
            if !networks.caches.contains(&attached.cache_dir) {
                networks.caches.push(attached.cache_dir.clone());
            }
            let name = attached.network();
            if networks.lists.contains_key(name) {
                continue;
            }
            let list = config::load(&directories, name).or(attached.cached.network.clone());
            if let Ok(list) = list
                && list.version >= Version::V1_1_0
                && !list.disable_gc
            {
                let runtime = guests.runtime_of(attached);
                networks.lists.insert(name.clone(), (list, runtime));
            }
        }
        networks
    }

    /// Every attachment that a known cache tells of, whoever made it.
    fn valid(&self) -> Result<BTreeMap<NetworkName, Vec<Attachment>>> {
        let mut valid: BTreeMap<NetworkName, Vec<Attachment>> = BTreeMap::new();
        for cache in &self.caches {
            let runtime = Runtime { cache_dir: cache.clone(), ..Runtime::new(Vec::new()) };
            let (cached, broken) = runtime.cached_attachments(None)?;
            // What cannot be read may be valid.
            if let Some(error) = broken.into_iter().next() {
                return Err(error.into());
            }
            for attached in cached {
                valid.entry(attached.name).or_default().push(attached.conf.attachment());
            }
        }
        Ok(valid)
    }
}
