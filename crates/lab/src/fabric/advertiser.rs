//! Router advertisements: at once where the lab is told to, and in answer to solicitations.
//!
//! The kernel of the router sends them, and makes their checksums: each advertised port has a raw
//! socket that is bound to the router's address there.

use super::responder::stop_event;
use crate::error::{Attempt, Result};
use crate::host::Host;
use ipnet::Ipv6Net;
use jackfield_kernel::EthernetAddress;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 4861, sections 4.1 and 4.2.
const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
/// What is farther away is no neighbour: section 6.1.2.
const HOPS: u32 = 255;
/// Addresses, and all else, by DHCP: as EC2's say.
const MANAGED_AND_OTHER: u8 = 0xc0;
const ON_LINK: u8 = 0x80;
/// How long a subnet is on the link.
const PREFIX_SECONDS: u32 = 3600;

/// What a router says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterAdvertisement {
    /// Its link-local address, by which it is the default router.
    pub router: Ipv6Addr,
    /// For how long it is, in whole seconds; up to 65,535. Zero: it is none any more.
    pub lifetime: Duration,
}

impl RouterAdvertisement {
    /// RFC 4861, section 4.2, with the options of 4.6.1 and 4.6.2. The kernel fills in the checksum.
    fn message(&self, mac: EthernetAddress, subnets: &[Ipv6Net]) -> Vec<u8> {
        const HOP_LIMIT: u8 = 64;
        let lifetime = u16::try_from(self.lifetime.as_secs()).unwrap_or(u16::MAX);
        let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, MANAGED_AND_OTHER];
        message.extend(lifetime.to_be_bytes());
        // Reachable time and retransmission timer: not said.
        message.extend([0; 8]);
        message.extend([1, 1]);
        message.extend(mac);
        for subnet in subnets {
            message.extend([3, 4, subnet.prefix_len(), ON_LINK]);
            message.extend(PREFIX_SECONDS.to_be_bytes());
            message.extend(PREFIX_SECONDS.to_be_bytes());
            message.extend([0; 4]);
            message.extend(subnet.network().octets());
        }
        message
    }
}

/// One port's advertisement, and by what it is sent.
#[derive(Debug)]
struct Advertised {
    socket: Socket,
    to: SockAddr,
    message: Vec<u8>,
}

impl Advertised {
    fn send(&self) -> io::Result<()> {
        self.socket.send_to(&self.message, &self.to).map(drop)
    }
}

/// By the index of the port.
type Ports = Arc<Mutex<BTreeMap<u32, Advertised>>>;

/// The thread that answers solicitations. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Advertiser {
    ports: Ports,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Advertiser {
    pub(super) fn start(fabric: &Host) -> Result<Self> {
        let attempt = || "answer router solicitations in the fabric".to_owned();
        let socket = fabric.run(listen)?.attempt(attempt)?;
        let stop = Arc::new(stop_event().attempt(attempt)?);
        let ports = Ports::default();
        let (stopped, known) = (Arc::clone(&stop), Arc::clone(&ports));
        let builder = std::thread::Builder::new().name("advertiser".to_owned());
        let thread = builder.spawn(move || answer(&socket, &stopped, &known)).attempt(attempt)?;
        Ok(Self { ports, stop, thread: Some(thread) })
    }

    /// Advertises at a port, which has the router's address already: once now, and to whoever asks.
    pub(super) fn advertise(
        &self,
        fabric: &Host,
        port: u32,
        mac: EthernetAddress,
        advertisement: &RouterAdvertisement,
        subnets: &[Ipv6Net],
    ) -> Result<()> {
        let attempt = || format!("advertise the router {}", advertisement.router);
        let socket = fabric.run(|| speak(advertisement.router, port))?.attempt(attempt)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, port).into();
        let advertised = Advertised { socket, to, message: advertisement.message(mac, subnets) };
        advertised.send().attempt(attempt)?;
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.insert(port, advertised);
        Ok(())
    }

    /// A port is gone.
    pub(super) fn forget(&self, port: u32) {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that hears solicitations at every port.
fn listen() -> io::Result<Socket> {
    const LOAD_OCTET: u16 = 0x30;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let socket = Socket::new(Domain::IPV6, Type::RAW.nonblocking(), Some(Protocol::ICMPV6))?;
    socket.attach_filter(&[
        SockFilter::new(LOAD_OCTET, 0, 0, 0),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, ROUTER_SOLICITATION),
        SockFilter::new(RETURN, 0, 0, u32::from(u16::MAX)),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    Ok(socket)
}

/// A socket that speaks as the router at one port.
fn speak(router: Ipv6Addr, port: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.set_multicast_hops_v6(HOPS)?;
    socket.set_multicast_if_v6(port)?;
    socket.bind(&SocketAddrV6::new(router, 0, 0, port).into())?;
    Ok(socket)
}

fn answer(socket: &Socket, stop: &OwnedFd, ports: &Ports) {
    let mut buffer = [0; 256];
    loop {
        let mut polled = [PollFd::new(stop, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        let waited = poll(&mut polled, None);
        let [stopped, _] = &polled;
        if stopped.revents().contains(PollFlags::IN)
            || !matches!(waited, Ok(_) | Err(rustix::io::Errno::INTR))
        {
            return;
        }
        while let Ok((_, _, Some(from))) =
            rustix::net::recvfrom(socket, &mut buffer, RecvFlags::empty())
        {
            // Linux asks by its link-local address, which tells the port.
            let Ok(from) = SocketAddrV6::try_from(from) else { continue };
            let ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(advertised) = ports.get(&from.scope_id()) {
                // Fails where the port is gone.
                let _ = advertised.send();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_names_the_router_its_lifetime_and_the_subnets() {
        let router = "fe80::77".parse().unwrap();
        let lifetime = Duration::from_secs(1800);
        let subnet: Ipv6Net = "2001:db8::/64".parse().unwrap();
        let message =
            RouterAdvertisement { router, lifetime }.message([6, 0, 0, 0, 0, 1], &[subnet]);
        let mut expected = vec![134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([1, 1, 6, 0, 0, 0, 0, 1]);
        expected.extend([3, 4, 64, 0x80, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
        expected.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(message, expected);
    }
}
