//! `jackfield plan`.

use std::time::Duration;

use jackfield_hostnet::{Change, Role};
use serde_json::json;

use crate::arguments::{Arguments, Show};
use crate::commands::{diff, print, print_json, session};
use crate::failure::Failure;

/// How long metadata may take.
const WAIT: Duration = Duration::from_secs(5);

/// Prints what would change; returns how much.
pub(crate) fn plan(arguments: &Arguments, plan: &Show) -> Result<usize, Failure> {
    let mut session = session(arguments)?;
    let view = session.plan(&plan.interfaces, WAIT)?;
    let changes = &view.plan.changes;
    if plan.output.json {
        let changes: Vec<_> = changes.iter().map(Change::to_json).collect();
        print_json(&json!({ "version": 1, "changes": changes }))?;
    } else if changes.is_empty() {
        print("nothing would change\n")?;
    } else {
        print(&diff(changes))?;
    }
    for interface in &view.desired.interfaces {
        // Devices that metadata does not list are most likely no cloud interfaces.
        let stranger = interface.role == Role::Waiting
            && interface.problems.iter().any(|problem| problem.code == "not-listed");
        for problem in interface.problems.iter().filter(|_| !stranger) {
            anstream::eprintln!("jackfield: {}: {}; {}", interface.name, problem.text, problem.fix);
        }
    }
    Ok(changes.len())
}
