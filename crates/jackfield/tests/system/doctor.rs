//! `jackfield doctor`: a healthy host is told to be one, each thing that is broken is named with its
//! cure, and nothing is changed by looking.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use jackfield_lab::emulator::{Effect, Fault};
use jackfield_lab::{Host, Process};
use serde_json::Value;

use crate::harness::*;
use crate::packaging::{USER, confined};

/// The exit status, and each finding as check, result, text and cure.
struct Findings(Option<i32>, Vec<[String; 4]>);

impl Findings {
    fn of(host: &Host, config: &str, further: &[&str]) -> Self {
        let config = ConfigFile::new(config);
        let arguments = [further, &["doctor", "--json"]].concat();
        Self::read(&jackfield_with(host, &config, &arguments))
    }

    fn read(output: &std::process::Output) -> Self {
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {output:?}");
        });
        assert_eq!(document["version"], 1);
        let documents = include_str!("../../../../docs/doctor.md");
        let checks = document["checks"].as_array().unwrap();
        let findings: Vec<[String; 4]> = checks
            .iter()
            .map(|finding| {
                let field = |name: &str| finding[name].as_str().unwrap().to_owned();
                ["check", "result", "text", "fix"].map(field)
            })
            .collect();
        for [check, result, text, fix] in &findings {
            assert!(documents.contains(&format!("| `{check}` |")), "{check} is not documented");
            // What is wrong has a cure, and what is not needs none.
            let bad = result == "warning" || result == "problem";
            assert_eq!(bad, !fix.is_empty(), "{check}: {text}: {fix:?}");
        }
        let healthy = findings.iter().all(|[_, result, ..]| result != "problem");
        assert_eq!(document["healthy"], healthy);
        assert_eq!(output.status.code(), Some(if healthy { 0 } else { 1 }), "{findings:#?}");
        Findings(output.status.code(), findings)
    }

    /// What is neither as it should be nor beside the point.
    fn bad(&self) -> Vec<(&str, &str)> {
        let bad =
            self.1.iter().filter(|[_, result, ..]| result == "warning" || result == "problem");
        bad.map(|[check, result, ..]| (check.as_str(), result.as_str())).collect()
    }

    /// Fails where this was not found, with these words in its text or its cure.
    #[track_caller]
    fn has(&self, check: &str, result: &str, words: &[&str]) {
        let found = self.1.iter().any(|[is, came_out, text, fix]| {
            is == check
                && came_out == result
                && words.iter().all(|word| text.contains(word) || fix.contains(word))
        });
        assert!(found, "no {result} of {check} with {words:?} in {:#?}", self.1);
    }
}

#[test]
fn a_healthy_host_is_told_to_be_one_and_nothing_is_changed_by_looking() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let watch = IpMonitor::start(&stage.a);
    let findings = Findings::of(&stage.a, LAB_CONFIG, &[]);
    let seen = watch.finish();
    assert_eq!(findings.bad(), [], "{:#?}", findings.1);
    for check in ["metadata", "metadata-interfaces", "agent", "rules", "tables", "marks", "mtu"] {
        findings.has(check, "ok", &[]);
    }
    findings.has("interface", "ok", &["eth1", "table 10001"]);
    // The kernel's own counting of neighbours aside.
    assert_eq!(seen, Vec::<String>::new());
    assert_same(&before, &NetworkState::of(&stage.a));
    agent.stop();

    // For people: a line each, and how many there are.
    let text = succeed(&stage.a, &["doctor"]);
    assert!(text.ends_with("\nno problem, 1 warning\n"), "{text}");
    assert!(text.contains("→ start 'jackfield run'"), "{text}");
}

#[test]
fn each_thing_that_is_broken_is_named_with_its_cure() {
    let stage = Stage::new();
    let first = stage.attach(2, 1, 1);
    succeed(&stage.a, &["plug", "eth1"]);
    let looked = || Findings::of(&stage.a, LAB_CONFIG, &[]);
    assert_eq!(looked().bad(), [("agent", "warning")]);
    let broken: [(&str, &str, &str, &str, &[&str]); 9] = [
        (
            "ip rule add to 203.0.113.0/24 lookup 200 pref 14050",
            "ip rule delete pref 14050",
            "rules",
            "warning",
            &["rule 14050", "agent.rule_priority"],
        ),
        (
            "ip route add default via 10.0.1.1 table 200; ip rule add lookup 200 pref 100",
            "ip rule delete pref 100; ip route flush table 200",
            "rules-before",
            "problem",
            &["rule 100 (lookup 200"],
        ),
        (
            "ip route add 192.0.2.0/24 dev eth0 table 10050",
            "ip route flush table 10050",
            "tables",
            "warning",
            &["192.0.2.0/24 in table 10050", "agent.table_base"],
        ),
        (
            "ip link add br0 type bridge; ip link set br0 group 106",
            "ip link delete br0",
            "link-group",
            "problem",
            &["br0", "agent.link_group"],
        ),
        (
            "ip rule add fwmark 0x3/0xf lookup 200 pref 300",
            "ip rule delete pref 300",
            "marks",
            "warning",
            &["rule 300 looks for 0x3/0xf", "agent.mark_mask"],
        ),
        (
            "sysctl -qw net.ipv4.ip_forward=1; nft add table ip others; \
             nft add chain ip others c '{ type filter hook prerouting priority 0; }'; \
             nft add rule ip others c iifname br-x meta mark set 0x5",
            "nft delete table ip others; sysctl -qw net.ipv4.ip_forward=0",
            "marks",
            "warning",
            &["nftables chain ip others c sets 0x5"],
        ),
        (
            "ip link set eth1 mtu 1400",
            "ip link set eth1 mtu $(cat /sys/class/net/eth0/mtu)",
            "mtu",
            "warning",
            &["eth1 takes packets of 1400 octets"],
        ),
        (
            "ip address delete 10.0.2.10/32 dev eth1",
            // The scan behind them all.
            "true",
            "interface",
            "problem",
            &["eth1", "not-as-desired", "jackfield plan"],
        ),
        (
            "sysctl -qw net.ipv4.conf.eth1.arp_ignore=8",
            "sysctl -qw net.ipv4.conf.eth1.arp_ignore=0",
            "arp",
            "warning",
            &["eth1", "arp_ignore"],
        ),
    ];
    for (make, mend, check, result, words) in broken {
        shell(&stage.a, make);
        let before = NetworkState::settled(&stage.a);
        looked().has(check, result, words);
        assert_same(&before, &NetworkState::of(&stage.a));
        shell(&stage.a, mend);
    }
    succeed(&stage.a, &["scan"]);
    assert_eq!(looked().bad(), [("agent", "warning")]);

    // Pulled while nobody looked.
    stage.lab.detach(first.mac).unwrap();
    let findings = looked();
    findings.has("left-over", "problem", &["rule", "jackfield scan"]);
    succeed(&stage.a, &["scan"]);
    looked().has("left-over", "ok", &[]);
}

