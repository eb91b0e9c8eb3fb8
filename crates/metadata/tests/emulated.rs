//! The client against the metadata service emulator: what is asked, how often, and what becomes
//! of each fault.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jackfield_lab::emulator::{
    Cloud, CloudInterface, ConnectionUse, Connections, Effect, Emulator, Fault, Lag, Subnet,
    TokenKind,
};
use jackfield_metadata::{
    Ask, Client, ClientOptions, Error, InterfaceFacts, Known, Listing, MacAddr, Progress,
};
use rustix::event::{Timespec, poll};

const PRIMARY: [u8; 6] = [0x02, 0xec, 0x20, 0, 0, 1];
const SECOND: [u8; 6] = [0x02, 0xec, 0x20, 0, 0, 2];
const SUBNET: &str = "subnet-ipv4-cidr-block";

/// An instance with a primary interface and a dual-stack second one, and a client on it.
struct Stage {
    cloud: Cloud,
    client: Client,
    emulator: Emulator,
}

impl Stage {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut ClientOptions)) -> Self {
        let cloud = Cloud::new();
        let primary = jackfield_lab::emulator::MacAddr(PRIMARY);
        cloud.add_instance("i-a", primary);
        cloud.serve_everyone_as("i-a");
        let subnet = Subnet::new("subnet-1").with_ipv4("10.0.0.0/24".parse().unwrap());
        let interface =
            CloudInterface::new(primary, subnet).with_address("10.0.0.10".parse().unwrap());
        cloud.add_interface(interface).unwrap();
        cloud.attach(primary, "i-a", 0, None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let emulator = Emulator::start(vec![listener], cloud.clone()).unwrap();
        let mut options = options(emulator.addresses()[0]);
        change(&mut options);
        Self { cloud, client: Client::new(options), emulator }
    }

    fn with_second(self) -> Self {
        self.attach_second("eni-0second", Lag::none());
        self
    }

    fn attach_second(&self, id: &str, lag: Lag) {
        let subnet = Subnet::new("subnet-2")
            .with_ipv4("10.0.1.0/24".parse().unwrap())
            .with_ipv6("2001:db8:1::/64".parse().unwrap());
        let interface = CloudInterface::new(jackfield_lab::emulator::MacAddr(SECOND), subnet)
            .with_id(id)
            .with_address("10.0.1.10".parse().unwrap())
            .with_address("10.0.1.11".parse().unwrap())
            .with_address("2001:db8:1::10".parse().unwrap())
            .with_prefix("10.0.1.16/28".parse().unwrap())
            .with_prefix("2001:db8:1:0:1::/80".parse().unwrap());
        self.cloud.add_interface(interface).unwrap();
        let mac = jackfield_lab::emulator::MacAddr(SECOND);
        self.cloud.attach_with_lag(mac, "i-a", 1, Some(1), lag).unwrap();
    }

    fn ask(&self, mac: [u8; 6], ask: Ask) -> Result<Listing, Error> {
        self.ask_within(mac, ask, Duration::from_secs(20))
    }

    fn ask_within(&self, mac: [u8; 6], ask: Ask, limit: Duration) -> Result<Listing, Error> {
        let asks = [(MacAddr::from(mac), ask)];
        let mut results = self.client.interfaces(&asks, Instant::now() + limit);
        assert_eq!(results.len(), 1);
        results.remove(&MacAddr::from(mac)).unwrap()
    }

    fn facts(&self, mac: [u8; 6], ask: Ask) -> InterfaceFacts {
        self.ask(mac, ask).unwrap().facts().unwrap().clone()
    }

    /// The keys asked since a mark, of whatever interface; a listing is `""`.
    fn keys_since(&self, mark: usize) -> Vec<String> {
        let mut keys: Vec<String> = self
            .cloud
            .requests_since(mark)
            .iter()
            .map(|request| request.path.rsplit('/').next().unwrap().to_owned())
            .collect();
        keys.sort();
        keys
    }
}

fn options(address: SocketAddr) -> ClientOptions {
    ClientOptions {
        endpoints: vec![format!("http://{address}").parse().unwrap()],
        // Room for a machine that does much else; nothing here waits for it unless it must.
        request_timeout: Duration::from_secs(10),
        packets_per_second: 100_000,
        ..ClientOptions::default()
    }
}

