//! What the client sends, byte by byte, and what it makes of answers that are almost right.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod scripted;

use std::fmt::Write;
use std::time::{Duration, Instant};

use jackfield_metadata::{Ask, Client, ClientOptions, Error, MacAddr};
use proptest::prelude::*;
use scripted::{Scripted, TOKEN};

const MAC: &str = "02:ec:20:00:00:01";

/// A server that gives a token, and this answer to everything else.
fn scripted(answer: impl Into<Vec<u8>>) -> Scripted {
    let token = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TOKEN}", TOKEN.len());
    Scripted::new(token, answer)
}

fn client(server: &Scripted) -> Client {
    Client::new(ClientOptions {
        endpoints: vec![format!("http://{}", server.address).parse().unwrap()],
        request_timeout: Duration::from_secs(10),
        packets_per_second: 1_000_000,
        ..ClientOptions::default()
    })
}

/// What the client takes from this answer to a request for the primary's address.
fn accepted(answer: impl Into<Vec<u8>>) -> Result<MacAddr, Error> {
    let server = scripted(answer);
    client(&server).primary(Instant::now() + Duration::from_secs(20))
}

/// The same for an answer that is to be refused, and is asked for again until the deadline.
fn refused(answer: impl Into<Vec<u8>>) -> Error {
    let server = scripted(answer);
    client(&server).primary(Instant::now() + Duration::from_millis(300)).unwrap_err()
}

#[test]
fn requests_are_what_the_service_documents() {
    let server = scripted(format!("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{MAC}"));
    let client = client(&server);
    client.primary(Instant::now() + Duration::from_secs(20)).unwrap();
    let address = server.address;
    assert_eq!(
        server.requests(),
        [
            format!(
                "PUT /latest/api/token HTTP/1.1\r\nHost: {address}\r\nUser-Agent: jackfield\r\n\
                 Accept: */*\r\nX-aws-ec2-metadata-token-ttl-seconds: 21600\r\n\
                 Content-Length: 0\r\n\r\n"
            ),
            format!(
                "GET /latest/meta-data/mac HTTP/1.1\r\nHost: {address}\r\nUser-Agent: jackfield\r\n\
                 Accept: */*\r\nX-aws-ec2-metadata-token: {TOKEN}\r\n\r\n"
            ),
        ]
    );
}

#[test]
fn answers_of_known_length_are_accepted() {
    let head = "HTTP/1.1 200 OK\r\n";
    for answer in [
        format!("{head}Content-Length: 17\r\n\r\n{MAC}"),
        format!("{head}content-length:17\r\nContent-Length: 17\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 18\r\n\r\n{MAC}\n"),
        format!("HTTP/1.0 200 OK\r\nContent-Length: 17\r\n\r\n{MAC}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n11\r\n{MAC}\r\n0\r\n\r\n"),
        format!(
            "{head}Transfer-Encoding: Chunked\r\n\r\n\
             3;a=b\r\n02:\r\n0e\r\nec:20:00:00:01\r\n0\r\nX-Trailer: x\r\n\r\n"
        ),
        // What comes after the answer is not part of it.
        format!("{head}Content-Length: 17\r\n\r\n{MAC}HTTP/1.1 500 No\r\n\r\n"),
    ] {
        assert_eq!(accepted(answer.clone()), Ok(MAC.parse().unwrap()), "{answer:?}");
    }
}

