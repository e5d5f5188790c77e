//! SWARM's acceptance 11: a thousand tasks on a /20, on three nodes. Each has an address of its own and a name that every
//! node resolves; samples are reached from every node, the hundred that are a service's by its published port, and when they
//! are gone nothing is left of them.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mesh_tests::{Cluster, Greeter, Inventory, NetNs, Talk, Task, TaskSpec, resolve, run, succeed, wait};

/// A busy machine programs a thousand tasks on three nodes.
const PATIENTLY: Duration = Duration::from_secs(150);
const SOON: Duration = Duration::from_secs(10);
const TASKS: usize = 1000;
/// One of so many is spoken to.
const SAMPLE: usize = 37;
/// One of so many belongs to the service.
const SERVING: usize = 10;
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
    format!("one{task}")
}

fn serves(task: usize) -> bool {
    task.is_multiple_of(SERVING)
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

/// The address of every task, as a node's tasks resolve it.
fn addresses(observer: &Task) -> Result<Vec<Ipv4Addr>> {
    let server = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), 53));
    observer.inside(|| {
        let one = |task| {
            let found = resolve(server, &format!("{}.prod", name(task)), SOON)?;
            let [address] = found[..] else { bail!("{} is {found:?}", name(task)) };
            Ok(address)
        };
        (0..TASKS).map(one).collect()
    })?
}

/// How many addresses a name has, by TCP: so many do not fit into a datagram.
fn count(observer: &Task, name: &str) -> Result<usize> {
    Ok(observer.dig(&["+tcp", name])?.len())
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
        let before = Inventory::settled(cluster)?;

        let start = Instant::now();
        let crowd = Crowd::gather(cluster)?;
        println!("{TASKS} namespaces within {:?}", start.elapsed());
        let start = Instant::now();
        for_all(cluster, |task| {
            let (path, name) = (crowd.path(task).display().to_string(), name(task));
            let membership = if serves(task) { ["--service", "web"] } else { ["--network", "prod"] };
            [&["attach"][..], &membership, &["--name", &name, &path]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect()
        })?;
        println!("{TASKS} tasks attached within {:?}", start.elapsed());

        let start = Instant::now();
        let known = observers
            .iter()
            .map(|observer| wait("all tasks to be known", PATIENTLY, || addresses(observer)))
            .collect::<Result<Vec<_>>>()?;
        println!("known to all nodes {:?} after the last was attached", start.elapsed());
        ensure!(known.iter().all(|addresses| *addresses == known[0]), "nodes know other addresses");
        let all: BTreeSet<&Ipv4Addr> = known[0].iter().collect();
        ensure!(all.len() == TASKS, "{} addresses for {TASKS} tasks", all.len());
        for observer in &observers {
            let count = count(observer, "tasks.web")?;
            ensure!(count == TASKS / SERVING, "{}: tasks.web has {count} addresses", observer.name());
        }

        for task in (0..TASKS).step_by(SAMPLE) {
            let listener =
                NetNs::run_at(&crowd.path(task), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            Greeter::serve(listener.context("port 70")?, &name(task));
            let server = SocketAddr::from((known[0][task], PORT));
            for observer in &observers {
                let open = || observer.inside(|| Talk::open(server, SOON))?;
                let talk = wait("a task to be reached", SOON, open)?;
                ensure!(talk.name == name(task), "{server} is {}", talk.name);
            }
        }
        for task in (0..TASKS).filter(|task| serves(*task) && task % SAMPLE != 0) {
            let listener =
                NetNs::run_at(&crowd.path(task), || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            Greeter::serve(listener.context("port 70")?, &name(task));
        }
        let published = SocketAddr::from((cluster[0].address(), 7070));
        let mut met = BTreeSet::new();
        for _ in 0..TASKS {
            met.insert(cluster.net().client().run(|| Talk::open(published, SOON))??.name);
        }
        println!("{TASKS} connections met {} of the {} tasks of the service", met.len(), TASKS / SERVING);
        // Of a hundred, one in e^10 would be missed by chance.
        ensure!(met.len() > TASKS / SERVING * 9 / 10, "only {} tasks were met", met.len());

        let start = Instant::now();
        drop(crowd);
        println!("{TASKS} namespaces deleted within {:?}", start.elapsed());
        for observer in &observers {
            wait("all tasks to be forgotten", PATIENTLY, || {
                let count = count(observer, "tasks.web")?;
                ensure!(count == 0, "{}: tasks.web has {count} addresses", observer.name());
                Ok(())
            })?;
        }
        println!("no names of theirs {:?} later", start.elapsed());
        // Entries of maps among it: of endpoints, of backends, of tables.
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
        println!("nothing left {:?} later", start.elapsed());
        Ok(())
    })
}
