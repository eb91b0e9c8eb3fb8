//! What is said where a command fails: what failed, on what, and what to do about it.

use std::fmt;

use std::path::PathBuf;

use jackfield_cni::{ContainerId, PluginFailure};
use jackfield_guest::Error as GuestError;
use jackfield_hostnet::agent::AgentError;
use jackfield_hostnet::api::client::ClientError;
use jackfield_hostnet::config::ConfigError;
use jackfield_hostnet::explain::ExplainError;
use jackfield_hostnet::import::ImportError;
use jackfield_hostnet::once::OnceError;
use jackfield_lab::LabError;
use jackfield_vmconf::{RenderError, ResultError, VmConfError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What the running agent was asked.
    #[error(transparent)]
    Asked(ClientError),
    #[error(transparent)]
    Once(#[from] OnceError),
    #[error(transparent)]
    Import(ImportError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error("changing the network needs CAP_NET_ADMIN, which this process does not have")]
    NotPrivileged,
    #[error("{0} is the instance's primary interface, which stays with who configured it")]
    PrimaryIsNotRendered(String),
    #[error("cannot write the result: {0}")]
    Output(std::io::Error),
    #[error("cannot make private namespaces: {0}")]
    NoNamespaces(LabError),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error("cannot read the CNI result {}: {source}", path.display())]
    ReadResult { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Result(#[from] ResultError),
    #[error(transparent)]
    VmConf(#[from] VmConfError),
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error("{what}: {}", joined(failed))]
    Parts { what: String, failed: Vec<GuestError> },
    #[error("{0}")]
    Usage(String),
    #[error("the demo failed at '{step}': {reason}")]
    Demo { step: &'static str, reason: String },
}

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Config(_) => 2,
            Failure::Asked(error) if error.is("ConfigurationInvalid") => 2,
            Failure::Explain(error) if error.is_wrong_use() => 2,
            _ => 1,
        }
    }

    /// What to do about it.
    fn advice(&self) -> Option<&'static str> {
        const ROOT: &str = "run it as root";
        match self {
            Failure::NotPrivileged => Some(ROOT),
            Failure::Config(ConfigError::Unreadable { .. }) => {
                Some("make the file readable, or name another with --config")
            }
            Failure::Config(ConfigError::Invalid { .. }) => Some("nothing was changed"),
            Failure::Asked(error) => asked_advice(error),
            Failure::Once(error) => match error {
                OnceError::NoSuchInterface(_) => Some("see 'jackfield status' for those there are"),
                OnceError::Unmanaged(_) => Some("change the configuration to plug it"),
                OnceError::Primary(_) => Some("name a secondary interface"),
                OnceError::Metadata(_) => Some(
                    "make sure that the instance metadata service is on and reachable (IMDSv2), or \
                     name it with --metadata",
                ),
                OnceError::AgentRuns(_) => {
                    Some("set manage = false for it in the configuration, or stop the agent")
                }
                OnceError::Refused { not_permitted: true, .. } => Some(ROOT),
                OnceError::Kernel(error) if error.is_permission() => Some(ROOT),
                _ => None,
            },
            Failure::Import(error) => import_advice(error),
            Failure::Agent(error) => match error {
                AgentError::Running => Some("stop it first, or leave the work to it"),
                AgentError::NotPermitted(_) => Some(ROOT),
                AgentError::Kernel(error) if error.is_permission() => Some(ROOT),
                _ => None,
            },
            Failure::Explain(error) => explain_advice(error),
            Failure::PrimaryIsNotRendered(_) => Some("name a secondary interface"),
            Failure::NoNamespaces(_) => Some(
                "run it as root, or let users make user namespaces (see \
                 kernel.unprivileged_userns_clone and user.max_user_namespaces)",
            ),
            Failure::Guest(error) => guest_advice(error),
            Failure::ReadResult { .. } => Some("name a file with --result, or '-'"),
            Failure::Render(RenderError::Incomplete(_)) => {
                Some("leave out --strict, or choose a format that carries it")
            }
            Failure::Render(RenderError::CommandLine(_)) => Some("change --kernel-args"),
            Failure::Render(_) => Some("choose a format that can carry it, such as networkd"),
            Failure::Parts { .. } => {
                Some("what could be done is done; run it again when that is cured")
            }
            Failure::Usage(_) => Some("see 'jackfield --help'"),
            Failure::Result(_) | Failure::VmConf(_) | Failure::Output(_) | Failure::Demo { .. } => {
                None
            }
        }
    }
}

