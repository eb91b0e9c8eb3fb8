//! The metadata service emulator against real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod client;
mod faults;
mod lag;
mod rules;
mod state;

use client::{Client, Reply};
use jackfield_lab::emulator::{Cloud, CloudInterface, Emulator, MacAddr, Subnet};
use std::net::TcpListener;

const PRIMARY: MacAddr = MacAddr([0x02, 0xec, 0x20, 0, 0, 1]);
const SECONDARY: MacAddr = MacAddr([0x02, 0xec, 0x20, 0, 0, 2]);
const MACS: &str = "/latest/meta-data/network/interfaces/macs/";

/// One instance `i-a` with a primary interface, on loopback.
struct Service {
    cloud: Cloud,
    emulator: Emulator,
}

fn subnet() -> Subnet {
    Subnet::new("subnet-1")
        .with_ipv4("10.0.0.0/24".parse().unwrap())
        .with_ipv6("2001:db8:0:1::/64".parse().unwrap())
        .in_vpc("vpc-1", ["10.0.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()])
}

fn service() -> Service {
    let cloud = Cloud::new();
    cloud.add_instance("i-a", PRIMARY);
    cloud.serve_everyone_as("i-a");
    let primary = CloudInterface::new(PRIMARY, subnet()).with_address("10.0.0.10".parse().unwrap());
    cloud.add_interface(primary).unwrap();
    cloud.attach(PRIMARY, "i-a", 0, None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let emulator = Emulator::start(vec![listener], cloud.clone()).unwrap();
    Service { cloud, emulator }
}

/// A secondary interface, not yet attached.
fn secondary() -> CloudInterface {
    CloudInterface::new(SECONDARY, subnet())
        .with_id("eni-2")
        .with_address("10.0.0.20".parse().unwrap())
        .with_address("10.0.0.21".parse().unwrap())
        .with_address("2001:db8:0:1::20".parse().unwrap())
        .with_prefix("10.0.0.32/28".parse().unwrap())
        .with_prefix("2001:db8:0:1:f::/80".parse().unwrap())
}

impl Service {
    fn client(&self) -> Client {
        Client::new(self.emulator.addresses()[0])
    }

    /// The text of a key of an interface, or none where it is absent.
    fn key(&self, mac: MacAddr, key: &str) -> Option<String> {
        self.text(&format!("{MACS}{mac}/{key}"))
    }

    fn listing(&self) -> String {
        self.text(MACS).unwrap()
    }

    fn text(&self, path: &str) -> Option<String> {
        let reply = self.client().with_token().get(path).unwrap();
        match reply {
            Reply { status: 200, .. } => Some(reply.text()),
            Reply { status: 404, .. } => None,
            other => panic!("{path}: {other:?}"),
        }
    }
}
