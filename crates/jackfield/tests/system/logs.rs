//! Messages with fields: as JSON, and as entries of the journal.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use jackfield_lab::{Host, Process};
use serde_json::Value;

use crate::harness::*;

/// The agent, with its standard error.
fn start(host: &Host, script: &str) -> (Process, ConfigFile) {
    let config = ConfigFile::new(LAB_CONFIG);
    let mut command = host.command("sh").unwrap();
    command.env("JACKFIELD", JACKFIELD).env("CONFIG", config.path());
    let process = Process::start(command.args(["-ec", script]).stderr(Stdio::piped())).unwrap();
    (process, config)
}

#[test]
fn a_json_line_says_which_interface_was_plugged_and_how_long_it_took() {
    let stage = Stage::new();
    let script = "exec $JACKFIELD --config $CONFIG --log-format json run";
    let (mut process, _config) = start(&stage.a, script);
    let attached = stage.attach(2, 1, 2);
    let lines = BufReader::new(process.child().stderr.take().unwrap()).lines();
    let told = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let plugged = told.into_iter().find(|line| line["event"] == "plugged").unwrap();
    assert_eq!(plugged["interface"], "eth1");
    assert_eq!(plugged["mac"], attached.mac.to_string());
    assert!(plugged["duration_s"].as_f64().unwrap() > 0.0, "{plugged}");
    assert_eq!(plugged["level"], "info");
    assert!(plugged["message"].as_str().unwrap().starts_with("eth1 ("), "{plugged}");
}

/// The fields of an entry, as <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/> has them.
fn fields(entry: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut rest = entry;
    while let Some(end) = rest.iter().position(|octet| *octet == b'\n') {
        let (line, after) = rest.split_at(end);
        rest = &after[1..];
        let line = String::from_utf8(line.to_vec()).unwrap();
        if let Some((name, value)) = line.split_once('=') {
            fields.push((name.to_owned(), value.to_owned()));
            continue;
        }
        let (length, after) = rest.split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (value, after) = after.split_at(length);
        fields.push((line, String::from_utf8(value.to_vec()).unwrap()));
        rest = &after[1..];
    }
    assert_eq!(rest, b"");
    fields
}

#[test]
fn where_the_journal_is_behind_standard_error_its_entries_have_fields() {
    let stage = Stage::new();
    let journal = stage
        .a
        .run(|| {
            std::fs::create_dir_all("/run/systemd/journal").unwrap();
            UnixDatagram::bind("/run/systemd/journal/socket").unwrap()
        })
        .unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    // As systemd says it of what it has connected.
    let script = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)
                  exec $JACKFIELD --config $CONFIG run";
    let (_process, _config) = start(&stage.a, script);
    let attached = stage.attach(2, 1, 2);
    let mut entry = [0; 65_536];
    let mut next = || {
        let length = journal.recv(&mut entry).unwrap();
        fields(&entry[..length])
    };
    let value = |fields: &[(String, String)], name: &str| {
        fields.iter().find(|(is, _)| is == name).map(|(_, value)| value.clone())
    };
    let plugged = loop {
        let fields = next();
        if value(&fields, "JACKFIELD_EVENT").as_deref() == Some("plugged") {
            break fields;
        }
    };
    let told = |name: &str| value(&plugged, name).unwrap_or_else(|| panic!("{name}: {plugged:?}"));
    assert_eq!(told("JACKFIELD_INTERFACE"), "eth1");
    assert_eq!(told("JACKFIELD_MAC"), attached.mac.to_string());
    assert_eq!(told("MESSAGE_ID"), "1546765731e44ec9973942b365ea29ee");
    assert_eq!(told("SYSLOG_IDENTIFIER"), "jackfield");
    assert!(told("MESSAGE").starts_with("eth1 ("));
    assert!(told("PRIORITY").parse::<u8>().unwrap() <= 6);
    assert!(told("JACKFIELD_DURATION_S").parse::<f64>().unwrap() > 0.0);
}
