//! What is remembered of an attachment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use jackfield_cni::Error;
use jackfield_cni::config::NetworkList;
use jackfield_cni::types::CniResult;
use serde_json::{Value, json};

use crate::bench::{Bench, RESULT, conf, conf_of, network};

#[test]
fn what_cannot_be_undone_is_remembered_for_a_later_del() {
    let bench = Bench::new();
    let broken = bench.path("broken");
    fs::write(&broken, "").unwrap();
    bench.good("one");
    bench.plugin("two", &format!("[ ! -e {} ] || exit 3", broken.display()));
    let network = network("1.0.0", &["one", "two"]);
    let error = bench.runtime.add(&network, &conf()).unwrap_err();
    let Error::NotUndone { error, undo } = &error else { panic!("{error}") };
    assert!(error.to_string().contains("ADD by plugin two: exit status 3"), "{error}");
    assert_eq!(undo.len(), 1);
    assert_eq!(bench.sequence(), ["one ADD", "two ADD", "two DEL", "one DEL"]);

    let (attachments, problems) = bench.runtime.cached_attachments(None).unwrap();
    assert_eq!((attachments.len(), problems.len()), (1, 0));
    fs::remove_file(broken).unwrap();
    let cached = &attachments[0];
    bench.runtime.del(cached.network.as_ref().unwrap(), &cached.conf).unwrap();
    assert_eq!(bench.sequence(), ["two DEL", "one DEL"]);
    assert!(!bench.entry().exists());
}

#[test]
fn a_second_add_of_the_same_attachment_is_refused_and_touches_nothing() {
    let bench = Bench::new();
    bench.good("one");
    let network = network("1.0.0", &["one"]);
    bench.runtime.add(&network, &conf()).unwrap();
    let error = bench.runtime.add(&network, &conf()).unwrap_err();
    assert!(matches!(error, Error::AlreadyAttached { .. }), "{error}");
    assert_eq!(bench.sequence(), ["one ADD"]);
    assert!(bench.entry().exists());
}

#[test]
fn check_needs_0_4_0_and_an_attachment_and_can_be_disabled() {
    let bench = Bench::new();
    bench.good("one");
    let check = |network: &NetworkList| bench.runtime.check(network, &conf()).unwrap_err();
    let error = check(&network("0.3.1", &["one"]));
    assert!(matches!(error, Error::CommandNotInVersion { command: "CHECK", .. }), "{error}");
    let mut network = network("1.0.0", &["one"]);
    assert!(matches!(check(&network), Error::NotAttached { .. }));
    network.disable_check = true;
    bench.runtime.check(&network, &conf()).unwrap();
    assert!(bench.calls().is_empty());
}

#[test]
fn the_cache_is_libcnis() {
    let bench = Bench::new();
    bench.good("one");
    let network = network("1.0.0", &["one"]);
    let mut conf = conf();
    conf.args = "A=1".parse().unwrap();
    conf.capability_args.insert("mac".into(), json!("x"));
    bench.runtime.add(&network, &conf).unwrap();

    let entry: Value = serde_json::from_slice(&fs::read(bench.entry()).unwrap()).unwrap();
    let expected = json!({
        "kind": "cniCacheV1",
        "containerId": "vm1",
        "config": entry["config"],
        "ifName": "eth0",
        "networkName": "net",
        "netns": "/run/netns/vm1",
        "cniArgs": [["A", "1"]],
        "capabilityArgs": {"mac": "x"},
        "result": serde_json::from_str::<Value>(RESULT).unwrap(),
    });
    assert_eq!(entry, expected);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(bench.entry()), mode(bench.path("cache/results"))), (0o600, 0o700));
    let names: Vec<_> = fs::read_dir(bench.path("cache")).unwrap().collect();
    assert_eq!(names.len(), 1, "nothing but results");

    let cached = bench.runtime.cached(&network.name, &conf).unwrap().unwrap();
    assert_eq!(cached.network.unwrap().to_json(), network.to_json());
    assert_eq!(cached.conf, conf);
    assert_eq!(cached.result, Ok(Some(CniResult::parse(RESULT).unwrap())));
}

