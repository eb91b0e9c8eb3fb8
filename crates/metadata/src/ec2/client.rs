//! The client: what is asked, how often, and until when.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFd;

use super::budget::{Backoff, Budget, KEPT_CONNECTION, NEW_CONNECTION};
use super::crawl::{Crawl, Learned, Progress};
use super::session::{Grant, Session, Token, Waited};
use super::text;
use crate::http::{Answer, Connections, Endpoint, Fault, Flight, Limits, Link};
use crate::{Ask, Error, Listing, MacAddr};

const TTL_FIELD: &str = "X-aws-ec2-metadata-token-ttl-seconds";
const TOKEN_FIELD: &str = "X-aws-ec2-metadata-token";
const TOKEN_PATH: &str = "latest/api/token";
pub(super) const MACS: &str = "latest/meta-data/network/interfaces/macs/";
/// How often an answer that arrived well but does not parse is asked for again in one call. It may
/// be a moment's confusion; where it is not, time is better spent than on asking.
const GARBLED_ATTEMPTS: u32 = 3;

/// How a [`Client`] asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Where the service is, in the order of preference. The one that answers is kept to for as
    /// long as it does.
    pub endpoints: Vec<Endpoint>,
    /// How long one request may take, from its connection to the last byte of its answer.
    pub request_timeout: Duration,
    /// The life that a session token is asked for. The service takes 1 to 21,600 seconds.
    pub token_ttl: Duration,
    /// The most packets sent in any one second by all threads together. A request counts as 6 on
    /// a new connection and as 2 on a kept one.
    pub packets_per_second: u32,
    /// The most requests of one call that are under way side by side.
    pub concurrency: usize,
    /// The largest body of an answer, in bytes.
    pub max_body: usize,
    /// The most lines in an answer.
    pub max_lines: usize,
}

impl Default for ClientOptions {
    /// EC2's IPv4 endpoint, then its IPv6 endpoint; 1 s a request; tokens of 6 hours; 300 packets
    /// a second; 8 requests side by side; 64 KiB and 4,096 lines an answer.
    fn default() -> Self {
        let ipv4 = Ipv4Addr::new(169, 254, 169, 254);
        let ipv6 = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        Self {
            endpoints: vec![
                Endpoint::from_ip(IpAddr::V4(ipv4)),
                Endpoint::from_ip(IpAddr::V6(ipv6)),
            ],
            request_timeout: Duration::from_secs(1),
            token_ttl: Duration::from_secs(21_600),
            packets_per_second: 300,
            concurrency: 8,
            max_body: 64 * 1024,
            max_lines: 4096,
        }
    }
}

/// A client of EC2's instance metadata service. It is made once, and shared by threads.
///
/// Each call takes a deadline, and returns by then, within the few milliseconds of a timer. Until
/// then it asks again what may be asked again ([`Error::is_transient`]), each time after a longer
/// wait. Between calls the client has no threads and does nothing.
///
/// ```no_run
/// use jackfield_metadata::{Ask, Client, Listing};
/// use std::time::{Duration, Instant};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::default();
/// let deadline = Instant::now() + Duration::from_secs(5);
/// let primary = client.primary(deadline)?;
/// let asks: Vec<_> =
///     client.listed(deadline)?.into_iter().map(|mac| (mac, Ask::Everything)).collect();
/// for (mac, listing) in client.interfaces(&asks, deadline) {
///     match listing? {
///         Listing::Listed(facts) => println!("{mac}: {:?}", facts.ipv4_addresses),
///         Listing::NotListed => println!("{mac} is not there any more"),
///     }
/// }
/// # let _ = primary;
/// # Ok(())
/// # }
/// ```
pub struct Client {
    options: ClientOptions,
    connections: Connections,
    budget: Budget,
    session: Session,
    /// The endpoint that answered last.
    preferred: AtomicUsize,
    requests: AtomicU64,
    retries: AtomicU64,
    /// By their place among [`Error::KINDS`].
    errors: [AtomicU64; Error::KINDS.len()],
    primary: OnceLock<MacAddr>,
    learned: Mutex<BTreeMap<MacAddr, Learned>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new(ClientOptions::default())
    }
}

impl Client {
    /// A client that has asked nothing yet.
    pub fn new(options: ClientOptions) -> Self {
        Self {
            connections: Connections::new(options.concurrency),
            budget: Budget::new(options.packets_per_second),
            session: Session::default(),
            preferred: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            primary: OnceLock::new(),
            learned: Mutex::default(),
            options,
        }
    }

