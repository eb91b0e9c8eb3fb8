//! The session token is in no log, no error and no debug output. Alone in its file, because a
//! process has one logger.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod scripted;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jackfield_metadata::{Ask, Client, ClientOptions};
use scripted::{Scripted, TOKEN};

static LOG: Mutex<String> = Mutex::new(String::new());

struct Capture;

impl log::Log for Capture {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {} {}\n", record.level(), record.target(), record.args());
        LOG.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

/// As text, and as a dump of bytes would show it.
fn assert_secret(text: &str) {
    let hex: String = TOKEN.bytes().map(|byte| format!("{byte:02x}")).collect();
    let dense: String = text.chars().filter(|char| !char.is_whitespace()).collect();
    assert!(!dense.contains(TOKEN), "{text}");
    assert!(!dense.to_lowercase().contains(&hex), "{text}");
    // Eight characters of it are too many, too.
    assert!(!dense.contains(&TOKEN[5..13]), "{text}");
}

#[test]
fn the_token_is_shown_nowhere() {
    log::set_logger(&Capture).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut shown = String::new();
    let mut sent = 0;
    for (token, answer) in [
        (ok(TOKEN), ok("02:ec:20:00:00:01")),
        (ok(TOKEN), ok(TOKEN)),
        (ok(TOKEN), format!("HTTP/1.1 302 Found\r\nLocation: {TOKEN}\r\n\r\n")),
        (ok(TOKEN), format!("HTTP/1.1 401 {TOKEN}\r\nContent-Length: 0\r\n\r\n")),
        (ok(TOKEN), format!("HTTP/1.1 500 {TOKEN}\r\n\r\n{TOKEN}")),
        (ok(TOKEN), format!("{TOKEN}: no HTTP\r\n\r\n")),
        (ok(TOKEN), format!("HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n")),
        (ok(TOKEN), format!("HTTP/1.1 200 OK\r\nContent-Length: {TOKEN}\r\n\r\n")),
        (ok(TOKEN), format!("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{TOKEN}")),
        (ok(TOKEN), String::new()),
        (ok(&format!("{TOKEN}\n")), String::new()),
        (format!("HTTP/1.1 200 OK\r\n\r\n{TOKEN}"), String::new()),
    ] {
        let server = Scripted::new(token, answer);
        let client = Client::new(ClientOptions {
            endpoints: vec![format!("http://{}", server.address).parse().unwrap()],
            ..ClientOptions::default()
        });
        let deadline = Instant::now() + Duration::from_millis(300);
        let mac = "02:ec:20:00:00:01".parse().unwrap();
        let results = (
            client.primary(deadline),
            client.listed(deadline),
            client.interfaces(&[(mac, Ask::Everything)], deadline),
        );
        sent += server.requests().iter().filter(|request| request.contains(TOKEN)).count();
        shown.push_str(&format!("{results:?} {client:?} {client:#?}\n"));
        if let Err(error) = results.0 {
            shown.push_str(&error.to_string());
        }
        if let Err(error) = results.1 {
            shown.push_str(&error.to_string());
        }
    }
    assert!(sent > 0, "a token that is never used is easily kept secret");
    let log = LOG.lock().unwrap();
    assert!(log.contains("latest/api/token"), "{log}");
    assert_secret(&log);
    assert_secret(&shown);
}
