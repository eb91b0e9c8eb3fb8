//! Instances that hot-plug, made of network namespaces, with a metadata service emulator.
//!
//! * [`Lab`] — a cloud on this machine: a routed fabric with a source check on every interface, a
//!   remote host, the metadata service, [`Instance`]s into which interfaces are plugged.
//! * [`emulator`] — the metadata service of EC2: state changed at run time, propagation lag,
//!   faults, and a log of every request. It runs on any listener, loopback included.
//! * [`probe`] — traffic: who reaches whom by which source, streams that count what they lose, and
//!   the moment of the first answer.
//!
//! Nothing here has a name outside of the process: several labs run side by side, none touches the
//! machine's own network, and what is dropped is gone.
//!
//! ```no_run
//! use jackfield_lab::probe::{Echo, Transport, probe};
//! use jackfield_lab::{Lab, Plug};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lab = Lab::start()?;
//! let (one, two) = (lab.subnet(1), lab.subnet(2));
//! let a = lab.instance("a", &one)?;
//! let interface = lab.interface(&two, 3)?;
//! let plugged = lab.attach(&a, interface.mac, &Plug::new(1))?;
//! println!("{} appeared", plugged.name);
//!
//! // Whatever configures interfaces runs in the instance, as `a.run(…)` or `a.command(…)`.
//!
//! let address = interface.ipv4[0].into();
//! let _echo = Echo::start(&a, &[address])?;
//! probe(lab.remote(), None, Echo::at(address), Transport::Tcp, Duration::from_secs(1))?;
//! assert_eq!(lab.violations(), []);
//! lab.detach(interface.mac)?;
//! # Ok(())
//! # }
//! ```

pub mod emulator;
mod error;
mod fabric;
mod host;
mod instance;
mod lab;
mod mounts;
mod plug;
pub mod probe;
mod udev;

pub use error::{LabError, Result};
pub use fabric::{RouterAdvertisement, Violation};
pub use host::{Host, Process};
pub use instance::{Bridge, Container, Instance};
pub use lab::Lab;
pub use plug::{Plug, Plugged};

/// Moves the process into a user namespace in which it may make labs without being root. To be
/// called while the process has one thread.
///
/// # Errors
///
/// Where the machine does not let this user make user namespaces, or there are more threads.
pub fn enter_user_namespace() -> Result<()> {
    let entered = jackfield_kernel::create_user_namespace();
    error::Attempt::attempt(entered, || "become able to make labs without being root".to_owned())
}
