//! What a rule selects by besides what [`Rule`] describes: enough to tell whether it is for a
//! packet, and never to make or remove it.

use std::ops::RangeInclusive;

use netlink_packet_core::{Nla, Parseable};
use netlink_packet_route::rule::{RuleAttribute, RuleFlags, RuleHeader, RuleMessage};

use crate::address::wire_family;
use crate::error::Result;
use crate::rule::{FIB_RULE_HDR_LEN, RTM_GETRULE};
use crate::wire::{self, Message};
use crate::{Family, Request, Rtnetlink, Rule};

/// The first of the attributes that select and are not read here.
const FRA_DSCP: u16 = 25;
/// `FRA_SPORT_MASK`, `FRA_DPORT_MASK`.
const PORT_MASKS: [u16; 2] = [28, 29];

/// A rule with everything that it selects by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectingRule {
    /// The rule.
    pub rule: Rule,
    /// What it selects by besides.
    pub selection: RuleSelection,
}

/// What a rule selects by besides addresses, interfaces and mark.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSelection {
    /// It is for what does not match.
    pub inverted: bool,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Destination ports.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// Users of the sending process.
    pub users: Option<RangeInclusive<u32>>,
    /// Type of service; 0: any.
    pub tos: u8,
    /// It is for packets of a VRF, whose table it asks.
    pub vrf: bool,
    /// True where it selects by something that is not described here.
    pub unknown: bool,
}

impl SelectingRule {
    /// Lists every rule of the family, in the kernel's order.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails.
    pub fn list(kernel: &mut Rtnetlink, family: Family) -> Result<Vec<Self>> {
        let mut body = RuleMessage::default();
        body.header.family = wire_family(family);
        kernel.dump("rules", &Request::new(RTM_GETRULE, 0, &body), SelectingRule::read)
    }

    fn read(message: &Message<'_>) -> Option<Self> {
        let rule = Rule::read(message)?;
        let header = RuleHeader::parse(message.payload).ok()?;
        let mut selection = RuleSelection {
            inverted: header.flags.contains(RuleFlags::Invert),
            tos: header.tos,
            ..RuleSelection::default()
        };
        for attribute in wire::attributes(message.payload, FIB_RULE_HDR_LEN) {
            let (_, nla) = attribute.ok()?;
            let Ok(attribute) = RuleAttribute::parse(&nla) else {
                selection.unknown = true;
                continue;
            };
            match attribute {
                RuleAttribute::IpProtocol(protocol) => {
                    selection.protocol = Some(protocol.into()).filter(|number| *number != 0);
                }
                RuleAttribute::SourcePortRange(ports) => {
                    selection.source_ports = Some(ports.start..=ports.end);
                }
                RuleAttribute::DestinationPortRange(ports) => {
                    selection.destination_ports = Some(ports.start..=ports.end);
                }
                RuleAttribute::UidRange(users) => selection.users = Some(users.start..=users.end),
                RuleAttribute::L3MDev(on) => selection.vrf = on,
                RuleAttribute::TunId(id) => selection.unknown |= id != 0,
                // Of a single port the whole is compared, which newer kernels say.
                RuleAttribute::Other(nla) if PORT_MASKS.contains(&nla.kind()) => {
                    let mut mask = [0; 2];
                    let whole = nla.value_len() == 2 && {
                        nla.emit_value(&mut mask);
                        mask == [0xff; 2]
                    };
                    selection.unknown |= !whole;
                }
                RuleAttribute::Other(nla) => selection.unknown |= nla.kind() >= FRA_DSCP,
                _ => {}
            }
        }
        Some(SelectingRule { rule, selection })
    }
}
