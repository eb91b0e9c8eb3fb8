//! The commands, one a file or a family of them.

pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod import;
pub(crate) mod plan;
pub(crate) mod plug;
pub(crate) mod reload;
pub(crate) mod render;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod vm;

use std::io::Write;

use jackfield_hostnet::Change;
use jackfield_hostnet::config::Config;
use jackfield_hostnet::once::Session;
use jackfield_metadata::ClientOptions;
use rustix::thread::CapabilitySet;
use serde_json::Value;

use crate::arguments::Arguments;
use crate::failure::Failure;

pub(crate) fn config(arguments: &Arguments) -> Result<Config, Failure> {
    Ok(Config::load(arguments.config.as_deref())?)
}

pub(crate) fn client_options(arguments: &Arguments) -> ClientOptions {
    let mut options = ClientOptions::default();
    if let Some(endpoint) = &arguments.metadata {
        options.endpoints = vec![endpoint.clone()];
    }
    options
}

pub(crate) fn session(arguments: &Arguments) -> Result<Session, Failure> {
    Ok(Session::open(config(arguments)?, client_options(arguments))?)
}

/// Says so before anything is asked or changed where nothing could be changed.
pub(crate) fn require_privilege() -> Result<(), Failure> {
    match rustix::thread::capabilities(None) {
        Ok(sets) if !sets.effective.contains(CapabilitySet::NET_ADMIN) => {
            Err(Failure::NotPrivileged)
        }
        // Where it cannot be told, the kernel will tell.
        _ => Ok(()),
    }
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match anstream::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, as `head`, is no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
        _ => Ok(()),
    }
}

pub(crate) fn print_json(value: &Value) -> Result<(), Failure> {
    print(&format!("{value}\n"))
}

/// Changes as a diff.
pub(crate) fn diff(changes: &[Change]) -> String {
    use anstyle::{AnsiColor, Style};
    let mut out = String::new();
    let mut about = None;
    for change in changes {
        let name = change.interface.as_ref().map_or("(all)", |interface| interface.name.as_str());
        if about != Some(name) {
            let bold = Style::new().bold();
            let details = change.interface.as_ref().map_or_else(String::new, |interface| {
                let mac = interface.mac.map(|mac| format!(", {mac}")).unwrap_or_default();
                format!(" (index {}{mac})", interface.index)
            });
            out.push_str(&format!("{bold}@@ {name}{bold:#}{details}\n"));
            about = Some(name);
        }
        let color = match change.action() {
            "add" => AnsiColor::Green,
            "remove" => AnsiColor::Red,
            _ => AnsiColor::Yellow,
        };
        let style = Style::new().fg_color(Some(color.into()));
        out.push_str(&format!("{style}{change}{style:#}\n"));
    }
    out
}
