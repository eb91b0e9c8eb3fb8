//! The commands over the plugins of a network.

use std::fs;

use jackfield_cni::config::NetworkList;
use jackfield_cni::plugin::{Attachment, ErrorCode};
use jackfield_cni::types::CniResult;
use jackfield_cni::{Error, PluginFailure};
use serde_json::json;

use crate::bench::{Bench, RESULT, conf, conf_of, failure, network};

#[test]
fn add_and_del_go_through_the_chain_with_the_result_handed_on() {
    let bench = Bench::new();
    bench.good("one");
    bench.plugin("two", r#"[ $CNI_COMMAND != ADD ] || echo '{"ips":[{"address":"10.0.0.3/24"}]}'"#);
    let network = network("1.0.0", &["one", "two"]);
    let mut conf = conf();
    conf.args = "A=1;IgnoreUnknown=1".parse().unwrap();
    let last = json!({"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.3/24"}]});

    let result = bench.runtime.add(&network, &conf).unwrap();
    assert_eq!(result, CniResult::parse(last.to_string()).unwrap());
    let calls = bench.calls();
    let path = format!("path=/nowhere:{}", bench.path("plugins").display());
    let environment = ["id=vm1", "ns=/run/netns/vm1", "if=eth0", "args=A=1;IgnoreUnknown=1", &path];
    for call in &calls {
        assert_eq!(
            (call.command.as_str(), &call.environment[..]),
            ("ADD", &environment.map(String::from)[..])
        );
    }
    let plain = json!({"name": "net", "cniVersion": "1.0.0", "type": "one"});
    assert_eq!((calls[0].plugin.as_str(), &calls[0].stdin), ("one", &plain));
    let mut with_result = json!({"name": "net", "cniVersion": "1.0.0", "type": "two"});
    with_result["prevResult"] = serde_json::from_str(RESULT).unwrap();
    assert_eq!((calls[1].plugin.as_str(), &calls[1].stdin), ("two", &with_result));

    bench.runtime.check(&network, &conf).unwrap();
    bench.runtime.del(&network, &conf).unwrap();
    let calls = bench.calls();
    let sequence: Vec<_> = calls.iter().map(|it| format!("{} {}", it.plugin, it.command)).collect();
    assert_eq!(sequence, ["one CHECK", "two CHECK", "two DEL", "one DEL"]);
    for call in calls {
        assert_eq!(call.stdin["prevResult"], last, "{} {}", call.plugin, call.command);
    }
    assert!(!bench.entry().exists());
}

#[test]
fn results_are_handed_on_in_the_configurations_version() {
    let bench = Bench::new();
    bench.good("one");
    bench.good("two");
    bench.runtime.add(&network("0.3.1", &["one", "two"]), &conf()).unwrap();
    let expected = json!({"cniVersion": "0.3.1", "dns": {},
                          "ips": [{"address": "10.0.0.2/24", "version": "4"}]});
    assert_eq!(bench.calls()[1].stdin["prevResult"], expected);
}

#[test]
fn del_gets_the_result_from_0_4_0_on() {
    for (version, expected) in [("0.3.1", false), ("0.4.0", true), ("1.1.0", true)] {
        let bench = Bench::new();
        bench.good("one");
        let network = network(version, &["one"]);
        bench.runtime.add(&network, &conf()).unwrap();
        bench.runtime.del(&network, &conf()).unwrap();
        assert_eq!(bench.calls()[1].stdin.get("prevResult").is_some(), expected, "{version}");
    }
}

#[test]
fn each_plugin_gets_the_capability_arguments_that_it_says_it_takes() {
    let bench = Bench::new();
    bench.good("one");
    bench.good("two");
    let list = json!({"name": "net", "cniVersion": "1.0.0", "plugins": [
        {"type": "one", "capabilities": {"mac": true, "ips": false}},
        {"type": "two"},
    ]});
    let mut conf = conf();
    let arguments = json!({"mac": "02:00:00:00:00:01", "ips": ["10.0.0.9/24"]});
    conf.capability_args = arguments.as_object().unwrap().clone();
    bench.runtime.add(&NetworkList::parse(list.to_string()).unwrap(), &conf).unwrap();
    let calls = bench.calls();
    assert_eq!(calls[0].stdin["runtimeConfig"], json!({"mac": "02:00:00:00:00:01"}));
    assert_eq!(calls[1].stdin.get("runtimeConfig"), None);
}

#[test]
fn an_add_that_fails_is_undone() {
    let bench = Bench::new();
    bench.good("one");
    bench.plugin(
        "two",
        r#"if [ $CNI_COMMAND = ADD ]; then
               echo 'some noise' >&2
               echo '{"cniVersion":"1.0.0","code":11,"msg":"not now","details":"later"}'
               exit 1
           fi"#,
    );
    bench.good("three");
    let (plugin, command, failure) =
        failure(bench.runtime.add(&network("1.0.0", &["one", "two", "three"]), &conf()));
    assert_eq!((plugin.as_str(), command), ("two", "ADD"));
    let PluginFailure::Reported { error, stderr } = failure else { panic!("{failure}") };
    assert_eq!((error.code, error.msg.as_str()), (ErrorCode::TRY_AGAIN_LATER, "not now"));
    assert_eq!(stderr, "some noise");
    assert_eq!(bench.sequence(), ["one ADD", "two ADD", "two DEL", "one DEL"]);
    assert!(!bench.entry().exists());
}

