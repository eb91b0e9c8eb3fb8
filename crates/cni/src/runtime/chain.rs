//! The commands, over the plugins of a network.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::execute::{Execution, shown};
use super::{CachedAttachment, Runtime, RuntimeConf};
use crate::config::{NetworkList, PluginConfig};
use crate::plugin::Attachment;
use crate::types::{CniResult, Extra, Version};
use crate::{Error, NetworkName, PluginFailure, PluginName};

/// One command for one network.
struct Call<'a> {
    runtime: &'a Runtime,
    network: &'a NetworkList,
    command: &'static str,
    /// `None` for GC and STATUS.
    conf: Option<&'a RuntimeConf>,
}

impl Runtime {
    /// Adds an attachment: every plugin's ADD in order, each with the result of the one before. The
    /// last one's is returned, and remembered in the cache. When one fails, it and those before it
    /// are undone by DEL.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyAttached`]; [`Error::CacheClash`]; [`Error::Plugin`] with the plugin that
    /// failed; [`Error::NotUndone`] where undoing failed too: then the cache still has the
    /// attachment, for a later DEL.
    pub fn add(&self, network: &NetworkList, conf: &RuntimeConf) -> Result<CniResult, Error> {
        match self.cached(&network.name, conf) {
            Ok(Some(CachedAttachment { result: Ok(Some(_)), .. })) => {
                return Err(Error::AlreadyAttached {
                    network: network.name.clone(),
                    container_id: conf.container_id.clone(),
                    ifname: conf.ifname.clone(),
                });
            }
            Err(clash @ Error::CacheClash { .. }) => return Err(clash),
            // An ADD that was not finished, or an entry that tells nothing.
            _ => {}
        }
        self.remember(network, conf, None)?;
        let call = Call { runtime: self, network, command: "ADD", conf: Some(conf) };
        let mut result = None;
        for (position, plugin) in network.plugins.iter().enumerate() {
            match call.add(plugin, result.as_ref()) {
                Ok(new) => result = Some(new),
                Err(error) => {
                    let ran = position + usize::from(!never_ran(&error));
                    let ran = network.plugins.get(..ran).unwrap_or_default();
                    return Err(self.undo(network, conf, ran, result.as_ref(), error));
                }
            }
        }
        let result = result.unwrap_or_default();
        match self.remember(network, conf, Some(&result)) {
            Ok(()) => Ok(result),
            Err(error) => Err(self.undo(network, conf, &network.plugins, Some(&result), error)),
        }
    }

    fn undo(
        &self,
        network: &NetworkList,
        conf: &RuntimeConf,
        ran: &[PluginConfig],
        result: Option<&CniResult>,
        error: Error,
    ) -> Error {
        let call = Call { runtime: self, network, command: "DEL", conf: Some(conf) };
        let mut undo = call.del(ran, result);
        if undo.is_empty() {
            undo.extend(self.forget(&network.name, conf).err());
        }
        if undo.is_empty() { error } else { Error::NotUndone { error: Box::new(error), undo } }
    }

    /// Removes an attachment, or what is left of one: every plugin's DEL in reverse, from version
    /// 0.4.0 on with the ADD's result where the cache has it. A plugin that fails or is not
    /// installed does not keep the others from being called. When all have succeeded the cache
    /// forgets it.
    ///
    /// # Errors
    ///
    /// All that failed.
    pub fn del(&self, network: &NetworkList, conf: &RuntimeConf) -> Result<(), Error> {
        // Without the result a plugin finds what it can by itself: an entry that cannot be read is
        // no reason to leave everything.
        let cached = self.cached(&network.name, conf);
        let is_anothers = matches!(cached, Err(Error::CacheClash { .. }));
        let result = cached.ok().flatten().and_then(|cached| cached.result.ok().flatten());
        let call = Call { runtime: self, network, command: "DEL", conf: Some(conf) };
        let mut failed = call.del(&network.plugins, result.as_ref());
        if failed.is_empty() && !is_anothers {
            failed.extend(self.forget(&network.name, conf).err());
        }
        Error::all(failed)
    }

