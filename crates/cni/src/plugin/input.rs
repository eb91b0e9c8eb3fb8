//! Reading environment and standard input.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    Attachment, DelRequest, ErrorCode, GcRequest, NetworkConfig, PluginError, Request,
    StatusRequest,
};
use crate::types::{CniResult, Extra, Version, from_slice};
use crate::{CniArgs, ContainerId, Error, InterfaceName, NetworkName};

const DOCUMENT: &str = "network configuration";

/// What a plugin is asked by `CNI_COMMAND`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// The environment as it was found: empty variables are missing ones.
pub(super) struct Environment {
    pub(super) command: Command,
    container_id: OsString,
    netns: OsString,
    netns_override: bool,
    ifname: OsString,
    args: OsString,
    path: OsString,
}

impl Environment {
    /// Reads it, and checks that all is there that the command needs.
    ///
    /// # Errors
    ///
    /// Code 4 with every missing variable, or with the command where that is unknown.
    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, PluginError> {
        let value = |name: &str| variable(name).unwrap_or_default();
        let name = value("CNI_COMMAND");
        let (command, needs): (Command, &[&str]) = match name.to_str() {
            Some("ADD") => (Command::Add, &["CONTAINERID", "NETNS", "IFNAME", "PATH"]),
            Some("CHECK") => (Command::Check, &["CONTAINERID", "NETNS", "IFNAME", "PATH"]),
            Some("DEL") => (Command::Del, &["CONTAINERID", "IFNAME", "PATH"]),
            Some("GC") => (Command::Gc, &["PATH"]),
            Some("STATUS") => (Command::Status, &["PATH"]),
            Some("VERSION") => (Command::Version, &[]),
            _ => return Err(environment(format!("unknown CNI_COMMAND: {}", name.display()))),
        };
        let missing: Vec<String> = needs
            .iter()
            .map(|name| format!("CNI_{name}"))
            .filter(|name| value(name).is_empty())
            .collect();
        if !missing.is_empty() {
            let missing = missing.join(",");
            return Err(environment(format!("required env variables [{missing}] missing")));
        }
        let netns_override = value("CNI_NETNS_OVERRIDE");
        Ok(Self {
            command,
            container_id: value("CNI_CONTAINERID"),
            netns: value("CNI_NETNS"),
            netns_override: netns_override == "1" || netns_override.eq_ignore_ascii_case("true"),
            ifname: value("CNI_IFNAME"),
            args: value("CNI_ARGS"),
            path: value("CNI_PATH"),
        })
    }

    fn container_id(&self) -> Result<ContainerId, PluginError> {
        Ok(text("CNI_CONTAINERID", &self.container_id)?.parse::<ContainerId>()?)
    }

    fn ifname(&self) -> Result<InterfaceName, PluginError> {
        Ok(text("CNI_IFNAME", &self.ifname)?.parse::<InterfaceName>()?)
    }

    fn args(&self) -> Result<CniArgs, Error> {
        match self.args.to_str() {
            Some(text) => text.parse(),
            None => Err(Error::Args {
                part: self.args.to_string_lossy().into_owned(),
                reason: "it is not UTF-8",
            }),
        }
    }

    fn path(&self) -> Vec<PathBuf> {
        std::env::split_paths(&self.path).filter(|path| !path.as_os_str().is_empty()).collect()
    }
}

fn environment(msg: String) -> PluginError {
    PluginError::new(ErrorCode::INVALID_ENVIRONMENT, msg)
}

fn text<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, PluginError> {
    value.to_str().ok_or_else(|| environment(format!("{name} is not UTF-8: {}", value.display())))
}

/// Standard input, with what may be wrong on a DEL still unread.
#[derive(Debug)]
pub(super) struct Input {
    config: NetworkConfig,
    version: Value,
    prev_result: Option<Box<RawValue>>,
    valid_attachments: Option<Value>,
}

#[derive(Deserialize)]
struct RawInput {
    name: Option<String>,
    #[serde(rename = "type", default)]
    plugin_type: Value,
    #[serde(rename = "cniVersion", default)]
    version: Value,
    #[serde(rename = "prevResult")]
    prev_result: Option<Box<RawValue>>,
    args: Option<Value>,
    #[serde(rename = "runtimeConfig")]
    runtime_config: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Value>,
    /// An earlier text of the specification called it so.
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Value>,
    #[serde(flatten)]
    extra: Extra,
}

