//! SWARM's acceptance 11: a thousand tasks on a /20, on three nodes. Each has an address of its own and a name that every
//! node resolves; samples of them talk to each other across nodes, the service's VIP leads to them, and when they are gone
//! nothing is left of them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mesh_tests::{Cluster, Greeter, Inventory, NetNs, Talk, Task, TaskSpec, run, succeed, wait};

/// A busy machine programs a thousand tasks on three nodes.
const PATIENTLY: Duration = Duration::from_secs(100);
const SOON: Duration = Duration::from_secs(10);
const TASKS: usize = 1000;
/// One of so many is spoken to.
const SAMPLE: usize = 37;
const PORT: u16 = 70;

/// Namespaces, each a task. Removed on drop.
struct Crowd(Vec<String>);

impl Crowd {
    fn gather(cluster: &Cluster) -> Result<Self> {
        let crowd = Self((0..TASKS).map(|n| cluster.net().prefix().namespace(&format!("t{n}"))).collect());
        crowd.all("add")?;
        Ok(crowd)
    }

    fn all(&self, verb: &str) -> Result<()> {
        let lines: String = self.0.iter().map(|name| format!("netns {verb} {name}\n")).collect();
        let mut ip = Command::new("ip");
        ip.args(["-force", "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = ip.spawn().context("ip")?;
        child.stdin.take().context("ip has no standard input")?.write_all(lines.as_bytes()).context("ip")?;
        let status = child.wait().context("ip")?;
        ensure!(status.success(), "ip netns {verb}: {status}");
        Ok(())
    }

    fn path(&self, task: usize) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0[task])
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if let Err(error) = self.all("delete") {
            eprintln!("{error:#}");
        }
    }
}

fn name(task: usize) -> String {
    format!("web{task}")
}

/// Runs meshctl with these words for every task, on the nodes in turn; those of each node one after the other.
fn for_all(cluster: &Cluster, words: impl Fn(usize) -> Vec<String> + Sync) -> Result<()> {
    // The socket is a file: meshctl need not be in the node's network.
    let lines = cluster.nodes().iter().map(|node| {
        let command = node.meshctl()?;
        Ok((command.get_program().to_owned(), command.get_args().map(OsStr::to_owned).collect::<Vec<_>>()))
    });
    let lines = lines.collect::<Result<Vec<_>>>()?;
    let (count, words) = (lines.len(), &words);
    std::thread::scope(|scope| {
        let run = |(node, (program, socket))| {
            scope.spawn(move || {
                let tasks = (node..TASKS).step_by(count);
                tasks
                    .into_iter()
                    .try_for_each(|task| succeed(Command::new(&program).args(&socket).args(words(task))))
            })
        };
        let nodes: Vec<_> = lines.into_iter().enumerate().map(run).collect();
        nodes
            .into_iter()
            .try_for_each(|node| node.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })
}

/// The addresses of a name, by TCP: a thousand do not fit into a datagram.
fn addresses(observer: &Task, name: &str) -> Result<BTreeSet<Ipv4Addr>> {
    let lines = observer.dig(&["+tcp", name])?;
    lines.iter().map(|line| line.parse().with_context(|| format!("dig says {line:?}"))).collect()
}

#[test]
fn a_thousand_tasks_on_one_network() -> Result<()> {
    run(3, |cluster| {
        cluster[0].ctl(&["network", "create", "--subnet", "10.20.0.0/20", "--attachable", "prod"])?;
        cluster[0].ctl(&["service", "create", "--network", "prod", "--publish", "7070:70", "web"])?;
        cluster.wait_for_view()?;
        let mut observers = Vec::new();
        for node in cluster.nodes() {
            let observer = format!("observer{}", node.index());
            observers.push(node.run_idle(&TaskSpec {
                name: &observer,
                network: "prod",
                ..TaskSpec::default()
            })?);
        }
        let before: Vec<Inventory> = cluster.nodes().iter().map(Inventory::of).collect::<Result<_>>()?;

        let start = Instant::now();
        let crowd = Crowd::gather(cluster)?;
        println!("{TASKS} namespaces within {:?}", start.elapsed());
        let start = Instant::now();
        for_all(cluster, |task| {
            let path = crowd.path(task).display().to_string();
            ["attach", "--service", "web", "--name", &name(task), &path].map(str::to_owned).into()
        })?;
        println!("{TASKS} tasks attached within {:?}", start.elapsed());

        let start = Instant::now();
        for observer in &observers {
            wait("all tasks to be known", PATIENTLY, || {
                let found = addresses(observer, "tasks.web")?.len();
                ensure!(found == TASKS, "{} knows {found} of {TASKS}", observer.name());
                Ok(())
            })?;
        }
        println!("known to all nodes {:?} after the last was attached", start.elapsed());
        let all = addresses(&observers[0], "tasks.web")?;
        for observer in &observers[1..] {
            ensure!(addresses(observer, "tasks.web")? == all, "{} knows other addresses", observer.name());
        }
        for task in (0..TASKS).step_by(SAMPLE) {
            let crowd_member = crowd.path(task);
            let listener = NetNs::run_at(&crowd_member, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            Greeter::serve(listener.context("port 70")?, &name(task));
            // By a node that it is not on, and by its own.
            for observer in &observers[..2] {
                let found = addresses(observer, &name(task))?;
                let address = *found.first().with_context(|| format!("no {}", name(task)))?;
                ensure!(found.len() == 1 && all.contains(&address), "{}: {found:?}", name(task));
                let talk = wait("a task to be reached", SOON, || {
                    observer.inside(|| Talk::open(SocketAddr::from((address, PORT)), SOON))?
                })?;
                ensure!(talk.name == name(task), "{address} is {}", talk.name);
            }
        }
        // Few listen: those that do not refuse, which an answer is too.
        let vip = *addresses(&observers[2], "web")?.first().context("no VIP")?;
        let spoken = (0..300).filter(|_| {
            let open = || Talk::open(SocketAddr::from((vip, PORT)), SOON);
            observers[2].inside(open).is_ok_and(|talk| talk.is_ok())
        });
        let spoken = spoken.count();
        println!("of 300 connections to the VIP {spoken} met one that listens");
        ensure!(spoken > 0, "the VIP leads nowhere");

        let start = Instant::now();
        drop(crowd);
        println!("{TASKS} namespaces deleted within {:?}", start.elapsed());
        for observer in &observers {
            wait("all tasks to be forgotten", PATIENTLY, || {
                let found = addresses(observer, "tasks.web")?.len();
                ensure!(found == 0, "{} still knows {found}", observer.name());
                Ok(())
            })?;
        }
        wait("nothing to be left", PATIENTLY, || {
            for (node, before) in cluster.nodes().iter().zip(&before) {
                let difference = before.difference(&Inventory::of(node)?);
                ensure!(difference.is_empty(), "{}: {difference}", node.name());
                let tasks = node.ctl_json(&["task", "ls"])?;
                let count = tasks.as_array().map_or(0, Vec::len);
                ensure!(count == observers.len(), "{} lists {count} tasks", node.name());
            }
            Ok(())
        })?;
        println!("forgotten everywhere {:?} later", start.elapsed());
        Ok(())
    })
}
