//! `systemd.network(5)`, as of systemd 252.

use jackfield_kernel::RouteKind;

use super::{Carried, File, alone, header};

/// The directory in which networkd is told what holds until the next boot.
pub const NETWORKS: &str = "/run/systemd/network";

pub(super) fn render(carried: &Carried) -> Vec<File> {
    let Carried { mac, name, group, mtu, .. } = carried;
    // A VLAN has the MAC of the device that it is on: the name besides.
    let mut text = format!("{}[Match]\nMACAddress={mac}\nName={name}\n", header(carried, ""));
    text.push_str("\n[Link]\n");
    if let Some(mtu) = mtu {
        text.push_str(&format!("MTUBytes={mtu}\n"));
    }
    text.push_str(&format!("Group={group}\nRequiredForOnline=no\n"));
    text.push_str("\n[Network]\nDHCP=no\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n");
    for ip in &carried.addresses {
        text.push_str(&format!("\n[Address]\nAddress={}\nAddPrefixRoute=no\n", alone(*ip)));
        if ip.is_ipv6() {
            text.push_str("DuplicateAddressDetection=none\n");
        }
    }
    for route in &carried.routes {
        text.push_str(&format!("\n[Route]\nDestination={}\n", route.destination));
        if route.kind == RouteKind::Unreachable {
            text.push_str("Type=unreachable\n");
        }
        for hop in &route.next_hops {
            if let Some(gateway) = hop.gateway {
                text.push_str(&format!("Gateway={gateway}\n"));
            }
            if hop.on_link {
                text.push_str("GatewayOnLink=yes\n");
            }
        }
        text.push_str(&format!("Table={}\n", route.table));
        if route.metric > 0 {
            text.push_str(&format!("Metric={}\n", route.metric));
        }
        text.push_str(&format!("Protocol={}\n", route.protocol));
    }
    let mac = mac.to_string().replace(':', "");
    vec![File { path: format!("{NETWORKS}/10-jackfield-{mac}.network"), text }]
}