    /// The hardware address of the primary interface: top-level `mac`. Asked until it is known,
    /// and never again.
    ///
    /// # Errors
    ///
    /// When there was no valid answer by `deadline`.
    pub fn primary(&self, deadline: Instant) -> Result<MacAddr, Error> {
        if let Some(mac) = self.primary.get() {
            return Ok(*mac);
        }
        let read = |answer: &str| text::single(answer, "MAC address");
        let mac = self.get("latest/meta-data/mac", deadline, read)?;
        Ok(*self.primary.get_or_init(|| mac))
    }

    /// What [`Client::primary`] knows without asking.
    pub fn known_primary(&self) -> Option<MacAddr> {
        self.primary.get().copied()
    }

    /// The hardware addresses that the service lists (`network/interfaces/macs/`): it may hold
    /// ones that have been detached for minutes, and lack ones that are attached.
    ///
    /// # Errors
    ///
    /// When there was no valid answer by `deadline`.
    pub fn listed(&self, deadline: Instant) -> Result<BTreeSet<MacAddr>, Error> {
        let most = self.options.max_lines;
        self.get(MACS, deadline, |answer| {
            let parse = |(index, line): (usize, &str)| {
                let mac = line.strip_suffix('/').unwrap_or(line);
                mac.parse().map_err(|_| format!("line {} of the answer is no MAC", index + 1))
            };
            text::lines(answer, most)?.into_iter().enumerate().map(parse).collect()
        })
    }

    /// Asks about several interfaces side by side. Each asked address is in the result, with an
    /// error where its listing could not be read; nothing else of that interface is then asked.
    /// A value that could not be read is unknown in otherwise good facts. An address that is
    /// asked about twice is asked about once, everything if one of them is.
    pub fn interfaces(
        &self,
        asks: &[(MacAddr, Ask)],
        deadline: Instant,
    ) -> BTreeMap<MacAddr, Result<Listing, Error>> {
        let results = Crawl::new(self, &wanted(asks), deadline).finish();
        self.hang_up();
        results
    }

    /// Begins what [`Client::interfaces`] does, without waiting for anything. When there is time, its
    /// connections are to be closed: [`Client::hang_up`].
    pub fn begin(self: &Arc<Self>, asks: &[(MacAddr, Ask)], deadline: Instant) -> Conversation {
        Conversation { crawl: Crawl::new(Arc::clone(self), &wanted(asks), deadline) }
    }

    /// Closes the connections that nothing more will be asked on. It takes about as long as to make
    /// them, which is why a [`Conversation`] does not do it before its answers are made use of.
    pub fn hang_up(&self) {
        self.connections.hang_up();
    }

    /// Forgets what was learned of an interface: its device is gone, and when one with this
    /// address comes again, it may be another attachment. Ask for [`Ask::Everything`] then: a call
    /// that was under way meanwhile may have learned once more.
    pub fn forget(&self, mac: MacAddr) {
        self.learned().remove(&mac);
    }

