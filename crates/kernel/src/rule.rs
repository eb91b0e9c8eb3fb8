//! Policy routing rules.

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{
    RuleAction as WireAction, RuleAttribute, RuleFlags, RuleHeader, RuleMessage,
};

use crate::address::{read_family, wire_family};
use crate::error::Result;
use crate::wire::{self, Message, NLM_F_CREATE, NLM_F_EXCL};
use crate::{Family, Request, Rtnetlink};

pub(crate) const RTM_NEWRULE: u16 = 32;
pub(crate) const RTM_DELRULE: u16 = 33;
pub(crate) const RTM_GETRULE: u16 = 34;

pub(crate) const FIB_RULE_HDR_LEN: usize = 12;
/// `RT_TABLE_COMPAT`: the table's number is in the attribute.
const TABLE_IN_ATTRIBUTE: u8 = 252;

/// What a rule does with a packet that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Look the destination up in a table.
    Table(u32),
    /// Go on at the first rule with this priority.
    Goto(u32),
    /// Do nothing; a place for `goto` to land.
    Nop,
    /// Drop in silence.
    Blackhole,
    /// Refuse: network unreachable.
    Unreachable,
    /// Refuse: administratively prohibited.
    Prohibit,
    /// Something else that a newer kernel knows.
    Other(u8),
}

/// A mark of a packet, or of a connection: some of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// What these bits are.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

/// A policy routing rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// Address family.
    pub family: Family,
    /// Lower is asked earlier.
    pub priority: u32,
    /// Source prefix; every source where `None`.
    pub source: Option<IpNet>,
    /// Destination prefix; every destination where `None`.
    pub destination: Option<IpNet>,
    /// Name of the interface by which the packet came in; `lo` for packets made here.
    pub input_interface: Option<String>,
    /// Name of the interface that the sender is bound to.
    pub output_interface: Option<String>,
    /// The packet's mark.
    pub mark: Option<Mark>,
    /// What is done.
    pub action: RuleAction,
    /// A route found in the table is ignored where its prefix length is at most this.
    pub suppress_prefix_length: Option<u32>,
    /// A route found in the table is ignored where its device is in this link group.
    pub suppress_group: Option<u32>,
    /// Who made the rule.
    pub protocol: u8,
    /// True where it selects by something that is not described here (port, user, inversion…).
    /// Such a rule can be listed, but is never made or removed.
    pub selects_further: bool,
}

impl Rule {
    /// A rule that matches everything.
    pub fn new(family: Family, priority: u32, action: RuleAction) -> Self {
        Rule {
            family,
            priority,
            source: None,
            destination: None,
            input_interface: None,
            output_interface: None,
            mark: None,
            action,
            suppress_prefix_length: None,
            suppress_group: None,
            protocol: 0,
            selects_further: false,
        }
    }

