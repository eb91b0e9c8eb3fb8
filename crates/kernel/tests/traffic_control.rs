//! Traffic control and tap devices against the real kernel, each test in a namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use jackfield_kernel::{
    Classifier, Filter, Link, LinkChange, Namespace, Qdisc, Redirect, Refusal, Rtnetlink, Tap,
    TapSettings, VethEnd, veth_pair,
};

/// A namespace with a veth pair, `inner` and `outer`, both up.
struct Bench {
    namespace: Namespace,
    kernel: Rtnetlink,
    inner: u32,
    outer: u32,
}

fn bench() -> Bench {
    let namespace = Namespace::anonymous().expect("these tests need the right to make namespaces");
    let mut kernel = Rtnetlink::open_in(&namespace).unwrap();
    let end = |name| VethEnd { name, address: None, mtu: None, namespace: None };
    kernel.request("make a veth pair", veth_pair(end("inner"), end("outer"))).unwrap();
    let [inner, outer] = ["inner", "outer"].map(|name| index(&mut kernel, name));
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let answers = kernel.batch(&[up.request(inner), up.request(outer)]).unwrap();
    assert_eq!(answers, [Ok(()), Ok(())]);
    Bench { namespace, kernel, inner, outer }
}

fn index(kernel: &mut Rtnetlink, name: &str) -> u32 {
    let links = Link::list(kernel).unwrap();
    links.into_iter().find(|link| link.name == name).unwrap().index
}

fn all_done(answers: Vec<Result<(), Refusal>>) {
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// A process that another test just starts holds every open file for a moment.
fn eventually(holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    let mut holds = holds;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::yield_now();
    }
}

impl Bench {
    fn redirect(&self, classifier: Classifier) -> Redirect {
        let preference = Redirect::FIRST_PREFERENCE;
        let cookie = Some(*b"0123456789abcdef");
        Redirect { from: self.inner, to: self.outer, preference, classifier, cookie }
    }