    /// Checks that an attachment is as ADD left it, unless the network has `disableCheck`.
    ///
    /// # Errors
    ///
    /// The first thing that is not; [`Error::NotAttached`]; [`Error::CommandNotInVersion`] before
    /// version 0.4.0.
    pub fn check(&self, network: &NetworkList, conf: &RuntimeConf) -> Result<(), Error> {
        if network.version < Version::V0_4_0 {
            return Err(Error::CommandNotInVersion {
                network: network.name.clone(),
                command: "CHECK",
                version: network.version,
                since: Version::V0_4_0,
            });
        }
        if network.disable_check {
            return Ok(());
        }
        let cached = self.cached(&network.name, conf)?;
        let result = cached.map(|cached| cached.result).transpose()?.flatten();
        let Some(result) = result else {
            return Err(Error::NotAttached {
                network: network.name.clone(),
                container_id: conf.container_id.clone(),
                ifname: conf.ifname.clone(),
            });
        };
        let call = Call { runtime: self, network, command: "CHECK", conf: Some(conf) };
        for plugin in &network.plugins {
            call.execute(plugin, call.with_result(plugin, Some(&result))?)?;
        }
        Ok(())
    }

    /// Removes what is left of attachments other than the given ones, unless the network has
    /// `disableGC`: by DEL of those that the cache knows, then, from version 1.1.0 on, by every
    /// plugin's GC. A failure does not keep the rest from being done.
    ///
    /// An empty list means that nothing on this network is valid any more.
    ///
    /// # Errors
    ///
    /// All that failed.
    pub fn gc(&self, network: &NetworkList, valid: &[Attachment]) -> Result<(), Error> {
        if network.disable_gc {
            return Ok(());
        }
        let (cached, _) = self.cached_attachments(None)?;
        let mut failed = Vec::new();
        for stale in cached {
            if stale.name == network.name && !valid.contains(&stale.conf.attachment()) {
                let made_by = stale.network.as_ref().unwrap_or(network);
                failed.extend(self.del(made_by, &stale.conf).err());
            }
        }
        if network.version >= Version::V1_1_0 {
            let call = Call { runtime: self, network, command: "GC", conf: None };
            for plugin in &network.plugins {
                let mut fields = call.fields(plugin);
                // The second is what an earlier text of the specification called it.
                for name in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                    fields.insert(name.into(), json!(valid));
                }
                failed.extend(call.execute(plugin, fields).err());
            }
        }
        Error::all(failed)
    }

    /// Whether an ADD can be served, as far as the plugins know: from version 1.1.0 on; before it,
    /// nothing is asked.
    ///
    /// # Errors
    ///
    /// The first plugin's that cannot.
    pub fn status(&self, network: &NetworkList) -> Result<(), Error> {
        if network.version < Version::V1_1_0 {
            return Ok(());
        }
        let call = Call { runtime: self, network, command: "STATUS", conf: None };
        for plugin in &network.plugins {
            call.execute(plugin, call.fields(plugin))?;
        }
        Ok(())
    }

    /// The versions that a plugin supports, as it writes them: some may be newer than this crate.
    ///
    /// # Errors
    ///
    /// It is not installed, fails, or its answer cannot be read.
    pub fn version(&self, plugin: &PluginName) -> Result<Vec<String>, PluginFailure> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(rename = "cniVersion")]
            version: String,
            #[serde(rename = "supportedVersions", default)]
            supported: Vec<String>,
        }
        let stdin = json!({"cniVersion": Version::LATEST});
        // Plugins from before VERSION look whether these are there.
        let unused = [("CNI_NETNS", "dummy"), ("CNI_IFNAME", "dummy"), ("CNI_PATH", "dummy")];
        let mut environment: Vec<_> = unused.map(|(name, value)| (name, value.into())).into();
        environment.push(("CNI_COMMAND", "VERSION".into()));
        let old = |versions: &[Version]| Ok(versions.iter().map(ToString::to_string).collect());
        let output = match self.execute(plugin, environment, &stdin) {
            Err(PluginFailure::Reported { error, .. })
                if error.msg == "unknown CNI_COMMAND: VERSION" =>
            {
                return old(&[Version::V0_1_0]);
            }
            output => output?,
        };
        match serde_json::from_slice::<Answer>(&output) {
            Ok(Answer { version, supported }) if supported.is_empty() && version == "0.2.0" => {
                old(&[Version::V0_1_0, Version::V0_2_0])
            }
            Ok(Answer { supported, .. }) if !supported.is_empty() => Ok(supported),
            Ok(_) => {
                let reason = "it has no supportedVersions".into();
                Err(PluginFailure::Output { reason, stdout: shown(&output) })
            }
            Err(error) => {
                let reason = error.to_string();
                Err(PluginFailure::Output { reason, stdout: shown(&output) })
            }
        }
    }

    fn execute(
        &self,
        plugin: &PluginName,
        environment: Vec<(&'static str, OsString)>,
        stdin: &Value,
    ) -> Result<Vec<u8>, PluginFailure> {
        let executable = self.find(plugin)?;
        let stdin = stdin.to_string().into_bytes();
        let (deadline, prepare) = (self.deadline, self.prepare);
        Execution { executable: &executable, environment, stdin, deadline, prepare }.run()
    }

    fn find(&self, plugin: &PluginName) -> Result<PathBuf, PluginFailure> {
        self.plugin_dirs
            .iter()
            .map(|directory| directory.join(plugin.as_str()))
            .find(|path| path.is_file())
            .ok_or_else(|| PluginFailure::NotInstalled { directories: self.plugin_dirs.clone() })
    }
}

