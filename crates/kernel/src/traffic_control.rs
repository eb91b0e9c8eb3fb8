//! Traffic control where packets arrive: the qdisc that filters hang on, and filters that redirect
//! every packet to another device.
//!
//! A device has one hook for arriving packets. It is there once a qdisc `ingress` or `clsact` is
//! added, and both take filters under the same parent, so what is added here stands beside filters
//! of others. See tc(8), tc-u32(8) and tc-mirred(8); the layouts are those of `linux/pkt_sched.h`
//! and `linux/pkt_cls.h`.

use netlink_packet_core::Emitable;

use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{Request, Rtnetlink};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;

const ATTRIBUTE_HEADER_LEN: usize = 4;
/// Length of `struct tcmsg`.
const TCMSG_LEN: usize = 20;
/// `TC_H_INGRESS`: where the qdisc for arriving packets hangs.
const INGRESS_PARENT: u32 = 0xffff_fff1;
/// The handle of that qdisc, ffff:.
const INGRESS_HANDLE: u32 = 0xffff_0000;
/// ffff:fff2, the parent of its filters: `clsact` knows no other one, `ingress` takes any.
const INGRESS_FILTERS: u32 = 0xffff_fff2;
/// `ETH_P_ALL`.
const EVERY_PROTOCOL: u16 = 3;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;

const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_COOKIE: u16 = 6;
const MIRRED: &str = "mirred";
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: u32 = 4;
const TCA_EGRESS_REDIR: u32 = 1;

const TCA_U32_CLASSID: u16 = 1;
const TCA_U32_HASH: u16 = 2;
const TCA_U32_DIVISOR: u16 = 4;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_U32_PCNT: u16 = 9;
const TCA_U32_FLAGS: u16 = 11;
const TCA_U32_PAD: u16 = 12;
const TC_U32_TERMINAL: u8 = 1;
/// Length of `struct tc_u32_sel` without keys, and of a key.
const U32_SELECTOR_LEN: usize = 16;
const U32_KEY_LEN: usize = 16;

const TCA_MATCHALL_CLASSID: u16 = 1;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_MATCHALL_FLAGS: u16 = 3;

const TCA_BPF_ACT: u16 = 1;
const TCA_BPF_CLASSID: u16 = 3;
const TCA_BPF_OPS_LEN: u16 = 4;
const TCA_BPF_OPS: u16 = 5;
const TCA_BPF_FLAGS_GEN: u16 = 9;
/// `BPF_RET | BPF_K`, -1: a program of one instruction that matches.
const BPF_MATCH: [u8; 8] = {
    let [a, b] = 0x06_u16.to_ne_bytes();
    [a, b, 0, 0, 0xff, 0xff, 0xff, 0xff]
};

/// `TCA_CLS_FLAGS_SKIP_SW`: the filter is for the hardware alone.
const SKIP_SOFTWARE: u32 = 1 << 1;

/// A queueing discipline of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// Index of the device.
    pub interface: u32,
    /// What it is: `ingress`, `clsact`, `fq_codel`…
    pub kind: String,
    /// Its handle; the major number is in the upper half.
    pub handle: u32,
    /// Where it hangs: `ffff:fff1` is the hook for arriving packets.
    pub parent: u32,
}

