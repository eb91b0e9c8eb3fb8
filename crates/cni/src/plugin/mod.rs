//! What a plugin executable needs.
//!
//! A plugin is a [`Plugin`], and its `main` is [`run`]:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use jackfield_cni::plugin::{self, DelRequest, Plugin, PluginError, Request};
//! use jackfield_cni::types::CniResult;
//!
//! /// Makes nothing, and says so.
//! struct Nothing;
//!
//! impl Plugin for Nothing {
//!     fn about(&self) -> String {
//!         "CNI plugin nothing".into()
//!     }
//!
//!     fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
//!         Ok(request.prev_result.clone().unwrap_or_default())
//!     }
//!
//!     fn del(&self, _: &DelRequest) -> Result<(), PluginError> {
//!         Ok(())
//!     }
//!
//!     fn check(&self, _: &Request) -> Result<(), PluginError> {
//!         Ok(())
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     plugin::run(&Nothing)
//! }
//! ```

mod error;
mod input;
mod request;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::json;

pub use error::{ErrorCode, PluginError};
use input::{Command, Environment, Input};
pub use request::{Attachment, DelRequest, GcRequest, NetworkConfig, Request, StatusRequest};

use crate::types::{CniResult, Version};

/// What a plugin does.
pub trait Plugin {
    /// One line that says what this is, for somebody who starts it by hand.
    fn about(&self) -> String;

    /// The versions that it supports, oldest first.
    fn versions(&self) -> &[Version] {
        &Version::ALL
    }

    /// Adds an attachment, or nothing. The result is printed in the configuration's version; where
    /// that fails, [`del`](Self::del) is called to undo it.
    ///
    /// # Errors
    ///
    /// Whatever is in the way. Nothing may be left of what was made until then.
    fn add(&self, request: &Request) -> Result<CniResult, PluginError>;

    /// Removes an attachment, or what is left of one. It is called for every version, supported or
    /// not.
    ///
    /// # Errors
    ///
    /// Something that is ours is left and cannot be removed.
    fn del(&self, request: &DelRequest) -> Result<(), PluginError>;

    /// Checks that an attachment is as ADD left it. From version 0.4.0.
    ///
    /// # Errors
    ///
    /// What is not.
    fn check(&self, request: &Request) -> Result<(), PluginError>;

    /// Removes what is left of attachments that are not valid any more. From version 1.1.0.
    ///
    /// # Errors
    ///
    /// What could not be removed, after all that could.
    fn gc(&self, _request: &GcRequest) -> Result<(), PluginError> {
        Ok(())
    }

    /// Whether it can serve an ADD. From version 1.1.0.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::NOT_AVAILABLE`] or [`ErrorCode::LIMITED_CONNECTIVITY`].
    fn status(&self, _request: &StatusRequest) -> Result<(), PluginError> {
        Ok(())
    }
}

