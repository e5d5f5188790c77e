//! A containerd of a node, and `ctr` that talks to it.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, anyhow, bail};

use super::{Busybox, Folders};
use crate::{
    node::Node,
    process::{Process, lines_of, output},
    wait::wait,
};

const SOCKET: &str = "/run/containerd/containerd.sock";

/// Debian's containerd on a node, with folders of its own; removed on drop with its containers.
#[derive(Debug)]
pub struct Containerd {
    // Dropped in this order: the daemon would start again what is killed beneath it.
    daemon: Process,
    folders: Folders,
}

impl Containerd {
    /// Starts it and waits until it answers; [`Busybox::NAME`] is among its images.
    pub fn start(node: &Node, image: &Busybox) -> Result<Self> {
        let folders = Folders::of(node)?;
        // What serves Kubernetes is not used, and asks for more than is here.
        folders.write(
            "/etc/containerd/config.toml",
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n",
        )?;
        folders.add_plugins(node)?;
        let command = folders.command("containerd")?;
        let daemon = folders.start(command, "containerd.log")?;
        let containerd = Self { daemon, folders };
        let answers = || containerd.ctr(&["version"]).map(drop);
        let log = containerd.folders.home().join("containerd.log");
        wait("containerd to answer", Duration::from_secs(30), answers).with_context(|| lines_of(&log, 10))?;
        let archive = image.archive()?;
        containerd.ctr(&[
            "images",
            "import",
            "--snapshotter",
            "overlayfs",
            &archive.display().to_string(),
        ])?;
        Ok(containerd)
    }

    /// Its folders, such as /etc/cni/net.d and /opt/cni/bin.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The daemon.
    pub fn daemon(&mut self) -> &mut Process {
        &mut self.daemon
    }

    /// A command line of `ctr`.
    pub fn command(&self) -> Result<Command> {
        let mut command = self.folders.command("ctr")?;
        command.args(["--address", SOCKET]);
        Ok(command)
    }

    /// Runs `ctr`; what it prints.
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        output(self.command()?.args(words))
    }

    /// `ctr run --cni` of a container called `id` that runs `program`, and waits until it runs. The process ends with the
    /// container, after it has had its network removed.
    pub fn run(&self, id: &str, program: &[&str]) -> Result<Process> {
        let mut command = self.command()?;
        command.args(["run", "--rm", "--cni", "--snapshotter", "overlayfs", Busybox::NAME, id]).args(program);
        let log = format!("{id}.log");
        let mut process = self.folders.start(command, &log)?;
        let said = || lines_of(&self.folders.home().join(&log), 10);
        let runs = || match process.ended()? {
            Some(status) => Ok(Err(anyhow!("container {id} ended: {status}: {}", said()))),
            None => self.pid(id).map(|_| Ok(())),
        };
        let started = wait("a container to run", Duration::from_secs(30), runs).flatten();
        self.folders.record()?;
        started.map(|()| process)
    }

    /// The pid of a container's program.
    pub fn pid(&self, id: &str) -> Result<u32> {
        let tasks = self.ctr(&["tasks", "ls"])?;
        let task = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        match task.into_iter().find(|words| words.first() == Some(&id)).as_deref() {
            Some([_, pid, "RUNNING", ..]) => pid.parse().context("a pid"),
            _ => bail!("containerd runs no {id}: {tasks}"),
        }
    }

    /// The file that stands for a container's network namespace.
    pub fn namespace(&self, id: &str) -> Result<PathBuf> {
        Ok(format!("/proc/{}/ns/net", self.pid(id)?).into())
    }

    /// Runs a program in a container; what it prints.
    pub fn exec(&self, id: &str, program: &[&str]) -> Result<String> {
        self.ctr(&[&["tasks", "exec", "--exec-id", &exec_id(), id], program].concat())
    }

    /// Kills a container's program.
    pub fn kill(&self, id: &str) -> Result<()> {
        self.ctr(&["tasks", "kill", "--signal", "KILL", id]).map(drop)
    }
}

/// One that no other run has.
fn exec_id() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("x{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
