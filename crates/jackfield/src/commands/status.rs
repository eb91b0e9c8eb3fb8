//! `jackfield status`.

mod text;

use std::time::{Duration, Instant};

use jackfield_hostnet::Scope;
use jackfield_hostnet::api::client::{AgentClient, ClientError};
use jackfield_hostnet::once::OnceError;
use jackfield_hostnet::status::{AgentStatus, Status, status as put_together};
use serde_json::json;

use crate::arguments::{Arguments, Show};
use crate::commands::{print, print_json, session};
use crate::failure::Failure;

/// How long metadata may take before the status is told without it.
const WAIT: Duration = Duration::from_secs(2);
/// How long the agent may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is asked again where the network changes faster than it can be looked at…
const CALMER: u32 = 5;
/// …and how long it is left alone in between.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the status is not what the agent says.
enum Unheard {
    /// There is none, or none to be trusted.
    None,
    /// It may not be asked.
    Denied,
    /// It does not answer.
    Silent,
}

pub(crate) fn status(arguments: &Arguments, show: &Show) -> Result<(), Failure> {
    let (status, denied) = match ask(&show.interfaces)? {
        Ok(status) => (status, false),
        Err((unheard, pid)) => {
            let mut status = look(arguments, &show.interfaces)?;
            status.agent = (!matches!(unheard, Unheard::None)).then_some(AgentStatus {
                pid,
                answers: false,
                version: None,
                uptime_s: None,
                configuration_error: None,
            });
            (status, matches!(unheard, Unheard::Denied))
        }
    };
    if show.output.json {
        let value = serde_json::to_value(&status).unwrap_or_default();
        return print_json(&value);
    }
    print(&text::render(&status, denied))
}

/// What the agent says; where it says nothing, why, and which process it is.
fn ask(interfaces: &[String]) -> Result<Result<Status, (Unheard, Option<u32>)>, Failure> {
    let mut agent = match AgentClient::connect(PATIENCE) {
        Ok(agent) => agent,
        Err(ClientError::NoAgent) => return Ok(Err((Unheard::None, None))),
        Err(error @ ClientError::Impostor(_)) => {
            log::warn!("{error}: it is not asked");
            return Ok(Err((Unheard::None, None)));
        }
        Err(ClientError::Denied) => return Ok(Err((Unheard::Denied, None))),
        Err(error) => {
            log::debug!("{error}");
            return Ok(Err((Unheard::Silent, None)));
        }
    };
    let pid = agent.pid();
    let mut call = || agent.call("Status", &json!({ "interfaces": interfaces }));
    let mut told = call();
    for _ in 0..CALMER {
        if !told.as_ref().is_err_and(|error| error.is("Busy")) {
            break;
        }
        std::thread::sleep(PAUSE);
        told = call();
    }
    let status = told.and_then(|told| {
        serde_json::from_value(told).map_err(|error| ClientError::Silent(error.to_string()))
    });
    match status {
        Ok(status) => Ok(Ok(status)),
        Err(ClientError::Denied) => Ok(Err((Unheard::Denied, pid))),
        Err(error) if error.is("NoSuchInterface") => Err(Failure::Asked(error)),
        Err(error) => {
            log::debug!("{error}");
            Ok(Err((Unheard::Silent, pid)))
        }
    }
}

/// What there is to see without an agent.
fn look(arguments: &Arguments, interfaces: &[String]) -> Result<Status, Failure> {
    let mut session = session(arguments)?;
    let metadata = session.crawl(Instant::now() + WAIT)?;
    let view = session.view(&Scope::Everything)?;
    let machine = session.machine();
    let mut status = put_together(machine, &view, metadata.as_ref().err(), Instant::now());
    status.select(&view, interfaces).map_err(OnceError::NoSuchInterface)?;
    Ok(status)
}
