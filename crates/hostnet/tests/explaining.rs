//! What is made of the kernel's answers and lists when a packet is explained, without a kernel.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use jackfield_hostnet::explain::{
    Direction, ExplainError, Explanation, Facts, Oracle, Protocol, Question, Settings, StepResult,
    Stops, explain,
};
use jackfield_hostnet::{MAIN, OURS};
use jackfield_kernel::{
    Address, AddressFlags, Error, Family, Link, Mark, NeighbourEntry, NextHop, Route, RouteAnswer,
    RouteKind, RouteQuery, RouteRefusal, Rule, RuleAction, RuleSelection, SelectingRule,
};

const LOCAL: u32 = 255;
const ETH0: u32 = 2;
const ETH1: u32 = 3;
const DOCKER0: u32 = 4;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn link(index: u32, name: &str, table: Option<u32>) -> Link {
    Link {
        index,
        name: name.to_owned(),
        alternative_names: Vec::new(),
        kind: None,
        ethernet: true,
        address: Some([2, 0, 0, 0, 0, index as u8]),
        up: true,
        carrier: true,
        mtu: 9001,
        min_mtu: 68,
        max_mtu: 9001,
        group: if name.starts_with("eth") { 106 } else { 0 },
        alias: table.map(|table| format!("jackfield: table={table} mtu=1500 group=0 up=0")),
        controller: None,
        lower: None,
        lower_elsewhere: false,
        parent_device: None,
    }
}

fn selecting(rule: Rule) -> SelectingRule {
    SelectingRule { rule, selection: RuleSelection::default() }
}

fn lookup(priority: u32, table: u32) -> Rule {
    Rule { protocol: 2, ..Rule::new(Family::V4, priority, RuleAction::Table(table)) }
}

fn ours(priority: u32, table: u32) -> Rule {
    Rule { protocol: OURS, ..lookup(priority, table) }
}

fn via(to: &str, table: u32, interface: u32, gateway: &str) -> Route {
    Route { metric: 10, ..Route::via_gateway(to.parse().unwrap(), table, interface, ip(gateway)) }
}

fn connected(to: &str, table: u32, interface: u32) -> Route {
    Route::via_interface(to.parse().unwrap(), table, interface)
}

/// An instance with a primary `eth0`, a plugged `eth1` and a bridge for containers.
fn instance() -> Facts {
    let on = |interface, address: &str| Address {
        interface,
        address: address.parse().unwrap(),
        protocol: 0,
        flags: AddressFlags::default(),
    };
    let local = |address: &str, interface| Route {
        kind: RouteKind::Local,
        ..connected(&format!("{address}/32"), LOCAL, interface)
    };
    let mut facts = Facts {
        links: vec![
            link(1, "lo", None),
            link(ETH0, "eth0", None),
            link(ETH1, "eth1", Some(10_001)),
            link(DOCKER0, "docker0", None),
        ],
        addresses: vec![
            on(ETH0, "10.0.1.10/24"),
            on(ETH1, "10.0.2.10/32"),
            on(DOCKER0, "172.17.0.1/16"),
        ],
        rules: vec![
            selecting(lookup(0, LOCAL)),
            selecting(Rule {
                suppress_prefix_length: Some(0),
                suppress_group: Some(106),
                ..ours(14_000, MAIN)
            }),
            selecting(Rule { mark: Some(Mark { value: 1, mask: 0x7f }), ..ours(14_011, 10_001) }),
            selecting(Rule {
                source: Some("10.0.2.10/32".parse().unwrap()),
                ..ours(14_100, 10_001)
            }),
            selecting(lookup(32_766, MAIN)),
            selecting(lookup(32_767, 253)),
        ],
        routes: vec![
            local("10.0.1.10", ETH0),
            local("10.0.2.10", ETH1),
            local("172.17.0.1", DOCKER0),
            connected("10.0.1.0/24", MAIN, ETH0),
            connected("172.17.0.0/16", MAIN, DOCKER0),
            via("0.0.0.0/0", MAIN, ETH0, "10.0.1.1"),
            via("0.0.0.0/0", 10_001, ETH1, "10.0.2.1"),
            Route { metric: 4_000_000, ..Route::unreachable(Family::V4.everything(), 10_001) },
        ],
        group: 106,
        device_kinds: vec!["physical".to_owned()],
        ..Facts::default()
    };
    let forwards = Settings { forwarding: true, ..Settings::default() };
    facts.settings.extend([1, ETH0, ETH1, DOCKER0].map(|index| (index, forwards)));
    facts
}