/// Where connections are refused: an address of the machine that only one test uses.
fn dead(address: &str) -> SocketAddr {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn second_facts() -> InterfaceFacts {
    InterfaceFacts {
        mac: SECOND.into(),
        interface_id: Known::Value("eni-0second".parse().unwrap()),
        device_number: Known::Value(1),
        network_card: Known::Value(1),
        ipv4_addresses: Known::Value(vec![
            Ipv4Addr::new(10, 0, 1, 10),
            Ipv4Addr::new(10, 0, 1, 11),
        ]),
        ipv6_addresses: Known::Value(vec!["2001:db8:1::10".parse().unwrap()]),
        ipv4_prefixes: Known::Value(vec!["10.0.1.16/28".parse().unwrap()]),
        ipv6_prefixes: Known::Value(vec!["2001:db8:1:0:1::/80".parse().unwrap()]),
        ipv4_subnet: Known::Value("10.0.1.0/24".parse().unwrap()),
        ipv6_subnets: Known::Value(vec!["2001:db8:1::/64".parse().unwrap()]),
        problems: Vec::new(),
    }
}

#[test]
fn the_primary_is_asked_once() {
    let stage = Stage::new();
    assert_eq!(stage.client.primary(soon()), Ok(PRIMARY.into()));
    assert_eq!(stage.client.primary(soon()), Ok(PRIMARY.into()));
    assert_eq!(stage.client.requests(), 2);
    let requests = stage.cloud.requests();
    let seen: Vec<_> =
        requests.iter().map(|request| (&*request.method, &*request.path, request.token)).collect();
    assert_eq!(
        seen,
        [
            ("PUT", "/latest/api/token", TokenKind::None),
            ("GET", "/latest/meta-data/mac", TokenKind::Valid),
        ]
    );
}

#[test]
fn all_listed_addresses_are_returned() {
    let stage = Stage::new().with_second();
    let listed = stage.client.listed(soon()).unwrap();
    assert_eq!(listed, [PRIMARY.into(), SECOND.into()].into());
}

#[test]
fn a_first_ask_takes_one_listing_and_one_request_for_each_listed_key_that_decides() {
    let stage = Stage::new().with_second();
    assert_eq!(stage.facts(SECOND, Ask::Everything), second_facts());
    // Session, listing, nine keys.
    assert_eq!(stage.client.requests(), 11);
    assert_eq!(stage.cloud.request_count(), 11);

    let stage = Stage::new();
    let facts = stage.facts(PRIMARY, Ask::Everything);
    assert_eq!(facts.device_number, Known::Value(0));
    assert_eq!(facts.network_card, Known::Absent);
    assert_eq!(facts.ipv6_addresses, Known::Absent);
    assert_eq!(facts.ipv6_subnets, Known::Absent);
    assert_eq!(facts.ipv4_prefixes, Known::Absent);
    assert!(facts.is_complete());
    assert_eq!(
        stage.keys_since(0),
        ["", "device-number", "interface-id", "local-ipv4s", SUBNET, "token"]
    );
}

#[test]
fn a_refresh_asks_only_what_can_change() {
    let stage = Stage::new().with_second();
    stage.facts(SECOND, Ask::Everything);
    let mark = stage.cloud.request_count();
    let added = "10.0.1.12".parse().unwrap();
    stage.cloud.add_address(jackfield_lab::emulator::MacAddr(SECOND), added).unwrap();

    let mut expected = second_facts();
    expected.ipv4_addresses = Known::Value(vec![
        Ipv4Addr::new(10, 0, 1, 10),
        Ipv4Addr::new(10, 0, 1, 11),
        Ipv4Addr::new(10, 0, 1, 12),
    ]);
    assert_eq!(stage.facts(SECOND, Ask::Changing), expected);
    assert_eq!(
        stage.keys_since(mark),
        ["", "ipv4-prefix", "ipv6-prefix", "ipv6s", "local-ipv4s", "subnet-ipv6-cidr-blocks"]
    );

    let stage = Stage::new();
    stage.facts(PRIMARY, Ask::Everything);
    let mark = stage.cloud.request_count();
    stage.facts(PRIMARY, Ask::Changing);
    assert_eq!(stage.keys_since(mark), ["", "local-ipv4s"]);
}

#[test]
fn a_refresh_asks_what_was_not_learned() {
    let stage = Stage::new().with_second();
    assert_eq!(stage.facts(SECOND, Ask::Changing), second_facts());

    // Known, then forgotten.
    stage.client.forget(SECOND.into());
    let mark = stage.cloud.request_count();
    assert_eq!(stage.facts(SECOND, Ask::Changing), second_facts());
    assert_eq!(stage.keys_since(mark).len(), 10);
}

#[test]
fn the_subnet_of_an_interface_id_is_asked_once() {
    let stage = Stage::new().with_second();
    stage.facts(SECOND, Ask::Everything);
    let mark = stage.cloud.request_count();
    assert_eq!(stage.facts(SECOND, Ask::Everything), second_facts());
    let keys = stage.keys_since(mark);
    assert!(keys.contains(&"interface-id".to_owned()), "{keys:?}");
    assert!(keys.contains(&"device-number".to_owned()), "{keys:?}");
    assert!(!keys.contains(&SUBNET.to_owned()), "{keys:?}");
}

#[test]
fn another_interface_of_the_same_address_inherits_nothing() {
    let stage = Stage::new().with_second();
    stage.facts(SECOND, Ask::Everything);
    let mac = jackfield_lab::emulator::MacAddr(SECOND);
    stage
        .cloud
        .edit(mac, |interface| {
            interface.interface_id = "eni-0other".into();
            interface.subnet.ipv4 = Some("10.0.9.0/24".parse().unwrap());
        })
        .unwrap();
    let facts = stage.facts(SECOND, Ask::Everything);
    assert_eq!(facts.interface_id, Known::Value("eni-0other".parse().unwrap()));
    assert_eq!(facts.ipv4_subnet, Known::Value("10.0.9.0/24".parse().unwrap()));
    assert!(facts.is_complete());
    // And from now on that is what is known.
    assert_eq!(stage.facts(SECOND, Ask::Changing).ipv4_subnet, facts.ipv4_subnet);
}

#[test]
fn what_could_not_be_identified_again_has_an_unknown_subnet() {
    let stage = Stage::new().with_second();
    stage.facts(SECOND, Ask::Everything);
    let fault = Fault::new(Effect::Status(403)).on_path("*/interface-id");
    let fault = stage.cloud.add_fault(fault);
    let facts = stage.facts(SECOND, Ask::Everything);
    assert_eq!(facts.interface_id, Known::Unknown);
    assert_eq!(facts.ipv4_subnet, Known::Unknown);
    assert_eq!(facts.problems.len(), 2, "{:?}", facts.problems);
    stage.cloud.clear_fault(fault);
    assert_eq!(stage.facts(SECOND, Ask::Everything), second_facts());
}

#[test]
fn attachment_facts_that_lag_are_read_again_by_asking_for_everything() {
    let stage = Stage::new();
    let lag = Lag::none().device_number(Lag::HELD).key("network-card", Lag::HELD);
    stage.attach_second("eni-0second", lag);
    let facts = stage.facts(SECOND, Ask::Everything);
    assert_eq!(facts.device_number, Known::Value(0));
    assert_eq!(facts.network_card, Known::Absent);
    stage.cloud.release(jackfield_lab::emulator::MacAddr(SECOND)).unwrap();
    assert_eq!(stage.facts(SECOND, Ask::Everything), second_facts());
    assert_eq!(stage.facts(SECOND, Ask::Changing), second_facts());
}

#[test]
fn an_interface_that_is_not_listed_costs_one_request() {
    let stage = Stage::new();
    assert_eq!(stage.ask(SECOND, Ask::Everything), Ok(Listing::NotListed));
    assert_eq!(stage.client.requests(), 2);
}

#[test]
fn a_listed_key_that_is_not_found_is_unknown() {
    let stage = Stage::new().with_second();
    stage.cloud.add_fault(Fault::new(Effect::Status(404)).on_path("*/ipv6s"));
    let facts = stage.facts(SECOND, Ask::Everything);
    assert_eq!(facts.ipv6_addresses, Known::Unknown);
    assert_eq!(facts.problems[0].to_string(), "ipv6s: listed, but not found (404)");
    assert_eq!(facts.ipv4_addresses, second_facts().ipv4_addresses);
}

#[test]
fn a_key_that_cannot_be_read_is_unknown_and_the_others_are_known() {
    for effect in [
        Effect::Status(400),
        Effect::Status(403),
        Effect::Status(301),
        Effect::Body(b"10.0.1.10\n10.0.1.1O".to_vec()),
        Effect::Body(b"10.0.1.10\n\n10.0.1.11".to_vec()),
        Effect::Body(Vec::new()),
        Effect::Body(b"\n".to_vec()),
        Effect::GarbageBody,
    ] {
        let stage = Stage::new().with_second();
        stage.cloud.add_fault(Fault::new(effect.clone()).on_path("*/local-ipv4s"));
        let mut facts = stage.facts(SECOND, Ask::Everything);
        assert_eq!(facts.problems.len(), 1, "{effect:?}");
        assert_eq!(facts.problems.remove(0).key, "local-ipv4s");
        let expected = InterfaceFacts { ipv4_addresses: Known::Unknown, ..second_facts() };
        assert_eq!(facts, expected, "{effect:?}");
        // It is not asked over and over.
        let asked = stage.keys_since(0).iter().filter(|key| *key == "local-ipv4s").count();
        assert!(asked <= 3, "{asked}");
    }
}

#[test]
fn a_passing_fault_is_outlived() {
    for effect in [
        Effect::Status(429),
        Effect::Status(500),
        Effect::Status(503),
        Effect::Reset,
        Effect::Close,
        Effect::Truncate(3),
        Effect::TruncateSilently(3),
        Effect::GarbageBody,
        Effect::GarbageStatusLine,
        Effect::Oversize(10_000_000),
        Effect::EndlessLines,
        Effect::EndlessLine,
        Effect::EndlessHeader,
    ] {
        for path in ["/latest/api/token", "*/macs/02:ec:20:00:00:02/", "*/local-ipv4s", "*"] {
            let stage = Stage::new().with_second();
            if path == "*" {
                stage.cloud.set_connections(Connections::Kept);
            }
            stage.cloud.add_fault(Fault::new(effect.clone()).on_path(path).times(2));
            let facts = stage.facts(SECOND, Ask::Everything);
            assert_eq!(facts, second_facts(), "{effect:?} {path}");
        }
    }
}

#[test]
fn a_lasting_fault_of_the_listing_is_an_error_and_nothing_else_is_asked() {
    for effect in [
        Effect::Status(500),
        Effect::Status(503),
        Effect::Hang,
        Effect::Reset,
        Effect::Truncate(3),
        Effect::TruncateSilently(30),
        Effect::GarbageBody,
        Effect::Oversize(1_000_000),
    ] {
        let stage = Stage::new().with_second();
        stage.cloud.add_fault(Fault::new(effect.clone()).on_path("*/macs/02:ec:20:00:00:02/"));
        let limit = Duration::from_millis(400);
        let started = Instant::now();
        let error = stage.ask_within(SECOND, Ask::Everything, limit).unwrap_err();
        // A deadline is held; how well depends on the machine.
        assert!(started.elapsed() < limit + Duration::from_secs(3), "{effect:?}");
        assert!(error.is_transient(), "{effect:?}: {error}");
        let keys = stage.keys_since(0);
        assert!(keys.iter().all(|key| key.is_empty() || key == "token"), "{effect:?}: {keys:?}");
    }
}

#[test]
fn an_answer_that_drips_ends_at_the_deadline() {
    let stage = Stage::new().with_second();
    let drip = Effect::Drip(Duration::from_millis(100));
    stage.cloud.add_fault(Fault::new(drip).on_path("*/local-ipv4s"));
    let started = Instant::now();
    let limit = Duration::from_millis(500);
    let listing = stage.ask_within(SECOND, Ask::Everything, limit).unwrap();
    assert!(started.elapsed() < limit + Duration::from_secs(3));
    assert_eq!(listing.facts().unwrap().ipv4_addresses, Known::Unknown);
    assert_eq!(listing.facts().unwrap().ipv4_subnet, second_facts().ipv4_subnet);
}

#[test]
fn a_request_that_hangs_is_asked_again_in_time() {
    let stage = Stage::with(|options| options.request_timeout = Duration::from_millis(300));
    let stage = stage.with_second();
    stage.cloud.add_fault(Fault::new(Effect::Hang).on_path("*/local-ipv4s").times(1));
    assert_eq!(stage.facts(SECOND, Ask::Everything).ipv4_addresses, second_facts().ipv4_addresses);
}

/// Carries a call on as far as it goes without a thread; what it tells in the end.
fn carried_on(client: &Arc<Client>, limit: Duration) -> (Progress, Result<Listing, Error>) {
    let asks = [(MacAddr::from(SECOND), Ask::Everything)];
    let mut conversation = client.begin(&asks, Instant::now() + limit);
    let progress = loop {
        match conversation.advance() {
            Progress::Waiting => {}
            progress => break progress,
        }
        let left = conversation.until().unwrap().saturating_duration_since(Instant::now());
        let mut awaited: Vec<_> = conversation.awaited().collect();
        assert!(!awaited.is_empty());
        poll(&mut awaited, Some(&Timespec::try_from(left).unwrap())).unwrap();
    };
    (progress, conversation.finish().remove(&MacAddr::from(SECOND)).unwrap())
}

#[test]
fn a_call_can_be_carried_on_between_other_things() {
    let Stage { cloud, client, emulator: _emulator } = Stage::new().with_second();
    let client = Arc::new(client);
    // There is no session yet, and to get one is to wait.
    let (progress, listing) = carried_on(&client, Duration::from_secs(5));
    assert_eq!(progress, Progress::Stuck);
    assert_eq!(*listing.unwrap().facts().unwrap(), second_facts());
    let mark = cloud.request_count();
    let (progress, listing) = carried_on(&client, Duration::from_secs(5));
    assert_eq!(progress, Progress::Done);
    assert_eq!(*listing.unwrap().facts().unwrap(), second_facts());
    let requests = cloud.requests_since(mark).len();
    client.interfaces(&[(MacAddr::from(SECOND), Ask::Everything)], soon());
    assert_eq!(cloud.requests_since(mark).len(), 2 * requests);
}

#[test]
fn a_call_that_meets_a_fault_goes_on_where_it_can_wait() {
    for effect in [
        Effect::Status(401),
        Effect::Status(500),
        Effect::Status(503),
        Effect::Reset,
        Effect::Close,
        Effect::Hang,
        Effect::TruncateSilently(3),
        Effect::GarbageBody,
    ] {
        for path in ["*/macs/02:ec:20:00:00:02/", "*/local-ipv4s"] {
            let stage = Stage::with(|options| options.request_timeout = Duration::from_millis(300));
            let Stage { cloud, client, emulator: _emulator } = stage.with_second();
            let client = Arc::new(client);
            client.primary(soon()).unwrap();
            cloud.add_fault(Fault::new(effect.clone()).on_path(path).times(1));
            let (progress, listing) = carried_on(&client, Duration::from_secs(5));
            assert_eq!(progress, Progress::Stuck, "{effect:?} {path}");
            assert_eq!(*listing.unwrap().facts().unwrap(), second_facts(), "{effect:?} {path}");
        }
    }
}

#[test]
fn a_service_that_is_switched_off_is_asked_once() {
    let stage = Stage::new();
    stage.cloud.add_fault(Fault::new(Effect::Status(403)));
    let error = stage.client.primary(soon()).unwrap_err();
    assert!(matches!(error, Error::Refused { status: 403, .. }), "{error}");
    assert_eq!(stage.client.requests(), 1);
}

#[test]
fn an_expired_session_is_renewed_once_for_all() {
    let stage = Stage::new().with_second();
    stage.facts(SECOND, Ask::Everything);
    stage.cloud.expire_tokens();
    let mark = stage.cloud.request_count();
    assert_eq!(stage.facts(SECOND, Ask::Changing), second_facts());
    let requests = stage.cloud.requests_since(mark);
    let refused = requests.iter().filter(|request| request.status == Some(401)).count();
    let renewed = requests.iter().filter(|request| request.method == "PUT").count();
    assert_eq!((refused, renewed), (1, 1));
}

#[test]
fn keys_that_are_refused_side_by_side_each_ask_once_more() {
    let stage = Stage::new().with_second();
    for key in ["interface-id", "device-number", "local-ipv4s", "ipv6s"] {
        let path = format!("*/{key}");
        stage.cloud.add_fault(Fault::new(Effect::Status(401)).on_path(path).times(1));
    }
    assert_eq!(stage.facts(SECOND, Ask::Everything), second_facts());
    let requests = stage.cloud.requests();
    let sessions = requests.iter().filter(|request| request.method == "PUT").count();
    // Those that were refused with the same token share the next one.
    assert!((2..=5).contains(&sessions), "{sessions}");
    assert_eq!(requests.len(), sessions + 10 + 4);
}

#[test]
fn a_session_that_is_refused_again_is_an_error() {
    let stage = Stage::new();
    stage.cloud.add_fault(Fault::new(Effect::Status(401)).on_method("GET"));
    let error = stage.client.primary(soon()).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(stage.client.requests(), 4);
}

#[test]
fn a_session_is_renewed_before_it_ends() {
    let stage = Stage::with(|options| options.token_ttl = Duration::from_secs(1)).with_second();
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        stage.facts(SECOND, Ask::Changing);
    }
    let requests = stage.cloud.requests();
    assert!(requests.iter().filter(|request| request.method == "PUT").count() >= 2);
}

