//! What holds of a child from its start on.

use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
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

/// Makes a command start a process that has standard input, output and error, and no other descriptor
/// of this process, whoever opened it and forgot to say that it is not for others.
pub fn keep_standard_streams_alone(command: &mut Command) {
    let before_exec = || {
        // SAFETY: close_range(2) takes three numbers. It only marks descriptors, none of which is
        // closed before exec. Kernels before 5.11 refuse it, and keep what was not marked.
        #[allow(unsafe_code)]
        unsafe {
            libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes one
    // system call and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
}

/// Makes a command start a process that is spared no more than others when memory runs out, where this
/// one is.
pub fn reset_oom_score_adj(command: &mut Command) {
    let before_exec = || {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) else {
            return Ok(());
        };
        let mut first = [0];
        if rustix::io::read(&file, &mut first) == Ok(1) && first == *b"-" {
            // To be spared less is allowed to everybody.
            let _ = rustix::io::pwrite(&file, b"0", 0);
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure opens, reads,
    // writes and closes a file by system calls, and allocates nothing.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(before_exec);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_child_that_is_to_have_standard_streams_alone_has_no_other_descriptor() {
        // Made without the flag that keeps it from others.
        let forgotten = rustix::io::dup(std::io::stderr()).unwrap();
        let look = format!("[ ! -e /proc/self/fd/{} ]", forgotten.as_raw_fd());
        let mut command = Command::new("sh");
        command.args(["-c", &look]);
        assert!(!command.status().unwrap().success());
        keep_standard_streams_alone(&mut command);
        assert!(command.status().unwrap().success());
    }
}
