//! A VM's network from nothing to running and back: namespace, CNI networks, what is ours, clean-up.
//!
//! [`Guests::up`] makes it and says what the guest is to be given; [`Guests::check`] compares,
//! [`Guests::down`] takes it all away, [`Guests::list`] tells of all VMs, and [`Guests::gc`] removes
//! what no VM owns any more.
//!
//! ```no_run
//! use jackfield_guest::{Error, Guests, NetworkRequest, UpRequest};
//!
//! let vm = "vm1".parse()?;
//! let request = UpRequest {
//!     vm,
//!     networks: vec![NetworkRequest {
//!         name: "fcnet".parse()?,
//!         ifname: "eth0".parse()?,
//!         vm_if_name: Some("eth0".parse()?),
//!     }],
//!     netns: None,
//!     args: Default::default(),
//!     tap_uid: None,
//!     tap_gid: None,
//!     capability_args: Default::default(),
//!     mtu: None,
//! };
//! let guests = Guests::default();
//! let conf = guests.up(&request, |conf| Ok::<_, Error>(conf.clone()))?;
//! println!("{}", conf.interfaces()[0].tap_name);
//! guests.down(&request.vm)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What holds
//!
//! - **No state file.** Networks are remembered in the cache that libcni's tools read, where an entry is
//!   ours by a capability argument of ours. A namespace is ours by the alias of its loopback, which also
//!   says how far the VM is and where its cache is.
//! - **Killed at any instant**, the next `up`, `down` or `gc` finds what there is: a namespace is marked before
//!   it gets its path, a network is in the cache before its first plugin runs, and plugins that were
//!   left running are waited for.
//! - **One at a time** works on a VM, by a lock that the kernel takes from who is killed.
//! - **Only what was made is removed**: a namespace that was there before stays.

mod check;
mod down;
mod error;
mod gc;
mod guests;
mod known;
mod list;
mod lock;
mod mark;
mod places;
mod record;
mod sandbox;
mod up;

pub use check::{Check, Difference};
pub use down::Down;
pub use error::Error;
pub use gc::Gc;
pub use guests::Guests;
pub use known::State;
pub use list::{Netns, NetworkStatus, VmStatus};
pub use places::Places;
pub use up::{NetworkRequest, UpRequest, conf_of_result};
