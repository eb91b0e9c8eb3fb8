//! A table of nf_tables that lets forwarded connections be answered by the interface by which they
//! came: what `nft` would be told by
//!
//! ```text
//! table inet jackfield {
//!   map interfaces { type iface_index : verdict; elements = { 3 : goto set_0x1_of_0x7f } }
//!   chain set_0x1_of_0x7f { ct mark set ct mark & ~0x7f ^ 0x1 }
//!   chain forward {
//!     type filter hook forward priority mangle
//!     ct direction original meta mark 0 ct mark & 0x7f == 0 iif vmap @interfaces
//!   }
//!   chain prerouting {
//!     type filter hook prerouting priority mangle
//!     ct direction reply meta mark 0 ct mark & 0x7f != 0 meta mark set ct mark & 0x7f
//!   }
//!   chain output {
//!     type route hook output priority mangle
//!     ct direction reply meta mark 0 ct mark & 0x7f != 0 meta mark set ct mark & 0x7f
//!   }
//! }
//! ```
//!
//! Whether a packet is forwarded is known behind destination NAT and routing: marked there, no
//! connection of the host itself is. A reply is routed before its source is translated back, so
//! that no rule for the source could match: the mark is in its place. What the host itself says in
//! the container's stead, that it cannot be reached or that a packet is too big for it, is routed
//! once more with the mark.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::nftables::{
    Attributes, EVERY_FAMILY, HEADER_LEN, INET, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN,
    NFT_MSG_GETRULE, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE,
    NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_CHAIN_HOOK, message, number,
    read_attributes, says, text, value,
};
use crate::{Nftables, Request};

const MAP: &str = "interfaces";
const FORWARD: &str = "forward";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";

const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_LOCAL_OUT: u32 = 3;
/// `NF_IP_PRI_MANGLE`: behind connection tracking, before destination NAT.
const MANGLE: i32 = -150;
const NF_ACCEPT: u32 = 1;

const NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFT_SET_MAP: u32 = 8;
/// How `nft` calls an interface index, for whoever lists the table.
const TYPE_IFINDEX: u32 = 20;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
const NFT_GOTO: i32 = -4;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_META_MARK: u32 = 3;
const NFT_META_IIF: u32 = 4;
const NFT_CT_DIRECTION: u32 = 1;
const NFT_CT_MARK: u32 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const ORIGINAL: u8 = 0;
const REPLY: u8 = 1;

/// Which mark a forwarded connection is given that comes in by an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectionMarks {
    /// The bits that are changed, and looked at.
    pub mask: u32,
    /// The mark of each interface, by its index.
    pub marks: BTreeMap<u32, u32>,
}

/// What is there of the table of [`ConnectionMarks`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MarksTable {
    /// Nothing.
    #[default]
    Absent,
    /// A table that does exactly this.
    Present(ConnectionMarks),
    /// A table of that name that does something else.
    Altered,
}

/// What nf_tables holds, as far as forwarded connections are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NftablesState {
    /// The table of [`ConnectionMarks`].
    pub marks: MarksTable,
    /// Whether somebody has a chain for the destination NAT of what arrives.
    pub destination_nat: bool,
}

struct Chain {
    family: u8,
    table: String,
    name: String,
    kind: Option<String>,
    hook: Option<(u32, i32)>,
    policy: Option<u32>,
}

impl NftablesState {
    /// Looks.
    ///
    /// # Errors
    /// Where the conversation with the kernel fails, or the privilege (`CAP_NET_ADMIN`) is missing.
    pub fn read(kernel: &mut Nftables) -> Result<Self> {
        let everything = |kind| message(kind, EVERY_FAMILY, Attributes::default());
        let tables = kernel.dump("nf_tables tables", &everything(NFT_MSG_GETTABLE), |payload| {
            let attributes = read_attributes(payload, HEADER_LEN);
            let ours = payload.first() == Some(&INET)
                && text(&attributes, NAME).as_deref() == Some(ConnectionMarks::TABLE);
            ours.then(|| number(&attributes, NFTA_TABLE_FLAGS).unwrap_or(0))
        })?;
        let chains = kernel.dump("nf_tables chains", &everything(NFT_MSG_GETCHAIN), Chain::read)?;
        let (ours, others): (Vec<Chain>, Vec<Chain>) = chains
            .into_iter()
            .partition(|is| is.family == INET && is.table == ConnectionMarks::TABLE);
        let translates = |is: &Chain| {
            is.kind.as_deref() == Some("nat")
                && is.hook.is_some_and(|(hook, _)| hook == NF_INET_PRE_ROUTING)
        };
        let destination_nat = others.iter().any(translates);
        let marks = match tables.first() {
            None => MarksTable::Absent,
            // Dormant, or somebody's alone.
            Some(flags) if *flags != 0 => MarksTable::Altered,
            Some(_) => {
                let present = ConnectionMarks::read(kernel, &ours)?;
                present.map_or(MarksTable::Altered, MarksTable::Present)
            }
        };
        Ok(NftablesState { marks, destination_nat })
    }
}

