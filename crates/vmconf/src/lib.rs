//! CNI results into the network configuration of a VM's inside, in every format that guests, VMMs and
//! boot loaders read it in.
//!
//! A CNI plugin such as `tc-redirect-tap` makes a tap for a VM, and says in its result what the
//! guest is to have: addresses, gateways, routes, name servers. [`StaticNetworkConf`] is that, read and
//! checked; [`VmConf`] is one or several of them; [`render`] prints it.
//!
//! ```
//! use jackfield_cni::types::CniResult;
//! use jackfield_vmconf::{Attachment, Format, StaticNetworkConf, VmConf, render};
//!
//! let result = CniResult::parse(r#"{
//!     "cniVersion": "1.0.0",
//!     "interfaces": [
//!         { "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/var/run/netns/vm1" },
//!         { "name": "tap0", "mac": "02:00:00:00:00:02", "sandbox": "/var/run/netns/vm1" },
//!         { "name": "tap0", "mac": "02:00:00:00:00:01", "sandbox": "vm1" }
//!     ],
//!     "ips": [{ "address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 2 }],
//!     "dns": { "nameservers": ["1.1.1.1", "8.8.8.8"] }
//! }"#)?;
//!
//! let name = "eth0".parse()?;
//! let conf = StaticNetworkConf::from_result(&result, &Attachment::of("vm1").named(Some(&name)))?;
//! assert_eq!(
//!     conf.ip_boot_param()?,
//!     "10.0.0.2::10.0.0.1:255.255.255.0::eth0:off:1.1.1.1:8.8.8.8"
//! );
//!
//! let rendered = render(&VmConf::from(conf), Format::Dracut)?;
//! assert_eq!(
//!     rendered.text,
//!     "ifname=eth0:02:00:00:00:00:01 ip=10.0.0.2::10.0.0.1:255.255.255.0::eth0:off \
//!      nameserver=1.1.1.1 nameserver=8.8.8.8 rd.neednet=1\n"
//! );
//! assert!(rendered.warnings.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//!
//! - **Nothing is lost in silence.** An address, gateway or interface that a format cannot carry is a
//!   [`RenderError`]; anything else is a [`Warning`], which [`Rendered::strict`] makes an error.
//! - **Nothing is nonsense.** What a reader would misread is an error, above all for the kernel's `ip=`,
//!   which checks nothing.
//! - **Nothing is smuggled in.** Every value is of a type that admits only what stands for itself on a
//!   command line, in a unit file and in YAML: [`InterfaceName`], [`MacAddr`], [`DomainName`]…
//! - **It is pure.** No file, socket or clock: facts of the machine, such as the tap's MTU, are
//!   passed in with [`Attachment`].
//!
//! # Where things are
//!
//! [`StaticNetworkConf::from_result`] reads a result; [`VmConf::guest_routes`] says which routes the guest
//! gets; [`formats`] has a module for each format; [`KernelCommandLine`] merges arguments into a
//! command line that is there.

mod command_line;
mod conf;
pub mod formats;
mod from_result;
mod namespace;
mod render;
mod routing;
mod value;

pub use command_line::{Argument, CommandLineError, KernelCommandLine, LengthLimit};
pub use conf::{
    AddressError, RouteAttributes, StaticNetworkConf, VmConf, VmConfError, VmIp, VmRoute,
};
pub use formats::ip::IpForm;
pub use from_result::{Attachment, ResultError};
pub use namespace::same_path;
pub use render::{Format, Lost, RenderError, Rendered, UnknownFormat, Warning, Warnings, render};
pub use routing::GuestRoute;
pub use value::{DomainName, InterfaceName, MacAddr, Mtu, NetnsPath, ResolverOption, ValueError};
