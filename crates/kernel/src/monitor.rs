//! rtnetlink notifications: what changed, as it changes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::Result;
use crate::{Address, Error, Link, Route, Rule};
use crate::{address, link, route, rule, wire};

// The numbers of `enum rtnetlink_groups`.
const GROUPS: [u32; 9] = [
    1,  // RTNLGRP_LINK
    5,  // RTNLGRP_IPV4_IFADDR
    7,  // RTNLGRP_IPV4_ROUTE
    8,  // RTNLGRP_IPV4_RULE
    9,  // RTNLGRP_IPV6_IFADDR
    11, // RTNLGRP_IPV6_ROUTE
    19, // RTNLGRP_IPV6_RULE
    24, // RTNLGRP_IPV4_NETCONF
    25, // RTNLGRP_IPV6_NETCONF
];

const RTM_NEWNETCONF: u16 = 80;
/// `struct netconfmsg`, padded.
const NETCONF_HEADER_LEN: usize = 4;
const NETCONFA_IFINDEX: u16 = 1;
const NETCONFA_IFINDEX_ALL: i32 = -1;

/// What a notification is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A device.
    Link(Link),
    /// An address.
    Address(Address),
    /// A route.
    Route(Route),
    /// A rule.
    Rule(Rule),
    /// A setting of the interface of this index, or of all together: whether packets are forwarded,
    /// or the reverse path filter.
    Settings(Option<u32>),
}

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// An object was added or changed (`removed` false) or removed.
    Changed {
        /// The object, as it is or last was.
        subject: Subject,
        /// Whether it is gone.
        removed: bool,
        /// The [`crate::Rtnetlink::port`] of who changed it; 0 where the kernel did.
        by: u32,
    },
    /// Notifications were lost: look at everything again.
    Lost,
}

/// A socket on which the kernel tells every change of links, addresses, routes and rules of the
/// namespace in which it was opened.
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Starts listening. What is listed after this call and not notified is complete.
    ///
    /// # Errors
    /// Where the kernel has no socket to give.
    pub fn open() -> Result<Self> {
        let failed = |error| Error::system("listen to rtnetlink notifications", error);
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        for group in GROUPS {
            socket.add_membership(group).map_err(failed)?;
        }
        socket.set_non_blocking(true).map_err(failed)?;
        // Room for a burst; what does not fit is told as `Lost`.
        socket.set_rx_buf_sz(1_048_576_i32).map_err(failed)?;
        Ok(Monitor { socket, buffer: Vec::new() })
    }

    /// Takes what has arrived, without waiting, and gives each notification to `tell`.
    ///
    /// # Errors
    /// Where the socket fails for another reason than lost notifications.
    pub fn receive(&mut self, mut tell: impl FnMut(Notification)) -> Result<()> {
        loop {
            self.buffer.clear();
            self.buffer.reserve(32 * 1024);
            let sender = match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) => sender,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if is_overrun(&error) => {
                    tell(Notification::Lost);
                    continue;
                }
                Err(error) => {
                    return Err(Error::system("receive rtnetlink notifications", error));
                }
            };
            if sender.port_number() != 0 {
                // Another process can send to this socket; only the kernel's word counts.
                continue;
            }
            for message in wire::messages(&self.buffer) {
                let (subject, removed) = match message.kind {
                    link::RTM_NEWLINK | link::RTM_DELLINK => {
                        (Link::read(&message).map(Subject::Link), message.kind == link::RTM_DELLINK)
                    }
                    address::RTM_NEWADDR | address::RTM_DELADDR => (
                        Address::read(&message).map(Subject::Address),
                        message.kind == address::RTM_DELADDR,
                    ),
                    route::RTM_NEWROUTE | route::RTM_DELROUTE => (
                        Route::read(&message).map(Subject::Route),
                        message.kind == route::RTM_DELROUTE,
                    ),
                    rule::RTM_NEWRULE | rule::RTM_DELRULE => {
                        (Rule::read(&message).map(Subject::Rule), message.kind == rule::RTM_DELRULE)
                    }
                    RTM_NEWNETCONF => (settings_of(&message).map(Subject::Settings), false),
                    _ => continue,
                };
                if let Some(subject) = subject {
                    tell(Notification::Changed { subject, removed, by: message.port });
                }
            }
        }
    }
}

/// Whose settings changed; `None` where that is no interface.
fn settings_of(message: &wire::Message<'_>) -> Option<Option<u32>> {
    let of = wire::attributes(message.payload, NETCONF_HEADER_LEN)
        .flatten()
        .find(|(kind, _)| *kind == NETCONFA_IFINDEX)
        .and_then(|(_, nla)| Some(i32::from_ne_bytes(nla.value().try_into().ok()?)))?;
    if of == NETCONFA_IFINDEX_ALL { Some(None) } else { u32::try_from(of).ok().map(Some) }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}

pub(crate) fn is_overrun(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

pub(crate) fn borrow(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the socket, and the result borrows the socket.
    #[allow(unsafe_code)]
    unsafe {
        BorrowedFd::borrow_raw(socket.as_raw_fd())
    }
}
