//! What is done on disk when an interface is taken over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use super::kernel::Theirs;
use super::silence::{CONFIGURE, forget_ifup, mask_rules};
use super::take_over::remove_files;
use super::{Fate, Files, Findings, FoundFile, FoundInterface, Takeover, Tool};

/// A directory of its own, which goes with it.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("jackfield-import-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A udev rule of a package, and eth1, of which the tool has a file.
fn with_rule(takeover: Takeover) -> Findings {
    let rule = format!("/usr/lib/udev/rules.d/{}", CONFIGURE[1]);
    let its = "/run/systemd/network/70-eth1.network".to_owned();
    let tool = Tool::Ec2NetUtils2;
    let file = |path: &str, interface: Option<&str>, fate| FoundFile {
        path: path.to_owned(),
        tool,
        interface: interface.map(str::to_owned),
        fate,
    };
    Findings {
        tools: vec![(tool, rule.clone())],
        interfaces: vec![FoundInterface {
            index: 3,
            name: "eth1".to_owned(),
            mac: [2, 0, 0, 0, 0, 3].into(),
            takeover,
            needs_tool: false,
            theirs: Theirs::default(),
        }],
        files: vec![
            file(&rule, None, Fate::Package("amazon-ec2-net-utils".to_owned())),
            file(&its, Some("eth1"), Fate::Remove),
        ],
        ..Findings::default()
    }
}

#[test]
fn a_rule_of_udev_is_masked_but_for_an_interface_that_cannot_be_taken_over() {
    let masks = Directory::new("masks");
    let mask = masks.0.join(CONFIGURE[1]);
    let mut left = with_rule(Takeover::Takes);
    left.leave(3, "its backend is another manager");
    let mut done = Vec::new();
    mask_rules(&left, &masks.0, &mut done).unwrap();
    assert_eq!(done, [""; 0]);
    assert_eq!(left.files[0].fate, Fate::Needed("eth1".to_owned()));
    assert!(fs::symlink_metadata(&mask).is_err());
    // The primary is left anyway.
    let mut primary = with_rule(Takeover::Leaves("the primary".to_owned()));
    primary.leave(3, "the primary");
    mask_rules(&primary, &masks.0, &mut done).unwrap();
    assert_eq!(done.len(), 1);
    assert_eq!(fs::read_link(&mask).unwrap(), Path::new("/dev/null"));
}

#[test]
fn a_mask_that_leads_nowhere_is_left_as_it_is() {
    let masks = Directory::new("dangling");
    let mask = masks.0.join(CONFIGURE[1]);
    std::os::unix::fs::symlink("/nowhere/at/all", &mask).unwrap();
    let mut done = Vec::new();
    mask_rules(&with_rule(Takeover::Takes), &masks.0, &mut done).unwrap();
    assert_eq!(done, [""; 0]);
    assert_eq!(fs::read_link(&mask).unwrap(), Path::new("/nowhere/at/all"));
}

#[test]
fn ifupdown_forgets_an_interface_also_after_a_run_that_was_killed() {
    let run = Directory::new("ifstate");
    let (all, its) = (run.0.join("ifstate"), run.0.join("ifstate.eth1"));
    // The second time its line has gone already, and its file has not.
    for before in ["lo=lo\neth1=eth1\neth10=eth10\n", "lo=lo\neth10=eth10\n"] {
        fs::write(&all, before).unwrap();
        fs::write(&its, "eth1\n").unwrap();
        forget_ifup(&run.0, "eth1").unwrap();
        assert_eq!(fs::read_to_string(&all).unwrap(), "lo=lo\neth10=eth10\n");
        assert!(!its.exists(), "{before:?}");
    }
}

#[test]
fn a_file_that_was_changed_since_it_was_read_is_left_and_named() {
    let root = Directory::new("root");
    let paths = ["eth1", "eth2", "eth3"].map(|it| format!("/etc/network/interfaces.d/{it}.cfg"));
    let at = |path: &String| root.0.join(path.trim_start_matches('/'));
    fs::create_dir_all(at(&paths[0]).parent().unwrap()).unwrap();
    for path in &paths {
        fs::write(at(path), "# This file is automaticatically generated\n").unwrap();
    }
    let files = Files::read(&root.0);
    let file = |path: &String| FoundFile {
        path: path.clone(),
        tool: Tool::UbuntuEc2net,
        interface: None,
        fate: Fate::Remove,
    };
    let findings = Findings { files: paths.iter().map(file).collect(), ..Findings::default() };
    fs::write(at(&paths[1]), "iface eth2 inet static\n").unwrap();
    fs::remove_file(at(&paths[2])).unwrap();
    assert_eq!(
        remove_files(&findings, &files, &root.0).unwrap(),
        [format!("removed {}", paths[0]), format!("left {}: it was changed meanwhile", paths[1]),]
    );
    assert!(!at(&paths[0]).exists());
    assert_eq!(fs::read_to_string(at(&paths[1])).unwrap(), "iface eth2 inet static\n");
}
