//! What is packaged: units whose sandbox is tight and lets the program do all it does, and what goes when
//! the package goes.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jackfield_hostnet::config::Config;

use crate::harness::*;

const UNITS: [&str; 3] = ["jackfield.service", "jackfield-scan.service", "jackfield-plug@.service"];

/// Nobody's number.
pub(crate) const USER: &str = "64321";

fn packaging(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging")).join(name)
}

fn unit(name: &str) -> String {
    std::fs::read_to_string(packaging("systemd").join(name)).unwrap()
}

/// The part of a unit that says what it may do.
fn sandbox(name: &str) -> Vec<String> {
    let text = unit(name);
    let part = text.lines().skip_while(|line| !line.starts_with("# The sandbox"));
    part.take_while(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Runs systemd-analyze; `None`, which is said, where there is none.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let output = Command::new("systemd-analyze").args(arguments).output();
    if output.is_err() {
        not_tested("systemd-analyze is missing: install the Debian package systemd");
    }
    output.ok()
}

#[test]
fn the_exposure_of_every_unit_is_at_most_two() {
    for name in UNITS {
        let path = packaging("systemd").join(name);
        let path = path.to_str().unwrap();
        let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", path];
        let Some(output) = analyze(&arguments) else { return };
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("units");
    std::fs::create_dir_all(&directory).unwrap();
    for name in UNITS {
        // What is named there is not installed here.
        let text = unit(name).replace("/usr/bin/jackfield", JACKFIELD);
        std::fs::write(directory.join(name), text).unwrap();
    }
    for name in UNITS {
        let path = directory.join(name);
        let arguments = ["verify", "--man=no", path.to_str().unwrap()];
        let Some(output) = analyze(&arguments) else { return };
        let said = String::from_utf8(output.stderr).unwrap();
        let about_ours: Vec<&str> =
            said.lines().filter(|line| line.contains("jackfield")).collect();
        assert!(output.status.success() && about_ours.is_empty(), "{name}: {said}");
    }
}

#[test]
fn systemd_has_nothing_to_say_against_the_examples() {
    for name in ["root.conf", "network-manager.conf"] {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("with-{name}"));
        let drop_ins = directory.join("jackfield.service.d");
        std::fs::create_dir_all(&drop_ins).unwrap();
        std::fs::copy(packaging("examples").join(name), drop_ins.join(name)).unwrap();
        let path = directory.join(UNITS[0]);
        std::fs::write(&path, unit(UNITS[0]).replace("/usr/bin/jackfield", JACKFIELD)).unwrap();
        let mut command = Command::new("systemd-analyze");
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", directory.display()));
        command.args(["verify", "--man=no"]).arg(path);
        let Some(output) = run(&mut command, "systemd") else { return };
        let said = String::from_utf8(output.stderr).unwrap();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("jackfield")).collect();
        assert!(output.status.success() && ours.is_empty(), "{name}: {said}");
    }
}

#[test]
fn all_units_have_the_same_sandbox() {
    let agent = sandbox(UNITS[0]);
    assert!(agent.iter().any(|line| line == "CapabilityBoundingSet=CAP_NET_ADMIN"), "{agent:?}");
    for name in UNITS {
        assert_eq!(sandbox(name), agent, "{name}");
    }
}

/// The program as the units run it: as a user who owns nothing, in root's group, with one capability.
pub(crate) fn confined(stage: &Stage, config: &ConfigFile, arguments: &[&str]) -> Command {
    // Where it is built, others may not be let in.
    let binary = "/run/jackfield-under-test";
    shell(
        &stage.a,
        &format!("[ -e {binary} ] || {{ : >{binary}; mount --bind {JACKFIELD} {binary}; }}"),
    );
    let mut command = stage.a.command("setpriv").unwrap();
    command.args(["--reuid", USER, "--regid", USER, "--groups", "0", "--no-new-privs"]);
    command.args(["--inh-caps=-all,+net_admin", "--ambient-caps=-all,+net_admin"]);
    command.args(["--bounding-set=-all,+net_admin", binary, "--config", config.path()]);
    command.args(arguments);
    command
}

fn run_confined(stage: &Stage, arguments: &[&str]) -> Output {
    confined(stage, &ConfigFile::new(LAB_CONFIG), arguments).output().unwrap()
}

