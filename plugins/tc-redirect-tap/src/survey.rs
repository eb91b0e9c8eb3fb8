//! What there is in the namespace that the calling process is in.

use jackfield_cni::plugin::{Attachment, PluginError};
use jackfield_kernel::{Filter, Link, Rtnetlink, TapSettings};

use crate::failure;
use crate::mark::{FilterMark, TapMark};

/// The devices of the namespace.
pub(crate) struct Survey {
    devices: Vec<(Link, Option<TapSettings>)>,
}

/// A tap device of ours.
pub(crate) struct OurTap<'a> {
    pub(crate) link: &'a Link,
    pub(crate) settings: TapSettings,
    pub(crate) mark: TapMark,
}

impl Survey {
    pub(crate) fn take(kernel: &mut Rtnetlink) -> Result<Self, PluginError> {
        let devices = TapSettings::list(kernel).map_err(failure::kernel)?;
        Ok(Survey { devices })
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = &Link> {
        self.devices.iter().map(|(link, _)| link)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.links().find(|link| link.name == name)
    }

    pub(crate) fn with_index(&self, index: u32) -> Option<&Link> {
        self.links().find(|link| link.index == index)
    }

    /// Whether a device has this name, alternative ones included.
    pub(crate) fn is_taken(&self, name: &str) -> bool {
        self.links().any(|link| {
            link.name == name || link.alternative_names.iter().any(|other| other == name)
        })
    }

    /// Our tap devices.
    pub(crate) fn ours(&self) -> impl Iterator<Item = OurTap<'_>> {
        self.devices.iter().filter_map(|(link, settings)| {
            let mark = TapMark::read(link.alias.as_deref()?)?;
            Some(OurTap { link, settings: (*settings)?, mark })
        })
    }

    /// Our tap devices of an attachment: one, or none.
    pub(crate) fn taps_of(&self, attachment: &Attachment) -> Vec<OurTap<'_>> {
        self.ours().filter(|tap| tap.mark.attachment == *attachment).collect()
    }
}

/// The filters on what arrives by a device.
pub(crate) struct Arriving {
    pub(crate) filters: Vec<Filter>,
}

impl Arriving {
    pub(crate) fn of(kernel: &mut Rtnetlink, interface: u32) -> Result<Self, PluginError> {
        let filters = Filter::list(kernel, interface).map_err(failure::kernel)?;
        Ok(Arriving { filters })
    }

    /// Those of ours, with what they say.
    pub(crate) fn ours(&self) -> impl Iterator<Item = (&Filter, FilterMark)> {
        self.filters
            .iter()
            .filter_map(|filter| Some((filter, FilterMark::read(filter.cookie.as_ref()?)?)))
    }

    /// The place behind all that are there, so that each of them still sees every packet.
    pub(crate) fn last_preference(&self, first: u16) -> Option<u16> {
        let last = self.filters.iter().map(|filter| filter.preference).max();
        last.map_or(Some(first), |last| last.checked_add(1).map(|next| next.max(first)))
    }
}
