//! Tasks: programs that `meshctl run` starts on a node.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::{
    sched::CloneFlags,
    sys::signal::{Signal, kill},
};

use crate::{
    echo::UdpEcho,
    leftovers::names,
    netns::{NetNs, enter, open},
    node::Node,
    process::{Process, lines_of, output, pid, start_time},
    wait::wait,
};

const START: Duration = Duration::from_secs(20);

/// What `meshctl run` is to start.
#[derive(Debug, Clone, Default)]
pub struct TaskSpec<'a> {
    /// The task's name.
    pub name: &'a str,
    /// Its network.
    pub network: &'a str,
    /// Its service.
    pub service: Option<&'a str>,
    /// Further words for `meshctl run`.
    pub options: &'a [&'a str],
}

/// A running task, ended on drop.
#[derive(Debug)]
pub struct Task {
    name: String,
    network: String,
    /// `meshctl run`.
    runner: Process,
    /// The program in the task's namespace.
    program: u32,
    started: Option<String>,
    node: PathBuf,
    folder: PathBuf,
    keep: bool,
}

impl Node {
    /// Starts a program as a task and waits until it runs, attached.
    pub fn run_task(&self, spec: &TaskSpec<'_>, program: &[&OsStr]) -> Result<Task> {
        let folder = self.folder().join("tasks").join(spec.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut command = self.meshctl()?;
        command.args(["run", "--name", spec.name, "--network", spec.network]);
        if let Some(service) = spec.service {
            command.args(["--service", service]);
            // A test that is over does not wait for what its clients still hold open.
            if !spec.options.contains(&"--drain-timeout") {
                command.args(["--drain-timeout", "1s"]);
            }
        }
        command.args(spec.options).arg("--").args(program);
        let log = folder.join("log");
        let mut runner = Process::start(command, self.lifetime(), &log, &self.records())?;
        let program = wait("the task to run", START, || {
            Ok(match runner.ended()? {
                None => Ok(find_program(runner.pid(), program)?),
                Some(status) => Err(anyhow!("meshctl run ended: {status}")),
            })
        });
        let program = program
            .flatten()
            .with_context(|| format!("task {} on {}: {}", spec.name, self.name(), lines_of(&log, 20)))?;
        let record = self.records().join(program.to_string());
        let started = start_time(program);
        std::fs::write(&record, started.as_deref().unwrap_or_default())
            .with_context(|| format!("cannot write {}", record.display()))?;
        Ok(Task {
            name: spec.name.to_owned(),
            network: spec.network.to_owned(),
            runner,
            program,
            started,
            node: self.folder(),
            folder,
            keep: false,
        })
    }

    /// Starts a task that does nothing but be there.
    pub fn run_idle(&self, spec: &TaskSpec<'_>) -> Result<Task> {
        self.run_task(spec, &["sleep".as_ref(), "1000000".as_ref()])
    }

    /// Starts nginx as a task: it answers with its name and the client's address, and logs that address.
    pub fn run_nginx(&self, spec: &TaskSpec<'_>) -> Result<Nginx> {
        let folder = self.folder().join("tasks").join(spec.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let config = folder.join("nginx.conf");
        std::fs::write(&config, nginx_config(&folder, spec.name))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let words: [&OsStr; 5] =
            ["nginx".as_ref(), "-p".as_ref(), folder.as_ref(), "-c".as_ref(), config.as_ref()];
        let task = self.run_task(spec, &words)?;
        let ready = || -> Result<()> {
            let connect = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 80)).map(drop);
            task.inside(connect)?.context("nginx does not listen")
        };
        wait("nginx to listen", START, ready).with_context(|| lines_of(&folder.join("error.log"), 10))?;
        Ok(Nginx { task, access_log: folder.join("access.log") })
    }
}

impl Task {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid of its program.
    pub fn pid(&self) -> u32 {
        self.program
    }

    /// Its folder on this machine.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of its node.
    pub fn node_folder(&self) -> &Path {
        &self.node
    }

