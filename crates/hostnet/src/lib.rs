//! Desired state, plan, apply and the agent that keeps a host's interfaces working.
//!
//! ```text
//! metadata ─► Memory ─► Cloud ─┐
//!                              ├─► desired ─► plan ─► apply ─► kernel
//! kernel ──► Snapshot ─────────┘
//! ```
//!
//! [`desired()`] and [`plan()`] are pure functions: snapshots in, a list of changes out, no clock and
//! no socket. Everything that talks to the kernel is in [`Snapshot::read`] and [`apply()`];
//! everything that waits is in [`agent`] and [`once`].

#![forbid(unsafe_code)]

pub mod agent;
pub mod api;
mod apply;
mod carrier;
pub mod carry;
mod change;
pub mod classify;
mod cloud;
pub mod config;
mod containers;
mod contest;
mod desired;
pub mod doctor;
pub mod explain;
mod forwarding;
pub mod hooks;
pub mod import;
mod journal;
mod machine;
mod managers;
mod metrics;
pub mod neighbours;
pub mod once;
mod plan;
mod prefix;
mod problem;
pub mod render;
mod schedule;
mod snapshot;
pub mod status;
mod transitions;

pub use apply::{Applied, apply};
pub use change::{Change, Edit, InterfaceRef};
pub use cloud::{Cloud, CloudInterface, Memory, Slot};
pub use desired::{Desired, DesiredInterface, Device, PluggedDevice, Role, Scope, desired};
pub use forwarding::Forwarding;
pub use journal::Journal;
pub use machine::{Answer, Machine, View, ask};
pub use managers::{ByHand, Managers, OwnFile};
pub use plan::{Plan, plan};
pub use problem::Problem;
pub use snapshot::{
    ACCEPT_DEFAULT, ACCEPT_PREFIX, Candidate, DISABLE_IPV6, MAIN, News, OURS, REVERSE_PATH_FILTER,
    Snapshot, kernel_keeps_address_protocol, marker, marker_table,
};
