//! What is attached, remembered on disk as libcni does it (`cniCacheV1`), so that its tools can
//! read it.
//!
//! An entry is written before the first plugin runs, without a result, and again with it. So there
//! is no instant at which something is attached and no entry tells of it. Entries are replaced at
//! one go, but not forced onto the disk: what they tell of does not outlive the machine's crash
//! either.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Runtime, RuntimeConf};
use crate::config::NetworkList;
use crate::plugin::Attachment;
use crate::types::{CniResult, Extra, from_slice, null_is_default};
use crate::{CniArgs, ContainerId, Error, InterfaceName, NetworkName};

const DOCUMENT: &str = "CNI cache";
const KIND: &str = "cniCacheV1";

/// An attachment that the cache tells of. It is complete enough for a DEL when the network's
/// configuration file is gone: with `network` and `conf`.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedAttachment {
    /// The network's name.
    pub name: NetworkName,
    /// The network as it was configured at the ADD.
    pub network: Result<NetworkList, Error>,
    /// What it was made with.
    pub conf: RuntimeConf,
    /// The ADD's result; `None` where the ADD was not finished.
    pub result: Result<Option<CniResult>, Error>,
}

/// The file. Names and values are libcni's.
#[derive(Serialize, Deserialize)]
struct Entry {
    kind: String,
    #[serde(rename = "containerId")]
    container_id: ContainerId,
    /// The configuration, as base64: Go writes bytes so.
    #[serde(with = "go_bytes", default)]
    config: Vec<u8>,
    #[serde(rename = "ifName")]
    ifname: InterfaceName,
    #[serde(rename = "networkName")]
    network: NetworkName,
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    netns: String,
    #[serde(
        rename = "cniArgs",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    args: Vec<(String, String)>,
    #[serde(
        rename = "capabilityArgs",
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "Extra::is_empty"
    )]
    capability_args: Extra,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
}

impl Entry {
    fn new(
        network: &NetworkList,
        conf: &RuntimeConf,
        result: Option<&CniResult>,
    ) -> Result<Self, Error> {
        let netns = conf.netns.as_deref().unwrap_or(Path::new(""));
        let netns = netns.to_str().ok_or_else(|| Error::Name {
            what: "path of a network namespace",
            value: netns.to_string_lossy().into_owned(),
            reason: "it is not UTF-8, and the cache holds text",
        })?;
        Ok(Self {
            kind: KIND.to_owned(),
            container_id: conf.container_id.clone(),
            config: network.to_json().to_string().into_bytes(),
            ifname: conf.ifname.clone(),
            network: network.name.clone(),
            netns: netns.to_owned(),
            args: conf.args.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            capability_args: conf.capability_args.clone(),
            result: result.map(|result| result.to_version(network.version)).transpose()?,
        })
    }

    fn parse(json: &[u8]) -> Result<CachedAttachment, Error> {
        let entry: Self = from_slice(DOCUMENT, json)?;
        if entry.kind != KIND {
            let reason = format!("{:?} is not {KIND}", entry.kind);
            return Err(Error::Field { document: DOCUMENT, field: "kind".into(), reason });
        }
        let mut args = CniArgs::default();
        for (key, value) in &entry.args {
            args.push(key, value)?;
        }
        let result = entry.result.filter(|result| !result.is_null());
        Ok(CachedAttachment {
            name: entry.network,
            network: NetworkList::parse(&entry.config),
            conf: RuntimeConf {
                container_id: entry.container_id,
                netns: (!entry.netns.is_empty()).then(|| entry.netns.into()),
                ifname: entry.ifname,
                args,
                capability_args: entry.capability_args,
            },
            result: result.map(|result| CniResult::parse(result.to_string())).transpose(),
        })
    }
}

impl Runtime {
    /// What the cache tells of one attachment.
    ///
    /// # Errors
    ///
    /// The entry cannot be read, or is another attachment's. That it is not there is none.
    pub fn cached(
        &self,
        network: &NetworkName,
        conf: &RuntimeConf,
    ) -> Result<Option<CachedAttachment>, Error> {
        let path = self.entry_path(network, conf);
        let entry = read(&path)?;
        if let Some(CachedAttachment { name, conf: other, .. }) = &entry
            && (name != network || other.attachment() != conf.attachment())
        {
            let Attachment { container_id, ifname } = other.attachment();
            return Err(Error::CacheClash { path, network: name.clone(), container_id, ifname });
        }
        Ok(entry)
    }

