//! Plugins run for a network: what a container runtime does by the specification.
//!
//! Everything is synchronous, and plugins run in the network namespace of the calling thread. What
//! was attached is remembered in a cache that libcni and its tools read as well.

mod cache;
mod chain;
mod execute;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

pub use cache::CachedAttachment;

use crate::plugin::Attachment;
use crate::types::Extra;
use crate::{CniArgs, ContainerId, InterfaceName};

/// Where plugins and the cache are, and how plugins are run.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where plugins are; the first that has one gives it. Also their `CNI_PATH`.
    pub plugin_dirs: Vec<PathBuf>,
    /// The directory of the cache: results are in `results` below it.
    pub cache_dir: PathBuf,
    /// How long one plugin may take, before it is killed with its process group.
    pub deadline: Duration,
    /// Called on every plugin's command before it is started: the place for what should happen to
    /// plugins when this process ends.
    pub prepare: fn(&mut Command),
}

/// What one attachment is made with: libcni's `RuntimeConf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConf {
    /// The container, or VM.
    pub container_id: ContainerId,
    /// The path of the network namespace; `None` only for DEL, where it is gone.
    pub netns: Option<PathBuf>,
    /// The interface in the container.
    pub ifname: InterfaceName,
    /// `CNI_ARGS`
    pub args: CniArgs,
    /// Capability arguments: each plugin gets those, as `runtimeConfig`, whose names are in its
    /// `capabilities`.
    pub capability_args: Extra,
}

impl Runtime {
    /// libcni's cache directory.
    pub const CACHE_DIR: &str = "/var/lib/cni";

    /// How long one plugin may take where nothing else is said. DHCP plugins wait long.
    pub const DEADLINE: Duration = Duration::from_secs(60);

    /// A runtime with libcni's cache directory.
    #[must_use]
    pub fn new(plugin_dirs: Vec<PathBuf>) -> Self {
        Self {
            plugin_dirs,
            cache_dir: Self::CACHE_DIR.into(),
            deadline: Self::DEADLINE,
            prepare: |_| (),
        }
    }
}

impl RuntimeConf {
    /// An attachment without arguments.
    #[must_use]
    pub fn new(container_id: ContainerId, netns: Option<PathBuf>, ifname: InterfaceName) -> Self {
        let (args, capability_args) = (CniArgs::default(), Extra::new());
        Self { container_id, netns, ifname, args, capability_args }
    }

    /// The attachment as GC names it.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        Attachment { container_id: self.container_id.clone(), ifname: self.ifname.clone() }
    }
}
