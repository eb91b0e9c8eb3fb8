//! Those who stay with their network manager: ifupdown with ISC's DHCP client, and systemd-networkd, as
//! Debian has them, each in an instance of the lab. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

// What of these is about published ports is not asked for here.
#[allow(dead_code)]
#[path = "../system/client_matrix.rs"]
mod client_matrix;
#[allow(dead_code)]
#[path = "../system/clients.rs"]
mod clients;
#[path = "../system/harness.rs"]
mod harness;
mod ifupdown;
mod import;
mod networkd;
mod place;
#[allow(dead_code)]
#[path = "../system/published.rs"]
mod published;
mod render;