#[test]
fn what_the_units_give_is_enough_to_plug_and_to_unplug() {
    let capabilities: Vec<String> =
        sandbox(UNITS[0]).into_iter().filter(|line| line.contains("CAP_")).collect();
    let expected = ["AmbientCapabilities=CAP_NET_ADMIN", "CapabilityBoundingSet=CAP_NET_ADMIN"];
    assert_eq!(capabilities, expected, "what is tested here");
    let stage = Stage::of(Shape::Prefixes);
    // Connections are marked, and the reverse path filter is made loose.
    shell(
        &stage.a,
        "sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1
        nft 'table ip nat { chain prerouting { type nat hook prerouting priority dstnat; }; }'",
    );
    let attached = stage.attach(2, 1, 2);
    let before = NetworkState::settled(&stage.a);
    let output = run_confined(&stage, &["plug", "eth1"]);
    assert!(output.status.success(), "{output:?}");
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    shell(&stage.a, "nft list table inet jackfield");
    assert_eq!(stage.a.sysctl("net/ipv6/conf/eth1/accept_ra_defrtr").unwrap().trim(), "0");
    let plan = jackfield(&stage.a, &["plan"]);
    assert_eq!(plan.status.code(), Some(0), "root finds nothing left to do: {plan:?}");
    let output = run_confined(&stage, &["unplug", "--all"]);
    assert!(output.status.success(), "{output:?}");
    becomes(&before, &stage.a);
}

#[test]
fn the_older_iptables_is_seen_by_roots_group() {
    let groups: Vec<String> = sandbox(UNITS[0])
        .into_iter()
        .filter(|line| line.starts_with("SupplementaryGroups"))
        .collect();
    assert_eq!(groups, ["SupplementaryGroups=root"]);
    let stage = Stage::new();
    let file = "/proc/self/net/ip_tables_names";
    if !stage.a.run(|| Path::new(file).exists()).unwrap() {
        return not_tested(format!("this kernel has no {file}"));
    }
    let read = |group: &str| {
        let mut command = stage.a.command("setpriv").unwrap();
        command.args(["--reuid", USER, "--regid", USER, "--groups", group, "cat", file]);
        command.output().unwrap().status.success()
    };
    assert_eq!((read("0"), read(USER)), (true, false));
}

#[test]
fn after_unplugging_all_nothing_of_ours_is_left_and_the_primary_is_as_it_was() {
    let stage = Stage::of(Shape::Prefixes);
    let primary = stage.a.primary().mac;
    let more: [IpAddr; 2] = ["10.0.1.77".parse().unwrap(), "2001:db8:0:1::77".parse().unwrap()];
    for address in more {
        stage.lab.add_address(primary, address).unwrap();
    }
    let before = NetworkState::settled(&stage.a);
    stage.attach(2, 1, 2);
    let gone = stage.attach(2, 2, 2);
    let both = NetworkState::settled(&stage.a);
    succeed(&stage.a, &["scan"]);
    let addresses = shell(&stage.a, "ip -o address show dev eth0");
    assert!(more.iter().all(|address| addresses.contains(&address.to_string())), "{addresses}");
    assert!(NetworkState::of(&stage.a).has_ours());
    // Without the metadata service, and with one that went while nobody looked.
    let config = ConfigFile::new(LAB_CONFIG);
    let nowhere = ["--metadata", "http://127.0.0.1:9", "unplug", "--all"];
    let output = jackfield_with(&stage.a, &config, &nowhere);
    assert!(output.status.success(), "{output:?}");
    becomes(&both, &stage.a);
    succeed(&stage.a, &["scan"]);
    stage.lab.detach(gone.mac).unwrap();
    let output = jackfield_with(&stage.a, &config, &nowhere);
    assert!(output.status.success(), "{output:?}");
    assert!(!NetworkState::of(&stage.a).has_ours());
    assert_eq!(
        succeed(&stage.a, &["unplug", "--all"]),
        "nothing to do: no netlink write was sent\n"
    );
    shell(&stage.a, "ip link delete eth1");
    becomes(&before, &stage.a);
}

#[test]
fn all_is_not_unplugged_while_an_agent_would_plug_it_again() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 1);
    let agent = Agent::start(&stage.a);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    let (status, said) = failure(&jackfield(&stage.a, &["unplug", "--all"]));
    assert_eq!(status, 1);
    assert!(said.contains("agent") && said.contains("stop the agent"), "{said}");
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    agent.stop();
    let (status, said) = failure(&jackfield(&stage.a, &["unplug", "--all", "eth1"]));
    assert_eq!(status, 2, "{said}");
}

