//! What rendering gives: a text, what it does not carry, or why there is none.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::command_line::CommandLineError;
use crate::conf::{StaticNetworkConf, VmConf, VmRoute};
use crate::formats;
use crate::value::{DomainName, MacAddr, Mtu, ResolverOption};

/// A form that something reads a VM's network configuration in.
///
/// Those of a VMM describe the device: the tap, its MAC and MTU. The others describe the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Everything, as one JSON document: [`formats::json`].
    Json,
    /// The value of the kernel's `ip=`: [`formats::ip`].
    Ip,
    /// All that the guest's kernel command line needs: [`formats::kernel_args`].
    KernelArgs,
    /// Firecracker's configuration: [`formats::firecracker`].
    Firecracker,
    /// Cloud Hypervisor's arguments: [`formats::cloud_hypervisor`].
    CloudHypervisor,
    /// QEMU's arguments: [`formats::qemu`].
    Qemu,
    /// Files of systemd-networkd: [`formats::networkd`].
    Networkd,
    /// cloud-init's network-config, version 2, which is netplan's: [`formats::cloud_init`].
    CloudInit,
    /// The kernel command line as an initial RAM disk reads it: [`formats::dracut`].
    Dracut,
    /// resolv.conf(5): [`formats::resolv_conf`].
    ResolvConf,
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 10] = [
        Format::Json,
        Format::Ip,
        Format::KernelArgs,
        Format::Firecracker,
        Format::CloudHypervisor,
        Format::Qemu,
        Format::Networkd,
        Format::CloudInit,
        Format::Dracut,
        Format::ResolvConf,
    ];

    /// The name that users give it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ip => "ip",
            Format::KernelArgs => "kernel-args",
            Format::Firecracker => "firecracker",
            Format::CloudHypervisor => "cloud-hypervisor",
            Format::Qemu => "qemu",
            Format::Networkd => "networkd",
            Format::CloudInit => "cloud-init",
            Format::Dracut => "dracut",
            Format::ResolvConf => "resolv-conf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no format: expected one of {all}", all = Format::ALL.map(Format::name).join(", "))]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let known = Self::ALL.into_iter().find(|format| format.name() == text);
        known.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// Renders with the defaults of the format. What has options is rendered by its module.
///
/// # Errors
///
/// [`RenderError`] where an address, a gateway or an interface would be missing.
pub fn render(vm: &VmConf, format: Format) -> Result<Rendered, RenderError> {
    match format {
        Format::Json => formats::json::render(vm),
        Format::Ip => formats::ip::render(vm, formats::ip::IpForm::default()),
        Format::KernelArgs => {
            formats::kernel_args::render(vm, &formats::kernel_args::Options::default())
        }
        Format::Firecracker => {
            formats::firecracker::render(vm, &formats::firecracker::Options::default())
        }
        Format::CloudHypervisor => Ok(formats::cloud_hypervisor::render(vm)),
        Format::Qemu => Ok(formats::qemu::render(vm, formats::qemu::Device::default())),
        Format::Networkd => formats::networkd::render(vm),
        Format::CloudInit => formats::cloud_init::render(vm),
        Format::Dracut => formats::dracut::render(vm),
        Format::ResolvConf => Ok(formats::resolv_conf::render(vm)),
    }
}

/// A rendered configuration, and what it does not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Rendered {
    /// The text; it ends with a newline, except for nothing at all.
    pub text: String,
    /// What the guest will not have by this alone.
    pub warnings: Vec<Warning>,
}

impl Rendered {
    /// The text, if it carries everything.
    ///
    /// # Errors
    ///
    /// [`RenderError::Incomplete`] with the warnings, where there are any.
    pub fn strict(self) -> Result<String, RenderError> {
        if self.warnings.is_empty() {
            return Ok(self.text);
        }
        Err(RenderError::Incomplete(Warnings(self.warnings)))
    }
}

/// Something of the configuration that a format does not carry. An address, a gateway or an
/// interface never is: those are errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The format.
    pub format: Format,
    /// The interface, by its name in the guest or else its tap.
    pub interface: String,
    /// What is lost.
    pub lost: Lost,
    /// Why, in words for the user.
    pub reason: &'static str,
}

impl Warning {
    pub(crate) fn new(
        format: Format,
        conf: &StaticNetworkConf,
        lost: Lost,
        reason: &'static str,
    ) -> Self {
        Self { format, interface: conf.label().to_owned(), lost, reason }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Warning { format, interface, lost, reason } = self;
        write!(f, "format {format}, interface {interface}: {lost} is not carried: {reason}")
    }
}

