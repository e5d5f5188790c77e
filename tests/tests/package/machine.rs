//! A node's own Debian, or another root: with changes of its own, and a script in the place of systemd, or nothing.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Lifetime, Node, Process, lines_of, output, wait};

/// Makes the root and becomes what stands for systemd in it. What is mounted here nobody else sees; what others mount
/// below /run/netns is seen here.
const BOOT: &str = r#"set -e
root=$1 home=$2 bpf=$3
mkdir -p "$bpf"
mount -t tmpfs own "$home"
mkdir "$home/upper" "$home/work" "$home/root"
mount -t overlay -o "lowerdir=$root,upperdir=$home/upper,workdir=$home/work" root "$home/root"
cd "$home/root"
for folder in proc sys dev; do mount --rbind "/$folder" "$folder"; done
mount --bind "$bpf" sys/fs/bpf
mount -t tmpfs run run
mkdir -p run/netns run/lock
[ ! -e "$5" ] || mkdir -p run/systemd/system
mount --rbind /run/netns run/netns
[ ! -e "$5" ] || cp "$5" usr/local/bin/systemctl
cp "$4" run/init
exec chroot . /bin/sh /run/init
"#;

/// Starts and stops the daemon as its unit says, with the capabilities that the unit leaves it.
const INIT: &str = r#"
start() {
    unit=/lib/systemd/system/meshd.service
    [ -e /etc/systemd/system/meshd.service ] && unit=/etc/systemd/system/meshd.service
    program=$(sed -n 's/^ExecStart=//p' $unit)
    bounds=$(sed -n 's/^CapabilityBoundingSet=//p' $unit | tr 'A-Z' 'a-z' | sed 's/cap_/+/g; s/ /,/g')
    mkdir -p /run/meshd
    setpriv --bounding-set "-all,$bounds" --inh-caps=-all --no-new-privs --pdeathsig KILL $program >>/run/meshd.log 2>&1 &
    pid=$!
    echo $pid > /run/meshd.pid
}
stop() {
    [ -z "$pid" ] || { kill "$pid"; wait "$pid"; }
    pid=
    rm -f /run/meshd.pid
}
mkfifo /run/asked
exec 3<>/run/asked
touch /run/ready
while read -r verb <&3; do
    case "$verb" in
        start) [ -n "$pid" ] || start ;;
        stop) stop ;;
        restart) stop; start ;;
        reload) kill -HUP "$pid" ;;
    esac
    touch /run/done
done
"#;

/// In the place of an init that starts nothing.
const IDLE: &str = "touch /run/ready; exec sleep 1000000\n";

/// Has [`INIT`] do what is asked; what is a matter of files the real one does.
const SYSTEMCTL: &str = r#"#!/bin/sh
verb= files=
for word; do
    case "$word" in
        start | stop | restart | reload) verb=$word ;;
        preset | enable | disable | is-enabled) files=$word ;;
        --now) verb=stop ;;
        is-active) [ -e /run/meshd.pid ]; exit ;;
    esac
done
if [ -n "$files" ]; then
    SYSTEMD_OFFLINE=1 /usr/bin/systemctl "$files" meshd.service || exit
fi
if [ -n "$verb" ]; then
    rm -f /run/done
    echo "$verb" > /run/asked
    until [ -e /run/done ]; do sleep 0.05; done
fi
"#;

/// See the module. What runs in it is ended on drop.
pub struct Machine<'a> {
    node: &'a Node,
    init: Process,
}

impl<'a> Machine<'a> {
    /// One in the place of a node whose own daemon does not run; meshctl of the node finds its daemon.
    pub fn boot(root: &Path, node: &'a Node) -> Result<Self> {
        Self::boot_with(root, node, INIT, Some(SYSTEMCTL))
    }

    /// The same without systemd, of a root that may lack about everything.
    pub fn boot_without_systemd(root: &Path, node: &'a Node) -> Result<Self> {
        Self::boot_with(root, node, IDLE, None)
    }

    fn boot_with(root: &Path, node: &'a Node, script: &str, systemctl: Option<&str>) -> Result<Self> {
        let state = node.state_folder();
        let folder = state.parent().context("a node has a folder")?;
        let home = folder.join("debian");
        std::fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        let (init, program) = (folder.join("init"), folder.join("systemctl"));
        std::fs::write(&init, script).context("a script for init")?;
        if let Some(text) = systemctl {
            std::fs::write(&program, text).context("a script for systemctl")?;
            std::fs::set_permissions(&program, Permissions::from_mode(0o755)).context("systemctl")?;
        }
        let mut command = node.command("unshare")?;
        command.args(["--mount", "--propagation", "slave", "sh", "-c", BOOT, "boot"]);
        command.arg(root).arg(&home).arg(node.bpf_folder()).arg(&init).arg(&program);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        let (log, records) = (folder.join("debian.log"), folder.with_file_name("pids"));
        let mut init = Process::start(command, Lifetime::Owner, &log, &records)?;
        wait("a Debian to boot", Duration::from_secs(30), || {
            ensure!(init.ended()?.is_none(), "{}", lines_of(&log, 5));
            ensure!(inside(init.pid(), "/run/ready").exists(), "not yet");
            Ok(())
        })?;
        let socket = node.socket();
        let _ = std::fs::remove_file(&socket);
        std::os::unix::fs::symlink(inside(init.pid(), "/run/meshd/meshd.sock"), &socket)
            .context("the socket")?;
        Ok(Self { node, init })
    }

    /// Copies a file of this machine to the absolute path `place` there.
    pub fn bring(&self, file: &Path, place: &str) -> Result<()> {
        let to = inside(self.init.pid(), place);
        std::fs::copy(file, to).map(drop).with_context(|| format!("{} to {place}", file.display()))
    }

    /// Starts a program there that goes on until it is dropped.
    pub fn start(&self, program: &str) -> Result<Process> {
        let log = inside(self.init.pid(), "/run/meshd.log");
        let records =
            self.node.state_folder().parent().context("a node has a folder")?.with_file_name("pids");
        Process::start(self.command(&[program])?, Lifetime::Owner, &log, &records)
    }

    /// Runs a command there; what it prints. An error has what it said, and the end of the daemon's log.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(&mut self.command(words)?)
            .map_err(|error| anyhow::anyhow!("{error:#}\n--- the daemon's log\n{}", self.log()))
    }

    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.node.command("nsenter")?;
        command.args(["--target", &self.init.pid().to_string(), "--mount", "--root", "--wd"]);
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8").env("TERM", "dumb");
        Ok(command)
    }

    /// The end of the daemon's log.
    pub fn log(&self) -> String {
        lines_of(&inside(self.init.pid(), "/run/meshd.log"), 30)
    }

    /// The pid of the daemon that runs.
    pub fn daemon(&self) -> Result<u32> {
        let pid = self.run(&["sh", "-c", "kill -0 $(cat /run/meshd.pid) && cat /run/meshd.pid"])?;
        pid.trim().parse().context("the daemon's pid")
    }
}

fn inside(pid: u32, place: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{place}"))
}
