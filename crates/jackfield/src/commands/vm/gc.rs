//! `jackfield vm gc`.

use serde_json::json;

use super::guests;
use crate::arguments::vm::All;
use crate::commands::{print, print_json, require_privilege};
use crate::failure::Failure;

pub(crate) fn gc(all: &All) -> Result<(), Failure> {
    require_privilege()?;
    let gc = guests(&all.places, all.patience)?.gc()?;
    if all.output.json {
        let failed: Vec<_> = gc.failed.iter().map(ToString::to_string).collect();
        print_json(&json!({
            "version": 1,
            "removed": gc.removed,
            "networks": gc.networks,
            "failed": failed,
            "remarks": gc.remarks,
        }))?;
    } else {
        for vm in &gc.removed {
            print(&format!("removed what was left of VM {vm}\n"))?;
        }
        for network in &gc.networks {
            print(&format!("network {network}: its plugins removed what nobody has any more\n"))?;
        }
        if gc.removed.is_empty() && gc.networks.is_empty() {
            print("nothing to do\n")?;
        }
        gc.remarks.iter().for_each(|remark| eprintln!("jackfield: {remark}"));
    }
    match gc.failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Parts { what: "clean-up".to_owned(), failed: gc.failed }),
    }
}
