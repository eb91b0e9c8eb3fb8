//! The runtime, with plugins made for it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod bench;
mod cache;
mod chain;
mod misbehaviour;
