//! nf_tables over netlink, as far as connection marks need it: transactions, dumps, notifications.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::error::Result;
use crate::monitor::{borrow, is_overrun};
use crate::wire::{self, NLM_F_CREATE};
use crate::{Error, Namespace, Refusal, Request, Rtnetlink};

pub(crate) const NFT_MSG_NEWTABLE: u16 = 0;
pub(crate) const NFT_MSG_GETTABLE: u16 = 1;
pub(crate) const NFT_MSG_DELTABLE: u16 = 2;
pub(crate) const NFT_MSG_NEWCHAIN: u16 = 3;
pub(crate) const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
pub(crate) const NFT_MSG_NEWRULE: u16 = 6;
pub(crate) const NFT_MSG_GETRULE: u16 = 7;
pub(crate) const NFT_MSG_NEWSET: u16 = 9;
pub(crate) const NFT_MSG_NEWSETELEM: u16 = 12;
pub(crate) const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_DELSETELEM: u16 = 14;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNLGRP_NFTABLES: u32 = 7;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

/// `struct nfgenmsg`.
pub(crate) const HEADER_LEN: usize = 4;
/// `NFPROTO_UNSPEC`.
pub(crate) const EVERY_FAMILY: u8 = 0;
/// `NFPROTO_INET`: IPv4 and IPv6.
pub(crate) const INET: u8 = 1;

/// In every message of nf_tables the first attribute is the table's name, and a chain's hook and
/// type have these numbers.
const NFTA_TABLE: u16 = 1;
pub(crate) const NFTA_CHAIN_HOOK: u16 = 4;

/// A socket that speaks nf_tables to the kernel, for the network namespace in which it was opened.
pub struct Nftables(Rtnetlink);

impl Nftables {
    /// Opens a socket in the namespace of the calling thread; `None` where the kernel has no
    /// netfilter.
    ///
    /// # Errors
    /// Where the kernel has no socket left to give.
    pub fn open() -> Result<Option<Self>> {
        match Rtnetlink::of_protocol(NETLINK_NETFILTER) {
            Ok(socket) => Ok(Some(Nftables(socket))),
            Err(error) if is_without(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a socket in another namespace.
    ///
    /// # Errors
    /// As [`Nftables::open`], and where the namespace cannot be entered.
    pub fn open_in(namespace: &Namespace) -> Result<Option<Self>> {
        namespace.run(Self::open)?
    }

    /// Makes all of the changes or none.
    pub(crate) fn transaction(
        &mut self,
        attempt: &str,
        changes: impl IntoIterator<Item = Request>,
    ) -> Result<()> {
        // The subsystem, where other messages have a resource's number.
        let frame = |kind| {
            let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
            Request::raw(kind, 0, vec![EVERY_FAMILY, 0, high, low])
        };
        let mut messages = vec![frame(NFNL_MSG_BATCH_BEGIN)];
        messages.extend(changes);
        match self.0.transaction(&messages, &frame(NFNL_MSG_BATCH_END))? {
            Ok(()) => Ok(()),
            Err(refusal) => Err(Error::Refused { attempt: attempt.to_owned(), refusal }),
        }
    }

    /// Lists objects, as [`Rtnetlink::dump`] does; nothing where the kernel has no nf_tables.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        request: &Request,
        mut read: impl FnMut(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>> {
        match self.0.dump(what, request, |message| read(message.payload)) {
            Err(Error::Refused { refusal, .. }) if refusal.errno == Refusal::INVALID => {
                Ok(Vec::new())
            }
            result => result,
        }
    }
}

/// A kernel that was built without says so.
fn is_without(error: &Error) -> bool {
    let without = [rustix::io::Errno::PROTONOSUPPORT, rustix::io::Errno::AFNOSUPPORT];
    without.iter().any(|errno| error.errno() == Some(errno.raw_os_error()))
}

/// A message of nf_tables.
pub(crate) fn message(kind: u16, family: u8, attributes: Attributes) -> Request {
    let flags = match kind {
        NFT_MSG_NEWRULE => NLM_F_CREATE | NLM_F_APPEND,
        NFT_MSG_NEWTABLE | NFT_MSG_NEWCHAIN | NFT_MSG_NEWSET | NFT_MSG_NEWSETELEM => NLM_F_CREATE,
        _ => 0,
    };
    let mut body = vec![family, 0, 0, 0];
    body.extend_from_slice(&attributes.0);
    Request::raw((NFNL_SUBSYS_NFTABLES << 8) | kind, flags, body)
}

/// Attributes that are being written. Numbers are in network order, as nf_tables has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Attributes(pub(crate) Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        // What is written here is short.
        self.0.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len() + wire::aligned(length) - length, 0);
        self
    }

    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn nested(self, kind: u16, inner: Attributes) -> Self {
        self.bytes(kind | NLA_F_NESTED, &inner.0)
    }
}

/// Attributes that were read: each kind with its value.
pub(crate) fn read_attributes(bytes: &[u8], header: usize) -> Vec<(u16, Vec<u8>)> {
    wire::attributes(bytes, header)
        .map_while(std::result::Result::ok)
        .map(|(kind, nla)| (kind, nla.value().to_vec()))
        .collect()
}

/// The value of the first attribute of a kind.
pub(crate) fn value(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    attributes.iter().find(|(is, _)| *is == kind).map(|(_, value)| value.as_slice())
}

pub(crate) fn number(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(value(attributes, kind)?.try_into().ok()?))
}

