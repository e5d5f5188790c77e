//! A Docker engine of a node, with meshd's plugin.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{Busybox, Folders};
use crate::{
    node::{Node, Refusal},
    process::{Process, lines_of, output},
    testnet::GATEWAY,
    wait::wait,
};

/// How long an engine may take until it answers.
const START: Duration = Duration::from_secs(60);

/// Debian's dockerd on a node, with folders of its own; removed on drop with its containers.
#[derive(Debug)]
pub struct Docker {
    // Dropped in this order: the daemon would start again what is killed beneath it.
    daemon: Option<Process>,
    folders: Folders,
}

impl Docker {
    /// Has the node's meshd serve the plugin, starts an engine that finds it, and waits until it answers;
    /// [`Busybox::NAME`] is among its images.
    pub fn start(node: &Node, image: &Busybox) -> Result<Self> {
        let home = node.folder().join("engine");
        let plugin = home.join("plugins/mesh.sock");
        let mut config =
            fs::OpenOptions::new().append(true).open(node.config()).context("meshd's configuration")?;
        let (shown, engine) = (plugin.display(), home.join("docker.sock"));
        writeln!(
            config,
            "[docker]\nenabled = true\nplugin_socket = {:?}\nengine_socket = {engine:?}",
            shown.to_string()
        )
        .context("meshd's configuration")?;
        let folders = Folders::of(node)?;
        folders.write("/etc/docker/plugins/mesh.spec", &format!("unix://{shown}"))?;
        folders.write("/etc/resolv.conf", &format!("nameserver {GATEWAY}\n"))?;
        let mut docker = Self { daemon: None, folders };
        node.stop()?;
        docker.start_meshd(node)?;
        docker.begin()?;
        docker.run(&["load", "--input", &image.archive()?.display().to_string()])?;
        Ok(docker)
    }

    /// Starts the node's meshd where it sees what the engine mounts: namespaces of containers.
    pub fn start_meshd(&self, node: &Node) -> Result<()> {
        node.start_as(self.meshd(node)?)
    }

    /// The same, of a meshd that ends at the step that the file `step` names.
    pub fn start_meshd_until(&self, node: &Node, step: &Path) -> Result<()> {
        let mut command = self.meshd(node)?;
        command.env("MESHD_KILL_AT", step);
        node.start_as(command)
    }

    fn meshd(&self, node: &Node) -> Result<Command> {
        let usual = node.meshd()?;
        let mut command = self.folders.command(usual.get_program())?;
        command.args(usual.get_args()).env("NO_COLOR", "1");
        Ok(command)
    }

    /// Starts the engine again, after [`Docker::stop`] or [`Docker::kill`], and waits until it answers.
    pub fn begin(&mut self) -> Result<()> {
        let home = self.folders.home().to_owned();
        // A killed one leaves them behind, and its number may be another's, or that of a process that nobody has waited for:
        // both would be taken for one that runs.
        for left in ["docker.pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(home.join(left));
        }
        let mut command = self.folders.command("dockerd")?;
        command.arg("--data-root").arg(home.join("data")).arg("--exec-root").arg(home.join("exec"));
        command.arg("--pidfile").arg(home.join("docker.pid")).arg("--host").arg(self.host());
        command.args(["--storage-driver", "overlay2", "--log-level", "info"]);
        let mut daemon = self.folders.start(command, "dockerd.log")?;
        let log = home.join("dockerd.log");
        let answers = || {
            ensure!(daemon.ended()?.is_none(), "dockerd ended");
            self.run(&["version"]).map(drop)
        };
        let answered = wait("dockerd to answer", START, answers);
        self.folders.record()?;
        answered.with_context(|| lines_of(&log, 20))?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Ends the engine in order, and its containers with it.
    pub fn stop(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no dockerd runs")?;
        daemon.stop().map(drop)
    }

    /// Kills the engine, which leaves its containers running.
    pub fn kill(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("no dockerd runs")?;
        self.folders.record()?;
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(Duration::from_secs(10)).map(drop)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        lines_of(&self.folders.home().join("dockerd.log"), 40)
    }

    /// Where it keeps the namespaces of containers.
    pub fn namespaces(&self) -> PathBuf {
        self.folders.home().join("exec/netns")
    }

    /// A command line of `docker`.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.folders.command("docker")?;
        command.env("DOCKER_CONFIG", self.folders.home()).args(["--host", &self.host()]).args(words);
        Ok(command)
    }

    /// Runs `docker`; what it prints.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        Ok(output(&mut self.command(words)?)?.trim().to_owned())
    }

    /// Runs `docker`, which has to be refused; what it says.
    pub fn refused(&self, words: &[&str]) -> Result<Refusal> {
        let done = self.command(words)?.output().context("docker")?;
        let message = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(!done.status.success(), "`docker {}` was not refused", words.join(" "));
        Ok(Refusal { code: done.status.code().unwrap_or(-1), message })
    }

    /// Starts a container of [`Busybox::NAME`] that runs `program`, with these further words for `docker run`.
    pub fn container(&self, name: &str, words: &[&str], program: &[&str]) -> Result<String> {
        let begin = ["run", "--detach", "--init=false", "--stop-timeout", "1", "--name", name];
        let done = self.run(&[&begin[..], words, &[Busybox::NAME], program].concat());
        self.folders.record()?;
        done
    }

    /// Runs a program in a container; what it prints.
    pub fn exec(&self, name: &str, program: &[&str]) -> Result<String> {
        self.run(&[&["exec", name], program].concat())
    }

    /// Runs Debian's `docker-compose` for a project of that name, whose file [`Docker::write_project`] wrote; what it
    /// prints.
    pub fn compose(&self, project: &str, words: &[&str]) -> Result<String> {
        let mut command = self.folders.command("docker-compose")?;
        command.env("DOCKER_CONFIG", self.folders.home()).env("COMPOSE_HTTP_TIMEOUT", "120");
        command.args(["--ansi", "never", "--host", &self.host()]);
        command.args(["--project-name", project, "--file"]).arg(self.project(project)).args(words);
        let done = output(&mut command);
        self.folders.record()?;
        Ok(done?.trim().to_owned())
    }

    /// Writes a project's compose file.
    pub fn write_project(&self, project: &str, file: &str) -> Result<()> {
        fs::write(self.project(project), file).context("a compose file")
    }

    /// Where its compose file is.
    pub fn project(&self, project: &str) -> PathBuf {
        self.folders.home().join(format!("{project}.yaml"))
    }

    /// The namespace of a running container.
    pub fn namespace(&self, name: &str) -> Result<PathBuf> {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", name])?;
        Ok(Path::new("/proc").join(pid).join("ns/net"))
    }

    /// The engine's socket.
    pub fn socket(&self) -> PathBuf {
        self.folders.home().join("docker.sock")
    }

    /// Notes what runs by now, so that it is ended even if this process is killed.
    pub fn record(&self) -> Result<()> {
        self.folders.record()
    }

    /// Where it keeps what is its own.
    pub(crate) fn home(&self) -> &Path {
        self.folders.home()
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }
}
