//! The Container Network Interface (CNI), every version from 0.1.0 to 1.1.0: for runtimes, for
//! plugins and for whoever reads results. Synchronous, without an asynchronous runtime, and without
//! networking code of its own.
//!
//! - [`types`]: versions, and the result of an ADD, read from and written as any version.
//! - [`config`]: network lists, found and read by the rules of the specification.
//! - [`runtime`]: plugins run for a network: ADD, DEL, CHECK, GC, STATUS, VERSION; the cache.
//! - [`plugin`]: what a plugin executable needs.
//!
//! # A runtime
//!
//! ```no_run
//! use jackfield_cni::runtime::{Runtime, RuntimeConf};
//! use jackfield_cni::{Error, config};
//!
//! # fn main() -> Result<(), Error> {
//! let network = config::load(&["/etc/cni/net.d".into()], &"podnet".parse()?)?;
//! let runtime = Runtime::new(vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()]);
//! let conf = RuntimeConf::new("vm-1".parse()?, Some("/run/netns/vm-1".into()), "eth0".parse()?);
//!
//! let result = runtime.add(&network, &conf)?;
//! for ip in &result.ips {
//!     println!("{}", ip.address);
//! }
//! runtime.check(&network, &conf)?;
//! runtime.del(&network, &conf)?;
//! # Ok(())
//! # }
//! ```
//!
//! # A result, whatever its version
//!
//! ```
//! use jackfield_cni::types::{CniResult, Version};
//!
//! let old = r#"{"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.2/24", "gateway": "10.0.0.1"}}"#;
//! let result = CniResult::parse(old)?;
//! assert_eq!(result.ips[0].gateway, Some([10, 0, 0, 1].into()));
//! assert_eq!(
//!     result.to_json(Version::V1_1_0)?,
//!     r#"{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24","gateway":"10.0.0.1"}]}"#
//! );
//!
//! let wrong = r#"{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24", "interface": 7}]}"#;
//! assert_eq!(
//!     CniResult::parse(wrong).unwrap_err().to_string(),
//!     "CNI result: ips[0].interface: 7 is out of range: the result has 0 interfaces"
//! );
//! # Ok::<(), jackfield_cni::Error>(())
//! ```
//!
//! # What differs from libcni, the Go library
//!
//! - An ADD that fails is undone. A DEL that meets a failure carries on and tells all failures. An
//!   ADD of what is attached already is refused.
//! - The cache has an attachment from before its first plugin is run, so that one that was
//!   interrupted can be found and removed. The files are libcni's.
//! - A plugin that does not end is killed at a deadline, with what it started. What it wrote to
//!   standard error is in the error.
//! - On DEL, a namespace's path that has a plain file behind it is given as no namespace: plugins
//!   succeed then, and give back what they hold.
//! - One broken configuration file does not hide another of a different name.
//! - A `prevResult` of another version than the configuration's is converted, never misread.
//! - GC is always sent with a list of what is valid; a plugin that gets none refuses.
//! - Names of fields are matched exactly, where Go takes any case.

mod args;
pub mod config;
mod error;
mod names;
pub mod plugin;
pub mod runtime;
pub mod types;

pub use args::CniArgs;
pub use error::{Error, PluginFailure};
pub use names::{ContainerId, InterfaceName, NetworkName, PluginName};
