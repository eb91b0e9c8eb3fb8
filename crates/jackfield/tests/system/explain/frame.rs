//! Packets as frames of a tap, which are written and read by hand.

use std::net::{IpAddr, SocketAddr};

/// A frame of a tap has this before it.
pub(super) const VIRTIO_NET_HEADER: usize = 10;
const ETHERNET: usize = 14;

/// What tells a packet from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) tcp: bool,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) mark: u32,
}

impl Packet {
    /// What answers it.
    pub(super) fn reply(&self) -> Self {
        Packet { source: self.destination, destination: self.source, mark: 0, ..*self }
    }
}

/// The MAC of a neighbour tells whose it is, and on which device it was looked for.
pub(super) fn mac_of(wire: u8, next_hop: IpAddr) -> [u8; 6] {
    let subnet = match next_hop {
        IpAddr::V4(ip) => ip.octets()[2],
        IpAddr::V6(ip) => ip.octets()[7],
    };
    [2, 0xaa, wire, 0, subnet, host_of(next_hop)]
}

/// The number of a host in its subnet.
pub(super) fn host_of(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The packet as it comes in, for the device of this MAC. That the sum of its payload is right is
/// said by the header before it.
pub(super) fn frame(packet: &Packet, to: [u8; 6]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(packet.source.port().to_be_bytes());
    payload.extend(packet.destination.port().to_be_bytes());
    match packet.tcp {
        // A SYN without options.
        true => payload.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
        // A sum of 0 is none, which IPv6 does not take.
        false => payload.extend([0, 9, 0, 1, b'?']),
    }
    let protocol = if packet.tcp { 6 } else { 17 };
    let mut header = Vec::new();
    let (kind, length) = match (packet.source.ip(), packet.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            header.extend([0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            (0x0800_u16, 20)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            header.extend([0x60, 0, 0, 0, length[0], length[1], protocol, 64]);
            header.extend(source.octets());
            header.extend(destination.octets());
            (0x86dd, 40)
        }
        _ => panic!("{packet:?}"),
    };
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, where from, and where it is.
    let start = u16::try_from(ETHERNET + length).unwrap().to_ne_bytes();
    let offset: [u8; 2] = (if packet.tcp { 16_u16 } else { 6 }).to_ne_bytes();
    let mut frame = vec![1, 0, 0, 0, 0, 0, start[0], start[1], offset[0], offset[1]];
    frame.extend(to);
    frame.extend([2, 0xee, 0, 0, 0, 1]);
    frame.extend(kind.to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// The packet in a frame, where it is one of TCP or UDP.
pub(super) fn read(frame: &[u8]) -> Option<Packet> {
    let body = frame.get(ETHERNET..)?;
    let (protocol, source, destination, header): (u8, IpAddr, IpAddr, usize) =
        match frame.get(12..14)? {
            [0x08, 0x00] => (
                *body.get(9)?,
                <[u8; 4]>::try_from(body.get(12..16)?).ok()?.into(),
                <[u8; 4]>::try_from(body.get(16..20)?).ok()?.into(),
                20,
            ),
            [0x86, 0xdd] => (
                *body.get(6)?,
                <[u8; 16]>::try_from(body.get(8..24)?).ok()?.into(),
                <[u8; 16]>::try_from(body.get(24..40)?).ok()?.into(),
                40,
            ),
            _ => return None,
        };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    Some(Packet {
        tcp: match protocol {
            6 => true,
            17 => false,
            _ => return None,
        },
        source: SocketAddr::new(source, port(header)?),
        destination: SocketAddr::new(destination, port(header + 2)?),
        mark: 0,
    })
}
