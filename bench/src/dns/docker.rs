//! Docker's embedded DNS: two containers on a user network, answered by dockerd itself. Nothing is pulled.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_tests::{Lifetime, NetNs, Prefix, Process, output, succeed, wait};

use super::subject::{Subject, embedded};

/// See the module.
pub struct Docker {
    askers: Vec<PathBuf>,
    socket: String,
    containers: Vec<String>,
    daemon: Process,
    _namespace: NetNs,
}

impl Docker {
    /// A daemon of its own in a namespace of its own.
    pub fn start(prefix: &Prefix, names: &[String]) -> Result<Self> {
        let folder = prefix.folder().join("docker");
        let root = folder.join("root/bin");
        let records = folder.join("pids");
        for made in [&root, &records] {
            std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
        }
        std::fs::copy("/bin/busybox", root.join("busybox")).context("a static busybox (`setup --peers`)")?;
        let namespace = NetNs::create(&prefix.namespace("docker"))?;
        let socket = format!("unix://{}", folder.join("d.sock").display());
        let mut dockerd = namespace.command("dockerd")?;
        dockerd.args(["--storage-driver=vfs", "--bridge=none", "-H", &socket]);
        dockerd.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        dockerd.arg("-p").arg(folder.join("pid"));
        let log = folder.join("log");
        let daemon =
            Process::start(dockerd, Lifetime::Owner, &log, &records).context("dockerd (`setup --peers`)")?;
        let mut docker =
            Self { askers: Vec::new(), socket, containers: Vec::new(), daemon, _namespace: namespace };
        let run = docker.run(&folder, names);
        run.with_context(|| format!("dockerd says:\n{}", mesh_tests::lines_of(&log, 10)))?;
        Ok(docker)
    }

    fn run(&mut self, folder: &Path, names: &[String]) -> Result<()> {
        wait("dockerd to answer", Duration::from_secs(60), || self.docker(&["version"]).map(drop))?;
        let import = format!(
            "tar -C {} -c . | docker -H {} import - meshd-bench",
            folder.join("root").display(),
            self.socket
        );
        succeed(Command::new("sh").args(["-c", &import]))?;
        self.docker(&["network", "create", "names"])?;
        let aliases: Vec<String> = names.iter().map(|name| format!("--network-alias={name}")).collect();
        for (name, aliases) in [("flooder", aliases.as_slice()), ("asker", &[])] {
            let mut words = vec!["run", "--detach", "--network=names", "--name", name];
            words.extend(aliases.iter().map(String::as_str));
            words.extend(["meshd-bench", "/bin/busybox", "sleep", "1000000"]);
            self.docker(&words)?;
            self.containers.push(name.to_owned());
            let pid = self.docker(&["inspect", "--format", "{{.State.Pid}}", name])?;
            self.askers.push(format!("/proc/{}/ns/net", pid.trim()).into());
        }
        Ok(())
    }

    fn docker(&self, words: &[&str]) -> Result<String> {
        output(Command::new("docker").args(["-H", &self.socket]).args(words))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if !self.containers.is_empty() {
            let mut remove = vec!["rm", "--force"];
            remove.extend(self.containers.iter().map(String::as_str));
            if let Err(error) = self.docker(&remove) {
                eprintln!("{error:#}");
            }
        }
    }
}

impl Subject for Docker {
    fn name(&self) -> &'static str {
        "Docker"
    }

    fn askers(&self) -> &[PathBuf] {
        &self.askers
    }

    fn server(&self) -> SocketAddr {
        embedded()
    }

    fn pid(&self) -> u32 {
        self.daemon.pid()
    }
}
