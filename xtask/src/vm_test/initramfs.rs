//! What the kernel starts with: a static busybox, the modules for the host's file system, and a script that mounts it.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::kernel::Kernel;

const BUSYBOX: &str = "/bin/busybox";
/// The transport and file systems of the root, and a source of randomness, without which a boot waits for some.
const MODULES: [&str; 5] = ["virtio_pci", "virtio-rng", "9pnet_virtio", "9p", "overlay"];

/// The terminal that everything but the kernel's own log goes to.
pub const TERMINAL: &str = "/dev/ttyS1";
/// What the guest says when all is mounted.
pub const ALIVE: &str = "guest: alive";
/// The tag of the host's root.
pub const ROOT_TAG: &str = "host";

/// The archive. It mounts the host's root, read-only below a file system in memory, and runs there `command`, words for
/// a shell; then it ends the machine.
pub fn archive(kernel: &Kernel, command: &str) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    for folder in ["bin", "modules"] {
        archive.folder(folder);
    }
    archive.program("bin/busybox", &read(Path::new(BUSYBOX))?);
    let mut names = Vec::new();
    for file in kernel.with_dependencies(&MODULES)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        archive.program(&format!("modules/{name}"), &read(&file)?);
        names.push(name);
    }
    archive.program("init", script(kernel, &names, command).as_bytes());
    Ok(archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn script(kernel: &Kernel, modules: &[String], command: &str) -> String {
    let mut load = String::new();
    for module in modules {
        // Writing to a string does not fail.
        let _ = writeln!(load, "insmod /modules/{module}");
    }
    let unpacked = quoted(&kernel.modules().display().to_string());
    let release = &kernel.release;
    // Through a pipe, so that nobody takes the serial port for a person's terminal. The port is not closed before all
    // has left it.
    let run = format!(
        "stty -F {TERMINAL} raw -echo; echo '{ALIVE}' >{TERMINAL}; {command} </dev/null 2>&1 | cat >{TERMINAL}; \
         echo b >/proc/sysrq-trigger; sleep 60"
    );
    format!(
        "#!/bin/busybox sh
set -e
export PATH=/bin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /host /memory /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
exec >{TERMINAL} 2>&1
trap 'echo \"guest: the root cannot be mounted\"; sync; echo b >/proc/sysrq-trigger' EXIT
{load}mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 {ROOT_TAG} /host
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /root
mount -t proc proc /root/proc
mount -t sysfs sysfs /root/sys
mount -t devtmpfs dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts devpts /root/dev/pts
mount -t tmpfs tmpfs /root/run
mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
mount -t bpf bpf /root/sys/fs/bpf
mkdir -p /root/lib/modules/{release}
mount -o bind /root{unpacked} /root/lib/modules/{release}
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin NO_COLOR=1
trap - EXIT
exec switch_root /root /bin/sh -c {run}
",
        run = quoted(&run),
    )
}

/// One word for a shell.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// An archive as the kernel unpacks it: cpio's portable format "newc" (kernel documentation, buffer-format.rst).
#[derive(Default)]
struct Cpio(Vec<u8>);

impl Cpio {
    fn folder(&mut self, name: &str) {
        self.entry(name, 0o040_755, &[]);
    }

    fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, 0o100_755, content);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.0
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        // Inode, mode, owner, group, links, time, size, two device numbers, length of the name with its zero, checksum.
        // Inodes are told apart only where files have several names.
        let numbers = [0, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let header: String = numbers.iter().map(|number| format!("{number:08x}")).collect();
        self.0.extend_from_slice(b"070701");
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(0);
        self.align();
        self.0.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_for_a_shell() {
        assert_eq!(quoted("a'b c"), r"'a'\''b c'");
    }

    #[test]
    fn entries_begin_at_multiples_of_four() {
        let mut archive = Cpio::default();
        archive.folder("bin");
        archive.program("init", b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let starts = bytes.windows(6).enumerate().filter(|(_, window)| window == b"070701");
        let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
        // 110 bytes of header and "bin\0"; 110 and "init\0", one byte and five of content, three to fill up.
        assert_eq!(starts, [0, 116, 116 + 116 + 8]);
    }
}
