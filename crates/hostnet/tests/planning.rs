//! What holds of every plan, on random machines in random clouds: tried on a model of the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jackfield_hostnet::{Change, Desired, Device, Edit, MAIN, Memory, OURS, Plan, Role, Scope};
use jackfield_kernel::{Family, Route, RouteKind, Rule, RuleAction};
use jackfield_metadata::Listing;
use proptest::prelude::*;
use world::case::{BRIDGE, Case, PRIMARY, Round, Scene, Without, disturb, learn, removes};
use world::dice::{Dice, tapes};
use world::kernel::{KERNEL, Kernel, difference};
use world::lookup::Lookup;

/// Cases of each property, unless `JACKFIELD_CASES` says otherwise.
const CASES: u32 = 500;

fn configured() -> ProptestConfig {
    let said = std::env::var("JACKFIELD_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: said.unwrap_or(CASES),
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn drawn(tape: &[u32], without: Without) -> (Case, Dice) {
    let mut dice = Dice::new(tape.to_vec());
    (Case::draw(&mut dice, without), dice)
}

fn show(plans: &[Plan]) -> String {
    let lines = plans.iter().enumerate().flat_map(|(round, plan)| {
        plan.changes.iter().map(move |change| format!("  {round}: {change}\n"))
    });
    lines.collect()
}

proptest! {
    #![proptest_config(configured())]

    /// One round does it. A second is needed where the first brought up a device on which somebody
    /// has an address: the kernel then adds routes to main, which are mirrored. And where an
    /// interface waits for a table that another one leaves in the first round.
    #[test]
    fn a_machine_that_was_changed_as_planned_has_nothing_left_to_do(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let mut scene = case.scene();
        let before = scene.clone();
        let (_, desired, _) = scene.think(&Scope::Everything);
        let plans = scene.settle();
        prop_assert!(plans.len() <= 4, "never ends:\n{}", show(&plans));
        let second = second_round_is_justified(&before, &desired, plans.get(1));
        prop_assert!(plans.len() <= 1 || second, "{}", show(&plans));
    }

    /// Every change is about something of ours, and what is not ours is as it was.
    #[test]
    fn what_is_not_ours_is_not_touched(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let mut scene = case.scene();
        let before = scene.kernel.clone();
        let (_, _, plan) = scene.think(&Scope::Everything);
        for change in &plan.changes {
            prop_assert!(is_ours_to_make(change, &scene), "{change}");
        }
        scene.kernel.make(&plan);
        let was = foreign(&before, &plan, &scene.kernel);
        let is = foreign(&scene.kernel, &plan, &scene.kernel);
        let difference = difference(&was, &is);
        prop_assert!(difference.is_empty(), "\n{difference}after\n{}", show(&[plan]));
    }

    #[test]
    fn the_primary_gets_a_link_group_and_addresses_of_its_own_and_nothing_else(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let mut scene = case.scene();
        if scene.cloud.primary.is_none() {
            return Ok(());
        }
        let before = scene.kernel.clone();
        let plans = scene.settle();
        let (was, is) = (before.link(PRIMARY).unwrap(), scene.kernel.link(PRIMARY).unwrap());
        let mut but_for_the_group = is.clone();
        but_for_the_group.group = was.group;
        prop_assert_eq!(was, &but_for_the_group);
        let groups = [was.group, 0, scene.config.agent.link_group];
        prop_assert!(groups.contains(&is.group));
        let settings = |kernel: &Kernel| -> Vec<i32> {
            kernel.settings.iter().filter(|((of, _), _)| *of == PRIMARY).map(|(_, v)| *v).collect()
        };
        prop_assert_eq!(settings(&before), settings(&scene.kernel));
        for change in plans.iter().flat_map(|plan| &plan.changes) {
            let about = change.interface.as_ref().map(|about| about.index);
            if about != Some(PRIMARY) {
                continue;
            }
            let fine = match &change.edit {
                Edit::Group { .. } | Edit::RemoveAddress(_) => true,
                Edit::AddAddress(added) => {
                    added.address.prefix_len() == added.address.max_prefix_len()
                        && added.flags.no_prefix_route
                        && added.protocol == OURS
                }
                Edit::AddRoute(route) => {
                    use RouteKind::{Blackhole, Local, Unreachable};
                    // A marker, or what becomes of packets to a delegated prefix.
                    let kinds = [Blackhole, Local, Unreachable];
                    kinds.contains(&route.kind) && !route.uses(PRIMARY) && route.protocol == OURS
                }
                Edit::RemoveRoute(route) => !route.uses(PRIMARY) && route.protocol == OURS,
                // Of a table that it does not have.
                _ => false,
            };
            prop_assert!(fine, "{change}");
        }
        let through = |kernel: &Kernel| -> BTreeSet<Route> {
            kernel.routes.iter().filter(|route| route.uses(PRIMARY)).cloned().collect()
        };
        prop_assert_eq!(through(&before), through(&scene.kernel));
    }

    /// Killed after any change, no address is there without the rule and the routes that make its
    /// packets leave by its own interface or not at all.
    #[test]
    fn no_address_is_usable_by_a_wrong_path_for_an_instant(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let scene = case.scene();
        let (_, _, plan) = scene.think(&Scope::Everything);
        let mut kernel = scene.kernel.clone();
        let mut astray = astray(&kernel);
        for (at, change) in plan.changes.iter().enumerate() {
            let _ = kernel.change(change);
            let now = self::astray(&kernel);
            let new: Vec<_> = now.difference(&astray).collect();
            let made = Plan { changes: plan.changes[..=at].to_vec() };
            prop_assert!(new.is_empty(), "{new:?} after\n{}", show(&[made]));
            astray = now;
        }
    }

    /// Who works by a table of somebody else's goes on by that until ours has everything: what ends
    /// the search comes last, but where the table is about to lose what it has with an address.
    #[test]
    fn what_ends_a_table_comes_after_its_routes(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let (_, _, plan) = case.scene().think(&Scope::Everything);
        let removes_addresses =
            plan.changes.iter().any(|change| matches!(change.edit, Edit::RemoveAddress(_)));
        let mut ended = BTreeSet::new();
        for change in &plan.changes {
            let Edit::AddRoute(route) = &change.edit else { continue };
            let of = (route.table, route.family());
            if route.kind == RouteKind::Unreachable && route.destination.prefix_len() == 0 {
                ended.insert(of);
            } else {
                let late = ended.contains(&of) && !removes_addresses;
                prop_assert!(!late, "{change} is late in\n{}", show(std::slice::from_ref(&plan)));
            }
        }
    }

    /// The kernel takes an interface's routes along with its last IPv4 address: a prefix that goes is gone
    /// by then.
    #[test]
    fn a_prefix_goes_before_addresses_do(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let (_, _, plan) = case.scene().think(&Scope::Everything);
        let mut edits = plan.changes.iter().map(|change| &change.edit);
        let is_prefix =
            |edit: &Edit| matches!(edit, Edit::RemoveRoute(is) if is.kind == RouteKind::Local);
        let addresses_first = edits.any(|edit| matches!(edit, Edit::RemoveAddress(_)));
        let late = addresses_first && edits.any(is_prefix);
        prop_assert!(!late, "{}", show(std::slice::from_ref(&plan)));
    }

    /// Killed after any change, or refused any change, the next run ends where this one would have.
    #[test]
    fn an_interrupted_plan_ends_where_an_uninterrupted_one_does(tape in tapes()) {
        let (case, mut dice) = drawn(&tape, Without::default());
        let scene = case.scene();
        let mut uninterrupted = scene.clone();
        uninterrupted.settle();
        let whole = uninterrupted.kernel.lines();
        let (_, _, plan) = scene.think(&Scope::Everything);
        let length = plan.changes.len();
        let step = (length / 8).max(1);
        let offset = dice.below(8) as usize % step;
        for kill in (offset..length).step_by(step) {
            let mut next = scene.clone();
            let made = Plan { changes: plan.changes[..kill].to_vec() };
            next.kernel.make(&made);
            let rest = next.settle();
            let difference = difference(&whole, &next.kernel.lines());
            prop_assert!(
                difference.is_empty(),
                "\n{difference}killed after\n{}then\n{}", show(&[made]), show(&rest)
            );
        }
        let mut next = scene.clone();
        let mut refused = plan.clone();
        // What tells about the rest, journals and markers, is refused together with the rest, and
        // where a journal is cleared all that it tells was put back.
        let cleared: Vec<_> = plan.changes.iter().filter(|is| clears(is)).collect();
        refused.changes.retain(|is| {
            let tells = match &is.edit {
                Edit::Alias { .. } => true,
                Edit::AddRoute(route) | Edit::RemoveRoute(route) => {
                    route.kind == RouteKind::Blackhole
                }
                Edit::RemoveAddress(_) => !scene.kernel.keeps_address_protocol,
                _ => {
                    ["link", "sysctl", "altname"].contains(&is.object())
                        && cleared.iter().any(|other| other.interface == is.interface)
                }
            };
            tells || !dice.chance(20)
        });
        // No rule goes where one was refused that may be in its place.
        let lost: BTreeSet<Option<Family>> = plan
            .changes
            .iter()
            .filter(|is| matches!(is.edit, Edit::AddRule(_)) && !refused.changes.contains(is))
            .map(Change::family)
            .collect();
        refused.changes.retain(|is| {
            !matches!(is.edit, Edit::RemoveRule(_)) || !lost.contains(&is.family())
        });
        next.kernel.make(&refused);
        let rest = next.settle();
        // An interface of which little is known keeps what it has, which may be several rules where
        // one could not be changed: where they lead is what counts.
        let difference = difference(&outcome(&uninterrupted.kernel), &outcome(&next.kernel));
        prop_assert!(
            difference.is_empty(),
            "\n{difference}made\n{}then\n{}", show(&[refused]), show(&rest)
        );
    }

    /// What was read once and is not read now changes nothing: not for the process that read it,
    /// and nothing is taken away by one that starts anew.
    #[test]
    fn what_is_unknown_takes_nothing_away(tape in tapes()) {
        let (case, mut dice) = drawn(&tape, Without { history: true, noise: true, ..<_>::default() });
        let mut memory = Memory::new();
        let now = std::time::Instant::now();
        let mut scene = case.scene();
        scene.cloud = learn(&mut memory, &scene.kernel, &case.now, now);
        scene.settle();
        let settled = scene.kernel.clone();
        let unknown = forget_some(&case.now, &mut dice);

        scene.cloud = learn(&mut memory, &settled, &unknown, now);
        let (_, _, plan) = scene.think(&Scope::Everything);
        prop_assert!(plan.is_empty(), "remembered:\n{}", show(&[plan]));

        scene.cloud = learn(&mut Memory::new(), &settled, &unknown, now);
        let (_, _, plan) = scene.think(&Scope::Everything);
        let removed = plan.changes.iter().any(removes);
        prop_assert!(!removed, "{:?}\nanew:\n{}", unknown, show(&[plan]));
    }

    /// …also where the process before was killed in the middle of something else.
    #[test]
    fn a_start_without_metadata_leaves_no_address_without_its_path(tape in tapes()) {
        let (mut case, _) = drawn(&tape, Without::default());
        case.remembers = false;
        case.now.facts.clear();
        case.now.primary = None;
        case.meddling.clear();
        let mut scene = case.scene();
        let before = astray(&scene.kernel);
        let mut plans = scene.settle();
        plans.truncate(2);
        let after = astray(&scene.kernel);
        let new: Vec<_> = after.difference(&before).collect();
        prop_assert!(new.is_empty(), "{new:?} after\n{}", show(&plans));
    }

    #[test]
    fn two_interfaces_never_share_a_table(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let mut scene = case.scene();
        for _ in 0..3 {
            let (_, desired, plan) = scene.think(&Scope::Everything);
            prop_assert!(!shares_a_table(&desired), "{:#?}", desired.interfaces);
            scene.kernel.make(&plan);
            let journals = scene.view();
            let tables: Vec<u32> = journals.journals().map(|(_, journal)| journal.table).collect();
            let distinct: BTreeSet<u32> = tables.iter().copied().collect();
            prop_assert_eq!(tables.len(), distinct.len(), "{:?}", tables);
        }
    }

    /// A newcomer does not go into a table, or a link group, that somebody else uses.
    #[test]
    fn a_table_with_routes_of_others_is_not_moved_into(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let scene = case.scene();
        let (snapshot, desired, _) = scene.think(&Scope::Everything);
        for interface in &desired.interfaces {
            let Device::Plugged(device) = &interface.device else { continue };
            let table = device.journal.table;
            let had = snapshot.journals().any(|(link, journal)| {
                link.index == interface.index && journal.table == table
            });
            let foreign = scene.kernel.routes.iter().find(|route| {
                route.table == table && route.protocol != OURS
            });
            prop_assert!(had || foreign.is_none(), "{interface:?} {foreign:?}");
        }
    }

    #[test]
    fn an_address_is_given_to_one_interface_only(tape in tapes()) {
        let (case, _) = drawn(&tape, Without::default());
        let mut scene = case.scene();
        let doubled = |kernel: &Kernel| -> BTreeSet<IpAddr> {
            let mut seen = BTreeSet::new();
            let ours = kernel.addresses.iter().filter(|is| is.protocol == OURS);
            ours.map(|is| is.address.addr()).filter(|ip| !seen.insert(*ip)).collect()
        };
        let before = doubled(&scene.kernel);
        let (_, _, plan) = scene.think(&Scope::Everything);
        for (at, change) in plan.changes.iter().enumerate() {
            let _ = scene.kernel.change(change);
            let new: Vec<IpAddr> = doubled(&scene.kernel).difference(&before).copied().collect();
            let made = Plan { changes: plan.changes[..=at].to_vec() };
            prop_assert!(new.is_empty(), "{new:?} after\n{}", show(&[made]));
        }
    }

    /// Device number 0 of a secondary is lag, and a network card that is not there may be.
    #[test]
    fn a_place_that_may_be_lag_is_not_believed(tape in tapes()) {
        let (case, _) = drawn(&tape, Without { history: true, ..<_>::default() });
        let scene = case.scene();
        let (_, desired, _) = scene.think(&Scope::Everything);
        for (mac, listing) in &case.now.facts {
            let Listing::Listed(facts) = listing else { continue };
            let zero = facts.device_number.value() == Some(&0) && Some(*mac) != case.now.primary;
            let interface = desired.interfaces.iter().find(|interface| interface.mac == *mac);
            if let (true, Some(interface)) = (zero || facts.network_card.is_unknown(), interface) {
                prop_assert_eq!(interface.table, None);
                prop_assert!(interface.role != Role::Plugged);
            }
        }
    }

    /// Every secondary plugged and unplugged again: the machine is what it was, but for the
    /// addresses of the primary, which is not unplugged.
    #[test]
    fn after_an_unplug_the_machine_is_what_it_was_before_the_plug(tape in tapes()) {
        let (case, _) = drawn(&tape, Without { history: true, ..<_>::default() });
        let mut scene = case.scene();
        let before = case.machine.clone();
        let plugged = scene.settle();
        let indices = scene.kernel.links.iter().map(|link| link.index);
        let unplugged = scene.settle_in(&Scope::Unplug(indices.filter(|index| *index != PRIMARY).collect()));
        prop_assert!(unplugged.len() <= 1, "{}", show(&unplugged));
        let mut after = scene.kernel.clone();
        after.addresses.retain(|is| is.interface != PRIMARY || is.protocol != OURS);
        after.routes.retain(|is| is.kind != RouteKind::Blackhole || is.metric != PRIMARY);
        after.routes.retain(|is| delegated(is).is_none_or(|(of, _)| of != PRIMARY));
        let difference = difference(&before.lines(), &after.lines());
        prop_assert!(
            difference.is_empty(),
            "\n{difference}plugged\n{}unplugged\n{}", show(&plugged), show(&unplugged)
        );
    }

    /// An interface that somebody made the port of a bridge is given back, by whoever runs next and
    /// by an unplug.
    #[test]
    fn what_became_a_port_of_a_bridge_is_as_it_was(tape in tapes()) {
        let (case, mut dice) = drawn(&tape, Without { history: true, ..<_>::default() });
        let mut scene = case.scene();
        let one = PRIMARY + 1 + dice.below(4);
        let before = scene.kernel.clone();
        scene.settle();
        if !scene.view().journals().any(|(link, _)| link.index == one) {
            return Ok(());
        }
        scene.kernel.link_mut(one).unwrap().controller = Some(BRIDGE);
        for scope in [Scope::Everything, Scope::Unplug([one].into())] {
            let mut scene = scene.clone();
            let plans = scene.settle_in(&scope);
            scene.kernel.link_mut(one).unwrap().controller = None;
            let about = |kernel: &Kernel| {
                let mut about = kernel.clone();
                about.links.retain(|link| link.index == one);
                about.addresses.retain(|is| is.interface == one);
                about.routes.retain(|route| route.uses(one));
                about.settings.retain(|(of, _), _| *of == one);
                about.rules.clear();
                about.retain_marks(|interface| interface == one);
                about.lines()
            };
            let difference = difference(&about(&before), &about(&scene.kernel));
            prop_assert!(difference.is_empty(), "{scope:?}\n{difference}after\n{}", show(&plans));
        }
    }

    /// One of several unplugged: as if it had never been plugged.
    #[test]
    fn unplugging_one_leaves_the_others_as_they_are(tape in tapes()) {
        let (case, mut dice) = drawn(&tape, Without { history: true, ..<_>::default() });
        let mut scene = case.scene();
        scene.settle();
        let settled = scene.clone();
        let one = PRIMARY + 1 + dice.below(4);
        let plans = scene.settle_in(&Scope::Unplug([one].into()));
        let left = |kernel: &Kernel| {
            let mut left = kernel.clone();
            let table = settled.view().journals().find(|(l, _)| l.index == one).map(|(_, j)| j.table);
            left.routes.retain(|route| !route.uses(one) && Some(route.table) != table);
            left.routes.retain(|is| is.kind != RouteKind::Blackhole || is.metric != one);
            left.routes.retain(|is| delegated(is).is_none_or(|(of, _)| of != one));
            left.addresses.retain(|is| is.interface != one);
            left.rules.retain(|rule| table.is_none_or(|t| rule.action != RuleAction::Table(t)));
            left.settings.retain(|(of, _), _| *of != one);
            left.links.retain(|link| link.index != one);
            left.retain_marks(|interface| interface != one);
            // Past the rules for marks lead rules where there are many.
            left.rules.retain(|rule| {
                rule.protocol != OURS || matches!(rule.action, RuleAction::Table(_))
            });
            left
        };
        let (mut was, mut is) = (left(&settled.kernel), left(&scene.kernel));
        if scene.view().journals().next().is_none() {
            // It was the last: the steps that all share go too.
            for kernel in [&mut was, &mut is] {
                kernel.rules.retain(|rule| rule.suppress_group.is_none());
                kernel.link_mut(PRIMARY).unwrap().group = 0;
            }
        }
        // The step of a family in which no other has an address.
        let families: BTreeSet<Family> = is
            .rules
            .iter()
            .filter(|rule| rule.protocol == OURS && rule.suppress_group.is_none())
            .map(|rule| rule.family)
            .collect();
        was.rules.retain(|rule| rule.suppress_group.is_none() || families.contains(&rule.family));
        let difference = difference(&was.lines(), &is.lines());
        prop_assert!(difference.is_empty(), "\n{difference}after\n{}", show(&plans));
    }
}

/// The changes of the second round follow from what the first one made the kernel do.
fn second_round_is_justified(before: &Scene, desired: &Desired, second: Option<&Plan>) -> bool {
    let waits = desired.interfaces.iter().any(|interface| {
        interface.problems.iter().any(|problem| {
            ["table-conflict", "group-in-use", "primary-in-group"].contains(&&*problem.code)
        })
    });
    let mirrored = second.into_iter().flat_map(|plan| &plan.changes).all(|change| {
        let (Edit::AddRoute(route) | Edit::RemoveRoute(route)) = &change.edit else { return false };
        // A prefix of an address of somebody else, on a device that went up or down.
        before
            .kernel
            .addresses
            .iter()
            .any(|is| is.protocol != OURS && is.address.trunc() == route.destination)
    });
    waits || mirrored
}

fn is_ours_to_make(change: &Change, scene: &Scene) -> bool {
    let kernel = &scene.kernel;
    match &change.edit {
        Edit::RemoveAddress(address) => kernel.addresses.iter().any(|is| {
            is.interface == address.interface
                && is.address == address.address
                && is.protocol == OURS
        }),
        Edit::RemoveRoute(route) => route.protocol == OURS,
        Edit::RemoveRule(rule) => rule.protocol == OURS,
        Edit::AddAddress(address) => address.protocol == OURS,
        Edit::AddRoute(route) => route.protocol == OURS,
        Edit::AddRule(rule) => rule.protocol == OURS,
        Edit::Marks { .. } => change.interface.is_none(),
        // No manager is configured here.
        Edit::Carry(_) => false,
        Edit::Up { .. }
        | Edit::Mtu { .. }
        | Edit::Group { .. }
        | Edit::Alias { .. }
        | Edit::Setting { .. }
        | Edit::AddName(_)
        | Edit::RemoveName(_) => {
            let Some(about) = &change.interface else { return false };
            let journal = scene.view().journals().any(|(link, _)| link.index == about.index);
            let cloud = about.mac.is_some_and(|mac| scene.cloud.interfaces.contains_key(&mac));
            let primary = about.mac.is_some() && about.mac == scene.cloud.primary;
            match change.edit {
                Edit::Group { .. } => journal || cloud || primary,
                _ => (journal || cloud) && !primary,
            }
        }
    }
}

/// Everything, with where our rules lead in the place of the rules by source, but for rules that are
/// for no address that is there.
fn outcome(kernel: &Kernel) -> Vec<String> {
    let by_source = |rule: &Rule| rule.protocol == OURS && rule.source.is_some();
    let local: BTreeSet<IpAddr> = kernel.addresses.iter().map(|is| is.address.addr()).collect();
    let mut rest = kernel.clone();
    rest.rules.retain(|rule| {
        let idle = |net: &IpNet| !local.iter().any(|ip| net.contains(ip));
        !by_source(rule) || rule.source.as_ref().is_some_and(idle)
    });
    let mut lines = rest.lines();
    let mut ask = |ip: IpAddr, made_here| {
        let table = Lookup::new(&kernel.rules, Family::of(ip)).find(ip, made_here).table;
        lines.push(format!("{ip} {made_here} {table:?}"));
    };
    for ip in local {
        ask(ip, true);
    }
    for (_, prefix) in kernel.routes.iter().filter_map(delegated) {
        for ip in [prefix.network(), prefix.broadcast()] {
            ask(ip, true);
            ask(ip, false);
        }
    }
    lines
}

/// What is not ours. What the kernel adds and takes away where a device goes up or down, or where
/// an interface is left without IPv4, is left out.
fn foreign(kernel: &Kernel, plan: &Plan, end: &Kernel) -> Vec<String> {
    let went_down: BTreeSet<u32> = plan
        .changes
        .iter()
        .filter(|change| matches!(change.edit, Edit::Up { to: false, .. }))
        .filter_map(|change| Some(change.interface.as_ref()?.index))
        .collect();
    let without_ipv4 = |index: u32| {
        !end.addresses.iter().any(|is| is.interface == index && is.address.addr().is_ipv4())
    };
    let touched: BTreeSet<u32> =
        plan.changes.iter().filter_map(|change| Some(change.interface.as_ref()?.index)).collect();
    let mut foreign = kernel.clone();
    foreign.links.retain(|link| !touched.contains(&link.index));
    foreign.settings.retain(|(of, _), _| !touched.contains(of));
    foreign.addresses.retain(|is| {
        is.protocol != OURS && (is.address.addr().is_ipv4() || !went_down.contains(&is.interface))
    });
    foreign.routes.retain(|route| {
        route.protocol != OURS
            && route.protocol != KERNEL
            && !route.next_hops.iter().any(|hop| {
                went_down.contains(&hop.interface)
                    || (route.family() == Family::V4 && without_ipv4(hop.interface))
            })
    });
    foreign.rules.retain(|rule| rule.protocol != OURS);
    foreign.forwarding.marks = None;
    foreign.lines()
}

/// The interface and the delegated prefix whose route it is.
fn delegated(route: &Route) -> Option<(u32, IpNet)> {
    let place = matches!(
        (route.table, route.kind),
        (MAIN, RouteKind::Unreachable) | (255, RouteKind::Local)
    );
    (place && route.protocol == OURS).then_some((route.metric & 0x7fff_ffff, route.destination))
}

/// Our addresses and prefixes on secondaries whose packets would not leave by their own interface:
/// our rules are asked, and a table without any default route passes on to main.
fn astray(kernel: &Kernel) -> BTreeSet<(u32, IpNet)> {
    let goes_astray = |interface: u32, net: IpNet| {
        let family = Family::of(net.addr());
        // Where a table has no route at all, the kernel asks the next rule.
        let asked = |rule: &&Rule| match rule.action {
            RuleAction::Table(table) => kernel
                .routes
                .iter()
                .any(|route| route.table == table && route.destination == rule.family.everything()),
            _ => true,
        };
        let asked: Vec<Rule> = kernel.rules.iter().filter(asked).cloned().collect();
        let rules = Lookup::new(&asked, family);
        let Some(table) = rules.find(net.addr(), true).table else { return true };
        let mut routes = kernel
            .routes
            .iter()
            .filter(|route| route.table == table && route.family() == family)
            .filter(|route| route.protocol == OURS);
        let ends = routes.clone().any(|route| route.destination == family.everything());
        let elsewhere =
            routes.any(|route| route.kind == RouteKind::Unicast && !route.uses(interface));
        !ends || elsewhere || table == MAIN
    };
    kernel
        .addresses
        .iter()
        .filter(|is| is.protocol == OURS)
        .map(|is| (is.interface, is.address.addr().into()))
        .chain(kernel.routes.iter().filter(|is| is.kind == RouteKind::Local).filter_map(delegated))
        .filter(|(interface, _)| *interface != PRIMARY)
        .filter(|(interface, net)| goes_astray(*interface, *net))
        .collect()
}

fn shares_a_table(desired: &Desired) -> bool {
    let mut seen = BTreeSet::new();
    desired.interfaces.iter().filter_map(|interface| interface.table).any(|t| !seen.insert(t))
}

/// Whether a journal is cleared.
fn clears(change: &Change) -> bool {
    matches!(change.edit, Edit::Alias { .. }) && removes(change)
}

/// The same round with some values unread, some interfaces not listed or not answered about, and
/// perhaps the primary's MAC not read.
fn forget_some(round: &Round, dice: &mut Dice) -> Round {
    let mut round = round.clone();
    if dice.chance(20) {
        round.primary = None;
    }
    round.facts.retain_mut(|(_, listing)| {
        if dice.chance(10) {
            *listing = Listing::NotListed;
        }
        if let Listing::Listed(facts) = listing {
            disturb(dice, facts, false);
        }
        !dice.chance(10)
    });
    round
}
