//! Containers of Debian's Docker engine: on a network of the mesh, on Docker's own bridge, and without a network, which
//! tells what the engine takes for itself.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use mesh_api::{
    transport::unix_connect,
    v1::{ListTasksRequest, ListTasksResponse, local_client::LocalClient},
};
use mesh_tests::{Busybox, Cluster, Docker, Inventory, interrupt, wait};
use serde_json::Value;

use super::{Amount, BASE, Measured, NETWORK, Times};

/// Containers on no network.
pub const NONE: &str = "none";
/// For what an engine does with many containers at once.
const AT_MOST: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_millis(2);

/// Milliseconds of the networks in turn. Containers are there before they are started, and go when they are stopped.
pub fn measure(cluster: &Cluster, amount: &Amount) -> Result<Measured> {
    let image = Busybox::make(&cluster.net().prefix().folder())?;
    let docker = Docker::start(&cluster[0], &image)?;
    let mesh = format!("network={NETWORK}");
    let words = ["network", "create", "--driver", "mesh", "--opt", &mesh];
    docker.run(&[&words[..], &["--ipam-driver", "mesh", "--ipam-opt", &mesh, NETWORK]].concat())?;
    let engine = Engine { cluster, docker: &docker, socket: docker.socket() };
    engine.measure(amount).with_context(|| format!("dockerd says:\n{}", docker.log_tail()))
}

struct Engine<'a> {
    cluster: &'a Cluster,
    docker: &'a Docker,
    socket: PathBuf,
}

impl Engine<'_> {
    fn measure(&self, amount: &Amount) -> Result<Measured> {
        let mut measured = [(NETWORK, "mesh"), (BASE, BASE), (NONE, NONE)]
            .map(|(network, name)| (network, name, Times::default()));
        for (network, ..) in &measured {
            self.come_and_go(network, 1)?;
        }
        let before = Inventory::settled(self.cluster)?;
        let reserved = self.tasks()?.reserved;
        for _ in 0..amount.rounds {
            for (network, _, times) in &mut measured {
                let (start, stop) = self.come_and_go(network, 1)?;
                times.start.push(start);
                times.stop.push(stop);
            }
        }
        for _ in 0..amount.batches {
            for (network, _, times) in &mut measured {
                let (start, stop) = self.come_and_go(network, amount.at_once)?;
                times.start_all.push(start);
                times.stop_all.push(stop);
                wait("nothing to be left", AT_MOST, || {
                    let now = self.tasks()?;
                    ensure!(now.local.is_empty(), "{} tasks are left", now.local.len());
                    ensure!(now.reserved == reserved, "addresses are kept: {:?}", now.reserved);
                    let now = Inventory::of(&self.cluster[0])?;
                    let difference = before.first().map(|before| before.difference(&now)).unwrap_or_default();
                    // Docker's rules count packets.
                    let left: Vec<&str> = difference.lines().filter(|l| !l.starts_with("firewall")).collect();
                    ensure!(left.is_empty(), "{left:?}");
                    Ok(())
                })
                .with_context(|| format!("after {} containers on {network}", amount.at_once))?;
            }
        }
        Ok(measured.into_iter().map(|(_, name, times)| (name, times)).collect())
    }

    /// Starts `count` containers and stops them, all at once; milliseconds of both.
    fn come_and_go(&self, network: &str, count: usize) -> Result<(f64, f64)> {
        let names: Vec<String> = (0..count).map(|number| format!("{network}{number}")).collect();
        for name in &names {
            let words = ["create", "--init=false", "--network", network, "--name", name, Busybox::NAME];
            self.docker.run(&[&words[..], &["sleep", "1000000"]].concat())?;
        }
        let links = self.links()?;
        let begin = Instant::now();
        at_once(&names, |name| self.start(network, name).with_context(|| format!("start {name}")))?;
        let start = begin.elapsed().as_secs_f64() * 1e3;
        self.docker.record()?;
        wait("all containers to be right", AT_MOST, || self.all_right(network, count))?;

        let begin = Instant::now();
        at_once(&names, |name| {
            self.call("DELETE", &format!("/containers/{name}?force=1")).map(drop).context("stop")
        })?;
        while self.links()? != links {
            interrupt::check()?;
            ensure!(begin.elapsed() < AT_MOST, "links are left: {:?}, not {links:?}", self.links()?);
            thread::sleep(PAUSE);
        }
        Ok((start, begin.elapsed().as_secs_f64() * 1e3))
    }

    /// Starts a container; returns when it has a route. (Docker before 26 answers before its network is made.)
    fn start(&self, network: &str, name: &str) -> Result<()> {
        self.call("POST", &format!("/containers/{name}/start"))?;
        if network == NONE {
            return Ok(());
        }
        let about: Value = serde_json::from_str(&self.call("GET", &format!("/containers/{name}/json"))?)?;
        let routes = format!("/proc/{}/net/route", about["State"]["Pid"]);
        let begin = Instant::now();
        // The first line is the columns' names.
        while fs::read_to_string(&routes).context("the container has ended")?.lines().count() < 2 {
            interrupt::check()?;
            ensure!(begin.elapsed() < AT_MOST, "no route after {AT_MOST:?}");
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether `count` containers run, each with an address of its own, and those of the mesh are tasks.
    fn all_right(&self, network: &str, count: usize) -> Result<()> {
        let listed: Value = serde_json::from_str(&self.call("GET", "/containers/json")?)?;
        let listed = listed.as_array().context("no list")?;
        ensure!(listed.len() == count, "{} of {count} run", listed.len());
        if network == NONE {
            return Ok(());
        }
        let address = |container: &Value| {
            container["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().map(str::to_owned)
        };
        let addresses: BTreeSet<String> =
            listed.iter().filter_map(address).filter(|a| !a.is_empty()).collect();
        ensure!(addresses.len() == count, "{} addresses for {count} containers", addresses.len());
        let tasks = self.tasks()?.local.len();
        ensure!(network != NETWORK || tasks == count, "{tasks} tasks for {count} containers");
        Ok(())
    }

    /// Has the engine do something, as `docker` does; the answer's body.
    fn call(&self, method: &str, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("the engine's socket")?;
        stream.set_read_timeout(Some(AT_MOST)).context("the engine's socket")?;
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: docker\r\n\r\n").context("ask the engine")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| {
            format!("no answer of the engine to {method} {path} (of 200 at once, Docker 20.10 may lock itself up: docs/docker.md)")
        })?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the engine's answer is cut off")?;
        let good = head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
        ensure!(good, "{method} {path}: {}: {body}", head.lines().next().unwrap_or_default());
        Ok(body.to_owned())
    }

    /// The tasks of the daemon, and the addresses that it keeps.
    fn tasks(&self) -> Result<ListTasksResponse> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let channel = unix_connect(self.cluster[0].socket()).await?;
            Ok(LocalClient::new(channel).list_tasks(ListTasksRequest {}).await?.into_inner())
        })
    }

    /// The names of the node's links.
    fn links(&self) -> Result<BTreeSet<String>> {
        let node = self.cluster.net().nodes().first().context("no node")?;
        let text =
            node.run(|| fs::read_to_string("/proc/thread-self/net/dev"))?.context("the node's links")?;
        let name = |line: &str| Some(line.split_once(':')?.0.trim().to_owned());
        Ok(text.lines().filter_map(name).collect())
    }
}

/// Does something with each at once; the first error.
fn at_once(names: &[String], work: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || work(name))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        threads.into_iter().try_for_each(join)
    })
}
