//! `jackfield plug`, `unplug` and `scan`.

use std::time::Duration;

use jackfield_hostnet::Change;
use jackfield_hostnet::once::{Report, Session};
use serde_json::json;

use crate::arguments::{Arguments, Output, Plug, Scan, Unplug};
use crate::commands::{diff, print, print_json, require_privilege, session};
use crate::failure::Failure;

/// How long `unplug` waits to hear which interface is the primary, where it cannot tell itself.
const PRIMARY: Duration = Duration::from_secs(3);

pub(crate) fn plug(arguments: &Arguments, plug: &Plug) -> Result<(), Failure> {
    let mut session = privileged(arguments)?;
    let report = session.plug(&plug.interfaces, plug.wait.time)?;
    tell(&mut session, &report, plug.output)
}

pub(crate) fn unplug(arguments: &Arguments, unplug: &Unplug) -> Result<(), Failure> {
    let mut session = privileged(arguments)?;
    let report = match unplug.all {
        true => session.unplug_all()?,
        false => session.unplug(&unplug.interfaces, PRIMARY)?,
    };
    tell(&mut session, &report, unplug.output)
}

pub(crate) fn scan(arguments: &Arguments, scan: &Scan) -> Result<(), Failure> {
    let mut session = privileged(arguments)?;
    let report = session.scan(scan.wait.time)?;
    tell(&mut session, &report, scan.output)
}

fn privileged(arguments: &Arguments) -> Result<Session, Failure> {
    let session = session(arguments)?;
    require_privilege()?;
    Ok(session)
}

fn tell(session: &mut Session, report: &Report, output: Output) -> Result<(), Failure> {
    if output.json {
        let changes: Vec<_> = report.changes.iter().map(Change::to_json).collect();
        return print_json(&json!({
            "version": 1,
            "changes": changes,
            "remarks": report.remarks,
            "metadata_requests": session.requests(),
            "netlink_writes": session.machine().writes(),
        }));
    }
    for remark in &report.remarks {
        anstream::eprintln!("jackfield: {remark}");
    }
    if report.changes.is_empty() {
        return print("nothing to do: no netlink write was sent\n");
    }
    print(&diff(&report.changes))
}