/// What to do where the agent did not do what it was asked.
fn asked_advice(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NoAgent => Some("it is started by 'jackfield run', or as a service"),
        ClientError::Denied => Some("run it as root"),
        ClientError::Impostor(_) => Some("end that process: it keeps an agent from starting"),
        ClientError::Silent(_) => Some("see its log; a restart leaves the network as it is"),
        error if error.is("NoSuchInterface") => Some("see 'jackfield status' for those there are"),
        error if error.is("ConfigurationInvalid") => Some("what was read before is in effect"),
        ClientError::Failed { .. } => None,
    }
}

/// What fails as any other command has that one's advice.
impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Once(error) => Failure::Once(error),
            other => Failure::Import(other),
        }
    }
}

/// What to do where not all could be taken over.
fn import_advice(error: &ImportError) -> Option<&'static str> {
    match error {
        ImportError::MadeAgain(_) => Some("end who does so, and run it again"),
        ImportError::File { .. } | ImportError::NotSilent(_) => {
            Some("what is plugged works; run it again when that is cured")
        }
        ImportError::Once(_) => None,
    }
}

/// What to do where something cannot be explained.
fn explain_advice(error: &ExplainError) -> Option<&'static str> {
    match error {
        ExplainError::MixedFamilies(..) => Some("name two of IPv4, or two of IPv6"),
        ExplainError::NotOneHost(_) | ExplainError::LinkLocal(_) => Some("name another address"),
        ExplainError::PortWithoutProtocol(_) => Some("say --proto tcp or --proto udp"),
        ExplainError::PortOfIcmp(_) => Some("leave it out, or say --proto tcp or --proto udp"),
        ExplainError::NoSuchInterface(_) => Some("see 'ip link' for those there are"),
        ExplainError::NoInput(_) => Some("name it with --iif"),
        ExplainError::Kernel(_) => None,
    }
}

/// What to do about a failure with a VM.
fn guest_advice(error: &GuestError) -> Option<&'static str> {
    use jackfield_cni::Error as CniError;
    let advice = match error {
        GuestError::Cni(CniError::NetworkNotFound { .. }) => {
            "name the directory of its configuration with --conf-dir"
        }
        GuestError::Cni(CniError::Plugin { failure, .. })
            if matches!(**failure, PluginFailure::NotInstalled { .. }) =>
        {
            "install it, or name its directory with --plugin-dir"
        }
        GuestError::Cni(CniError::Plugin { failure, .. })
            if matches!(**failure, PluginFailure::Deadline { .. }) =>
        {
            "give it more time with --timeout"
        }
        GuestError::Kernel(error) if error.is_permission() => "run it as root",
        GuestError::File { source, .. }
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            "run it as root"
        }
        GuestError::NoNamespace(_) => "remove it, or name another path with --netns",
        GuestError::NamespaceOfOther { .. } => {
            "take that VM down, or name another path with --netns"
        }
        GuestError::Busy { .. } => "try again when that has ended",
        GuestError::Running { .. } => "stop it, and take its network down with 'jackfield vm down'",
        GuestError::NoSuchVm(_) => "see 'jackfield vm list'",
        GuestError::InterfaceTaken { .. } => "name another with --ifname",
        GuestError::SameInterface(_) => "give each network its own --ifname",
        _ => return None,
    };
    Some(advice)
}

fn joined(failed: &[GuestError]) -> String {
    failed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What failed for one VM.
pub(crate) fn parts(vm: &ContainerId, failed: Vec<GuestError>) -> Result<(), Failure> {
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Parts { what: format!("VM {vm}"), failed }),
    }
}

/// A failure and what to do about it, in one line.
pub(crate) struct Advised<'a>(pub(crate) &'a Failure);

impl fmt::Display for Advised<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        match self.0.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}
