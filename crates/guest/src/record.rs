//! What is ours in the CNI cache: a capability argument that no plugin asks for, so that none gets
//! it, and that libcni's tools keep.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jackfield_cni::runtime::CachedAttachment;
use jackfield_cni::types::Extra;
use jackfield_vmconf::InterfaceName;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, file};

/// The name of the capability argument.
const NAME: &str = "jackfield.vm";

/// What `up` was told of one network, beside what the cache keeps by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Which of the VM's networks it is, counted from 0.
    pub(crate) position: usize,
    /// How many networks the VM has.
    pub(crate) networks: usize,
    /// The interface's name in the guest.
    pub(crate) vm_if_name: Option<InterfaceName>,
    /// The MTU that was wanted.
    pub(crate) mtu: Option<u32>,
    /// Whether the namespace was made for the VM.
    pub(crate) namespace_made: bool,
    /// The namespace itself, whatever its path.
    pub(crate) namespace: NamespaceIdentity,
    /// Where plugins were.
    pub(crate) plugin_dirs: Vec<PathBuf>,
}

/// What tells one namespace from all others: its number, as long as the machine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NamespaceIdentity {
    inode: u64,
    boot_id: String,
}

impl NamespaceIdentity {
    /// Of the namespace at a path.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        let inode = std::fs::metadata(path).map_err(file("look at", path))?.ino();
        Ok(NamespaceIdentity { inode, boot_id: boot_id()? })
    }
}

impl Record {
    /// Puts it beside the user's capability arguments.
    pub(crate) fn beside(&self, capability_args: &Extra) -> Result<Extra> {
        let mut args = capability_args.clone();
        // Strings and numbers: nothing that serde_json could refuse.
        let record = serde_json::to_value(self).unwrap_or_default();
        match args.insert(NAME.to_owned(), record) {
            None => Ok(args),
            Some(_) => Err(Error::ReservedCapability(NAME)),
        }
    }

    /// Reads it from an entry of the cache; `None` where the entry is not ours.
    pub(crate) fn of(attachment: &CachedAttachment) -> Option<Self> {
        let record = attachment.conf.capability_args.get(NAME)?;
        Self::deserialize(record).ok()
    }

    /// A process that is in the namespace, whose path may be gone. Numbers of namespaces are used
    /// again, so that another namespace may be taken for it: rather that than the other way round.
    pub(crate) fn inhabitant(&self) -> Option<u32> {
        if boot_id().ok()? != self.namespace.boot_id {
            return None;
        }
        let link = PathBuf::from(format!("net:[{}]", self.namespace.inode));
        let processes = std::fs::read_dir("/proc").ok()?;
        let ids = processes.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
        ids.into_iter().find(|id: &u32| {
            std::fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|it| it == link)
        })
    }
}

fn boot_id() -> Result<String> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(BOOT_ID).map_err(file("read", BOOT_ID))?;
    Ok(text.trim_end().to_owned())
}