type Answer = Result<RouteAnswer, RouteRefusal>;

fn sent(table: u32, interface: u32, gateway: Option<&str>) -> Answer {
    let hop = NextHop { interface, gateway: gateway.map(ip), on_link: true };
    Ok(RouteAnswer {
        kind: RouteKind::Unicast,
        table,
        next_hop: Some(hop),
        preferred_source: None,
        mtu: None,
        matched: None,
    })
}

fn received() -> Answer {
    Ok(RouteAnswer { kind: RouteKind::Local, next_hop: None, ..sent(LOCAL, 1, None).unwrap() })
}

/// A kernel that gives these answers, one after the other, to the questions that it notes.
struct Scripted {
    answers: Vec<Answer>,
    asked: Vec<RouteQuery>,
}

impl Oracle for Scripted {
    fn way(&mut self, query: &RouteQuery) -> Result<Answer, Error> {
        self.asked.push(*query);
        assert!(!self.answers.is_empty(), "one question too many: {:#?}", self.asked);
        Ok(self.answers.remove(0))
    }

    fn neighbours(&mut self, _: Family, _: u32) -> Result<Vec<NeighbourEntry>, Error> {
        Ok(Vec::new())
    }
}

fn explained(facts: &Facts, question: &Question, answers: Vec<Answer>) -> Explanation {
    let mut kernel = Scripted { answers, asked: Vec::new() };
    let explanation = explain(question, facts, &mut kernel).unwrap();
    assert!(kernel.answers.is_empty(), "not asked for: {:?}", kernel.answers);
    explanation
}

fn question(source: &str, destination: &str) -> Question {
    Question::new(ip(source), ip(destination))
}

fn codes(explanation: &Explanation) -> Vec<(&'static str, Option<Stops>)> {
    explanation.obstacles.iter().map(|is| (is.code, is.stops)).collect()
}

fn results(explanation: &Explanation) -> Vec<(u32, StepResult)> {
    explanation.way.rules.iter().map(|step| (step.priority, step.result)).collect()
}

#[test]
fn each_rule_is_told_with_what_it_did() {
    let answers = vec![sent(10_001, ETH1, Some("10.0.2.1")), received()];
    let explanation = explained(&instance(), &question("10.0.2.10", "192.0.2.9"), answers);
    assert_eq!(explanation.direction, Direction::Out);
    assert_eq!(
        results(&explanation),
        [
            (0, StepResult::NoRoute),
            (14_000, StepResult::Suppressed),
            (14_011, StepResult::Skipped),
            (14_100, StepResult::Taken),
        ]
    );
    let texts: Vec<&str> = explanation.way.rules.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(texts[2], "it is for other marks, the packet has none");
    assert_eq!(texts[3], "default via 10.0.2.1 dev eth1 table 10001 metric 10");
    assert!(explanation.way.agrees && explanation.delivers);
    assert_eq!(explanation.way.mtu, Some(9001));
    assert_eq!(codes(&explanation), [("link-needed", None), ("mtu", None)]);
    assert_eq!(explanation.obstacles[0].text, "were eth1 down: table 10001 would refuse it");
}

#[test]
fn where_kernel_and_rules_differ_the_kernel_is_believed_and_that_is_said() {
    let answers = vec![sent(MAIN, ETH0, Some("10.0.1.1")), received()];
    let explanation = explained(&instance(), &question("10.0.2.10", "192.0.2.9"), answers);
    assert_eq!(explanation.way.interface.as_deref(), Some("eth0"));
    assert!(!explanation.way.agrees);
    assert!(codes(&explanation).contains(&("disagreement", None)));
    // The cloud drops it there.
    assert!(codes(&explanation).contains(&("wrong-source", Some(Stops::Packet))));
    assert!(!explanation.delivers);
}

