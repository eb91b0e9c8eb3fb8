//! `jackfield import`.

use jackfield_hostnet::Change;
use jackfield_hostnet::import::{Imported, Takeover};
use serde_json::{Value, json};

use crate::arguments::Arguments;
use crate::arguments::import::Import;
use crate::commands::{diff, print, print_json, require_privilege, session};
use crate::failure::Failure;

pub(crate) fn import(arguments: &Arguments, import: &Import) -> Result<(), Failure> {
    let mut session = session(arguments)?;
    if import.remove {
        require_privilege()?;
    }
    let imported = session.import(import.from.tools(), import.remove, import.wait.time)?;
    if import.output.json {
        return print_json(&to_json(&imported, import.remove));
    }
    print(&to_text(&imported, import.remove))
}

fn state(takeover: &Takeover, removed: bool) -> (&'static str, Option<&str>) {
    match takeover {
        Takeover::Takes if removed => ("taken-over", None),
        Takeover::Takes => ("to-be-taken-over", None),
        Takeover::Ours => ("ours", None),
        Takeover::Leaves(reason) => ("left", Some(reason)),
    }
}

fn to_json(imported: &Imported, removed: bool) -> Value {
    let findings = &imported.findings;
    let interface = |it: &jackfield_hostnet::import::FoundInterface| {
        let (state, reason) = state(&it.takeover, removed);
        json!({
            "name": it.name, "ifindex": it.index, "mac": it.mac.to_string(),
            "state": state, "reason": reason,
        })
    };
    json!({
        "version": 1,
        "removed": removed,
        "tools": findings.tools.iter().map(|(tool, evidence)| {
            json!({ "name": tool.name(), "evidence": evidence })
        }).collect::<Vec<Value>>(),
        "interfaces": findings.interfaces.iter().map(interface).collect::<Vec<Value>>(),
        "changes": imported.changes.iter().map(Change::to_json).collect::<Vec<Value>>(),
        "files": findings.files.iter().map(|file| json!({
            "path": file.path, "tool": file.tool.name(), "interface": file.interface,
            "action": file.fate.action(), "reason": file.fate.reason(),
        })).collect::<Vec<Value>>(),
        "left": findings.strange,
        "config": findings.config,
        "done": imported.done,
        "steps": imported.steps,
    })
}

fn to_text(imported: &Imported, removed: bool) -> String {
    let findings = &imported.findings;
    if findings.tools.is_empty() {
        return "nothing to do: neither ubuntu-ec2net nor amazon-ec2-net-utils is here\n"
            .to_owned();
    }
    let mut text = String::new();
    for (tool, evidence) in &findings.tools {
        text.push_str(&format!("{} is here: {evidence}\n", tool.name()));
    }
    for it in &findings.interfaces {
        text.push_str(&match state(&it.takeover, removed) {
            (_, Some(reason)) => format!("{}: left as it is: {reason}\n", it.name),
            ("ours", None) => format!("{}: works by jackfield\n", it.name),
            (state, None) => format!("{}: {}\n", it.name, state.replace('-', " ")),
        });
    }
    text.push_str(&diff(&imported.changes));
    for file in &findings.files {
        let action = file.fate.action();
        let reason = file.fate.reason().map(|it| format!(" ({it})")).unwrap_or_default();
        text.push_str(&format!("{action:7} {}{reason}\n", file.path));
    }
    for it in &findings.strange {
        text.push_str(&format!("leave   {it} (not as the tool makes it)\n"));
    }
    if !findings.config.is_empty() {
        text.push_str("for it to stay as it was, in /etc/jackfield/config.toml:\n\n");
        text.push_str(&findings.config.join("\n"));
        text.push('\n');
    }
    for it in &imported.done {
        text.push_str(&format!("{it}\n"));
    }
    if !imported.steps.is_empty() {
        text.push_str("what is left to you:\n");
        for it in &imported.steps {
            text.push_str(&format!("  {it}\n"));
        }
    }
    if !removed {
        text.push_str("nothing was changed: 'jackfield import --remove' does it\n");
    }
    text
}
