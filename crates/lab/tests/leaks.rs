//! Nothing stays: no thread, no descriptor, no process, no namespace, no rule in the router. The
//! only test of its process, so that it can count.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use jackfield_kernel::{Family, Route, RouteFilter, Rtnetlink, Rule, VethEnd, veth_pair};
use jackfield_lab::probe::Echo;
use jackfield_lab::{Host, Lab, Plug, Process};
use std::time::{Duration, Instant};

/// Threads, descriptors and children of this process.
fn held() -> (usize, usize, String) {
    let count = |path| std::fs::read_dir(path).unwrap().count();
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    (count("/proc/self/task"), count("/proc/self/fd"), children)
}

/// What the router holds, by kind.
fn router(lab: &Lab) -> (usize, usize, usize) {
    lab.with_router(|router| {
        let mut kernel = Rtnetlink::open_in(router.namespace()).unwrap();
        let mut counts = (router.links().unwrap().len(), 0, 0);
        for family in Family::BOTH {
            counts.1 += Rule::list(&mut kernel, family).unwrap().len();
            counts.2 += Route::list(&mut kernel, family, RouteFilter::default()).unwrap().len();
        }
        counts
    })
}

#[test]
fn nothing_stays() {
    let machine = Host::new("observer").unwrap();
    let before = held();
    let lab = Lab::start().unwrap();
    let a = lab.instance("a", &lab.subnet(1)).unwrap();
    let b = lab.instance("b", &lab.subnet(1)).unwrap();
    // A link whose other end goes with the instance's namespace.
    let end = VethEnd { name: "witness", address: None, mtu: None, namespace: None };
    let far = VethEnd { namespace: Some(a.namespace()), ..end };
    machine.apply("make a witness", &[veth_pair(end, far)]).unwrap();
    let secondary = lab.interface(&lab.subnet(2), 3).unwrap();

    let quiet = router(&lab);
    for cycle in 0..30 {
        let to = if cycle % 2 == 0 { &a } else { &b };
        lab.attach(to, secondary.mac, &Plug::new(1)).unwrap();
        lab.detach(secondary.mac).unwrap();
    }
    assert_eq!(router(&lab), quiet);
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();

    let echo = Echo::start(&a, &secondary.addresses().collect::<Vec<_>>()).unwrap();
    let mut command = a.command("sleep").unwrap();
    let sleeper = Process::start(command.arg("1000")).unwrap();
    drop((echo, sleeper, command, a, b, lab));
    assert_eq!(held(), before);

    // The kernel takes namespaces down in the background.
    let end = Instant::now() + Duration::from_secs(10);
    while machine.link("witness").is_ok() {
        assert!(Instant::now() < end, "the instance's namespace is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}
