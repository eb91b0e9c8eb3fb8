//! The whole program in the lab: real namespaces, a real kernel, real packets, and a metadata
//! service that is emulated. Needs root, or the right to make namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod beside;
mod cards;
mod containers;
mod demo;
mod documents;
mod faults;
mod gone;
mod harness;
mod ipv6;
mod kernel_state;
mod killed;
mod lag;
mod matrix;
mod others;
mod plug;
mod prefixes;
mod races;
mod rest;
mod shared_rules;
mod storm;
mod udev;
mod untouched;
mod watch;
mod wrong_use;