impl Qdisc {
    /// Lists the qdiscs of every device of the namespace.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink) -> Result<Vec<Qdisc>> {
        let request = Request::new(RTM_GETQDISC, 0, &Body::new(0, 0, 0, 0));
        kernel.dump("qdiscs", &request, Qdisc::read)
    }

    fn read(message: &Message<'_>) -> Option<Qdisc> {
        if message.kind != RTM_NEWQDISC {
            return None;
        }
        let kind = attribute(message.payload, TCMSG_LEN, TCA_KIND).map(text)?;
        Some(Qdisc {
            interface: wire::read_u32(message.payload, 4)?,
            kind,
            handle: wire::read_u32(message.payload, 8)?,
            parent: wire::read_u32(message.payload, 12)?,
        })
    }

    /// Whether it is the one for arriving packets: `ingress` or `clsact`.
    pub fn is_for_arriving(&self) -> bool {
        self.parent == INGRESS_PARENT
    }

    /// Adds an `ingress` qdisc; refused (`EEXIST`) where the device has one, or a `clsact`.
    pub fn add_ingress(interface: u32) -> Request {
        let mut body = Body::new(interface, INGRESS_HANDLE, INGRESS_PARENT, 0);
        body.text(TCA_KIND, "ingress");
        Request::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    /// Adds a `clsact` qdisc, which takes filters for departing packets too.
    pub fn add_clsact(interface: u32) -> Request {
        let mut body = Body::new(interface, INGRESS_HANDLE, INGRESS_PARENT, 0);
        body.text(TCA_KIND, "clsact");
        Request::new(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    /// Removes the `ingress` or `clsact` qdisc, with all filters on it.
    pub fn remove_ingress(interface: u32) -> Request {
        let body = Body::new(interface, INGRESS_HANDLE, INGRESS_PARENT, 0);
        Request::new(RTM_DELQDISC, 0, &body)
    }
}

/// What looks at the packets. All of those here match every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Classifier {
    /// `u32`, without a key: in every kernel that has traffic control.
    U32,
    /// `matchall`: made for it.
    MatchAll,
    /// `bpf`, with a program of one instruction.
    Bpf,
}

impl Classifier {
    fn kind(self) -> &'static str {
        match self {
            Classifier::U32 => "u32",
            Classifier::MatchAll => "matchall",
            Classifier::Bpf => "bpf",
        }
    }
}

/// Octets that the kernel keeps with an action and does not look at: by these an action is found
/// again.
pub type Cookie = [u8; 16];

/// A filter that takes every packet that arrives by one device and sends it by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Index of the device by which packets arrive.
    pub from: u32,
    /// Index of the device by which they leave.
    pub to: u32,
    /// The place among the device's filters: lower ones are asked before.
    pub preference: u16,
    /// What to match by.
    pub classifier: Classifier,
    /// A mark, if any.
    pub cookie: Option<Cookie>,
}

impl Redirect {
    /// The preference that the kernel gives to the first filter that comes without one.
    pub const FIRST_PREFERENCE: u16 = 0xc000;

    /// Adds it; the device must have a qdisc for arriving packets. Refused with `ENOENT` where the
    /// kernel does not have the classifier.
    pub fn add(&self) -> Request {
        let info = u32::from(self.preference) << 16 | u32::from(EVERY_PROTOCOL.to_be());
        let mut body = Body::new(self.from, 0, INGRESS_FILTERS, info);
        body.text(TCA_KIND, self.classifier.kind());
        body.nested(TCA_OPTIONS, |options| match self.classifier {
            Classifier::U32 => {
                options.number(TCA_U32_CLASSID, 0);
                // No key at all. A key of zeros, which is usual, fails to match frames that are too
                // short to hold it.
                let mut selector = [0; U32_SELECTOR_LEN];
                selector[0] = TC_U32_TERMINAL;
                options.attribute(TCA_U32_SEL, &selector);
                options.nested(TCA_U32_ACT, |actions| self.action(actions));
            }
            Classifier::MatchAll => {
                options.number(TCA_MATCHALL_CLASSID, 0);
                options.nested(TCA_MATCHALL_ACT, |actions| self.action(actions));
            }
            Classifier::Bpf => {
                options.nested(TCA_BPF_ACT, |actions| self.action(actions));
                options.number(TCA_BPF_CLASSID, 0);
                options.attribute(TCA_BPF_OPS_LEN, &1_u16.to_ne_bytes());
                options.attribute(TCA_BPF_OPS, &BPF_MATCH);
            }
        });
        Request::new(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    fn action(&self, actions: &mut Body) {
        actions.nested(1, |action| {
            action.text(TCA_ACT_KIND, MIRRED);
            action.nested(TCA_ACT_OPTIONS, |options| {
                // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex
                let fields = [0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, self.to];
                let octets: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
                options.attribute(TCA_MIRRED_PARMS, &octets);
            });
            if let Some(cookie) = &self.cookie {
                action.attribute(TCA_ACT_COOKIE, cookie);
            }
        });
    }
}

/// A filter on packets that arrive by a device, as far as it is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Index of the device.
    pub interface: u32,
    /// The place among the device's filters: lower ones are asked before.
    pub preference: u16,
    /// Its handle among those of the same preference.
    pub handle: u32,
    /// What looks at the packets: `u32`, `matchall`, `bpf`, `flower`…
    pub kind: String,
    /// Whether it matches every packet. False where that cannot be told.
    pub matches_everything: bool,
    /// The device to which its first action redirects what is matched: 0 where that is gone.
    pub redirects_to: Option<u32>,
    /// The mark of its first action.
    pub cookie: Option<Cookie>,
    /// For which protocol, as the kernel has it; needed to name the filter.
    protocol: u16,
    chain: u32,
}

impl Filter {
    /// Lists the filters on packets that arrive by a device, in the order in which they are asked.
    /// Without a qdisc for arriving packets there are none.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink, interface: u32) -> Result<Vec<Filter>> {
        let body = Body::new(interface, 0, INGRESS_FILTERS, 0);
        kernel.dump("filters", &Request::new(RTM_GETTFILTER, 0, &body), Filter::read)
    }

