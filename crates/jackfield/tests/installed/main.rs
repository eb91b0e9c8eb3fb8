//! The package on a real Debian: systemd as the first process, udevd, networkd with the primary; in
//! namespaces with the lab's network, and in QEMU with Debian's kernel. Needs root, and the root file
//! system that `scripts/debian-root` makes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod boot;
mod disk;
mod emulated;
mod failures;
#[path = "../system/harness.rs"]
mod harness;
mod machine;
mod memory;
mod modes;
mod operated;
mod package;
mod qemu;
mod qmp;
mod story;