impl Chain {
    fn read(payload: &[u8]) -> Option<Chain> {
        let attributes = read_attributes(payload, HEADER_LEN);
        let hook = value(&attributes, NFTA_CHAIN_HOOK).and_then(|hook| {
            let hook = read_attributes(hook, 0);
            let priority = number(&hook, NFTA_HOOK_PRIORITY)?;
            Some((number(&hook, NFTA_HOOK_HOOKNUM)?, priority.cast_signed()))
        });
        Some(Chain {
            family: *payload.first()?,
            table: text(&attributes, NFTA_CHAIN_TABLE)?,
            name: text(&attributes, NFTA_CHAIN_NAME)?,
            kind: text(&attributes, NFTA_CHAIN_TYPE),
            hook,
            policy: number(&attributes, NFTA_CHAIN_POLICY),
        })
    }
}

impl ConnectionMarks {
    /// The table's name, in the family inet.
    pub const TABLE: &str = "jackfield";

    /// Makes the table, in the place of one of that name, all at once.
    ///
    /// # Errors
    /// Where the kernel refuses; everything is then as it was.
    pub fn write(&self, kernel: &mut Nftables) -> Result<()> {
        let mut changes = removal();
        changes.push(table(NFT_MSG_NEWTABLE));
        // What is referred to comes first.
        for (name, hook) in self.chains() {
            let mut chain = Attributes::default()
                .text(NFTA_CHAIN_TABLE, Self::TABLE)
                .text(NFTA_CHAIN_NAME, &name);
            if let Some(hook) = hook {
                let place = Attributes::default()
                    .number(NFTA_HOOK_HOOKNUM, hook)
                    .number(NFTA_HOOK_PRIORITY, MANGLE.cast_unsigned());
                chain = chain
                    .nested(NFTA_CHAIN_HOOK, place)
                    .number(NFTA_CHAIN_POLICY, NF_ACCEPT)
                    .text(NFTA_CHAIN_TYPE, kind_of(hook));
            }
            changes.push(message(NFT_MSG_NEWCHAIN, INET, chain));
        }
        let set = Attributes::default()
            .text(NFTA_SET_TABLE, Self::TABLE)
            .text(NFTA_SET_NAME, MAP)
            .number(NFTA_SET_FLAGS, NFT_SET_MAP)
            .number(NFTA_SET_KEY_TYPE, TYPE_IFINDEX)
            .number(NFTA_SET_KEY_LEN, 4)
            .number(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT)
            .number(NFTA_SET_ID, 1)
            .bytes(NFTA_SET_USERDATA, &host_order());
        changes.push(message(NFT_MSG_NEWSET, INET, set));
        changes.push(message(NFT_MSG_NEWSETELEM, INET, self.elements()));
        for (chain, expressions) in self.rules() {
            let rule = Attributes::default()
                .text(NFTA_RULE_TABLE, Self::TABLE)
                .text(NFTA_RULE_CHAIN, &chain)
                .nested(NFTA_RULE_EXPRESSIONS, expressions);
            changes.push(message(NFT_MSG_NEWRULE, INET, rule));
        }
        kernel.transaction("make the nf_tables table of connection marks", changes)
    }