#[test]
fn answers_that_may_be_a_part_of_the_whole_are_refused() {
    let head = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    for answer in [
        String::new(),
        "HTTP/1.1 200".into(),
        format!("{head}Content-Length: 17\r\n"),
        format!("{head}\r\n{MAC}"),
        format!("{head}Connection: close\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 18\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 17\r\nContent-Length: 18\r\n\r\n{MAC}\n"),
        format!("{head}Content-Length: +17\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 17, 17\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n{MAC}"),
        format!("{head}Content-Length:\r\n\r\n{MAC}"),
        format!("{head}Content-Length: 17\r\nTransfer-Encoding: chunked\r\n\r\n{MAC}"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n11\r\n{MAC}\r\n0\r\n\r\n"),
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{MAC}\r\n0\r\n\r\n"),
        format!("{head}Content-Encoding: gzip\r\nContent-Length: 17\r\n\r\n{MAC}"),
        format!("{chunked}11\r\n{MAC}\r\n"),
        format!("{chunked}11\r\n{MAC}\r\n0\r\n"),
        format!("{chunked}10\r\n{MAC}\r\n0\r\n\r\n"),
        format!("{chunked}0x11\r\n{MAC}\r\n0\r\n\r\n"),
        format!("{chunked}\r\n{MAC}\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffff\r\n{MAC}"),
        format!("{chunked}fffffffffffffff\r\n{MAC}"),
        format!("{chunked}{}", "1".repeat(10_000)),
        format!("{chunked}0\r\n{}\r\n", "X: y\r\n".repeat(100)),
        format!("HTTP/1.1 100 Continue\r\n\r\n{head}Content-Length: 17\r\n\r\n{MAC}"),
        format!("HTTP/2 200 OK\r\nContent-Length: 17\r\n\r\n{MAC}"),
        format!("{head}X: {}\r\nContent-Length: 17\r\n\r\n{MAC}", "x".repeat(10_000)),
        format!("{head}{}Content-Length: 17\r\n\r\n{MAC}", "X: y\r\n".repeat(100)),
        MAC.into(),
    ] {
        let error = refused(answer.clone());
        assert!(error.is_transient(), "{answer:?}: {error}");
    }
}

#[test]
fn too_large_answers_are_refused() {
    let many = "02:ec:20:00:00:01/\n".repeat(4097);
    let long = "x".repeat(64 * 1024 + 1);
    for body in [many, long] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        for answer in
            [format!("{head}{body}"), format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())]
        {
            let server = scripted(answer);
            let deadline = Instant::now() + Duration::from_millis(500);
            let error = client(&server).listed(deadline).unwrap_err();
            assert!(error.is_transient(), "{error}");
        }
    }
}

#[test]
fn redirects_are_not_followed() {
    let elsewhere = scripted("");
    let to = elsewhere.address;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let server = scripted(format!(
            "HTTP/1.1 {status}\r\nLocation: http://{to}/latest/meta-data/mac\r\n\
             Content-Length: 0\r\n\r\n"
        ));
        let client = client(&server);
        let error = client.primary(Instant::now() + Duration::from_secs(20)).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        assert_eq!(server.requests().len(), 2);
    }
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
}

#[test]
fn tokens_that_would_break_a_request_are_refused() {
    for token in ["", "a b", "a\r\nX: y", "a\n", "\u{e9}", &"x".repeat(3000)] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{token}", token.len());
        let server = Scripted::new(answer, "");
        let error =
            client(&server).primary(Instant::now() + Duration::from_millis(200)).unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert!(server.requests().iter().all(|request| request.starts_with("PUT ")));
    }
}

/// One answer that is the listing of an interface and each of its keys at once.
fn ask_all(answer: Vec<u8>) {
    let server = scripted(answer);
    let client = client(&server);
    let deadline = Instant::now() + Duration::from_millis(30);
    let _ = client.listed(deadline);
    let _ = client.interfaces(&[(MAC.parse().unwrap(), Ask::Everything)], deadline);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_on_the_wire_make_the_client_panic(bytes: Vec<u8>) {
        ask_all(bytes);
    }

    #[test]
    fn no_body_makes_the_client_panic(body in "[0-9a-f:./\n-]{0,200}|\\PC{0,100}") {
        let mut answer = String::new();
        let _ = write!(answer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        ask_all(answer.into_bytes());
    }

    #[test]
    fn no_chunks_make_the_client_panic(chunks: Vec<u8>) {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        answer.extend(chunks);
        ask_all(answer);
    }
}