    /// Removes this one and no other.
    pub fn remove(&self) -> Request {
        let info = u32::from(self.preference) << 16 | u32::from(self.protocol);
        let mut body = Body::new(self.interface, self.handle, INGRESS_FILTERS, info);
        body.text(TCA_KIND, &self.kind);
        if self.chain != 0 {
            body.number(TCA_CHAIN, self.chain);
        }
        Request::new(RTM_DELTFILTER, 0, &body)
    }

    /// `None`: no filter, but a table of them or their head.
    fn read(message: &Message<'_>) -> Option<Filter> {
        if message.kind != RTM_NEWTFILTER {
            return None;
        }
        let payload = message.payload;
        let info = wire::read_u32(payload, 16)?;
        let mut filter = Filter {
            interface: wire::read_u32(payload, 4)?,
            preference: (info >> 16) as u16,
            handle: wire::read_u32(payload, 8)?,
            kind: attribute(payload, TCMSG_LEN, TCA_KIND).map(text)?,
            matches_everything: false,
            redirects_to: None,
            cookie: None,
            protocol: info as u16,
            chain: attribute(payload, TCMSG_LEN, TCA_CHAIN)
                .and_then(|octets| wire::read_u32(octets, 0))
                .unwrap_or_default(),
        };
        if filter.handle == 0 {
            return None;
        }
        let options = attribute(payload, TCMSG_LEN, TCA_OPTIONS).unwrap_or_default();
        if filter.kind == "u32" && attribute(options, 0, TCA_U32_DIVISOR).is_some() {
            return None;
        }
        let (every, actions) = match filter.kind.as_str() {
            "u32" => (u32_matches_everything(filter.handle, options), TCA_U32_ACT),
            "matchall" => (matchall_matches_everything(options), TCA_MATCHALL_ACT),
            "bpf" => (bpf_matches_everything(options), TCA_BPF_ACT),
            _ => return Some(filter),
        };
        filter.matches_everything =
            every && filter.protocol == EVERY_PROTOCOL.to_be() && filter.chain == 0;
        // Actions are numbered from 1 in the order in which they are carried out.
        let action = attribute(options, 0, actions).and_then(|list| attribute(list, 0, 1));
        if let Some(action) = action {
            filter.redirects_to = redirected_to(action);
            filter.cookie =
                attribute(action, 0, TCA_ACT_COOKIE).and_then(|cookie| cookie.try_into().ok());
        }
        Some(filter)
    }
}