/// What a format does not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The MAC address.
    Mac(MacAddr),
    /// The MTU.
    Mtu(Mtu),
    /// That the interface has no address of its own and is to ask for one.
    Dhcp,
    /// A route.
    Route(VmRoute),
    /// One number of a route that is itself carried.
    RouteAttribute {
        /// Where the route leads.
        dst: IpNet,
        /// Which number, by its name in the result.
        attribute: &'static str,
        /// The number.
        value: u32,
    },
    /// A name server.
    NameServer(IpAddr),
    /// The local domain.
    Domain(DomainName),
    /// A search domain.
    SearchDomain(DomainName),
    /// An option of the resolver.
    ResolverOption(ResolverOption),
    /// Further addresses of an interface, for one of the format's readers.
    Reader {
        /// Who does not read it.
        reader: &'static str,
        /// What it does not read.
        what: &'static str,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::Mac(mac) => write!(f, "the MAC address {mac}"),
            Lost::Mtu(mtu) => write!(f, "the MTU {mtu}"),
            Lost::Dhcp => f.write_str("asking for an address"),
            Lost::Route(route) => {
                write!(f, "the route to {}", route.dst())?;
                route.gw().map_or(Ok(()), |gw| write!(f, " via {gw}"))
            }
            Lost::RouteAttribute { dst, attribute, value } => {
                write!(f, "{attribute} {value} of the route to {dst}")
            }
            Lost::NameServer(address) => write!(f, "the name server {address}"),
            Lost::Domain(domain) => write!(f, "the domain {domain}"),
            Lost::SearchDomain(domain) => write!(f, "the search domain {domain}"),
            Lost::ResolverOption(option) => write!(f, "the resolver option {option}"),
            Lost::Reader { reader, what } => write!(f, "{what} (to {reader})"),
        }
    }
}

/// Several warnings, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warnings(pub Vec<Warning>);

impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, warning) in self.0.iter().enumerate() {
            let separator = if position > 0 { "; " } else { "" };
            write!(f, "{separator}{warning}")?;
        }
        Ok(())
    }
}

/// Why a format cannot say a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// An address would be missing or misread.
    #[error("format {format} cannot carry the address {address} of {interface}: {reason}")]
    Address {
        /// The format.
        format: Format,
        /// The interface, by its name in the guest or else its tap.
        interface: String,
        /// The address.
        address: IpNet,
        /// Why.
        reason: &'static str,
    },
    /// A gateway would be missing or misread.
    #[error("format {format} cannot carry the gateway {gateway} of {interface}: {reason}")]
    Gateway {
        /// The format.
        format: Format,
        /// The interface, by its name in the guest or else its tap.
        interface: String,
        /// The gateway.
        gateway: IpAddr,
        /// Why.
        reason: &'static str,
    },
    /// There is no address, where the format is of nothing else.
    #[error("format {format} has nothing to say of {interface}: it has no address")]
    NoAddress {
        /// The format.
        format: Format,
        /// The interface, by its name in the guest or else its tap.
        interface: String,
    },
    /// There are more interfaces than it has room for.
    #[error("format {format} cannot carry {count} interfaces: {reason}")]
    Interfaces {
        /// The format.
        format: Format,
        /// How many there are.
        count: usize,
        /// Why.
        reason: &'static str,
    },
    /// The guest could not tell which interface is meant.
    #[error("format {format} cannot tell the interface {interface} from others: {reason}")]
    Unnamed {
        /// The format.
        format: Format,
        /// The interface, by its tap.
        interface: String,
        /// What it would need.
        reason: &'static str,
    },
    /// The kernel command line is wrong, has an `ip=` already, or gets too long.
    #[error(transparent)]
    CommandLine(#[from] CommandLineError),
    /// Not everything is carried, and that is wanted.
    #[error("{0}")]
    Incomplete(Warnings),
}

/// The parts that a guest's format may lack, as warnings.
pub(crate) mod lost {
    use super::{Format, Lost, StaticNetworkConf, Warning};

    /// The local domain, where the search list, which goes before it, does not hold it.
    pub(crate) fn domain(
        format: Format,
        conf: &StaticNetworkConf,
        reason: &'static str,
    ) -> Option<Warning> {
        let domain = conf.vm_domain.as_ref()?;
        let held = conf.effective_search().contains(domain);
        (!held).then(|| Warning::new(format, conf, Lost::Domain(domain.clone()), reason))
    }

    /// All of the resolver's options.
    pub(crate) fn resolver_options<'a>(
        format: Format,
        conf: &'a StaticNetworkConf,
        reason: &'static str,
    ) -> impl Iterator<Item = Warning> + 'a {
        let options = conf.vm_resolver_options.iter().cloned();
        options.map(move |option| Warning::new(format, conf, Lost::ResolverOption(option), reason))
    }

    /// Domain, search domains and the resolver's options.
    pub(crate) fn search_and_options<'a>(
        format: Format,
        conf: &'a StaticNetworkConf,
        reason: &'static str,
    ) -> impl Iterator<Item = Warning> + 'a {
        let domain = conf.vm_domain.iter().cloned().map(Lost::Domain);
        let search = conf.vm_search_domains.iter().cloned().map(Lost::SearchDomain);
        let warn = move |lost| Warning::new(format, conf, lost, reason);
        let options = resolver_options(format, conf, reason);
        domain.chain(search).map(warn).chain(options)
    }
}
