//! As much of HTTP/1.1 as it takes to be scraped: one request a connection.

/// More fields than any scraper sends.
const FIELDS: usize = 64;
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What follows from what came so far.
#[derive(Debug, PartialEq)]
pub(super) enum Understood {
    /// The head of the request is not whole yet.
    Incomplete,
    /// Metrics are asked for; `head`: without them.
    Metrics {
        /// The method is HEAD.
        head: bool,
    },
    /// Answered at once.
    Answer(Vec<u8>),
}

/// Reads what came so far.
pub(super) fn understand(input: &[u8]) -> Understood {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(input) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Understood::Incomplete,
        Err(error) => {
            return Understood::Answer(refusal("400 Bad Request", "", &format!("{error}\n")));
        }
    }
    let head = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => {
            let text = "metrics are asked for by GET\n";
            let allow = "Allow: GET, HEAD\r\n";
            return Understood::Answer(refusal("405 Method Not Allowed", allow, text));
        }
    };
    let path = request.path.unwrap_or_default();
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "/metrics" => Understood::Metrics { head },
        _ => Understood::Answer(refusal("404 Not Found", "", "metrics are at /metrics\n")),
    }
}

/// Metrics, as the answer to a request for them.
pub(super) fn metrics(text: &str, head: bool) -> Vec<u8> {
    response("200 OK", METRICS, "", text, head)
}

/// They cannot be told now.
pub(super) fn unavailable(text: &str) -> Vec<u8> {
    refusal("503 Service Unavailable", "Retry-After: 1\r\n", &format!("{text}\n"))
}

/// The head of a request is longer than any that there is.
pub(super) fn too_long() -> Vec<u8> {
    refusal("431 Request Header Fields Too Large", "", "the request is too long\n")
}

fn refusal(status: &str, fields: &str, text: &str) -> Vec<u8> {
    response(status, PLAIN, fields, text, false)
}

fn response(status: &str, kind: &str, fields: &str, body: &str, head: bool) -> Vec<u8> {
    let length = body.len();
    let body = if head { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{fields}\
         Connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_understood_once_its_head_is_whole() {
        let request = b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n";
        for length in 0..request.len() {
            assert_eq!(understand(&request[..length]), Understood::Incomplete, "{length}");
        }
        assert_eq!(understand(request), Understood::Metrics { head: false });
        let head = understand(b"HEAD /metrics HTTP/1.0\r\n\r\n");
        assert_eq!(head, Understood::Metrics { head: true });
    }

    #[test]
    fn anything_else_is_refused_by_its_status() {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /metricsx HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("\0\0\0\0", "400"),
            ("GET /metrics\u{7f} HTTP/9\r\n\r\n", "400"),
        ] {
            let Understood::Answer(answer) = understand(request.as_bytes()) else {
                panic!("{request}");
            };
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        }
    }

    #[test]
    fn a_head_says_how_long_the_body_would_be() {
        let text = String::from_utf8(metrics("12345", true)).unwrap();
        assert!(text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    }
}