    fn tc(&self, words: &str) -> String {
        let mut command = Command::new("tc");
        command.args(words.split_whitespace());
        self.namespace.start_inside(&mut command, None).unwrap();
        let output = command.output().unwrap();
        assert!(output.status.success(), "tc {words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn filters(&mut self) -> Vec<Filter> {
        Filter::list(&mut self.kernel, self.inner).unwrap()
    }

    fn arriving(&mut self) -> Vec<String> {
        let qdiscs = Qdisc::list(&mut self.kernel).unwrap();
        let inner = self.inner;
        let arriving = |qdisc: &Qdisc| qdisc.interface == inner && qdisc.is_for_arriving();
        qdiscs.into_iter().filter(arriving).map(|qdisc| qdisc.kind).collect()
    }
}

#[test]
fn a_qdisc_for_arriving_packets_is_added_once_listed_and_removed() {
    let mut bench = bench();
    assert_eq!(bench.arriving(), Vec::<String>::new());
    for (add, kind) in
        [(Qdisc::add_ingress(bench.inner), "ingress"), (Qdisc::add_clsact(bench.inner), "clsact")]
    {
        all_done(bench.kernel.batch(&[add]).unwrap());
        let again = bench.kernel.batch(&[Qdisc::add_ingress(bench.inner)]).unwrap();
        assert!(again[0].as_ref().is_err_and(Refusal::already_there), "{again:?}");
        assert_eq!(bench.arriving(), [kind]);
        all_done(bench.kernel.batch(&[Qdisc::remove_ingress(bench.inner)]).unwrap());
        assert_eq!(bench.arriving(), Vec::<String>::new());
    }
}

#[test]
fn a_redirect_is_read_back_by_every_classifier_on_either_qdisc() {
    for qdisc in [Qdisc::add_ingress, Qdisc::add_clsact] {
        let mut bench = bench();
        all_done(bench.kernel.batch(&[qdisc(bench.inner)]).unwrap());
        for classifier in [Classifier::U32, Classifier::Bpf] {
            let redirect = bench.redirect(classifier);
            all_done(bench.kernel.batch(&[redirect.add()]).unwrap());
            let filters = bench.filters();
            let [filter] = filters.as_slice() else { panic!("{filters:?}") };
            assert!(filter.matches_everything, "{filter:?}");
            assert_eq!(filter.redirects_to, Some(bench.outer));
            assert_eq!(filter.cookie, redirect.cookie);
            assert_eq!(filter.preference, redirect.preference);
            let shown = bench.tc("filter show dev inner ingress");
            assert!(shown.contains("Redirect to device outer"), "{shown}");
            all_done(bench.kernel.batch(&[filter.remove()]).unwrap());
            assert_eq!(bench.filters(), []);
        }
    }
}

#[test]
fn a_classifier_that_the_kernel_lacks_is_refused_as_not_there() {
    let mut bench = bench();
    let redirect = bench.redirect(Classifier::MatchAll);
    let requests = [Qdisc::add_ingress(bench.inner), redirect.add()];
    match &bench.kernel.batch(&requests).unwrap()[1] {
        Ok(()) => assert!(bench.filters()[0].matches_everything),
        Err(refusal) => assert_eq!(refusal.errno, Refusal::NO_ENTRY, "{refusal}"),
    }
}

#[test]
fn what_does_not_redirect_everything_is_told_apart() {
    let mut bench = bench();
    bench.tc("qdisc add dev inner clsact");
    let filter = "filter add dev inner ingress";
    let redirect = "action mirred egress redirect dev outer";
    for (words, everything, redirects) in [
        (format!("protocol all pref 1 u32 match u32 0 0 {redirect}"), true, true),
        (format!("protocol all pref 2 u32 match ip protocol 6 0xff {redirect}"), false, true),
        (format!("protocol ip pref 3 u32 match u32 0 0 {redirect}"), false, true),
        (
            "protocol all pref 4 u32 match u32 0 0 action mirred egress mirror dev outer".into(),
            true,
            false,
        ),
        (format!("protocol all pref 5 u32 skip_hw match u32 0 0 {redirect}"), true, true),
        (format!("protocol all pref 6 u32 match u32 0 0 indev inner {redirect}"), false, true),
        (format!("protocol all pref 7 chain 3 u32 match u32 0 0 {redirect}"), false, true),
    ] {
        bench.tc(&format!("{filter} {words}"));
        let filters = bench.filters();
        let last = filters.last().unwrap();
        assert_eq!(last.matches_everything, everything, "{words}: {last:?}");
        let target = redirects.then_some(bench.outer);
        assert_eq!(last.redirects_to, target, "{words}: {last:?}");
        all_done(bench.kernel.batch(&[last.remove()]).unwrap());
        assert_eq!(bench.filters(), [], "{words}");
    }
}

#[test]
fn a_filter_is_removed_alone_from_among_those_of_others() {
    let mut bench = bench();
    bench.tc("qdisc add dev inner clsact");
    let others = "filter add dev inner ingress protocol all pref 49152 u32 match u32 0 0";
    bench.tc(&format!("{others} action mirred egress mirror dev outer"));
    let redirect = bench.redirect(Classifier::U32);
    all_done(bench.kernel.batch(&[redirect.add()]).unwrap());
    let filters = bench.filters();
    assert_eq!(filters.len(), 2, "{filters:?}");
    let ours = filters.iter().find(|filter| filter.cookie == redirect.cookie).unwrap();
    all_done(bench.kernel.batch(&[ours.remove()]).unwrap());
    let left = bench.filters();
    assert!(left.len() == 1 && left[0].cookie.is_none(), "{left:?}");
}

#[test]
fn a_redirect_to_a_device_that_goes_says_so() {
    let mut bench = bench();
    let tap = bench.namespace.run(|| Tap::create(Some("tap0")).unwrap()).unwrap();
    let to = index(&mut bench.kernel, "tap0");
    let redirect = Redirect { to, ..bench.redirect(Classifier::U32) };
    all_done(bench.kernel.batch(&[Qdisc::add_ingress(bench.inner), redirect.add()]).unwrap());
    assert_eq!(bench.filters()[0].redirects_to, Some(to));
    drop(tap);
    eventually(|| bench.filters()[0].redirects_to == Some(0));
}

fn taps(kernel: &mut Rtnetlink) -> Vec<(Link, TapSettings)> {
    let devices = TapSettings::list(kernel).unwrap();
    devices.into_iter().filter_map(|(link, tap)| Some((link, tap?))).collect()
}

#[test]
fn a_tap_is_made_with_its_settings_and_stays_when_told_to() {
    let mut bench = bench();
    let tap = bench.namespace.run(|| Tap::create(Some("vm0")).unwrap()).unwrap();
    tap.set_owner(1000).unwrap();
    tap.set_group(1001).unwrap();
    let found = taps(&mut bench.kernel);
    let [(link, settings)] = found.as_slice() else { panic!("{found:?}") };
    let expected = TapSettings {
        owner: Some(1000),
        group: Some(1001),
        persistent: false,
        virtio_net_header: true,
        multi_queue: false,
    };
    assert_eq!((link.name.as_str(), settings), ("vm0", &expected));
    assert_eq!(link.address, Some(tap.address().unwrap()));
    drop(tap);
    eventually(|| taps(&mut bench.kernel).is_empty());

    let tap = bench.namespace.run(|| Tap::create(None).unwrap()).unwrap();
    assert_eq!(tap.name(), "tap0");
    tap.persist().unwrap();
    drop(tap);
    let found = taps(&mut bench.kernel);
    assert!(found[0].1.persistent && found[0].1.owner.is_none(), "{found:?}");
    all_done(bench.kernel.batch(&[Link::delete(found[0].0.index)]).unwrap());
    assert_eq!(taps(&mut bench.kernel), []);
}

#[test]
fn a_tap_is_not_made_over_another_device_or_by_a_bad_name() {
    let bench = bench();
    let errors = bench.namespace.run(|| {
        let first = Tap::create(Some("vm0")).unwrap();
        let errors = ["vm0", "inner", "vm%d", "", "a/b", "a-name-that-is-too-long"]
            .map(|name| Tap::create(Some(name)).expect_err(name).to_string());
        drop(first);
        errors
    });
    for (error, part) in errors.unwrap().iter().zip([
        "vm0: ",
        "inner: ",
        "vm%d: not an interface name",
        ": not an interface name",
        "a/b: ",
        "at most 15 octets",
    ]) {
        assert!(error.contains(part), "{error}");
    }
    assert!(bench.namespace.run(|| Tap::open("absent").is_err()).unwrap());
}

#[test]
fn an_owner_that_is_none_is_refused() {
    let bench = bench();
    let refused = bench.namespace.run(|| Tap::create(None).unwrap().set_owner(u32::MAX)).unwrap();
    assert!(refused.unwrap_err().to_string().contains("user 4294967295"));
}

#[test]
fn frames_go_through_a_redirect_between_a_tap_and_an_interface() {
    let mut bench = bench();
    let mut tap = bench.namespace.run(|| Tap::create(Some("vm0")).unwrap()).unwrap();
    let (inner, vm) = (bench.inner, index(&mut bench.kernel, "vm0"));
    let to_tap = Redirect { to: vm, ..bench.redirect(Classifier::U32) };
    let from_tap = Redirect { from: vm, to: inner, ..to_tap };
    let up = LinkChange { up: Some(true), ..LinkChange::default() };
    let requests = [
        up.request(vm),
        Qdisc::add_ingress(vm),
        Qdisc::add_ingress(inner),
        from_tap.add(),
        to_tap.add(),
    ];
    all_done(bench.kernel.batch(&requests).unwrap());
    // Written to one tap, out by the veth's other end into a second tap, without a payload: too
    // short for a filter that looks at the first octets.
    let other = bench.namespace.run(|| Tap::create(Some("vm1")).unwrap()).unwrap();
    let (outer, second) = (bench.outer, index(&mut bench.kernel, "vm1"));
    let onward = Redirect { from: outer, to: second, ..to_tap };
    let requests = [up.request(second), Qdisc::add_ingress(outer), onward.add()];
    all_done(bench.kernel.batch(&requests).unwrap());
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    tap.write_all(&frame).unwrap();
    let mut other = other;
    let mut buffer = [0; 2048];
    loop {
        // The kernel's own IPv6 chatter goes this way too.
        let length = other.read(&mut buffer).unwrap();
        if buffer[..length].get(10..24) == Some(&frame[10..24]) {
            break;
        }
    }
}

#[test]
fn the_devices_of_a_group_go_at_once_and_no_others() {
    let mut bench = bench();
    let taps = bench.namespace.run(|| ["a", "b", "c"].map(|name| Tap::create(Some(name)).unwrap()));
    for tap in taps.unwrap() {
        tap.persist().unwrap();
    }
    let [a, b] = ["a", "b"].map(|name| index(&mut bench.kernel, name));
    let group = LinkChange { group: Some(7), ..LinkChange::default() };
    let requests = [group.request(a), group.request(b), Link::delete_group(7)];
    all_done(bench.kernel.batch(&requests).unwrap());
    let left: Vec<String> =
        Link::list(&mut bench.kernel).unwrap().into_iter().map(|link| link.name).collect();
    assert!(!left.contains(&"a".into()) && !left.contains(&"b".into()), "{left:?}");
    assert!(left.contains(&"c".into()) && left.contains(&"inner".into()), "{left:?}");
}
