//! What container runtimes wait for, beside what they use otherwise: ADD and DEL of the CNI plugin beside Debian's `bridge`
//! plugin with `host-local`, and containers of a Docker engine on a network of the mesh beside Docker's own bridge.

mod docker;
mod plugins;

use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use mesh_tests::Cluster;

use crate::stats::{median, median_ratio, percentile};

const NETWORK: &str = "bench";
/// What the others are compared with.
const BASE: &str = "bridge";

/// What to measure, and how much of it.
#[derive(Args)]
pub struct Options {
    /// What to measure; everything unless some are named.
    #[arg(value_enum)]
    what: Vec<Part>,
    /// How many containers each CNI plugin starts and stops one after the other.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// How many it starts and stops at once.
    #[arg(long, default_value_t = 200)]
    at_once: usize,
    /// How often it does that.
    #[arg(long, default_value_t = 3)]
    batches: usize,
    /// How many containers Docker starts and stops one after the other, on each network.
    #[arg(long, default_value_t = 20)]
    docker_rounds: usize,
    /// How many it starts and stops at once.
    #[arg(long, default_value_t = 200)]
    docker_at_once: usize,
    /// How often it does that.
    #[arg(long, default_value_t = 1)]
    docker_batches: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The CNI plugins alone, in namespaces without a program.
    Plugins,
    /// Containers of a Docker engine.
    Docker,
}

/// How much of one part.
struct Amount {
    rounds: usize,
    at_once: usize,
    batches: usize,
}

/// Milliseconds; of those at once, until the last one is done.
#[derive(Default)]
struct Times {
    start: Vec<f64>,
    stop: Vec<f64>,
    start_all: Vec<f64>,
    stop_all: Vec<f64>,
}

/// What was measured, by what makes the network.
type Measured = Vec<(&'static str, Times)>;

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let cluster = Cluster::start(1)?;
    measure(&cluster, options).map_err(|error| cluster.explain(error))
}

fn measure(cluster: &Cluster, options: &Options) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.0.0/20", "--attachable", NETWORK])?;
    cluster.wait_for_view()?;
    let wanted = |part| options.what.is_empty() || options.what.contains(&part);
    if wanted(Part::Plugins) {
        let Options { rounds, at_once, batches, .. } = *options;
        let measured = plugins::measure(cluster, &Amount { rounds, at_once, batches })?;
        println!("{}", table("plugin", ["ADD", "DEL"], at_once, &measured));
    }
    if wanted(Part::Docker) {
        let Options { docker_rounds: rounds, docker_at_once: at_once, docker_batches: batches, .. } =
            *options;
        let measured = docker::measure(cluster, &Amount { rounds, at_once, batches })?;
        println!("{}", table("Docker's network", ["start", "stop"], at_once, &measured));
    }
    Ok(())
}

fn table(subject: &str, [start, stop]: [&str; 2], at_once: usize, measured: &Measured) -> Table {
    let rows = |times: &Times| {
        let Times { start, stop, start_all, stop_all } = times;
        [start.clone(), stop.clone(), start_all.clone(), stop_all.clone()]
    };
    let titles = [
        start.to_owned(),
        stop.to_owned(),
        format!("{start}, {at_once} at once"),
        format!("{stop}, {at_once} at once"),
    ];
    let base = measured.iter().find(|(name, _)| *name == BASE).map(|(_, times)| rows(times));
    let base = base.unwrap_or_default();
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header([subject, "operation", "median ms", "p90 ms", "max ms", "to bridge's, median"]);
    for (name, times) in measured {
        let rows = titles.iter().zip(rows(times)).zip(&base);
        for ((title, times), base) in rows.filter(|((_, times), _)| !times.is_empty()) {
            let figures = [median(&times), percentile(&times, 0.9), percentile(&times, 1.0)];
            let figures = figures.map(|ms| format!("{ms:.1}"));
            let ratio = format!("{:.2}", median_ratio(&times, base));
            table.add_row([vec![(*name).to_owned(), title.clone()], figures.to_vec(), vec![ratio]].concat());
        }
    }
    table
}
