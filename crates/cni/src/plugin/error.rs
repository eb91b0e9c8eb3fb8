//! The error of a plugin, as the specification has it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::null_is_default;

/// The error that a plugin prints on standard output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PluginError {
    /// What kind of error.
    #[serde(default, deserialize_with = "null_is_default")]
    pub code: ErrorCode,
    /// What failed, in one line.
    #[serde(default, deserialize_with = "null_is_default")]
    pub msg: String,
    /// More about it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub details: String,
}

/// An error's number. From 100 on they are the plugin's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The configuration's version is not supported.
    pub const INCOMPATIBLE_VERSION: Self = Self(1);
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: Self = Self(2);
    /// The container is unknown or does not exist: the runtime need not clean up.
    pub const UNKNOWN_CONTAINER: Self = Self(3);
    /// An environment variable is missing or wrong.
    pub const INVALID_ENVIRONMENT: Self = Self(4);
    /// Reading or writing failed.
    pub const IO_FAILURE: Self = Self(5);
    /// Something could not be decoded.
    pub const DECODING_FAILURE: Self = Self(6);
    /// The network configuration is wrong.
    pub const INVALID_CONFIGURATION: Self = Self(7);
    /// The network namespace is wrong.
    pub const INVALID_NETNS: Self = Self(8);
    /// It may work later.
    pub const TRY_AGAIN_LATER: Self = Self(11);
    /// STATUS: the plugin cannot serve an ADD.
    pub const NOT_AVAILABLE: Self = Self(50);
    /// STATUS: it cannot, and containers that are there may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: Self = Self(51);
    /// Something else failed; the number that Go plugins give.
    pub const INTERNAL: Self = Self(999);
}

impl PluginError {
    /// An error without details.
    pub fn new(code: ErrorCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// An error for which there is no number of its own.
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(ErrorCode::INTERNAL, msg)
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        write!(f, " (code {})", self.code.0)
    }
}

impl std::error::Error for PluginError {}

impl From<Error> for PluginError {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::UnsupportedVersion { .. } | Error::Conversion { .. } => {
                ErrorCode::INCOMPATIBLE_VERSION
            }
            Error::Syntax { .. } | Error::Field { .. } => ErrorCode::DECODING_FAILURE,
            Error::Name { what: "network name", .. } => ErrorCode::INVALID_CONFIGURATION,
            Error::Name { .. } | Error::Args { .. } => ErrorCode::INVALID_ENVIRONMENT,
            Error::File { .. } => ErrorCode::IO_FAILURE,
            _ => ErrorCode::INTERNAL,
        };
        Self::new(code, error.to_string())
    }
}
