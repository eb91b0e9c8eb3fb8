//! Containers that come and go by the thousand.

use std::time::{Duration, Instant};

use jackfield_kernel::{VethEnd, veth_pair};
use jackfield_lab::{Host, Instance};

use crate::harness::*;

/// A thousand a minute.
const PACE: Duration = Duration::from_millis(60);
const CONTAINERS: u32 = 200;
/// How many of them are there at a time.
const ALIVE: u32 = 20;

/// Starts and stops containers, each with a link to the host, and calls `each` between.
fn storm(host: &Instance, mut each: impl FnMut(u32)) {
    let elsewhere = Host::new("containers").unwrap();
    let began = Instant::now();
    for number in 0..CONTAINERS + ALIVE {
        if number < CONTAINERS {
            let (near, far) = (format!("cali{number}"), format!("c{number}"));
            let near = VethEnd { name: &near, address: None, mtu: None, namespace: None };
            let far = VethEnd { name: &far, namespace: Some(elsewhere.namespace()), ..near };
            host.apply("start a container", &[veth_pair(near, far)]).unwrap();
            host.set_up(&format!("cali{number}"), true).unwrap();
        }
        if let Some(old) = number.checked_sub(ALIVE) {
            let index = host.link(&format!("cali{old}")).unwrap().index;
            host.apply("stop a container", &[jackfield_kernel::Link::delete(index)]).unwrap();
        }
        each(number);
        let next = began + PACE * (number + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn a_thousand_containers_a_minute_cost_at_most_one_listing_a_second_and_delay_no_plug() {
    let stage = Stage::new();
    let mut agent = Agent::start(&stage.a);
    let first = stage.attach(2, 1, 2);
    answers_within(stage.lab.remote(), &stage.a, &first.addresses, PATIENCE);
    let before = NetworkState::settled(&stage.a);
    let cloud = stage.lab.cloud();
    let own = [stage.a.primary().mac, first.mac].map(|mac| format!("/macs/{mac}/"));
    let mark = cloud.request_count();
    let (cpu, began) = (cpu_time(&mut agent), Instant::now());
    let mut plugged = None;
    storm(&stage.a, |number| {
        if number == CONTAINERS / 2 {
            let second = stage.attach(3, 2, 2);
            let patience = Duration::from_secs(5);
            let took = answers_within(stage.lab.remote(), &stage.a, &second.addresses, patience);
            eprintln!("plugged in the middle of the storm: ready after {took:?}");
            plugged = Some(second);
        }
    });
    let (cpu, elapsed) = (cpu_time(&mut agent) - cpu, began.elapsed());
    let plugged = plugged.unwrap();
    let of_others = |path: &str| {
        !own.iter().any(|own| path.contains(own)) && !path.contains(&plugged.mac.to_string())
    };
    let requests = cloud.requests_since(mark);
    let listings = requests.iter().filter(|request| {
        request.path.contains("/network/interfaces/macs/") && of_others(&request.path)
    });
    let listings = listings.count();
    eprintln!("{listings} listings in {elapsed:.1?}, {cpu:.1?} of processor time");
    // One a second, and the one that found what was plugged in.
    assert!(listings as f64 <= elapsed.as_secs_f64() + 2.0, "{listings} in {elapsed:?}");
    assert!(cpu < elapsed / 2, "{cpu:?} in {elapsed:?}");
    stage.lab.detach(plugged.mac).unwrap();
    becomes(&before, &stage.a);
    assert!(agent.is_running());
    agent.stop();
}

#[test]
fn containers_cost_no_request_where_their_kind_is_not_configured() {
    let stage = Stage::new();
    let mut agent = Agent::with_config(&stage.a, "");
    eventually("it started", PATIENCE, || agent.log().iter().any(|l| l.contains("started")));
    let before = NetworkState::settled(&stage.a);
    let (cpu, began) = (cpu_time(&mut agent), Instant::now());
    storm(&stage.a, |_| {});
    let cpu = cpu_time(&mut agent) - cpu;
    eprintln!("{cpu:.1?} of processor time in {:.1?}", began.elapsed());
    assert_eq!(stage.lab.cloud().request_count(), 0);
    assert_same(&before, &NetworkState::of(&stage.a));
    agent.stop();
}

/// The processor time that the agent has used.
fn cpu_time(agent: &mut Agent) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).unwrap();
    // Behind the name in parentheses: fields 14 and 15 of proc(5), in ticks of 10 ms.
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}
