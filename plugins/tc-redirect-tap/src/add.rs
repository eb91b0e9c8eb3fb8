//! ADD: the tap, and the redirects between it and the interface.

use jackfield_cni::plugin::{Attachment, ErrorCode, PluginError, Request};
use jackfield_cni::types::CniResult;
use jackfield_kernel::{Link, Rtnetlink};

use crate::check;
use crate::del;
use crate::failure;
use crate::mark::TapMark;
use crate::result;
use crate::sandbox;
use crate::settings::Settings;
use crate::survey::Survey;
use crate::work::{Made, Work};

pub(crate) fn add(request: &Request) -> Result<CniResult, PluginError> {
    let settings = Settings::of(request)?;
    let before = request.prev_result.as_ref().ok_or_else(missing_result)?;
    // What the text of the paths means is the file system's matter, not the namespace's.
    let addresses = result::addresses(before, request);
    let mut kernel = sandbox::enter(request)?;
    let survey = Survey::take(&mut kernel)?;
    let interface = redirected(&survey, request)?;
    let mark = TapMark {
        network: request.config.name.to_string(),
        attachment: Attachment {
            container_id: request.container_id.clone(),
            ifname: request.ifname.clone(),
        },
        index: interface.index,
    };
    let made = match already_made(&mut kernel, &survey, interface, &mark, &settings)? {
        Some(made) => made,
        None => make(&mut kernel, &survey, interface, &mark, request, &settings)?,
    };
    Ok(result::with_pair(before, request, &made, interface, &addresses))
}

pub(crate) fn missing_result() -> PluginError {
    failure::configuration(
        "prevResult is missing: tc-redirect-tap stands after a plugin that makes the interface",
    )
}

fn redirected<'a>(survey: &'a Survey, request: &Request) -> Result<&'a Link, PluginError> {
    let (name, path) = (&request.ifname, request.netns.display());
    let interface = survey.named(name.as_str()).ok_or_else(|| {
        let msg = format!("there is no interface {name} in {path}");
        PluginError::new(ErrorCode::UNKNOWN_CONTAINER, msg)
    })?;
    if !interface.ethernet || interface.address.is_none() {
        let msg = format!("{name} in {path} is no Ethernet interface: a tap cannot stand for it");
        return Err(PluginError::internal(msg));
    }
    Ok(interface)
}

/// What an ADD of the same attachment has made, where all of it is as this one would make it.
fn already_made(
    kernel: &mut Rtnetlink,
    survey: &Survey,
    interface: &Link,
    mark: &TapMark,
    settings: &Settings,
) -> Result<Option<Made>, PluginError> {
    let taps = survey.taps_of(&mark.attachment);
    let [tap] = taps.as_slice() else { return Ok(None) };
    let Some(address) = tap.link.address else { return Ok(None) };
    let is_right = tap.mark == *mark
        && check::problem_of_devices(tap, interface, settings).is_none()
        && check::problem_of_redirects(kernel, tap, interface)?.is_none();
    Ok(is_right.then(|| Made { name: tap.link.name.clone(), address }))
}

fn make(
    kernel: &mut Rtnetlink,
    survey: &Survey,
    interface: &Link,
    mark: &TapMark,
    request: &Request,
    settings: &Settings,
) -> Result<Made, PluginError> {
    let alias = mark.alias().ok_or_else(|| {
        failure::configuration(
            "the names of network and container are too long to mark the tap device with: \
             together at most 170 octets",
        )
    })?;
    // Of an ADD that was killed, or of a tap that is not as it should be.
    let leftovers = survey.taps_of(&mark.attachment);
    let is_ours = |name: &str| leftovers.iter().any(|tap| tap.link.name == name);
    let wanted = settings.name.as_ref().map(|name| name.as_str());
    if let Some(name) = wanted.filter(|name| survey.is_taken(name) && !is_ours(name)) {
        return Err(failure::environment(format!(
            "the tap device cannot be named {name}: there is a device of that name"
        )));
    }
    let has_leftovers = !leftovers.is_empty();
    if has_leftovers {
        del::remove(kernel, survey, &mark.attachment)?;
    }
    let work = Work { interface, mark, network: &request.config.name, settings };
    work.tap(kernel, survey, wanted, &alias)
}