#[test]
fn rules_are_matched_as_the_kernel_matches_them() {
    let own = "10.0.1.10";
    let far = "192.0.2.9";
    let tcp = Question {
        protocol: Some(Protocol::Tcp),
        source_port: Some(1500),
        destination_port: Some(443),
        mark: 0x105,
        user: Some(7),
        ..question(own, far)
    };
    let takes = |change: &dyn Fn(&mut SelectingRule)| {
        let mut facts = instance();
        let mut rule = selecting(lookup(100, 10_001));
        change(&mut rule);
        facts.rules.insert(1, rule);
        // Whatever the kernel says: only the walk is looked at.
        let answers = vec![sent(10_001, ETH1, Some("10.0.2.1")), received()];
        let explanation = explained(&facts, &tcp, answers);
        explanation
            .way
            .rules
            .iter()
            .any(|step| step.priority == 100 && step.result != StepResult::Skipped)
    };
    let net = |text: &str| Some(text.parse().unwrap());
    let yes: [&dyn Fn(&mut SelectingRule); 12] = [
        &|_| {},
        &|is| is.rule.source = net("10.0.1.0/24"),
        &|is| is.rule.destination = net("192.0.2.0/24"),
        &|is| is.rule.input_interface = Some("lo".to_owned()),
        &|is| is.rule.mark = Some(Mark { value: 0x5, mask: 0xff }),
        &|is| is.selection.protocol = Some(6),
        &|is| is.selection.source_ports = Some(1000..=2000),
        &|is| is.selection.destination_ports = Some(443..=443),
        &|is| is.selection.users = Some(7..=7),
        &|is| {
            is.selection.inverted = true;
            is.rule.source = net("10.9.0.0/16");
        },
        &|is| {
            is.selection.inverted = true;
            is.selection.destination_ports = Some(1..=442);
        },
        &|is| is.rule.action = RuleAction::Goto(32_766),
    ];
    let no: [&dyn Fn(&mut SelectingRule); 13] = [
        &|is| is.rule.source = net("10.9.0.0/16"),
        &|is| is.rule.destination = net("198.51.100.0/24"),
        &|is| is.rule.input_interface = Some("eth0".to_owned()),
        &|is| is.rule.output_interface = Some("eth0".to_owned()),
        &|is| is.rule.mark = Some(Mark { value: 0, mask: 0xff }),
        &|is| is.selection.protocol = Some(17),
        &|is| is.selection.source_ports = Some(1..=1499),
        &|is| is.selection.destination_ports = Some(444..=500),
        &|is| is.selection.users = Some(8..=9),
        &|is| is.selection.tos = 0x10,
        &|is| is.selection.unknown = true,
        &|is| is.selection.inverted = true,
        // It leads nowhere.
        &|is| is.rule.action = RuleAction::Goto(20_000),
    ];
    for (number, rule) in yes.iter().enumerate() {
        assert!(takes(*rule), "{number} is for the packet");
    }
    for (number, rule) in no.iter().enumerate() {
        assert!(!takes(*rule), "{number} is not for the packet");
    }
}

#[test]
fn a_goto_passes_over_what_lies_between_and_throw_goes_on() {
    let mut facts = instance();
    facts.rules.insert(1, selecting(Rule::new(Family::V4, 50, RuleAction::Goto(32_766))));
    facts.routes.push(Route {
        kind: RouteKind::Throw,
        ..Route::unreachable("192.0.2.0/24".parse().unwrap(), MAIN)
    });
    let answers = vec![Err(RouteRefusal::NetworkUnreachable)];
    let explanation = explained(&facts, &question("10.0.2.10", "192.0.2.9"), answers);
    assert_eq!(
        results(&explanation),
        [
            (0, StepResult::NoRoute),
            (50, StepResult::Goto),
            (32_766, StepResult::Throw),
            (32_767, StepResult::NoRoute),
        ]
    );
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation)[0], ("no-route", Some(Stops::Packet)));
    assert!(codes(&explanation).iter().all(|(code, _)| *code != "rule-before-ours"));
}

#[test]
fn what_refuses_is_not_passed_over_and_the_better_route_is_taken() {
    let mut facts = instance();
    // Main's own default route, behind a better one that refuses.
    facts.routes.push(Route {
        kind: RouteKind::Prohibit,
        metric: 5,
        ..Route::unreachable(Family::V4.everything(), MAIN)
    });
    let answers = vec![Err(RouteRefusal::Prohibited)];
    let explanation = explained(&facts, &question("10.0.2.10", "192.0.2.9"), answers);
    assert_eq!(results(&explanation).last(), Some(&(14_000, StepResult::Taken)));
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation)[0], ("route-refuses", Some(Stops::Packet)));
}