#[test]
fn settings_are_written_where_a_container_has_them() {
    let stage = Stage::new();
    let attached = stage.attach(2, 1, 1);
    let before = NetworkState::settled(&stage.a);
    shell(
        &stage.a,
        "mkdir /run/sys-net
        mount --bind /proc/sys/net /run/sys-net
        mount --bind /proc/sys /proc/sys
        mount -o remount,bind,ro /proc/sys",
    );
    let run = |arguments: &[&str]| {
        let config = ConfigFile::new(LAB_CONFIG);
        let mut command = stage.a.command(JACKFIELD).unwrap();
        command.env("JACKFIELD_SYS_NET", "/run/sys-net").args(["--config", config.path()]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    run(&["plug", "eth1"]);
    answers_within(stage.lab.remote(), &stage.a, &attached.addresses, PATIENCE);
    assert_eq!(stage.a.sysctl("net/ipv6/conf/eth1/accept_ra_defrtr").unwrap().trim(), "0");
    run(&["unplug", "eth1"]);
    becomes(&before, &stage.a);
}

/// What `scripts/package` made; `None`, which is said, where it has not.
fn made(what: &str) -> Option<PathBuf> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/package")).join(what);
    if path.exists() {
        return Some(path);
    }
    not_tested(format!("there is no {}: run scripts/package", path.display()));
    None
}

/// Runs a program of a Debian package; `None`, which is said, where it is missing.
fn run(command: &mut Command, package: &str) -> Option<Output> {
    let output = command.output();
    if let Err(error) = &output {
        not_tested(format!("{command:?}: {error}: install the Debian package {package}"));
    }
    output.ok()
}

#[test]
#[ignore = "long: needs what scripts/package makes"]
fn lintian_has_nothing_to_say_against_the_package() {
    let Some(directory) = made("") else { return };
    let version = env!("CARGO_PKG_VERSION");
    let architecture = run(Command::new("dpkg").arg("--print-architecture"), "dpkg");
    let architecture = String::from_utf8(architecture.unwrap().stdout).unwrap();
    let package = directory.join(format!("jackfield_{version}-1_{}.deb", architecture.trim()));
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]).arg(package);
    let Some(output) = run(&mut lintian, "lintian") else { return };
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "long: needs what scripts/package makes"]
fn every_man_page_is_one_without_warnings() {
    let Some(manual) = made("manual/man") else { return };
    let mut count = 0;
    for section in std::fs::read_dir(&manual).unwrap() {
        for page in std::fs::read_dir(section.unwrap().path()).unwrap() {
            let page = page.unwrap().path();
            let mut man = Command::new("man");
            man.current_dir(&manual).env("LC_ALL", "C.UTF-8");
            man.args(["--warnings", "--encoding=UTF-8", "-Tutf8", "--local-file"]).arg(&page);
            let Some(output) = run(&mut man, "man-db") else { return };
            assert!(output.status.success() && output.stderr.is_empty(), "{page:?}: {output:?}");
            assert!(output.stdout.len() > 200, "{page:?} is empty");
            count += 1;
        }
    }
    assert!(count > 20, "{count} pages");
}

#[test]
#[ignore = "long: needs what scripts/package makes"]
fn the_static_program_needs_no_library_and_does_what_the_other_does() {
    let Some(program) = made("image/usr/bin/jackfield") else { return };
    let linked = Command::new("ldd").arg(&program).output().unwrap();
    assert!(String::from_utf8_lossy(&linked.stdout).contains("statically linked"), "{linked:?}");
    let size = program.metadata().unwrap().len();
    assert!(size < 4 << 20, "{size} bytes are not less than 4 MiB");
    let demo = Command::new(&program).arg("demo").output().unwrap();
    assert!(demo.status.success(), "{demo:?}");
}

#[test]
fn what_kubernetes_is_given_is_yaml_and_asks_for_no_more_than_it_needs() {
    let script = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)";
    let path = packaging("kubernetes/daemonset.yaml");
    let output = Command::new("/usr/bin/python3").args(["-c", script]).arg(path).output();
    let documents: serde_json::Value = match output {
        Ok(output) if output.status.success() => serde_json::from_slice(&output.stdout).unwrap(),
        output => return not_tested(format!("python3-yaml is missing: {output:?}")),
    };
    let [document, map] = [&documents[0], &documents[1]];
    assert_eq!((&document["kind"], &map["kind"]), (&"DaemonSet".into(), &"ConfigMap".into()));
    let pod = &document["spec"]["template"]["spec"];
    assert_eq!((&pod["hostNetwork"], pod.get("hostPID")), (&true.into(), None));
    let container = &pod["containers"][0];
    let context = &container["securityContext"];
    assert_eq!(
        context["capabilities"],
        serde_json::json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })
    );
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert_eq!(context["privileged"], false);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
    let config = map["data"]["config.toml"].as_str().unwrap();
    let config = Config::parse(config, Path::new("config.toml")).unwrap();
    let probe = &container["livenessProbe"]["httpGet"];
    let asked = format!("{}:{}", probe["host"].as_str().unwrap(), probe["port"]);
    assert_eq!(config.agent.metrics.map(|address| address.to_string()), Some(asked));
    let named = container["env"][0]["value"].as_str().unwrap();
    assert!(mounts.iter().any(|mount| mount["mountPath"] == named), "{named}");
}
