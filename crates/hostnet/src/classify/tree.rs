//! Many rules as a tree of `goto` rules.
//!
//! The tree consists of blocks. Each has four priorities: what it holds is at the first and perhaps
//! the second, the prefix in which all of it lies at the third where that is a table's, and at the
//! fourth `goto` leads to the end, which is a `nop` at our last priority. A block holds lookups and
//! `goto`s to further blocks, of prefixes that do not overlap. In front of the tree is its entry, at
//! one of [`ENTRIES`] priorities, so that another one can be made before the old one goes.
//!
//! What is a block depends on nothing but the entries in it: a block holds what is left of a
//! binary trie of them where each part that has at most an eighth of them is a block of its own
//! ([`class`]). So a change of one entry changes the blocks around it and no others. Which
//! priorities a block has depends on those that it has already.
//!
//! Where much hangs on the way to a few large parts, as with ::1, ::2, ::4, ::8…, that would be a rule
//! for each bit of an address. Such a block is cut ([`Node::cut`]): what lies deeper is a block too,
//! and the `goto` to it is asked before all that hangs on the way. So each cut costs one rule.
//!
//! Every block answers for all of its prefix, whoever leads there. So while rules change, each of
//! them is right, old or new, in whatever order they are asked.
//!
//! The kernel keeps one `goto` of a prefix at a priority, wherever it leads; so a block from which
//! one would lead elsewhere moves too.

use std::collections::{BTreeMap, BTreeSet};

use jackfield_kernel::{Family, Rule, RuleAction};

use super::LOOPBACK;
use super::prefix::Prefix;
use super::separate::Entry;
use crate::snapshot::OURS;

/// How many priorities are for the entry rule.
pub(super) const ENTRIES: u32 = 2;
/// How many priorities a block has.
const STEP: u32 = 4;
/// Where in a block the rule is for what it lies in, and the one that leads to the end.
const AROUND: u32 = 2;
const END: u32 = 3;
/// How many entries a block without `goto`s holds at most, by bits.
const LEAF_BITS: u32 = 3;
/// A part with so few entries is not worth a block.
const SMALL: usize = 2;
/// A block with more rules is cut.
const MOST: usize = 12;
/// What part of all blocks, of a thousand, each rank has room for; the first is the leaves'.
const ROOM: [u32; 12] = [620, 200, 110, 50, 4, 4, 2, 2, 2, 2, 2, 2];

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
    let target = places.place(&mut root, false, &mut rules)?;
    let entry = places.entry(target)?;
    rules.push(entry);
    rules.push(Rule { protocol: OURS, ..Rule::new(range.family, range.last, RuleAction::Nop) });
    Some(rules)
}

