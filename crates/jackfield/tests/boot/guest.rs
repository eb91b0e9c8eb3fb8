//! A guest in QEMU, and what it answers on its console.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::host::Vm;
use crate::initramfs::Initramfs;

/// How long a guest may take to boot, and for each answer: it is emulated, and other things run.
const PATIENCE: Duration = Duration::from_secs(120);

/// The kernel command line of every guest: where it talks, and what it runs.
pub(crate) const COMMAND_LINE: &str = "console=ttyS0 rdinit=/init panic=-1";

/// The machine that QEMU emulates.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Machine {
    /// A PC, with its devices on PCI.
    Pc,
    /// QEMU's microvm, with virtio on MMIO, as in Firecracker.
    Microvm,
}

/// The kernel that guests boot; `None`, which is said, where there is none and nobody insists.
pub(crate) fn kernel() -> Option<PathBuf> {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guest/bzImage"));
    let kernel = std::env::var_os("JACKFIELD_GUEST_KERNEL").map_or(built, PathBuf::from);
    if kernel.exists() {
        return Some(kernel);
    }
    let why = format!("there is no guest's kernel {}: run scripts/guest-kernel", kernel.display());
    assert!(std::env::var_os("CI").is_none(), "{why}");
    // Past the test harness, which shows nothing of what a passed test prints.
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {why}");
    None
}

/// A guest that has booted. Dropped, it is killed.
pub(crate) struct Guest {
    qemu: Child,
    keyboard: ChildStdin,
    screen: Receiver<String>,
    /// All that was on the screen.
    log: Vec<String>,
}

impl Guest {
    /// Boots a guest in the VM's namespace, with the devices that jackfield printed and this kernel
    /// command line, until it answers.
    pub(crate) fn boot(vm: &Vm, machine: Machine, initramfs: Initramfs, line: &str) -> Self {
        let initrd = vm.host.file("initrd");
        initramfs.write(&initrd);
        let mut command = qemu(vm, machine);
        command.arg("-kernel").arg(kernel().expect("a test looks for the kernel first"));
        command.arg("-initrd").arg(initrd).args(["-append", line]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = piped.spawn().unwrap();
        let keyboard = qemu.stdin.take().unwrap();
        let (sender, screen) = channel();
        send_lines(qemu.stdout.take().unwrap(), sender.clone());
        send_lines(qemu.stderr.take().unwrap(), sender);
        let mut guest = Guest { qemu, keyboard, screen, log: Vec::new() };
        guest.read_answer("its boot", "= ready");
        guest
    }

    /// What a command prints in the guest, where it succeeds.
    #[track_caller]
    pub(crate) fn ask(&mut self, command: &str) -> String {
        match self.try_ask(command) {
            Ok(answer) => answer,
            Err(answer) => self.fail(&format!("{command}: {answer}")),
        }
    }

    /// What a command prints in the guest, `Err` where its status is not 0.
    #[track_caller]
    pub(crate) fn try_ask(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.keyboard, "{command}").unwrap();
        let (answer, status) = self.read_answer(command, "= ");
        if status == "= 0" { Ok(answer) } else { Err(answer) }
    }

    /// All routes of the guest, for whoever reads of a failure.
    pub(crate) fn routes(&mut self) -> String {
        self.ask("/usr/bin/ip -4 route; /usr/bin/ip -6 route")
    }

    /// Waits until a command succeeds in the guest.
    #[track_caller]
    pub(crate) fn eventually(&mut self, command: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.try_ask(command) {
                Ok(answer) => return answer,
                Err(answer) if Instant::now() > end => self.fail(&format!("{command}: {answer}")),
                Err(_) => {}
            }
        }
    }

    /// Fails, with all that the guest said.
    #[track_caller]
    pub(crate) fn fail(&self, why: &str) -> ! {
        panic!("{why}\nThe guest's console:\n{}", self.log.join("\n"));
    }

    /// Reads until a line that begins with `end`; what the lines before it answered, and it.
    #[track_caller]
    fn read_answer(&mut self, to: &str, end: &str) -> (String, String) {
        let last = Instant::now() + PATIENCE;
        let mut answer = String::new();
        loop {
            let left = last.saturating_duration_since(Instant::now());
            let Ok(line) = self.screen.recv_timeout(left) else {
                self.fail(&format!("no end of the answer to {to}"));
            };
            self.log.push(line.clone());
            if line.starts_with(end) {
                return (answer, line);
            }
            if let Some(text) = line.strip_prefix("> ") {
                answer += text;
                answer.push('\n');
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only where it has ended and was waited for.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// QEMU in the VM's namespace, with the devices that jackfield printed.
fn qemu(vm: &Vm, machine: Machine) -> Command {
    let (machine, device) = match machine {
        Machine::Pc => ("pc", "pci"),
        Machine::Microvm => ("microvm,acpi=off", "mmio"),
    };
    // `nsenter` becomes what it starts.
    let mut command = vm.host.command("nsenter");
    command.arg(format!("--net={}", vm.netns())).arg("qemu-system-x86_64");
    command.args(["-machine", machine, "-accel", "tcg", "-m", "256", "-no-reboot"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
    command.args(vm.qemu_arguments(device));
    jackfield_kernel::end_with_parent(&mut command);
    command
}

/// Sends each line of an output, until it ends or nobody listens any more.
fn send_lines(output: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if to.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
}
