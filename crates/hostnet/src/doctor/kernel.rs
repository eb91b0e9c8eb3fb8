//! What the kernel can do, and what this process may.

use super::{Facts, Finding};

/// Since when rules can leave out routes by link group, which the first of ours does.
const SUPPRESS_GROUP: (u32, u32) = (3, 12);

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    vec![privilege(facts), rules(facts), addresses(facts), ipv6(facts), nf_tables(facts)]
}

fn privilege(facts: &Facts) -> Finding {
    const CHECK: &str = "privilege";
    if facts.privileged {
        return Finding::ok(CHECK, "CAP_NET_ADMIN is there");
    }
    let text = "without CAP_NET_ADMIN not everything can be looked at: marks, profiles of \
                NetworkManager";
    Finding::warning(CHECK, text, "run it as root")
}

fn rules(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel-rules";
    // That there are rules at all, the look has shown that was before this.
    match version(&facts.release) {
        Some(version) if version < SUPPRESS_GROUP => Finding::problem(
            CHECK,
            format!("Linux {} cannot leave out routes by link group in a rule", facts.release),
            "run Linux 3.12 or newer",
        ),
        _ => Finding::ok(CHECK, "rules can leave out routes by link group, and go to others"),
    }
}

fn addresses(facts: &Facts) -> Finding {
    let text = match facts.snapshot.keeps_address_protocol {
        true => format!("Linux {} keeps the owner of an address", facts.release),
        false => format!(
            "Linux {} does not keep the owner of an address (5.18 does): markers in table {} do",
            facts.release,
            facts.config.agent.table_base.saturating_sub(1)
        ),
    };
    Finding::ok("kernel-addresses", text)
}

fn ipv6(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel-ipv6";
    let has = |status: &crate::status::InterfaceStatus| {
        status.problems.iter().any(|problem| problem.code == "ipv6-disabled")
    };
    match facts.ipv6 {
        true => Finding::ok(CHECK, "IPv6 is there"),
        false if facts.status.iter().any(has) => Finding::problem(
            CHECK,
            "the kernel has no IPv6, and interfaces have IPv6 addresses",
            "take ipv6.disable=1 off the kernel's command line",
        ),
        false => Finding::not_applicable(CHECK, "the kernel has no IPv6"),
    }
}

fn nf_tables(facts: &Facts) -> Finding {
    const CHECK: &str = "kernel-nf-tables";
    match (facts.nf_tables, facts.snapshot.forwarding.destination_nat) {
        (None, _) => Finding::not_applicable(
            CHECK,
            "nothing is forwarded: connections are not marked, and nf_tables is not looked at",
        ),
        (Some(true), _) => Finding::ok(CHECK, "nf_tables is there"),
        (Some(false), true) => Finding::problem(
            CHECK,
            "destinations are translated, and the kernel has no nf_tables to mark connections with: \
             published ports answer by the primary alone",
            "run a kernel with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET and CONFIG_NFT_CT",
        ),
        (Some(false), false) => Finding::warning(
            CHECK,
            "the kernel has no nf_tables: published ports of containers would answer by the primary \
             alone",
            "run a kernel with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET and CONFIG_NFT_CT, or set \
             containers = \"off\"",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Outcome;

    #[test]
    fn a_kernel_that_has_all_is_fine_and_what_it_lacks_is_told() {
        let mut facts = Facts {
            release: "6.1.0-27-cloud-amd64".to_owned(),
            ipv6: true,
            privileged: true,
            ..Facts::default()
        };
        facts.snapshot.keeps_address_protocol = true;
        let outcomes = |facts: &Facts| -> Vec<Outcome> {
            check(facts).iter().map(|finding| finding.result).collect()
        };
        use Outcome::{NotApplicable, Ok, Problem, Warning};
        assert_eq!(outcomes(&facts), [Ok, Ok, Ok, Ok, NotApplicable]);
        facts.nf_tables = Some(true);
        assert_eq!(outcomes(&facts), [Ok; 5]);
        facts.nf_tables = Some(false);
        assert_eq!(outcomes(&facts), [Ok, Ok, Ok, Ok, Warning]);
        facts.snapshot.forwarding.destination_nat = true;
        assert_eq!(outcomes(&facts), [Ok, Ok, Ok, Ok, Problem]);
        let old = Facts { release: "3.10.0-1160".to_owned(), ..Facts::default() };
        assert_eq!(outcomes(&old), [Warning, Problem, Ok, NotApplicable, NotApplicable]);
    }
}