fn u32_matches_everything(handle: u32, options: &[u8]) -> bool {
    const NO_CONDITION: [u16; 7] = [
        TCA_U32_CLASSID,
        TCA_U32_HASH,
        TCA_U32_SEL,
        TCA_U32_ACT,
        TCA_U32_PCNT,
        TCA_U32_FLAGS,
        TCA_U32_PAD,
    ];
    // Others are conditions: a link to another table, an input device, a packet mark, a rate.
    let unconditional = wire::attributes(options, 0)
        .all(|attribute| attribute.is_ok_and(|(kind, _)| NO_CONDITION.contains(&kind)));
    let selector = attribute(options, 0, TCA_U32_SEL).unwrap_or_default();
    let Some((&[flags, _, count, ..], keys)) = selector.split_first_chunk::<U32_SELECTOR_LEN>()
    else {
        return false;
    };
    let keys: Vec<&[u8]> = keys.chunks_exact(U32_KEY_LEN).take(count.into()).collect();
    let bucket = handle >> 12 & 0xff;
    unconditional
        && bucket == 0
        && flags & TC_U32_TERMINAL != 0
        && keys.len() == usize::from(count)
        && keys.iter().all(|key| key.starts_with(&[0; 4]))
        && in_software(options, TCA_U32_FLAGS)
}

fn matchall_matches_everything(options: &[u8]) -> bool {
    in_software(options, TCA_MATCHALL_FLAGS)
}

fn bpf_matches_everything(options: &[u8]) -> bool {
    attribute(options, 0, TCA_BPF_OPS) == Some(&BPF_MATCH)
        && in_software(options, TCA_BPF_FLAGS_GEN)
}

fn in_software(options: &[u8], flags: u16) -> bool {
    let flags = attribute(options, 0, flags).and_then(|octets| wire::read_u32(octets, 0));
    flags.is_none_or(|flags| flags & SKIP_SOFTWARE == 0)
}

/// The target of an egress redirect.
fn redirected_to(action: &[u8]) -> Option<u32> {
    if attribute(action, 0, TCA_ACT_KIND).map(text)? != MIRRED {
        return None;
    }
    let options = attribute(action, 0, TCA_ACT_OPTIONS)?;
    let parameters = attribute(options, 0, TCA_MIRRED_PARMS)?;
    let is_redirect = wire::read_u32(parameters, 8)? == TC_ACT_STOLEN
        && wire::read_u32(parameters, 20)? == TCA_EGRESS_REDIR;
    is_redirect.then(|| wire::read_u32(parameters, 24)).flatten()
}

/// The value of the first attribute of this kind behind a fixed header of so many octets.
fn attribute(payload: &[u8], header: usize, kind: u16) -> Option<&[u8]> {
    let mut attributes = wire::attributes(payload, header).flatten();
    attributes.find(|(its, _)| *its == kind).and_then(|(_, buffer)| {
        let length = usize::from(buffer.length());
        buffer.into_inner().get(ATTRIBUTE_HEADER_LEN..length)
    })
}

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).trim_end_matches('\0').to_owned()
}

/// A traffic control message: its fixed header, and attributes one after the other.
struct Body(Vec<u8>);

impl Body {
    fn new(interface: u32, handle: u32, parent: u32, info: u32) -> Self {
        let fields = [0, interface, handle, parent, info];
        Body(fields.iter().flat_map(|field| field.to_ne_bytes()).collect())
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |body| body.0.extend_from_slice(value));
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.nested(kind, |body| {
            body.0.extend_from_slice(value.as_bytes());
            body.0.push(0);
        });
    }

    /// An attribute whose value `write` appends.
    fn nested(&mut self, kind: u16, write: impl FnOnce(&mut Body)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        write(self);
        let end = self.0.len();
        // An attribute is far shorter than 64 KiB: it is built from bounded ones.
        let length = u16::try_from(end - start).unwrap_or(u16::MAX);
        if let Some(field) = self.0.get_mut(start..start + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
        self.0.resize(start + wire::aligned(end - start), 0);
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}
