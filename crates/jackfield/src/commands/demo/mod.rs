//! `jackfield demo`: the whole story, in namespaces that only this process holds.
//!
//! Nothing has to be cleaned up: the namespaces have no names, no file is written, and the agents
//! are killed by the kernel when this process ends, however it ends.

mod agent;
mod dump;
mod story;
mod telling;

use jackfield_lab::enter_user_namespace;
use rustix::thread::CapabilitySet;

use crate::arguments::Demo;
use crate::failure::Failure;
use telling::Telling;

pub(crate) fn demo(demo: &Demo) -> Result<(), Failure> {
    let root = may_make_namespaces();
    if !root {
        // Before there is a second thread.
        enter_user_namespace().map_err(Failure::NoNamespaces)?;
    }
    let mut telling = Telling::new(demo.output.json);
    telling.heading(if root {
        "as root, in namespaces of its own"
    } else {
        "without root, in a user namespace"
    })?;
    let told = story::tell(&mut telling);
    telling.end(told)
}

/// Whether this user may make network and mount namespaces, and change what is in them.
fn may_make_namespaces() -> bool {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW | CapabilitySet::SYS_ADMIN;
    // Where it cannot be told, the user namespace gives it.
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}
