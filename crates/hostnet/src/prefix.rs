//! Delegated prefixes in the kernel.
//!
//! Beside the rule that leads from it to its interface's table, a prefix has one route of ours: what
//! becomes of a packet *to* one of its addresses. By default that is an `unreachable` route in table
//! main. A packet for an address that nobody took would otherwise follow main's default route back
//! to the cloud, which would send it here again until its hop limit ends it. Its metric is behind
//! every other, so that a route of somebody else wins, be it more specific (a VM's /32) or for the
//! whole prefix (a bridge). Where the host itself shall answer on every address of the prefix, it
//! is a `local` route in table local, where the kernel looks for what is its own.
//!
//! Neither route leaves by the interface. Whose prefix it is, the metric tells.

use ipnet::IpNet;
use jackfield_kernel::{Route, RouteKind};

use crate::config::Prefixes;
use crate::snapshot::{MAIN, OURS, Snapshot};

/// Table local.
pub(crate) const LOCAL: u32 = 255;
/// The loopback's index, in every network namespace.
pub(crate) const LOOPBACK: u32 = 1;
/// `RT_SCOPE_HOST`.
const SCOPE_HOST: u8 = 254;
/// The metric is this and the index of the interface, which is below it.
const METRIC: u32 = 1 << 31;

/// The route of a prefix that is delegated to an interface.
pub(crate) fn route(prefix: IpNet, interface: u32, prefixes: Prefixes) -> Route {
    let route = match prefixes {
        Prefixes::Route => Route::unreachable(prefix, MAIN),
        Prefixes::Local => Route {
            kind: RouteKind::Local,
            scope: if prefix.addr().is_ipv4() { SCOPE_HOST } else { 0 },
            ..Route::via_interface(prefix, LOCAL, LOOPBACK)
        },
    };
    Route { metric: METRIC | interface, protocol: OURS, ..route }
}

/// The interface to which the prefix is delegated, where the route is one that [`route`] makes.
pub(crate) fn interface_of(route: &Route) -> Option<u32> {
    let place = matches!(
        (route.table, route.kind),
        (MAIN, RouteKind::Unreachable) | (LOCAL, RouteKind::Local)
    );
    (place && route.protocol == OURS && route.metric & METRIC != 0)
        .then_some(route.metric & !METRIC)
}

/// The routes of an interface's prefixes.
pub(crate) fn routes(snapshot: &Snapshot, interface: u32) -> impl Iterator<Item = &Route> {
    snapshot.routes.iter().filter(move |route| interface_of(route) == Some(interface))
}

/// The prefixes of an interface that have a route of ours.
pub(crate) fn routed(snapshot: &Snapshot, interface: u32) -> impl Iterator<Item = IpNet> {
    routes(snapshot, interface).map(|route| route.destination)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_of_a_prefix_tells_its_interface_and_no_other_route_does() {
        for prefix in ["10.0.2.64/28", "2001:db8:0:2:1::/80"] {
            let prefix: IpNet = prefix.parse().unwrap();
            for index in [2, 1_000_000, i32::MAX.cast_unsigned()] {
                for prefixes in [Prefixes::Route, Prefixes::Local] {
                    let ours = route(prefix, index, prefixes);
                    assert_eq!(interface_of(&ours), Some(index));
                    assert_eq!(interface_of(&Route { protocol: 4, ..ours.clone() }), None);
                    assert_eq!(interface_of(&Route { metric: 1024, ..ours }), None);
                }
            }
            let last = Route { metric: METRIC | 2, ..Route::unreachable(prefix, 10_001) };
            assert_eq!(interface_of(&Route { protocol: OURS, ..last }), None);
        }
    }
}
