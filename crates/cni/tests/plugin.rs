//! A plugin's environment, input, output and errors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::cell::RefCell;
use std::io::{self, Write};

use jackfield_cni::plugin::{
    Attachment, DelRequest, ErrorCode, GcRequest, Plugin, PluginError, Request, run_with,
};
use jackfield_cni::types::{CniResult, IpConfig, Version};
use serde_json::{Value, json};

/// Remembers what it was asked.
#[derive(Default)]
struct Recorder {
    added: RefCell<Vec<Request>>,
    deleted: RefCell<Vec<DelRequest>>,
    collected: RefCell<Vec<GcRequest>>,
    versions: Option<&'static [Version]>,
    fails: bool,
}

impl Plugin for Recorder {
    fn about(&self) -> String {
        "recorder".into()
    }

    fn versions(&self) -> &[Version] {
        self.versions.unwrap_or(&Version::ALL)
    }

    fn add(&self, request: &Request) -> Result<CniResult, PluginError> {
        self.added.borrow_mut().push(request.clone());
        if self.fails {
            return Err(PluginError::new(ErrorCode(101), "no luck").with_details("at all"));
        }
        Ok(request.prev_result.clone().unwrap_or_default())
    }

    fn del(&self, request: &DelRequest) -> Result<(), PluginError> {
        self.deleted.borrow_mut().push(request.clone());
        Ok(())
    }

    fn check(&self, _: &Request) -> Result<(), PluginError> {
        Ok(())
    }

    fn gc(&self, request: &GcRequest) -> Result<(), PluginError> {
        self.collected.borrow_mut().push(request.clone());
        Ok(())
    }
}

const ALL: [(&str, &str); 4] = [
    ("CNI_CONTAINERID", "vm1"),
    ("CNI_NETNS", "/run/netns/vm1"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin::/usr/lib/cni"),
];

fn ask(
    plugin: &Recorder,
    command: &str,
    environment: &[(&str, &str)],
    stdin: &str,
) -> (Result<(), PluginError>, Value) {
    let mut output = Vec::new();
    let variable = |name: &str| {
        let value = match name {
            "CNI_COMMAND" => Some(command),
            _ => environment.iter().rev().find(|(it, _)| *it == name).map(|(_, value)| *value),
        };
        value.map(Into::into)
    };
    let done = run_with(plugin, variable, stdin.as_bytes(), &mut output);
    let output = match output.as_slice() {
        [] => Value::Null,
        json => serde_json::from_slice(json).unwrap(),
    };
    (done, output)
}

fn code(command: &str, environment: &[(&str, &str)], stdin: &str) -> u32 {
    let (done, printed) = ask(&Recorder::default(), command, environment, stdin);
    let code = done.unwrap_err().code.0;
    assert_eq!(printed["code"], code);
    assert!(!printed["msg"].as_str().unwrap().is_empty());
    code
}

#[test]
fn add_gets_what_there_is_and_its_result_is_printed_in_the_configurations_version() {
    let plugin = Recorder::default();
    let stdin = json!({
        "cniVersion": "0.3.1", "name": "net", "type": "recorder", "own": [1],
        "args": {"cni": {}}, "runtimeConfig": {"mac": "x"},
        "prevResult": {"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.2/24"}]},
    });
    let environment = [&ALL[..], &[("CNI_ARGS", "A=1;"), ("CNI_NETNS_OVERRIDE", "True")]].concat();
    let (done, printed) = ask(&plugin, "ADD", &environment, &stdin.to_string());
    done.unwrap();
    assert_eq!(
        printed,
        json!({"cniVersion": "0.3.1", "dns": {},
               "ips": [{"address": "10.0.0.2/24", "version": "4"}]})
    );
    let request = plugin.added.take().remove(0);
    assert_eq!(request.container_id.as_str(), "vm1");
    assert_eq!(request.netns.to_str(), Some("/run/netns/vm1"));
    assert!(request.netns_override);
    assert_eq!(request.ifname.as_str(), "eth0");
    assert_eq!(request.args.get("A"), Some("1"));
    assert_eq!(request.path, ["/opt/cni/bin", "/usr/lib/cni"].map(std::path::PathBuf::from));
    assert_eq!(request.version, Version::V0_3_1);
    assert_eq!(request.config.name.as_str(), "net");
    assert_eq!(request.config.plugin_type.as_deref(), Some("recorder"));
    assert_eq!(request.config.args, Some(json!({"cni": {}})));
    assert_eq!(request.config.runtime_config, Some(json!({"mac": "x"})));
    assert_eq!(Value::from(request.config.extra), json!({"own": [1]}));
}

