//! What the kernel does with a list of rules: one after the other, whatever is in them.

use std::net::IpAddr;

use jackfield_hostnet::{MAIN, OURS};
use jackfield_kernel::{Family, Rule, RuleAction};

/// Where our rules lead a packet, and how many rules of its family were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) table: Option<u32>,
    pub(crate) visited: usize,
}

/// A packet that is made here, or one that is forwarded. `rules` in the kernel's order.
pub(crate) fn lookup(rules: &[Rule], source: IpAddr, made_here: bool) -> Found {
    let family = Family::of(source);
    let (mut at, mut visited) = (0, 0);
    while let Some(rule) = rules.get(at) {
        at += 1;
        if rule.family != family {
            continue;
        }
        visited += 1;
        let came_in = rule.input_interface.as_deref().is_none_or(|name| name == "lo" && made_here);
        let matches = rule.source.is_none_or(|net| net.contains(&source)) && came_in;
        if !matches || rule.protocol != OURS || rule.selects_further {
            continue;
        }
        match rule.action {
            RuleAction::Table(table) if table != MAIN => {
                return Found { table: Some(table), visited };
            }
            RuleAction::Goto(to) if to > rule.priority => {
                let target = |is: &Rule| is.family == family && is.priority == to;
                // One that does not lead anywhere is passed over.
                at = rules.iter().position(target).unwrap_or(at);
            }
            _ => {}
        }
    }
    Found { table: None, visited }
}