    /// How many HTTP requests were sent, those for tokens included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// How often something was asked once more because it had failed.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// How many errors there were of each kind ([`Error::kind`]). That there is no such key is an
    /// answer like another.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.errors.iter().map(|count| count.load(Ordering::Relaxed));
        Error::KINDS.into_iter().zip(counts).filter(|(kind, _)| *kind != "not-found")
    }

    fn count(&self, error: &Error) {
        if let Some(count) = self.errors.get(error.number()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.options
    }

    pub(super) fn learned(&self) -> MutexGuard<'_, BTreeMap<MacAddr, Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `path` until there is an answer that `read` accepts, the service says that there
    /// is none, or the deadline comes.
    pub(super) fn get<T>(
        &self,
        path: &str,
        deadline: Instant,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        self.get_after(Tried::default(), path, deadline, read)
    }

    /// As [`Client::get`], where it was asked for once before.
    pub(super) fn get_after<T>(
        &self,
        tried: Tried,
        path: &str,
        deadline: Instant,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        let Tried { mut failed, mut renewed, mut endpoint } = tried;
        let mut backoff = Backoff::default();
        let mut garbled = 0;
        let mut failure = None;
        loop {
            let (error, is_garbled) = match failed.take() {
                Some(failed) => *failed,
                None => {
                    match self.get_once(path, deadline, &mut renewed, endpoint.take().map(|e| *e)) {
                        Ok(answer) => match self.understand(path, &answer, &read) {
                            Ok(value) => return Ok(value),
                            Err(error) => (error, true),
                        },
                        Err(error) => (error, false),
                    }
                }
            };
            garbled += u32::from(is_garbled);
            log::debug!("{error}");
            self.count(&error);
            if let Error::Deadline { .. } = error {
                // What went wrong before says more.
                return Err(failure.unwrap_or(error));
            }
            if !error.is_transient() || garbled >= GARBLED_ATTEMPTS {
                return Err(error);
            }
            let wait = backoff.next_wait();
            if Instant::now() + wait >= deadline {
                return Err(error);
            }
            failure = Some(error);
            self.retries.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(wait);
        }
    }

    fn understand<T>(
        &self,
        path: &str,
        answer: &Answer,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Error> {
        let body = std::str::from_utf8(&answer.body);
        let value = body.map_err(|_| "the answer is not text".to_owned()).and_then(read);
        value.map_err(|reason| Error::Malformed { url: self.url(path), reason })
    }

    /// Starts to ask for `path` once, without waiting for anything.
    pub(super) fn start(&self, path: String, deadline: Instant) -> Result<Asked, Tried> {
        let (Some(token), index) = (self.session.current(), self.preferred.load(Ordering::Relaxed))
        else {
            return Err(Tried::default());
        };
        let Some(endpoint) = self.options.endpoints.get(index) else {
            return Err(Tried::default());
        };
        let address = endpoint.address();
        let link = self.connections.link(address);
        if !self.budget.admit_now(packets(&link)) {
            self.connections.unused(link, address);
            return Err(Tried::default());
        }
        let method = Method::Get(&token);
        let request = method.request(endpoint, &path, self.options.token_ttl);
        let limits = Limits { body: self.options.max_body, field: method.answer_field() };
        let started = Instant::now();
        let until = deadline.min(started + self.options.request_timeout);
        let kept = matches!(link, Link::Kept(_));
        match Flight::start(link, address, request, limits, until) {
            Ok(flight) => Ok(Asked { flight, path, token, index, started, until }),
            Err(fault) => Err(self.fell(fault, kept, &path, index, until - started)),
        }
    }

    /// Goes on with a request as far as it can without waiting; none where there is to be waited.
    pub(super) fn advance<T>(
        &self,
        asked: &mut Asked,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Result<Result<T, Error>, Tried>> {
        let answer = match asked.flight.advance(&self.connections) {
            Ok(answer) => answer?,
            Err(fault) => {
                let kept = asked.flight.is_kept();
                let waited = asked.until.saturating_duration_since(asked.started);
                return Some(Err(self.fell(fault, kept, &asked.path, asked.index, waited)));
            }
        };
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.preferred.store(asked.index, Ordering::Relaxed);
        let (path, status, taken) = (&asked.path, answer.status, asked.started.elapsed());
        log::trace!("{}: {status} after {taken:?}", self.url(path));
        if status == 401 {
            self.session.expire(&asked.token);
            return Some(Err(Tried { renewed: true, ..Tried::default() }));
        }
        let (error, garbled) = match self.accept(path, answer) {
            Ok(answer) => match self.understand(path, &answer, read) {
                Ok(value) => return Some(Ok(Ok(value))),
                Err(error) => (error, true),
            },
            Err(error) => (error, false),
        };
        if !error.is_transient() {
            self.count(&error);
            return Some(Ok(Err(error)));
        }
        Some(Err(Tried { failed: Some(Box::new((error, garbled))), ..Tried::default() }))
    }

    /// Puts away a request that is over.
    pub(super) fn end(&self, asked: Asked) {
        self.connections.end(asked.flight.into_stream());
    }

    /// Judges a request that was not answered.
    fn fell(&self, fault: Fault, kept: bool, path: &str, index: usize, waited: Duration) -> Tried {
        if !matches!(fault, Fault::Connect(_)) {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if kept && matches!(fault, Fault::Closed) {
            // Closed while it was idle: the request was not looked at.
            return Tried::default();
        }
        let endpoint = self.options.endpoints.get(index);
        let url = endpoint.map_or_else(|| path.into(), |endpoint| format!("{endpoint}/{path}"));
        let error = error_of(fault, url, waited);
        log::debug!("{error}");
        let elsewhere = matches!(error, Error::Connection { .. } | Error::Timeout { .. })
            && self.options.endpoints.len() > 1;
        if elsewhere {
            Tried { endpoint: Some(Box::new((index, error))), ..Tried::default() }
        } else {
            Tried { failed: Some(Box::new((error, false))), ..Tried::default() }
        }
    }

    /// Asks for `path` once, and once more with a new token where the service refuses the old.
    /// Where an endpoint is given with its error, the others are asked.
    fn get_once(
        &self,
        path: &str,
        deadline: Instant,
        renewed: &mut bool,
        mut not_at: Option<(usize, Error)>,
    ) -> Result<Answer, Error> {
        loop {
            let token = self.token(path, deadline)?;
            let answer = self.send(Method::Get(&token), path, deadline, not_at.take())?;
            if answer.status != 401 {
                return self.accept(path, answer);
            }
            self.session.expire(&token);
            if std::mem::replace(renewed, true) {
                return Err(Error::Unauthorized { url: self.url(path) });
            }
        }
    }

    fn token(&self, path: &str, deadline: Instant) -> Result<Token, Error> {
        let granted = self.session.token(deadline, || {
            let answer = self.send(Method::PutToken, TOKEN_PATH, deadline, None)?;
            let answer = self.accept(TOKEN_PATH, answer)?;
            let seconds = answer.field.as_deref().and_then(|field| field.parse().ok());
            let lasts = seconds.map_or(self.options.token_ttl, Duration::from_secs);
            Grant::parse(answer.body, lasts.min(self.options.token_ttl)).map_err(|reason| {
                Error::Malformed { url: self.url(TOKEN_PATH), reason: reason.into() }
            })
        });
        granted.map_err(|waited| match waited {
            Waited::TooLate => Error::Deadline { url: self.url(path) },
            Waited::Failed(error) => error,
        })
    }

    /// Judges a status other than 401 to a GET.
    fn accept(&self, path: &str, answer: Answer) -> Result<Answer, Error> {
        let status = answer.status;
        if matches!(status, 429 | 503) {
            self.budget.throttled();
            return Err(Error::Throttled { url: self.url(path), status });
        }
        self.budget.relax();
        match status {
            200 => Ok(answer),
            404 => Err(Error::NotFound { url: self.url(path) }),
            500.. => Err(Error::Server { url: self.url(path), status }),
            _ => Err(Error::Refused { url: self.url(path), status }),
        }
    }

    /// Sends a request to the endpoint that answered last, and to the others where it does not.
    /// Where one is given with its error, the request has been sent there before.
    fn send(
        &self,
        method: Method<'_>,
        path: &str,
        deadline: Instant,
        not_at: Option<(usize, Error)>,
    ) -> Result<Answer, Error> {
        let endpoints = &self.options.endpoints;
        let first = self.preferred.load(Ordering::Relaxed);
        let (skipped, mut failure) = not_at.map_or((None, None), |(at, e)| (Some(at), Some(e)));
        for (index, endpoint) in
            endpoints.iter().enumerate().cycle().skip(first).take(endpoints.len())
        {
            if skipped == Some(index) {
                continue;
            }
            match self.send_to(endpoint, method, path, deadline) {
                Ok(answer) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error @ (Error::Connection { .. } | Error::Timeout { .. })) => {
                    failure.get_or_insert(error);
                }
                Err(error @ Error::Deadline { .. }) => return Err(failure.unwrap_or(error)),
                Err(error) => return Err(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::Connection {
            url: path.into(),
            reason: "no endpoint is configured".into(),
        }))
    }

    fn send_to(
        &self,
        endpoint: &Endpoint,
        method: Method<'_>,
        path: &str,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let url = || format!("{endpoint}/{path}");
        let address = endpoint.address();
        let limits = Limits { body: self.options.max_body, field: method.answer_field() };
        let request = method.request(endpoint, path, self.options.token_ttl);
        let mut link = self.connections.link(address);
        loop {
            let kept = matches!(link, Link::Kept(_));
            self.budget
                .admit(packets(&link), deadline)
                .map_err(|_| Error::Deadline { url: url() })?;
            let started = Instant::now();
            let until = deadline.min(started + self.options.request_timeout);
            let result = self.connections.exchange(link, address, &request, &limits, until);
            if !matches!(result, Err(Fault::Connect(_))) {
                self.requests.fetch_add(1, Ordering::Relaxed);
            }
            return match result {
                Ok(answer) => {
                    log::trace!("{}: {} after {:?}", url(), answer.status, started.elapsed());
                    Ok(answer)
                }
                // Closed while it was idle: the request was not looked at.
                Err(Fault::Closed) if kept => {
                    link = Link::New;
                    continue;
                }
                Err(fault) => Err(error_of(fault, url(), until.duration_since(started))),
            };
        }
    }

    fn url(&self, path: &str) -> String {
        let preferred = self.preferred.load(Ordering::Relaxed);
        match self.options.endpoints.get(preferred) {
            Some(endpoint) => format!("{endpoint}/{path}"),
            None => path.into(),
        }
    }
}

/// What is asked about each address: everything, where one of several asks for that.
fn wanted(asks: &[(MacAddr, Ask)]) -> BTreeMap<MacAddr, Ask> {
    let mut wanted: BTreeMap<MacAddr, Ask> = BTreeMap::new();
    for (mac, ask) in asks {
        let entry = wanted.entry(*mac).or_insert(*ask);
        *entry = (*entry).max(*ask);
    }
    wanted
}

/// A [`Client::interfaces`] that its caller carries on between other things.
pub struct Conversation {
    crawl: Crawl<Arc<Client>>,
}

impl Conversation {
    /// Asks, and takes what was answered, as far as is possible without waiting.
    pub fn advance(&mut self) -> Progress {
        self.crawl.advance()
    }

    /// What is to be waited for before it can be advanced again…
    pub fn awaited(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.crawl.flights().map(Flight::awaited)
    }

    /// …and until when at most.
    pub fn until(&self) -> Option<Instant> {
        self.crawl.flights().map(Flight::until).min()
    }

    /// Waits for all that is left, and returns what [`Client::interfaces`] does.
    pub fn finish(self) -> BTreeMap<MacAddr, Result<Listing, Error>> {
        self.crawl.finish()
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").finish_non_exhaustive()
    }
}

/// A question that is with the service.
pub(super) struct Asked {
    flight: Flight,
    path: String,
    token: Token,
    index: usize,
    started: Instant,
    until: Instant,
}

impl Asked {
    /// What is to be waited for.
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }
}

/// What became of a first attempt that is to be followed by others.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// How it failed, and whether by an answer that arrived well but does not parse.
    failed: Option<Box<(Error, bool)>>,
    /// The service has refused a token.
    renewed: bool,
    /// The endpoint that did not answer, where there are others.
    endpoint: Option<Box<(usize, Error)>>,
}

fn packets(link: &Link) -> u32 {
    match link {
        Link::Kept(_) => KEPT_CONNECTION,
        Link::New => NEW_CONNECTION,
    }
}

fn error_of(fault: Fault, url: String, waited: Duration) -> Error {
    match fault {
        Fault::Closed | Fault::Incomplete => {
            let reason = "the connection was closed without an answer".into();
            Error::Connection { url, reason }
        }
        Fault::Connect(error) | Fault::Lost(error) => {
            Error::Connection { url, reason: error.to_string() }
        }
        Fault::TimedOut => Error::Timeout { url, after: waited },
        Fault::Malformed(reason) => Error::Malformed { url, reason: reason.into() },
    }
}

/// The two requests that there are.
#[derive(Clone, Copy)]
enum Method<'a> {
    PutToken,
    Get(&'a Token),
}

impl Method<'_> {
    fn request(self, endpoint: &Endpoint, path: &str, ttl: Duration) -> Vec<u8> {
        let name = match self {
            Method::PutToken => "PUT",
            Method::Get(_) => "GET",
        };
        let (prefix, host) = (endpoint.prefix(), endpoint.authority());
        let mut request = format!(
            "{name} {prefix}/{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: jackfield\r\nAccept: */*\r\n"
        )
        .into_bytes();
        // Writing to a vector does not fail.
        let _ = match self {
            Method::PutToken => {
                let seconds = ttl.as_secs().clamp(1, 21_600);
                write!(request, "{TTL_FIELD}: {seconds}\r\nContent-Length: 0\r\n\r\n")
            }
            Method::Get(token) => write!(request, "{TOKEN_FIELD}: {}\r\n\r\n", token.secret()),
        };
        request
    }

    fn answer_field(self) -> Option<&'static str> {
        match self {
            Method::PutToken => Some(TTL_FIELD),
            Method::Get(_) => None,
        }
    }
}
