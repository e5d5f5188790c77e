//! One node: its namespace, its folders, its meshd, and meshctl on it.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::Value;

use crate::{
    binaries::Binaries,
    interrupt,
    leftovers::{Prefix, names, remove_folder},
    netns::NetNs,
    process::{Lifetime, Process, line, lines_of, succeed},
    testnet::{GATEWAY, TestNet, role},
    wait::wait,
};

/// How long a daemon may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A node of a cluster.
#[derive(Debug)]
pub struct Node {
    index: usize,
    prefix: Prefix,
    address: Ipv4Addr,
    underlay: IpAddr,
    namespace: PathBuf,
    binaries: Binaries,
    lifetime: Lifetime,
    daemon: Mutex<Option<Process>>,
    keep: bool,
}

/// What meshctl said when it refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its exit code.
    pub code: i32,
    /// Its standard error.
    pub message: String,
}

impl Node {
    pub(crate) fn new(net: &TestNet, index: usize, binaries: Binaries, lifetime: Lifetime) -> Result<Self> {
        let prefix = net.prefix().clone();
        let namespace = net.nodes().get(index).context("no such node")?.path();
        let (address, underlay) = (net.address(index), net.underlay(index));
        let node = Self {
            index,
            prefix,
            address,
            underlay,
            namespace,
            binaries,
            lifetime,
            daemon: Mutex::new(None),
            keep: false,
        };
        for folder in [node.state_folder(), node.run_folder()] {
            std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        node.configure()?;
        Ok(node)
    }

    /// Names outside the mesh are asked of the gateway, where [`crate::StubDns`] may listen.
    fn configure(&self) -> Result<()> {
        let write = |path: PathBuf, text: String| {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let resolvers = self.folder().join("resolv.conf");
        let log = std::env::var("MESHD_TEST_LOG")
            .unwrap_or_else(|_| "info,openraft=warn,netlink_proto=error".to_owned());
        write(
            self.config(),
            // Tests look at what tasks leave behind.
            format!(
                "log = {log:?}\negress_linger = 0\nresolv_conf = {:?}\n",
                resolvers.display().to_string()
            ),
        )?;
        write(resolvers, format!("nameserver {GATEWAY}\n"))
    }

    /// Its place in the cluster, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// `n1`, `n2`, ...
    pub fn name(&self) -> String {
        role(self.index)
    }

    /// Its IPv4 address, on wires with IPv4.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address by which it talks to the other nodes.
    pub fn underlay(&self) -> IpAddr {
        self.underlay
    }

    /// Where meshd keeps its state.
    pub fn state_folder(&self) -> PathBuf {
        self.folder().join("state")
    }

    /// Where meshd's socket is.
    pub fn run_folder(&self) -> PathBuf {
        self.folder().join("run")
    }

    /// Where meshd pins maps and links.
    pub fn bpf_folder(&self) -> PathBuf {
        self.prefix.bpf(&self.name())
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        self.run_folder().join("meshd.sock")
    }

    /// The daemon's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder().join("meshd.toml")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.folder().join("meshd.log")
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        lines_of(&self.log(), 40)
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.prefix.folder().join(self.name())
    }

    /// The file that stands for its network namespace.
    pub(crate) fn namespace_path(&self) -> &std::path::Path {
        &self.namespace
    }

    /// The processes of this node's cluster.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let records = std::fs::read_dir(self.records()).into_iter().flatten().flatten();
        records.filter_map(|record| record.file_name().to_str()?.parse().ok()).collect()
    }

    /// What a further namespace of this node is called.
    pub(crate) fn namespace_of(&self, role: &str) -> String {
        self.prefix.namespace(role)
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.prefix.folder().join("pids")
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// A command that runs `program` in the node's namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        NetNs::command_at(&self.namespace, program)
    }

    /// The daemon's command line.
    pub fn meshd(&self) -> Result<Command> {
        let mut command = self.command(&self.binaries.meshd)?;
        command.arg("--state-dir").arg(self.state_folder());
        command.arg("--run-dir").arg(self.run_folder());
        command.arg("--bpf-dir").arg(self.bpf_folder());
        command.arg("--config").arg(self.config()).env("NO_COLOR", "1");
        Ok(command)
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&self) -> Result<()> {
        self.launch(self.meshd()?)
    }

    /// Starts the daemon; [`Node::await_answer`] waits for it.
    pub fn begin_start(&self) -> Result<()> {
        self.spawn(self.meshd()?)
    }

    /// As [`Node::start`], by another command line than [`Node::meshd`].
    pub fn start_as(&self, command: Command) -> Result<()> {
        self.launch(command)
    }

