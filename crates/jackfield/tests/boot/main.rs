//! A real guest boots on what `jackfield vm up` printed, and on nothing else: Linux in QEMU (software
//! emulation) on the taps that `up` made, its network configured by whoever reads a format in
//! earnest. From inside, the guest tells what it has; packets go both ways.
//!
//! Needs root, QEMU, Debian's containernetworking-plugins, and the kernel that `scripts/guest-kernel`
//! builds (or the one that `JACKFIELD_GUEST_KERNEL` names). Where the kernel is missing, the tests
//! say that nothing was tested; where `CI` is set, they fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cloud_init;
mod guest;
mod host;
mod initramfs;
mod kernel_args;
#[path = "../guest/machine.rs"]
#[allow(dead_code)]
mod machine;
mod networkd;
mod seen;
