//! What it costs to make the rules, and everything that belongs to them.

use crate::Failure;

pub(crate) fn measure(_rounds: usize) -> Result<(), Failure> {
    Ok(())
}
