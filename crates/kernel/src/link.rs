//! Network devices: what the kernel says of them, and requests that change them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader,
    LinkInfo, LinkMessage, Prop,
};

use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{EthernetAddress, Namespace, Request, Rtnetlink};

pub(crate) const RTM_NEWLINK: u16 = 16;
pub(crate) const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWLINKPROP: u16 = 108;
const RTM_DELLINKPROP: u16 = 109;

pub(crate) const IFINFO_LEN: usize = 16;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_MIN_MTU: u16 = 50;
const IFLA_MAX_MTU: u16 = 51;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_INFO_KIND: u16 = 1;

/// A network device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index: unique in the namespace, kept across renames.
    pub index: u32,
    /// Current name.
    pub name: String,
    /// Alternative names.
    pub alternative_names: Vec<String>,
    /// What kind of virtual device it is (`veth`, `bridge`, `tun`…); `None` for a device that a
    /// driver made for hardware, and for a loopback.
    pub kind: Option<String>,
    /// Whether it is an Ethernet device (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Link-layer address, where it has one of six octets.
    pub address: Option<EthernetAddress>,
    /// Administratively up.
    pub up: bool,
    /// Has a carrier.
    pub carrier: bool,
    /// Maximum transmission unit, octets.
    pub mtu: u32,
    /// The least that [`Link::mtu`] can be set to.
    pub min_mtu: u32,
    /// The most that [`Link::mtu`] can be set to; 0 where the driver does not say.
    pub max_mtu: u32,
    /// Link group.
    pub group: u32,
    /// Alias: free text, at most 255 octets.
    pub alias: Option<String>,
    /// The bridge, bond or VRF that it is enslaved to.
    pub controller: Option<u32>,
    /// The device below or, for a veth, the other end, by its index in its own namespace.
    pub lower: Option<u32>,
    /// True where [`Link::lower`] lies in another namespace.
    pub lower_elsewhere: bool,
    /// Name of the hardware device behind it, for example a PCI address.
    pub parent_device: Option<String>,
}

impl Link {
    /// Lists every device of the namespace.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink) -> Result<Vec<Link>> {
        kernel.dump("devices", &list_request(), Link::read)
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Link> {
        if message.kind != RTM_NEWLINK && message.kind != RTM_DELLINK {
            return None;
        }
        let header = LinkHeader::parse(message.payload).ok()?;
        if header.interface_family != AddressFamily::Unspec {
            // Bridge port details (AF_BRIDGE) come by the same message and are no device.
            return None;
        }
        let mut link = Link {
            index: header.index,
            name: String::new(),
            alternative_names: Vec::new(),
            kind: None,
            ethernet: u16::from(header.link_layer_type) == ETHERNET,
            address: None,
            up: header.flags.contains(LinkFlags::Up),
            carrier: header.flags.contains(LinkFlags::LowerUp),
            mtu: 0,
            min_mtu: 0,
            max_mtu: 0,
            group: 0,
            alias: None,
            controller: None,
            lower: None,
            lower_elsewhere: false,
            parent_device: None,
        };
        // By hand, and only what is used: the library reads details of every kind of device, which
        // is most of what a short-lived program would have to load.
        for attribute in wire::attributes(message.payload, IFINFO_LEN) {
            let (kind, nla) = attribute.ok()?;
            let value = nla.value();
            let number = || wire::read_u32(value, 0);
            match kind {
                IFLA_ADDRESS => link.address = value.try_into().ok(),
                IFLA_IFNAME => link.name = text(value),
                IFLA_MTU => link.mtu = number()?,
                IFLA_MIN_MTU => link.min_mtu = number()?,
                IFLA_MAX_MTU => link.max_mtu = number()?,
                IFLA_LINK => link.lower = number(),
                IFLA_LINK_NETNSID => link.lower_elsewhere = true,
                IFLA_MASTER => link.controller = number(),
                IFLA_GROUP => link.group = number()?,
                IFLA_IFALIAS => link.alias = Some(text(value)).filter(|alias| !alias.is_empty()),
                IFLA_PARENT_DEV_NAME => link.parent_device = Some(text(value)),
                IFLA_PROP_LIST => {
                    let names = wire::attributes(value, 0).flatten();
                    let names = names.filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                    link.alternative_names.extend(names.map(|(_, name)| text(name.value())));
                }
                IFLA_LINKINFO => {
                    link.kind = wire::attributes(value, 0)
                        .flatten()
                        .find(|(kind, _)| *kind == IFLA_INFO_KIND)
                        .map(|(_, nla)| text(nla.value()));
                }
                _ => {}
            }
        }
        Some(link)
    }

