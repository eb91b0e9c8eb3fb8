//! DEL: whatever is found of an attachment goes, and nothing else.

use jackfield_cni::plugin::{Attachment, DelRequest, PluginError};
use jackfield_kernel::{Link, Qdisc, Refusal, Rtnetlink};

use crate::failure::{self, Batch};
use crate::mark::FilterMark;
use crate::sandbox;
use crate::survey::{Arriving, OurTap, Survey};

pub(crate) fn del(request: &DelRequest) -> Result<(), PluginError> {
    let Some(path) = &request.netns else { return Ok(()) };
    let Some(mut kernel) = sandbox::enter_if_there(path)? else { return Ok(()) };
    let attachment =
        Attachment { container_id: request.container_id.clone(), ifname: request.ifname.clone() };
    let mut remove = || {
        let survey = Survey::take(&mut kernel)?;
        remove(&mut kernel, &survey, &attachment)
    };
    // Where something was gone before its turn, a second look finds nothing that is left.
    remove().or_else(|_| remove())
}

/// Removes everything of an attachment.
pub(crate) fn remove(
    kernel: &mut Rtnetlink,
    survey: &Survey,
    attachment: &Attachment,
) -> Result<(), PluginError> {
    let taps = survey.taps_of(attachment);
    // By name, and by the number that it had when the tap was made: it may have been renamed.
    let mut redirected: Vec<u32> = taps.iter().map(|tap| tap.mark.index).collect();
    redirected.extend(survey.named(attachment.ifname.as_str()).map(|link| link.index));
    redirected.sort_unstable();
    redirected.dedup();
    let mut batch = Batch::new();
    for index in redirected {
        let Some(link) = survey.with_index(index) else { continue };
        let arriving = Arriving::of(kernel, index)?;
        batch.extend(filters(link, &arriving, |mark| mark.is_of(attachment)));
    }
    batch.extend(taps.iter().map(tap));
    send(kernel, batch)
}

/// Requests that are not needed any more are done.
pub(crate) fn send(kernel: &mut Rtnetlink, batch: Batch) -> Result<(), PluginError> {
    failure::send(kernel, batch, Refusal::already_gone)
}

/// What removes a tap of ours.
pub(crate) fn tap(tap: &OurTap<'_>) -> (String, jackfield_kernel::Request) {
    (format!("remove the tap device {}", tap.link.name), Link::delete(tap.link.index))
}

/// What removes those of our filters from a device that are meant: with the qdisc where that came
/// with them and nobody else uses it.
pub(crate) fn filters(
    link: &Link,
    arriving: &Arriving,
    is_meant: impl Fn(FilterMark) -> bool,
) -> Batch {
    let name = &link.name;
    let meant: Vec<_> = arriving.ours().filter(|(_, mark)| is_meant(*mark)).collect();
    let all = meant.len() == arriving.filters.len();
    if all && meant.iter().any(|(_, mark)| mark.qdisc_is_ours) {
        let purpose = format!("remove the ingress qdisc of {name}");
        return vec![(purpose, Qdisc::remove_ingress(link.index))];
    }
    let remove = |(filter, _): &(&jackfield_kernel::Filter, FilterMark)| {
        (format!("remove the redirect from {name}"), filter.remove())
    };
    meant.iter().map(remove).collect()
}