#[test]
fn a_prev_result_without_a_version_has_the_configurations() {
    let plugin = Recorder::default();
    let stdin = r#"{"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[{"address":"::1/64"}]}}"#;
    ask(&plugin, "ADD", &ALL, stdin).0.unwrap();
    let request = plugin.added.take().remove(0);
    let expected = CniResult {
        cni_version: Version::V1_0_0,
        ips: vec![IpConfig::new("::1/64".parse().unwrap())],
        ..CniResult::default()
    };
    assert_eq!(request.prev_result, Some(expected));
}

#[test]
fn errors_have_the_codes_of_the_go_library() {
    assert_eq!(code("ADD", &ALL, "{"), 6);
    assert_eq!(code("ADD", &ALL, "[]"), 6);
    assert_eq!(code("ADD", &ALL, "{}"), 7);
    assert_eq!(code("ADD", &ALL, r#"{"name":"a/b"}"#), 7);
    assert_eq!(code("ADD", &ALL, r#"{"name":1}"#), 6);
    assert_eq!(code("ADD", &ALL, r#"{"name":"n","cniVersion":1}"#), 6);
    assert_eq!(
        code("ADD", &ALL, r#"{"name":"n","cniVersion":"1.0.0","prevResult":{"ips":[null]}}"#),
        6
    );
    assert_eq!(code("NONE", &ALL, r#"{"name":"n"}"#), 4);
    assert_eq!(code("CHECK", &ALL, r#"{"name":"n","cniVersion":"0.3.1"}"#), 1);
    assert_eq!(code("GC", &ALL, r#"{"name":"n","cniVersion":"1.0.0"}"#), 1);
    assert_eq!(code("STATUS", &ALL, r#"{"name":"n","cniVersion":"1.0.0"}"#), 1);
    for (name, value) in
        [("CNI_CONTAINERID", "../a"), ("CNI_IFNAME", "vm%d"), ("CNI_ARGS", "nonsense")]
    {
        let environment = [&ALL[..], &[(name, value)]].concat();
        assert_eq!(code("ADD", &environment, r#"{"name":"n"}"#), 4, "{name}");
    }
}

#[test]
fn every_missing_variable_is_named() {
    let (done, _) = ask(&Recorder::default(), "ADD", &ALL[..1], r#"{"name":"n"}"#);
    let error = done.unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_ENVIRONMENT);
    assert!(error.msg.contains("[CNI_NETNS,CNI_IFNAME,CNI_PATH]"), "{error}");
    assert_eq!(code("DEL", &ALL[..1], r#"{"name":"n"}"#), 4);
    assert_eq!(code("GC", &ALL[..1], r#"{"name":"n"}"#), 4);
}

#[test]
fn an_unsupported_version_is_told_with_both_lists() {
    for given in ["9.9.9", "0.2.0"] {
        let plugin =
            Recorder { versions: Some(&[Version::V0_4_0, Version::V1_0_0]), ..Recorder::default() };
        let stdin = json!({"name": "n", "cniVersion": given}).to_string();
        let (done, printed) = ask(&plugin, "ADD", &ALL, &stdin);
        done.unwrap_err();
        let details = format!(r#"config is "{given}", plugin supports ["0.4.0" "1.0.0"]"#);
        assert_eq!(
            printed,
            json!({"cniVersion": "1.0.0", "code": 1, "msg": "incompatible CNI versions",
                   "details": details})
        );
    }
}

#[test]
fn del_goes_on_with_whatever_is_wrong() {
    let plugin = Recorder::default();
    let stdin = r#"{"name":"n","cniVersion":"9.9.9","prevResult":{"cniVersion":"7"}}"#;
    let environment = [ALL[0], ALL[2], ALL[3], ("CNI_ARGS", "nonsense"), ("CNI_NETNS", "")];
    let (done, printed) = ask(&plugin, "DEL", &environment, stdin);
    done.unwrap();
    assert_eq!(printed, Value::Null);
    let request = plugin.deleted.take().remove(0);
    assert_eq!(request.netns, None);
    assert!(request.version.is_err());
    assert!(request.args.is_err());
    assert!(request.prev_result.is_err());

    ask(&plugin, "DEL", &ALL, r#"{"name":"n","prevResult":[]}"#).0.unwrap();
    assert!(plugin.deleted.take().remove(0).prev_result.is_err());
}

#[test]
fn gc_gets_the_list_and_never_runs_without_one() {
    let plugin = Recorder::default();
    let attachment =
        Attachment { container_id: "a".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let stdin = json!({"name": "n", "cniVersion": "1.1.0",
                           key: [{"containerID": "a", "ifname": "eth0"}]});
        ask(&plugin, "GC", &ALL, &stdin.to_string()).0.unwrap();
        assert_eq!(
            plugin.collected.take().remove(0).valid_attachments,
            std::slice::from_ref(&attachment)
        );
    }
    let empty = r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":[]}"#;
    ask(&plugin, "GC", &ALL, empty).0.unwrap();
    assert_eq!(plugin.collected.take().remove(0).valid_attachments, []);

    assert_eq!(code("GC", &ALL, r#"{"name":"n","cniVersion":"1.1.0"}"#), 7);
    let null = r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":null}"#;
    assert_eq!(code("GC", &ALL, null), 7);
    let broken = r#"{"name":"n","cniVersion":"1.1.0","cni.dev/valid-attachments":[{}]}"#;
    assert_eq!(code("GC", &ALL, broken), 7);
}

#[test]
fn version_asks_for_nothing() {
    let (done, printed) = ask(&Recorder::default(), "VERSION", &[], "");
    done.unwrap();
    let all = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
    assert_eq!(printed, json!({"cniVersion": "1.1.0", "supportedVersions": all}));
}

#[test]
fn the_plugins_own_error_is_printed_as_it_is() {
    let plugin = Recorder { fails: true, ..Recorder::default() };
    let (done, printed) = ask(&plugin, "ADD", &ALL, r#"{"name":"n","cniVersion":"0.4.0"}"#);
    done.unwrap_err();
    assert_eq!(
        printed,
        json!({"cniVersion": "0.4.0", "code": 101, "msg": "no luck", "details": "at all"})
    );
    assert!(plugin.deleted.borrow().is_empty());
}

#[test]
fn a_result_that_cannot_be_told_is_undone() {
    let plugin = Recorder::default();
    // No address: nothing that 0.2.0 could say.
    let (done, printed) = ask(&plugin, "ADD", &ALL, r#"{"name":"n","cniVersion":"0.2.0"}"#);
    assert_eq!(done.unwrap_err().code, ErrorCode::INCOMPATIBLE_VERSION);
    assert_eq!(printed["code"], 1);
    assert_eq!(plugin.deleted.take().len(), 1);

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let variable = |name: &str| {
        let all = [&ALL[..], &[("CNI_COMMAND", "ADD")]].concat();
        all.into_iter().find(|(it, _)| *it == name).map(|(_, value)| value.into())
    };
    let stdin = r#"{"name":"n","cniVersion":"1.0.0"}"#;
    let error = run_with(&plugin, variable, stdin.as_bytes(), Closed).unwrap_err();
    assert_eq!(error.code, ErrorCode::IO_FAILURE);
    assert_eq!(plugin.deleted.take().len(), 1);
}
