//! What the kernel does with a list of rules: one after the other, whatever is in them.

use std::net::IpAddr;

use jackfield_hostnet::{Change, Edit, MAIN, OURS};
use jackfield_kernel::{Family, Rule, RuleAction};

/// Where our rules lead a packet, and how many rules were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) table: Option<u32>,
    pub(crate) visited: usize,
}

/// The rules of one family.
pub(crate) struct Lookup<'a>(Vec<&'a Rule>);

impl<'a> Lookup<'a> {
    /// `rules` in the kernel's order.
    pub(crate) fn new(rules: &'a [Rule], family: Family) -> Self {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.family == family).collect();
        assert!(rules.is_sorted_by_key(|rule| rule.priority));
        Lookup(rules)
    }

    /// For a packet without a mark that is made here, or is forwarded.
    pub(crate) fn find(&self, source: IpAddr, made_here: bool) -> Found {
        let (mut at, mut visited) = (0, 0);
        while let Some(rule) = self.0.get(at) {
            at += 1;
            visited += 1;
            let came_in =
                rule.input_interface.as_deref().is_none_or(|name| name == "lo" && made_here);
            let unmarked = rule.mark.is_none_or(|mark| mark.value == 0);
            let source_is = rule.source.is_none_or(|net| net.contains(&source));
            let matches = source_is && came_in && unmarked;
            if !matches || rule.protocol != OURS || rule.selects_further {
                continue;
            }
            match rule.action {
                RuleAction::Table(table) if table != MAIN => {
                    return Found { table: Some(table), visited };
                }
                RuleAction::Goto(to) => {
                    assert!(to > rule.priority, "the kernel refuses {rule:?}");
                    let target = self.0.partition_point(|rule| rule.priority < to);
                    // One that does not lead anywhere is passed over.
                    if self.0.get(target).is_some_and(|rule| rule.priority == to) {
                        at = target;
                    }
                }
                _ => {}
            }
        }
        Found { table: None, visited }
    }
}

/// Whether the kernel takes one for the other: it does not look where a `goto` leads.
pub(crate) fn same(one: &Rule, other: &Rule) -> bool {
    let blind = |rule: &Rule| match rule.action {
        RuleAction::Goto(_) => Rule { action: RuleAction::Goto(0), ..rule.clone() },
        _ => rule.clone(),
    };
    one == other || blind(one) == blind(other)
}

/// Makes a change of a rule, as the kernel does; false where it is refused.
pub(crate) fn change(rules: &mut Vec<Rule>, change: &Change) -> bool {
    match &change.edit {
        Edit::AddRule(rule) => {
            if rules.iter().any(|is| same(is, rule)) {
                return false;
            }
            // Behind those of the same priority.
            let at = rules.partition_point(|is| is.priority <= rule.priority);
            rules.insert(at, rule.clone());
            true
        }
        Edit::RemoveRule(rule) => match rules.iter().position(|is| same(is, rule)) {
            Some(at) => {
                rules.remove(at);
                true
            }
            None => false,
        },
        _ => false,
    }
}