#[test]
fn threads_share_one_session() {
    let stage = Stage::new().with_second();
    let delay = Effect::Delay(Duration::from_millis(50));
    stage.cloud.add_fault(Fault::new(delay).on_method("PUT"));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| stage.client.listed(soon()).unwrap());
        }
    });
    let requests = stage.cloud.requests();
    assert_eq!(requests.iter().filter(|request| request.method == "PUT").count(), 1);
    assert_eq!(requests.len(), 9);
}

#[test]
fn one_failed_session_is_not_asked_for_by_each_thread_in_turn() {
    let stage = Stage::with(|options| options.request_timeout = Duration::from_millis(200));
    stage.cloud.add_fault(Fault::new(Effect::Hang));
    let limit = Duration::from_millis(600);
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| stage.client.listed(Instant::now() + limit).unwrap_err());
        }
    });
    assert!(started.elapsed() < limit + Duration::from_secs(3));
    // One at a time, 200 ms each, is what fits.
    assert!(stage.client.requests() <= 5, "{}", stage.client.requests());
}

#[test]
fn connections_are_kept_where_the_service_keeps_them() {
    let stage = Stage::new().with_second();
    stage.cloud.set_connections(Connections::Kept);
    stage.facts(SECOND, Ask::Everything);
    let mark = stage.cloud.request_count();
    stage.facts(SECOND, Ask::Changing);
    let requests = stage.cloud.requests_since(mark);
    let new = requests.iter().filter(|request| request.connection == ConnectionUse::New);
    // At most as many as side by side could find none free.
    assert!(new.count() <= 4);
    assert!(requests[0].connection == ConnectionUse::Reused);
}

