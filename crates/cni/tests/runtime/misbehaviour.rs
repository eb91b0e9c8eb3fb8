//! Plugins that hang, fail, vanish and print garbage.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use jackfield_cni::PluginFailure;

use crate::bench::{Bench, RESULT, conf, failure, network};

#[test]
fn a_plugin_that_hangs_is_killed_with_what_it_started() {
    let mut bench = Bench::new();
    let pids = bench.path("pids");
    bench.plugin(
        "one",
        &format!(
            "echo 'waiting for nothing' >&2\n\
             sleep 1000 & echo $! $$ >{0}.new; mv {0}.new {0}\nwait",
            pids.display()
        ),
    );
    // A busy machine may not come to the point at which it hangs before the first deadlines.
    bench.runtime.deadline = Duration::from_millis(200);
    while !pids.exists() {
        bench.runtime.deadline *= 2;
        assert!(bench.runtime.deadline < Duration::from_secs(100), "it never came to hang");
        let (_, _, failure) = failure(bench.runtime.status(&network("1.1.0", &["one"])));
        let PluginFailure::Deadline { after, stderr } = failure else { panic!("{failure}") };
        assert_eq!(after, bench.runtime.deadline);
        assert!(!pids.exists() || stderr == "waiting for nothing", "{stderr}");
    }
    for pid in fs::read_to_string(pids).unwrap().split_whitespace() {
        // Killed; whoever adopted the second may still have to bury it.
        let ends = Instant::now() + Duration::from_secs(20);
        let alive = || match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
            Err(_) => false,
        };
        while alive() {
            assert!(Instant::now() < ends, "{pid} lives");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_plugin_that_ends_is_not_waited_for_because_of_what_it_left_running() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.plugin("one", &format!("echo '{RESULT}'; sleep 1000 & echo $! >{}", pid.display()));
    let began = Instant::now();
    bench.runtime.add(&network("1.0.0", &["one"]), &conf()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    let pid = fs::read_to_string(pid).unwrap();
    assert!(std::process::Command::new("kill").arg(pid.trim()).status().unwrap().success());
}

#[test]
fn output_that_is_no_result_is_an_error_and_undone() {
    for (script, reason) in [
        ("echo garbage", "expected value"),
        ("true", "EOF"),
        ("echo null", "null"),
        (r#"echo '{"ips":[null]}'"#, "ips[0]"),
        (r#"echo '{"ips":[{"address":"10.0.0.2/24","interface":3}]}'"#, "ips[0].interface"),
        ("yes", "over 1048576 bytes"),
    ] {
        let bench = Bench::new();
        bench.plugin("one", &format!("[ $CNI_COMMAND = DEL ] || {script}"));
        let (_, _, failure) = failure(bench.runtime.add(&network("1.0.0", &["one"]), &conf()));
        let PluginFailure::Output { reason: given, .. } = &failure else { panic!("{failure}") };
        assert!(given.contains(reason), "{script}: {given}");
        assert_eq!(bench.sequence(), ["one ADD", "one DEL"]);
    }
}

#[test]
fn a_failure_without_a_message_tells_the_status_and_the_end_of_standard_error() {
    let bench = Bench::new();
    bench.plugin("one", "yes | head -c 100000 >&2; echo last words >&2; echo huh; exit 7");
    let (_, _, failure) = failure(bench.runtime.status(&network("1.1.0", &["one"])));
    let PluginFailure::Unexplained { status, stdout, stderr } = failure else { panic!() };
    assert_eq!((status.as_str(), stdout.as_str()), ("exit status 7", "huh"));
    assert!(stderr.ends_with("y\nlast words") && stderr.len() <= 4096);

    bench.plugin("one", "echo '{}'; exit 1");
    let message = bench.runtime.status(&network("1.1.0", &["one"])).unwrap_err().to_string();
    assert!(
        message.contains("exit status 1, with no error on standard output: \"{}\""),
        "{message}"
    );

    bench.plugin("one", "kill -SEGV $$");
    let message = bench.runtime.status(&network("1.1.0", &["one"])).unwrap_err().to_string();
    assert!(message.contains("STATUS by plugin one: ended by signal 11"), "{message}");
}

#[test]
fn a_message_is_one_line_whatever_a_plugin_says() {
    let bench = Bench::new();
    bench.plugin("one", r"printf 'a\nb\033[31m' >&2; exit 1");
    let message = bench.runtime.status(&network("1.1.0", &["one"])).unwrap_err().to_string();
    assert!(!message.contains(char::is_control), "{message:?}");
}

#[test]
fn a_plugin_that_does_not_read_its_input_is_none_the_worse() {
    let bench = Bench::new();
    let path = bench.path("plugins/one");
    fs::write(&path, format!("#!/bin/sh\nexec <&-\necho '{RESULT}'\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut network = network("1.0.0", &["one"]);
    network.plugins[0].fields.insert("much".into(), "x".repeat(1 << 20).into());
    bench.runtime.add(&network, &conf()).unwrap();
}

#[test]
fn a_plugin_that_cannot_be_started_is_an_error() {
    let bench = Bench::new();
    fs::write(bench.path("plugins/one"), "no program").unwrap();
    let (_, _, failure) = failure(bench.runtime.status(&network("1.1.0", &["one"])));
    assert!(matches!(failure, PluginFailure::NotStarted { .. }), "{failure}");
    let (_, _, failure) = self::failure(bench.runtime.status(&network("1.1.0", &["two"])));
    assert!(matches!(failure, PluginFailure::NotInstalled { .. }), "{failure}");
}
