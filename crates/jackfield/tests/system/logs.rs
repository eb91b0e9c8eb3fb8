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

/// As systemd says it of what it has connected.
const BEFORE_JOURNAL: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2)
                              exec $JACKFIELD --config $CONFIG run";
const TARGET: &str = "jackfield_hostnet::agent::report";

/// In the place of the journal.
fn listen(host: &Host) -> UnixDatagram {
    let bind = || {
        std::fs::create_dir_all("/run/systemd/journal").unwrap();
        UnixDatagram::bind("/run/systemd/journal/socket").unwrap()
    };
    let journal = host.run(bind).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    journal
}

fn next(journal: &UnixDatagram) -> Vec<(String, String)> {
    let mut entry = [0; 65_536];
    let length = journal.recv(&mut entry).unwrap();
    fields(&entry[..length])
}

fn value(fields: &[(String, String)], name: &str) -> Option<String> {
    fields.iter().find(|(is, _)| is == name).map(|(_, value)| value.clone())
}

#[test]
fn where_the_journal_is_behind_standard_error_its_entries_have_fields() {
    let stage = Stage::new();
    let journal = listen(&stage.a);
    let (_process, _config) = start(&stage.a, BEFORE_JOURNAL);
    let attached = stage.attach(2, 1, 2);
    let plugged = loop {
        let fields = next(&journal);
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
    assert_eq!((told("PRIORITY"), told("TARGET")), ("6".to_owned(), TARGET.to_owned()));
    assert!(told("JACKFIELD_DURATION_S").parse::<f64>().unwrap() > 0.0);
}

#[test]
fn a_journal_that_hangs_costs_messages_and_nothing_else() {
    let stage = Stage::new();
    let journal = listen(&stage.a);
    // Everybody shares its queue.
    let fill = || {
        let other = UnixDatagram::unbound().unwrap();
        other.set_nonblocking(true).unwrap();
        let send = || other.send_to(b"MESSAGE=x\n", "/run/systemd/journal/socket").is_ok();
        std::iter::repeat_with(send).take_while(|sent| *sent).count()
    };
    let full = stage.a.run(fill).unwrap();
    let (_process, _config) = start(&stage.a, BEFORE_JOURNAL);
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    let rules = || shell(&stage.a, "ip rule show table 10001");
    let before = rules();
    shell(&stage.a, "ip rule delete table 10001");
    eventually("it is put back", PATIENCE, || rules() == before);

    // Once it reads again, what was lost is said.
    for _ in 0..full {
        assert_eq!(value(&next(&journal), "MESSAGE").as_deref(), Some("x"));
    }
    stage.lab.detach(attached.mac).unwrap();
    let told = next(&journal);
    let text = value(&told, "MESSAGE").unwrap();
    let (count, what) = text.split_once(' ').unwrap();
    assert!(count.parse::<u32>().unwrap() >= 1, "{text}");
    assert_eq!(what, "messages lost: the journal did not take them");
    assert_eq!(value(&told, "PRIORITY").as_deref(), Some("4"));
    while value(&next(&journal), "JACKFIELD_EVENT").as_deref() != Some("unplugged") {}
}
