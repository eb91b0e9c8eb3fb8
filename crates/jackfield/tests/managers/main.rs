//! Beside the managers that hosts have: systemd-networkd and NetworkManager of Debian, each in an
//! instance of the lab. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod enclosure;
#[path = "../system/harness.rs"]
mod harness;
mod network_manager;
mod networkd;
mod seen;
