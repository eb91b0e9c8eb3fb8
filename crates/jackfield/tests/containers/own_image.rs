//! The image of `packaging/container`, run as docs/install.md says.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::enclosure::{Enclosure, succeeded};
use crate::engine::PODMAN;
use crate::harness::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// As the document has it, but for the lab's configuration.
const RUN: [&str; 16] = [
    "run",
    "--detach",
    "--name",
    "jackfield",
    "--network",
    "host",
    "--cap-drop",
    "all",
    "--cap-add",
    "NET_ADMIN",
    "--read-only",
    "--volume",
    "/proc/sys/net:/sys-net",
    "--env",
    "JACKFIELD_SYS_NET=/sys-net",
    "--volume=/run/configuration:/etc/jackfield:ro",
];

#[test]
#[ignore = "long: needs what scripts/package makes"]
fn the_image_plugs_with_nothing_but_net_admin() {
    let image = Path::new(ROOT).join("target/package/image");
    if !image.join("usr/bin/jackfield").exists() {
        return not_tested(format!("there is no {}: run scripts/package", image.display()));
    }
    if !Path::new("/usr/bin/podman").exists() {
        return not_tested("podman is missing: install the Debian package podman");
    }
    let stage = Stage::new();
    let enclosure = Enclosure::new(&stage.a);
    enclosure.shell(&format!(
        "mkdir /run/configuration
        printf '{}' >/run/configuration/config.toml
        printf '[containers]\\npids_limit = 0\\n' >/run/containers.conf",
        LAB_CONFIG.replace('\n', "\\n")
    ));
    let podman = || -> Command {
        let mut command = enclosure.command("podman");
        command.args(PODMAN).env("CONTAINERS_CONF", "/run/containers.conf");
        command
    };
    // The machine's /tmp is not seen there, and this may be below it.
    let archive = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image.tar");
    let mut tar = Command::new("tar");
    tar.args(["--create", "--file"]).arg(&archive).arg("--directory").arg(&image).arg(".");
    let recipe = Path::new(ROOT).join("packaging/container");
    succeeded(tar.arg("--directory").arg(recipe).arg("Containerfile"));
    enclosure.shell("mkdir /run/image");
    let mut unpack = enclosure.command("tar");
    unpack.stdin(Stdio::from(File::open(&archive).unwrap()));
    succeeded(unpack.args(["--extract", "--directory", "/run/image"]));
    let recipe = ["--file", "/run/image/Containerfile", "/run/image"];
    succeeded(podman().args(["build", "--tag", "jackfield"]).args(recipe));
    succeeded(podman().args(RUN).arg("localhost/jackfield"));
    let attached = stage.attach(2, 1, 2);
    let said = || podman().args(["logs", "jackfield"]).output();
    let configured = || {
        let plan = jackfield(&stage.a, &["plan"]);
        plan.status.success() && status(&stage.a)["interfaces"][1]["state"] == "configured"
    };
    let end = std::time::Instant::now() + PATIENCE;
    while !configured() {
        assert!(std::time::Instant::now() < end, "{:?}", said());
    }
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let setting = stage.a.sysctl("net/ipv6/conf/eth1/accept_ra_defrtr").unwrap();
    assert_eq!(setting.trim(), "0", "{:?}", said());
    // Stopped, it leaves the network as it is.
    let before = NetworkState::settled(&stage.a);
    succeeded(podman().args(["stop", "jackfield"]));
    assert_same(&before, &NetworkState::of(&stage.a));
    enclosure.close();
}
