//! `jackfield vm` as a program, with Debian's containernetworking-plugins and this workspace's
//! tc-redirect-tap, on machines of namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod collected;
mod conf;
mod half;
mod killed;
mod life;
mod machine;
mod many;
mod responder;
mod wrong_use;
