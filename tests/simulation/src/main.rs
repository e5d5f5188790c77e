//! Managers and agents over a simulated network and simulated disks, in virtual time.
//!
//! The state machine, the Raft adapter with openraft, redb, the loop that brings Raft's members to the managers of the
//! state, and sessions are the real ones. Wire, disks, clock and randomness
//! are simulated, so that a seed gives the same run every time. Each seed runs in a process of its own.

mod agents;
mod clients;
mod commands;
mod disk;
mod entropy;
mod history;
mod invariants;
mod keys;
mod nemesis;
mod network;
mod run;
mod scenario;
mod seeds;
mod trace;
mod world;

use std::{
    panic,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::anyhow;
use clap::Parser;

/// Whether any task has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Simulates clusters of managers and agents by seed.
#[derive(Parser)]
struct Cli {
    /// Simulate this one seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print all that happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Simulate so many seeds, each in a process of its own.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// So many at a time; as many as there are processors unless set.
    #[arg(long)]
    jobs: Option<usize>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.seed {
        Some(seed) => one(seed, cli.trace),
        None => seeds::run(cli.from, cli.seeds, cli.jobs),
    }
}

fn one(seed: u64, live: bool) -> ExitCode {
    entropy::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    // A panic in one of openraft's tasks ends only that task: the manager would be dead without a word.
    panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        PANICKED.store(true, Ordering::Relaxed);
    }));
    let (trace, outcome) = runtime.block_on(async {
        let trace = trace::Trace::new(live);
        (trace.clone(), run::run(seed, trace).await)
    });
    let outcome = match outcome {
        Ok(_) if PANICKED.load(Ordering::Relaxed) => Err(anyhow!("a task panicked")),
        outcome => outcome,
    };
    let digest = trace.digest();
    match outcome {
        Ok(done) => {
            println!("seed {seed}: {done}; trace {digest}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            if !live {
                print!("{}", trace.last());
            }
            println!("seed {seed}: {error:#}; trace {digest}");
            ExitCode::FAILURE
        }
    }
}
