//! Simulates gossip by seed, and measures how it converges.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use mesh_gossip_simulation::{run, scenario::Scenario};

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

fn main() -> ExitCode {
    match Cli::parse().what {
        What::Seeds(options) => seeds(&options),
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
