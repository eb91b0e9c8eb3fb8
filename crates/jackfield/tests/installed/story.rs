//! From a bare machine to one with the package and back.

use crate::harness::*;
use crate::machine::Machine;

#[test]
#[ignore = "long: boots Debian"]
fn try_it() {
    let Some(mut machine) = Machine::new() else { return };
    eprintln!("{:?}", machine.boot());
    eprintln!("{}", machine.shell("ip a; ip r; ps ax; systemctl list-units; ls -la /dev /sys/fs/cgroup; journalctl -b -p warning"));
    eprintln!("{:?}", machine.reboot());
    machine.close();
}
