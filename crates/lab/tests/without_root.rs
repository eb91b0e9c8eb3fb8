//! The lab as an unprivileged user has it: in a user namespace. Where it is started by root it
//! starts itself again as nobody.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use jackfield_lab::probe::{Echo, Transport, probe};
use jackfield_lab::{Lab, LabError, Plug, enter_user_namespace};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

const NOBODY: u32 = 65_534;

fn main() -> ExitCode {
    // What the test runner asks a test program that has no harness.
    if std::env::args().any(|argument| argument == "--list") {
        println!("without_root: test");
        return ExitCode::SUCCESS;
    }
    if rustix::process::geteuid().is_root() {
        return as_nobody();
    }
    if let Err(error) = enter_user_namespace() {
        eprintln!("NOT TESTED: {error}");
        return ExitCode::SUCCESS;
    }
    story();
    println!("the lab works without root");
    ExitCode::SUCCESS
}

/// Runs a copy of this program, at a place that everybody can read, as nobody.
fn as_nobody() -> ExitCode {
    let directory = std::env::temp_dir().join(format!("jackfield-lab-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let program = directory.join("without_root");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let status = Command::new(&program).uid(NOBODY).gid(NOBODY).status();
    std::fs::remove_dir_all(&directory).unwrap();
    if status.expect("it starts as nobody").success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn story() {
    let lab = Lab::start().unwrap();
    let mut a = lab.instance("a", &lab.subnet(1)).unwrap();
    let client = lab.client(&lab.subnet(1)).unwrap();
    let own: Vec<IpAddr> = a.primary().addresses().collect();
    let _echo = Echo::start(&a, &own).unwrap();
    for address in own {
        for from in [&*client, lab.remote()] {
            for transport in Transport::ALL {
                let to = Echo::at(address);
                probe(from, None, to, transport, Duration::from_secs(3)).unwrap();
            }
        }
    }
    let metadata = SocketAddr::new("169.254.169.254".parse().unwrap(), 80);
    let asked = a.run(|| std::net::TcpStream::connect(metadata)).unwrap();
    assert!(asked.is_ok(), "{asked:?}");
    assert_eq!(lab.violations(), []);

    let secondary = lab.interface(&lab.subnet(2), 2).unwrap();
    lab.attach(&a, secondary.mac, &Plug::new(1)).unwrap();
    let list = || std::fs::read_dir("/sys/class/net").unwrap().count();
    assert_eq!(a.run(list).unwrap(), 3);
    let command = a.command("true").unwrap().status().unwrap();
    assert!(command.success());
    lab.detach(secondary.mac).unwrap();
    assert!(a.link("eth1").is_err());

    match a.start_udev(&[]) {
        Err(LabError::Unsupported(why)) => assert!(why.contains("root"), "{why}"),
        other => panic!("{other:?}"),
    }
}