/// As libcni wrote it: `config` is base64 of the bytes of a file, which here has a single plugin.
#[test]
fn an_entry_that_libcni_wrote_is_read() {
    let bench = Bench::new();
    bench.good("one");
    fs::create_dir_all(bench.path("cache/results")).unwrap();
    // {"cniVersion":"0.4.0","name":"net","type":"one"}
    let config = "eyJjbmlWZXJzaW9uIjoiMC40LjAiLCJuYW1lIjoibmV0IiwidHlwZSI6Im9uZSJ9";
    let entry = json!({
        "kind": "cniCacheV1", "containerId": "vm1", "config": config, "ifName": "eth0",
        "networkName": "net", "netns": "/run/netns/a", "cniArgs": [["A", "1"]],
        "result": {"cniVersion": "0.4.0", "dns": {}, "ips": [{"version": "4", "address": "10.0.0.2/24"}]},
    });
    fs::write(bench.entry(), entry.to_string()).unwrap();
    let (attachments, _) = bench.runtime.cached_attachments(Some(&"vm1".parse().unwrap())).unwrap();
    let cached = &attachments[0];
    assert_eq!(cached.conf.args.to_string(), "A=1");
    bench.runtime.del(cached.network.as_ref().unwrap(), &cached.conf).unwrap();
    let call = bench.calls().remove(0);
    assert_eq!(call.stdin["prevResult"]["ips"][0]["address"], "10.0.0.2/24");
    assert_eq!(call.stdin["type"], "one");
    assert!(!bench.entry().exists());
}

#[test]
fn an_entry_that_cannot_be_read_is_told_of_and_keeps_nothing_from_being_removed() {
    let bench = Bench::new();
    bench.good("one");
    let network = network("1.0.0", &["one"]);
    bench.runtime.add(&network, &conf_of("vm2")).unwrap();
    fs::write(bench.entry(), "").unwrap();
    let (attachments, broken) = bench.runtime.cached_attachments(None).unwrap();
    assert_eq!((attachments.len(), broken.len()), (1, 1));
    assert!(broken[0].to_string().contains("net-vm1-eth0"), "{}", broken[0]);
    bench.runtime.del(&network, &conf()).unwrap();
    assert!(!bench.entry().exists());
}

/// What is killed at any instant of an ADD can be found: the entry is there before the first plugin
/// is started.
#[test]
fn an_add_that_is_under_way_is_in_the_cache() {
    let bench = Bench::new();
    let seen = bench.path("seen");
    bench.plugin(
        "one",
        &format!("cp {} {}; echo '{RESULT}'", bench.entry().display(), seen.display()),
    );
    let network = network("1.0.0", &["one"]);
    bench.runtime.add(&network, &conf()).unwrap();
    fs::copy(seen, bench.entry()).unwrap();
    let cached = bench.runtime.cached(&network.name, &conf()).unwrap().unwrap();
    assert_eq!(cached.result, Ok(None));
    assert_eq!(cached.network.unwrap().plugins.len(), 1);
    // It does not keep a new ADD from being made.
    bench.runtime.add(&network, &conf()).unwrap();
}

#[test]
fn two_attachments_whose_names_join_to_one_do_not_take_each_others_entry() {
    let bench = Bench::new();
    bench.good("one");
    let mut other = network("1.0.0", &["one"]);
    other.name = "net-a".parse().unwrap();
    bench.runtime.add(&other, &conf_of("b")).unwrap();
    let network = network("1.0.0", &["one"]);
    let error = bench.runtime.add(&network, &conf_of("a-b")).unwrap_err();
    assert!(matches!(error, Error::CacheClash { .. }), "{error}");
    bench.calls();
    bench.runtime.del(&network, &conf_of("a-b")).unwrap();
    assert_eq!(bench.calls()[0].stdin.get("prevResult"), None);
    assert!(bench.runtime.cached(&other.name, &conf_of("b")).unwrap().is_some());
}

#[test]
fn a_cache_that_cannot_be_written_starts_no_plugin() {
    let bench = Bench::new();
    bench.good("one");
    fs::write(bench.path("cache"), "a file").unwrap();
    let error = bench.runtime.add(&network("1.0.0", &["one"]), &conf()).unwrap_err();
    assert!(matches!(error, Error::File { attempt: "write", .. }), "{error}");
    assert!(bench.calls().is_empty());
}
