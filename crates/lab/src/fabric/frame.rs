//! Ethernet frames as they are on the wire: as much of them as the fabric reads and writes.

use crate::emulator::MacAddr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) const ARP: u16 = 0x0806;
pub(super) const IPV6: u16 = 0x86dd;
const IPV4: u16 = 0x0800;

const ETHERNET: usize = 14;
const ICMPV6: u8 = 58;
pub(super) const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Offsets in a frame of the fields that a filter for solicitations reads.
pub(super) const NEXT_HEADER: u32 = 14 + 6;
pub(super) const ICMPV6_TYPE: u32 = 14 + 40;

/// Who asks for the MAC of which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) asker: MacAddr,
    pub(super) source: IpAddr,
    pub(super) target: IpAddr,
}

impl Question {
    /// Reads an ARP request or a neighbour solicitation. Probes for duplicates, which have no
    /// source, are none.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let question = match word(frame, 12)? {
            ARP => {
                // Ethernet, IPv4, their lengths, a request.
                if octets::<8>(frame, ETHERNET)? != [0, 1, 8, 0, 6, 4, 0, 1] {
                    return None;
                }
                Self {
                    asker: MacAddr(octets(frame, ETHERNET + 8)?),
                    source: Ipv4Addr::from(octets::<4>(frame, ETHERNET + 14)?).into(),
                    target: Ipv4Addr::from(octets::<4>(frame, ETHERNET + 24)?).into(),
                }
            }
            IPV6 => {
                let is_solicitation = *frame.get(ETHERNET + 6)? == ICMPV6
                    && *frame.get(ETHERNET + 40)? == SOLICITATION;
                if !is_solicitation {
                    return None;
                }
                Self {
                    asker: MacAddr(octets(frame, 6)?),
                    source: Ipv6Addr::from(octets::<16>(frame, ETHERNET + 8)?).into(),
                    target: Ipv6Addr::from(octets::<16>(frame, ETHERNET + 48)?).into(),
                }
            }
            _ => return None,
        };
        (!question.source.is_unspecified()).then_some(question)
    }

    /// The frame that answers it: the target has this MAC.
    pub(super) fn answer(&self, mac: [u8; 6], is_router: bool) -> Vec<u8> {
        let mut frame = Vec::with_capacity(86);
        frame.extend(self.asker.0);
        frame.extend(mac);
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                frame.extend(ARP.to_be_bytes());
                frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
                frame.extend(mac);
                frame.extend(target.octets());
                frame.extend(self.asker.0);
                frame.extend(source.octets());
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                frame.extend(IPV6.to_be_bytes());
                let advertisement = advertisement(target, source, mac, is_router);
                frame.extend([0x60, 0, 0, 0, 0, advertisement.len() as u8, ICMPV6, 255]);
                frame.extend(target.octets());
                frame.extend(source.octets());
                frame.extend(advertisement);
            }
            // A question is of one family.
            _ => {}
        }
        frame
    }
}

/// A neighbour advertisement (RFC 4861, section 4.4): solicited, overriding, with the MAC.
fn advertisement(from: Ipv6Addr, to: Ipv6Addr, mac: [u8; 6], is_router: bool) -> Vec<u8> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, if is_router { 0xe0 } else { 0x60 }, 0, 0, 0];
    message.extend(from.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let mut pseudo = Vec::with_capacity(72);
    pseudo.extend(from.octets());
    pseudo.extend(to.octets());
    pseudo.extend((message.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, ICMPV6]);
    pseudo.extend(&message);
    let sum = checksum(&pseudo).to_be_bytes();
    message.splice(2..4, sum);
    message
}

/// The Internet checksum (RFC 1071).
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(*high) << 8,
            _ => 0,
        })
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IP packet, as far as it tells who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) to: MacAddr,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    pub(super) port: Option<u16>,
}

impl Packet {
    /// Reads an IP packet that is for one station.
    pub(super) fn read(frame: &[u8]) -> Option<Self> {
        let to = MacAddr(octets(frame, 0)?);
        let is_group = to.0[0] & 1 == 1;
        let body = frame.get(ETHERNET..)?;
        let (source, destination, protocol, header): (IpAddr, IpAddr, u8, usize) =
            match word(frame, 12)? {
                _ if is_group => return None,
                IPV4 => (
                    Ipv4Addr::from(octets::<4>(body, 12)?).into(),
                    Ipv4Addr::from(octets::<4>(body, 16)?).into(),
                    *body.get(9)?,
                    usize::from(*body.first()? & 0xf) * 4,
                ),
                IPV6 => (
                    Ipv6Addr::from(octets::<16>(body, 8)?).into(),
                    Ipv6Addr::from(octets::<16>(body, 24)?).into(),
                    *body.get(6)?,
                    40,
                ),
                _ => return None,
            };
        let has_ports = [6, 17].contains(&protocol);
        let port = if has_ports { word(body, header + 2) } else { None };
        Some(Self { to, source, destination, protocol, port })
    }
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    octets(bytes, at).map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: MacAddr = MacAddr([2, 0xec, 0x20, 0, 0, 1]);
    const ROUTER: [u8; 6] = [6, 0, 0, 0, 0, 1];

    #[test]
    fn an_arp_request_is_read_and_answered() {
        let mut request = vec![0xff; 6];
        request.extend(ASKER.0);
        request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend(ASKER.0);
        request.extend([10, 0, 1, 10, 0, 0, 0, 0, 0, 0, 10, 0, 1, 1]);
        let question = Question::read(&request).unwrap();
        let (source, target) = ("10.0.1.10".parse().unwrap(), "10.0.1.1".parse().unwrap());
        assert_eq!(question, Question { asker: ASKER, source, target });
        let answer = question.answer(ROUTER, true);
        assert_eq!(answer.get(20..22), Some([0, 2].as_slice()));
        assert_eq!(answer.get(22..32), Some([6, 0, 0, 0, 0, 1, 10, 0, 1, 1].as_slice()));
        assert_eq!(answer.len(), 42);
        // Neither an answer nor a probe is a question.
        assert_eq!(Question::read(&answer), None);
        request.splice(28..32, [0; 4]);
        assert_eq!(Question::read(&request), None);
        assert_eq!(Question::read(request.get(..40).unwrap()), None);
    }

    #[test]
    fn an_advertisement_sums_to_zero() {
        let (from, to) = ("fe80:ec2::1".parse().unwrap(), "2001:db8::10".parse().unwrap());
        let message = advertisement(from, to, ROUTER, true);
        let mut pseudo = [from.octets(), to.octets()].concat();
        pseudo.extend([0, 0, 0, 32, 0, 0, 0, ICMPV6]);
        pseudo.extend(message);
        assert_eq!(checksum(&pseudo), 0);
    }
}
