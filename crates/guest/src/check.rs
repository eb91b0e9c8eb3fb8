//! A VM's network, compared with what `up` made.

use jackfield_cni::{ContainerId, Error as CniError, NetworkName, PluginFailure};

use crate::error::{Error, Result};
use crate::guests::Guests;
use crate::known::{Attached, Known};

/// What a check found.
#[derive(Debug, Default)]
pub struct Check {
    /// What is not as `up` made it.
    pub differences: Vec<Difference>,
    /// What could not be checked.
    pub failed: Vec<Error>,
    /// What need not be checked, and why.
    pub remarks: Vec<String>,
}

/// Something that is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The network; `None` where it is about all of the VM.
    pub network: Option<NetworkName>,
    /// What it is.
    pub text: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Guests {
    /// Checks a VM: that all that the cache and the namespace's mark tell of is there, that the taps are
    /// there and up, and whatever the plugins' CHECK checks.
    ///
    /// # Errors
    /// [`Error::NoSuchVm`]; [`Error::Busy`]; where it cannot be found out what there is.
    pub fn check(&self, vm: &ContainerId) -> Result<Check> {
        let _lock = self.lock(vm)?;
        let known = self.find(vm)?.ok_or_else(|| Error::NoSuchVm(vm.clone()))?;
        let (_, problems) = known.judge();
        let mut check = Check::default();
        check.differences.extend(
            problems
                .into_iter()
                .map(|problem| Difference { network: None, text: format!("VM {vm}: {problem}") }),
        );
        for attached in &known.attached {
            self.check_network(&known, attached, &mut check)?;
        }
        Ok(check)
    }

    fn check_network(&self, known: &Known, attached: &Attached, check: &mut Check) -> Result<()> {
        // What is not there has been told of.
        let Some(sandbox) = &known.sandbox else { return Ok(()) };
        if attached.result().is_none() {
            return Ok(());
        }
        let network = attached.network();
        let mut differs = |text| {
            check.differences.push(Difference { network: Some(network.clone()), text });
        };
        if let Some(tap) = attached.tap() {
            match sandbox.link(tap)? {
                None => differs(format!("network {network}: the tap {tap} is gone")),
                Some(link) if !link.up => {
                    differs(format!("network {network}: the tap {tap} is down"));
                }
                Some(_) => {}
            }
        }
        let checked = self
            .network_of(attached)
            .and_then(|list| Ok(self.runtime_of(attached).check(&list, &attached.cached.conf)?));
        match checked {
            Ok(()) => {}
            Err(Error::Cni(CniError::CommandNotInVersion { .. })) => check.remarks.push(format!(
                "network {network}: its plugins are not asked: CHECK is from CNI version 0.4.0 on"
            )),
            Err(Error::Cni(error)) if is_difference(&error) => differs(error.to_string()),
            Err(error) => check.failed.push(error),
        }
        Ok(())
    }
}

/// The plugin ran, and did not agree.
fn is_difference(error: &CniError) -> bool {
    matches!(
        error,
        CniError::Plugin { failure, .. } if matches!(
            **failure,
            PluginFailure::Reported { .. } | PluginFailure::Unexplained { .. }
        )
    )
}
