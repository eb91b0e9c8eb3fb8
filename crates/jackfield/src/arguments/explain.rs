//! `jackfield explain …` on the command line.

use std::net::IpAddr;

use clap::Args;
use jackfield_hostnet::explain::{Protocol, Question};

use super::Output;

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The packet's source: an address of this host, of a container or VM on it, or of a client
    #[arg(value_name = "SRC")]
    source: IpAddr,
    /// Its destination
    #[arg(value_name = "DST")]
    destination: IpAddr,
    /// IP protocol: tcp, udp or icmp [default: udp]
    #[arg(long, value_name = "P")]
    proto: Option<Protocol>,
    /// Destination port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    dport: Option<u16>,
    /// Source port
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    sport: Option<u16>,
    /// Mark
    #[arg(long, value_name = "N", default_value = "0", value_parser = mark)]
    mark: u32,
    /// The sender's user, by number [default: the one who asks]
    #[arg(long, value_name = "N")]
    uid: Option<u32>,
    /// The interface by which the packet comes in [default: worked out from the routes]
    #[arg(long, value_name = "NAME")]
    iif: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

impl Explain {
    pub(crate) fn question(&self) -> Question {
        Question {
            protocol: self.proto,
            source_port: self.sport,
            destination_port: self.dport,
            mark: self.mark,
            user: self.uid,
            input: self.iif.clone(),
            ..Question::new(self.source, self.destination)
        }
    }
}

/// A number, hexadecimal behind 0x.
fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.map_err(|_| "expected a number, as 1 or 0x1".to_owned())
}
