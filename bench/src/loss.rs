//! How many requests fail when tasks are replaced, when one is killed and when a node is lost, with a connection for each
//! request, from outside and from a task.

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Args;
use comfy_table::{Table, presets};
use mesh_tests::{Cluster, Guest, Load, NetNs, Task, TaskSpec, get, wait};

use crate::stats::{median, percentile};

const NETWORK: &str = "bench";
const SERVICE: &str = "web";
const SOON: Duration = Duration::from_secs(10);
/// A request that takes longer has failed: it lost a packet that TCP repeats after a second.
const ANSWER: Duration = Duration::from_secs(1);
/// The load goes on for so long before and after what happens to a task.
const AROUND: Duration = Duration::from_secs(1);
/// And after a node is lost.
const LOST: Duration = Duration::from_secs(6);

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// How many times to replace all tasks, to kill one and to lose a node.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests a second from each of the two places.
    #[arg(long, default_value_t = 75)]
    rate: u32,
}

/// What became of the requests of one kind, from one place.
#[derive(Default)]
struct Tally {
    requests: usize,
    failed: usize,
    /// For each round, milliseconds from what happened to the start of the last request that failed.
    last: Vec<f64>,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::start(3)?;
    let measured = measure(&cluster, options).map_err(|error| cluster.explain(error))?;
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "what, seen from",
        "requests",
        "failed",
        "last begun: median ms",
        "max ms",
    ]);
    for (what, tallies) in measured {
        for (from, tally) in ["outside", "a task, by the VIP"].into_iter().zip(tallies) {
            let last = [median(&tally.last), percentile(&tally.last, 1.0)].map(|ms| format!("{ms:.0}"));
            let counts = [tally.requests, tally.failed].map(|count| count.to_string());
            table.add_row([vec![format!("{what}, {from}")], counts.to_vec(), last.to_vec()].concat());
        }
    }
    println!("{table}");
    Ok(())
}

fn measure(cluster: &Cluster, options: &Options) -> Result<Vec<(&'static str, [Tally; 2])>> {
    let create = ["network", "create", "--subnet", "10.10.3.0/24", "--attachable", NETWORK];
    cluster[0].ctl(&create)?;
    cluster[0].ctl(&["service", "create", "--network", NETWORK, "--publish", "8080:80", SERVICE])?;
    cluster.wait_for_view()?;
    let observer =
        cluster[0].run_idle(&TaskSpec { name: "observer", network: NETWORK, ..TaskSpec::default() })?;
    let mut tasks = Vec::new();
    for node in 0..3 {
        tasks.push(guest(cluster, node, "first")?);
    }
    let clients = Clients::new(cluster, &observer, options.rate)?;
    let (mut replaced, mut killed, mut lost) = <([Tally; 2], [Tally; 2], [Tally; 2])>::default();
    for round in 0..options.rounds {
        clients.suffer(&mut replaced, AROUND, || replace(cluster, &mut tasks, round))?;
    }
    for round in 0..options.rounds {
        let name = format!("killed{round}");
        let spec = TaskSpec { name: &name, network: NETWORK, service: Some(SERVICE), ..TaskSpec::default() };
        let mut task = cluster[round % 3].run_nginx(&spec)?;
        clients.suffer(&mut killed, AROUND, || task.task.kill())?;
    }
    for _ in 0..options.rounds {
        clients.suffer(&mut lost, LOST, || {
            cluster.net().cut(2)?;
            cluster[2].kill()
        })?;
        cluster.net().heal(2)?;
        cluster[2].start()?;
        cluster.wait_for_members(3)?;
    }
    Ok(vec![("all tasks replaced", replaced), ("a task killed", killed), ("a node lost", lost)])
}

fn guest(cluster: &Cluster, node: usize, generation: &str) -> Result<Guest> {
    let name = format!("{generation}-{node}");
    let spec = TaskSpec { name: &name, network: NETWORK, service: Some(SERVICE), ..TaskSpec::default() };
    cluster[node].attach_nginx(&spec)
}

/// A new task on each node, and the old one drained and then ended.
fn replace(cluster: &Cluster, tasks: &mut [Guest], round: usize) -> Result<()> {
    for (node, task) in tasks.iter_mut().enumerate() {
        let new = guest(cluster, node, &format!("round{round}"))?;
        let mut old = std::mem::replace(task, new);
        cluster[node].ctl(&["task", "drain", "--wait", old.name()])?;
        old.kill()?;
    }
    Ok(())
}

/// Where requests come from, and whom they are sent to.
struct Clients {
    places: [(PathBuf, Vec<SocketAddr>); 2],
    rate: u32,
}

impl Clients {
    /// Through the first two nodes from outside, and by the VIP from a task.
    fn new(cluster: &Cluster, observer: &Task, rate: u32) -> Result<Self> {
        let vip = wait("the VIP", SOON, || observer.dig(&[SERVICE])?.first().cloned().context("no address"))?;
        let vip: SocketAddr = format!("{vip}:80").parse().context("the VIP")?;
        let published = cluster.nodes().iter().take(2).map(|node| (node.address(), 8080).into()).collect();
        let places = [(cluster.net().client().path(), published), (observer.namespace(), vec![vip])];
        Ok(Self { places, rate })
    }

    /// Sends requests before, while and for so long after `event`.
    fn suffer(
        &self,
        into: &mut [Tally; 2],
        after: Duration,
        event: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        for (from, servers) in &self.places {
            for server in servers {
                wait("the service", SOON, || NetNs::run_at(from, || get(*server, SOON))?)?;
            }
        }
        let start = |(from, servers): &(PathBuf, Vec<SocketAddr>)| {
            Load::start(from, servers.clone(), self.rate, ANSWER)
        };
        let loads = self.places.iter().map(start).collect::<Result<Vec<_>>>()?;
        thread::sleep(AROUND);
        let began = Instant::now();
        event()?;
        thread::sleep(after);
        for (tally, load) in into.iter_mut().zip(loads) {
            let outcome = load.end();
            tally.requests += outcome.requests;
            tally.failed += outcome.failures.len();
            tally.last.push(outcome.failing_after(began).as_secs_f64() * 1e3);
        }
        Ok(())
    }
}
