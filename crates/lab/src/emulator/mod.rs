//! The metadata service of EC2, emulated: what it answers, how late, and how badly.
//!
//! [`Cloud`] is what the service knows, changed at run time; [`Emulator`] answers requests about
//! it on listeners that the caller bound, in whatever namespace that was.
//!
//! ```
//! use jackfield_lab::emulator::{Cloud, CloudInterface, Effect, Emulator, Fault, Subnet};
//! use std::net::TcpListener;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cloud = Cloud::new();
//! let mac = "02:ec:20:00:00:01".parse()?;
//! let subnet = Subnet::new("subnet-1").with_ipv4("10.0.0.0/24".parse()?);
//! cloud.add_instance("i-a", mac);
//! cloud.serve_everyone_as("i-a");
//! cloud.add_interface(CloudInterface::new(mac, subnet).with_address("10.0.0.10".parse()?))?;
//! cloud.attach(mac, "i-a", 0, None)?;
//!
//! let emulator = Emulator::start(vec![TcpListener::bind("127.0.0.1:0")?], cloud.clone())?;
//! println!("ask http://{}", emulator.addresses()[0]);
//!
//! let fault = cloud.add_fault(Fault::new(Effect::Status(503)).on_path("*/local-ipv4s").times(3));
//! cloud.clear_fault(fault);
//! assert_eq!(cloud.requests().len(), 0);
//! # Ok(())
//! # }
//! ```

mod answer;
mod cloud;
mod connection;
mod fault;
mod lag;
mod log;
mod mac;
mod record;
mod server;
mod state;
mod token;

pub use cloud::{Cloud, CloudError, Connections};
pub use fault::{Effect, Fault, FaultId};
pub use lag::Lag;
pub use log::{ConnectionUse, RequestRecord, TokenKind};
pub use mac::{InvalidMacAddr, MacAddr};
pub use record::{CloudInterface, Subnet};
pub use server::Emulator;
