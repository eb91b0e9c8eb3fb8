//! `jackfield vm check` and `jackfield vm down`.

use serde_json::json;

use super::guests;
use crate::arguments::vm::One;
use crate::commands::{print, print_json, require_privilege};
use crate::failure::{Failure, parts};

/// Prints what differs; returns how much.
pub(crate) fn check(one: &One) -> Result<usize, Failure> {
    require_privilege()?;
    let vm = &one.vm;
    let check = guests(&one.places, one.patience)?.check(vm)?;
    let differences = &check.differences;
    if one.output.json {
        let differences: Vec<_> = (differences.iter())
            .map(|it| json!({ "network": it.network, "text": it.text }))
            .collect();
        let failed: Vec<_> = check.failed.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "version": 1,
            "id": vm,
            "differences": differences,
            "failed": failed,
            "remarks": check.remarks,
        }))?;
    } else {
        for difference in differences {
            print(&format!("{difference}\n"))?;
        }
        if differences.is_empty() && check.failed.is_empty() {
            print(&format!("VM {vm} is as it was made\n"))?;
        }
        check.remarks.iter().for_each(|remark| eprintln!("jackfield: {remark}"));
    }
    if differences.is_empty() {
        parts(vm, check.failed)?;
        return Ok(0);
    }
    // That there is a difference is known, whatever else could not be checked.
    check.failed.iter().for_each(|error| log::error!("{error}"));
    Ok(differences.len())
}

pub(crate) fn down(one: &One) -> Result<(), Failure> {
    require_privilege()?;
    let vm = &one.vm;
    let down = guests(&one.places, one.patience)?.down(vm)?;
    if one.output.json {
        let failed: Vec<_> = down.failed.iter().map(ToString::to_string).collect();
        let was_there = down.was_there;
        print_json(&json!({ "version": 1, "id": vm, "was_there": was_there, "failed": failed }))?;
    } else if !down.was_there {
        eprintln!("jackfield: there is no VM {vm}: nothing to do");
    }
    parts(vm, down.failed)
}