    /// Removes a device.
    pub fn delete(index: u32) -> Request {
        Request::new(RTM_DELLINK, 0, &message(index))
    }

    /// Removes every device of a link group at once, which takes little longer than to remove one.
    pub fn delete_group(group: u32) -> Request {
        let mut message = message(0);
        message.attributes.push(LinkAttribute::Group(group));
        Request::new(RTM_DELLINK, 0, &message)
    }

    /// Gives a device an alternative name.
    pub fn add_alternative_name(index: u32, name: &str) -> Request {
        Request::new(RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL, &alternative_name(index, name))
    }

    /// Takes an alternative name from a device.
    pub fn remove_alternative_name(index: u32, name: &str) -> Request {
        Request::new(RTM_DELLINKPROP, 0, &alternative_name(index, name))
    }
}

/// A change of one device: only what is `Some` is changed, in one message.
#[derive(Debug, Default, Clone, Copy)]
pub struct LinkChange<'a> {
    /// Administratively up or down.
    pub up: Option<bool>,
    /// Maximum transmission unit, octets.
    pub mtu: Option<u32>,
    /// Link group.
    pub group: Option<u32>,
    /// Alias; an empty one removes it.
    pub alias: Option<&'a str>,
    /// New name.
    pub name: Option<&'a str>,
    /// New link-layer address.
    pub address: Option<EthernetAddress>,
    /// The bridge to become a port of.
    pub controller: Option<u32>,
    /// The namespace to move to.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl LinkChange<'_> {
    /// The request that makes the change.
    pub fn request(&self, index: u32) -> Request {
        let mut message = message(index);
        if let Some(up) = self.up {
            set_up(&mut message, up);
        }
        let attributes = &mut message.attributes;
        attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        attributes.extend(self.group.map(LinkAttribute::Group));
        attributes.extend(self.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned())));
        attributes.extend(self.name.map(|name| LinkAttribute::IfName(name.to_owned())));
        attributes.extend(self.address.map(|address| LinkAttribute::Address(address.to_vec())));
        attributes.extend(self.controller.map(LinkAttribute::Controller));
        attributes.extend(self.namespace.map(|fd| LinkAttribute::NetNsFd(fd.as_raw_fd())));
        Request::new(RTM_NEWLINK, 0, &message)
    }
}

/// One end of a veth pair that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Name, at most 15 octets.
    pub name: &'a str,
    /// Link-layer address; a random one where `None`.
    pub address: Option<EthernetAddress>,
    /// Maximum transmission unit, octets; 1500 where `None`.
    pub mtu: Option<u32>,
    /// The namespace in which it appears; the socket's where `None`.
    pub namespace: Option<&'a Namespace>,
}

impl VethEnd<'_> {
    fn attributes(&self) -> Vec<LinkAttribute> {
        let mut attributes = vec![LinkAttribute::IfName(self.name.to_owned())];
        attributes.extend(self.address.map(|address| LinkAttribute::Address(address.to_vec())));
        attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        let namespace = self.namespace.map(|namespace| namespace.as_raw_fd());
        attributes.extend(namespace.map(LinkAttribute::NetNsFd));
        attributes
    }
}

/// Makes a veth pair, both ends down, each at once in its namespace.
pub fn veth_pair(one: VethEnd<'_>, other: VethEnd<'_>) -> Request {
    let mut peer = message(0);
    peer.attributes = other.attributes();
    let mut message = message(0);
    message.attributes = one.attributes();
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
}

/// Makes a bridge, down, that forwards as soon as a port is up.
pub fn bridge(name: &str) -> Request {
    let mut message = message(0);
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
        ]),
    ];
    Request::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
}

pub(crate) fn list_request() -> Request {
    let mut body = LinkMessage::default();
    // Counters are the larger part of a device's description, and are not used.
    body.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::new(RTM_GETLINK, 0, &body)
}

fn message(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn set_up(message: &mut LinkMessage, up: bool) {
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
}

fn alternative_name(index: u32, name: &str) -> LinkMessage {
    let mut message = message(index);
    message.attributes.push(LinkAttribute::PropList(vec![Prop::AltIfName(name.to_owned())]));
    message
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}
