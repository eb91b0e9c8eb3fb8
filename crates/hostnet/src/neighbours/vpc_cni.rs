//! The Amazon VPC CNI (amazon-vpc-cni-k8s): it takes every interface that is not tagged otherwise, for
//! the addresses of pods. pkg/networkutils/network.go: rules `to POD lookup main` at 512, `fwmark
//! 0x80/0x80 lookup main` at 1024, `from POD lookup TABLE` at 1536. pkg/ipamd/ipamd.go: its list of
//! addresses is /var/run/aws-node/ipam.json.

use jackfield_kernel::{Link, Mark, RuleAction};

use super::Hold;
use crate::snapshot::{MAIN, Snapshot};

const LIST: &str = "/run/aws-node/ipam.json";
const HOST_RULE: u32 = 1024;
const TO_POD: u32 = 512;
const FROM_POD: u32 = 1536;
const CONNECTION_MARK: u32 = 0x80;

pub(super) fn presence(snapshot: &Snapshot) -> Option<String> {
    if snapshot.neighbours.text(LIST).is_some() {
        return Some(LIST.to_owned());
    }
    let mark = Some(Mark { value: CONNECTION_MARK, mask: CONNECTION_MARK });
    let host = snapshot.rules.iter().any(|rule| {
        rule.priority == HOST_RULE && rule.mark == mark && rule.action == RuleAction::Table(MAIN)
    });
    // Where neither SNAT nor node ports are its business, it has no such rule.
    let to_pod = snapshot.rules.iter().any(|rule| {
        rule.priority == TO_POD
            && rule.destination.is_some_and(|net| net.prefix_len() == net.max_prefix_len())
            && rule.action == RuleAction::Table(MAIN)
    });
    let from_pod = snapshot.rules.iter().any(|rule| {
        rule.priority == FROM_POD
            && rule.source.is_some_and(|net| net.prefix_len() == net.max_prefix_len())
            && matches!(rule.action, RuleAction::Table(_))
    });
    if host {
        Some(format!("rule {HOST_RULE}: fwmark 0x80/0x80 lookup main"))
    } else if to_pod && from_pod {
        Some(format!("rules {TO_POD} and {FROM_POD} to and from addresses of pods"))
    } else {
        None
    }
}

pub(super) fn hold(snapshot: &Snapshot, _: &Link) -> Option<Hold> {
    presence(snapshot).map(Hold::Owns)
}
