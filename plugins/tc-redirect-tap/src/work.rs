//! The making of a tap and of the redirects, in an order in which a crash at any instant leaves
//! nothing that is not marked.

use jackfield_cni::NetworkName;
use jackfield_cni::plugin::PluginError;
use jackfield_kernel::{
    EthernetAddress, Filter, Link, LinkChange, Qdisc, Redirect, Refusal, Rtnetlink, Tap,
};

use crate::del;
use crate::failure::{self, Batch};
use crate::mark::{FilterMark, TapMark};
use crate::settings::Settings;
use crate::survey::{Arriving, Survey};

/// What is to be made.
pub(crate) struct Work<'a> {
    /// The interface in whose place the tap stands.
    pub(crate) interface: &'a Link,
    /// What the tap's alias is to say.
    pub(crate) mark: &'a TapMark,
    /// The network.
    pub(crate) network: &'a NetworkName,
    /// How the tap is to be.
    pub(crate) settings: &'a Settings,
}

/// The tap as the result tells of it.
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) address: EthernetAddress,
}

impl Work<'_> {
    /// Makes all of it, or nothing.
    pub(crate) fn tap(
        &self,
        kernel: &mut Rtnetlink,
        survey: &Survey,
        name: Option<&str>,
        alias: &str,
    ) -> Result<Made, PluginError> {
        let hook = Hook::prepare(kernel, survey, self.interface, self.mark)?;
        let tap = Tap::create(name).map_err(failure::kernel)?;
        let mut qdisc_added = false;
        let made = self.furnish(kernel, &tap, alias, &hook, &mut qdisc_added);
        if made.is_err() {
            // The tap goes by itself: nothing told it to stay.
            drop(tap);
            self.undo(kernel, qdisc_added);
        }
        made
    }

    /// Makes everything of a tap but itself. It stays only when all else is done.
    fn furnish(
        &self,
        kernel: &mut Rtnetlink,
        tap: &Tap,
        alias: &str,
        hook: &Hook,
        qdisc_added: &mut bool,
    ) -> Result<Made, PluginError> {
        tap.set_owner(self.settings.owner).map_err(failure::kernel)?;
        tap.set_group(self.settings.group).map_err(failure::kernel)?;
        let index = tap.index().map_err(failure::kernel)?;
        let (name, other) = (tap.name(), &self.interface.name);
        let change = LinkChange {
            up: Some(true),
            mtu: Some(self.interface.mtu),
            alias: Some(alias),
            ..LinkChange::default()
        };
        let from_tap = self.redirect((index, self.interface.index), None);
        let to_tap = self.redirect((self.interface.index, index), Some(hook));
        let mut batch = vec![
            (format!("set up the tap device {name}"), change.request(index)),
            (format!("add an ingress qdisc to {name}"), Qdisc::add_ingress(index)),
            (format!("redirect from {name} to {other}"), from_tap.add()),
            (format!("redirect from {other} to {name}"), to_tap.add()),
        ];
        let redirect = batch.len() - 1;
        if hook.add_qdisc {
            let purpose = format!("add an ingress qdisc to {other}");
            batch.insert(redirect, (purpose, Qdisc::add_ingress(self.interface.index)));
        }
        let none_is_done = |_: &Refusal| false;
        let answers = failure::answers(kernel, batch, none_is_done)?;
        *qdisc_added = hook.add_qdisc && answers.get(redirect).is_some_and(Result::is_ok);
        answers.into_iter().collect::<Result<(), _>>()?;
        let address = tap.address().map_err(failure::kernel)?;
        tap.persist().map_err(failure::kernel)?;
        Ok(Made { name: name.to_owned(), address })
    }

    /// Without a hook: on the tap, where all is ours.
    fn redirect(&self, (from, to): (u32, u32), hook: Option<&Hook>) -> Redirect {
        let qdisc_is_ours = hook.is_none_or(|hook| hook.add_qdisc);
        let mark = FilterMark::new(self.network, &self.mark.attachment, qdisc_is_ours);
        Redirect {
            from,
            to,
            preference: hook.map_or(Redirect::FIRST_PREFERENCE, |hook| hook.preference),
            classifier: self.settings.classifier,
            cookie: Some(mark.cookie()),
        }
    }

    /// What failed is told; that it could not be undone would hide it, and a DEL comes anyway.
    fn undo(&self, kernel: &mut Rtnetlink, qdisc_added: bool) {
        let Ok(arriving) = Arriving::of(kernel, self.interface.index) else { return };
        let is_ours = |mark: FilterMark| mark.is_of(&self.mark.attachment);
        let mut batch = del::filters(self.interface, &arriving, is_ours);
        if qdisc_added && arriving.filters.is_empty() {
            let purpose = format!("remove the ingress qdisc of {}", self.interface.name);
            batch.push((purpose, Qdisc::remove_ingress(self.interface.index)));
        }
        let _ = del::send(kernel, batch);
    }
}

/// Where the redirect on the interface hangs.
struct Hook {
    /// The qdisc has to be added, and so is ours.
    add_qdisc: bool,
    preference: u16,
}

impl Hook {
    fn prepare(
        kernel: &mut Rtnetlink,
        survey: &Survey,
        interface: &Link,
        mark: &TapMark,
    ) -> Result<Self, PluginError> {
        let first = Redirect::FIRST_PREFERENCE;
        if !has_qdisc(kernel, interface)? {
            return Ok(Hook { add_qdisc: true, preference: first });
        }
        let arriving = Arriving::of(kernel, interface.index)?;
        let mut leftovers = Batch::new();
        let is_dead =
            |filter: &Filter| filter.redirects_to.is_none_or(|to| survey.with_index(to).is_none());
        for (filter, its) in arriving.ours() {
            if !its.is_of(&mark.attachment) && !is_dead(filter) {
                return Err(PluginError::internal(format!(
                    "{} is redirected already, for another container or VM",
                    interface.name
                )));
            }
            if leftovers.is_empty() {
                leftovers = del::filters(interface, &arriving, |_| true);
            }
        }
        if leftovers.is_empty() {
            let preference = arriving.last_preference(first).ok_or_else(|| {
                PluginError::internal(format!(
                    "{} has a filter at the last place: none is left behind it",
                    interface.name
                ))
            })?;
            return Ok(Hook { add_qdisc: false, preference });
        }
        del::send(kernel, leftovers)?;
        // Nothing of ours is there now.
        Self::prepare(kernel, survey, interface, mark)
    }
}

fn has_qdisc(kernel: &mut Rtnetlink, interface: &Link) -> Result<bool, PluginError> {
    let qdiscs = Qdisc::list(kernel).map_err(failure::kernel)?;
    let is_hook = |qdisc: &Qdisc| qdisc.interface == interface.index && qdisc.is_for_arriving();
    Ok(qdiscs.iter().any(is_hook))
}
