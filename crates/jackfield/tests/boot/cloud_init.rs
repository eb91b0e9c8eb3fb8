//! `cloud-init`: the real one reads it in the guest, from a NoCloud seed, and has networkd configure
//! what it read.

use std::process::Command;

use crate::initramfs::Initramfs;
use crate::networkd::boots_on_both_networks;

const CONFIG: &str = "datasource_list: [NoCloud]
system_info:
  distro: debian
  network:
    renderers: [networkd]
";

/// Takes this machine's cloud-init along, with the Python that it runs on.
fn add_cloud_init(initramfs: &mut Initramfs) {
    let python = "/usr/bin/python3";
    initramfs.program(python);
    // All that it opens when it is loaded.
    let script = include_str!("guest/cloud_init_files.py");
    let output = Command::new(python).args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "is cloud-init installed? {output:?}");
    for file in String::from_utf8(output.stdout).unwrap().lines() {
        if file.contains(".so") { initramfs.program(file) } else { initramfs.copy(file) }
    }
    initramfs.tree("/usr/lib/python3/dist-packages/cloudinit");
    initramfs.program("/sbin/blkid");
    initramfs.file("/etc/cloud/cloud.cfg", 0o644, CONFIG.as_bytes());
    // It wants to see that systemd is there before it writes files for networkd.
    initramfs.link("/bin/systemctl", "busybox");
    initramfs.file("/start/2-cloud-init", 0o755, include_bytes!("guest/cloud-init.sh"));
}

#[test]
#[ignore = "long: boots a guest"]
fn a_guest_with_two_interfaces_of_both_families_is_configured_by_cloud_init() {
    boots_on_both_networks("cloud-init", |initramfs, printed| {
        add_cloud_init(initramfs);
        let seed = "/var/lib/cloud/seed/nocloud";
        initramfs.file(format!("{seed}/meta-data"), 0o644, b"instance-id: guest\n");
        initramfs.file(format!("{seed}/user-data"), 0o644, b"");
        initramfs.file(format!("{seed}/network-config"), 0o644, printed.as_bytes());
    });
}
