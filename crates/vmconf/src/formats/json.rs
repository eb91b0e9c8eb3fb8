//! Everything, as one JSON document: `{"version":1,"interfaces":[…]}`.
//!
//! The fields of an interface are those of [`StaticNetworkConf`]. `vm_if_name`, `vm_mac`, `vm_mtu` and the
//! gateways are `null` where there is none, `vm_domain` is empty; a route has `mtu`, `advmss`,
//! `priority`, `table` and `scope` where they are given. Nothing is ever lost.

use serde::{Deserialize, Serialize};

use crate::conf::{StaticNetworkConf, VmConf, VmConfError};
use crate::render::{RenderError, Rendered};

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    interfaces: &'a [StaticNetworkConf],
}

/// Everything, as one line of JSON.
///
/// # Errors
///
/// None: the type is that of all formats.
pub fn render(vm: &VmConf) -> Result<Rendered, RenderError> {
    let document = Document { version: 1, interfaces: vm.interfaces() };
    // Strings, numbers and lists: nothing that serde_json could refuse.
    let mut text = serde_json::to_string(&document).unwrap_or_default();
    text.push('\n');
    Ok(Rendered { text, warnings: Vec::new() })
}

/// Why a text is not a document of this format.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not JSON of this shape, or a value in it is none of its kind.
    #[error("guest network configuration: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("guest network configuration: version {0} is not known; this is for version 1")]
    Version(u32),
    /// The interfaces do not make a VM.
    #[error("guest network configuration: {0}")]
    Conf(#[from] VmConfError),
}

#[derive(Deserialize)]
struct Read {
    version: u32,
    interfaces: Vec<StaticNetworkConf>,
}

/// Reads what [`render`] wrote.
///
/// # Errors
///
/// [`ParseError`].
pub fn parse(text: impl AsRef<[u8]>) -> Result<VmConf, ParseError> {
    let Read { version, interfaces } = serde_json::from_slice(text.as_ref())?;
    if version != 1 {
        return Err(ParseError::Version(version));
    }
    Ok(VmConf::new(interfaces)?)
}
