//! Simulates gossip by seed, and measures how it converges.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use mesh_gossip_simulation::{
    measure::{self, Figures},
    plot, run,
    scale::{self, Options},
    scenario::Scenario,
};

/// Simulates gossip in virtual time.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Plays scenarios by seed and checks what must hold.
    Seeds(Seeds),
    /// Measures how quickly changes are known, by kind and by the size of the cluster, and draws it.
    Bench(Bench),
}

#[derive(Args)]
struct Seeds {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// So many nodes in each; as many as the seed says (3 to 25) unless set.
    #[arg(long)]
    nodes: Option<u32>,
    /// Print all that happens.
    #[arg(long)]
    trace: bool,
}

#[derive(Args)]
struct Bench {
    /// Where `gossip.json` and the plots are kept. What is not measured anew stays.
    #[arg(long, default_value = "docs/img")]
    plot: PathBuf,
    /// Seeds of each scenario of networkdb's; 0 leaves them out.
    #[arg(long, default_value_t = 100)]
    seeds: u32,
    /// Sizes of the curve; work and memory grow with their square, and more.
    #[arg(long, value_delimiter = ',', default_value = "2,3,5,10,25,50,100,200,500,1000,2000,5000")]
    sizes: Vec<u32>,
    /// Larger ones are left out: 5,000 nodes take most of an hour and 12 GiB.
    #[arg(long, default_value_t = 1000)]
    largest: u32,
    /// Up to this size the cluster forms by itself; larger ones begin as members that know each other.
    #[arg(long, default_value_t = 500)]
    formed_to: u32,
    /// Changes and deaths measured at each size; a quarter of it above 1,000 nodes.
    #[arg(long, default_value_t = 20)]
    samples: u32,
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Seeds(options) => return seeds(&options),
        What::Bench(options) => bench(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn seeds(options: &Seeds) -> ExitCode {
    let mut failed = Vec::new();
    for seed in options.from..options.from + options.seeds {
        let scenario = Scenario::of(seed, options.nodes);
        let text = scenario.to_string();
        match run::run(scenario, options.trace) {
            Ok(run::Outcome { agreed, at_rest, in_trouble, renewals }) => println!(
                "seed {seed}: {text}: agreed after {agreed:.1?}, {in_trouble:.0} then {at_rest:.0} bytes per node and second, {renewals} renewals"
            ),
            Err(error) => {
                println!("FAILED {error:#}");
                failed.push(seed);
            }
        }
    }
    println!("{} seeds from {}, failed: {failed:?}", options.seeds, options.from);
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bench(options: &Bench) -> Result<()> {
    let resident = scale::resident();
    std::fs::create_dir_all(&options.plot)?;
    let kept = options.plot.join("gossip.json");
    let mut figures = Figures::read(&kept).unwrap_or_default();
    if options.seeds > 0 {
        let Figures { quiet, churn, .. } = measure::scenarios(options.seeds)?;
        (figures.quiet, figures.churn) = (quiet, churn);
    }
    for size in options.sizes.iter().copied().filter(|size| *size <= options.largest) {
        let many = size > 1_000;
        let point = measure::point(Options {
            nodes: size,
            samples: if many { options.samples.div_ceil(4) } else { options.samples },
            joins: if many { 2 } else { 5 },
            forms: size <= options.formed_to,
            lossy: Duration::from_secs(if many { 10 } else { 30 }),
            resident,
        })?;
        figures.scale.retain(|point| point.nodes != size);
        figures.scale.push(point);
        figures.scale.sort_by_key(|point| point.nodes);
        // An hour's work is not lost with the next size.
        figures.write(&kept)?;
    }
    figures.write(&kept)?;
    plot::write_all(&figures, &options.plot)?;
    for times in figures.quiet.iter().chain(&figures.churn) {
        println!(
            "{:<8} {:>3} nodes {:<24} p50 {:>8.1} p90 {:>8.1} max {:>8.1} ms",
            times.wire, times.nodes, times.what, times.p50, times.p90, times.max
        );
    }
    print!("{}", measure::table(&figures.scale));
    Ok(())
}