/// Runs a plugin on the process's environment, standard input and output.
pub fn run(plugin: &impl Plugin) -> ExitCode {
    let variable = |name: &str| std::env::var_os(name);
    if variable("CNI_COMMAND").is_none_or(|command| command.is_empty()) {
        introduce(plugin);
        return ExitCode::SUCCESS;
    }
    match run_with(plugin, variable, io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Started by hand: says what it is, as Go plugins do.
fn introduce(plugin: &impl Plugin) {
    let versions: Vec<_> = plugin.versions().iter().map(|version| version.as_str()).collect();
    let versions = versions.join(", ");
    // Nobody is there to be told where standard error is closed.
    let _ =
        writeln!(io::stderr(), "{}\nCNI protocol versions supported: {versions}", plugin.about());
}

/// [`run`] on a given environment, input and output. The error has been printed when it returns.
///
/// # Errors
///
/// The plugin's, or one of what it was given.
pub fn run_with(
    plugin: &impl Plugin,
    variable: impl Fn(&str) -> Option<OsString>,
    input: impl Read,
    mut output: impl Write,
) -> Result<(), PluginError> {
    let mut spoken = *plugin.versions().last().unwrap_or(&Version::LATEST);
    let done = answer(plugin, variable, input, &mut output, &mut spoken);
    if let Err(PluginError { code, msg, details }) = &done {
        let mut error = json!({"cniVersion": spoken, "code": code, "msg": msg});
        if !details.is_empty()
            && let Some(fields) = error.as_object_mut()
        {
            fields.insert("details".into(), details.as_str().into());
        }
        // The exit status still tells of it where it cannot be written.
        let _ = print(&mut output, &error);
    }
    done
}

/// `spoken` becomes the version in which an error is printed.
fn answer(
    plugin: &impl Plugin,
    variable: impl Fn(&str) -> Option<OsString>,
    input: impl Read,
    output: &mut impl Write,
    spoken: &mut Version,
) -> Result<(), PluginError> {
    let environment = Environment::read(variable)?;
    let supported = plugin.versions();
    if environment.command == Command::Version {
        return print(output, &json!({"cniVersion": spoken, "supportedVersions": supported}));
    }
    let input = Input::read(&read(input)?)?;
    if let Ok(version) = input.version()
        && supported.contains(&version)
    {
        *spoken = version;
    }
    if environment.command == Command::Del {
        return plugin.del(&input.into_del_request(&environment)?);
    }
    let version = input.supported_version(supported)?;
    check_command(environment.command, version)?;
    match environment.command {
        Command::Add => add(plugin, &input.into_request(&environment, version)?, output),
        Command::Check => plugin.check(&input.into_request(&environment, version)?),
        Command::Gc => plugin.gc(&input.into_gc_request(&environment, version)?),
        Command::Status => plugin.status(&input.into_status_request(&environment, version)),
        Command::Del | Command::Version => Ok(()),
    }
}

/// Commands that came with later versions.
fn check_command(command: Command, version: Version) -> Result<(), PluginError> {
    let (name, since) = match command {
        Command::Check => ("CHECK", Version::V0_4_0),
        Command::Gc => ("GC", Version::V1_1_0),
        Command::Status => ("STATUS", Version::V1_1_0),
        Command::Add | Command::Del | Command::Version => return Ok(()),
    };
    if version < since {
        let msg = format!("config version does not allow {name}");
        let details = format!("it is {version}, and {name} is from {since} on");
        return Err(PluginError::new(ErrorCode::INCOMPATIBLE_VERSION, msg).with_details(details));
    }
    Ok(())
}

fn add(
    plugin: &impl Plugin,
    request: &Request,
    output: &mut impl Write,
) -> Result<(), PluginError> {
    let result = plugin.add(request)?;
    let printed = match result.to_version(request.version) {
        Ok(json) => print(output, &json),
        Err(error) => Err(error.into()),
    };
    // Whoever asked does not know what was made: it must not stay.
    printed.map_err(|mut error| {
        if let Err(undo) = plugin.del(&undoing(request, result)) {
            error.details = format!("and it could not be undone: {undo}");
        }
        error
    })
}

fn undoing(request: &Request, result: CniResult) -> DelRequest {
    let request = request.clone();
    DelRequest {
        container_id: request.container_id,
        netns: Some(request.netns),
        netns_override: request.netns_override,
        ifname: request.ifname,
        args: Ok(request.args),
        path: request.path,
        config: request.config,
        version: Ok(request.version),
        prev_result: Ok(Some(result)),
    }
}

fn read(mut input: impl Read) -> Result<Vec<u8>, PluginError> {
    let mut json = Vec::new();
    input.read_to_end(&mut json).map_err(|error| {
        PluginError::new(ErrorCode::IO_FAILURE, format!("reading standard input: {error}"))
    })?;
    Ok(json)
}

fn print(output: &mut impl Write, json: &serde_json::Value) -> Result<(), PluginError> {
    writeln!(output, "{json}").and_then(|()| output.flush()).map_err(|error| {
        PluginError::new(ErrorCode::IO_FAILURE, format!("writing standard output: {error}"))
    })
}
