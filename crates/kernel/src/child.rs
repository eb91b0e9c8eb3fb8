//! Children that do not outlive their parent.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// Makes a command start a process that the kernel kills when the thread that starts it ends, for
/// whatever reason: nobody has to be left to clean up.
pub fn end_with_parent(command: &mut Command) {
    let before_exec = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes one
    // prctl system call and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
}