pub(crate) fn text(attributes: &[(u16, Vec<u8>)], kind: u16) -> Option<String> {
    let bytes = value(attributes, kind)?;
    Some(String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next()?).into_owned())
}

/// Whether what was read says everything that was written. The kernel tells more than it was told.
pub(crate) fn says(read: &[u8], written: &[u8]) -> bool {
    let mut read = read_attributes(read, 0);
    wire::attributes(written, 0).map_while(std::result::Result::ok).all(|(kind, nla)| {
        let Some(position) = read.iter().position(|(is, _)| *is == kind) else { return false };
        // Elements of a list have the same kind, in their order.
        let (_, value) = read.remove(position);
        if nla.nested_flag() { says(&value, nla.value()) } else { value == nla.value() }
    })
}

/// A socket on which the kernel tells changes of nf_tables of the namespace in which it was opened.
pub struct NftablesMonitor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl NftablesMonitor {
    /// Starts listening; `None` where the kernel has no netfilter.
    ///
    /// # Errors
    /// Where the kernel has no socket to give.
    pub fn open() -> Result<Option<Self>> {
        let failed = |error| Error::system("listen to nf_tables notifications", error);
        let mut socket = match Socket::new(NETLINK_NETFILTER).map_err(failed) {
            Err(error) if is_without(&error) => return Ok(None),
            socket => socket?,
        };
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.add_membership(NFNLGRP_NFTABLES).map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        // Others load rule sets of megabytes; what does not fit is told as lost.
        socket.set_rx_buf_sz(1_048_576_i32).map_err(failed)?;
        Ok(Some(NftablesMonitor { socket, buffer: Vec::new() }))
    }

    /// Takes what has arrived, without waiting. True where a chain that packets are sent through
    /// came or went, anything of `table` changed, or notifications were lost.
    ///
    /// # Errors
    /// Where the socket fails for another reason than lost notifications.
    pub fn receive(&mut self, table: &str) -> Result<bool> {
        let mut concerned = false;
        loop {
            self.buffer.clear();
            self.buffer.reserve(32 * 1024);
            let sender = match self.socket.recv_from(&mut self.buffer, 0) {
                Ok((_, sender)) => sender,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Ok(concerned);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) if is_overrun(&error) => {
                    concerned = true;
                    continue;
                }
                Err(error) => {
                    return Err(Error::system("receive nf_tables notifications", error));
                }
            };
            // Another process can send to this socket; only the kernel's word counts.
            if sender.port_number() == 0 {
                concerned |= wire::messages(&self.buffer)
                    .any(|message| concerns(message.kind, message.payload, table));
            }
        }
    }
}

fn concerns(kind: u16, payload: &[u8], table: &str) -> bool {
    if kind >> 8 != NFNL_SUBSYS_NFTABLES {
        return false;
    }
    let attributes = read_attributes(payload, HEADER_LEN);
    let named = text(&attributes, NFTA_TABLE).as_deref() == Some(table);
    match kind & 0xff {
        // What goes is told by its name alone.
        NFT_MSG_DELTABLE | NFT_MSG_DELCHAIN => true,
        NFT_MSG_NEWCHAIN => named || value(&attributes, NFTA_CHAIN_HOOK).is_some(),
        kind => named && kind <= NFT_MSG_DELSETELEM,
    }
}

impl AsFd for NftablesMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }
}