    /// Removes the table, whatever is in it.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn remove(kernel: &mut Nftables) -> Result<()> {
        kernel.transaction("remove the nf_tables table of connection marks", removal())
    }

    /// What the table does; `None` where it is not one that [`ConnectionMarks::write`] made.
    fn read(kernel: &mut Nftables, chains: &[Chain]) -> Result<Option<Self>> {
        let set = Attributes::default()
            .text(NFTA_SET_ELEM_LIST_TABLE, Self::TABLE)
            .text(NFTA_SET_ELEM_LIST_SET, MAP);
        let elements = message(NFT_MSG_GETSETELEM, INET, set);
        let elements = kernel.dump("nf_tables elements", &elements, |payload| {
            let attributes = read_attributes(payload, HEADER_LEN);
            let list = value(&attributes, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
            Some(read_attributes(list, 0))
        })?;
        let mut marks = ConnectionMarks::default();
        for (_, element) in elements.into_iter().flatten() {
            let Some((interface, mark, mask)) = read_element(&element) else { return Ok(None) };
            marks.mask = mask;
            marks.marks.insert(interface, mark);
        }
        let table = Attributes::default().text(NFTA_RULE_TABLE, Self::TABLE);
        let rules = message(NFT_MSG_GETRULE, INET, table);
        let rules = kernel.dump("nf_tables rules", &rules, |payload| {
            let attributes = read_attributes(payload, HEADER_LEN);
            let ours = text(&attributes, NFTA_RULE_TABLE)? == Self::TABLE;
            let expressions = value(&attributes, NFTA_RULE_EXPRESSIONS)?.to_vec();
            ours.then_some((text(&attributes, NFTA_RULE_CHAIN)?, expressions))
        })?;
        Ok((marks.has_chains(chains) && marks.has_rules(&rules)).then_some(marks))
    }

    fn has_chains(&self, chains: &[Chain]) -> bool {
        let is: BTreeSet<(&str, Option<(u32, i32)>)> =
            chains.iter().map(|chain| (chain.name.as_str(), chain.hook)).collect();
        let shall: BTreeMap<String, Option<u32>> = self.chains().collect();
        let shall: BTreeSet<(&str, Option<(u32, i32)>)> = shall
            .iter()
            .map(|(name, hook)| (name.as_str(), hook.map(|hook| (hook, MANGLE))))
            .collect();
        let accept = |chain: &Chain| chain.policy.is_none_or(|is| is == NF_ACCEPT);
        let kind =
            |chain: &Chain| chain.kind.as_deref() == chain.hook.map(|(hook, _)| kind_of(hook));
        is == shall && chains.iter().all(|chain| accept(chain) && kind(chain))
    }

    fn has_rules(&self, rules: &[(String, Vec<u8>)]) -> bool {
        let is: BTreeMap<&str, &[u8]> =
            rules.iter().map(|(chain, rule)| (chain.as_str(), rule.as_slice())).collect();
        let shall: BTreeMap<String, Attributes> = self.rules().collect();
        // A rule a chain.
        rules.len() == shall.len()
            && shall.iter().all(|(chain, rule)| {
                is.get(chain.as_str()).is_some_and(|is| {
                    let count = |bytes: &[u8]| read_attributes(bytes, 0).len();
                    count(is) == count(&rule.0) && says(is, &rule.0)
                })
            })
    }

    /// The chains, each with its hook.
    fn chains(&self) -> impl Iterator<Item = (String, Option<u32>)> {
        let hooks = [
            (FORWARD, NF_INET_FORWARD),
            (PREROUTING, NF_INET_PRE_ROUTING),
            (OUTPUT, NF_INET_LOCAL_OUT),
        ];
        let marks: BTreeSet<u32> = self.marks.values().copied().collect();
        marks
            .into_iter()
            .map(|mark| (chain_of(mark, self.mask), None))
            .chain(hooks.map(|(name, hook)| (name.to_owned(), Some(hook))))
    }

    /// The rule of each chain.
    fn rules(&self) -> impl Iterator<Item = (String, Attributes)> {
        let mask = self.mask;
        let forward = [
            load_connection(NFT_CT_DIRECTION),
            compare(NFT_CMP_EQ, &[ORIGINAL]),
            load_packet(NFT_META_MARK),
            compare(NFT_CMP_EQ, &[0; 4]),
            load_connection(NFT_CT_MARK),
            bitwise(mask, 0),
            compare(NFT_CMP_EQ, &[0; 4]),
            load_packet(NFT_META_IIF),
            look_up(),
        ];
        let reply = [
            load_connection(NFT_CT_DIRECTION),
            compare(NFT_CMP_EQ, &[REPLY]),
            load_packet(NFT_META_MARK),
            compare(NFT_CMP_EQ, &[0; 4]),
            load_connection(NFT_CT_MARK),
            bitwise(mask, 0),
            compare(NFT_CMP_NEQ, &[0; 4]),
            // META_SREG
            expression("meta", Attributes::default().number(2, NFT_META_MARK).number(3, NFT_REG_1)),
        ];
        let marks: BTreeSet<u32> = self.marks.values().copied().collect();
        let set = move |mark: u32| {
            let rule = [
                load_connection(NFT_CT_MARK),
                bitwise(!mask, mark),
                // CT_SREG
                expression("ct", Attributes::default().number(2, NFT_CT_MARK).number(4, NFT_REG_1)),
            ];
            (chain_of(mark, mask), list(rule))
        };
        let reply = list(reply);
        let hooks = [
            (FORWARD.to_owned(), list(forward)),
            (PREROUTING.to_owned(), reply.clone()),
            (OUTPUT.to_owned(), reply),
        ];
        marks.into_iter().map(set).chain(hooks)
    }

    fn elements(&self) -> Attributes {
        let elements = self.marks.iter().map(|(interface, mark)| {
            let verdict = Attributes::default()
                .number(NFTA_VERDICT_CODE, NFT_GOTO.cast_unsigned())
                .text(NFTA_VERDICT_CHAIN, &chain_of(*mark, self.mask));
            let data = Attributes::default().nested(NFTA_DATA_VERDICT, verdict);
            Attributes::default()
                .nested(NFTA_SET_ELEM_KEY, data_value(&interface.to_ne_bytes()))
                .nested(NFTA_SET_ELEM_DATA, data)
        });
        Attributes::default()
            .text(NFTA_SET_ELEM_LIST_TABLE, Self::TABLE)
            .text(NFTA_SET_ELEM_LIST_SET, MAP)
            .nested(NFTA_SET_ELEM_LIST_ELEMENTS, list(elements))
    }
}

