//! The command line's side of the specification: versions, errors, STATUS.

use serde_json::{Value, json};

use crate::harness::*;

#[test]
fn version_lists_those_with_chains() {
    let place = Place::empty();
    let answer = place.call("VERSION").result();
    let expected = json!({
        "cniVersion": "1.1.0",
        "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    });
    assert_eq!(answer, expected);
}

#[test]
fn row_the_codes_of_bad_input_are_the_go_plugins() {
    let place = Place::new();
    for command in ["ADD", "CHECK"] {
        let code = |stdin: &str| place.call(command).stdin(stdin).error().0;
        assert_eq!(code("{"), 6, "{command}");
        assert_eq!(code("{}"), 7, "{command}");
        let (code, message) = place.call(command).field("cniVersion", json!("9.9.9")).error();
        assert_eq!(code, 1, "{command}");
        for version in ["9.9.9", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            assert!(message.contains(version), "{command}: {message}");
        }
        let (code, _) = place.call(command).field("cniVersion", json!("0.2.0")).error();
        assert_eq!(code, 1, "{command}");
    }
    assert_eq!(place.call("NONSENSE").error().0, 4);
}

#[test]
fn an_error_is_json_in_the_configurations_version() {
    let place = Place::new();
    let call = place.call("ADD").variable("CNI_IFNAME", "eth9").field("cniVersion", "1.1.0".into());
    let output = call.output();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["cniVersion"], "1.1.0");
    assert_eq!(error["code"], 3);
}

fn status(place: &Place) -> Call<'_> {
    let call = place.call("STATUS").field("cniVersion", json!("1.1.0"));
    call.field("prevResult", Value::Null)
}

#[test]
fn status_is_good_where_an_add_works_and_leaves_nothing() {
    let mut place = Place::new();
    let before = place.state();
    status(&place).succeed();
    assert_eq!(place.state(), before);
}

#[test]
fn status_tells_where_an_add_cannot_work() {
    let place = Place::new();
    let mut command = status(&place).command(&["setpriv", "--bounding-set=-net_admin,-sys_admin"]);
    let mut child = command.spawn().unwrap();
    let config = status(&place).config.to_string();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 50, "{error}");
    assert!(error["details"].as_str().unwrap().contains("network namespace"), "{error}");
}
