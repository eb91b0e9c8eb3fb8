//! The whole program in the lab: real namespaces, a real kernel, real packets, and a metadata
//! service that is emulated. Needs root, or the right to make namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod advertisements;
mod api;
mod beside;
mod cards;
mod client_matrix;
mod clients;
mod containers;
mod demo;
mod doctor;
mod documents;
mod explain;
mod faults;
mod gone;
mod harness;
mod hooks;
mod import;
mod ipv6;
mod kernel_state;
mod killed;
mod lag;
mod logs;
mod matrix;
mod metrics;
mod others;
mod packaging;
mod plug;
mod prefixes;
mod published;
mod races;
mod reload;
mod rest;
mod shapes;
mod shared_rules;
mod storm;
mod udev;
mod untouched;
mod vm;
mod watch;
mod wrong_use;
