//! What is promised in writing: the JSON that programs read, every field of the type that is promised,
//! and the configuration as the documents show it.

use std::path::{Path, PathBuf};

use jackfield_hostnet::config::Config;
use serde_json::{Value, json};

use crate::harness::*;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
enum Type {
    Text,
    Number,
    Flag,
    List,
    /// An object, or nothing.
    MaybeObject,
    MaybeText,
    MaybeNumber,
}

impl Type {
    fn holds(self, value: &Value) -> bool {
        match self {
            Type::Text => value.is_string(),
            Type::Number => value.is_u64(),
            Type::Flag => value.is_boolean(),
            Type::List => value.is_array(),
            Type::MaybeObject => value.is_object() || value.is_null(),
            Type::MaybeText => value.is_string() || value.is_null(),
            Type::MaybeNumber => value.is_u64() || value.is_null(),
        }
    }
}

#[track_caller]
fn assert_fields(value: &Value, fields: &[(&str, Type)]) {
    for (name, kind) in fields {
        let field = value.get(name).unwrap_or_else(|| panic!("no field '{name}' in {value}"));
        assert!(kind.holds(field), "'{name}' is no {kind:?}: {value}");
    }
}

const INTERFACE: [(&str, Type); 16] = [
    ("name", Type::Text),
    ("ifindex", Type::Number),
    ("mac", Type::Text),
    ("interface_id", Type::MaybeText),
    ("device_number", Type::MaybeNumber),
    ("network_card", Type::MaybeNumber),
    ("primary", Type::Flag),
    ("managed", Type::Flag),
    ("owner", Type::Text),
    ("state", Type::Text),
    ("table", Type::MaybeNumber),
    ("group", Type::Number),
    ("mtu", Type::Number),
    ("addresses", Type::List),
    ("prefixes", Type::List),
    ("problems", Type::List),
];

const CHANGE: [(&str, Type); 9] = [
    ("interface", Type::MaybeText),
    ("ifindex", Type::MaybeNumber),
    ("mac", Type::MaybeText),
    ("family", Type::MaybeNumber),
    ("action", Type::Text),
    ("object", Type::Text),
    ("before", Type::MaybeObject),
    ("after", Type::MaybeObject),
    ("text", Type::Text),
];

#[test]
fn the_status_says_what_each_interface_is_in() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 2);
    let before = status(&stage.a);
    succeed(&stage.a, &["plug", "eth1"]);
    let after = status(&stage.a);
    for document in [&before, &after] {
        assert_eq!(document["version"], 1);
        let interfaces = document["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2, "{document}");
        for interface in interfaces {
            assert_fields(interface, &INTERFACE);
            assert!(interface["metadata_age_s"].is_u64(), "{interface}");
            for problem in interface["problems"].as_array().unwrap() {
                let fields = [("code", Type::Text), ("text", Type::Text), ("fix", Type::Text)];
                assert_fields(problem, &fields);
            }
        }
    }
    let find = |document: &Value, name: &str| -> Value {
        let interfaces = document["interfaces"].as_array().unwrap();
        interfaces.iter().find(|interface| interface["name"] == name).unwrap().clone()
    };
    let primary = find(&after, "eth0");
    assert_eq!(primary["primary"], true);
    assert_eq!(primary["state"], "configured");
    assert_eq!(primary["table"], Value::Null);

    let pending = find(&before, "eth1");
    assert_eq!((&pending["state"], &pending["addresses"]), (&json!("pending"), &json!([])));
    assert_eq!(pending["problems"][0]["code"], "not-as-desired");
    let plugged = find(&after, "eth1");
    let mut addresses: Vec<String> =
        attached.addresses.iter().map(|address| ipnet::IpNet::from(*address).to_string()).collect();
    addresses.sort();
    let mut told: Vec<String> = serde_json::from_value(plugged["addresses"].clone()).unwrap();
    told.sort();
    assert_eq!(told, addresses);
    let expected = json!({
        "name": "eth1",
        "mac": attached.mac.to_string(),
        "device_number": 1,
        "network_card": 0,
        "primary": false,
        "managed": true,
        "owner": "jackfield",
        "state": "configured",
        "table": 10_001,
        "group": 106,
        "mtu": primary["mtu"],
        "prefixes": [],
        "problems": [],
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&plugged[name], value, "{name}");
    }
    assert!(plugged["interface_id"].as_str().unwrap().starts_with("eni-"), "{plugged}");
}

