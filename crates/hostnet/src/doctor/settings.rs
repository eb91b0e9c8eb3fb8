//! Settings of the kernel that get in the way.

use super::facts::{ACCEPT_RA, ARP_IGNORE, FORWARDING6, RP_FILTER};
use super::{Facts, Finding, some};
use crate::config::Containers;
use crate::containers;
use crate::snapshot::MAIN;
use jackfield_kernel::Family;

/// `rp_filter`: what arrives must come by the interface that leads back to its source.
const STRICT: i32 = 1;
/// `arp_ignore`: no address is answered for.
const DEAF: i32 = 8;
/// `accept_ra`: advertisements are listened to where nothing is forwarded.
const UNLESS_FORWARDING: i32 = 1;
/// `RTPROT_RA`.
const ROUTER_ADVERTISEMENT: u8 = 9;

pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![reverse_path(facts), arp(facts)];
    findings.extend(advertisements(facts));
    findings
}

/// Strict, what is to be forwarded to a container is dropped: before its destination is translated
/// back, nothing leads back by the interface.
fn reverse_path(facts: &Facts) -> Finding {
    const CHECK: &str = "reverse-path-filter";
    let strict: Vec<&str> = facts
        .plugged()
        .filter(|is| facts.larger(is.index, RP_FILTER) == Some(STRICT))
        .map(|is| is.name.as_str())
        .collect();
    let forwards = facts.config.defaults.containers != Containers::Off
        && containers::wanted(Containers::Auto, &facts.snapshot.forwarding);
    match (strict.is_empty(), forwards) {
        (true, _) => Finding::ok(CHECK, "no plugged interface checks the reverse path strictly"),
        (false, false) => Finding::ok(
            CHECK,
            format!("strict on {}, which does no harm where nothing is published", some(strict)),
        ),
        (false, true) => Finding::problem(
            CHECK,
            format!(
                "strict on {}: connections to published ports of containers are dropped there",
                some(&strict)
            ),
            strict
                .iter()
                .map(|name| format!("sysctl -w net.ipv4.conf.{name}.rp_filter=2"))
                .collect::<Vec<_>>()
                .join("; "),
        ),
    }
}

fn arp(facts: &Facts) -> Finding {
    const CHECK: &str = "arp";
    let here = facts.snapshot.candidates().map(|is| is.link);
    let deaf = here.filter(|link| facts.larger(link.index, ARP_IGNORE) == Some(DEAF));
    let deaf: Vec<&str> = deaf.map(|link| link.name.as_str()).collect();
    if deaf.is_empty() {
        return Finding::ok(CHECK, "addresses are answered for (arp_ignore)");
    }
    Finding::warning(
        CHECK,
        format!("{} answers for no address (arp_ignore = {DEAF})", some(deaf)),
        "set net.ipv4.conf.all.arp_ignore and the interface's own to 0, 1 or 2",
    )
}

/// A host that forwards IPv6 stops listening to the router, unless it is told to go on.
fn advertisements(facts: &Facts) -> Option<Finding> {
    const CHECK: &str = "accept-ra";
    let primary = facts.primary()?;
    let own = |setting| facts.settings.get(&(primary.index, setting)).copied();
    let accepts = own(ACCEPT_RA)?;
    let forwards = own(FORWARDING6).unwrap_or(0) != 0;
    let listened = facts.snapshot.routes.iter().any(|route| {
        route.table == MAIN
            && route.protocol == ROUTER_ADVERTISEMENT
            && route.destination == Family::V6.everything()
            && route.uses(primary.index)
    });
    let name = &primary.name;
    if accepts != UNLESS_FORWARDING || !forwards || !listened {
        return Some(Finding::ok(CHECK, format!("{name} keeps its IPv6 router")));
    }
    Some(Finding::warning(
        CHECK,
        format!(
            "this host forwards IPv6, and {name} has accept_ra = 1: it does not listen to the router \
             any more, and loses its default route when that ends"
        ),
        format!("sysctl -w net.ipv6.conf.{name}.accept_ra=2, and keep it in /etc/sysctl.d"),
    ))
}

#[cfg(test)]
mod tests {
    use jackfield_kernel::Route;

    use super::*;
    use crate::desired::{DesiredInterface, Role};
    use crate::doctor::Outcome::{Ok, Problem, Warning};
    use crate::neighbours::tests::link;

    fn facts(role: Role) -> Facts {
        let mac = [2, 0, 0, 0, 0, 1].into();
        let interface = DesiredInterface::with_role(3, "eth1", mac, role);
        let mut facts = Facts { interfaces: vec![interface], ..Facts::default() };
        facts.snapshot.device_kinds = vec!["physical".to_owned()];
        facts.snapshot.links = vec![link(3, "eth1")];
        facts
    }

    #[test]
    fn a_strict_reverse_path_filter_is_a_problem_where_ports_are_published() {
        let mut facts = facts(Role::Plugged);
        facts.settings.insert((3, RP_FILTER), 0);
        facts.of_all.insert(RP_FILTER, 1);
        assert_eq!(reverse_path(&facts).result, Ok);
        facts.snapshot.forwarding.on = true;
        facts.snapshot.forwarding.destination_nat = true;
        let found = reverse_path(&facts);
        assert_eq!(found.result, Problem);
        assert_eq!(found.fix, "sysctl -w net.ipv4.conf.eth1.rp_filter=2");
        facts.settings.insert((3, RP_FILTER), 2);
        assert_eq!(reverse_path(&facts).result, Ok);
    }

    #[test]
    fn an_interface_that_answers_for_no_address_is_told_of() {
        let mut facts = facts(Role::Plugged);
        facts.settings.insert((3, ARP_IGNORE), 1);
        assert_eq!(arp(&facts).result, Ok);
        facts.of_all.insert(ARP_IGNORE, 8);
        assert_eq!(arp(&facts).result, Warning);
    }

    #[test]
    fn a_primary_that_forwards_and_does_not_listen_to_its_router_any_more_is_told_of() {
        let mut facts = facts(Role::Primary);
        assert_eq!(advertisements(&facts), None);
        facts.settings.insert((3, ACCEPT_RA), 1);
        facts.settings.insert((3, FORWARDING6), 1);
        assert_eq!(advertisements(&facts).unwrap().result, Ok);
        let default = Route::via_interface(Family::V6.everything(), MAIN, 3);
        facts.snapshot.routes = vec![Route { protocol: ROUTER_ADVERTISEMENT, ..default }];
        assert_eq!(advertisements(&facts).unwrap().result, Warning);
        facts.settings.insert((3, ACCEPT_RA), 2);
        assert_eq!(advertisements(&facts).unwrap().result, Ok);
    }
}
