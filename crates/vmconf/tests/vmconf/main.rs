//! The library from outside, a subject a file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod go_reference;
mod golden;
mod hostile;
mod properties;
mod readers;
mod support;
