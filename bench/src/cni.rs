//! What container runtimes wait for, beside what they use otherwise: ADD and DEL of the CNI plugin beside Debian's `bridge`
//! plugin with `host-local`, and containers of a Docker engine on a network of the mesh beside Docker's own bridge.

mod docker;
mod plugins;

use anyhow::Result;
use clap::{Args, ValueEnum};
use mesh_tests::Cluster;

use crate::{
    load::is_installed,
    record::{Better, Figure, Record, Suite, Who},
};

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

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
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

impl Options {
    /// One part: so many batches at once, and ten times as many of one by one.
    pub fn of(part: Part, rounds: usize, quick: bool) -> Self {
        let (at_once, one_by_one) = if quick { (10, 3) } else { (200, rounds * 10) };
        Self {
            what: vec![part],
            rounds: one_by_one,
            at_once,
            batches: rounds,
            docker_rounds: one_by_one.min(20),
            docker_at_once: at_once,
            docker_batches: rounds,
        }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let cluster = Cluster::start(1)?;
    as_usual(&cluster)
        .and_then(|()| measure(&cluster, options, record))
        .map_err(|error| cluster.explain(error))
}

/// Lets the daemon keep the tables that let containers out for as long as it usually does; those of tests take them away at
/// once.
fn as_usual(cluster: &Cluster) -> Result<()> {
    let node = &cluster[0];
    node.stop()?;
    let config = std::fs::read_to_string(node.config())?;
    let kept: Vec<&str> = config.lines().filter(|line| !line.starts_with("egress_linger")).collect();
    std::fs::write(node.config(), kept.join("\n") + "\n")?;
    node.start()?;
    cluster.wait_for_view()
}

fn measure(cluster: &Cluster, options: &Options, record: &mut Record) -> Result<()> {
    cluster[0].ctl(&["network", "create", "--subnet", "10.10.0.0/20", "--attachable", NETWORK])?;
    cluster.wait_for_view()?;
    let wanted = |part| options.what.is_empty() || options.what.contains(&part);
    if wanted(Part::Plugins) {
        let Options { rounds, at_once, batches, .. } = *options;
        let measured = plugins::measure(cluster, &Amount { rounds, at_once, batches })?;
        add(record, Suite::Cni, ["ADD", "DEL"], at_once, &measured);
    }
    if wanted(Part::Docker) && !is_installed("dockerd") {
        let note = "left out: Docker's containers: there is no dockerd (`cargo xtask setup`)";
        eprintln!("{note}");
        record.note(note);
    } else if wanted(Part::Docker) {
        let Options { docker_rounds: rounds, docker_at_once: at_once, docker_batches: batches, .. } =
            *options;
        let measured = docker::measure(cluster, &Amount { rounds, at_once, batches })?;
        add(record, Suite::Docker, ["start", "stop"], at_once, &measured);
    }
    Ok(())
}

fn add(record: &mut Record, suite: Suite, [start, stop]: [&str; 2], at_once: usize, measured: &Measured) {
    for (name, times) in measured {
        let Times { start: begun, stop: ended, start_all, stop_all } = times;
        let all = |word: &str| (format!("{word}-{at_once}"), format!("{word}, {at_once} at once"));
        let one = |word: &str| (word.to_owned(), word.to_owned());
        let rows = [(one(start), begun), (one(stop), ended), (all(start), start_all), (all(stop), stop_all)];
        let who = if [BASE, docker::NONE].contains(name) { Who::peer } else { Who::ours };
        for ((key, title), values) in rows {
            let figure = Figure::new(suite, key.to_lowercase(), title, "ms", Better::Lower).beside(BASE);
            for milliseconds in values {
                record.figure(figure.clone()).add(who(name, name), *milliseconds, None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_beside_the_bridges() {
        let times = |one: f64| Times {
            start: vec![one; 2],
            stop: Vec::new(),
            start_all: vec![9.0],
            stop_all: vec![8.0],
        };
        let mut record = Record::begin(String::new(), true).unwrap();
        add(
            &mut record,
            Suite::Cni,
            ["ADD", "DEL"],
            200,
            &vec![("mesh-cni", times(30.0)), (BASE, times(10.0))],
        );
        let keys: Vec<&str> = record.figures.iter().map(|figure| figure.key.as_str()).collect();
        assert_eq!(keys, ["add", "add-200", "del-200"]);
        assert_eq!(record.ratio(Suite::Cni, "add", "mesh-cni", BASE), Some(3.0));
        assert!(!record.figures[0].base().unwrap().ours);
    }
}