fn table(kind: u16) -> Request {
    message(kind, INET, Attributes::default().text(NAME, ConnectionMarks::TABLE))
}

/// Tells `nft` in which order the octets of the map's keys are: NFTNL_UDATA_SET_KEYBYTEORDER, the
/// length, BYTEORDER_HOST_ENDIAN.
fn host_order() -> Vec<u8> {
    [&[0, 4][..], &1_u32.to_ne_bytes()].concat()
}

/// What is to be removed must be there; what is made is left as it is where it is there.
fn removal() -> Vec<Request> {
    vec![table(NFT_MSG_NEWTABLE), table(NFT_MSG_DELTABLE)]
}

/// What kind of chain the hook has: of what the host sends the route is chosen already.
fn kind_of(hook: u32) -> &'static str {
    if hook == NF_INET_LOCAL_OUT { "route" } else { "filter" }
}

fn chain_of(mark: u32, mask: u32) -> String {
    format!("set_{mark:#x}_of_{mask:#x}")
}

/// The mark and the mask that a chain's name tells.
fn read_chain_of(name: &str) -> Option<(u32, u32)> {
    let (mark, mask) = name.strip_prefix("set_0x")?.split_once("_of_0x")?;
    Some((u32::from_str_radix(mark, 16).ok()?, u32::from_str_radix(mask, 16).ok()?))
}

/// An element of the map: an interface, its mark and the mask.
fn read_element(element: &[u8]) -> Option<(u32, u32, u32)> {
    let element = read_attributes(element, 0);
    let key = read_attributes(value(&element, NFTA_SET_ELEM_KEY)?, 0);
    let interface = u32::from_ne_bytes(value(&key, NFTA_DATA_VALUE)?.try_into().ok()?);
    let data = read_attributes(value(&element, NFTA_SET_ELEM_DATA)?, 0);
    let verdict = read_attributes(value(&data, NFTA_DATA_VERDICT)?, 0);
    let goes = number(&verdict, NFTA_VERDICT_CODE)? == NFT_GOTO.cast_unsigned();
    let (mark, mask) = read_chain_of(&text(&verdict, NFTA_VERDICT_CHAIN)?)?;
    goes.then_some((interface, mark, mask))
}

fn list(elements: impl IntoIterator<Item = Attributes>) -> Attributes {
    elements
        .into_iter()
        .fold(Attributes::default(), |list, element| list.nested(NFTA_LIST_ELEM, element))
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, data)
}

fn data_value(bytes: &[u8]) -> Attributes {
    Attributes::default().bytes(NFTA_DATA_VALUE, bytes)
}

/// Of the connection: the first register is given what the key names (CT_DREG, CT_KEY).
fn load_connection(key: u32) -> Attributes {
    expression("ct", Attributes::default().number(1, NFT_REG_1).number(2, key))
}

/// Of the packet (META_DREG, META_KEY).
fn load_packet(key: u32) -> Attributes {
    expression("meta", Attributes::default().number(1, NFT_REG_1).number(2, key))
}

/// Goes on where the register compares so (CMP_SREG, CMP_OP, CMP_DATA).
fn compare(how: u32, with: &[u8]) -> Attributes {
    let data = Attributes::default().number(1, NFT_REG_1).number(2, how);
    expression("cmp", data.nested(3, data_value(with)))
}

/// register & mask ^ xor (BITWISE_SREG, _DREG, _LEN, _MASK, _XOR). Marks are in the host's order.
fn bitwise(mask: u32, xor: u32) -> Attributes {
    let data = Attributes::default().number(1, NFT_REG_1).number(2, NFT_REG_1).number(3, 4);
    let data = data.nested(4, data_value(&mask.to_ne_bytes()));
    expression("bitwise", data.nested(5, data_value(&xor.to_ne_bytes())))
}

/// Goes where the map leads (LOOKUP_SET, _SREG, _DREG).
fn look_up() -> Attributes {
    let data = Attributes::default().text(1, MAP).number(2, NFT_REG_1);
    expression("lookup", data.number(3, NFT_REG_VERDICT))
}