#[test]
fn a_metadata_service_that_is_off_throttles_or_hangs_is_told_apart() {
    let stage = Stage::new();
    let cloud = stage.lab.cloud();
    let looked = |metadata: &[&str]| Findings::of(&stage.a, LAB_CONFIG, metadata);
    // One endpoint: what the other says is beside the point.
    let one = ["--metadata", "http://169.254.169.254"];
    for (fault, result, words) in [
        (Fault::new(Effect::Status(403)), "problem", &["403", "http-endpoint enabled"][..]),
        (Fault::new(Effect::Status(503)), "problem", &["throttled", "who else"]),
        (Fault::new(Effect::Status(503)).times(1), "warning", &["throttled", "who else"]),
        (Fault::new(Effect::Hang).on_path("/latest/api/token"), "problem", &["hop limit"]),
    ] {
        cloud.add_fault(fault);
        looked(&one).has("metadata", result, words);
        cloud.clear_faults();
    }
    looked(&one).has("metadata", "ok", &["169.254.169.254", "IMDSv2"]);
    let nowhere = looked(&["--metadata", "http://127.0.0.1:1"]);
    nowhere.has("metadata", "problem", &["127.0.0.1:1", "firewall"]);
    // A device that metadata does not list.
    shell(&stage.a, "ip link add stranger type veth peer name other");
    looked(&one).has("metadata-interfaces", "warning", &["stranger", "agent.device_kinds"]);
}

#[test]
fn a_configuration_that_is_not_understood_is_a_finding_and_so_are_unsafe_programs() {
    let stage = Stage::new();
    let findings = Findings::of(&stage.a, "[agent]\nrefesh = \"30s\"\n", &[]);
    findings.has("configuration", "problem", &["line 2", "refesh"]);

    let name = format!("jackfield-doctor-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("10-open"), "#!/bin/sh\n").unwrap();
    let open = PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(directory.join("10-open"), open).unwrap();
    let config = format!("{LAB_CONFIG}[hooks]\ndirectory = {directory:?}\n");
    let findings = Findings::of(&stage.a, &config, &[]);
    std::fs::remove_dir_all(&directory).unwrap();
    findings.has("hooks", "problem", &["10-open is not run", "everybody may write"]);
    assert_eq!(findings.0, Some(1));
}

#[test]
fn programs_are_judged_by_what_the_user_of_the_agent_may() {
    let stage = Stage::new();
    let name = format!("jackfield-doctor-user-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).unwrap();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(&directory, 0o755);
    let (roots, its_own) = (directory.join("10-roots"), directory.join("20-its-own"));
    for (path, bits) in [(&roots, 0o700), (&its_own, 0o500)] {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        mode(path, bits);
    }
    std::os::unix::fs::chown(&its_own, Some(USER.parse().unwrap()), None).unwrap();
    let config = format!("{LAB_CONFIG}[hooks]\ndirectory = {directory:?}\n");
    let looked = || Findings::of(&stage.a, &config, &[]);
    let findings = looked();
    findings.has("hooks", "problem", &["20-its-own is not run", "owner is user", USER]);
    assert!(!format!("{:?}", findings.1).contains("10-roots"), "{:#?}", findings.1);

    let file = ConfigFile::new(&config);
    let mut command = confined(&stage, &file, &["run"]);
    let agent = Process::start(command.stderr(Stdio::null())).unwrap();
    let pid = |host: &Host| status(host)["agent"]["pid"].clone();
    eventually("the agent answers", PATIENCE, || !pid(&stage.a).is_null());
    let findings = looked();
    findings.has("hooks", "problem", &["10-roots is not run", "user", USER, "execute"]);
    assert!(!format!("{:?}", findings.1).contains("20-its-own"), "{:#?}", findings.1);
    mode(&directory, 0o700);
    let findings = looked();
    findings.has("hooks", "problem", &["user", USER, "nothing in it is run"]);
    drop(agent);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn without_privilege_what_cannot_be_looked_at_is_told() {
    let stage = Stage::new();
    let config = ConfigFile::new(LAB_CONFIG);
    let mut command = stage.a.command("setpriv").unwrap();
    let less = ["--bounding-set=-net_admin", "--inh-caps=-all", "--", JACKFIELD];
    command.args(less).args(["--config", config.path(), "doctor", "--json"]);
    let findings = Findings::read(&command.output().unwrap());
    findings.has("privilege", "warning", &["CAP_NET_ADMIN", "run it as root"]);
    assert_eq!(findings.0, Some(0), "{:#?}", findings.1);
}