/// A node of the trie of entries.
struct Node<'a> {
    /// The first bits that tell it from its sibling.
    edge: Prefix,
    /// How many bits all that is in it has in common.
    common: u8,
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
        let prefix = first.prefix.common(entries.last()?.prefix);
        let common = prefix.len();
        if prefix == first.prefix {
            return Some(match Node::new(within, edge) {
                None => Node { edge, common, kind: Kind::Leaf(first), weight: 1, nested: 0 },
                Some(within) => {
                    let nested = within.rank() + 1;
                    let kind = Kind::Nest(first, Box::new(within));
                    Node { edge, common, kind, weight: 1, nested }
                }
            });
        }
        let at = entries.partition_point(|entry| !entry.prefix.bit(common));
        let (zero, one) = entries.split_at(at);
        let side =
            |part: &'a [Entry]| Node::new(part, part.first()?.prefix.cut(common.saturating_add(1)));
        let sides = [side(zero)?, side(one)?];
        let [zero, one] = &sides;
        let (weight, nested) = (zero.weight + one.weight, zero.nested.max(one.nested));
        Some(Node { edge, common, kind: Kind::Fork(Box::new(sides)), weight, nested })
    }

    /// A node's rank is at least that of each node in it, and greater than that of each nest in it.
    fn rank(&self) -> u32 {
        class(self.weight) + self.nested
    }

    /// What becomes of it in a block of this rank that is cut at a bit.
    fn fate(&self, rank: u32, cut: u8) -> Fate {
        match self.kind {
            Kind::Leaf(_) | Kind::Nest(..) => Fate::Held,
            Kind::Fork(_) if self.rank() == rank && self.common >= cut => Fate::Ahead,
            Kind::Fork(_) if self.rank() == rank => Fate::Held,
            Kind::Fork(_) if self.weight > SMALL || self.nested > 0 => Fate::Child,
            Kind::Fork(_) => Fate::Held,
        }
    }

    /// How many rules it is in a block of this rank that is cut at a bit.
    fn count(&self, rank: u32, cut: u8) -> usize {
        let Kind::Fork(sides) = &self.kind else { return 1 };
        let count = |side: &Node<'_>| match side.fate(rank, cut) {
            Fate::Ahead | Fate::Child => 1,
            Fate::Held => side.count(rank, cut),
        };
        sides.iter().map(count).sum()
    }

    /// The bit at which a block of it is cut, so that it has no more than [`MOST`] rules. It is
    /// a multiple of as high a power of two as can be: so it stays where it is while neighbours
    /// come and go.
    fn cut(&self) -> u8 {
        let next = |power: u32| ((u32::from(self.common) >> power) + 1) << power;
        let mut cuts = (0..u8::BITS).rev().filter_map(|power| u8::try_from(next(power)).ok());
        let fits = |cut: &u8| self.count(self.rank(), *cut) <= MOST;
        cuts.clone().find(fits).or(cuts.next_back()).unwrap_or(u8::MAX)
    }
}

/// What becomes of a part of a block.
enum Fate {
    /// It is in the block.
    Held,
    /// A block of its own, of a lower rank.
    Child,
    /// A block of its own, of the same rank.
    Ahead,
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
    /// What was cut off, which is of the same rank. It is asked before all else: nothing that hangs on
    /// the way to it is in its way.
    ahead: Vec<Block>,
    /// Whose everything else is that is led here.
    around: Option<Entry>,
    priority: Option<u32>,
}

impl Block {
    fn new(node: &Node<'_>, key: Prefix, around: Option<Entry>) -> Self {
        let (lookups, children, ahead) = (Vec::new(), Vec::new(), Vec::new());
        let rank = node.rank();
        let mut block = Block { key, rank, lookups, children, ahead, around, priority: None };
        block.collect(node, node.cut());
        block
    }

