//! What can go wrong with CNI's documents.

use std::path::PathBuf;
use std::time::Duration;

use crate::plugin::PluginError;
use crate::types::Version;
use crate::{ContainerId, InterfaceName, NetworkName};

/// Why a document, a name or an argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no JSON, or ends too early.
    #[error("{document}: not valid JSON: {reason}")]
    Syntax {
        /// Which document: `CNI result`, `network configuration`…
        document: &'static str,
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A field has a value that it cannot have.
    #[error("{document}: {field}: {reason}")]
    Field {
        /// Which document: `CNI result`, `network configuration`…
        document: &'static str,
        /// The path of the field, such as `ips[0].interface`.
        field: String,
        /// The value, and what it should have been.
        reason: String,
    },
    /// A version of the specification that this crate does not know.
    #[error("unsupported CNI version {version:?}: supported are {}", Version::list())]
    UnsupportedVersion {
        /// The version as it was given.
        version: String,
    },
    /// A result that cannot be said in the wanted version.
    #[error("CNI result: cannot be converted from version {from} to {to}: {reason}")]
    Conversion {
        /// The version that it has.
        from: Version,
        /// The version that was wanted.
        to: Version,
        /// What stands in the way.
        reason: &'static str,
    },
    /// A name that is none.
    #[error("{what} {value:?}: {reason}")]
    Name {
        /// What it should name: `container ID`, `network name`, `interface name`…
        what: &'static str,
        /// The name as it was given.
        value: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// `CNI_ARGS` that are none.
    #[error("CNI_ARGS: {reason}: {part:?}")]
    Args {
        /// The part that is wrong.
        part: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory that cannot be read, written or removed.
    #[error("{attempt} {}: {reason}", path.display())]
    File {
        /// What was tried: `read`, `write`, `remove`…
        attempt: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A file that can be read, and says something wrong.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<Error>,
    },
    /// No configuration has the wanted name.
    #[error(
        "no network configuration named {name} in {}{}",
        list(directories.iter().map(|it| it.display())),
        also(": these could not be read: ", broken)
    )]
    NetworkNotFound {
        /// The network.
        name: NetworkName,
        /// Where it was looked for.
        directories: Vec<PathBuf>,
        /// Files that may have been it.
        broken: Vec<Error>,
    },
    /// A plugin was to be run for a network.
    #[error("network {network}: {command} by plugin {plugin}: {failure}")]
    Plugin {
        /// The network.
        network: NetworkName,
        /// The plugin's name, as its configuration has it.
        plugin: String,
        /// `ADD`, `DEL`…
        command: &'static str,
        /// What went wrong.
        failure: Box<PluginFailure>,
    },
    /// An ADD failed, and undoing it failed as well: something may be left. It is remembered in the
    /// cache for a later DEL.
    #[error("{error}; and it could not be undone: {}", list(undo))]
    NotUndone {
        /// Why the ADD failed.
        error: Box<Error>,
        /// What failed in undoing it.
        undo: Vec<Error>,
    },
    /// Several things failed, each on its own.
    #[error("{}", list(.0))]
    Several(Vec<Error>),
    /// ADD of an attachment that is there: DEL comes first.
    #[error(
        "network {network}: {container_id} is already attached by {ifname}: it \
         has to be removed first"
    )]
    AlreadyAttached {
        /// The network.
        network: NetworkName,
        /// The container.
        container_id: ContainerId,
        /// Its interface.
        ifname: InterfaceName,
    },
    /// The cache's file for an attachment is another's: libcni joins names by `-`, so that network
    /// `a-b` with container `c` and network `a` with container `b-c` share one.
    #[error("{}: it is of network {network}, container {container_id}, \
         interface {ifname}; another name is needed", path.display())]
    CacheClash {
        /// The file.
        path: PathBuf,
        /// The network that it is of.
        network: NetworkName,
        /// The container that it is of.
        container_id: ContainerId,
        /// The interface that it is of.
        ifname: InterfaceName,
    },
    /// CHECK of an attachment that the cache knows nothing of.
    #[error(
        "network {network}: {container_id} is not attached by {ifname}: the cache has no result"
    )]
    NotAttached {
        /// The network.
        network: NetworkName,
        /// The container.
        container_id: ContainerId,
        /// Its interface.
        ifname: InterfaceName,
    },
    /// A command that the configuration's version does not have.
    #[error(
        "network {network}: {command} is from version {since} on, and its \
         configuration is {version}"
    )]
    CommandNotInVersion {
        /// The network.
        network: NetworkName,
        /// `CHECK`
        command: &'static str,
        /// The configuration's version.
        version: Version,
        /// The version that brought the command.
        since: Version,
    },
}

/// How running a plugin went wrong. What it wrote to standard error, its end where it was long, is
/// in `stderr`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginFailure {
    /// It is in none of the plugin directories.
    #[error("it is not installed in {}", list(directories.iter().map(|it| it.display())))]
    NotInstalled {
        /// Where it was looked for.
        directories: Vec<PathBuf>,
    },
    /// It is installed and could not be started.
    #[error("it cannot be started: {reason}")]
    NotStarted {
        /// What the operating system said.
        reason: String,
    },
    /// It could not be waited for or talked to.
    #[error("{attempt}: {reason}")]
    System {
        /// What was tried.
        attempt: &'static str,
        /// What the operating system said.
        reason: String,
    },
    /// It took too long, and was killed with all processes of its group.
    #[error("killed, since it was not done after {} s{}", after.as_secs_f32(), said(stderr))]
    Deadline {
        /// How long it was waited for.
        after: Duration,
        /// Standard error.
        stderr: String,
    },
    /// It reported an error as the specification says.
    #[error("{error}{}", said(stderr))]
    Reported {
        /// What it printed.
        error: PluginError,
        /// Standard error.
        stderr: String,
    },
    /// It failed without an error that could be read.
    #[error("{status}, with no error on standard output{}{}", printed(stdout), said(stderr))]
    Unexplained {
        /// Its exit status, or the signal that ended it.
        status: String,
        /// The beginning of standard output.
        stdout: String,
        /// Standard error.
        stderr: String,
    },
    /// It succeeded, and what it printed cannot be read.
    #[error("what it printed cannot be read: {reason}{}", printed(stdout))]
    Output {
        /// Why not.
        reason: String,
        /// The beginning of standard output.
        stdout: String,
    },
}

impl PluginFailure {
    /// It never ran, so that it has nothing to undo.
    pub(crate) fn never_ran(&self) -> bool {
        matches!(self, Self::NotInstalled { .. } | Self::NotStarted { .. })
    }
}

impl Error {
    /// All of several errors, or nothing where there are none.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.swap_remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }
}

fn list(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join("; ")
}

fn also(introduction: &str, errors: &[Error]) -> String {
    if errors.is_empty() { String::new() } else { format!("{introduction}{}", list(errors)) }
}

/// Quoted and escaped: what a program prints may hold anything.
fn said(stderr: &str) -> String {
    let stderr = stderr.trim();
    if stderr.is_empty() { String::new() } else { format!("; it said {stderr:?}") }
}

fn printed(stdout: &str) -> String {
    if stdout.is_empty() { String::new() } else { format!(": {stdout:?}") }
}
