//! `interfaces(5)` and what goes with it for ISC's DHCP client, as the founding document has them.
//!
//! The first IPv4 address is asked for by DHCP; everything else stands in the stanza. Method `manual`
//! and not `dhcp`: with that, ifup gives the client no configuration of the interface's own to read.

use std::fmt::Write;

use jackfield_kernel::{Family, RouteKind};

use super::{Carried, File, alone, header};
use crate::snapshot::MAIN;

/// The file that ifup reads first.
pub const INTERFACES: &str = "/etc/network/interfaces";
/// The directory of files that it includes, as Debian installs it.
pub const INTERFACES_D: &str = "/etc/network/interfaces.d";
/// Where the DHCP client of an interface keeps its leases, followed by the name and `.leases`; as
/// ifup itself would have it.
pub const LEASES: &str = "/var/lib/dhcp/dhclient.";
/// Where it tells its process ID, followed by the name and `.pid`.
pub const PID: &str = "/run/dhclient.";

pub(super) fn render(carried: &Carried) -> Vec<File> {
    let name = &carried.name;
    // A device that was pulled and plugged again is another one, whatever its name.
    let header = header(carried, &format!(", index {}", carried.index));
    let stanza = File {
        path: format!("{INTERFACES_D}/{name}.cfg"),
        text: format!("{header}{}", stanza(carried)),
    };
    if carried.by_dhcp().is_none() {
        return vec![stanza];
    }
    let client = File {
        path: client(name),
        text: format!(
            "{header}\
             # Alone in its prefix, so that the subnet is not in table main.\n\
             supersede subnet-mask 255.255.255.255;\n\
             request subnet-mask, broadcast-address;\n"
        ),
    };
    // run-parts(8) takes no name with a dot.
    let hook = File {
        path: format!(
            "/etc/dhcp/dhclient-enter-hooks.d/jackfield-{}",
            carried.mac.to_string().replace(':', "")
        ),
        text: format!(
            "{header}\
             # The address, and nothing else of what a server may send: no route, no name server, no name.\n\
             if [ \"$interface\" = \"{name}\" ]; then\n    \
             unset new_routers new_static_routes new_rfc3442_classless_static_routes\n    \
             unset new_host_name new_interface_mtu new_broadcast_address new_ntp_servers\n    \
             unset new_domain_name new_domain_search new_domain_name_servers\n    \
             make_resolv_conf() {{ :; }}\n\
             fi\n"
        ),
    };
    vec![client, hook, stanza]
}

/// The DHCP client's configuration for an interface.
fn client(name: &str) -> String {
    format!("/etc/dhcp/dhclient-{name}.conf")
}

fn stanza(carried: &Carried) -> String {
    let Carried { name, group, mtu, .. } = carried;
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&format!(
        "# To keep jackfield off, put a file of your own for {name} in its place that says EC2SYNC=no."
    ));
    line(&format!("auto {name}"));
    line(&format!("iface {name} inet manual"));
    if let Some(mtu) = mtu {
        line(&format!("    mtu {mtu}"));
    }
    line(&format!("    up ip link set dev {name} group {group}"));
    let mut down = Vec::new();
    if let Some(leased) = carried.by_dhcp() {
        let client = format!(
            "dhclient -4 -i -cf {} -pf {PID}{name}.pid -lf {LEASES}{name}.leases",
            client(name)
        );
        line(&format!("    # {} is what the server has for it", alone(leased)));
        line(&format!("    up {client} {name}"));
        down.push(format!("{client} -r {name}"));
    }
    for ip in carried.addresses.iter().filter(|ip| carried.by_dhcp() != Some(**ip)) {
        let (family, no_detection) = match ip.is_ipv4() {
            true => ("-4", ""),
            false => ("-6", " nodad"),
        };
        let address = format!("{} dev {name}", alone(*ip));
        line(&format!("    up ip {family} address replace {address} noprefixroute{no_detection}"));
        down.push(format!("ip {family} address del {address}"));
    }
    for route in &carried.routes {
        let mut said = String::new();
        if route.kind == RouteKind::Unreachable {
            said.push_str("unreachable ");
        }
        // Writing to a string does not fail.
        let _ = match route.destination.prefix_len() {
            0 => write!(said, "default"),
            _ => write!(said, "{}", route.destination),
        };
        for hop in &route.next_hops {
            if let Some(gateway) = hop.gateway {
                let _ = write!(said, " via {gateway}");
            }
            let _ = write!(said, " dev {name}");
            if hop.on_link {
                said.push_str(" onlink");
            }
        }
        match route.table {
            MAIN => said.push_str(" table main"),
            table => {
                let _ = write!(said, " table {table}");
            }
        }
        if route.metric > 0 {
            let _ = write!(said, " metric {}", route.metric);
        }
        let family = if route.family() == Family::V4 { "-4" } else { "-6" };
        line(&format!("    up ip {family} route replace {said} proto {}", route.protocol));
        down.push(format!("ip {family} route del {said} proto {}", route.protocol));
    }
    // What is gone already, or went with the device, is as good.
    for command in down {
        line(&format!("    down {command} || true"));
    }
    text
}
