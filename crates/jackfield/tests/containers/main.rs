//! Published ports of containers, with the real engines: Docker and Podman of Debian, each in an
//! instance of the lab. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod enclosure;
mod engine;
#[path = "../system/harness.rs"]
mod harness;
mod own_image;
mod published;
mod scene;
