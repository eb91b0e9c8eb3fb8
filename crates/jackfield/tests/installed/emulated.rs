//! A machine that QEMU emulates, with Debian's kernel for clouds: nothing of it is this machine's. Its network
//! is the lab's: each interface of an instance is joined to a virtio device, which is plugged in as
//! hardware is.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use jackfield_lab::emulator::MacAddr;
use jackfield_lab::{Instance, Process};
use serde_json::json;

use crate::disk::Disk;
use crate::harness::{Attached, Stage, shell};
use crate::qmp::Monitor;

/// How long a boot may take, and each answer: the processor is emulated, and other things run.
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes the image `$1` of the disk, which grows as it is written.
const IMAGE: &str = r#"
    truncate -s 1G "$1"
    PATH=$PATH:/usr/sbin:/sbin mke2fs -q -t ext4 -O ^has_journal -L root -d /run/root "$1""#;

/// Joins an interface of the instance, `$1`, to a tap, `$2`: what comes by one leaves by the other, and the
/// instance takes no part.
const JOIN: &str = r#"
    echo 1 >"/proc/sys/net/ipv6/conf/$1/disable_ipv6"
    ip address flush dev "$1"
    ip tuntap add "$2" mode tap vnet_hdr
    # A processor that is emulated may be late by seconds where others are busy.
    ip link set "$2" txqueuelen 10000
    echo 1 >"/proc/sys/net/ipv6/conf/$2/disable_ipv6"
    for pair in "$1 $2" "$2 $1"; do
        set -- $pair
        ip link set "$1" up
        tc qdisc add dev "$1" ingress
        tc filter add dev "$1" parent ffff: protocol all u32 match u32 0 0 \
            action mirred egress redirect dev "$2"
    done"#;

/// A machine that runs. Dropped, it is killed and its disk is gone.
pub(crate) struct Emulated {
    _qemu: Process,
    monitor: Monitor,
    keyboard: ChildStdin,
    screen: Receiver<String>,
    pub(crate) stage: Stage,
    files: Files,
}

/// The files of a machine, which go with it.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Emulated {
    /// Switches a machine on whose disk has these files besides, and waits until it answers. `None`, which
    /// is said, where there is no Debian to put on its disk.
    pub(crate) fn boot(more: &[(&str, &PathBuf)]) -> Option<Self> {
        let disk = Disk::new("vm")?;
        let stage = Stage::new();
        disk.prepare(&stage.a);
        for (name, text) in [
            ("console.sh", include_str!("guest/console.sh")),
            ("echo.pl", include_str!("guest/echo.pl")),
            ("ask.pl", include_str!("guest/ask.pl")),
            ("files.sh", include_str!("guest/files.sh")),
            ("network.sh", include_str!("guest/network.sh")),
        ] {
            disk.write(&format!("/usr/local/lib/lab/{name}"), text);
        }
        for (name, text) in [
            ("console", include_str!("guest/console.service")),
            ("echo", include_str!("guest/echo.service")),
        ] {
            let unit = format!("/etc/systemd/system/lab-{name}.service");
            disk.write(&unit, text);
            disk.want(&unit);
        }
        for (path, from) in more {
            disk.write(path, "");
            std::fs::copy(from, disk.file(path)).unwrap();
        }
        let files = std::env::temp_dir().join(format!("jackfield-vm-{}", std::process::id()));
        std::fs::create_dir(&files).unwrap();
        let files = Files(files);
        let image = files.0.join("disk");
        disk.run(IMAGE, &[image.to_str().unwrap()]).unwrap();

        join(&stage.a, "eth0");
        let mut command = qemu(&stage.a, &disk, &files);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = Process::start(&mut command).unwrap();
        let keyboard = qemu.child().stdin.take().unwrap();
        let screen = lines(qemu.child().stdout.take().unwrap());
        let monitor = Monitor::connect(&files.0.join("qmp"));
        let mut machine = Emulated { _qemu: qemu, monitor, keyboard, screen, stage, files };
        machine.wait_until_booted();
        Some(machine)
    }

    /// Waits until it answers, and everything that it starts has started.
    #[track_caller]
    pub(crate) fn wait_until_booted(&mut self) {
        self.answer("its boot", "= ready");
        let state = self.run("systemctl is-system-running --wait").unwrap_or_else(|said| said);
        assert_eq!(
            state,
            "running",
            "{}",
            self.shell("systemctl --failed; journalctl -b -p warning")
        );
    }

    /// Reboots it by itself, as an operator does.
    #[track_caller]
    pub(crate) fn reboot(&mut self) {
        writeln!(self.keyboard, "systemctl reboot").unwrap();
        self.wait_until_booted();
    }

    /// Runs a line of shell in it, which must succeed; what it printed.
    #[track_caller]
    pub(crate) fn shell(&mut self, line: &str) -> String {
        self.run(line).unwrap_or_else(|said| self.fail(&format!("{line}: {said}")))
    }

    /// Runs a line of shell in it; what it printed, `Err` where its status is not 0.
    #[track_caller]
    pub(crate) fn run(&mut self, line: &str) -> Result<String, String> {
        assert!(!line.contains('\n'));
        writeln!(self.keyboard, "{line}").unwrap();
        let (printed, status) = self.answer(line, "= ");
        if status == "= 0" { Ok(printed) } else { Err(printed) }
    }

    /// Waits until a line of shell succeeds in it; what it printed then.
    #[track_caller]
    pub(crate) fn eventually(&mut self, line: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.run(line) {
                Ok(printed) => return printed,
                Err(said) if Instant::now() > end => self.fail(&format!("{line}: {said}")),
                Err(_) => {}
            }
        }
    }

    /// Reads until a line that begins with `end`; what the lines before it say, and it.
    #[track_caller]
    fn answer(&mut self, to: &str, end: &str) -> (String, String) {
        let last = Instant::now() + PATIENCE;
        let mut printed = Vec::new();
        loop {
            let left = last.saturating_duration_since(Instant::now());
            let Ok(line) = self.screen.recv_timeout(left) else {
                self.fail(&format!("no end of the answer to {to}"));
            };
            if line.starts_with(end) {
                return (printed.join("\n").trim_end().to_owned(), line);
            }
            printed.extend(line.strip_prefix("> ").map(str::to_owned));
        }
    }

    /// Fails, with what the kernel and systemd said on the console.
    #[track_caller]
    fn fail(&self, why: &str) -> ! {
        let console = std::fs::read(self.files.0.join("console")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let last: Vec<&str> = console.lines().rev().take(50).collect();
        panic!("{why}\nThe console, from its end:\n{}", last.join("\n"));
    }

    /// Makes an interface with two addresses of each family in subnet 2, and plugs it in.
    pub(crate) fn attach(&mut self, device: u32) -> Attached {
        let interface = self.stage.attach(2, device, 2);
        join(&self.stage.a, &interface.name);
        let netdev = json!({
            "type": "tap", "id": format!("net-{}", interface.name),
            "ifname": tap(&interface.name), "script": "no", "downscript": "no",
        });
        self.monitor.execute("netdev_add", netdev);
        let device = json!({
            "driver": "virtio-net-pci", "id": interface.name, "mac": interface.mac.to_string(),
            "netdev": format!("net-{}", interface.name),
        });
        self.monitor.execute("device_add", device);
        interface
    }

    /// Pulls an interface, and waits until the guest has let it go.
    pub(crate) fn detach(&mut self, interface: &Attached) {
        self.monitor.execute("device_del", json!({ "id": interface.name }));
        self.monitor.wait_for("DEVICE_DELETED", &[("device", &interface.name)]);
        self.monitor.execute("netdev_del", json!({ "id": format!("net-{}", interface.name) }));
        self.stage.lab.detach(interface.mac).unwrap();
    }

    /// The name of the interface of this MAC in it, as soon as it has one.
    #[track_caller]
    pub(crate) fn name_of(&mut self, mac: MacAddr) -> String {
        self.eventually(&format!(
            "grep -lx {mac} /sys/class/net/*/address | cut -d / -f 5 | grep ."
        ))
    }
}

