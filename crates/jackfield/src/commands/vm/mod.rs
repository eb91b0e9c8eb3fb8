//! `jackfield vm`: the network of microVMs.

mod conf;
mod form;
mod gc;
mod list;
mod one;
mod up;

use jackfield_guest::Guests;

use crate::arguments::vm::{Patience, Places, VmCommand};
use crate::failure::Failure;

/// Runs one of the commands; returns how many differences it found.
pub(crate) fn vm(command: &VmCommand) -> Result<usize, Failure> {
    let done = |()| 0;
    match command {
        VmCommand::Conf(arguments) => conf::conf(arguments).map(done),
        VmCommand::Up(arguments) => up::up(arguments).map(done),
        VmCommand::Check(arguments) => one::check(arguments),
        VmCommand::Down(arguments) => one::down(arguments).map(done),
        VmCommand::List(arguments) => list::list(arguments).map(done),
        VmCommand::Gc(arguments) => gc::gc(arguments).map(done),
    }
}

fn guests(places: &Places, patience: Patience) -> Result<Guests, Failure> {
    let some = |paths: &Vec<_>| (!paths.is_empty()).then(|| paths.clone());
    let places = jackfield_guest::Places {
        conf_dirs: some(&places.conf_dirs),
        plugin_dirs: some(&places.plugin_dirs),
        cache_dir: places.cache_dir.clone(),
    };
    Ok(Guests {
        places: places.absolute()?,
        plugin_deadline: patience.timeout,
        lock_wait: patience.wait,
    })
}
