//! What is said where a command fails: what failed, on what, and what to do about it.

use std::fmt;

use jackfield_hostnet::agent::AgentError;
use jackfield_hostnet::config::ConfigError;
use jackfield_hostnet::once::OnceError;
use jackfield_lab::LabError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Once(#[from] OnceError),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error("changing the network needs CAP_NET_ADMIN, which this process does not have")]
    NotPrivileged,
    #[error("cannot write the result: {0}")]
    Output(std::io::Error),
    #[error("cannot make private namespaces: {0}")]
    NoNamespaces(LabError),
    #[error("the demo failed at '{step}': {reason}")]
    Demo { step: &'static str, reason: String },
}

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        1
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
            Failure::Agent(error) => match error {
                AgentError::Running => Some("stop it first, or leave the work to it"),
                AgentError::NotPermitted(_) => Some(ROOT),
                AgentError::Kernel(error) if error.is_permission() => Some(ROOT),
                _ => None,
            },
            Failure::NoNamespaces(_) => Some(
                "run it as root, or let users make user namespaces (see \
                 kernel.unprivileged_userns_clone and user.max_user_namespaces)",
            ),
            Failure::Output(_) | Failure::Demo { .. } => None,
        }
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