#[test]
fn of_several_next_hops_whichever_the_kernel_takes_is_right() {
    let mut facts = instance();
    let hop = |interface, gateway| NextHop { interface, gateway: Some(ip(gateway)), on_link: true };
    facts.routes.push(Route {
        next_hops: vec![hop(ETH0, "10.0.1.1"), hop(DOCKER0, "172.17.0.9")],
        ..via("192.0.2.0/24", MAIN, ETH0, "10.0.1.1")
    });
    for (interface, gateway, agrees) in [
        (ETH0, "10.0.1.1", true),
        (DOCKER0, "172.17.0.9", true),
        (DOCKER0, "10.0.1.1", false),
        (ETH1, "10.0.2.1", false),
    ] {
        let answers = vec![sent(MAIN, interface, Some(gateway)), received()];
        let explanation = explained(&facts, &question("10.0.1.10", "192.0.2.9"), answers);
        assert_eq!(explanation.way.agrees, agrees, "{interface} {gateway}");
    }
}

#[test]
fn what_comes_in_is_looked_back_at() {
    let dropped = || vec![Err(RouteRefusal::Invalid)];
    let let_in = || vec![received(), sent(10_001, ETH1, Some("10.0.2.1"))];
    let by = |name: &str| Question {
        input: Some(name.to_owned()),
        ..question("198.51.100.1", "10.0.2.10")
    };
    let with = |filter: i32| {
        let mut facts = instance();
        facts.settings.get_mut(&ETH0).unwrap().reverse_path_filter = filter;
        facts
    };
    // The interface's own and that of all: the larger counts.
    let mut all = instance();
    all.all.reverse_path_filter = 1;
    for facts in [with(1), all] {
        let explanation = explained(&facts, &by("eth0"), dropped());
        assert!(explanation.way.agrees);
        assert_eq!(codes(&explanation), [("reverse-path-filter", Some(Stops::Packet))]);
        let text = &explanation.obstacles[0].text;
        assert!(text.contains("eth0 (strict)") && text.contains("leaves by eth1"), "{text}");
        assert!(explained(&facts, &by("eth1"), let_in()).delivers);
    }
    let explanation = explained(&with(2), &by("eth0"), let_in());
    assert!(explanation.way.agrees && explanation.delivers, "{explanation:#?}");
    // Nobody else has this source.
    let own = Question { source: ip("10.0.1.10"), ..by("eth1") };
    let explanation = explained(&instance(), &own, dropped());
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation), [("martian-source", Some(Stops::Packet))]);
}

#[test]
fn of_two_routes_that_are_alike_the_first_counts_in_both_directions() {
    let mut facts = instance();
    facts.routes.push(connected("10.0.1.0/24", MAIN, ETH1));
    facts.settings.get_mut(&ETH1).unwrap().reverse_path_filter = 1;
    let by = Question { input: Some("eth1".to_owned()), ..question("10.0.1.50", "10.0.1.10") };
    let explanation = explained(&facts, &by, vec![Err(RouteRefusal::Invalid)]);
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation), [("reverse-path-filter", Some(Stops::Packet))]);
}

