//! What the caller wants of the tap: `CNI_ARGS`, and one key of the configuration.

use jackfield_cni::CniArgs;
use jackfield_cni::InterfaceName;
use jackfield_cni::plugin::{PluginError, Request};
use jackfield_kernel::{Classifier, effective_user_and_group};

use crate::failure;

const NAME: &str = "TC_REDIRECT_TAP_NAME";
const OWNER: &str = "TC_REDIRECT_TAP_UID";
const GROUP: &str = "TC_REDIRECT_TAP_GID";

/// (uid_t) -1 and (gid_t) -1 mean nobody.
const NOBODY: u32 = u32::MAX;

/// How the tap is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Its name; `None`: the kernel chooses.
    pub(crate) name: Option<InterfaceName>,
    /// The user who may open it; where not given, the one as whom this runs.
    pub(crate) owner: u32,
    /// The group that may open it.
    pub(crate) group: u32,
    /// `classifier`: `u32` (the default), `matchall` or `bpf`.
    pub(crate) classifier: Classifier,
}

impl Settings {
    pub(crate) fn of(request: &Request) -> Result<Self, PluginError> {
        let args = &request.args;
        let name = args.get(NAME).filter(|name| !name.is_empty());
        let name = name
            .map(InterfaceName::new)
            .transpose()
            .map_err(|error| failure::environment(format!("CNI_ARGS: {NAME}: {error}")))?;
        let (user, group) = effective_user_and_group();
        Ok(Settings {
            name,
            owner: identifier(args, OWNER)?.unwrap_or(user),
            group: identifier(args, GROUP)?.unwrap_or(group),
            classifier: classifier(request)?,
        })
    }
}

fn identifier(args: &CniArgs, key: &str) -> Result<Option<u32>, PluginError> {
    let Some(text) = args.get(key) else { return Ok(None) };
    // The standard library takes a leading '+'.
    let number = text.parse().ok().filter(|number| *number != NOBODY && !text.starts_with('+'));
    number.map(Some).ok_or_else(|| {
        let most = NOBODY - 1;
        failure::environment(format!("CNI_ARGS: {key}: {text:?} is no number from 0 to {most}"))
    })
}

fn classifier(request: &Request) -> Result<Classifier, PluginError> {
    let Some(value) = request.config.extra.get("classifier") else { return Ok(Classifier::U32) };
    match value.as_str() {
        Some("u32") => Ok(Classifier::U32),
        Some("matchall") => Ok(Classifier::MatchAll),
        Some("bpf") => Ok(Classifier::Bpf),
        _ => Err(failure::configuration(format!(
            "network configuration: classifier: {value} is none of \"u32\", \"matchall\", \"bpf\""
        ))),
    }
}
