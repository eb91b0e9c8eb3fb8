//! A client as plain as can be: it shows what was on the wire.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Client {
    service: SocketAddr,
    headers: Vec<String>,
    pub(crate) timeout: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

impl Client {
    pub(crate) fn new(service: SocketAddr) -> Self {
        Self { service, headers: Vec::new(), timeout: Duration::from_secs(5) }
    }

    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// With a token that is asked for now.
    pub(crate) fn with_token(self) -> Self {
        let token = Self::new(self.service)
            .with_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
            .put("/latest/api/token")
            .unwrap();
        assert_eq!(token.status, 200);
        self.with_header("X-aws-ec2-metadata-token", &token.text())
    }

    pub(crate) fn get(&self, path: &str) -> io::Result<Reply> {
        self.ask("GET", path)
    }

    pub(crate) fn put(&self, path: &str) -> io::Result<Reply> {
        self.ask("PUT", path)
    }

    /// Asks on a connection of its own and reads to the end of what its head promises.
    pub(crate) fn ask(&self, method: &str, path: &str) -> io::Result<Reply> {
        let mut stream = self.connect()?;
        self.ask_on(&mut stream, method, path)
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.service)?;
        stream.set_read_timeout(Some(self.timeout))?;
        Ok(stream)
    }

    pub(crate) fn ask_on(
        &self,
        stream: &mut TcpStream,
        method: &str,
        path: &str,
    ) -> io::Result<Reply> {
        self.send(stream, method, path)?;
        receive(stream)
    }

    pub(crate) fn send(&self, stream: &mut TcpStream, method: &str, path: &str) -> io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: metadata\r\n");
        for header in &self.headers {
            request.push_str(header);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes())
    }
}

fn receive(stream: &mut TcpStream) -> io::Result<Reply> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or(io::ErrorKind::InvalidData)?;
    let mut reply = Reply { status, head, body: Vec::new() };
    match reply.header("content-length").map(|length| length.parse().unwrap()) {
        Some(length) => {
            reply.body.resize(length, 0);
            stream.read_exact(&mut reply.body)?;
        }
        None => {
            stream.read_to_end(&mut reply.body)?;
        }
    }
    Ok(reply)
}