#[test]
fn the_interface_by_which_a_packet_comes_in_is_worked_out() {
    // Of this host's address: the one that has it.
    let answers = vec![received(), sent(10_001, ETH1, Some("10.0.2.1"))];
    let explanation = explained(&instance(), &question("198.51.100.1", "10.0.2.10"), answers);
    assert_eq!(
        (explanation.direction, explanation.way.input.as_deref()),
        (Direction::In, Some("eth1"))
    );
    assert!(explanation.why.iter().any(|why| why.contains("gets the mark 0x1")));

    // Of a container's: the one by which its answers would leave, seen from where it goes.
    let answers = vec![
        sent(MAIN, ETH0, Some("10.0.1.1")),
        sent(MAIN, DOCKER0, None),
        sent(MAIN, ETH0, Some("10.0.1.1")),
        sent(MAIN, DOCKER0, None),
        sent(10_001, ETH1, Some("10.0.2.1")),
    ];
    let mut kernel = Scripted { answers, asked: Vec::new() };
    let from_container = question("172.17.0.2", "192.0.2.9");
    let explanation = explain(&from_container, &instance(), &mut kernel).unwrap();
    let inputs: Vec<_> = kernel.asked.iter().map(|asked| asked.input_interface).collect();
    assert_eq!(inputs, [None, Some(ETH0), Some(DOCKER0), Some(ETH0), Some(DOCKER0)]);
    assert_eq!(
        (explanation.direction, explanation.way.input.as_deref()),
        (Direction::Forward, Some("docker0"))
    );
    assert_eq!(explanation.way.interface.as_deref(), Some("eth0"));
    // As an answer it takes the way of its connection's mark.
    let marked = &explanation.marked[0];
    assert_eq!((marked.came_by.as_deref(), marked.way.mark), (Some("eth1"), 1));
    assert_eq!(marked.way.interface.as_deref(), Some("eth1"));
    assert!(marked.way.agrees);
    let codes = codes(&explanation);
    assert_eq!(codes[0], ("foreign-source", None));
    assert!(explanation.delivers, "{codes:?}");

    // Nothing leads to it.
    let nothing = || Err(RouteRefusal::NetworkUnreachable);
    let mut kernel = Scripted { answers: vec![nothing(), nothing()], asked: Vec::new() };
    let error = explain(&from_container, &instance(), &mut kernel).unwrap_err();
    assert!(matches!(error, ExplainError::NoInput(_)) && !error.is_wrong_use(), "{error}");
}

#[test]
fn a_host_that_does_not_forward_says_so() {
    let mut facts = instance();
    facts.settings.get_mut(&DOCKER0).unwrap().forwarding = false;
    facts.rules.retain(|is| is.rule.mark.is_none());
    let by = Question { input: Some("docker0".to_owned()), ..question("172.17.0.2", "192.0.2.9") };
    let explanation = explained(&facts, &by, vec![Err(RouteRefusal::HostUnreachable)]);
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation), [("forwarding-off", Some(Stops::Packet))]);
    // Also where its source would be a reason too.
    facts.all.reverse_path_filter = 1;
    let by = Question { source: ip("10.0.1.77"), ..by };
    let explanation = explained(&facts, &by, vec![Err(RouteRefusal::HostUnreachable)]);
    assert!(explanation.way.agrees);
    assert_eq!(codes(&explanation), [("forwarding-off", Some(Stops::Packet))]);
}

#[test]
fn a_rule_of_somebody_else_that_takes_what_is_ours_is_named() {
    let mut facts = instance();
    facts.rules.insert(1, selecting(lookup(500, MAIN)));
    let answers = vec![sent(MAIN, ETH0, Some("10.0.1.1")), received()];
    let explanation = explained(&facts, &question("10.0.2.10", "192.0.2.9"), answers);
    assert!(explanation.way.agrees);
    let codes = codes(&explanation);
    assert!(codes.contains(&("wrong-source", Some(Stops::Packet))), "{codes:?}");
    assert!(codes.contains(&("rule-before-ours", None)), "{codes:?}");
    // Of what comes in, for the answer.
    let answers = vec![received(), sent(MAIN, ETH0, Some("10.0.1.1"))];
    let explanation = explained(&facts, &question("198.51.100.1", "10.0.2.10"), answers);
    let codes = self::codes(&explanation);
    assert!(explanation.delivers, "{codes:?}");
    assert!(codes.contains(&("answer-wrong-source", Some(Stops::Answer))), "{codes:?}");
    assert!(codes.contains(&("rule-before-ours", None)), "{codes:?}");
}

#[test]
fn what_makes_no_sense_is_not_asked() {
    let with = |protocol, port| Question {
        protocol,
        destination_port: Some(port),
        ..question("10.0.0.1", "10.0.0.2")
    };
    for question in [
        question("10.0.0.1", "2001:db8::1"),
        question("0.0.0.0", "10.0.0.1"),
        question("10.0.0.1", "224.0.0.1"),
        question("2001:db8::1", "fe80::1"),
        with(None, 53),
        with(Some(Protocol::Icmp), 53),
    ] {
        let mut kernel = Scripted { answers: Vec::new(), asked: Vec::new() };
        let error = explain(&question, &instance(), &mut kernel).unwrap_err();
        assert!(error.is_wrong_use(), "{error}");
    }
}
