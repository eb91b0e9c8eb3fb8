//! Network lists: found by name, and read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;

use jackfield_cni::config::{self, NetworkList};
use jackfield_cni::types::Version;
use jackfield_cni::{Error, NetworkName};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with some files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

fn load(directories: &[&TempDir], name: &str) -> Result<NetworkList, Error> {
    let paths: Vec<PathBuf> = directories.iter().map(|it| it.path().to_owned()).collect();
    config::load(&paths, &name.parse::<NetworkName>().unwrap())
}

/// The types of a network's plugins, joined.
fn plugins(network: &NetworkList) -> String {
    let names: Vec<_> = network.plugins.iter().map(|it| it.plugin.as_str()).collect();
    names.join(" ")
}

fn a_list(name: &str, plugin: &str) -> String {
    json!({"name": name, "cniVersion": "1.0.0", "plugins": [{"type": plugin}]}).to_string()
}

fn field_error(json: Value) -> (String, String) {
    match NetworkList::parse(json.to_string()) {
        Err(Error::Field { field, reason, .. }) => (field, reason),
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn lists_come_before_single_plugins_and_each_in_the_order_of_names() {
    let both = directory(&[
        ("00.conf", r#"{"name": "n", "type": "single"}"#),
        ("20.conflist", &a_list("n", "second")),
        ("10.conflist", &a_list("n", "first")),
        ("05.conflist.bak", &a_list("n", "backup")),
    ]);
    assert_eq!(plugins(&load(&[&both], "n").unwrap()), "first");
    fs::remove_file(both.path().join("10.conflist")).unwrap();
    assert_eq!(plugins(&load(&[&both], "n").unwrap()), "second");
    fs::remove_file(both.path().join("20.conflist")).unwrap();
    assert_eq!(plugins(&load(&[&both], "n").unwrap()), "single");
}

#[test]
fn a_single_plugin_becomes_a_list_of_one() {
    for extension in ["conf", "json"] {
        let file = json!({"name": "n", "cniVersion": "0.4.0", "type": "bridge", "x": 1});
        let single = directory(&[(&format!("a.{extension}"), &file.to_string())]);
        let network = load(&[&single], "n").unwrap();
        assert_eq!(network.version, Version::V0_4_0);
        assert_eq!(Value::from(network.plugins[0].fields.clone()), file);
        assert_eq!(network.plugins.len(), 1);
    }
}

#[test]
fn an_earlier_directory_wins_and_one_that_is_not_there_is_empty() {
    let one = directory(&[("z.conf", r#"{"name": "n", "type": "one"}"#)]);
    let other =
        directory(&[("a.conflist", &a_list("n", "other")), ("b.conflist", &a_list("m", "m"))]);
    let gone = directory(&[]);
    fs::remove_dir(gone.path()).unwrap();
    assert_eq!(plugins(&load(&[&gone, &one, &other], "n").unwrap()), "one");
    assert_eq!(plugins(&load(&[&gone, &one, &other], "m").unwrap()), "m");
}

#[test]
fn a_broken_file_hides_none_of_another_name_and_is_told_of_where_none_is_found() {
    let some = directory(&[
        ("00.conflist", "{"),
        ("01.conflist", r#"{"plugins": []}"#),
        ("02.conflist", r#"{"name": "../other", "plugins": []}"#),
        ("03.conflist", r#"{"name": "other", "cniVersion": "banana"}"#),
        ("10.conflist", &a_list("n", "good")),
    ]);
    std::os::unix::fs::symlink("/nowhere", some.path().join("04.conflist")).unwrap();
    assert_eq!(plugins(&load(&[&some], "n").unwrap()), "good");

    let message = load(&[&some], "absent").unwrap_err().to_string();
    assert!(message.starts_with("no network configuration named absent in /"), "{message}");
    for file in ["00", "01", "02", "04"] {
        assert!(message.contains(&format!("/{file}.conflist")), "{message}");
    }
    assert!(!message.contains("/03.") && !message.contains("/10."), "{message}");
}

#[test]
fn a_broken_file_of_the_wanted_name_is_an_error_and_not_passed_over() {
    let some = directory(&[
        ("00.conflist", r#"{"name": "n", "cniVersion": "7.0.0", "plugins": [{"type": "a"}]}"#),
        ("10.conflist", &a_list("n", "good")),
    ]);
    let message = load(&[&some], "n").unwrap_err().to_string();
    assert!(message.contains("/00.conflist: unsupported CNI version \"7.0.0\""), "{message}");
}

#[test]
fn plugins_of_the_networks_directory_follow_the_inlined_ones() {
    let some = directory(&[
        ("n.conflist", &a_list("n", "inlined")),
        ("n/20.conf", r#"{"type": "second"}"#),
        ("n/10.conf", r#"{"type": "first"}"#),
        ("n/30.conflist", "not looked at"),
    ]);
    let network = load(&[&some], "n").unwrap();
    assert_eq!(plugins(&network), "inlined first second");
    // What is remembered is complete, and takes no more plugins in.
    let remembered = NetworkList::parse(network.to_json().to_string()).unwrap();
    assert_eq!(plugins(&remembered), "inlined first second");
    assert_eq!(network.to_json()["loadOnlyInlinedPlugins"], true);
}

#[test]
fn a_list_may_have_all_its_plugins_in_the_networks_directory() {
    let some = directory(&[
        ("n.conflist", r#"{"name": "n", "cniVersion": "1.1.0"}"#),
        ("n/10.conf", r#"{"type": "only"}"#),
    ]);
    assert_eq!(plugins(&load(&[&some], "n").unwrap()), "only");
    fs::remove_file(some.path().join("n/10.conf")).unwrap();
    let message = load(&[&some], "n").unwrap_err().to_string();
    assert!(message.ends_with("n.conflist: network configuration: plugins: there is none"));
}

#[test]
fn only_inlined_plugins_where_the_list_says_so() {
    for truth in [json!(true), json!("True")] {
        let list = json!({"name": "n", "loadOnlyInlinedPlugins": truth,
                          "plugins": [{"type": "inlined"}]});
        let some =
            directory(&[("n.conflist", &list.to_string()), ("n/10.conf", r#"{"type": "no"}"#)]);
        assert_eq!(plugins(&load(&[&some], "n").unwrap()), "inlined");
    }
}

#[test]
fn a_broken_plugin_of_the_networks_directory_is_an_error_that_names_its_file() {
    let some = directory(&[("n.conflist", &a_list("n", "inlined")), ("n/10.conf", "{}")]);
    let message = load(&[&some], "n").unwrap_err().to_string();
    assert!(message.ends_with("/n/10.conf: network configuration: type: missing"), "{message}");
}

#[test]
fn the_newest_known_version_is_chosen() {
    let chosen = |version: Value, versions: Value| {
        let list = json!({"name": "n", "cniVersion": version, "cniVersions": versions,
                          "plugins": [{"type": "a"}]});
        NetworkList::parse(list.to_string()).map(|network| network.version)
    };
    assert_eq!(chosen(json!("0.4.0"), Value::Null), Ok(Version::V0_4_0));
    assert_eq!(chosen(Value::Null, Value::Null), Ok(Version::V0_1_0));
    assert_eq!(chosen(json!(""), json!([])), Ok(Version::V0_1_0));
    assert_eq!(chosen(json!("0.3.1"), json!(["1.0.0", "0.4.0"])), Ok(Version::V1_0_0));
    assert_eq!(chosen(json!("1.1.0"), json!(["1.0.0"])), Ok(Version::V1_1_0));
    assert_eq!(chosen(Value::Null, json!(["0.4.0", "1.2.0", "9.9.9"])), Ok(Version::V0_4_0));
    let unknown = |version: &str| Err(Error::UnsupportedVersion { version: version.into() });
    assert_eq!(chosen(json!("1.2.0"), Value::Null), unknown("1.2.0"));
    assert_eq!(chosen(json!("1.2.0"), json!(["1.3.0"])), unknown("1.3.0, 1.2.0"));
}

#[test]
fn switches_and_capabilities_are_read() {
    let list = json!({
        "name": "n", "disableCheck": true, "disableGC": "true", "own": [1],
        "plugins": [{"type": "a", "capabilities": {"mac": true, "ips": false, "bandwidth": true}}],
    });
    let network = NetworkList::parse(list.to_string()).unwrap();
    assert!(network.disable_check && network.disable_gc);
    assert_eq!(network.plugins[0].capabilities, ["bandwidth", "mac"]);
    assert_eq!(Value::from(network.extra.clone()), json!({"own": [1]}));
    assert_eq!(NetworkList::parse(network.to_json().to_string()), Ok(network));
}

#[test]
fn errors_name_the_field_and_the_value() {
    let with = |name: &str, value: Value| {
        let mut list = json!({"name": "n", "plugins": [{"type": "a"}]});
        list[name] = value;
        field_error(list)
    };
    assert_eq!(with("plugins", json!([])).0, "plugins");
    assert_eq!(with("plugins", json!([{"type": "a"}, null])).0, "plugins[1]");
    assert_eq!(with("plugins", json!([{"type": "a"}, {}])).0, "plugins[1].type");
    assert_eq!(with("plugins", json!([{"type": 1}])).0, "plugins[0].type");
    assert_eq!(with("disableCheck", json!("maybe")).0, "disableCheck");
    assert_eq!(with("cniVersions", json!(["1.0.0", 1])).0, "cniVersions[1]");
    assert_eq!(with("name", json!(null)).0, "name");
    assert_eq!(with("name", json!("")).0, "name");
    let (field, reason) = with("plugins", json!([{"type": "../../bin/sh"}]));
    assert_eq!(field, "plugins[0].type");
    assert!(reason.contains("\"../../bin/sh\""), "{reason}");
    let capabilities = json!([{"type": "a", "capabilities": {"mac": "yes"}}]);
    assert_eq!(with("plugins", capabilities).0, "plugins[0].capabilities.mac");
    assert_eq!(field_error(json!({"name": "n", "loadOnlyInlinedPlugins": true})).0, "plugins");
    assert_eq!(field_error(json!({"name": "n"})).0, "plugins");
}

#[test]
fn a_list_under_the_name_of_a_single_plugin_is_told_what_it_should_be_called() {
    let some = directory(&[("a.conf", &a_list("n", "a"))]);
    assert!(load(&[&some], "n").unwrap_err().to_string().contains("*.conflist"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}\",:a-z0-9. ]{0,60}") {
        let _ = NetworkList::parse(text);
    }
}
