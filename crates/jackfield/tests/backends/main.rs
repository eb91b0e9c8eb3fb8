//! Those who stay with their network manager: ifupdown with ISC's DHCP client, and systemd-networkd, as
//! Debian has them, each in an instance of the lab. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../system/harness.rs"]
mod harness;
mod ifupdown;
mod networkd;
mod place;
mod render;
