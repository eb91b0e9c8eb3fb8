//! Network configurations: lists of plugins.
//!
//! [`load`] finds a network by its name in directories; [`NetworkList::parse`] reads one list.

mod find;
mod parse;

use serde_json::{Value, json};

use crate::types::{Extra, Version};
use crate::{Error, NetworkName, PluginName};

pub use find::load;

/// A network: the plugins that make it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkList {
    /// Its name.
    pub name: NetworkName,
    /// The version in which plugins are spoken to: the newest that `cniVersion` and `cniVersions`
    /// name and this crate knows.
    pub version: Version,
    /// CHECK does nothing.
    pub disable_check: bool,
    /// GC does nothing.
    pub disable_gc: bool,
    /// The plugins, those of the network's own directory included.
    pub plugins: Vec<PluginConfig>,
    /// Fields that are not known.
    pub extra: Extra,
}

/// One plugin of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginConfig {
    /// `type`: which plugin.
    pub plugin: PluginName,
    /// `capabilities` that are true: what it may be given in `runtimeConfig`.
    pub capabilities: Vec<String>,
    /// The whole configuration as it was read.
    pub fields: Extra,
}

impl NetworkList {
    /// Reads a network list, or the configuration of a single plugin, which is made a list of one.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`], [`Error::Field`] with the path and the value,
    /// [`Error::UnsupportedVersion`].
    pub fn parse(json: impl AsRef<[u8]>) -> Result<Self, Error> {
        parse::network(json.as_ref())
    }

    /// The list as one document that [`parse`](Self::parse) and libcni read: what the cache keeps.
    /// Plugins that came from the network's own directory are in it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut fields = self.extra.clone();
        let plugins: Vec<_> = self.plugins.iter().map(|it| it.fields.clone()).collect();
        fields.insert("name".into(), json!(self.name));
        fields.insert("cniVersion".into(), json!(self.version));
        for (name, set) in [
            ("disableCheck", self.disable_check),
            ("disableGC", self.disable_gc),
            ("loadOnlyInlinedPlugins", true),
        ] {
            if set {
                fields.insert(name.into(), true.into());
            }
        }
        fields.insert("plugins".into(), json!(plugins));
        Value::Object(fields)
    }
}