    /// The file that stands for its network namespace.
    pub fn namespace(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.program).into()
    }

    /// A command that runs `program` where the task is: in its network, and with its resolv.conf.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let file = |kind: &str| open(Path::new(&format!("/proc/{}/ns/{kind}", self.program)));
        let mut command = Command::new(program);
        let namespaces: Vec<(File, CloneFlags)> =
            vec![(file("net")?, CloneFlags::CLONE_NEWNET), (file("mnt")?, CloneFlags::CLONE_NEWNS)];
        enter(&mut command, namespaces);
        Ok(command)
    }

    /// Runs `work` in the task's network namespace; sockets that it makes stay there.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        NetNs::run_at(&self.namespace(), work)
    }

    /// Serves UDP `port` inside the task.
    pub fn serve_udp(&self, port: u16) -> Result<UdpEcho> {
        let socket = self.inside(move || UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?;
        UdpEcho::serve(socket.with_context(|| format!("UDP port {port} in {}", self.name))?, &self.name)
    }

    /// Its addresses on its first network, by the link inside.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let text =
            output(self.command("ip")?.args(["-json", "addr", "show", "dev", "eth0", "scope", "global"]))?;
        let links: serde_json::Value = serde_json::from_str(&text).context("what ip prints")?;
        let addresses = links[0]["addr_info"].as_array().into_iter().flatten();
        addresses.filter_map(|a| a["local"].as_str()).map(|a| a.parse().context("an address")).collect()
    }

    /// Its IPv4 address on its first network.
    pub fn address(&self) -> Result<Ipv4Addr> {
        let addresses = self.addresses()?;
        let v4 = addresses.into_iter().find_map(|a| if let IpAddr::V4(a) = a { Some(a) } else { None });
        v4.with_context(|| format!("task {} has no IPv4 address", self.name))
    }

    /// Its first network.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// What dig prints with `+short` and further words inside the task, one line an element, in order.
    pub fn dig(&self, words: &[&str]) -> Result<Vec<String>> {
        let text = output(self.command("dig")?.args(["+short", "+tries=1", "+time=6"]).args(words))?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }

    /// The response code that dig reports: `NOERROR`, `NXDOMAIN`, ...
    pub fn dig_status(&self, words: &[&str]) -> Result<String> {
        let text =
            output(self.command("dig")?.args(["+noall", "+comments", "+tries=1", "+time=6"]).args(words))?;
        let status = text.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        Ok(status.with_context(|| format!("dig prints no status: {text}"))?.to_owned())
    }

    /// Kills its program with SIGKILL and waits until `meshctl run` has ended.
    pub fn kill(&mut self) -> Result<()> {
        kill(pid(self.program)?, Signal::SIGKILL).with_context(|| format!("killing task {}", self.name))?;
        self.runner.wait(START).map(drop)
    }

    /// Ends it in order, as a service manager would: SIGTERM to `meshctl run`.
    pub fn stop(&mut self) -> Result<()> {
        self.runner.stop().map(drop)
    }

    /// `meshctl run` itself.
    pub fn runner(&mut self) -> &mut Process {
        &mut self.runner
    }

    /// Leaves it running on drop.
    pub fn keep(&mut self) {
        self.keep = true;
        self.runner.keep();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let ended = self.stop();
        // A runner that was killed takes its program along or not; either way it must not stay.
        if self.started.is_some() && start_time(self.program) == self.started {
            let _ = pid(self.program).map(|pid| kill(pid, Signal::SIGKILL));
        }
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

/// A task that runs nginx.
#[derive(Debug)]
pub struct Nginx {
    /// The task.
    pub task: Task,
    access_log: PathBuf,
}

impl Nginx {
    /// The client addresses that it logged, in order.
    pub fn clients(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.access_log).unwrap_or_default();
        text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    }
}

/// One process, so that no worker outlives a killed master.
pub(crate) fn nginx_config(folder: &Path, name: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; user root; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  log_format client '$remote_addr $request';
  access_log {folder}/access.log client;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 80 reuseport backlog=1024;
    default_type text/plain;
    location / {{ return 200 '{name} $remote_addr\\n'; }}
    location = /ready {{ if (-f {folder}/sick) {{ return 500; }} return 200 'ready\\n'; }}
  }}
}}
"
    )
}

/// The process that runs the task's program: the runner itself, or the last of its line of children.
fn find_program(runner: u32, program: &[&OsStr]) -> Result<u32> {
    let namespace = |pid: u32| std::fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| m.ino());
    let wanted: Vec<OsString> = program.iter().map(|&word| word.to_owned()).collect();
    let name = Path::new(wanted.first().context("no program")?).file_name().unwrap_or_default().to_owned();
    let mut pid = runner;
    loop {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let first = command.split(|&byte| byte == 0).next().unwrap_or_default();
        let running =
            Path::new(std::str::from_utf8(first).unwrap_or_default()).file_name().unwrap_or_default();
        if (running == name || first.starts_with(name.as_encoded_bytes()))
            && namespace(pid)? != namespace(std::process::id())?
        {
            return Ok(pid);
        }
        let threads = names(Path::new(&format!("/proc/{pid}/task")));
        let children = threads.iter().flat_map(|thread| {
            let path = format!("/proc/{pid}/task/{thread}/children");
            let text = std::fs::read_to_string(path).unwrap_or_default();
            text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<u32>>()
        });
        let Some(child) = children.last() else { bail!("the program does not run yet") };
        ensure!(child != pid, "a process that is its own child");
        pid = child;
    }
}