#[test]
fn a_connection_that_went_stale_costs_no_failure() {
    let stage = Stage::new().with_second();
    stage.cloud.set_connections(Connections::ClosedUnannounced(2));
    for _ in 0..20 {
        assert_eq!(stage.facts(SECOND, Ask::Changing), second_facts());
    }
}

#[test]
fn each_request_is_counted() {
    for connections in [Connections::Closed, Connections::Kept] {
        let stage = Stage::new().with_second();
        stage.cloud.set_connections(connections);
        stage.cloud.add_fault(Fault::new(Effect::Status(500)).times(3));
        stage.facts(SECOND, Ask::Everything);
        stage.facts(PRIMARY, Ask::Everything);
        stage.facts(PRIMARY, Ask::Changing);
        assert_eq!(stage.client.requests(), stage.cloud.request_count() as u64);
    }
}

#[test]
fn requests_wait_for_their_share_of_the_packet_rate() {
    let stage = Stage::with(|options| options.packets_per_second = 60).with_second();
    let started = Instant::now();
    // Eleven requests of six packets, then at least six more: more than one second's share.
    stage.facts(SECOND, Ask::Everything);
    stage.facts(SECOND, Ask::Changing);
    assert_eq!(stage.client.requests(), 17);
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_packet_rate_never_holds_a_call_past_its_deadline() {
    let stage = Stage::with(|options| options.packets_per_second = 24).with_second();
    let limit = Duration::from_millis(500);
    let started = Instant::now();
    let facts = stage.ask_within(SECOND, Ask::Everything, limit).unwrap().facts().unwrap().clone();
    assert!(started.elapsed() < limit + Duration::from_secs(3));
    assert!(stage.client.requests() <= 4);
    assert!(facts.problems.iter().any(|problem| problem.reason.contains("deadline")));
}

#[test]
fn while_the_service_throttles_few_requests_are_sent() {
    let stage = Stage::new();
    for number in 2..10 {
        let subnet = Subnet::new("subnet-1").with_ipv4("10.0.0.0/24".parse().unwrap());
        let mac = jackfield_lab::emulator::MacAddr([2, 0xec, 0x20, 0, 1, number]);
        stage.cloud.add_interface(CloudInterface::new(mac, subnet)).unwrap();
        stage.cloud.attach(mac, "i-a", number.into(), None).unwrap();
    }
    stage.cloud.add_fault(Fault::new(Effect::Status(503)));
    let asks: Vec<_> = (2..10)
        .map(|number| (MacAddr::from([2, 0xec, 0x20, 0, 1, number]), Ask::Everything))
        .collect();
    let results = stage.client.interfaces(&asks, Instant::now() + Duration::from_secs(2));
    assert_eq!(results.len(), 8);
    assert!(results.values().all(|result| matches!(result, Err(Error::Throttled { .. }))));
    // Waits of at least 50, 100, 200, 400, 800 ms lie between the throttled answers.
    assert!(stage.client.requests() <= 8, "{}", stage.client.requests());
}

#[test]
fn the_next_endpoint_is_asked_where_the_first_does_not_answer() {
    let dead = dead("127.0.0.77");
    let stage = Stage::with(|options| {
        options.endpoints.insert(0, format!("http://{dead}").parse().unwrap());
    });
    assert_eq!(stage.client.primary(soon()), Ok(PRIMARY.into()));
    // What was refused was not sent.
    assert_eq!(stage.client.requests(), 2);
}

#[test]
fn ipv6_is_asked_where_ipv4_does_not_answer() {
    let stage = Stage::new();
    // Only a machine that was made to has no IPv6 on its loopback.
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let emulator = Emulator::start(vec![listener], stage.cloud.clone()).unwrap();
    let mut options = options(dead("127.0.0.76"));
    options.endpoints.push(format!("http://{}", emulator.addresses()[0]).parse().unwrap());
    let client = Client::new(options);
    assert_eq!(client.primary(soon()), Ok(PRIMARY.into()));
    let mark = stage.cloud.request_count();
    client.listed(soon()).unwrap();
    // It is kept to.
    assert!(stage.cloud.requests_since(mark).iter().all(|request| request.local.is_ipv6()));
}

#[test]
fn the_first_endpoint_is_asked_again_where_the_second_stops_answering() {
    let first = dead("127.0.0.78");
    let stage = Stage::with(|options| {
        options.endpoints.insert(0, format!("http://{first}").parse().unwrap());
    });
    stage.client.listed(soon()).unwrap();
    drop(stage.emulator);
    let listener = TcpListener::bind(first).unwrap();
    let _emulator = Emulator::start(vec![listener], stage.cloud.clone()).unwrap();
    stage.client.listed(soon()).unwrap();
}

#[test]
fn no_service_is_an_error_at_the_deadline() {
    let client = Client::new(options(dead("127.0.0.79")));
    let limit = Duration::from_millis(300);
    let started = Instant::now();
    let error = client.primary(started + limit).unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error}");
    assert!(started.elapsed() < limit + Duration::from_secs(3));
    assert_eq!(client.requests(), 0);
}

