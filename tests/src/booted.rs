//! A node that is a Debian of its own, with Debian's systemd as its first process.
//!
//! It has network, mount, process, cgroup, IPC and host name namespaces of its own, and sees no file of this machine but the
//! clean root that its own changes lie over: systemd empties `/tmp` and `/run` at boot, wherever they are.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{Lifetime, Node, Process, cgroup::Cgroup, lines_of, output, wait};

/// Programs of a Debian are where they are.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// systemd has come up, or gone down, within this time on a busy machine.
const BOOT: Duration = Duration::from_secs(60);

/// The machine's disk, and its power: boots the machine, again each time it is rebooted. A reboot leaves none of what the
/// mesh has in a kernel.
const POWER: &str = r#"set -e
root=$1 home=$2 cgroup=$3
mount -t tmpfs own "$home"
mkdir "$home/upper" "$home/work" "$home/root"
mount -t overlay -o "lowerdir=$root,upperdir=$home/upper,workdir=$home/work" root "$home/root"
while true; do
    ended=0
    setpriv --pdeathsig KILL sh -ec 'echo $$ > "$1/cgroup.procs"; exec unshare --mount --propagation private --pid --fork \
        --kill-child --cgroup --uts --ipc sh -ec "$2" boot "$3" "$4"' power "$cgroup" "$4" "$home/root" "$5" || ended=$?
    # How a process namespace ends that calls reboot(2) (pid_namespaces(7)): by SIGHUP.
    [ $ended = 129 ] || exit $ended
    find "$cgroup" -mindepth 1 -depth -type d -exec rmdir {} +
    for link in mesh-vxlan mesh-host; do ip link delete $link 2>/dev/null || true; done
    for family in ip ip6; do nft delete table $family meshd 2>/dev/null || true; done
done
"#;

/// Mounts what a kernel and an initramfs, or a container manager, mount; leaves this machine's files behind, and becomes
/// systemd.
const INIT: &str = r#"cd "$1"
mount -t proc proc proc
# Settings of this machine's kernel stay; those of the network are the node's own.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /proc/sys/net proc/sys/net
mount -t sysfs sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
    touch dev/$device
    mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for place in dev/shm tmp var/tmp; do mount -t tmpfs -o mode=1777 own $place; done
mount -t tmpfs -o mode=755 run run
echo "$2" > etc/hostname
mkdir -p old
pivot_root . old
exec chroot . /bin/sh -ec '
cd /
umount --lazy /old
rmdir /old
mount --make-rshared /
exec env -i container=mesh-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set -sys_time,-sys_module,-syslog,-mknod,-sys_rawio \
    /lib/systemd/systemd --unit=multi-user.target'
"#;

/// See the module. What runs in it is ended on drop.
#[derive(Debug)]
pub struct Booted<'a> {
    node: &'a Node,
    power: Process,
    cgroup: Cgroup,
}

impl<'a> Booted<'a> {
    /// One in the place of a node whose own daemon does not run; meshctl of the node finds its daemon. `root` is never
    /// changed.
    pub fn boot(root: &Path, node: &'a Node) -> Result<Self> {
        let home = node.folder().join("debian");
        std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let cgroup = Cgroup::make(&node.namespace_of(&node.name()))?;
        let mut command = node.command("unshare")?;
        command.args(["--mount", "--propagation", "private", "sh", "-c", POWER, "power"]);
        command.arg(root).arg(&home).arg(cgroup.path()).arg(INIT).arg(node.name());
        command.env_clear().env("PATH", PROGRAMS);
        let power = Process::start(command, Lifetime::Owner, &log(node), &node.records())?;
        let mut booted = Self { node, power, cgroup };
        booted.await_boot(None)?;
        Ok(booted)
    }

    /// `systemctl reboot`: what is on its disk is left.
    pub fn reboot(&mut self) -> Result<()> {
        let before = self.init()?;
        // The machine goes while it answers.
        let _ = self.run(&["systemctl", "reboot"]);
        self.await_boot(Some(before))
    }

    fn await_boot(&mut self, before: Option<u32>) -> Result<()> {
        wait("Debian to boot", BOOT, || {
            ensure!(self.power.ended()?.is_none(), "{}", lines_of(&log(self.node), 10));
            ensure!(before != Some(self.init()?), "it has not gone down yet");
            let state = self.run(&["sh", "-c", "systemctl is-system-running || true"])?;
            ensure!(
                matches!(state.trim(), "running" | "degraded"),
                "it is {}: {}",
                state.trim(),
                self.run(&["systemctl", "list-jobs"])?
            );
            Ok(())
        })?;
        let failed = self.run(&["systemctl", "--failed", "--plain", "--no-legend"])?;
        ensure!(failed.is_empty(), "units failed: {failed}");
        let socket = self.node.socket();
        let _ = std::fs::remove_file(&socket);
        symlink(self.inside("/run/meshd/meshd.sock")?, &socket).context("the socket")
    }

    /// Copies a file of this machine to the absolute path `place` there.
    pub fn bring(&self, file: &Path, place: &str) -> Result<()> {
        std::fs::copy(file, self.inside(place)?)
            .map(drop)
            .with_context(|| format!("{} to {place}", file.display()))
    }

    /// Writes a file there.
    pub fn write(&self, place: &str, text: &str) -> Result<()> {
        let path = self.inside(place)?;
        std::fs::create_dir_all(path.parent().context("a place has a folder")?).context("its folder")?;
        std::fs::write(path, text).with_context(|| format!("writing {place}"))
    }

    /// Runs a command there, as one who has logged in; what it prints. An error has what it said.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(words)?)
    }

    /// A command there.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.node.command("sh")?;
        command.args(["-ec", "mkdir -p \"$0\"; echo $$ > \"$0/cgroup.procs\"; exec \"$@\""]);
        command.arg(self.cgroup.path().join("logged-in"));
        command.args(["nsenter", "--target", &self.init()?.to_string()]);
        command.args(["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd"]).args(words);
        command.env_clear().env("PATH", PROGRAMS);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
        Ok(command)
    }

    /// What systemd knows of a unit: `ActiveState`, `MainPID`, ...
    pub fn show(&self, unit: &str, property: &str) -> Result<String> {
        let told = self.run(&["systemctl", "show", "--value", "--property", property, unit])?;
        Ok(told.trim().to_owned())
    }

    /// The end of what a unit has logged.
    pub fn log(&self, unit: &str) -> String {
        let lines = self.run(&["journalctl", "--no-pager", "--lines", "40", "--unit", unit]);
        lines.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Where this machine sees the absolute path `place` of that one.
    pub fn inside(&self, place: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{place}", self.init()?)))
    }

    /// Its first process, by the pid that it has here.
    fn init(&self) -> Result<u32> {
        let path = self.cgroup.path().join("init.scope/cgroup.procs");
        let pids = std::fs::read_to_string(path).context("systemd has not begun")?;
        pids.lines().next().and_then(|pid| pid.parse().ok()).context("systemd does not run")
    }
}

fn log(node: &Node) -> PathBuf {
    node.folder().join("debian.log")
}
