//! What can be written behind `jackfield vm`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jackfield_cni::{CniArgs, ContainerId, InterfaceName, NetworkName};
use jackfield_vmconf::formats::firecracker::{RateLimiter, Version};
use jackfield_vmconf::{Format, KernelCommandLine, Mtu};
use serde_json::Value;

use super::{Output, seconds};

#[derive(Debug, Args)]
pub(crate) struct Vm {
    #[command(subcommand)]
    pub(crate) command: VmCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VmCommand {
    /// A CNI result in, guest network configuration out
    Conf(Box<Conf>),
    /// Make a VM's network and print the guest's configuration
    Up(Box<Up>),
    /// Compare a VM's network with what 'up' made; exit status 3 where it differs
    Check(One),
    /// Take all of a VM's network down, also what is there by half
    Down(One),
    /// The VMs there are, and what is missing of them
    List(All),
    /// Remove what no VM owns any more
    Gc(All),
}

#[derive(Debug, Args)]
pub(crate) struct Conf {
    /// The container ID that ADD was called with
    #[arg(long, value_name = "ID")]
    pub(crate) container_id: ContainerId,
    /// File with the result of the ADD; '-' is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) result: PathBuf,
    /// Name of the interface in the guest
    #[arg(long, value_name = "NAME")]
    pub(crate) vm_ifname: Option<jackfield_vmconf::InterfaceName>,
    /// MTU in the guest [default: the tap's in its namespace, else the result's]
    #[arg(long, value_name = "N")]
    pub(crate) mtu: Option<Mtu>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The VM's ID: CNI's container ID
    #[arg(value_name = "ID")]
    pub(crate) vm: ContainerId,
    /// A network, by the name in its configuration; several give the VM several interfaces
    #[arg(long = "network", required = true, value_name = "NAME")]
    pub(crate) networks: Vec<NetworkName>,
    /// Interface in the namespace, by the position of its network [default: eth0, eth1…]
    #[arg(long = "ifname", value_name = "NAME")]
    pub(crate) ifnames: Vec<InterfaceName>,
    /// Interface in the guest, by the position of its network; empty: without a name [default: eth0,
    /// eth1…]
    #[arg(long = "vm-ifname", value_name = "NAME", value_parser = vm_ifname)]
    pub(crate) vm_ifnames: Vec<VmIfname>,
    /// Network namespace [default: /var/run/netns/ID]; made where it is absent
    #[arg(long, value_name = "PATH")]
    pub(crate) netns: Option<PathBuf>,
    /// An argument for the plugins (CNI_ARGS)
    #[arg(long = "arg", value_name = "K=V", value_parser = cni_arg)]
    pub(crate) args: Vec<(String, String)>,
    /// A capability argument for the plugins (runtimeConfig)
    #[arg(long = "cap", value_name = "NAME=JSON", value_parser = capability)]
    pub(crate) capabilities: Vec<(String, Value)>,
    /// User that the tap belongs to
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..4_294_967_295))]
    pub(crate) uid: Option<u32>,
    /// Group that the tap belongs to
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..4_294_967_295))]
    pub(crate) gid: Option<u32>,
    /// MTU in the guest [default: the tap's]
    #[arg(long, value_name = "N")]
    pub(crate) mtu: Option<Mtu>,
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(flatten)]
    pub(crate) patience: Patience,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// The VM's ID
    #[arg(value_name = "ID")]
    pub(crate) vm: ContainerId,
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct All {
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(flatten)]
    pub(crate) patience: Patience,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Places {
    /// Directory of network configurations [default: /etc/cni/conf.d and /etc/cni/net.d]
    #[arg(long = "conf-dir", value_name = "D")]
    pub(crate) conf_dirs: Vec<PathBuf>,
    /// Directory of plugins [default: /opt/cni/bin and /usr/lib/cni]
    #[arg(long = "plugin-dir", value_name = "D")]
    pub(crate) plugin_dirs: Vec<PathBuf>,
    /// Directory of the CNI cache [default: /var/lib/cni]
    #[arg(long, value_name = "D")]
    pub(crate) cache_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    /// How long one plugin may take
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// How long another command that works on the same VM is waited for
    #[arg(long = "wait", value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) wait: Duration,
}

/// What is printed, and for whom.
#[derive(Debug, Args)]
pub(crate) struct Form {
    /// json, ip, kernel-args, firecracker, cloud-hypervisor, qemu, networkd, cloud-init, dracut or
    /// resolv-conf
    #[arg(long, value_name = "F", default_value = "json")]
    pub(crate) format: Format,
    /// Fail where the format does not carry everything
    #[arg(long)]
    pub(crate) strict: bool,
    /// kernel-args, dracut: the command line to merge into
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub(crate) kernel_args: Option<KernelCommandLine>,
    /// ip, kernel-args: as every reader reads it, or exactly as Firecracker's Go SDK prints it
    #[arg(long, value_enum)]
    pub(crate) ip_form: Option<IpForm>,
    /// firecracker: the version that reads it [default: the newest known]
    #[arg(long, value_name = "V")]
    pub(crate) firecracker_version: Option<Version>,
    /// firecracker: its metadata service on all interfaces
    #[arg(long, value_enum, ignore_case = true, value_name = "V1|V2")]
    pub(crate) mmds: Option<Mmds>,
    /// firecracker: where the guest reaches the metadata service [default: 169.254.169.254]
    #[arg(long, value_name = "IP", requires = "mmds")]
    pub(crate) mmds_address: Option<Ipv4Addr>,
    /// firecracker: limits of what the guest receives
    #[arg(long, value_name = "JSON", value_parser = rate_limiter)]
    pub(crate) rx_rate_limiter: Option<RateLimiter>,
    /// firecracker: limits of what the guest sends
    #[arg(long, value_name = "JSON", value_parser = rate_limiter)]
    pub(crate) tx_rate_limiter: Option<RateLimiter>,
    /// firecracker: the overrides with which a snapshot is loaded
    #[arg(long)]
    pub(crate) snapshot: bool,
    /// qemu: virtio-net-pci, or virtio-net-device of the microvm machine
    #[arg(long, value_enum)]
    pub(crate) qemu_device: Option<QemuDevice>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpForm {
    /// As many fields as are needed.
    EveryReader,
    /// Ten fields.
    GoSdk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mmds {
    /// Without session tokens.
    V1,
    /// With session tokens.
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QemuDevice {
    /// virtio-net-pci.
    Pci,
    /// virtio-net-device.
    Mmio,
}

/// A name in the guest, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VmIfname(pub(crate) Option<jackfield_vmconf::InterfaceName>);

fn vm_ifname(text: &str) -> Result<VmIfname, String> {
    if text.is_empty() {
        return Ok(VmIfname(None));
    }
    match text.parse() {
        Ok(name) => Ok(VmIfname(Some(name))),
        Err(error) => Err(format!("{error}")),
    }
}

fn cni_arg(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    match CniArgs::default().push(key, value) {
        Ok(()) => Ok((key.to_owned(), value.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

fn capability(text: &str) -> Result<(String, Value), String> {
    let (name, json) = text.split_once('=').ok_or("expected NAME=JSON")?;
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    match serde_json::from_str(json) {
        Ok(value) => Ok((name.to_owned(), value)),
        Err(error) => Err(format!("{json:?} is not JSON: {error}")),
    }
}

fn rate_limiter(text: &str) -> Result<RateLimiter, String> {
    serde_json::from_str(text).map_err(|error| format!("not a rate limiter: {error}"))
}
