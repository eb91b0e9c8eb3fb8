//! What a plugin is asked to do: its environment and standard input, checked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::types::{CniResult, Extra, Version};
use crate::{CniArgs, ContainerId, Error, InterfaceName, NetworkName};

/// ADD and CHECK.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `CNI_CONTAINERID`
    pub container_id: ContainerId,
    /// `CNI_NETNS`: the path of the network namespace.
    pub netns: PathBuf,
    /// `CNI_NETNS_OVERRIDE`: it may be the namespace that the plugin itself runs in.
    pub netns_override: bool,
    /// `CNI_IFNAME`
    pub ifname: InterfaceName,
    /// `CNI_ARGS`
    pub args: CniArgs,
    /// `CNI_PATH`: where plugins are, for one that delegates.
    pub path: Vec<PathBuf>,
    /// The network's configuration.
    pub config: NetworkConfig,
    /// The configuration's version, in which the result is printed.
    pub version: Version,
    /// The result of the plugin before in the chain; for CHECK, of the whole ADD.
    pub prev_result: Option<CniResult>,
}

/// DEL. It has to clean up whatever it can find, so what may be wrong is passed on as it is: a
/// plugin that finds its own things by other means need not look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct DelRequest {
    /// `CNI_CONTAINERID`
    pub container_id: ContainerId,
    /// `CNI_NETNS`: the path of the network namespace; `None` where it is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_NETNS_OVERRIDE`: it may be the namespace that the plugin itself runs in.
    pub netns_override: bool,
    /// `CNI_IFNAME`
    pub ifname: InterfaceName,
    /// `CNI_ARGS`
    pub args: Result<CniArgs, Error>,
    /// `CNI_PATH`: where plugins are, for one that delegates.
    pub path: Vec<PathBuf>,
    /// The network's configuration.
    pub config: NetworkConfig,
    /// The configuration's version.
    pub version: Result<Version, Error>,
    /// The result of the ADD, from version 0.4.0 on.
    pub prev_result: Result<Option<CniResult>, Error>,
}

/// GC.
#[derive(Debug, Clone, PartialEq)]
pub struct GcRequest {
    /// `CNI_PATH`: where plugins are, for one that delegates.
    pub path: Vec<PathBuf>,
    /// The network's configuration.
    pub config: NetworkConfig,
    /// The configuration's version.
    pub version: Version,
    /// The attachments of this network that are still valid; of all others everything goes.
    pub valid_attachments: Vec<Attachment>,
}

/// STATUS.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusRequest {
    /// `CNI_PATH`: where plugins are, for one that delegates.
    pub path: Vec<PathBuf>,
    /// The network's configuration.
    pub config: NetworkConfig,
    /// The configuration's version.
    pub version: Version,
}

/// One container or VM on one network by one interface, as GC names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Its interface.
    pub ifname: InterfaceName,
}

/// The configuration of one plugin of a network, as the plugin gets it on standard input.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// The network's name.
    pub name: NetworkName,
    /// `type`: the plugin's own name.
    pub plugin_type: Option<String>,
    /// `args`: arguments from the runtime, by conventions.
    pub args: Option<Value>,
    /// `runtimeConfig`: what the runtime gave for the plugin's capabilities.
    pub runtime_config: Option<Value>,
    /// Everything else: the plugin's own settings.
    pub extra: Extra,
}
