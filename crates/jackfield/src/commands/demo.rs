//! `jackfield demo`.

use crate::failure::Failure;

pub(crate) fn demo() -> Result<(), Failure> {
    Err(Failure::Demo("the demo is not written yet".to_owned()))
}
