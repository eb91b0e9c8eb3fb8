//! Kernel command lines: what is read is read back the same, and an argument that is added changes
//! nothing of it. The first line of the input is the argument's value, the rest the command line.

#![no_main]

use jackfield_vmconf::{Argument, KernelCommandLine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (value, text) = text.split_once('\n').unwrap_or(("", text));
    let Ok(given) = text.parse::<KernelCommandLine>() else { return };
    assert_eq!(given.to_string().parse().as_ref(), Ok(&given));

    let Ok(argument) = Argument::new("ip", value) else { return };
    let mut line = given.clone();
    let had_ip = given.arguments().iter().any(|a| matches!(a.name(), "ip" | "nfsaddrs"));
    assert_eq!(line.add([argument.clone()]).is_err(), had_ip);
    if had_ip {
        assert_eq!(line, given);
        return;
    }
    let read: KernelCommandLine = line.to_string().parse().expect("it was one before");
    assert_eq!(read.init(), given.init());
    assert_eq!(read.arguments().split_last(), Some((&argument, given.arguments())));
});
