//! Asking the running agent: the local API, and metrics over HTTP.
//!
//! Both are served by the agent's only thread, from its poll loop. Nothing that a client does or leaves
//! undone makes it wait: sockets do not block, a connection has room for one request and one answer,
//! there are only so many connections, and each one that gets nowhere is closed.
//!
//! The API is [varlink](https://varlink.org): JSON objects, each ended by a NUL. It listens on an
//! abstract socket, whose name is also what keeps a second agent from starting in the network
//! namespace, and at a path.

pub mod client;
mod http;
mod server;
mod sockets;
mod varlink;
mod visitor;

use serde_json::Value;

pub(crate) use server::Server;
pub(crate) use sockets::Door;

/// The agent's name among the abstract sockets of the network namespace.
pub const NAME: &str = "jackfield-agent";
/// The interface, which is also the name of the socket in the service's runtime directory.
pub const INTERFACE: &str = "org.jackfield";
/// The interface's description.
pub const DESCRIPTION: &str = include_str!("org.jackfield.varlink");

/// What only the agent can answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// Who it is.
    Info,
    /// The state of interfaces: of those that are named, or of all.
    Status {
        /// Names, alternative names or MACs.
        interfaces: Vec<String>,
    },
    /// What would be changed.
    Plan,
    /// Read the configuration again.
    Reload,
    /// Metrics as text.
    Metrics,
}

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// An object.
    Object(Value),
    /// Metrics.
    Metrics(String),
    /// It failed: which of the interface's errors, and its text.
    Error(&'static str, String),
}