fn never_ran(error: &Error) -> bool {
    matches!(error, Error::Plugin { failure, .. } if failure.never_ran())
}

/// A file is in the way where the namespace was: what is left when its mount is gone. Plugins take
/// that for an error, but not that there is no namespace any more.
fn is_no_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|it| it.f_type != NSFS_MAGIC)
}

impl Call<'_> {
    fn add(&self, plugin: &PluginConfig, before: Option<&CniResult>) -> Result<CniResult, Error> {
        let output = self.execute(plugin, self.with_result(plugin, before)?)?;
        CniResult::parse_for(&output, self.network.version).map_err(|error| {
            let (reason, stdout) = (error.to_string(), shown(&output));
            self.failed(plugin, PluginFailure::Output { reason, stdout })
        })
    }

    /// DEL of some plugins in reverse; all that failed.
    fn del(&self, plugins: &[PluginConfig], result: Option<&CniResult>) -> Vec<Error> {
        let result = result.filter(|_| self.network.version >= Version::V0_4_0);
        let del = |plugin| {
            // A result that cannot be said in this version is one that cannot be given.
            let fields =
                self.with_result(plugin, result).unwrap_or_else(|_| self.with_conf(plugin));
            self.execute(plugin, fields).err()
        };
        plugins.iter().rev().filter_map(del).collect()
    }

    /// A plugin's configuration for this network.
    fn fields(&self, plugin: &PluginConfig) -> Extra {
        let mut fields = plugin.fields.clone();
        fields.insert("name".into(), json!(self.network.name));
        fields.insert("cniVersion".into(), json!(self.network.version));
        fields
    }

    /// With the capability arguments that are meant for it.
    fn with_conf(&self, plugin: &PluginConfig) -> Extra {
        let mut fields = self.fields(plugin);
        let given = self.conf.map(|conf| &conf.capability_args);
        let runtime_config: Extra = plugin
            .capabilities
            .iter()
            .filter_map(|name| Some((name.clone(), given?.get(name)?.clone())))
            .collect();
        if !runtime_config.is_empty() {
            fields.insert("runtimeConfig".into(), runtime_config.into());
        }
        fields
    }

    /// With the result before, in the configuration's version.
    fn with_result(
        &self,
        plugin: &PluginConfig,
        result: Option<&CniResult>,
    ) -> Result<Extra, Error> {
        let mut fields = self.with_conf(plugin);
        if let Some(result) = result {
            fields.insert("prevResult".into(), result.to_version(self.network.version)?);
        }
        Ok(fields)
    }

    fn execute(&self, plugin: &PluginConfig, fields: Extra) -> Result<Vec<u8>, Error> {
        self.environment()
            .and_then(|it| self.runtime.execute(&plugin.plugin, it, &Value::Object(fields)))
            .map_err(|failure| self.failed(plugin, failure))
    }

    /// Variables that mean nothing here are there and empty, so that none is inherited.
    fn environment(&self) -> Result<Vec<(&'static str, OsString)>, PluginFailure> {
        let path = std::env::join_paths(&self.runtime.plugin_dirs).map_err(|error| {
            PluginFailure::System { attempt: "make CNI_PATH", reason: error.to_string() }
        })?;
        let text = |of: fn(&RuntimeConf) -> String| self.conf.map(of).unwrap_or_default().into();
        let netns = self.conf.and_then(|conf| conf.netns.clone());
        let netns = netns.filter(|it| self.command != "DEL" || !is_no_namespace(it));
        Ok(vec![
            ("CNI_COMMAND", self.command.into()),
            ("CNI_CONTAINERID", text(|conf| conf.container_id.to_string())),
            ("CNI_NETNS", netns.unwrap_or_default().into()),
            ("CNI_IFNAME", text(|conf| conf.ifname.to_string())),
            ("CNI_ARGS", text(|conf| conf.args.to_string())),
            ("CNI_PATH", path),
        ])
    }

    fn failed(&self, plugin: &PluginConfig, failure: PluginFailure) -> Error {
        let network: NetworkName = self.network.name.clone();
        let (plugin, command) = (plugin.plugin.to_string(), self.command);
        Error::Plugin { network, plugin, command, failure: Box::new(failure) }
    }
}
