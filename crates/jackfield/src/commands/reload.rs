//! `jackfield reload`.

use std::time::Duration;

use jackfield_hostnet::api::client::AgentClient;
use serde_json::json;

use crate::failure::Failure;

/// How long the agent may take: it may be about to finish something.
const PATIENCE: Duration = Duration::from_secs(10);

/// Has the agent read its configuration again.
pub(crate) fn reload() -> Result<(), Failure> {
    let told = AgentClient::connect(PATIENCE).and_then(|mut it| it.call("Reload", &json!({})));
    told.map(|_| ()).map_err(Failure::Asked)
}
