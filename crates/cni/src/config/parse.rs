//! Reading one document.

use serde::Deserialize;
use serde_json::Value;

use super::{NetworkList, PluginConfig};
use crate::types::{Extra, Version, from_slice};
use crate::{Error, NetworkName, PluginName};

pub(super) const DOCUMENT: &str = "network configuration";

/// A list before plugins of the network's directory are added to it.
pub(super) struct Inlined {
    pub(super) list: NetworkList,
    /// `loadOnlyInlinedPlugins`
    pub(super) only_these: bool,
}

#[derive(Deserialize)]
struct RawList {
    /// Kept out of `extra`; it is read by [`name`].
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    #[serde(rename = "cniVersions")]
    versions: Option<Vec<String>>,
    #[serde(rename = "disableCheck")]
    disable_check: Option<Truth>,
    #[serde(rename = "disableGC")]
    disable_gc: Option<Truth>,
    #[serde(rename = "loadOnlyInlinedPlugins")]
    only_these: Option<Truth>,
    plugins: Option<Vec<Extra>>,
    #[serde(flatten)]
    extra: Extra,
}

/// libcni takes the words for the values.
#[derive(Deserialize, Clone, Copy)]
#[serde(try_from = "Value")]
struct Truth(bool);

impl TryFrom<Value> for Truth {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let word = value.as_str().map(str::to_ascii_lowercase);
        match (&value, word.as_deref()) {
            (Value::Bool(truth), _) => Ok(Self(*truth)),
            (_, Some("true")) => Ok(Self(true)),
            (_, Some("false")) => Ok(Self(false)),
            _ => Err(format!("{value} is neither true nor false")),
        }
    }
}

/// What can be said of a document before the rest of it is read.
#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

/// The name that a document gives itself.
pub(super) fn name(json: &[u8]) -> Result<NetworkName, Error> {
    let Named { name } = from_slice(DOCUMENT, json)?;
    name.filter(|name| !name.is_empty()).ok_or_else(|| wrong("name", "missing".into()))?.parse()
}

/// A list, or a single plugin made one; complete as it stands.
pub(super) fn network(json: &[u8]) -> Result<NetworkList, Error> {
    let fields: Extra = from_slice(DOCUMENT, json)?;
    if fields.contains_key("type") && !fields.contains_key("plugins") {
        return single(json);
    }
    complete(list(json)?.list)
}

/// A list needs a plugin.
pub(super) fn complete(list: NetworkList) -> Result<NetworkList, Error> {
    if list.plugins.is_empty() {
        return Err(wrong("plugins", "there is none".into()));
    }
    Ok(list)
}

/// A network list.
pub(super) fn list(json: &[u8]) -> Result<Inlined, Error> {
    let raw: RawList = from_slice(DOCUMENT, json)?;
    let is_set = |truth: Option<Truth>| truth.is_some_and(|truth| truth.0);
    let only_these = is_set(raw.only_these);
    let plugins = match raw.plugins {
        Some(plugins) if plugins.is_empty() => return Err(wrong("plugins", "it is empty".into())),
        None if only_these => {
            let reason = "missing, and loadOnlyInlinedPlugins is true";
            return Err(wrong("plugins", reason.into()));
        }
        plugins => plugins.unwrap_or_default(),
    };
    let plugins = plugins
        .into_iter()
        .enumerate()
        .map(|(position, fields)| plugin(&format!("plugins[{position}]."), fields))
        .collect::<Result<_, _>>()?;
    let list = NetworkList {
        name: name(json)?,
        version: version(raw.version.as_deref(), raw.versions.as_deref())?,
        disable_check: is_set(raw.disable_check),
        disable_gc: is_set(raw.disable_gc),
        plugins,
        extra: raw.extra,
    };
    Ok(Inlined { list, only_these })
}

/// The configuration of one plugin, made a list of one.
pub(super) fn single(json: &[u8]) -> Result<NetworkList, Error> {
    let fields: Extra = from_slice(DOCUMENT, json)?;
    if fields.contains_key("plugins") && !fields.contains_key("type") {
        let reason = "missing; a file with a list of plugins is called *.conflist";
        return Err(wrong("type", reason.into()));
    }
    let RawList { version: given, versions, .. } = from_slice(DOCUMENT, json)?;
    Ok(NetworkList {
        name: name(json)?,
        version: version(given.as_deref(), versions.as_deref())?,
        disable_check: false,
        disable_gc: false,
        plugins: vec![plugin("", fields)?],
        extra: Extra::new(),
    })
}

/// One plugin's configuration. `path` is where it is in the document, for errors.
pub(super) fn plugin(path: &str, fields: Extra) -> Result<PluginConfig, Error> {
    let at = |field: &str| format!("{path}{field}");
    let name = match fields.get("type") {
        None => return Err(wrong(at("type"), "missing".into())),
        Some(Value::String(name)) => name,
        Some(other) => return Err(wrong(at("type"), format!("{other} is no string"))),
    };
    let name =
        PluginName::new(name.as_str()).map_err(|error| wrong(at("type"), error.to_string()))?;
    let capabilities = match fields.get("capabilities") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(capabilities)) => {
            let mut names = Vec::new();
            for (name, value) in capabilities {
                match value {
                    Value::Bool(true) => names.push(name.clone()),
                    Value::Bool(false) => {}
                    other => {
                        let field = at(&format!("capabilities.{name}"));
                        return Err(wrong(field, format!("{other} is neither true nor false")));
                    }
                }
            }
            names
        }
        Some(other) => return Err(wrong(at("capabilities"), format!("{other} is no object"))),
    };
    Ok(PluginConfig { plugin: name, capabilities, fields })
}

/// The newest that is named and known. Only where there is a list may unknown ones be skipped: that
/// is what it is for.
fn version(one: Option<&str>, several: Option<&[String]>) -> Result<Version, Error> {
    let Some(several) = several else { return one.unwrap_or_default().parse() };
    let known = several.iter().map(String::as_str).chain(one.filter(|one| !one.is_empty()));
    match known.clone().filter_map(|text| text.parse::<Version>().ok()).max() {
        Some(version) => Ok(version),
        None if known.clone().next().is_none() => Ok(Version::V0_1_0),
        None => {
            let version = known.collect::<Vec<_>>().join(", ");
            Err(Error::UnsupportedVersion { version })
        }
    }
}

fn wrong(field: impl Into<String>, reason: String) -> Error {
    Error::Field { document: DOCUMENT, field: field.into(), reason }
}
