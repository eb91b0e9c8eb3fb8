//! `jackfield run`.

use crate::arguments::Arguments;
use crate::commands::{client_options, config, require_privilege};
use crate::failure::Failure;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = config(arguments)?;
    require_privilege()?;
    let file = arguments.config.clone();
    Ok(jackfield_hostnet::agent::run(config, file, client_options(arguments))?)
}
