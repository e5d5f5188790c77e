//! The virtual machine: qemu in software emulation, the host's root inside as read-only, a few network cards on one
//! segment.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use mesh_tests::{Lifetime, Process, interrupt, lines_of};

use super::{
    initramfs::{self, ALIVE, ROOT_TAG},
    kernel::Kernel,
};

/// Network cards, the first for the gateway, the second for a client, two for nodes.
pub const CARDS: u8 = 4;
/// Begins their addresses, which are in their order.
const CARD_PREFIX: &str = "02:00:00:00:77:";
/// A boot takes three seconds; about one in sixty hangs.
const BOOT: Duration = Duration::from_secs(45);
const BOOTS: u32 = 3;
const MEMORY_MIB: u32 = 3072;

/// A machine to be.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// `tcg`, qemu's emulation, works everywhere; `kvm` needs hardware that can.
    pub accelerator: &'a str,
    /// What runs inside, words for a shell.
    pub command: &'a str,
    /// For the files of this run.
    pub folder: &'a Path,
}

impl Machine<'_> {
    /// Boots and calls `each` with every line of what runs inside, until the machine ends by itself. A boot that hangs is
    /// tried again.
    pub fn run(&self, at_most: Duration, mut each: impl FnMut(&str)) -> Result<()> {
        let archive = self.folder.join("initramfs");
        fs::write(&archive, initramfs::archive(self.kernel, self.command)?)
            .with_context(|| format!("cannot write {}", archive.display()))?;
        for boot in 1..=BOOTS {
            if self.boot(&archive, at_most, &mut each)? {
                return Ok(());
            }
            eprintln!("vm-test: no sign of life for {} s (boot {boot} of {BOOTS})", BOOT.as_secs());
        }
        bail!("the kernel does not start; the ends of its logs:\n{}", self.last_words())
    }

    /// The kernel's messages.
    pub fn kernel_log(&self) -> PathBuf {
        self.folder.join("kernel.log")
    }

    /// The ends of the kernel's, qemu's and the guest's messages.
    fn last_words(&self) -> String {
        let logs = [self.kernel_log(), self.folder.join("qemu.log"), self.output()];
        logs.map(|log| lines_of(&log, 20)).join("\n")
    }

    /// What the guest says.
    fn output(&self) -> PathBuf {
        self.folder.join("guest.log")
    }

    /// One boot; false when the machine gave no sign of life.
    fn boot(&self, archive: &Path, at_most: Duration, each: &mut impl FnMut(&str)) -> Result<bool> {
        let output = self.output();
        File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let mut lines = Lines::of(&output)?;
        let log = self.folder.join("qemu.log");
        let mut qemu = Process::start(self.qemu(archive, &output), Lifetime::Owner, &log, self.folder)?;
        let start = Instant::now();
        let mut alive = false;
        loop {
            interrupt::check()?;
            // Before the lines are read, so that none of the last is missed.
            let ended = qemu.ended()?;
            for line in lines.fresh()? {
                if alive {
                    each(&line);
                }
                alive |= line == ALIVE;
            }
            match ended {
                Some(_) if alive => return Ok(true),
                Some(status) => bail!("qemu: {status}\n{}", self.last_words()),
                None if !alive && start.elapsed() > BOOT => return qemu.kill().map(|_| false),
                None if start.elapsed() > at_most => {
                    qemu.kill()?;
                    bail!(
                        "not done after {} s; the ends of the logs:\n{}",
                        at_most.as_secs(),
                        self.last_words()
                    );
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn qemu(&self, archive: &Path, output: &Path) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", &format!("q35,accel={}", self.accelerator), "-cpu", "max", "-smp", "2"]);
        qemu.args(["-m", &MEMORY_MIB.to_string(), "-nodefaults", "-no-user-config", "-display", "none"]);
        // Whoever ends the machine resets it.
        qemu.arg("-no-reboot");
        qemu.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(archive);
        qemu.args(["-append", "console=ttyS0 panic=-1 random.trust_cpu=on"]);
        qemu.arg("-serial").arg(file(&self.kernel_log())).arg("-serial").arg(file(output));
        let root =
            format!("local,path=/,mount_tag={ROOT_TAG},security_model=none,readonly=on,multidevs=remap");
        qemu.args(["-virtfs", &root, "-device", "virtio-rng-pci"]);
        for card in 0..CARDS {
            // On one hub, which is a segment without any way out.
            qemu.args(["-netdev", &format!("hubport,id=port{card},hubid=0")]);
            let address = format!("{CARD_PREFIX}{card:02x}");
            qemu.args(["-device", &format!("virtio-net-pci,netdev=port{card},mac={address},romfile=")]);
        }
        qemu
    }
}

/// Whether a link of this address is one of the [`CARDS`].
pub fn is_ours(address: &str) -> bool {
    address.starts_with(CARD_PREFIX)
}

/// A file that a serial port writes to; commas are doubled in qemu's options.
fn file(path: &Path) -> String {
    format!("file:{}", path.display().to_string().replace(',', ",,"))
}

/// The lines of a file that grows.
struct Lines {
    file: File,
    path: PathBuf,
    rest: Vec<u8>,
}

impl Lines {
    fn of(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file, path: path.to_owned(), rest: Vec::new() })
    }

    /// Those that have been completed since the last call.
    fn fresh(&mut self) -> Result<Vec<String>> {
        let read = self.file.read_to_end(&mut self.rest);
        read.with_context(|| format!("cannot read {}", self.path.display()))?;
        let Some(end) = self.rest.iter().rposition(|&byte| byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end + 1);
        let whole = std::mem::replace(&mut self.rest, rest);
        let text = String::from_utf8_lossy(&whole);
        Ok(text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect())
    }
}

/// Prints what the guest says.
pub fn echo(line: &str) {
    let _ = writeln!(std::io::stderr(), "  | {line}");
}
