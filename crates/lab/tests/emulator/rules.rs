//! Tokens, paths, error bodies, connections, the log.

use super::*;
use jackfield_lab::emulator::{ConnectionUse, Connections, TokenKind};
use std::io::Read;
use std::time::{Duration, Instant};

const LIFE: &str = "X-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "X-aws-ec2-metadata-token";

#[test]
fn a_token_opens_the_tree() {
    let service = service();
    let reply = service.client().with_header(LIFE, "21600").put("/latest/api/token").unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header(LIFE), Some("21600"));
    let client = service.client().with_header(TOKEN, &reply.text());
    let reply = client.get("/latest/meta-data/mac").unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "02:ec:20:00:00:01"));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert_eq!(reply.header("server"), Some("EC2ws"));
    assert_eq!(reply.header("content-length"), Some("17"));
    assert_eq!(reply.header("connection"), Some("close"));
}

#[test]
fn a_wrong_use_has_the_status_that_ec2_gives() {
    let service = service();
    let client = || service.client();
    let status =
        |client: Client, method: &str, path: &str| client.ask(method, path).unwrap().status;
    let token = "/latest/api/token";
    for life in ["0", "21601", "six hours"] {
        assert_eq!(status(client().with_header(LIFE, life), "PUT", token), 400);
    }
    assert_eq!(status(client(), "PUT", token), 400);
    let proxied = client().with_header(LIFE, "60").with_header("X-Forwarded-For", "10.0.0.9");
    assert_eq!(status(proxied, "PUT", token), 403);
    assert_eq!(status(client().with_header(LIFE, "60"), "PUT", "/2021-07-15/api/token"), 403);
    assert_eq!(status(client().with_header(LIFE, "60"), "PUT", "/latest/meta-data/mac"), 405);
    assert_eq!(status(client(), "GET", "/latest/meta-data/mac"), 401);
    assert_eq!(status(client().with_header(TOKEN, "made up"), "GET", MACS), 401);
    assert_eq!(status(client().with_token(), "GET", "/latest/meta-data/no-such-key"), 404);
    assert_eq!(status(client().with_token(), "GET", "/latest/meta-data/mac/"), 404);
    assert_eq!(status(client().with_token(), "GET", token), 405);
    assert_eq!(status(client().with_token(), "DELETE", "/latest/meta-data/mac"), 405);
}

#[test]
fn an_error_has_an_xhtml_body() {
    let reply = service().client().get(MACS).unwrap();
    assert_eq!(reply.header("content-type"), Some("text/html"));
    let body = reply.text();
    assert!(body.starts_with("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n"), "{body}");
    assert!(body.contains("<title>401 - Unauthorized</title>"), "{body}");
}

#[test]
fn tokens_expire_at_will() {
    let service = service();
    let client = service.client().with_token();
    assert_eq!(client.get(MACS).unwrap().status, 200);
    service.cloud.expire_tokens();
    assert_eq!(client.get(MACS).unwrap().status, 401);
}

#[test]
fn listings_lead_to_the_keys() {
    let service = service();
    let at = |path: &str| service.text(path).unwrap();
    assert_eq!(at("/latest/"), "meta-data");
    assert_eq!(at("/latest/meta-data/"), "instance-id\nlocal-hostname\nlocal-ipv4\nmac\nnetwork/");
    assert_eq!(at("/latest/meta-data"), at("/latest/meta-data/"));
    assert_eq!(at("/2021-07-15/meta-data/instance-id"), "i-a");
    assert_eq!(at("/latest/meta-data/local-ipv4"), "10.0.0.10");
    assert_eq!(at("/latest/meta-data/network/"), "interfaces/");
    assert_eq!(at("/latest/meta-data/network/interfaces/"), "macs/");
    assert_eq!(at(MACS), "02:ec:20:00:00:01/");
    assert_eq!(at("/latest/meta-data/network/interfaces/macs"), "02:ec:20:00:00:01/");
}

