//! What the service answers: the token rules, the tree of keys, the error bodies.

use super::state::State;
use super::token;
use super::{MacAddr, TokenKind};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// A request, as far as it decides anything.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// `X-aws-ec2-metadata-token`.
    pub(super) token: Option<String>,
    /// `X-aws-ec2-metadata-token-ttl-seconds`.
    pub(super) life: Option<String>,
    /// Whether `X-Forwarded-For` was there: it came through a proxy.
    pub(super) forwarded: bool,
}

/// An answer before it is written out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// How long the token is good for yet.
    pub(super) token_life: Option<Duration>,
}

const TOKEN_PATH: &str = "/latest/api/token";

impl Answer {
    fn text(body: String, token_life: Duration) -> Self {
        Self { status: 200, body: body.into_bytes(), token_life: Some(token_life) }
    }

    /// A status with the body that the service has for it: none for 200.
    pub(super) fn of_status(status: u16) -> Self {
        let body = if status == 200 { Vec::new() } else { error_body(status).into_bytes() };
        Self { status, body, token_life: None }
    }

    /// Status 200 with this body.
    pub(super) fn of_body(body: Vec<u8>) -> Self {
        Self { status: 200, body, token_life: None }
    }

    /// The head of the answer up to its empty line. Without a length the body ends with the
    /// connection.
    pub(super) fn head(&self, length: Option<u64>, close: bool) -> String {
        let status = self.status;
        let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
        if let Some(left) = self.token_life {
            let seconds = left.as_secs_f64().ceil();
            let _ = write!(head, "X-Aws-Ec2-Metadata-Token-Ttl-Seconds: {seconds}\r\n");
        }
        let kind = if status == 200 { "text/plain" } else { "text/html" };
        let _ = write!(head, "Content-Type: {kind}\r\n");
        if let Some(length) = length {
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        head.push_str("Server: EC2ws\r\n");
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        head
    }
}

/// The reason phrase of a status.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Unknown",
    }
}

fn error_body(status: u16) -> String {
    let title = format!("{status} - {}", reason(status));
    format!(
        r#"<?xml version="1.0" encoding="iso-8859-1"?>
<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
	"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="en" lang="en">
 <head>
  <title>{title}</title>
 </head>
 <body>
  <h1>{title}</h1>
 </body>
</html>
"#
    )
}

/// What the request showed as its token.
pub(super) fn token_kind(
    state: &State,
    request: &Request,
    instance: Option<&str>,
    now: Instant,
) -> TokenKind {
    match &request.token {
        None => TokenKind::None,
        Some(token) if state.tokens.left(token, instance, now).is_some() => TokenKind::Valid,
        Some(_) => TokenKind::Invalid,
    }
}

/// Answers a request of an instance by the rules of the service.
pub(super) fn answer(
    state: &mut State,
    request: &Request,
    instance: Option<&str>,
    now: Instant,
) -> Answer {
    match request.method.as_str() {
        "PUT" => give_token(state, request, instance, now),
        "GET" if request.path == TOKEN_PATH => Answer::of_status(405),
        "GET" => {
            let token = request.token.as_deref();
            let Some(left) = token.and_then(|token| state.tokens.left(token, instance, now)) else {
                return Answer::of_status(401);
            };
            match instance.and_then(|instance| find(state, instance, &request.path, now)) {
                Some(text) => Answer::text(text, left),
                None => Answer::of_status(404),
            }
        }
        _ => Answer::of_status(405),
    }
}

fn give_token(
    state: &mut State,
    request: &Request,
    instance: Option<&str>,
    now: Instant,
) -> Answer {
    if request.path != TOKEN_PATH {
        let versioned = request.path.ends_with("/api/token");
        return Answer::of_status(if versioned { 403 } else { 405 });
    }
    if request.forwarded {
        return Answer::of_status(403);
    }
    match request.life.as_deref().and_then(token::life) {
        Some(life) => Answer::text(state.tokens.give(instance, life, now), life),
        None => Answer::of_status(400),
    }
}

/// A place in the tree of keys.
enum Node {
    Leaf(String),
    Listing(Vec<String>),
}

/// The text at a path, or none where there is nothing.
fn find(state: &State, instance: &str, path: &str, now: Instant) -> Option<String> {
    let within = path.strip_prefix('/')?;
    let (within, slash) = match within.strip_suffix('/') {
        Some(within) => (within, true),
        None => (within, false),
    };
    let mut parts = within.split('/');
    let version = parts.next().filter(|part| !part.is_empty());
    let node = match version {
        None => listing(["2021-07-15", "latest"]),
        Some(version) if !is_version(version) => return None,
        Some(_) => match (parts.next(), parts.collect::<Vec<_>>().as_slice()) {
            (None, _) => listing(["meta-data"]),
            (Some("meta-data"), rest) => meta_data(state, instance, rest, now)?,
            _ => return None,
        },
    };
    match node {
        Node::Leaf(text) => (!slash).then_some(text),
        Node::Listing(names) => Some(names.join("\n")),
    }
}

fn meta_data(state: &State, instance: &str, path: &[&str], now: Instant) -> Option<Node> {
    let primary = state.primary_of(instance)?;
    let primary_key = |key: &str| {
        let shown = state.shown_to(instance, now);
        shown.get(&primary).and_then(|shown| shown.keys(true, now).remove(key))
    };
    let leaf = |text: String| Some(Node::Leaf(text));
    match path {
        [] => {
            let mut names = vec!["instance-id", "mac", "network/"];
            names.extend(primary_key("local-hostname").map(|_| "local-hostname"));
            names.extend(primary_key("local-ipv4s").map(|_| "local-ipv4"));
            names.sort_unstable();
            Some(listing(names))
        }
        ["instance-id"] => leaf(instance.to_owned()),
        ["mac"] => leaf(primary.to_string()),
        ["local-hostname"] => leaf(primary_key("local-hostname")?),
        ["local-ipv4"] => leaf(primary_key("local-ipv4s")?.lines().next()?.to_owned()),
        ["network"] => Some(listing(["interfaces/"])),
        ["network", "interfaces"] => Some(listing(["macs/"])),
        ["network", "interfaces", "macs"] => {
            let shown = state.shown_to(instance, now);
            Some(listing(shown.keys().map(|mac| format!("{mac}/"))))
        }
        ["network", "interfaces", "macs", mac, key @ ..] => {
            let mac: MacAddr = mac.parse().ok()?;
            let shown = state.shown_to(instance, now).remove(&mac)?;
            let mut keys = shown.keys(mac == primary, now);
            match key {
                [] => Some(listing(keys.into_keys())),
                [key] => leaf(keys.remove(*key)?),
                _ => None,
            }
        }
        _ => None,
    }
}

fn listing<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Node {
    Node::Listing(names.into_iter().map(Into::into).collect())
}

/// `latest`, or a date as `2021-07-15`.
fn is_version(part: &str) -> bool {
    part == "latest"
        || (part.len() == 10 && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-'))
}
