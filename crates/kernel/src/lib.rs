//! The one place of jackfield that talks to Linux.
//!
//! * [`Rtnetlink`] — one synchronous rtnetlink socket: batches of [`Request`]s whose answers are
//!   matched to them, and strict filtered dumps.
//! * [`Link`], [`Address`], [`Route`], [`Rule`], [`Neighbour`] — what the kernel holds, as values
//!   that compare, and the requests that add, change and remove them.
//! * [`RouteQuery`] — where the kernel would send a packet; [`SelectingRule`], [`NeighbourEntry`] —
//!   what else that depends on.
//! * [`Qdisc`], [`Filter`], [`Redirect`] — traffic control where packets arrive; [`Tap`] — devices
//!   whose other end is a program.
//! * [`Monitor`] — rtnetlink notifications; [`DeviceEvents`] — device events of the kernel and of
//!   systemd-udevd.
//! * [`Namespace`] — network namespaces: named, by path, anonymous; [`MountNamespace`] beside them.
//! * [`Nftables`], [`ConnectionMarks`] — a table of nf_tables, whole in one transaction, and
//!   [`NftablesMonitor`] for what changes there.
//! * [`end_with_parent`], [`keep_standard_streams_alone`] — processes that do not outlive the one that
//!   started them, and have nothing else of it.
//! * [`ShortLivedAllocator`] — memory for processes that live for a millisecond.
//! * [`sysctl`] — settings of one interface.
//!
//! Nothing here decides anything: decisions are made by pure functions elsewhere. This is the only
//! crate of the workspace in which `unsafe` is allowed.

mod address;
mod child;
mod connection_marks;
mod device_events;
mod error;
mod link;
mod monitor;
mod mount_namespace;
mod mounted_namespace;
mod namespace;
mod neighbour;
mod nftables;
mod peer;
mod route;
mod route_query;
mod rule;
mod rule_selection;
mod short_lived;
mod socket;
pub mod sysctl;
mod tap;
mod traffic_control;
mod wire;

pub use address::{Address, AddressFlags};
pub use child::{end_with_parent, keep_standard_streams_alone, reset_oom_score_adj};
pub use connection_marks::{ConnectionMarks, MarksTable, NftablesState};
pub use device_events::{
    DeviceAction, DeviceEvent, DeviceEvents, UdevEntries, udev_has_finished, udev_runs,
};
pub use error::{Error, Refusal};
pub use link::{Link, LinkChange, VethEnd, bridge, veth_pair};
pub use monitor::{Monitor, Notification, Subject};
pub use mount_namespace::MountNamespace;
pub use namespace::{Namespace, create_user_namespace};
pub use neighbour::{Neighbour, NeighbourEntry, NeighbourKind, NeighbourState};
pub use nftables::{Nftables, NftablesMonitor};
pub use peer::Peer;
pub use route::{NextHop, Route, RouteFilter, RouteKind};
pub use route_query::{RouteAnswer, RouteQuery, RouteRefusal};
pub use rule::{Mark, Rule, RuleAction};
pub use rule_selection::{RuleSelection, SelectingRule};
pub use short_lived::{ShortLivedAllocator, begin_short_lived, end_short_lived};
pub use socket::{CHUNK, Request, Rtnetlink};
pub use tap::{Tap, TapSettings, effective_user_and_group};
pub use traffic_control::{Classifier, Cookie, Filter, Qdisc, Redirect};

/// Address family of addresses, routes and rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are dumped and planned.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// The number by which people call it: 4 or 6.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    /// The prefix that covers every address of the family: the destination of a default route.
    pub fn everything(self) -> ipnet::IpNet {
        match self {
            Family::V4 => ipnet::IpNet::V4(ipnet::Ipv4Net::default()),
            Family::V6 => ipnet::IpNet::V6(ipnet::Ipv6Net::default()),
        }
    }
}

/// A link-layer address of an Ethernet device: six octets in the order in which they are written.
pub type EthernetAddress = [u8; 6];