    /// All attachments that the cache tells of, or one container's, in the order of file names;
    /// what cannot be read is in the second list.
    ///
    /// # Errors
    ///
    /// The cache's directory cannot be read. That it is not there is none.
    pub fn cached_attachments(
        &self,
        container: Option<&ContainerId>,
    ) -> Result<(Vec<CachedAttachment>, Vec<Error>), Error> {
        let directory = self.results();
        let failed = |error| file("read directory", &directory, &error);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((vec![], vec![])),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        if let Some(container) = container {
            // Names alone do not tell, but most of what is another's need not be read.
            paths.retain(|path| may_be_of(path, container));
        }
        paths.sort();
        let (mut attachments, mut broken) = (Vec::new(), Vec::new());
        for path in paths {
            match read(&path) {
                Ok(entry) => attachments.extend(entry),
                Err(error) => broken.push(error),
            }
        }
        if let Some(container) = container {
            attachments.retain(|it| it.conf.container_id == *container);
        }
        Ok((attachments, broken))
    }

    /// Removes what is left of an entry of a container that was being written when that was
    /// interrupted. It is told by its name, so that what could be one of `others`, containers that
    /// are worked on at the same time, is left.
    ///
    /// # Errors
    ///
    /// A file cannot be removed.
    pub fn forget_unfinished(
        &self,
        container: &ContainerId,
        others: &[ContainerId],
    ) -> Result<(), Error> {
        let Ok(entries) = fs::read_dir(&self.cache_dir) else { return Ok(()) };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unfinished = name.starts_with('.') && name.ends_with(".new");
            let of_other = others.iter().any(|it| it != container && may_be_of(&path, it));
            if unfinished && may_be_of(&path, container) && !of_other {
                fs::remove_file(&path).map_err(|error| file("remove", &path, &error))?;
            }
        }
        Ok(())
    }

    pub(super) fn remember(
        &self,
        network: &NetworkList,
        conf: &RuntimeConf,
        result: Option<&CniResult>,
    ) -> Result<(), Error> {
        let entry = Entry::new(network, conf, result)?;
        let path = self.entry_path(&network.name, conf);
        let write = || {
            let json = serde_json::to_vec(&entry)?;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(self.results())?;
            let new = self.new_entry_path(&network.name, conf);
            let mut options = fs::OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&json)?;
            fs::rename(new, &path)
        };
        write().map_err(|error: io::Error| file("write", &path, &error))
    }

    pub(super) fn forget(&self, network: &NetworkName, conf: &RuntimeConf) -> Result<(), Error> {
        for path in [self.new_entry_path(network, conf), self.entry_path(network, conf)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(file("remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn results(&self) -> PathBuf {
        self.cache_dir.join("results")
    }

    fn entry_path(&self, network: &NetworkName, conf: &RuntimeConf) -> PathBuf {
        self.results().join(entry_name(network, conf))
    }

    /// Where an entry is written before it takes its place: outside of `results`, every file of
    /// which is an attachment for libcni. Nobody else writes it, since a runtime must not run two
    /// operations on one attachment at the same time; and what a crash leaves goes with the entry.
    fn new_entry_path(&self, network: &NetworkName, conf: &RuntimeConf) -> PathBuf {
        self.cache_dir.join(format!(".{}.new", entry_name(network, conf)))
    }
}

fn entry_name(network: &NetworkName, conf: &RuntimeConf) -> String {
    format!("{network}-{}-{}", conf.container_id, conf.ifname)
}

/// The name of an entry, or of one that is being written, has the container between two dashes.
fn may_be_of(path: &Path, container: &ContainerId) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.contains(&format!("-{container}-"))
}

fn read(path: &Path) -> Result<Option<CachedAttachment>, Error> {
    match fs::read(path) {
        Ok(json) => Entry::parse(&json)
            .map(Some)
            .map_err(|error| Error::InFile { path: path.to_owned(), error: Box::new(error) }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path, &error)),
    }
}

fn file(attempt: &'static str, path: &Path, error: &io::Error) -> Error {
    Error::File { attempt, path: path.to_owned(), reason: error.to_string() }
}

/// Base64 as Go's encoder of byte slices has it: standard alphabet, padded.
mod go_bytes {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        BASE64_STANDARD.decode(text).map_err(D::Error::custom)
    }
}
