//! The executable as a runtime runs it, in namespaces of its own for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![forbid(unsafe_code)]

mod add;
mod chain;
mod check;
mod del;
mod gc;
mod harness;
mod killed;
mod protocol;
#[path = "../../../../crates/jackfield/tests/guest/responder.rs"]
mod responder;