impl Input {
    /// # Errors
    ///
    /// Code 6 where it is no JSON object, 7 where it has no network name.
    pub(super) fn read(json: &[u8]) -> Result<Self, PluginError> {
        let raw: RawInput = from_slice(DOCUMENT, json)?;
        let Some(name) = raw.name.filter(|name| !name.is_empty()) else {
            let missing = "network configuration: name: missing network name";
            return Err(PluginError::new(ErrorCode::INVALID_CONFIGURATION, missing));
        };
        let config = NetworkConfig {
            name: name.parse::<NetworkName>()?,
            plugin_type: raw.plugin_type.as_str().map(str::to_owned),
            args: raw.args,
            runtime_config: raw.runtime_config,
            extra: raw.extra,
        };
        Ok(Self {
            config,
            version: raw.version,
            prev_result: raw.prev_result,
            valid_attachments: raw.valid_attachments.or(raw.attachments),
        })
    }

    pub(super) fn version(&self) -> Result<Version, Error> {
        match &self.version {
            Value::Null => Ok(Version::V0_1_0),
            Value::String(text) => text.parse(),
            other => Err(Error::Field {
                document: DOCUMENT,
                field: "cniVersion".into(),
                reason: format!("{other} is no string"),
            }),
        }
    }

    /// The version, where the plugin supports it. The words are those of the Go library.
    pub(super) fn supported_version(&self, supported: &[Version]) -> Result<Version, PluginError> {
        let version = match self.version() {
            Err(error @ Error::Field { .. }) => return Err(error.into()),
            version => version.ok().filter(|version| supported.contains(version)),
        };
        version.ok_or_else(|| {
            let given = self.version.as_str().filter(|text| !text.is_empty()).unwrap_or("0.1.0");
            let supported: Vec<_> = supported.iter().map(|it| format!("\"{it}\"")).collect();
            let supported = supported.join(" ");
            PluginError::new(ErrorCode::INCOMPATIBLE_VERSION, "incompatible CNI versions")
                .with_details(format!("config is {given:?}, plugin supports [{supported}]"))
        })
    }

    /// The result before, read as what it says it is, or else as what the configuration is.
    fn prev_result(&self, version: Version) -> Result<Option<CniResult>, Error> {
        self.prev_result.as_ref().map(|raw| CniResult::parse_for(raw.get(), version)).transpose()
    }

    pub(super) fn into_request(
        self,
        environment: &Environment,
        version: Version,
    ) -> Result<Request, PluginError> {
        Ok(Request {
            container_id: environment.container_id()?,
            netns: environment.netns.clone().into(),
            netns_override: environment.netns_override,
            ifname: environment.ifname()?,
            args: environment.args()?,
            path: environment.path(),
            prev_result: self.prev_result(version)?,
            version,
            config: self.config,
        })
    }

    pub(super) fn into_del_request(
        self,
        environment: &Environment,
    ) -> Result<DelRequest, PluginError> {
        let version = self.version();
        let netns = &environment.netns;
        Ok(DelRequest {
            container_id: environment.container_id()?,
            netns: (!netns.is_empty()).then(|| netns.clone().into()),
            netns_override: environment.netns_override,
            ifname: environment.ifname()?,
            args: environment.args(),
            path: environment.path(),
            prev_result: self.prev_result(*version.as_ref().unwrap_or(&Version::V0_1_0)),
            version,
            config: self.config,
        })
    }

    /// A missing list is refused: it would mean that nothing is valid, and no runtime means that.
    pub(super) fn into_gc_request(
        self,
        environment: &Environment,
        version: Version,
    ) -> Result<GcRequest, PluginError> {
        let invalid = |reason: String| {
            let msg = format!("{DOCUMENT}: cni.dev/valid-attachments: {reason}");
            PluginError::new(ErrorCode::INVALID_CONFIGURATION, msg)
        };
        let list = self.valid_attachments.ok_or_else(|| invalid("missing".into()))?;
        let valid_attachments =
            Vec::<Attachment>::deserialize(list).map_err(|error| invalid(error.to_string()))?;
        let path = environment.path();
        Ok(GcRequest { path, config: self.config, version, valid_attachments })
    }

    pub(super) fn into_status_request(
        self,
        environment: &Environment,
        version: Version,
    ) -> StatusRequest {
        StatusRequest { path: environment.path(), config: self.config, version }
    }
}
