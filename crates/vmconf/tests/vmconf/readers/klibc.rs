//! klibc's ipconfig, which initramfs-tools gives `ip=`: it configures a veth in a namespace of its own.

use std::process::Command;

use jackfield_vmconf::{IpForm, StaticNetworkConf};

use super::{Reader, output};
use crate::support::*;

const IPCONFIG: Reader = Reader { file: "/usr/lib/klibc/bin/ipconfig", package: "klibc-utils" };

/// What the kernel has afterwards, and what ipconfig leaves for others to read.
fn configure(value: &str) -> String {
    const SCRIPT: &str = "mount -t tmpfs tmpfs /run && \
        ip link add eth0 type veth peer name peer && ip link set peer up && \
        \"$0\" -t 30 -d \"ip=$1\" >/dev/null && \
        ip -o -4 addr show dev eth0 && ip -4 route show && cat /run/net-eth0.conf";
    output(Command::new("unshare").args(["-n", "-m", "sh", "-c", SCRIPT, IPCONFIG.file, value]))
}

fn assert_configured(conf: &StaticNetworkConf, form: IpForm) {
    let value = conf.ip_boot_param_as(form).unwrap();
    let state = configure(&value);
    let [ip] = conf.vm_ips.as_slice() else { panic!("{value}") };
    assert!(state.contains(&format!("inet {} ", ip.address())), "{value}: {state}");
    match ip.gateway() {
        Some(via) => assert!(state.contains(&format!("default via {via} dev eth0")), "{state}"),
        None => assert!(!state.contains("default"), "{state}"),
    }
    for (number, server) in conf.vm_nameservers.iter().enumerate() {
        assert!(state.contains(&format!("IPV4DNS{number}='{server}'")), "{value}: {state}");
    }
}

#[test]
fn it_configures_what_every_form_says() {
    if !IPCONFIG.is_installed() {
        return;
    }
    let mut conf = plain();
    for form in [IpForm::EveryReader, IpForm::GoSdk] {
        assert_configured(&conf, form);
    }
    conf.vm_nameservers.truncate(1);
    assert_configured(&conf, IpForm::EveryReader);
    conf.vm_nameservers.clear();
    assert_configured(&conf, IpForm::EveryReader);
    conf.vm_ips = vec![ip("10.0.0.2/24", None)];
    assert_configured(&conf, IpForm::EveryReader);
}
