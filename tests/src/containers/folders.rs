//! Folders of a machine's own, for programs that know only the usual places.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::CloneFlags,
    sys::signal::{Signal, kill},
};

use super::REFERENCE_PLUGINS;
use crate::{
    leftovers::names,
    netns::{enter, open},
    node::Node,
    process::{Lifetime, Process, pid, start_time},
    wait::wait,
};

/// /etc is the machine's with changes of its own; /run, /var/lib and /opt begin empty. What is mounted below /run/netns is
/// seen by all, and so are the folders of the tests.
const SET_UP: &str = r#"set -e
mount --make-private /
mount -t tmpfs opt /opt
own=/opt/own
mkdir -p $own/run $own/etc $own/work
mount --rbind /run $own/run
mount -t tmpfs run /run
mkdir /run/netns /run/meshd-tests /run/lock
mount --rbind $own/run/netns /run/netns
mount --rbind $own/run/meshd-tests /run/meshd-tests
mount -t overlay -o lowerdir=/etc,upperdir=$own/etc,workdir=$own/work etc /etc
mount -t tmpfs lib /var/lib
rm -rf /etc/cni/net.d
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni
touch /run/ready
exec sleep infinity
"#;

/// A mount namespace of a node. What runs in it is ended on drop.
#[derive(Debug)]
pub struct Folders {
    holder: Process,
    network: PathBuf,
    records: PathBuf,
    home: PathBuf,
}

impl Folders {
    /// Makes those of `node`.
    pub fn of(node: &Node) -> Result<Self> {
        let home = node.folder().join("engine");
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let mut command = node.command("unshare")?;
        command.args(["--mount", "--propagation", "unchanged", "sh", "-c", SET_UP]);
        let log = home.join("folders.log");
        let mut holder = Process::start(command, Lifetime::Owner, &log, &node.records())?;
        let ready = || {
            ensure!(holder.ended()?.is_none(), "{}", crate::process::lines_of(&log, 5));
            let ready = format!("/proc/{}/root/run/ready", holder.pid());
            ensure!(Path::new(&ready).exists(), "not yet");
            Ok(())
        };
        wait("folders of an engine", Duration::from_secs(20), ready)?;
        Ok(Self { holder, network: node.namespace_path().to_owned(), records: node.records(), home })
    }

    /// A folder on this machine for logs and the like, at the same path for programs inside.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where the absolute path `inside` is for this process.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder.pid()))
    }

    /// Makes `mesh-cni` and Debian's reference plugins those of the machine.
    pub fn add_plugins(&self, node: &Node) -> Result<()> {
        let mut programs = vec![node.program("mesh-cni")?];
        programs
            .extend(names(Path::new(REFERENCE_PLUGINS)).iter().map(|n| Path::new(REFERENCE_PLUGINS).join(n)));
        for program in programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let link = self.path(&format!("/opt/cni/bin/{name}"));
            std::os::unix::fs::symlink(&program, link).with_context(|| format!("the plugin {name}"))?;
        }
        Ok(())
    }

    /// Writes a file at the absolute path `inside`.
    pub fn write(&self, inside: &str, text: &str) -> Result<()> {
        let path = self.path(inside);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder of {inside}"))?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {inside}"))
    }

    /// A command that runs `program` on the node, with these folders.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        let mounts = PathBuf::from(format!("/proc/{}/ns/mnt", self.holder.pid()));
        let namespaces =
            vec![(open(&self.network)?, CloneFlags::CLONE_NEWNET), (open(&mounts)?, CloneFlags::CLONE_NEWNS)];
        enter(&mut command, namespaces);
        // Packages put plugins and run times in places that are not on every path.
        command
            .stdin(std::process::Stdio::null())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env_remove("TMPDIR");
        Ok(command)
    }

    /// Starts a daemon inside; its output goes to a log of that name in [`Folders::home`].
    pub fn start(&self, command: Command, log: &str) -> Result<Process> {
        Process::start(command, Lifetime::Owner, &self.home.join(log), &self.records)
    }

    /// Notes what runs inside, so that it is ended even if this process is killed: engines detach what they start.
    pub fn record(&self) -> Result<()> {
        for number in self.processes() {
            let record = self.records.join(number.to_string());
            let started = start_time(number).unwrap_or_default();
            std::fs::write(&record, started).with_context(|| format!("cannot write {}", record.display()))?;
        }
        Ok(())
    }

    /// What runs with these folders, and what that has started.
    fn processes(&self) -> Vec<u32> {
        let numbers = || names(Path::new("/proc")).into_iter().filter_map(|name| name.parse::<u32>().ok());
        let mounts = |number: u32| std::fs::metadata(format!("/proc/{number}/ns/mnt")).map(|m| m.ino()).ok();
        let Some(ours) = mounts(self.holder.pid()) else { return Vec::new() };
        let mut found: BTreeSet<u32> = numbers().filter(|number| mounts(*number) == Some(ours)).collect();
        // Containers have folders of their own; they are children of what runs with these.
        loop {
            let children =
                numbers().filter(|n| !found.contains(n) && parent(*n).is_some_and(|p| found.contains(&p)));
            let children: Vec<u32> = children.collect();
            if children.is_empty() {
                break;
            }
            found.extend(children);
        }
        found.remove(&self.holder.pid());
        found.into_iter().collect()
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        // What is started meanwhile is found the next time.
        for _ in 0..5 {
            let left = self.processes();
            for number in &left {
                let _ = pid(*number).map(|pid| kill(pid, Signal::SIGKILL));
                let _ = std::fs::remove_file(self.records.join(number.to_string()));
            }
            if left.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn parent(number: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
