//! Netlink message framing: what lies between a socket's bytes and typed attributes.
//!
//! Only the attributes that are used are decoded, one by one. A device with an attribute that
//! netlink-packet-route cannot read must not hide every other device of the host.

use netlink_packet_core::{
    DecodeError, NLA_F_NESTED, NLA_F_NET_BYTEORDER, NlaBuffer, NlasIterator,
};

pub(crate) const NLMSG_HEADER_LEN: usize = 16;

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

pub(crate) const NLM_F_REQUEST: u16 = 0x01;
pub(crate) const NLM_F_ACK: u16 = 0x04;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// In an acknowledgement: the request's payload was left out of it.
const NLM_F_CAPPED: u16 = 0x100;
/// In an acknowledgement: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSGERR_ATTR_MSG: u16 = 1;

/// One netlink message inside a datagram.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; ends at the first that is cut short.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(datagram, 0)?).ok()?;
        let payload = datagram.get(NLMSG_HEADER_LEN..length)?;
        let message = Message {
            kind: read_u16(datagram, 4)?,
            flags: read_u16(datagram, 6)?,
            sequence: read_u32(datagram, 8)?,
            port: read_u32(datagram, 12)?,
            payload,
        };
        datagram = datagram.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// An acknowledgement's error number (0: done) and the kernel's explanation.
pub(crate) fn acknowledgement(message: &Message<'_>) -> Option<(i32, Option<String>)> {
    let code = i32::from_ne_bytes(message.payload.get(..4)?.try_into().ok()?);
    let mut text = None;
    if message.flags & NLM_F_ACK_TLVS != 0 {
        let echoed = if message.flags & NLM_F_CAPPED != 0 {
            NLMSG_HEADER_LEN
        } else {
            aligned(usize::try_from(read_u32(message.payload, 4)?).ok()?)
        };
        text = message_text(message.payload.get(4 + echoed..).unwrap_or_default());
    }
    Some((code.saturating_neg(), text))
}

/// The end of a dump carries a code and attributes too.
pub(crate) fn dump_end(message: &Message<'_>) -> (i32, Option<String>) {
    let code = message
        .payload
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, |bytes| i32::from_ne_bytes(bytes).saturating_neg());
    let text = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| message_text(message.payload.get(4..).unwrap_or_default()))
        .flatten();
    (code, text)
}

fn message_text(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .flatten()
        .find(|nla| nla.kind() == NLMSGERR_ATTR_MSG)
        .map(|nla| String::from_utf8_lossy(nla.value()).trim_end_matches('\0').to_owned())
}

/// The attributes behind a fixed header of `header` octets: kind without flags, and the buffer.
pub(crate) fn attributes(
    payload: &[u8],
    header: usize,
) -> impl Iterator<Item = Result<(u16, NlaBuffer<&[u8]>), DecodeError>> {
    NlasIterator::new(payload.get(header..).unwrap_or_default())
        .map(|nla| nla.map(|nla| (nla.kind() & !(NLA_F_NESTED | NLA_F_NET_BYTEORDER), nla)))
}

pub(crate) fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}