    /// What a reboot makes of a node whose daemon was killed: its links of ours and its pins are gone, and the daemon
    /// starts with its disk and another boot id. Namespaces of tasks are the caller's to end.
    pub fn reboot(&self) -> Result<()> {
        for link in self.links()?.iter().filter(|l| l.starts_with("mesh-") || l.starts_with("msh")) {
            // The other end of a pair goes with the first.
            let _ = crate::process::output(self.command("ip")?.args(["link", "del", link]));
        }
        remove_folder(&self.bpf_folder())?;
        let boot = self.folder().join("boot_id");
        let number = std::fs::read_to_string(&boot).map_or(1, |text| text.len());
        std::fs::write(&boot, "1".repeat(number + 1)).with_context(|| boot.display().to_string())?;
        let mut command = self.meshd()?;
        let hide = move || {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
            let none = None::<&str>;
            // Namespaces that are made later must be seen.
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
            mount(Some(&boot), "/proc/sys/kernel/random/boot_id", none, MsFlags::MS_BIND, none)?;
            Ok(())
        };
        // SAFETY: the closure makes system calls only, and takes no lock.
        unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, hide) };
        self.launch(command)
    }

    fn launch(&self, command: Command) -> Result<()> {
        self.spawn(command)?;
        self.await_answer()
    }

    fn spawn(&self, command: Command) -> Result<()> {
        let process = Process::start(command, self.lifetime, &self.log(), &self.records())?;
        let previous = self.daemon().replace(process);
        ensure!(previous.is_none(), "{} already runs a daemon", self.name());
        Ok(())
    }

    /// Waits until the daemon answers, or fails if it ends.
    pub fn await_answer(&self) -> Result<()> {
        let answers = || {
            Ok(match self.with_daemon(Process::ended)? {
                None => Ok(self.ctl(&["status"]).map(drop)?),
                Some(status) => Err(anyhow!("meshd ended: {status}")),
            })
        };
        let answered = wait("meshd to answer", START, answers).flatten();
        answered.with_context(|| format!("log of {}:\n{}", self.name(), self.log_tail()))
    }

    /// The daemon's pid.
    pub fn pid(&self) -> Result<u32> {
        self.with_daemon(|daemon| Ok(daemon.pid()))
    }

    /// Ends the daemon in order.
    pub fn stop(&self) -> Result<()> {
        let mut daemon = self.daemon().take().with_context(|| format!("{} runs no daemon", self.name()))?;
        let status = daemon.stop()?;
        ensure!(status.success(), "meshd on {} did not end well: {status}\n{}", self.name(), self.log_tail());
        Ok(())
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&self) -> Result<()> {
        let mut daemon = self.daemon().take().with_context(|| format!("{} runs no daemon", self.name()))?;
        daemon.kill().map(drop)
    }

    /// Runs meshctl; what it prints. An error holds what it said.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        let (command, output) = self.run_ctl(words)?;
        if !output.status.success() {
            bail!("{}: `{command}`: {}", self.name(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs meshctl with `--format json`.
    pub fn ctl_json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ctl(&[&["--format", "json"], words].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`meshctl {}` prints: {text}", words.join(" ")))
    }

    /// Runs meshctl, which has to refuse.
    pub fn refused(&self, words: &[&str]) -> Result<Refusal> {
        let (command, output) = self.run_ctl(words)?;
        ensure!(!output.status.success(), "{}: `{command}` was not refused", self.name());
        let code =
            output.status.code().with_context(|| format!("`{command}` was killed: {}", output.status))?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(!message.contains("panicked"), "`{command}` panicked: {message}");
        Ok(Refusal { code, message })
    }

    /// A further program of ours, such as `mesh-cni`.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.binaries.beside(name)
    }

    /// The command line of meshctl on this node.
    pub fn meshctl(&self) -> Result<Command> {
        let mut command = self.command(&self.binaries.meshctl)?;
        command.arg("--socket").arg(self.socket());
        Ok(command)
    }

    fn run_ctl(&self, words: &[&str]) -> Result<(String, Output)> {
        interrupt::check()?;
        let mut command = self.meshctl()?;
        command.args(words);
        let output = command.output().with_context(|| format!("cannot run {}", line(&command)))?;
        Ok((format!("meshctl {}", words.join(" ")), output))
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Process>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_daemon<T>(&self, use_it: impl FnOnce(&mut Process) -> Result<T>) -> Result<T> {
        let mut daemon = self.daemon();
        use_it(daemon.as_mut().with_context(|| format!("{} runs no daemon", self.name()))?)
    }

    /// The links in the node's namespace, by name.
    pub fn links(&self) -> Result<Vec<String>> {
        let text = crate::process::output(self.command("ip")?.args(["-json", "link"]))?;
        let links: Value = serde_json::from_str(&text).context("what ip prints")?;
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// The pins of the node, as paths below its bpf folder.
    pub fn pins(&self) -> Vec<String> {
        fn collect(folder: &std::path::Path, below: &str, into: &mut Vec<String>) {
            for name in names(folder) {
                let path = folder.join(&name);
                if path.is_dir() {
                    collect(&path, &format!("{below}{name}/"), into)
                } else {
                    into.push(format!("{below}{name}"))
                }
            }
        }
        let mut pins = Vec::new();
        collect(&self.bpf_folder(), "", &mut pins);
        pins
    }

    pub(crate) fn keep(&mut self) {
        self.keep = true;
        if let Some(daemon) = self.daemon().as_mut() {
            daemon.keep();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // The daemon before its pins, or it would put them back.
        drop(self.daemon().take());
        if let Err(error) = remove_folder(&self.bpf_folder()) {
            eprintln!("{error:#}");
        }
    }
}

impl Node {
    /// Sends the kernel's view of the uplink to a file, for the reports of failed runs.
    pub fn describe(&self) -> String {
        let show = |words: &[&str]| -> String {
            let run = || crate::process::output(self.command("ip")?.args(words));
            run().unwrap_or_else(|error| format!("{error:#}\n"))
        };
        format!("{}{}", show(&["-br", "addr"]), show(&["route"]))
    }

    /// Checks that the namespace is usable; `ping`s `address` once.
    pub fn ping(&self, address: Ipv4Addr) -> Result<()> {
        succeed(self.command("ping")?.args(["-c1", "-W1", "-n", "-q", &address.to_string()]))
    }
}
