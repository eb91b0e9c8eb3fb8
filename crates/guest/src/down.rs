//! A VM's network, taken away.

use jackfield_cni::ContainerId;

use crate::error::{Error, Result};
use crate::guests::Guests;

/// How a `down` ended.
#[derive(Debug)]
pub struct Down {
    /// There was something of the VM.
    pub was_there: bool,
    /// What could not be done; the rest is done. It is tried again by the next `down`.
    pub failed: Vec<Error>,
}

impl Guests {
    /// Takes all of a VM down, also what is there by half. Succeeds where there is nothing.
    ///
    /// # Errors
    /// [`Error::Busy`], and where it cannot be found out what there is. What fails after that is in
    /// [`Down::failed`].
    pub fn down(&self, vm: &ContainerId) -> Result<Down> {
        let _lock = self.lock(vm)?;
        match self.find(vm)? {
            None => Ok(Down { was_there: false, failed: Vec::new() }),
            Some(known) => Ok(Down { was_there: true, failed: self.tear_down(known) }),
        }
    }
}
