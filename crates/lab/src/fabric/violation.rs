//! Packets whose source is not the interface's: where they go, and who sent them.

use super::frame::Packet;
use super::responder::packet_socket;
use crate::emulator::MacAddr;
use crate::error::{Attempt, Result};
use crate::host::Host;
use jackfield_kernel::{
    Family, LinkChange, Neighbour, NeighbourKind, Request, Route, VethEnd, veth_pair,
};
use rustix::net::RecvFlags;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

const NAME: &str = "violations";
/// `ETH_P_ALL`.
const EVERYTHING: u16 = 3;
/// Room for some thousand packets that nobody has looked at yet.
const BUFFER: usize = 16 << 20;

/// A packet that was dropped because its source is not the interface's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The interface by which it left its instance.
    pub interface: MacAddr,
    /// The source that the interface does not hold.
    pub source: IpAddr,
    /// Where it was to go.
    pub destination: IpAddr,
    /// Its IP protocol: 6 is TCP, 17 UDP, 1 and 58 ICMP.
    pub protocol: u8,
    /// The destination's port, where the protocol has ports.
    pub port: Option<u16>,
}

/// A link that leads to a namespace in which nothing answers and everything is recorded. The MAC
/// that a packet is sent to there is that of the interface by which it came.
#[derive(Debug)]
pub(super) struct Violations {
    index: u32,
    socket: OwnedFd,
    seen: Mutex<Vec<Violation>>,
    /// Kept for its namespace.
    _sink: Host,
}

impl Violations {
    pub(super) fn start(fabric: &Host) -> Result<Self> {
        let sink = Host::new(NAME)?;
        let attempt = || "record the packets with a wrong source".to_owned();
        let socket = sink.run(|| packet_socket(EVERYTHING))?.attempt(attempt)?;
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            // In a user namespace: as much as the machine gives everybody.
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER).attempt(attempt)?;
        }
        let end = VethEnd { name: NAME, address: None, mtu: None, namespace: None };
        let far = VethEnd { namespace: Some(sink.namespace()), ..end };
        let mut kernel = fabric.kernel();
        kernel.apply("make the link for violations", &[veth_pair(end, far)])?;
        let index = kernel.index(NAME)?;
        let up = LinkChange { up: Some(true), ..LinkChange::default() };
        kernel.apply("set the link for violations up", &[up.request(index)])?;
        drop(kernel);
        sink.set_up(NAME, true)?;
        Ok(Self { index, socket, seen: Mutex::default(), _sink: sink })
    }

    /// Leads what asks this table to the record, as sent by this interface.
    pub(super) fn lead(&self, table: u32, number: u16, interface: MacAddr) -> Vec<Request> {
        let [high, low] = number.to_be_bytes();
        let next_hops = [
            IpAddr::V4(Ipv4Addr::new(169, 253, high, low)),
            IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xbad, number)),
        ];
        let kind = NeighbourKind::Permanent(interface.0);
        let requests = next_hops.map(|next_hop| {
            let everything = Family::of(next_hop).everything();
            [
                Neighbour { interface: self.index, address: next_hop, kind }.set(),
                Route::via_gateway(everything, table, self.index, next_hop).add(),
            ]
        });
        requests.into_iter().flatten().collect()
    }

    /// Every violation so far.
    pub(super) fn seen(&self) -> Vec<Violation> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [0; 128];
        while let Ok((length, _)) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty())
        {
            let packet = buffer.get(..length).and_then(Packet::read);
            seen.extend(packet.map(|packet| Violation {
                interface: packet.to,
                source: packet.source,
                destination: packet.destination,
                protocol: packet.protocol,
                port: packet.port,
            }));
        }
        seen.clone()
    }
}
