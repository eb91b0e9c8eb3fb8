//! The table of connection marks against the real kernel, read by `nft` besides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::process::Command;

use jackfield_kernel::{
    ConnectionMarks, Family, Mark, MarksTable, Namespace, Nftables, NftablesMonitor, NftablesState,
    Rtnetlink, Rule, RuleAction,
};

struct Bench {
    namespace: Namespace,
    kernel: Nftables,
}

fn bench() -> Bench {
    let namespace = Namespace::anonymous().expect("these tests need the right to make namespaces");
    let kernel = Nftables::open_in(&namespace).unwrap().expect("a kernel with netfilter");
    Bench { namespace, kernel }
}

impl Bench {
    fn nft(&self, script: &str) -> String {
        let mut command = Command::new("nft");
        self.namespace.start_inside(&mut command, None).unwrap();
        let output = command.arg(script).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn state(&mut self) -> NftablesState {
        NftablesState::read(&mut self.kernel).unwrap()
    }
}

fn marks(mask: u32, marks: &[(u32, u32)]) -> ConnectionMarks {
    ConnectionMarks { mask, marks: marks.iter().copied().collect() }
}

#[test]
fn what_is_written_is_read_back_and_replaced_and_removed() {
    let mut bench = bench();
    assert_eq!(bench.state(), NftablesState::default());
    let many: Vec<(u32, u32)> = (1..128).map(|mark| (mark + 70_000, mark)).collect();
    let all =
        [marks(0x7f, &[(1, 1)]), marks(0xff00, &[(1, 0x100), (2, 0xff00)]), marks(0x7f, &many)];
    for marks in all {
        marks.write(&mut bench.kernel).unwrap();
        assert_eq!(bench.state().marks, MarksTable::Present(marks));
    }
    ConnectionMarks::remove(&mut bench.kernel).unwrap();
    assert_eq!(bench.state(), NftablesState::default());
    assert_eq!(bench.nft("list ruleset"), "");
    // A second time too.
    ConnectionMarks::remove(&mut bench.kernel).unwrap();
}

#[test]
fn nft_reads_it_as_it_is_meant() {
    let mut bench = bench();
    marks(0x7f, &[(1, 3)]).write(&mut bench.kernel).unwrap();
    let text = bench.nft("list ruleset");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let expected = [
        "elements = { \"lo\" : goto set_0x3_of_0x7f }",
        "ct mark set ct mark & 0xffffff83 | 0x00000003",
        "type filter hook forward priority mangle; policy accept;",
        "ct direction original meta mark 0x00000000 ct mark & 0x0000007f == 0x00000000 iif vmap \
         @interfaces",
        "type filter hook prerouting priority mangle; policy accept;",
        "type route hook output priority mangle; policy accept;",
        "ct direction reply meta mark 0x00000000 ct mark & 0x0000007f != 0x00000000 meta mark set \
         ct mark & 0x0000007f",
    ];
    for line in expected {
        assert!(lines.contains(&line), "no line '{line}' in:\n{text}");
    }
}

#[test]
fn whatever_is_changed_in_it_is_seen() {
    let changes = [
        "flush chain inet jackfield forward",
        "add rule inet jackfield prerouting accept",
        "insert rule inet jackfield forward return",
        "add chain inet jackfield more",
        "delete chain inet jackfield output",
        "delete chain inet jackfield output; \
         add chain inet jackfield output { type filter hook output priority mangle; }; \
         add rule inet jackfield output ct direction reply meta mark 0 ct mark and 0x7f != 0 \
         meta mark set ct mark and 0x7f",
        "add element inet jackfield interfaces { 77 : drop }",
        "flush map inet jackfield interfaces",
        "add table inet jackfield { flags dormant; }",
        "flush chain inet jackfield prerouting; \
         add rule inet jackfield prerouting ct direction reply meta mark 0 ct mark and 0x7f != 0 \
         meta mark set ct mark and 0x3f",
        "add chain inet jackfield forward { policy drop; }",
        "flush chain inet jackfield set_0x3_of_0x7f; \
         add rule inet jackfield set_0x3_of_0x7f ct mark set ct mark and 0xffffff80 xor 0x2",
    ];
    let mut bench = bench();
    for change in changes {
        let marks = marks(0x7f, &[(1, 3)]);
        marks.write(&mut bench.kernel).unwrap();
        bench.nft(change);
        assert_eq!(bench.state().marks, MarksTable::Altered, "after '{change}'");
    }
    // An element more that could be ours is a mark more, which nobody wants.
    marks(0x7f, &[(1, 3)]).write(&mut bench.kernel).unwrap();
    bench.nft("add element inet jackfield interfaces { 77 : goto set_0x3_of_0x7f }");
    assert_eq!(bench.state().marks, MarksTable::Present(marks(0x7f, &[(1, 3), (77, 3)])));
}

#[test]
fn a_chain_for_destination_nat_is_seen_and_tables_of_others_stay() {
    let mut bench = bench();
    let others = [
        "add table inet filter; add chain inet filter in { type filter hook prerouting priority 0; }",
        "add table ip nat; add chain ip nat out { type nat hook postrouting priority 100; }",
    ];
    for other in others {
        bench.nft(other);
        assert!(!bench.state().destination_nat, "{other}");
    }
    for family in ["ip", "ip6", "inet"] {
        bench.nft(&format!(
            "add table {family} docker; \
             add chain {family} docker pre {{ type nat hook prerouting priority -100; }}"
        ));
        assert!(bench.state().destination_nat, "{family}");
        bench.nft(&format!("delete table {family} docker"));
        assert!(!bench.state().destination_nat, "{family}");
    }
    let before = bench.nft("list ruleset");
    marks(0x7f, &[(1, 3)]).write(&mut bench.kernel).unwrap();
    ConnectionMarks::remove(&mut bench.kernel).unwrap();
    assert_eq!(bench.nft("list ruleset"), before);
}

#[test]
fn notifications_tell_of_the_table_and_of_chains_with_a_hook_and_of_nothing_else() {
    let bench = bench();
    let mut monitor = bench.namespace.run(NftablesMonitor::open).unwrap().unwrap().unwrap();
    let mut told = |script: &str| {
        bench.nft(script);
        monitor.receive(ConnectionMarks::TABLE).unwrap()
    };
    assert!(!told("add table ip nat"));
    assert!(!told("add chain ip nat DOCKER"));
    assert!(!told("add rule ip nat DOCKER counter"));
    assert!(told("add chain ip nat PREROUTING { type nat hook prerouting priority -100; }"));
    assert!(!told("add rule ip nat PREROUTING jump DOCKER"));
    assert!(told("delete table ip nat"));
    assert!(told("add table inet jackfield; add chain inet jackfield x"));
    assert!(told("add rule inet jackfield x counter"));
    assert!(told("flush ruleset"));
}

#[test]
fn a_rule_for_a_mark_is_listed_as_it_was_added() {
    let bench = bench();
    let mut kernel = Rtnetlink::open_in(&bench.namespace).unwrap();
    for family in Family::BOTH {
        let rule = |value, action| Rule {
            mark: Some(Mark { value, mask: 0x7f }),
            protocol: 106,
            ..Rule::new(family, 14_010, action)
        };
        // By no mark too.
        for rule in [rule(3, RuleAction::Table(10_001)), rule(0, RuleAction::Goto(14_099))] {
            kernel.request("add a rule", rule.add()).unwrap();
            let list = Rule::list(&mut kernel, family).unwrap();
            assert!(list.contains(&rule), "{list:?}");
            kernel.request("remove a rule", rule.remove()).unwrap();
            assert!(!Rule::list(&mut kernel, family).unwrap().contains(&rule));
        }
    }
}
