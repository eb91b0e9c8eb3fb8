//! Many rules as a tree of `goto` rules.
//!
//! The tree consists of blocks. Each has three priorities: what it holds is at the first, the prefix
//! in which all of it lies at the second where that is a table's, and at the third `goto` leads to
//! the end, which is a `nop` at our last priority. A block holds lookups and `goto`s to further
//! blocks, of prefixes that do not overlap. In front of the tree is its entry, at one of
//! [`ENTRIES`] priorities, so that another one can be made before the old one goes.
//!
//! What is a block depends on nothing but the entries in it: a block holds what is left of a
//! binary trie of them where each part that has at most an eighth of them is a block of its own
//! ([`class`]). So a change of one entry changes the blocks around it and no others. Which
//! priorities a block has depends on those that it has already.
//!
//! The kernel keeps one `goto` of a prefix at a priority, wherever it leads; so a block from which
//! one would lead elsewhere moves too.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_kernel::{Family, Rule, RuleAction};

use super::prefix::Prefix;
use super::separate::Entry;
use crate::snapshot::OURS;

/// How many priorities are for the entry rule.
pub(super) const ENTRIES: u32 = 2;
/// How many priorities a block has.
const STEP: u32 = 3;
/// How many entries a block without `goto`s holds at most, by bits.
const LEAF_BITS: u32 = 3;
/// A part with so few entries is not worth a block.
const SMALL: usize = 2;
/// What part of all blocks, of a thousand, each rank has room for; the first is the leaves'.
const ROOM: [u32; 12] = [780, 150, 40, 12, 3, 3, 2, 2, 2, 2, 2, 2];

/// Where the tree shall be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) family: Family,
    /// The first of the priorities for the entry rule.
    pub(super) first: u32,
    /// The priority of the end.
    pub(super) last: u32,
}

/// Makes a tree of the entries, out of the blocks that are there as far as that goes. `None` where
/// there is no room for it.
pub(super) fn compile(entries: &[Entry], present: &[Rule], range: Range) -> Option<Vec<Rule>> {
    let mut root = Block::new(&Node::new(entries, Prefix::ALL)?, Prefix::ALL, None);
    let mut places = Places::new(present, range);
    places.keep(&mut root);
    let mut rules = Vec::new();
    let target = places.place(&mut root, &mut rules)?;
    let entry = places.entry(target)?;
    rules.push(entry);
    rules.push(Rule { protocol: OURS, ..Rule::new(range.family, range.last, RuleAction::Nop) });
    Some(rules)
}

/// A node of the trie of entries.
struct Node<'a> {
    /// The first bits that tell it from its sibling.
    edge: Prefix,
    kind: Kind<'a>,
    /// How many entries it has, without those that lie within another.
    weight: usize,
    /// How deep entries lie within one another.
    nested: u32,
}

