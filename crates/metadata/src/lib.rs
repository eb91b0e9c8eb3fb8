//! Cloud metadata services, as typed facts.
//!
//! What a metadata service says is text that lags behind the machine, fails, and is sometimes
//! throttled. This crate turns it into types that cannot be wrong, and keeps three things apart:
//! a value that is *known*, one that is *absent by authority*, and one that is *unknown*
//! ([`Known`]). What the facts mean for the host is decided elsewhere.
//!
//! - [`ec2`]: the client for EC2's instance metadata service, version 2.
//! - `http`: as much of HTTP/1.1 as a metadata service on a link-local address needs.

pub mod ec2;
mod error;
mod http;
mod interface;
mod known;
mod mac_address;

pub use ec2::{Client, ClientOptions, Conversation, Progress};
pub use error::{Error, ParseError};
pub use http::Endpoint;
pub use interface::{Ask, InterfaceFacts, InterfaceId, Listing, Problem};
pub use known::Known;
pub use mac_address::MacAddr;
