//! Files of systemd-networkd: a `.network` an interface, and a `.link` that names it where it has a name
//! and a MAC to know it by.
//!
//! The text is all files one after another, each behind a line `# /etc/systemd/network/…` with its
//! path, as `systemctl cat` prints them; [`files`] gives them one by one. To write them:
//!
//! ```sh
//! jackfield vm conf … --format networkd | awk '/^# \// { file = root $2 } { print > file }' root=/mnt
//! ```
//!
//! It carries everything but the resolver's options, and a local domain beside other search domains.

use std::fmt::Write;

use crate::conf::{StaticNetworkConf, VmConf};
use crate::render::{Format, RenderError, Rendered, Warning, lost};
use crate::routing::GuestRoute;

/// A file of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Where it is in the guest.
    pub path: String,
    /// What is in it.
    pub text: String,
}

/// All files in one text.
///
/// # Errors
///
/// As [`files`].
pub fn render(vm: &VmConf) -> Result<Rendered, RenderError> {
    let (files, warnings) = files(vm)?;
    let with_path = |file: File| format!("# {}\n{}", file.path, file.text);
    let text = files.into_iter().map(with_path).collect::<Vec<_>>().join("\n");
    Ok(Rendered { text, warnings })
}

/// The files, and what they do not carry.
///
/// # Errors
///
/// [`RenderError::Unnamed`] where there are several interfaces and one has neither a MAC nor a name.
pub fn files(vm: &VmConf) -> Result<(Vec<File>, Vec<Warning>), RenderError> {
    let mut files = Vec::new();
    let mut warnings = Vec::new();
    let routes = vm.guest_routes();
    for ((position, conf), routes) in vm.interfaces().iter().enumerate().zip(&routes) {
        let name = conf.vm_if_name.as_ref().map_or(format!("{position}"), ToString::to_string);
        let path = |suffix| format!("/etc/systemd/network/10-jackfield-{name}.{suffix}");
        if let Some(text) = link(conf) {
            files.push(File { path: path("link"), text });
        }
        let text = network(conf, routes, vm.interfaces().len() == 1)?;
        files.push(File { path: path("network"), text });
        let reason = "networkd knows search domains only";
        warnings.extend(lost::domain(Format::Networkd, conf, reason));
        let reason = "networkd has no setting for it";
        warnings.extend(lost::resolver_options(Format::Networkd, conf, reason));
    }
    Ok((files, warnings))
}

/// udev gives the interface its name by this.
fn link(conf: &StaticNetworkConf) -> Option<String> {
    let (name, mac) = (conf.vm_if_name.as_ref()?, conf.vm_mac?);
    Some(format!("[Match]\nMACAddress={mac}\nType=ether\n\n[Link]\nName={name}\n"))
}

fn network(
    conf: &StaticNetworkConf,
    routes: &[GuestRoute],
    alone: bool,
) -> Result<String, RenderError> {
    let mut text = format!("[Match]\n{}\n", matched(conf, alone)?);
    if let Some(mtu) = conf.vm_mtu {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    // The configuration is all that the guest has, unless it has no address at all.
    let (dhcp, ra) = if conf.vm_ips.is_empty() { ("yes", "yes") } else { ("no", "no") };
    let _ = write!(text, "\n[Network]\nDHCP={dhcp}\nIPv6AcceptRA={ra}\n");
    for server in &conf.vm_nameservers {
        let _ = writeln!(text, "DNS={server}");
    }
    let search = conf.effective_search();
    if !search.is_empty() {
        text.push_str("Domains=");
        for (position, domain) in search.iter().enumerate() {
            let separator = if position > 0 { " " } else { "" };
            let _ = write!(text, "{separator}{domain}");
        }
        text.push('\n');
    }
    for ip in &conf.vm_ips {
        let _ = write!(text, "\n[Address]\nAddress={}\n", ip.address());
    }
    for route in routes {
        write_route(&mut text, route);
    }
    Ok(text)
}

/// By the MAC, which the VMM sets; else by the name; else there is only one.
fn matched(conf: &StaticNetworkConf, alone: bool) -> Result<String, RenderError> {
    match (conf.vm_mac, &conf.vm_if_name) {
        (Some(mac), _) => Ok(format!("MACAddress={mac}\nType=ether")),
        (None, Some(name)) => Ok(format!("Name={name}")),
        (None, None) if alone => Ok("Type=ether".to_owned()),
        (None, None) => Err(RenderError::Unnamed {
            format: Format::Networkd,
            interface: conf.label().to_owned(),
            reason: "it needs a MAC address or a name in the guest",
        }),
    }
}

fn write_route(text: &mut String, route: &GuestRoute) {
    let _ = write!(text, "\n[Route]\nDestination={}\n", route.dst);
    if let Some(via) = route.via {
        let _ = writeln!(text, "Gateway={via}");
    }
    if route.on_link {
        text.push_str("GatewayOnLink=yes\n");
    }
    let attributes = route.attributes;
    let scope = attributes.scope.map(|scope| match scope {
        0 => "global".to_owned(),
        200 => "site".to_owned(),
        253 => "link".to_owned(),
        254 => "host".to_owned(),
        255 => "nowhere".to_owned(),
        other => other.to_string(),
    });
    let number = |value: Option<u32>| value.map(|value| value.to_string());
    // Table 0 is the kernel's word for 'not said'.
    let table = attributes.table.filter(|table| *table != 0);
    let settings = [
        ("MTUBytes", number(attributes.mtu)),
        ("TCPAdvertisedMaximumSegmentSize", number(attributes.advmss)),
        ("Metric", number(attributes.priority)),
        ("Table", number(table)),
        ("Scope", scope),
    ];
    for (key, value) in settings {
        if let Some(value) = value {
            let _ = writeln!(text, "{key}={value}");
        }
    }
}
