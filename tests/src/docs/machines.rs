//! The machines on which a page's commands run: namespaces of a cluster, each with a host name and a working folder.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{Fate, Manner, Page, Step, engines::Engines, output};
use crate::{
    cluster::Cluster,
    netns::NetNs,
    process::{Lifetime, Process, lines_of},
    wait::wait,
};

/// What comes about by itself is there after this.
const SOON: Duration = Duration::from_secs(30);
/// Seconds that one command may take, as `timeout` takes it.
const LONGEST: &str = "120";
/// Programs and verbs that change nothing, so that they may be asked again until they say what they should.
const QUESTIONS: &[&str] =
    &["curl", "ping", "dig", "getent", "ls", "ps", "inspect", "status", "lookup", "doctor", "run", "trace"];

/// Runs the page's steps in order.
pub fn run(page: &Page) -> Result<()> {
    let nodes = page.steps().filter_map(Step::node).max().context("nothing of this page is run on a node")?;
    let count = u8::try_from(nodes + 1).context("too many nodes")?;
    let cluster = Cluster::with_host_names(count)?;
    let mut machines =
        Machines { cluster: &cluster, token: None, started: Vec::new(), engines: Engines::default() };
    let told = machines.tell(page);
    // Before the daemons, which they are tasks of.
    drop(machines);
    told.map_err(|error| cluster.explain(error))
}

struct Machines<'a> {
    cluster: &'a Cluster,
    /// The join token that was printed last.
    token: Option<String>,
    started: Vec<Process>,
    engines: Engines,
}

