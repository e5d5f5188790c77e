//! Debian's Docker engine in a namespace, without meshd. Nothing is pulled: its only image is a static busybox.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use mesh_tests::{Lifetime, NetNs, Prefix, Process, lines_of, output, succeed, wait};

use crate::load::need;

/// What containers are made of.
const IMAGE: &str = "meshd-bench";
/// Where containerd listens, in the engine's folder.
const CONTAINERD: &str = "c.sock";
const START: Duration = Duration::from_secs(60);

/// A running dockerd with what it runs; removed on drop.
pub struct Engine {
    folder: PathBuf,
    containers: Vec<String>,
    swarm: bool,
    // Dropped in this order.
    daemon: Process,
    _containerd: Process,
}

impl Engine {
    /// Starts one in `namespace`, and waits until it answers and has its image. `role` tells it from others of the run.
    pub fn start(prefix: &Prefix, role: &str, namespace: &NetNs) -> Result<Self> {
        need("dockerd")?;
        let folder = prefix.folder().join(role);
        let (root, records) = (folder.join("root/bin"), folder.join("pids"));
        for made in [&root, &records] {
            std::fs::create_dir_all(made).with_context(|| format!("cannot make {}", made.display()))?;
        }
        std::fs::copy("/bin/busybox", root.join("busybox")).context("a static busybox (`setup --peers`)")?;
        // The one that dockerd starts itself has to be ready within 15 s, which an emulated machine does not always manage.
        let containerd = containerd(namespace, &folder, &records)?;
        let mut dockerd = namespace.command("dockerd")?;
        dockerd.arg("--containerd").arg(folder.join(CONTAINERD));
        dockerd.args(["--storage-driver=vfs", "--bridge=none", "--host"]).arg(host(&folder));
        dockerd.arg("--data-root").arg(folder.join("data")).arg("--exec-root").arg(folder.join("exec"));
        dockerd.arg("--pidfile").arg(folder.join("pid"));
        // Without it, a service's task asks a registry for twenty seconds.
        dockerd.env("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE", "1");
        let daemon = Process::start(dockerd, Lifetime::Owner, &folder.join("log"), &records)
            .context("dockerd (`setup --peers`)")?;
        let engine = Self { folder, containers: Vec::new(), swarm: false, daemon, _containerd: containerd };
        engine.ready().with_context(|| engine.log())?;
        Ok(engine)
    }

    fn ready(&self) -> Result<()> {
        wait("dockerd to answer", START, || self.run(&["version"]).map(drop))?;
        let import = format!(
            "tar -C {} -c . | docker -H {} import - {IMAGE}",
            self.folder.join("root").display(),
            host(&self.folder)
        );
        succeed(Command::new("sh").args(["-c", &import]))
    }

    /// Runs `docker`; what it prints.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        Ok(output(self.docker().args(words))?.trim().to_owned())
    }

    fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_CONFIG", &self.folder).arg("-H").arg(host(&self.folder));
        docker
    }

    /// Starts a container that sleeps, with these further words for `docker run`; its network namespace.
    pub fn container(&mut self, name: &str, words: &[&str]) -> Result<PathBuf> {
        let begin = ["run", "--detach", "--name", name];
        self.run(&[&begin[..], words, &[IMAGE, "/bin/busybox", "sleep", "1000000"]].concat())?;
        self.containers.push(name.to_owned());
        self.namespace(name)
    }

    /// The network namespace of a running container.
    pub fn namespace(&self, name: &str) -> Result<PathBuf> {
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", name])?;
        Ok(format!("/proc/{pid}/ns/net").into())
    }

    /// Has it make a swarm or join one, by these words for `docker swarm`; what that prints.
    pub fn swarm(&mut self, words: &[&str]) -> Result<String> {
        self.swarm = true;
        self.run(&[&["swarm"], words].concat())
    }

    /// Makes a service of one sleeping task, with these further words for `docker service create`.
    pub fn service(&self, name: &str, words: &[&str]) -> Result<()> {
        let begin = ["service", "create", "--detach", "--no-resolve-image", "--name", name];
        self.run(&[&begin[..], words, &[IMAGE, "/bin/busybox", "sleep", "1000000"]].concat()).map(drop)
    }

    /// Lets the swarm's ingress on this machine pass packets on, once it is there. Docker relies on its namespace to have that from
    /// the machine's first one, where no engine runs here.
    pub fn pass_ingress_on(&self) -> Result<()> {
        let ingress = self.folder.join("exec/netns/ingress_sbox");
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        wait("the swarm's ingress", START, || Ok(NetNs::run_at(&ingress, forward)??))
    }

    /// The daemon's pid.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        format!("dockerd says:\n{}", lines_of(&self.folder.join("log"), 10))
    }

    /// After Ctrl-C too, for cleaning up.
    fn always(&self, words: &[&str]) {
        let done = self.docker().args(words).stdin(Stdio::null()).stdout(Stdio::null()).output();
        match done {
            Ok(done) if done.status.success() => {}
            Ok(done) => eprintln!("docker {}: {}", words[0], String::from_utf8_lossy(&done.stderr).trim()),
            Err(error) => eprintln!("docker {}: {error}", words[0]),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // An engine that ends waits ten seconds for each container that does not heed it.
        if !self.containers.is_empty() {
            let remove = ["rm", "--force"].into_iter().chain(self.containers.iter().map(String::as_str));
            self.always(&remove.collect::<Vec<_>>());
        }
        if self.swarm {
            self.always(&["swarm", "leave", "--force"]);
        }
    }
}

/// Starts containerd without Kubernetes' interface, and waits until it listens.
fn containerd(namespace: &NetNs, folder: &Path, records: &Path) -> Result<Process> {
    let [config, socket, log] =
        ["containerd.toml", CONTAINERD, "containerd.log"].map(|name| folder.join(name));
    let text = format!(
        "version = 2\nroot = \"{0}/containerd\"\nstate = \"{0}/containerd-state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{1}\"\n",
        folder.display(),
        socket.display()
    );
    std::fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = namespace.command("containerd")?;
    command.arg("--config").arg(&config);
    let process = Process::start(command, Lifetime::Owner, &log, records)
        .context("containerd, Docker's own (`setup --peers`)")?;
    wait("containerd to listen", START, || UnixStream::connect(&socket).map(drop).context("its socket"))
        .with_context(|| lines_of(&log, 10))?;
    Ok(process)
}

fn host(folder: &Path) -> String {
    format!("unix://{}", folder.join("d.sock").display())
}
