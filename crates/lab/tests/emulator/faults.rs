//! Every way of not answering.

use super::*;
use jackfield_lab::emulator::{Effect, Fault};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// The kind of error that a client meets under a fault on `mac`; other paths stay healthy.
fn failure(effect: Effect) -> ErrorKind {
    let service = service();
    let mut client = service.client().with_token();
    client.timeout = Duration::from_millis(100);
    let fault = service.cloud.add_fault(Fault::new(effect).on_path("*/mac"));
    let error = client.get("/latest/meta-data/mac").unwrap_err();
    assert!(service.cloud.requests().last().unwrap().faulty);
    assert_eq!(client.get(MACS).unwrap().status, 200);
    service.cloud.clear_fault(fault);
    assert_eq!(client.get("/latest/meta-data/mac").unwrap().status, 200);
    error.kind()
}

/// What a client is given under a fault on everything but tokens.
fn given(effect: Effect) -> Reply {
    let service = service();
    let client = service.client().with_token();
    service.cloud.add_fault(Fault::new(effect));
    client.get("/latest/meta-data/mac").unwrap()
}

#[test]
fn statuses() {
    for status in [401, 403, 404, 429, 500, 503] {
        let reply = given(Effect::Status(status));
        assert_eq!(reply.status, status);
        assert!(reply.text().contains(&format!("<title>{status} - ")), "{reply:?}");
    }
}

#[test]
fn no_answer() {
    assert_eq!(failure(Effect::Hang), ErrorKind::WouldBlock);
    assert_eq!(failure(Effect::Reset), ErrorKind::ConnectionReset);
    assert_eq!(failure(Effect::Close), ErrorKind::UnexpectedEof);
}

#[test]
fn truncated_answers() {
    assert_eq!(failure(Effect::Truncate(5)), ErrorKind::UnexpectedEof);
    assert_eq!(failure(Effect::Truncate(1_000)), ErrorKind::UnexpectedEof);
    let reply = given(Effect::TruncateSilently(5));
    assert_eq!((reply.header("content-length"), reply.text().as_str()), (None, "02:ec"));
}

#[test]
fn garbage() {
    assert_eq!(failure(Effect::GarbageStatusLine), ErrorKind::InvalidData);
    let reply = given(Effect::GarbageBody);
    assert_eq!(reply.status, 200);
    assert!(String::from_utf8(reply.body).is_err());
    assert_eq!(given(Effect::Body(b"no MAC".to_vec())).text(), "no MAC");
}

#[test]
fn too_much() {
    let reply = given(Effect::Oversize(100_001));
    assert_eq!((reply.status, reply.body.len()), (200, 100_001));
    for effect in [Effect::EndlessLine, Effect::EndlessLines, Effect::EndlessHeader] {
        let service = service();
        let client = service.client().with_token();
        service.cloud.add_fault(Fault::new(effect.clone()));
        let mut stream = client.connect().unwrap();
        client.send(&mut stream, "GET", MACS).unwrap();
        let mut much = vec![0; 3_000_000];
        std::io::Read::read_exact(&mut stream, &mut much).unwrap();
        let lines = much.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines > 1_000, effect == Effect::EndlessLines);
    }
}

#[test]
fn slow_answers() {
    let began = Instant::now();
    assert_eq!(given(Effect::Delay(Duration::from_millis(50))).status, 200);
    assert!(began.elapsed() >= Duration::from_millis(50));
    let began = Instant::now();
    assert_eq!(given(Effect::Drip(Duration::from_millis(1))).text(), "02:ec:20:00:00:01");
    assert!(began.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_fault_on_tokens_leaves_the_tree_alone() {
    let service = service();
    let client = service.client().with_token();
    service.cloud.add_fault(Fault::new(Effect::Status(503)).on_method("PUT"));
    assert_eq!(client.put("/latest/api/token").unwrap().status, 503);
    assert_eq!(client.get(MACS).unwrap().status, 200);
}

#[test]
fn the_log_tells_what_a_fault_gave() {
    let service = service();
    let mut client = service.client();
    client.timeout = Duration::from_millis(10);
    for effect in [Effect::Status(429), Effect::Hang, Effect::GarbageBody] {
        service.cloud.add_fault(Fault::new(effect).times(1));
        let _ = client.get(MACS);
    }
    let seen: Vec<_> =
        service.cloud.requests().iter().map(|record| (record.status, record.faulty)).collect();
    assert_eq!(seen, [(Some(429), true), (None, true), (Some(200), true)]);
}

#[test]
fn the_service_stops_in_the_midst_of_faults() {
    for effect in [
        Effect::Hang,
        Effect::EndlessLines,
        Effect::Drip(Duration::from_secs(3600)),
        Effect::Delay(Duration::from_secs(3600)),
    ] {
        let service = service();
        let client = service.client();
        service.cloud.add_fault(Fault::new(effect));
        let mut streams: Vec<_> = (0..8).map(|_| client.connect().unwrap()).collect();
        for stream in &mut streams {
            client.send(stream, "GET", MACS).unwrap();
        }
        let all = |seen: &[_]| seen.len() == 8;
        assert!(service.cloud.wait_for_requests(0, Duration::from_secs(5), all));
        let began = Instant::now();
        drop(service);
        assert!(began.elapsed() < Duration::from_secs(1));
    }
}