#[test]
fn many_interfaces_are_asked_in_one_call() {
    let stage = Stage::new();
    let mut asks = Vec::new();
    for number in 0..80 {
        let subnet = Subnet::new("subnet-1").with_ipv4("10.0.0.0/16".parse().unwrap());
        let mac = jackfield_lab::emulator::MacAddr([2, 0xec, 0x20, 0, 1, number]);
        let mut interface = CloudInterface::new(mac, subnet);
        for host in 0..50 {
            let address = Ipv4Addr::new(10, 0, 100 + number, host);
            interface = interface.with_address(address.into());
        }
        stage.cloud.add_interface(interface).unwrap();
        stage.cloud.attach(mac, "i-a", number.into(), None).unwrap();
        asks.push((MacAddr::from(mac.0), Ask::Everything));
        asks.push((MacAddr::from(mac.0), Ask::Changing));
    }
    let results = stage.client.interfaces(&asks, soon());
    assert_eq!(results.len(), 80);
    for (mac, result) in results {
        let facts = result.unwrap().facts().unwrap().clone();
        assert_eq!(facts.mac, mac);
        assert_eq!(facts.ipv4_addresses.value().unwrap().len(), 50);
        assert!(facts.is_complete());
    }
    assert_eq!(stage.client.requests(), 1 + 80 * 5);
}
