//! The whole program in the lab: real namespaces, a real kernel, real packets, and a metadata
//! service that is emulated. Needs root, or the right to make namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod demo;
mod documents;
mod gone;
mod harness;
mod matrix;
mod plug;
mod untouched;
mod wrong_use;