/// What joins the interface of this name to QEMU.
fn tap(interface: &str) -> String {
    format!("tap-{interface}")
}

fn join(a: &Instance, interface: &str) {
    let tap = tap(interface);
    shell(a, &format!("set -- {interface} {tap}\n{JOIN}"));
}

fn qemu(a: &Instance, disk: &Disk, files: &Files) -> Command {
    let boot = disk.file("/boot");
    let newest = |prefix: &str| {
        let entries = std::fs::read_dir(&boot).unwrap().flatten();
        let mut all = entries.filter(|it| it.file_name().to_string_lossy().starts_with(prefix));
        all.next().expect("the root file system has a kernel").path()
    };
    let file = |name: &str| files.0.join(name).display().to_string();
    // The holder's files are out of the instance's sight.
    for (name, from) in [("kernel", newest("vmlinuz-")), ("initrd", newest("initrd.img-"))] {
        std::fs::copy(from, files.0.join(name)).unwrap();
    }
    let primary = a.primary().mac;
    let mut command = a.command("qemu-system-x86_64").unwrap();
    command.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "512"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-kernel", &file("kernel"), "-initrd", &file("initrd")]);
    let line = "console=ttyS0 root=/dev/vda rw net.ifnames=1 systemd.show_status=no panic=-1 quiet";
    command.args(["-append", line]);
    command.args(["-drive", &format!("file={},if=virtio,format=raw,cache=unsafe", file("disk"))]);
    command.args(["-serial", &format!("file:{}", file("console")), "-serial", "stdio"]);
    command.args(["-qmp", &format!("unix:{},server=on,wait=off", file("qmp"))]);
    let tap = tap("eth0");
    command.args(["-netdev", &format!("tap,id=net-eth0,ifname={tap},script=no,downscript=no")]);
    command.args(["-device", &format!("virtio-net-pci,netdev=net-eth0,mac={primary}")]);
    command.args(["-object", "rng-random,id=rng,filename=/dev/urandom"]);
    command.args(["-device", "virtio-rng-pci,rng=rng"]);
    jackfield_kernel::end_with_parent(&mut command);
    command
}

/// The lines of an output, as they come.
fn lines(output: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    receiver
}