#[test]
fn a_closed_connection_is_closed_and_a_kept_one_carries_on() {
    let service = service();
    let client = service.client().with_token();
    let mut stream = client.connect().unwrap();
    client.ask_on(&mut stream, "GET", MACS).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed");

    service.cloud.set_connections(Connections::Kept);
    let mark = service.cloud.request_count();
    let mut stream = client.connect().unwrap();
    for _ in 0..3 {
        let reply = client.ask_on(&mut stream, "GET", MACS).unwrap();
        assert_eq!((reply.status, reply.header("connection")), (200, None));
    }
    let seen: Vec<_> =
        service.cloud.requests_since(mark).iter().map(|record| record.connection).collect();
    assert_eq!(seen, [ConnectionUse::New, ConnectionUse::Reused, ConnectionUse::Reused]);
    let client = client.with_header("Connection", "close");
    assert_eq!(client.ask_on(&mut stream, "GET", MACS).unwrap().status, 200);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "closed at the client's wish");
}

#[test]
fn a_kept_connection_can_end_without_a_word() {
    let service = service();
    service.cloud.set_connections(Connections::ClosedUnannounced(2));
    let client = service.client().with_token();
    let mut stream = client.connect().unwrap();
    for _ in 0..2 {
        assert_eq!(client.ask_on(&mut stream, "GET", MACS).unwrap().header("connection"), None);
    }
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

#[test]
fn two_requests_in_one_packet_have_two_answers() {
    let service = service();
    service.cloud.set_connections(Connections::Kept);
    let client = service.client().with_token();
    let mut stream = client.connect().unwrap();
    client.send(&mut stream, "GET", "/latest/meta-data/mac").unwrap();
    let second = client.ask_on(&mut stream, "GET", MACS).unwrap();
    assert_eq!(second.text(), "02:ec:20:00:00:01");
}

#[test]
fn every_request_is_in_the_log() {
    let service = service();
    let before = Instant::now();
    service.client().get(MACS).unwrap();
    service.client().with_header(TOKEN, "made up").get(MACS).unwrap();
    service.client().with_token().get("/latest/meta-data/absent").unwrap();
    let log = service.cloud.requests();
    let seen: Vec<_> = log
        .iter()
        .map(|record| (record.method.as_str(), record.path.as_str(), record.status, record.token))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET", MACS, Some(401), TokenKind::None),
            ("GET", MACS, Some(401), TokenKind::Invalid),
            ("PUT", "/latest/api/token", Some(200), TokenKind::None),
            ("GET", "/latest/meta-data/absent", Some(404), TokenKind::Valid),
        ]
    );
    assert!(log.iter().all(|record| record.instance.as_deref() == Some("i-a")));
    assert!(log.iter().all(|record| record.peer.ip().is_loopback() && !record.faulty));
    assert!(log.iter().all(|record| record.local == service.emulator.addresses()[0]));
    assert!(log.is_sorted_by_key(|record| record.at) && log[0].at >= before);
}

#[test]
fn a_test_can_wait_for_a_request() {
    let service = service();
    let mark = service.cloud.request_count();
    let waits = |timeout| {
        service.cloud.wait_for_requests(mark, timeout, |seen| seen.iter().any(|r| r.path == MACS))
    };
    assert!(!waits(Duration::from_millis(20)));
    std::thread::scope(|scope| {
        scope.spawn(|| service.client().get(MACS).unwrap());
        assert!(waits(Duration::from_secs(5)));
    });
}

#[test]
fn many_clients_are_served_side_by_side() {
    let service = service();
    let client = service.client().with_token();
    std::thread::scope(|scope| {
        let asks: Vec<_> = (0..64).map(|_| scope.spawn(|| client.get(MACS).unwrap())).collect();
        assert!(asks.into_iter().all(|ask| ask.join().unwrap().status == 200));
    });
}

#[test]
fn what_is_no_http_ends_its_connection_and_nothing_else() {
    let service = service();
    let mut stream = service.client().connect().unwrap();
    std::io::Write::write_all(&mut stream, b"\x16\x03\x01 hello\r\n\r\n").unwrap();
    let _ = stream.read(&mut [0]);
    assert_eq!(service.client().with_token().get(MACS).unwrap().status, 200);
}