    fn collect(&mut self, node: &Node<'_>, cut: u8) {
        match &node.kind {
            Kind::Leaf(entry) => self.lookups.push(**entry),
            Kind::Nest(entry, within) => {
                self.children.push(Block::new(within, entry.prefix, Some(**entry)));
            }
            Kind::Fork(sides) => {
                for side in sides.iter() {
                    let block = || Block::new(side, side.edge, self.around);
                    match side.fate(self.rank, cut) {
                        Fate::Held => self.collect(side, cut),
                        Fate::Child => self.children.push(block()),
                        Fate::Ahead => self.ahead.push(block()),
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
    /// What is left of the room of each rank.
    left: BTreeMap<u32, (u32, u32)>,
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
            left: BTreeMap::new(),
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
                let at = rule.priority.saturating_sub(range.first + ENTRIES);
                if at % STEP < AROUND {
                    places.by_said.entry(said).or_insert(rule.priority - at % STEP);
                }
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
        for part in block.ahead.iter_mut().chain(&mut block.children) {
            self.keep(part);
        }
    }

    fn take(&mut self, block: &mut Block, priority: u32) {
        let (start, end) = self.all();
        let aligned = (start..end).contains(&priority) && (priority - start).is_multiple_of(STEP);
        // What it is around may be asked before what is new; so it is always the same.
        let around = block.around.map(|entry| said_by(&entry));
        let around: BTreeSet<Said> = around.into_iter().collect();
        let there = self.said.get(&priority.saturating_add(AROUND));
        let same = there.map_or(around.is_empty(), |there| *there == around);
        if aligned && same && self.taken.insert(priority) {
            block.priority = Some(priority);
        }
    }

    /// Gives the block and all in it places, the leaves first, and makes the rules. `cut`: it was cut
    /// off one of its rank, which shall find a place before it.
    fn place(&mut self, block: &mut Block, cut: bool, rules: &mut Vec<Rule>) -> Option<u32> {
        let (mut ahead, mut behind) = (Vec::new(), self.all().1);
        for part in &mut block.ahead {
            let to = self.place(part, true, rules)?;
            ahead.push((Some(part.key), false, RuleAction::Goto(to)));
            behind = behind.min(to);
        }
        let mut holds: Vec<Said> = block.lookups.iter().map(said_by).collect();
        for child in &mut block.children {
            let to = self.place(child, false, rules)?;
            holds.push((Some(child.key), false, RuleAction::Goto(to)));
            behind = behind.min(to);
        }
        let layers = match ahead.is_empty() {
            true => vec![holds],
            false => vec![ahead, holds],
        };
        let fits = |places: &Self, at| at < behind && !places.leads_elsewhere(at, &layers);
        if block.priority.is_some_and(|at| !fits(self, at)) {
            block.priority = None;
        }
        if block.priority.is_none() {
            let mut said = layers.iter().flatten();
            let similar = said.find_map(|said| self.by_said.get(said).copied());
            if let Some(similar) = similar.filter(|at| fits(self, *at)) {
                self.take(block, similar);
            }
        }
        let from_its_end = cut || !block.ahead.is_empty();
        let priority = match block.priority {
            Some(priority) => priority,
            None => self.free(block.rank, behind, from_its_end)?,
        };
        let family = self.range.family;
        for (said, at) in layers.into_iter().zip(priority..) {
            rules.extend(said.into_iter().map(|said| rule_of(said, family, at)));
        }
        rules.extend(block.around.map(|entry| entry.rule(family, priority + AROUND)));
        let end = (None, false, RuleAction::Goto(self.range.last));
        rules.push(rule_of(end, family, priority + END));
        Some(priority)
    }

    /// Whether what is there has a `goto` of the same prefix to somewhere else.
    fn leads_elsewhere(&self, priority: u32, layers: &[Vec<Said>]) -> bool {
        let is_goto = |said: &&Said| matches!(said.2, RuleAction::Goto(_));
        layers.iter().zip(priority..).any(|(holds, at)| {
            let mut there = self.said.get(&at).into_iter().flatten().filter(is_goto);
            let held = holds.iter().filter(is_goto);
            there.any(|(key, _, to)| {
                held.clone().any(|(other, _, action)| other == key && action != to)
            })
        })
    }

    /// The priorities where blocks of a rank are, if there is room. A block is behind all that lead to
    /// it: those of higher rank, and perhaps one of its own.
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

    /// The priorities for blocks.
    fn all(&self) -> (u32, u32) {
        (self.room(u32::MAX).1, self.room(0).1)
    }

    /// A place in front of what is led to from there: in the rank's room, or where that is full,
    /// wherever there is one.
    fn free(&mut self, rank: u32, behind: u32, from_its_end: bool) -> Option<u32> {
        let room = self.room(rank);
        let (start, end) = self.left.get(&rank).copied().unwrap_or(room);
        let step = STEP as usize;
        let free = |at: &u32| self.is_free(*at);
        let mut places = (start..end.min(behind)).step_by(step);
        let in_room = if from_its_end { places.rev().find(free) } else { places.find(free) };
        let mut all = (self.all().0..behind).step_by(step).rev();
        let found = in_room.or_else(|| all.find(free))?;
        match in_room {
            Some(at) if !from_its_end => self.left.insert(rank, (at + STEP, end)),
            // One before others says nothing about what is behind them.
            Some(at) if end <= behind => self.left.insert(rank, (start, at)),
            _ => None,
        };
        self.taken.insert(found);
        Some(found)
    }

    fn is_free(&self, at: u32) -> bool {
        !self.taken.contains(&at) && self.used.range(at..at + STEP).next().is_none()
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

fn rule_of((source, widened, action): Said, family: Family, priority: u32) -> Rule {
    Rule {
        source: source.map(|source| source.net(family)),
        input_interface: widened.then(|| LOOPBACK.to_owned()),
        protocol: OURS,
        ..Rule::new(family, priority, action)
    }
}
