//! Metrics, as a scraper gets them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use jackfield_lab::Host;

use crate::harness::*;

/// Samples by their name and labels, as written. Fails where the text is not of the format 0.0.4.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut family: Option<(String, String)> = None;
    let mut lines = text.lines();
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, _) = help.split_once(' ').unwrap();
            assert!(is_name(name) && families.insert(name.to_owned()), "{line}");
            let kind = lines.next().unwrap().strip_prefix("# TYPE ").unwrap();
            let kind = kind.strip_prefix(name).unwrap().trim_start();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}: {kind}");
            family = Some((name.to_owned(), kind.to_owned()));
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let (of, kind) = family.as_ref().unwrap();
        let end = name.strip_prefix(of.as_str()).unwrap();
        let ends: &[&str] =
            if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(ends.contains(&end), "{line} is of {of}, a {kind}");
        if !labels.is_empty() {
            for label in labels.strip_suffix('}').unwrap().split("\",") {
                let (name, value) = label.split_once("=\"").unwrap();
                assert!(is_name(name), "{line}");
                assert!(!value.trim_end_matches('"').contains(['"', '\n']), "{line}");
            }
        }
        let value: f64 = value.parse().unwrap();
        assert_eq!(samples.insert(series.to_owned(), value), None, "{series} is there twice");
    }
    samples
}

/// A whole answer to a request.
fn answer(mut stream: impl Read + Write, request: &str) -> (String, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn scrape(host: &Host) -> BTreeMap<String, f64> {
    let stream = host.run(|| TcpStream::connect("127.0.0.1:9106")).unwrap().unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9106\r\nAccept: text/plain\r\n\r\n";
    let (head, body) = answer(stream, request);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
    parse(&body)
}

#[test]
fn what_happens_is_counted_and_what_is_so_is_told() {
    let stage = Stage::new();
    let config = format!("{LAB_CONFIG}metrics = \"127.0.0.1:9106\"\n");
    let agent = Agent::with_config(&stage.a, &config);
    agent.wait_until_started();
    let before = scrape(&stage.a);
    assert_eq!(before["jackfield_plugs_total"], 0.0);
    assert_eq!(before["jackfield_build_info{version=\"0.1.0\"}"], 1.0);
    assert_eq!(before["jackfield_config_last_reload_successful"], 1.0);

    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    eventually("it is ready", PATIENCE, || scrape(&stage.a)["jackfield_plugs_total"] == 1.0);
    let plugged = scrape(&stage.a);
    assert_eq!(plugged["jackfield_time_to_ready_seconds_count"], 1.0);
    assert_eq!(plugged["jackfield_time_to_ready_seconds_bucket{le=\"60\"}"], 1.0);
    let took = plugged["jackfield_time_to_ready_seconds_sum"];
    assert!(took > 0.0 && took < 20.0, "{took} s");
    let state =
        |name: &str| format!("jackfield_interface_state{{interface=\"eth1\",state=\"{name}\"}}");
    assert_eq!((plugged[&state("configured")], plugged[&state("pending")]), (1.0, 0.0));
    let addresses = plugged["jackfield_interface_addresses{interface=\"eth1\"}"];
    assert_eq!(addresses, attached.addresses.len() as f64);
    assert_eq!(plugged["jackfield_metadata_reachable"], 1.0);
    for counter in ["jackfield_metadata_requests_total", "jackfield_netlink_writes_total"] {
        assert!(plugged[counter] > before[counter], "{counter}");
    }

    let repaired = "jackfield_drift_repaired_total{object=\"rule\"}";
    assert_eq!(plugged.get(repaired), None);
    shell(&stage.a, "ip rule delete table 10001");
    eventually("it is put back", PATIENCE, || scrape(&stage.a).contains_key(repaired));
    assert_eq!(scrape(&stage.a)[repaired], 1.0);

    stage.lab.detach(attached.mac).unwrap();
    eventually("it is gone", PATIENCE, || scrape(&stage.a)["jackfield_unplugs_total"] == 1.0);
    let gone = scrape(&stage.a);
    assert_eq!(gone.get(&state("configured")), None);
    agent.stop();
}

#[test]
fn a_service_that_fails_is_counted_by_how_it_fails() {
    let stage = Stage::new();
    let config = format!("{LAB_CONFIG}refresh = \"1s\"\nmetrics = \"unix:/run/metrics\"\n");
    let agent = Agent::with_config(&stage.a, &config);
    agent.wait_until_started();
    let request = "GET /metrics HTTP/1.0\r\n\r\n";
    let scrape = || {
        let stream = stage.a.run(|| UnixStream::connect("/run/metrics")).unwrap().unwrap();
        parse(&answer(stream, request).1)
    };
    eventually("it has answered", PATIENCE, || {
        scrape().get("jackfield_metadata_reachable") == Some(&1.0)
    });
    let effect = jackfield_lab::emulator::Effect::Status(503);
    stage.lab.cloud().add_fault(jackfield_lab::emulator::Fault::new(effect));
    eventually("it counts as throttled", PATIENCE, || {
        let told = scrape();
        told["jackfield_metadata_errors_total{kind=\"throttled\"}"] > 0.0
            && told["jackfield_metadata_reachable"] == 0.0
    });
    let problem = "jackfield_problems{interface=\"eth0\",code=\"metadata-unreachable\"}";
    assert_eq!(scrape()[problem], 1.0);
    let stream = stage.a.run(|| UnixStream::connect("/run/metrics")).unwrap().unwrap();
    assert!(answer(stream, "GET / HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404 "));
    agent.stop();
}

#[test]
fn an_address_that_is_taken_keeps_the_network_from_nothing() {
    let stage = Stage::new();
    let taken = stage.a.run(|| std::net::TcpListener::bind("127.0.0.1:9106")).unwrap().unwrap();
    let config = format!("{LAB_CONFIG}metrics = \"127.0.0.1:9106\"\n");
    let agent = Agent::with_config(&stage.a, &config);
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    let warned =
        |line: &String| line.contains("warning: agent.metrics: cannot listen on 127.0.0.1");
    // What else the file says is not kept from taking effect.
    succeed(&stage.a, &["reload"]);
    drop(taken);
    agent.configure(&format!("{config}refresh = \"1s\"\n"));
    succeed(&stage.a, &["reload"]);
    scrape(&stage.a);
    assert_eq!(agent.log().iter().filter(|line| warned(line)).count(), 1, "{:#?}", agent.log());
    agent.stop();
}

#[test]
fn an_address_that_is_taken_is_tried_again_and_one_that_is_not_there_yet_is_listened_on() {
    let stage = Stage::new();
    let taken = stage.a.run(|| std::net::TcpListener::bind("127.0.0.1:9106")).unwrap().unwrap();
    let config = format!("{LAB_CONFIG}refresh = \"1s\"\n");
    let agent = Agent::with_config(&stage.a, &format!("{config}metrics = \"127.0.0.1:9106\"\n"));
    agent.wait_until_started();
    drop(taken);
    let connect = |to: &'static str| stage.a.run(move || TcpStream::connect(to)).unwrap().is_ok();
    eventually("it is tried again", PATIENCE, || connect("127.0.0.1:9106"));

    for (address, to) in
        [("192.0.2.77", "192.0.2.77:9106"), ("2001:db8:77::1", "[2001:db8:77::1]:9106")]
    {
        agent.configure(&format!("{config}metrics = \"{to}\"\n"));
        succeed(&stage.a, &["reload"]);
        shell(&stage.a, &format!("ip address add {address} dev lo"));
        eventually("it is reached", PATIENCE, || connect(to));
    }
    agent.stop();
}
