//! The local API of the agent: who may ask, what is answered, and that nobody holds it up.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

use jackfield_lab::Host;
use serde_json::{Value, json};
use varlink::{Connection, MethodCall, OrgVarlinkServiceInterface};

use crate::harness::*;

/// In the instance's own /run.
const PATH: &str = "/run/jackfield-api";

fn with_api() -> String {
    format!("{LAB_CONFIG}api = \"{PATH}\"\n")
}

fn connect(host: &Host) -> UnixStream {
    let name = SocketAddr::from_abstract_name("jackfield-agent").unwrap();
    let stream = host.run(|| UnixStream::connect_addr(&name)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One message.
fn hear(stream: &mut UnixStream) -> Value {
    let mut message = Vec::new();
    let mut octet = [0];
    loop {
        stream.read_exact(&mut octet).unwrap();
        if octet == [0] {
            return serde_json::from_slice(&message).unwrap();
        }
        message.push(octet[0]);
    }
}

fn without_ages(mut status: Value) -> Value {
    status["metadata"]["age_s"] = Value::Null;
    status["agent"]["uptime_s"] = Value::Null;
    for interface in status["interfaces"].as_array_mut().unwrap() {
        interface["metadata_age_s"] = Value::Null;
    }
    status
}

#[test]
fn a_varlink_client_asks_the_agent_at_its_path_and_by_its_name() {
    let stage = Stage::new();
    let agent = Agent::with_config(&stage.a, &with_api());
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    let mode = stage.a.run(|| std::fs::metadata(PATH).unwrap().permissions().mode()).unwrap();
    assert_eq!(mode & 0o777, 0o600);
    let pid = agent.pid();
    for address in [format!("unix:{PATH}"), "unix:@jackfield-agent".to_owned()] {
        let connection = stage.a.run(|| Connection::with_address(&address)).unwrap().unwrap();
        let call = |method: &'static str, parameters: Value| {
            let connection = std::sync::Arc::clone(&connection);
            let mut call: MethodCall<Value, Value, varlink::Error> =
                MethodCall::new(connection, method, parameters);
            call.call().unwrap()
        };
        let mut service = varlink::OrgVarlinkServiceClient::new(connection.clone());
        let info = service.get_info().unwrap();
        assert!(info.interfaces.iter().any(|it| it == "org.jackfield"), "{info:?}");
        let described = service.get_interface_description("org.jackfield").unwrap();
        assert!(described.description.unwrap().contains("method Status"));

        assert_eq!(call("org.jackfield.Info", json!({}))["pid"], pid);
        let told = call("org.jackfield.Status", json!({}));
        assert_eq!(without_ages(told), without_ages(status(&stage.a)));
        let told = call("org.jackfield.Status", json!({ "interfaces": ["eth1"] }));
        assert_eq!(told["interfaces"].as_array().unwrap().len(), 1);
        assert_eq!(call("org.jackfield.Plan", json!({}))["changes"], json!([]));
        let metrics = call("org.jackfield.Metrics", json!({}));
        assert!(metrics["text"].as_str().unwrap().contains("\njackfield_plugs_total "));
        assert_eq!(call("org.jackfield.Reload", json!({})), json!({}));
    }
    agent.stop();
    assert!(!stage.a.run(|| std::fs::exists(PATH).unwrap()).unwrap());
}

#[test]
fn status_is_what_the_agent_knows_and_asks_nobody_else() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    let attached = stage.attach(2, 1, 2);
    configured_within(&stage.a, &attached, PATIENCE);
    let nowhere = ["--metadata", "http://127.0.0.1:1", "--config", "/nonexistent"];
    let output = stage.a.command(JACKFIELD).unwrap().args(nowhere).arg("status").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("all is well: 2 interfaces\nagent "), "{text}");
    assert!(text.contains("; metadata answer"), "{text}");
    // As where nobody is asked.
    let (code, text) = failure(&jackfield(&stage.a, &["status", "eth9"]));
    assert!(code == 1 && text.contains("there is no interface 'eth9'; see 'jackfield status'"));
    agent.stop();
    let text = succeed(&stage.a, &["status"]);
    assert!(text.starts_with("all is well: 2 interfaces\nno agent runs"), "{text}");
    assert_eq!(status(&stage.a)["agent"], Value::Null);
}

#[test]
fn an_agent_that_does_not_answer_is_told_of_and_done_without() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    let pid = agent.pid();
    shell(&stage.a, &format!("kill -STOP {pid}"));
    let text = succeed(&stage.a, &["status"]);
    shell(&stage.a, &format!("kill -CONT {pid}"));
    assert!(text.contains("1 problem (agent); 1 interface\n"), "{text}");
    assert!(text.contains(&format!("agent, process {pid}, does not answer")), "{text}");
    agent.stop();
}

#[test]
fn only_root_may_ask() {
    let stage = Stage::new();
    let agent = Agent::start(&stage.a);
    agent.wait_until_started();
    let told = stage
        .a
        .run(|| {
            // Of this thread alone, which ends with it.
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            let name = SocketAddr::from_abstract_name("jackfield-agent").unwrap();
            let mut stream = UnixStream::connect_addr(&name).unwrap();
            stream.write_all(b"{\"method\":\"org.jackfield.Reload\"}\0").unwrap();
            let told = hear(&mut stream);
            (told, stream.read(&mut [0]).unwrap())
        })
        .unwrap();
    assert_eq!(told.0["error"], "org.varlink.service.PermissionDenied");
    assert_eq!(told.0["parameters"]["text"], "only root may ask the jackfield agent");
    assert_eq!(told.1, 0, "the connection goes on");
    assert!(!agent.log().iter().any(|line| line.contains("was read again")));
    agent.stop();
}

#[test]
fn who_hangs_floods_or_never_reads_holds_up_no_plug() {
    let stage = Stage::new();
    let mut agent = Agent::start(&stage.a);
    agent.wait_until_started();
    succeed(&stage.a, &["status"]);
    let resident = |agent: &mut Agent| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = resident(&mut agent);
    let hanging: Vec<UnixStream> = (0..30).map(|_| connect(&stage.a)).collect();
    let mut garbage = connect(&stage.a);
    garbage.write_all(b"\xff\xfe\0").unwrap();
    assert_eq!(hear(&mut garbage)["error"], "org.varlink.service.InvalidParameter");
    let end = Instant::now() + Duration::from_secs(3);
    let mut attached = None;
    std::thread::scope(|scope| {
        for request in ["", "{\"method\":\"org.jackfield.Status\"}\0"] {
            let host = &stage.a;
            scope.spawn(move || {
                // Without an end to any request, and without ever reading an answer.
                let text = if request.is_empty() { " ".repeat(4096) } else { request.repeat(100) };
                while Instant::now() < end {
                    let mut stream = connect(host);
                    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                    while stream.write_all(text.as_bytes()).is_ok() && Instant::now() < end {}
                }
            });
        }
        let plugged = stage.attach(2, 1, 2);
        let took = configured_within(&stage.a, &plugged, PATIENCE);
        assert!(Instant::now() < end, "it took {took:?}: as long as the flood");
        attached = Some(plugged);
        // Others are heard too.
        assert_eq!(status(&stage.a)["agent"]["answers"], true);
    });
    let after = resident(&mut agent);
    assert!(after < before + 4096, "{before} KiB before, {after} KiB after");
    drop(hanging);
    assert_eq!(status(&stage.a)["interfaces"][1]["state"], "configured");
    agent.stop();
}