impl Machines<'_> {
    fn tell(&mut self, page: &Page) -> Result<()> {
        if !page.steps().any(|step| step.command.starts_with("meshctl init")) {
            self.cluster.form()?;
            self.engines.start(page, self.cluster)?;
        }
        for block in &page.blocks {
            match &block.fate {
                Fate::Run(steps) => {
                    for step in steps {
                        let place =
                            || format!("{}:{}: {}$ {}", page.path, step.line, step.machine, step.command);
                        self.step(step).with_context(place)?;
                    }
                }
                Fate::File { name, text } => {
                    let nodes = self.cluster.nodes().iter().map(|node| node.name());
                    for machine in nodes.chain(["client".to_owned()]) {
                        let path = self.home(&machine)?.join(name);
                        fs::write(&path, text).with_context(|| path.display().to_string())?;
                    }
                }
                Fate::TriedBy { .. } | Fate::NotRun { .. } | Fate::Drawing => {}
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.engines.begin_firewall(step, self.cluster)?;
        if let Some(command) = step.command.strip_suffix(" &") {
            ensure!(step.prints.is_empty(), "nobody reads what a command in the background prints");
            return self.begin(step, command);
        }
        let question = step.command.split_whitespace().any(|word| QUESTIONS.contains(&word));
        let printed = if question {
            wait("the command to print what the page says", SOON, || self.ask(step))?
        } else {
            self.ask(step)?
        };
        let mut words = printed.split_whitespace();
        if let Some(token) = words.find(|word| word.starts_with("MESHTKN-")) {
            self.token = Some(token.to_owned());
        }
        Ok(())
    }

    fn ask(&self, step: &Step) -> Result<String> {
        let shell = format!("{{ {}\n}} 2>&1", self.filled_in(&step.command)?);
        let done =
            self.command(step, &["timeout", LONGEST, "sh", "-c", &shell])?.output().context("a shell")?;
        self.engines.record()?;
        let printed = String::from_utf8_lossy(&done.stdout).into_owned();
        let should_succeed = step.manner != Manner::Refused;
        ensure!(done.status.success() == should_succeed, "{}: {}", done.status, printed.trim());
        if !step.prints.is_empty() && !output::is(&step.prints, &printed, step.manner) {
            bail!("it prints\n{printed}instead of\n{}", step.prints.join("\n"));
        }
        Ok(printed)
    }

    /// Starts what goes on; a task of it is there afterwards.
    fn begin(&mut self, step: &Step, command: &str) -> Result<()> {
        let shell = format!("exec {}", self.filled_in(command)?);
        let log = self.home(&step.machine)?.join(format!("{}.log", step.line));
        let records = self.cluster.net().prefix().folder().join("pids");
        let node = step.node().filter(|_| command.starts_with("meshctl run"));
        let node = node.and_then(|index| self.cluster.nodes().get(index));
        let tasks = || match node {
            Some(node) => {
                let mine = format!("node={}", node.name());
                Ok(node.ctl(&["task", "ls", "--quiet", "--filter", &mine])?.lines().count())
            }
            None => anyhow::Ok(0),
        };
        let before = tasks()?;
        let started = wait("what goes on in the background", SOON, || {
            let command = self.command(step, &["sh", "-c", &shell])?;
            let mut process = Process::start(command, Lifetime::Owner, &log, &records)?;
            wait("its task", SOON, || {
                if let Some(status) = process.ended()? {
                    return Ok(Err(anyhow::anyhow!("{status}: {}", lines_of(&log, 5))));
                }
                ensure!(node.is_none() || tasks()? > before, "it is not there: {}", lines_of(&log, 5));
                Ok(Ok(()))
            })
            .flatten()?;
            Ok(process)
        });
        self.started.push(started?);
        Ok(())
    }

    /// The command with the token that was printed last in place of `MESHTKN-...`.
    fn filled_in(&self, command: &str) -> Result<String> {
        let Some((before, rest)) = command.split_once("MESHTKN-") else { return Ok(command.to_owned()) };
        let token = self.token.as_deref().context("no token was printed before")?;
        let after = rest.split_once(' ').map(|(_, after)| format!(" {after}")).unwrap_or_default();
        Ok(format!("{before}{token}{after}"))
    }

    fn command(&self, step: &Step, words: &[&str]) -> Result<Command> {
        let net = self.cluster.net();
        let Some(first) = self.cluster.nodes().first() else { bail!("no nodes") };
        let mut command = match step.node() {
            Some(index) => {
                let node = self.cluster.nodes().get(index).context("no such node")?;
                let mut command = self.engines.command(node, "unshare")?;
                command.env("MESHCTL_SOCKET", node.socket());
                command
            }
            None => NetNs::command_at(&net.client().path(), "unshare")?,
        };
        // Another mount namespace begins in its root: the folder is gone to afterwards.
        let go = ["sh", "-c", "cd \"$0\" && exec \"$@\""];
        command.args(named(&step.machine)).args(go).arg(self.home(&step.machine)?).args(words);
        let programs = first.program("meshctl")?;
        let programs = programs.parent().context("meshctl is in no folder")?.to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders =
            [programs, "/usr/sbin".into(), "/sbin".into()].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(folders).context("PATH")?).env("NO_COLOR", "1");
        Ok(command)
    }

    /// The working folder of a machine.
    fn home(&self, machine: &str) -> Result<PathBuf> {
        let home = self.cluster.net().prefix().folder().join("home").join(machine);
        fs::create_dir_all(&home).with_context(|| home.display().to_string())?;
        Ok(home)
    }
}

/// Words for `unshare` before a command that is to see this host name.
fn named(host: &str) -> [&str; 5] {
    ["--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", host]
}

impl Cluster {
    /// Daemons of no cluster yet, on nodes that are called `n1`, `n2`, ... themselves.
    fn with_host_names(count: u8) -> Result<Self> {
        let net = crate::TestNet::create(crate::Prefix::unique(), count)?;
        let cluster = Self::nodes_on(net, crate::Binaries::find()?, Lifetime::Owner)?;
        for node in cluster.nodes() {
            // As packages make it.
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(node.state_folder(), private).context("the state's folder")?;
            let usual = node.meshd()?;
            let mut command = node.command("unshare")?;
            command
                .args(named(&node.name()))
                .arg(usual.get_program())
                .args(usual.get_args())
                .env("NO_COLOR", "1");
            node.start_as(command).with_context(|| format!("node {}", node.name()))?;
        }
        Ok(cluster)
    }
}
