//! The control plane: changes a second and their latency, time to a new leader, time until all agents have a change,
//! and what a large state costs. Real daemons in namespaces, asked over their own sockets.

mod client;
mod leader;
mod rate;
mod scale;
mod spread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mesh_tests::Cluster;
use tokio::runtime::Runtime;

use crate::{
    record::{Better, Figure, Record, Suite, Who},
    run::Job,
};

/// How much to measure.
#[derive(Args)]
pub struct Options {
    /// Numbers of managers to measure changes with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5])]
    managers: Vec<u8>,
    /// Clients that change something at the same time, each one thing after the other.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds to measure each rate for.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Nodes that have to hear of a published port.
    #[arg(long, default_value_t = 5)]
    agents: u8,
    /// Ports to publish, leaders to kill.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Services of the large state.
    #[arg(long, default_value_t = 10_000)]
    services: usize,
    /// Addresses of the large state.
    #[arg(long, default_value_t = 100_000)]
    addresses: usize,
}

impl Options {
    /// Everything, as often as `rounds` say.
    pub fn of(rounds: usize, quick: bool) -> Self {
        if quick {
            let managers = vec![1, 3];
            return Self {
                managers,
                clients: 16,
                seconds: 1,
                agents: 2,
                rounds: 2,
                services: 500,
                addresses: 5_000,
            };
        }
        let managers = vec![1, 3, 5];
        let rounds = rounds * 4;
        Self { managers, clients: 64, seconds: 5, agents: 5, rounds, services: 10_000, addresses: 100_000 }
    }
}

/// Two parts: real daemons; and a large state in this process, which needs no root.
pub fn jobs(options: Options) -> Vec<Job<'static>> {
    let (services, addresses) = (options.services, options.addresses);
    let state = move |record: &mut Record| scale::snapshot(services, addresses, record);
    vec![
        Job::of_root("managers", move |record| daemons(&options, record)),
        Job { title: "a large state", needs_root: false, work: Box::new(state) },
    ]
}

fn daemons(options: &Options, record: &mut Record) -> Result<()> {
    ensure!(options.managers.iter().all(|count| (1..=7).contains(count)), "one to seven managers");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for &count in &options.managers {
        eprintln!("managers: {count}");
        let cluster = managers(count)?;
        let measured = of_managers(&runtime, &cluster, options, record);
        measured.map_err(|error| cluster.explain(error))?;
    }
    eprintln!("a port's way to {} nodes", options.agents);
    spread::measure(&runtime, options.agents, options.rounds, record)?;
    eprintln!("{} services", options.services);
    scale::measure(&runtime, options.services, record)
}

fn of_managers(runtime: &Runtime, cluster: &Cluster, options: &Options, record: &mut Record) -> Result<()> {
    let count = cluster.nodes().len();
    let (key, title) =
        (format!("managers-{count}"), format!("{count} manager{}", if count == 1 { "" } else { "s" }));
    let mut add = |figure: &str, what: String, unit: &str, better: Better, value: f64| {
        let figure = Figure::new(Suite::Control, figure, what, unit, better);
        record.figure(figure).add(Who::ours(&key, &title), value, None);
    };
    for clients in [1, options.clients] {
        let by = if clients == 1 { "1 client".to_owned() } else { format!("{clients} clients") };
        // In parts, so that there is a spread.
        for _ in 0..options.seconds {
            mesh_tests::interrupt::check()?;
            let rate = runtime.block_on(rate::measure(cluster, clients, 1))?;
            add(
                &format!("rate-{clients}"),
                format!("changes, {by}"),
                "1/s",
                Better::Higher,
                rate.changes_per_second,
            );
            for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
                let (figure, what) = (format!("{name}-{clients}"), format!("a change, {by}, {name}"));
                add(&figure, what, "ms", Better::Lower, rate.milliseconds(share));
            }
        }
    }
    if count >= 3 {
        for milliseconds in leader::measure(runtime, cluster, options.rounds.min(5))? {
            let what = "leader killed until the next change".to_owned();
            add("leader", what, "ms", Better::Lower, milliseconds);
        }
    }
    Ok(())
}

/// A cluster of managers only.
fn managers(count: u8) -> Result<Cluster> {
    let binaries = mesh_tests::Binaries::find()?;
    let prefix = mesh_tests::Prefix::unique();
    let cluster = Cluster::daemons(prefix, count, binaries, mesh_tests::Lifetime::Owner)?;
    let form = || {
        cluster.init()?;
        let text = cluster[0].ctl(&["join-token", "manager"])?;
        let mut words = text.split(|c: char| c.is_whitespace() || c == '"');
        let token = words.find(|word| word.starts_with("MESHTKN-")).context("`join-token` names no token")?;
        let to = std::net::SocketAddr::new(cluster[0].underlay(), 2377).to_string();
        for node in &cluster.nodes()[1..] {
            let (name, address) = (node.name(), node.underlay().to_string());
            node.ctl(&["join", "--token", token, "--name", &name, "--advertise-addr", &address, &to])?;
        }
        cluster.wait_for_members(usize::from(count))
    };
    form().map_err(|error| cluster.explain(error))?;
    Ok(cluster)
}
