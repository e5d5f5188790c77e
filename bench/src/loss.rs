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
use mesh_tests::{Cluster, Guest, Load, NetNs, Task, TaskSpec, get, wait};

use crate::record::{Better, Figure, Record, Suite, Who};

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

/// What became of the requests of one kind, from one place, round by round.
#[derive(Default)]
struct Tally {
    /// Of a thousand requests.
    failed: Vec<f64>,
    /// Milliseconds from what happened to the start of the last request that failed; 0 when none did.
    last: Vec<f64>,
}

impl Options {
    /// So many rounds.
    pub fn of(rounds: usize) -> Self {
        Self { rounds, rate: 75 }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(3)?;
    let measured = measure(&cluster, options).map_err(|error| cluster.explain(error))?;
    for (event, title, tallies) in measured {
        for ((from, seen), tally) in FROM.into_iter().zip(tallies) {
            let rows = [
                ("failed", "requests that failed", "of 1000", tally.failed),
                ("last", "the last of them was begun after", "ms", tally.last),
            ];
            for (key, what, unit, values) in rows {
                let (key, what) = (format!("{event}-{key}"), format!("{title}: {what}"));
                let figure = Figure::new(Suite::Loss, key, what, unit, Better::Lower);
                values
                    .into_iter()
                    .for_each(|v| record.figure(figure.clone()).add(Who::ours(from, seen), v, None));
            }
        }
    }
    Ok(())
}

/// What happens: for programs, for people, and what was seen of it from the two places.
type Event = (&'static str, &'static str, [Tally; 2]);

/// The places that requests come from.
const FROM: [(&str, &str); 2] = [("outside", "from outside"), ("task", "from a task, by the VIP")];

fn measure(cluster: &Cluster, options: &Options) -> Result<Vec<Event>> {
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
    Ok(vec![
        ("replaced", "all tasks replaced", replaced),
        ("killed", "a task killed", killed),
        ("lost", "a node lost", lost),
    ])
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
            tally.failed.push(1e3 * outcome.failures.len() as f64 / outcome.requests.max(1) as f64);
            tally.last.push(outcome.failing_after(began).as_secs_f64() * 1e3);
        }
        Ok(())
    }
}