#[test]
fn the_plan_says_what_would_change_and_changes_nothing() {
    let stage = Stage::new();
    stage.attach(2, 1, 2);
    let before = NetworkState::of(&stage.a);
    let output = jackfield(&stage.a, &["plan", "--json"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(output.stderr, b"");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    let changes = document["changes"].as_array().unwrap();
    for change in changes {
        assert_fields(change, &CHANGE);
        assert!([json!(null), json!(4), json!(6)].contains(&change["family"]), "{change}");
        let action = change["action"].as_str().unwrap();
        let ends = (change["before"].is_object(), change["after"].is_object());
        let expected = match action {
            "add" => (false, true),
            "remove" => (true, false),
            "change" => (true, true),
            _ => panic!("{action}"),
        };
        assert_eq!(ends, expected, "{change}");
        let objects = ["link", "altname", "address", "route", "rule", "sysctl", "mark"];
        assert!(objects.contains(&change["object"].as_str().unwrap()), "{change}");
    }
    for object in ["link", "altname", "address", "route", "rule", "sysctl"] {
        assert!(changes.iter().any(|change| change["object"] == object), "no {object}");
    }
    let addresses = changes.iter().filter(|change| change["object"] == "address");
    assert_eq!(addresses.filter(|change| change["interface"] == "eth1").count(), 4);

    // As text, and for one interface: the same.
    for arguments in [&["plan"][..], &["plan", "eth1"]] {
        let output = jackfield(&stage.a, arguments);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().any(|line| line.starts_with("+ address 10.0.2.10/32")), "{text}");
    }
    assert_same(&before, &NetworkState::of(&stage.a));

    succeed(&stage.a, &["plug", "eth1"]);
    let output = jackfield(&stage.a, &["plan", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document, json!({ "version": 1, "changes": [] }));
}

#[test]
fn what_plug_did_is_told_to_programs_as_plan_told_it() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    let plan = jackfield(&stage.a, &["plan", "--json", "eth0", "eth1"]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let plug: Value =
        serde_json::from_str(&succeed(&stage.a, &["plug", "--json", "eth1"])).unwrap();
    assert_eq!(plug["version"], 1);
    assert_eq!(plug["changes"], plan["changes"]);
    assert!(plug["netlink_writes"].as_u64().unwrap() > 0);
    assert!(plug["metadata_requests"].as_u64().unwrap() > 0);
    let unplug = succeed(&stage.a, &["unplug", "--json", "eth1"]);
    let unplug: Value = serde_json::from_str(&unplug).unwrap();
    assert!(!unplug["changes"].as_array().unwrap().is_empty());
}

const EXPLANATION: [(&str, Type); 13] = [
    ("source", Type::Text),
    ("destination", Type::Text),
    ("protocol", Type::Text),
    ("source_port", Type::MaybeNumber),
    ("destination_port", Type::MaybeNumber),
    ("direction", Type::Text),
    ("delivers", Type::Flag),
    ("summary", Type::Text),
    ("way", Type::MaybeObject),
    ("answer", Type::MaybeObject),
    ("marked", Type::List),
    ("why", Type::List),
    ("obstacles", Type::List),
];

const WAY: [(&str, Type); 14] = [
    ("source", Type::Text),
    ("destination", Type::Text),
    ("mark", Type::Number),
    ("input", Type::MaybeText),
    ("goes", Type::Flag),
    ("kind", Type::MaybeText),
    ("table", Type::MaybeNumber),
    ("interface", Type::MaybeText),
    ("gateway", Type::MaybeText),
    ("mtu", Type::MaybeNumber),
    ("route", Type::MaybeText),
    ("refusal", Type::MaybeText),
    ("rules", Type::List),
    ("agrees", Type::Flag),
];

const RULE: [(&str, Type); 5] = [
    ("priority", Type::Number),
    ("rule", Type::Text),
    ("ours", Type::Flag),
    ("result", Type::Text),
    ("text", Type::Text),
];

const OBSTACLE: [(&str, Type); 4] =
    [("code", Type::Text), ("stops", Type::MaybeText), ("text", Type::Text), ("fix", Type::Text)];

#[test]
fn the_explanation_says_which_way_a_packet_takes() {
    let stage = Stage::new();
    stage.attach(2, 1, 1);
    succeed(&stage.a, &["plug", "eth1"]);
    shell(&stage.a, "ip route add prohibit 203.0.113.0/24");
    for (from, to, delivers) in [
        ("10.0.2.10", "192.0.2.9", true),
        ("192.0.2.9", "10.0.2.10", true),
        ("10.0.2.10", "203.0.113.9", false),
    ] {
        let text = succeed(&stage.a, &["explain", "--json", from, to]);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&document["version"], &document["delivers"]), (&json!(1), &json!(delivers)));
        assert_fields(&document, &EXPLANATION);
        let names: usize = document.as_object().unwrap().len();
        assert_eq!(names, EXPLANATION.len() + 1, "all that is told is written down: {document}");
        for way in [&document["way"], &document["answer"]] {
            if way.is_null() {
                assert!(!delivers);
                continue;
            }
            assert_fields(way, &WAY);
            assert_eq!(way.as_object().unwrap().len(), WAY.len(), "{way}");
            way["rules"].as_array().unwrap().iter().for_each(|rule| assert_fields(rule, &RULE));
        }
        for obstacle in document["obstacles"].as_array().unwrap() {
            assert_fields(obstacle, &OBSTACLE);
            let documents = include_str!("../../../../docs/interface.md");
            let code = obstacle["code"].as_str().unwrap();
            assert!(documents.contains(&format!("`{code}`")), "{code}");
        }
    }
}

/// The TOML that a document shows.
fn examples(document: &str) -> Vec<String> {
    let parts = document.split("```toml\n").skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_configuration_in_the_documents_is_understood() {
    let parse = |text: &str| Config::parse(text, Path::new("document")).unwrap();
    let readme = examples(include_str!("../../../../README.md"));
    let [example] = &readme[..] else { panic!("one example: {readme:?}") };
    let config = parse(example);
    let defaults = Config::default();
    assert_eq!((&config.agent, &config.defaults), (&defaults.agent, &defaults.defaults));
    assert_eq!(config.interfaces[0].manage, Some(false));
    for example in examples(include_str!("../../../../docs/configuration.md")) {
        assert_ne!(parse(&example), defaults);
    }
}

/// The documents that people read, by their paths in the repository.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = Vec::new();
    for directory in ["", "docs"] {
        let entries = std::fs::read_dir(root.join(directory)).unwrap();
        found.extend(entries.map(|entry| entry.unwrap().path()));
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found
}

/// What a document links to.
fn links(text: &str) -> Vec<&str> {
    let behind = text.split("](").skip(1);
    behind.filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The names by which headings are linked to, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut count = 0;
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !anchor.is_empty() {
                let anchors = anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(
                    anchors.contains(&anchor.to_owned()),
                    "{}: {link}: {anchors:?}",
                    document.display()
                );
            }
        }
    }
    assert!(count > 30, "{count} links");
}
