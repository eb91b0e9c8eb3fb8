//! EC2's instance metadata service, version 2.
//!
//! Source: "Use the Instance Metadata Service to access instance metadata" in the EC2 User Guide,
//! and what the service was seen to do. Everything needs a session: a PUT gives a token, and every
//! GET carries it. There is no push, so less is asked the less can have changed: one listing of an
//! interface's keys, then one request for each *listed* key that decides something.

mod budget;
mod client;
mod crawl;
mod key;
mod session;
mod text;

pub use client::{Client, ClientOptions, Conversation};
pub use crawl::Progress;
