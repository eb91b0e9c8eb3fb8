//! Clients that hang, send garbage, send without end or never read.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

struct Stage {
    directory: PathBuf,
    server: Server,
    now: Instant,
}

impl Stage {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("jackfield-server-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut server = Server::new(Door::api(&directory.join("name")).unwrap());
        let metrics = crate::config::MetricsAddress::Unix(directory.join("metrics"));
        server.metrics = Some(Door::metrics(&metrics).unwrap());
        Stage { directory, server, now: Instant::now() }
    }

    fn connect(&self, door: &str) -> UnixStream {
        let stream = UnixStream::connect(self.directory.join(door)).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    }

    /// What the agent does in one round.
    fn serve(&mut self) {
        self.server.advance(self.now);
        for (id, request) in self.server.requests() {
            let reply = match request {
                Request::Metrics => Reply::Metrics("a 1\n".repeat(200_000)),
                other => Reply::Object(json!({ "asked": format!("{other:?}") })),
            };
            self.server.answer(id, &reply);
        }
    }

    /// All that comes within so many rounds.
    fn hear(&mut self, stream: &mut UnixStream, rounds: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        for _ in 0..rounds {
            self.serve();
            let mut chunk = [0; 65_536];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                heard.extend_from_slice(&chunk[..count]);
            }
        }
        heard
    }

    /// What the server holds of what came and of what is to be sent.
    fn held(&self) -> usize {
        self.server.visitors.values().map(Visitor::holds).sum()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn messages(heard: &[u8]) -> Vec<Value> {
    let mut parts: Vec<&[u8]> = heard.split(|octet| *octet == 0).collect();
    assert_eq!(parts.pop(), Some(&b""[..]), "not ended");
    parts.into_iter().map(|part| serde_json::from_slice(part).unwrap()).collect()
}

const INFO: &[u8] = b"{\"method\":\"org.jackfield.Info\"}\0";

#[test]
fn requests_are_answered_in_order_however_they_come() {
    let mut stage = Stage::new("order");
    let mut client = stage.connect("name");
    for octet in INFO {
        client.write_all(&[*octet]).unwrap();
        stage.serve();
    }
    let service = b"{\"method\":\"org.varlink.service.GetInfo\"}\0";
    let oneway = b"{\"method\":\"org.jackfield.Plan\",\"oneway\":true}\0";
    client.write_all(&[&service[..], oneway, INFO, service].concat()).unwrap();
    let told = messages(&stage.hear(&mut client, 6));
    let is_info = |value: &Value| value["parameters"]["asked"] == "Info";
    assert_eq!(told.iter().map(is_info).collect::<Vec<_>>(), [true, false, true, false]);
}

#[test]
fn garbage_is_answered_once_and_the_connection_is_over() {
    let mut stage = Stage::new("garbage");
    let mut client = stage.connect("name");
    client.write_all(b"GET / HTTP/1.1\r\n\r\n\0").unwrap();
    client.write_all(INFO).unwrap();
    let told = messages(&stage.hear(&mut client, 3));
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["error"], "org.varlink.service.InvalidParameter");
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    stage.now += Duration::from_secs(2);
    stage.serve();
    assert!(stage.server.visitors.is_empty());
}

#[test]
fn who_sends_without_end_is_cut_off_and_little_of_it_is_kept() {
    for (door, octet) in [("name", b' '), ("metrics", b'a')] {
        let mut stage = Stage::new("endless");
        let mut client = stage.connect(door);
        let mut sent = 0;
        let garbage = vec![octet; 65_536];
        let mut most = 0;
        for _ in 0..1000 {
            sent += client.write(&garbage).unwrap_or_default();
            stage.serve();
            most = most.max(stage.held());
        }
        assert!(sent > 1 << 20, "only {sent} octets were taken");
        assert!(most < 64 * 1024, "{most} octets are held");
        stage.now += Duration::from_secs(2);
        stage.serve();
        assert!(stage.server.visitors.is_empty(), "{door}");
    }
}

#[test]
fn who_never_reads_gets_one_answer_and_no_second() {
    let mut stage = Stage::new("deaf");
    let mut client = stage.connect("name");
    let metrics = b"{\"method\":\"org.jackfield.Metrics\"}\0";
    let mut most = 0;
    for _ in 0..200 {
        let _ = client.write(metrics);
        stage.serve();
        most = most.max(stage.held());
    }
    // One answer of 800 kB, and what waits behind it.
    assert!(most < 1_300_000, "{most} octets are held");
    stage.now += Duration::from_secs(11);
    stage.serve();
    assert!(stage.server.visitors.is_empty());
}

#[test]
fn those_who_hang_take_nobody_s_place() {
    let mut stage = Stage::new("hang");
    for door in ["name", "metrics"] {
        let hanging: Vec<UnixStream> = (0..60)
            .map(|number| {
                let mut stream = stage.connect(door);
                let begun = if number % 2 == 0 { &b"{"[..] } else { b"" };
                stream.write_all(begun).unwrap();
                stage.now += Duration::from_millis(1);
                stage.serve();
                stream
            })
            .collect();
        let mut client = stage.connect(door);
        let request = if door == "name" { INFO } else { b"GET /metrics HTTP/1.1\r\n\r\n" };
        client.write_all(request).unwrap();
        assert!(!stage.hear(&mut client, 3).is_empty(), "{door}");
        assert!(stage.server.visitors.len() <= 2 * MOST);
        drop(hanging);
    }
    stage.serve();
    assert_eq!(stage.server.visitors.len(), 0, "all of them have gone");
}

#[test]
fn time_ends_every_connection_that_gets_nowhere() {
    let mut stage = Stage::new("time");
    let mut begun = stage.connect("name");
    begun.write_all(b"{").unwrap();
    let idle = stage.connect("name");
    let scraper = stage.connect("metrics");
    stage.serve();
    assert_eq!(stage.server.visitors.len(), 3);
    let until = stage.server.until().unwrap();
    assert_eq!(until - stage.now, Duration::from_secs(10));
    stage.now = until;
    stage.serve();
    assert_eq!(stage.server.visitors.len(), 1, "who is idle may stay for longer");
    stage.now = stage.server.until().unwrap();
    stage.serve();
    assert_eq!((stage.server.visitors.len(), stage.server.until()), (0, None));
    drop((begun, idle, scraper));
}

#[test]
fn a_scrape_is_whole_and_ends_the_connection() {
    let mut stage = Stage::new("scrape");
    let mut client = stage.connect("metrics");
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let heard = String::from_utf8(stage.hear(&mut client, 50)).unwrap();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Length: 800000\r\n"), "{head}");
    assert_eq!(body.len(), 800_000);
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn who_may_not_ask_is_told_so_and_takes_no_place_of_others() {
    let mut stage = Stage::new("denied");
    let refused: Vec<UnixStream> = (0..20)
        .map(|_| {
            let (mut client, server) = UnixStream::pair().unwrap();
            client.set_nonblocking(true).unwrap();
            client.write_all(INFO).unwrap();
            stage.server.visit(server.into(), Speaks::Varlink, false, stage.now);
            client
        })
        .collect();
    assert_eq!(stage.server.visitors.len(), MOST_REFUSED);
    stage.serve();
    let mut last = refused.into_iter().next_back().unwrap();
    let told = messages(&stage.hear(&mut last, 1));
    assert_eq!(told[0]["error"], "org.varlink.service.PermissionDenied");
    assert_eq!(last.read(&mut [0; 16]).unwrap(), 0);
}
