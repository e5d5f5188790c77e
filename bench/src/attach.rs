//! How soon the other nodes reach and resolve a new task, and how soon nobody sends to an ended one.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use mesh_tests::{Cluster, NetNs, Task, TaskSpec, UdpEcho, resolve};

use crate::record::{Better, Figure, Record, Suite};

const NETWORK: &str = "bench";
const SERVICE: &str = "web";
const PORT: u16 = 80;
const DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);
const AT_MOST: Duration = Duration::from_secs(10);

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// How many tasks to attach, to end in order and to kill.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

impl Options {
    /// Four tasks for each round.
    pub fn of(rounds: usize, quick: bool) -> Self {
        Self { rounds: if quick { 2 } else { rounds * 4 } }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(3)?;
    measure(&cluster, options, record).map_err(|error| cluster.explain(error))
}

fn measure(cluster: &Cluster, options: &Options, record: &mut Record) -> Result<()> {
    let mut add = |key: &str, title: &str, milliseconds: f64| {
        record.alone(Figure::new(Suite::Attach, key, title, "ms", Better::Lower), milliseconds);
    };
    let create =
        ["network", "create", "--driver", "overlay", "--subnet", "10.10.3.0/24", "--attachable", NETWORK];
    cluster[0].ctl(&create)?;
    cluster.wait_for_view()?;
    let mut observers = Vec::new();
    for index in [1, 2] {
        let name = format!("observer{index}");
        let spec = TaskSpec { name: &name, network: NETWORK, ..TaskSpec::default() };
        observers.push(cluster[index].run_idle(&spec)?);
    }
    eprintln!("{} attachments", options.rounds);
    for round in 0..options.rounds {
        let attached = attach(cluster, &observers, round).with_context(|| format!("attach {round}"))?;
        add("attach", "attach until both other nodes resolve and reach it", attached);
    }
    cluster[0].ctl(&["service", "create", "--network", NETWORK, SERVICE])?;
    cluster[0].ctl(&["publish", "80:80", SERVICE])?;
    cluster.wait_for_view()?;
    let lasting = cluster[1].run_nginx(&service_task("lasting"))?;
    eprintln!("{} tasks ended, and as many killed", options.rounds);
    for round in 0..options.rounds {
        let stopped = end(cluster, round, Task::stop).with_context(|| format!("stop {round}"))?;
        add("stop", "task ended in order until the last failed connection", stopped);
        let killed = end(cluster, round, Task::kill).with_context(|| format!("kill {round}"))?;
        add("kill", "task's process killed until the last failed connection", killed);
    }
    drop(lasting);
    Ok(())
}

fn service_task(name: &str) -> TaskSpec<'_> {
    TaskSpec { name, network: NETWORK, service: Some(SERVICE), ..TaskSpec::default() }
}

/// Milliseconds from the start of `meshctl attach` until each observer has resolved the new name and has had an answer.
fn attach(cluster: &Cluster, observers: &[Task], round: usize) -> Result<f64> {
    let name = format!("new{round}");
    let namespace = NetNs::create(&cluster.net().prefix().namespace("new"))?;
    let socket = namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9)))?.context("port 9")?;
    let _echo = UdpEcho::serve(socket, &name)?;
    let path = namespace.path();
    let path = path.to_str().context("the namespace's path")?;
    let places: Vec<PathBuf> = observers.iter().map(Task::namespace).collect();
    let start = Instant::now();
    let seen = thread::scope(|scope| -> Result<f64> {
        let watchers: Vec<_> = places
            .iter()
            .map(|place| {
                let name = &name;
                // The full name, since an unknown short one would be asked of a resolver outside first.
                let name = format!("{name}.{NETWORK}");
                scope.spawn(move || NetNs::run_at(place, || reached(&name, start))?)
            })
            .collect();
        cluster[0].ctl(&["attach", "--network", NETWORK, "--name", &name, path])?;
        let mut last: f64 = 0.0;
        for watcher in watchers {
            last = last.max(watcher.join().map_err(|_| anyhow!("an observer panicked"))??);
        }
        Ok(last)
    })?;
    cluster[0].ctl(&["detach", &name])?;
    Ok(seen)
}

/// Asks for `name` until it is known, then asks it until it answers; milliseconds since `start`.
fn reached(name: &str, start: Instant) -> Result<f64> {
    let pause = Duration::from_millis(1);
    while start.elapsed() < AT_MOST {
        let known = resolve(DNS, name, Duration::from_millis(100)).unwrap_or_default();
        let Some(&address) = known.first() else {
            thread::sleep(pause);
            continue;
        };
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("a socket")?;
        if UdpEcho::ask(&socket, (address, 9).into(), "there").is_ok() {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    bail!("{name} is not reached within {AT_MOST:?}")
}

/// Milliseconds from the moment before a task is ended until the last start of a connection that failed.
///
/// Three clients connect all the while, each through a node of its own: the neighbour of the node it lives on, so that
/// each has an address of its own.
fn end(cluster: &Cluster, round: usize, end: impl FnOnce(&mut Task) -> Result<()>) -> Result<f64> {
    let name = format!("ending{round}");
    let mut nginx = cluster[0].run_nginx(&service_task(&name))?;
    let servers: Vec<SocketAddr> = cluster.nodes().iter().map(|n| (n.address(), PORT).into()).collect();
    let nodes = cluster.net().nodes();
    let done = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let ended = thread::scope(|scope| -> Result<Instant> {
        for (index, &server) in servers.iter().enumerate() {
            let (done, failures) = (&done, &failures);
            let client = &nodes[(index + 1) % nodes.len()];
            scope.spawn(move || {
                client.run(|| {
                    while !done.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        if TcpStream::connect_timeout(&server, Duration::from_millis(100)).is_err() {
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(start);
                        }
                        thread::sleep(Duration::from_millis(2));
                    }
                })
            });
        }
        // Both tasks are in use before one goes.
        thread::sleep(Duration::from_millis(300));
        failures.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let start = Instant::now();
        let result = end(&mut nginx.task);
        thread::sleep(Duration::from_millis(700));
        done.store(true, Ordering::Relaxed);
        result.map(|()| start)
    })?;
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let last = failures.into_iter().map(|at| at.saturating_duration_since(ended)).max();
    Ok(last.unwrap_or_default().as_secs_f64() * 1e3)
}