#[test]
fn del_carries_on_past_what_fails_or_is_not_installed_any_more_and_tells_all() {
    let bench = Bench::new();
    for name in ["one", "two", "three"] {
        bench.good(name);
    }
    let network = network("1.0.0", &["one", "two", "three"]);
    bench.runtime.add(&network, &conf()).unwrap();
    bench.plugin("two", "exit 2");
    fs::remove_file(bench.path("plugins/three")).unwrap();
    bench.calls();

    let Error::Several(errors) = bench.runtime.del(&network, &conf()).unwrap_err() else {
        panic!("two failed")
    };
    assert_eq!(errors.len(), 2);
    assert!(errors[0].to_string().contains("plugin three: it is not installed in /nowhere; /"));
    assert!(errors[1].to_string().contains("plugin two: exit status 2"));
    assert_eq!(bench.sequence(), ["two DEL", "one DEL"]);
    assert!(bench.entry().exists(), "what is left is not forgotten");

    bench.good("two");
    bench.good("three");
    bench.runtime.del(&network, &conf()).unwrap();
    bench.runtime.del(&network, &conf()).unwrap();
    assert!(!bench.entry().exists());
}

#[test]
fn gc_removes_what_is_not_valid_and_always_sends_the_list() {
    let bench = Bench::new();
    bench.good("one");
    bench.good("two");
    let network = network("1.1.0", &["one", "two"]);
    for container in ["vm1", "vm2", "vm3"] {
        bench.runtime.add(&network, &conf_of(container)).unwrap();
    }
    bench.calls();
    bench.runtime.gc(&network, &[conf_of("vm2").attachment()]).unwrap();
    let calls = bench.calls();
    let sequence: Vec<_> = calls
        .iter()
        .map(|it| format!("{} {} {}", it.plugin, it.command, it.environment[0]))
        .collect();
    let deleted = ["two DEL id=vm1", "one DEL id=vm1", "two DEL id=vm3", "one DEL id=vm3"];
    assert_eq!(sequence, [&deleted[..], &["one GC id=", "two GC id="]].concat());
    let list = json!([{"containerID": "vm2", "ifname": "eth0"}]);
    for call in &calls[4..] {
        assert_eq!(call.stdin["cni.dev/valid-attachments"], list);
        assert_eq!(call.stdin["cni.dev/attachments"], list);
        assert_eq!(call.stdin.get("prevResult"), None);
    }
    let left = bench.runtime.cached_attachments(None).unwrap().0;
    assert_eq!(
        left.iter().map(|it| it.conf.attachment()).collect::<Vec<Attachment>>(),
        [conf_of("vm2").attachment()]
    );

    bench.runtime.gc(&network, &[]).unwrap();
    assert_eq!(bench.calls().last().unwrap().stdin["cni.dev/valid-attachments"], json!([]));
    assert!(bench.runtime.cached_attachments(None).unwrap().0.is_empty());
}

#[test]
fn gc_carries_on_past_a_failure_and_is_silent_before_1_1_0_or_where_disabled() {
    let bench = Bench::new();
    bench.plugin("one", "exit 1");
    bench.good("two");
    let error = bench.runtime.gc(&network("1.1.0", &["one", "two"]), &[]).unwrap_err();
    assert!(error.to_string().contains("GC by plugin one"), "{error}");
    assert_eq!(bench.sequence(), ["one GC", "two GC"]);
    bench.runtime.gc(&network("1.0.0", &["one"]), &[]).unwrap();
    let mut disabled = network("1.1.0", &["one"]);
    disabled.disable_gc = true;
    bench.runtime.gc(&disabled, &[]).unwrap();
    bench.runtime.status(&network("1.0.0", &["one"])).unwrap();
    assert!(bench.calls().is_empty());
}

#[test]
fn versions_are_asked_of_new_and_old_plugins() {
    let bench = Bench::new();
    let ask = |script: &str| {
        bench.plugin("one", script);
        bench.runtime.version(&"one".parse().unwrap())
    };
    let answer = r#"echo '{"cniVersion":"1.0.0","supportedVersions":["0.4.0","9.9.9"]}'"#;
    assert_eq!(ask(answer).unwrap(), ["0.4.0", "9.9.9"]);
    assert_eq!(ask(r#"echo '{"cniVersion":"0.2.0"}'"#).unwrap(), ["0.1.0", "0.2.0"]);
    let old = r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#;
    assert_eq!(ask(old).unwrap(), ["0.1.0"]);
    assert!(matches!(ask("echo '{}'"), Err(PluginFailure::Output { .. })));
}
