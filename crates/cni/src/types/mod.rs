//! Versions of the specification, and results.
//!
//! A result is read from any version into one shape, [`CniResult`], that of version 1.1.0, and
//! written as any version. What a version knows and this crate does not is kept (`extra`).

mod json;
mod read;
mod result;
mod version;
mod write;

pub(crate) use json::{from_slice, null_is_default};
pub use result::{CniResult, Dns, Interface, IpConfig, Route};
pub use version::Version;

/// The fields of a JSON object that this crate does not know.
pub type Extra = serde_json::Map<String, serde_json::Value>;
