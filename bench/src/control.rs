//! The control plane: changes a second and their latency, time to a new leader, time until all agents have a change,
//! and what a large state costs. Real daemons in namespaces, asked over their own sockets.

mod client;
mod leader;
mod rate;
mod scale;
mod spread;

use anyhow::{Context, Result, ensure};
use clap::Args;
use comfy_table::{Table, presets};
use mesh_tests::Cluster;

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

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    ensure!(options.managers.iter().all(|count| (1..=7).contains(count)), "one to seven managers");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rates = table(["managers", "clients", "changes/s", "median ms", "p99 ms"]);
    let mut leaders = table(["managers", "leader killed to next change: median ms", "max ms"]);
    for &count in &options.managers {
        let cluster = managers(count)?;
        for clients in [1, options.clients] {
            let rate = runtime.block_on(rate::measure(&cluster, clients, options.seconds));
            let rate = rate.map_err(|error| cluster.explain(error))?;
            rates.add_row([&[count.to_string(), clients.to_string()][..], &rate.cells()].concat());
        }
        if count >= 3 {
            let rounds = options.rounds.min(5);
            let times = leader::measure(&runtime, &cluster, rounds).map_err(|e| cluster.explain(e))?;
            leaders.add_row([&[count.to_string()][..], &times].concat());
        }
    }
    println!("{rates}\n{leaders}");
    println!("{}", spread::measure(&runtime, options.agents, options.rounds)?);
    println!("{}", scale::measure(&runtime, options.services, options.addresses)?);
    Ok(())
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table
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
