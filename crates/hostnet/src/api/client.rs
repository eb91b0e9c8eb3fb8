//! Asks the running agent, as `jackfield status` and `jackfield reload` do.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use jackfield_kernel::Peer;
use serde_json::{Value, json};

use super::sockets::{may_be_agent, reach};
use super::{INTERFACE, varlink};

/// More than an agent has to say.
const LONGEST: usize = 64 * 1024 * 1024;
const NOBODY: [io::ErrorKind; 2] = [io::ErrorKind::ConnectionRefused, io::ErrorKind::NotFound];

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent runs in this network namespace.
    #[error("no jackfield agent runs in this network namespace")]
    NoAgent,
    /// Who listens may not change the network: it is somebody who has taken the agent's name.
    #[error("what calls itself the jackfield agent here belongs to user {0}")]
    Impostor(u32),
    /// Only root may ask.
    #[error("only root may ask the jackfield agent")]
    Denied,
    /// It did not answer, or broke off.
    #[error("the jackfield agent does not answer: {0}")]
    Silent(String),
    /// It cannot do what it was asked.
    #[error("{text}")]
    Failed {
        /// Which of the interface's errors.
        name: String,
        /// Why.
        text: String,
    },
}

impl ClientError {
    /// Whether it is this one of the interface's errors.
    pub fn is(&self, error: &str) -> bool {
        let prefix =
            |name: &str| name.strip_prefix(INTERFACE)?.strip_prefix('.').map(|it| it == error);
        matches!(self, ClientError::Failed { name, .. } if prefix(name) == Some(true))
    }
}

/// A connection with the agent of the calling thread's network namespace.
#[derive(Debug)]
pub struct AgentClient {
    socket: UnixStream,
    pid: Option<u32>,
    patience: Duration,
}

impl AgentClient {
    /// Connects; nothing that is done with it takes longer than `patience`.
    ///
    /// # Errors
    /// Where there is no agent, or one that is not to be trusted.
    pub fn connect(patience: Duration) -> Result<Self, ClientError> {
        let silent = |error: io::Error| ClientError::Silent(words(&error));
        let socket = reach(patience).map_err(|error| match error.kind() {
            kind if NOBODY.contains(&kind) => ClientError::NoAgent,
            _ => silent(error),
        })?;
        let peer = Peer::of(&socket).map_err(|error| ClientError::Silent(error.to_string()))?;
        if !may_be_agent(peer) {
            // Who is not root cannot tell, and would not be answered.
            if !rustix::process::geteuid().is_root() {
                return Err(ClientError::Denied);
            }
            return Err(ClientError::Impostor(peer.user));
        }
        let pid = peer.process;
        Ok(AgentClient { socket: UnixStream::from(socket), pid, patience })
    }

    /// Its process; `None` where that is in another process namespace.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Calls a method of the interface.
    ///
    /// # Errors
    /// Where there is no answer, or that it cannot be done.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value, ClientError> {
        let call = json!({ "method": format!("{INTERFACE}.{method}"), "parameters": parameters });
        let answer = self.exchange(&call).map_err(|error| ClientError::Silent(words(&error)))?;
        let told: Value = serde_json::from_slice(&answer)
            .map_err(|error| ClientError::Silent(format!("its answer is no JSON: {error}")))?;
        let parameters = told.get("parameters").cloned().unwrap_or_default();
        match told.get("error").and_then(Value::as_str) {
            None => Ok(parameters),
            Some("org.varlink.service.PermissionDenied") => Err(ClientError::Denied),
            Some(name) => {
                let text = parameters.get("text").and_then(Value::as_str);
                let text = text.map_or_else(|| format!("{name}: {parameters}"), ToOwned::to_owned);
                Err(ClientError::Failed { name: name.to_owned(), text })
            }
        }
    }

    fn exchange(&mut self, call: &Value) -> io::Result<Vec<u8>> {
        let mut message = call.to_string().into_bytes();
        message.push(varlink::END);
        self.socket.write_all(&message)?;
        let end = Instant::now() + self.patience;
        let mut answer = Vec::new();
        let mut chunk = [0; 16 * 1024];
        loop {
            let count = self.socket.read(&mut chunk)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
            if answer.last() == Some(&varlink::END) {
                answer.pop();
                return Ok(answer);
            }
            if Instant::now() >= end || answer.len() > LONGEST {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// True where an agent runs in the calling thread's network namespace.
pub(crate) fn is_running(patience: Duration) -> bool {
    match reach(patience) {
        Ok(_) => true,
        Err(error) => !NOBODY.contains(&error.kind()),
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        // How a socket says that its time is over.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it takes too long".to_owned(),
        _ => error.to_string(),
    }
}