enum Kind<'a> {
    Leaf(&'a Entry),
    /// An entry and those that lie within it.
    Nest(&'a Entry, Box<Node<'a>>),
    Fork(Box<[Node<'a>; 2]>),
}

impl<'a> Node<'a> {
    fn new(entries: &'a [Entry], edge: Prefix) -> Option<Self> {
        let (first, within) = entries.split_first()?;
        let common = first.prefix.common(entries.last()?.prefix);
        if common == first.prefix {
            return Some(match Node::new(within, edge) {
                None => Node { edge, kind: Kind::Leaf(first), weight: 1, nested: 0 },
                Some(within) => {
                    let nested = within.rank() + 1;
                    Node { edge, kind: Kind::Nest(first, Box::new(within)), weight: 1, nested }
                }
            });
        }
        let at = entries.partition_point(|entry| !entry.prefix.bit(common.len()));
        let (zero, one) = entries.split_at(at);
        let side = |part: &'a [Entry]| {
            let edge = part.first()?.prefix.cut(common.len().saturating_add(1));
            Node::new(part, edge)
        };
        let sides = [side(zero)?, side(one)?];
        let [zero, one] = &sides;
        let (weight, nested) = (zero.weight + one.weight, zero.nested.max(one.nested));
        Some(Node { edge, kind: Kind::Fork(Box::new(sides)), weight, nested })
    }

    /// A node's rank is at least that of each node in it, and greater than that of each nest in it.
    fn rank(&self) -> u32 {
        class(self.weight) + self.nested
    }
}

/// How many times the weight can be divided by eight, and be a leaf's then.
fn class(weight: usize) -> u32 {
    weight.saturating_sub(1).max(1).ilog2() / LEAF_BITS
}

struct Block {
    /// All that is led here lies in it; no other block has the same.
    key: Prefix,
    rank: u32,
    lookups: Vec<Entry>,
    children: Vec<Block>,
    /// Whose everything else is that is led here.
    around: Option<Entry>,
    priority: Option<u32>,
}

impl Block {
    fn new(node: &Node<'_>, key: Prefix, around: Option<Entry>) -> Self {
        let rank = node.rank();
        let (lookups, children) = (Vec::new(), Vec::new());
        let mut block = Block { key, rank, lookups, children, around, priority: None };
        block.collect(node);
        block
    }

    fn collect(&mut self, node: &Node<'_>) {
        match &node.kind {
            Kind::Leaf(entry) => self.lookups.push(**entry),
            Kind::Nest(entry, within) => {
                self.children.push(Block::new(within, entry.prefix, Some(**entry)));
            }
            Kind::Fork(sides) => {
                for side in sides.iter() {
                    let part = matches!(side.kind, Kind::Fork(_))
                        && side.rank() < self.rank
                        && (side.weight > SMALL || side.nested > 0);
                    if part {
                        self.children.push(Block::new(side, side.edge, self.around));
                    } else {
                        self.collect(side);
                    }
                }
            }
        }
    }
}

/// What the rules at a priority say: a source, whether only of packets made here, and what to do.
type Said = (Option<Prefix>, bool, RuleAction);

struct Places {
    range: Range,
    /// What our rules in the range say.
    said: BTreeMap<u32, BTreeSet<Said>>,
    /// Priorities at which somebody has a rule.
    used: BTreeSet<u32>,
    /// Where blocks are that are led to, by key.
    by_key: BTreeMap<Prefix, u32>,
    /// Where something is said within a block.
    by_said: BTreeMap<Said, u32>,
    /// Priorities of blocks that stay or are new.
    taken: BTreeSet<u32>,
    /// The next place of each rank to look at.
    next: BTreeMap<u32, u32>,
}

impl Places {
    fn new(present: &[Rule], range: Range) -> Self {
        let mut places = Places {
            range,
            said: BTreeMap::new(),
            used: BTreeSet::new(),
            by_key: BTreeMap::new(),
            by_said: BTreeMap::new(),
            taken: BTreeSet::new(),
            next: BTreeMap::new(),
        };
        for rule in present.iter().filter(|rule| rule.family == range.family) {
            places.used.insert(rule.priority);
            let within = (range.first..range.last).contains(&rule.priority);
            if rule.protocol != OURS || !within {
                continue;
            }
            let source = rule.source.map(Prefix::of);
            if let RuleAction::Goto(to) = rule.action {
                places.by_key.entry(source.unwrap_or(Prefix::ALL)).or_insert(to);
            }
            let said = (source, rule.input_interface.is_some(), rule.action);
            if source.is_some() {
                places.by_said.entry(said).or_insert(rule.priority);
            }
            places.said.entry(rule.priority).or_default().insert(said);
        }
        places
    }

    /// The block's places stay its own where nothing in them is in the way. All blocks have this
    /// choice before any is given a place that was another's.
    fn keep(&mut self, block: &mut Block) {
        if let Some(priority) = self.by_key.get(&block.key).copied() {
            self.take(block, priority);
        }
        for child in &mut block.children {
            self.keep(child);
        }
    }

    fn take(&mut self, block: &mut Block, priority: u32) {
        let (start, end) = self.room(block.rank);
        let aligned = (start..end).contains(&priority) && (priority - start).is_multiple_of(STEP);
        // What it is around may be asked before what is new; so it is always the same.
        let around = block.around.map(|entry| said_by(&entry));
        let around: BTreeSet<Said> = around.into_iter().collect();
        let there = self.said.get(&priority.saturating_add(1));
        let same = there.map_or(around.is_empty(), |there| *there == around);
        if aligned && same && self.taken.insert(priority) {
            block.priority = Some(priority);
        }
    }

    /// Gives the block and all in it places, the leaves first, and makes the rules.
    fn place(&mut self, block: &mut Block, rules: &mut Vec<Rule>) -> Option<u32> {
        let mut holds: Vec<Said> = block.lookups.iter().map(said_by).collect();
        for child in &mut block.children {
            let to = self.place(child, rules)?;
            holds.push((Some(child.key), false, RuleAction::Goto(to)));
        }
        if block.priority.is_some_and(|priority| self.leads_elsewhere(priority, &holds)) {
            block.priority = None;
        }
        if block.priority.is_none() {
            let similar = holds.iter().find_map(|said| self.by_said.get(said).copied());
            if let Some(similar) = similar
                && !self.leads_elsewhere(similar, &holds)
            {
                self.take(block, similar);
            }
        }
        let priority = match block.priority {
            Some(priority) => priority,
            None => self.free(block.rank)?,
        };
        let family = self.range.family;
        rules.extend(block.lookups.iter().map(|entry| entry.rule(family, priority)));
        for (source, _, action) in holds {
            if let (RuleAction::Goto(_), Some(source)) = (action, source) {
                let source = Some(source.net(family));
                rules.push(Rule { source, protocol: OURS, ..Rule::new(family, priority, action) });
            }
        }
        rules.extend(block.around.map(|entry| entry.rule(family, priority + 1)));
        let end = RuleAction::Goto(self.range.last);
        rules.push(Rule { protocol: OURS, ..Rule::new(family, priority + 2, end) });
        Some(priority)
    }

    /// Whether what is there has a `goto` of the same prefix to somewhere else.
    fn leads_elsewhere(&self, priority: u32, holds: &[Said]) -> bool {
        let there = self.said.get(&priority).into_iter().flatten();
        there.filter(|(_, _, action)| matches!(action, RuleAction::Goto(_))).any(|(key, _, to)| {
            holds.iter().any(|(other, _, action)| {
                other == key && matches!(action, RuleAction::Goto(_)) && action != to
            })
        })
    }

    /// The priorities for blocks of a rank. A block is behind all that lead to it: those of higher
    /// rank.
    fn room(&self, rank: u32) -> (u32, u32) {
        let start = self.range.first + ENTRIES;
        let blocks = u64::from(self.range.last.saturating_sub(start) / STEP);
        let up_to = |rank: u32| {
            let above: u32 = ROOM.iter().skip(rank as usize).sum();
            let all: u32 = ROOM.iter().sum();
            let at = blocks * u64::from(above) / u64::from(all);
            start + u32::try_from(at).unwrap_or(0) * STEP
        };
        (up_to(rank.saturating_add(1)), up_to(rank))
    }

    fn free(&mut self, rank: u32) -> Option<u32> {
        let (start, end) = self.room(rank);
        let mut at = self.next.get(&rank).copied().unwrap_or(start);
        while at < end {
            let next = at + STEP;
            if self.used.range(at..next).next().is_none() && self.taken.insert(at) {
                self.next.insert(rank, next);
                return Some(at);
            }
            at = next;
        }
        None
    }

    /// The rule that leads into the tree.
    fn entry(&self, target: u32) -> Option<Rule> {
        let first = self.range.first;
        let action = RuleAction::Goto(target);
        let rule = |at| Rule { protocol: OURS, ..Rule::new(self.range.family, at, action) };
        let said =
            |at: &u32| self.said.get(at).is_some_and(|said| said.contains(&(None, false, action)));
        let free = |at: &u32| !self.used.contains(at);
        let all = || first..first + ENTRIES;
        all().find(said).or_else(|| all().find(free)).map(rule)
    }
}

fn said_by(entry: &Entry) -> Said {
    (Some(entry.prefix), entry.widened, RuleAction::Table(entry.table))
}