    /// Lists every rule of the family.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink, family: Family) -> Result<Vec<Rule>> {
        let mut body = RuleMessage::default();
        body.header.family = wire_family(family);
        kernel.dump("rules", &Request::new(RTM_GETRULE, 0, &body), Rule::read)
    }

    pub(crate) fn read(message: &Message<'_>) -> Option<Rule> {
        if message.kind != RTM_NEWRULE && message.kind != RTM_DELRULE {
            return None;
        }
        let header = RuleHeader::parse(message.payload).ok()?;
        let family = read_family(header.family)?;
        let mut rule = Rule::new(family, 0, RuleAction::Nop);
        let mut table = u32::from(header.table);
        let mut goto = 0;
        let (mut mark, mut mask) = (0, 0);
        rule.selects_further = header.flags.contains(RuleFlags::Invert) || header.tos != 0;
        for attribute in wire::attributes(message.payload, FIB_RULE_HDR_LEN) {
            let (_, nla) = attribute.ok()?;
            let Ok(attribute) = RuleAttribute::parse(&nla) else {
                rule.selects_further = true;
                continue;
            };
            match attribute {
                RuleAttribute::Source(address) => {
                    rule.source = IpNet::new(address, header.src_len).ok();
                }
                RuleAttribute::Destination(address) => {
                    rule.destination = IpNet::new(address, header.dst_len).ok();
                }
                RuleAttribute::Iifname(name) => rule.input_interface = Some(name),
                RuleAttribute::Oifname(name) => rule.output_interface = Some(name),
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Goto(priority) => goto = priority,
                RuleAttribute::Table(number) => table = number,
                RuleAttribute::SuppressPrefixLen(length) if length != u32::MAX => {
                    rule.suppress_prefix_length = Some(length);
                }
                RuleAttribute::SuppressIfGroup(group) if group != u32::MAX => {
                    rule.suppress_group = Some(group);
                }
                RuleAttribute::Protocol(protocol) => rule.protocol = protocol.into(),
                RuleAttribute::FwMark(value) => mark = value,
                RuleAttribute::FwMask(bits) => mask = bits,
                RuleAttribute::TunId(id) => rule.selects_further |= id != 0,
                RuleAttribute::L3MDev(on) => rule.selects_further |= on,
                RuleAttribute::UidRange(_)
                | RuleAttribute::IpProtocol(_)
                | RuleAttribute::SourcePortRange(_)
                | RuleAttribute::DestinationPortRange(_) => rule.selects_further = true,
                _ => {}
            }
        }
        rule.mark = (mark != 0 || mask != 0).then_some(Mark { value: mark, mask });
        rule.action = match header.action {
            WireAction::ToTable => RuleAction::Table(table),
            WireAction::Goto => RuleAction::Goto(goto),
            WireAction::Nop => RuleAction::Nop,
            WireAction::Blackhole => RuleAction::Blackhole,
            WireAction::Unreachable => RuleAction::Unreachable,
            WireAction::Prohibit => RuleAction::Prohibit,
            other => RuleAction::Other(other.into()),
        };
        Some(rule)
    }

    /// Adds it; refused where the same rule is there.
    pub fn add(&self) -> Request {
        Request::new(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, &self.message())
    }

    /// Removes it: the first rule that has everything that this one says.
    pub fn remove(&self) -> Request {
        Request::new(RTM_DELRULE, 0, &self.message())
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = wire_family(self.family);
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Priority(self.priority));
        message.header.action = match self.action {
            RuleAction::Table(table) => {
                message.header.table = u8::try_from(table).unwrap_or(TABLE_IN_ATTRIBUTE);
                attributes.push(RuleAttribute::Table(table));
                WireAction::ToTable
            }
            RuleAction::Goto(priority) => {
                attributes.push(RuleAttribute::Goto(priority));
                WireAction::Goto
            }
            RuleAction::Nop => WireAction::Nop,
            RuleAction::Blackhole => WireAction::Blackhole,
            RuleAction::Unreachable => WireAction::Unreachable,
            RuleAction::Prohibit => WireAction::Prohibit,
            RuleAction::Other(action) => WireAction::Other(action),
        };
        if let Some(source) = self.source {
            message.header.src_len = source.prefix_len();
            attributes.push(RuleAttribute::Source(source.addr()));
        }
        if let Some(destination) = self.destination {
            message.header.dst_len = destination.prefix_len();
            attributes.push(RuleAttribute::Destination(destination.addr()));
        }
        attributes.extend(self.input_interface.clone().map(RuleAttribute::Iifname));
        attributes.extend(self.output_interface.clone().map(RuleAttribute::Oifname));
        if let Some(Mark { value, mask }) = self.mark {
            attributes.extend([RuleAttribute::FwMark(value), RuleAttribute::FwMask(mask)]);
        }
        attributes.extend(self.suppress_prefix_length.map(RuleAttribute::SuppressPrefixLen));
        attributes.extend(self.suppress_group.map(RuleAttribute::SuppressIfGroup));
        if self.protocol != 0 {
            attributes.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        }
        message
    }
}
