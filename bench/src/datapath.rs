//! The data path beside its peers: what is compared, round by round, and what comes out.

mod report;
mod results;
mod targets;
mod ways;
mod world;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    load::{Amount, Measure, Sample},
    path::Path,
    pinning::Processors,
    programs::Programs,
};

use results::Results;
use ways::Ways;
pub use world::World;

/// How often a sample is tried.
const ATTEMPTS: usize = 3;

/// What to measure, how much of it, and how to tell.
#[derive(Args)]
pub struct Options {
    /// What to measure; everything unless some are named.
    #[arg(value_enum)]
    what: Vec<Group>,
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each stream and of each run of HTTP requests.
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Round trips of each latency run.
    #[arg(long, default_value_t = 20_000)]
    round_trips: usize,
    /// Congestion control of the TCP streams, such as `cubic`; the machine's unless given.
    #[arg(long, value_name = "NAME")]
    congestion: Option<String>,
    /// Pin only clients and servers; let packets be received on whichever processor sent them.
    #[arg(long)]
    unsteered: bool,
    /// What is printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where the results are written to as JSON, besides.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Group {
    /// Nanoseconds a packet of each program, by test runs.
    Programs,
    /// Task to task on different nodes, beside the underlay and a Linux bridge with VXLAN.
    Overlay,
    /// Published ports, beside the way straight to a node, nftables and haproxy.
    Published,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables.
    Text,
    /// JSON.
    Json,
}

/// Measures and prints.
pub fn run(options: &Options) -> Result<()> {
    let all = [Group::Programs, Group::Overlay, Group::Published];
    let chosen = |group: &Group| options.what.is_empty() || options.what.contains(group);
    let groups: Vec<Group> = all.into_iter().filter(chosen).collect();
    let processors = Processors::pick()?;
    let world = World::start(processors, !options.unsteered)?;
    let mut results = Results::default();
    let measured = measure(&world, &groups, options, processors, &mut results).map_err(|e| world.explain(e));
    let json = report::json(&results)?;
    if let Some(file) = &options.out {
        std::fs::write(file, format!("{json:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    match options.format {
        Format::Json => println!("{json:#}"),
        Format::Text => print!("{}", report::text(&results)),
    }
    measured
}

/// What was measured before an error is in the results.
fn measure(
    world: &World,
    groups: &[Group],
    options: &Options,
    processors: Processors,
    results: &mut Results,
) -> Result<()> {
    let ways = Ways::set_up(world, groups, processors, !options.unsteered)?;
    let amount = Amount {
        length: Duration::from_secs(options.seconds),
        round_trips: options.round_trips,
        congestion: options.congestion.clone(),
    };
    results.notes.clone_from(&ways.notes);
    let progress = |round, what: &str| eprintln!("round {round} of {}: {what}", options.rounds);
    if groups.contains(&Group::Programs) {
        // Before there is traffic, so that the maps hold these flows alone.
        let mut programs = Programs::prepare(world, processors.server)?;
        let measured = (1..=options.rounds).try_for_each(|round| {
            progress(round, "programs by test runs");
            programs.round()
        });
        let missing = |name: &&str| format!("there is no program {name} yet, so it is not measured");
        results.notes.extend(programs.absent.iter().map(missing));
        results.programs = programs.rows;
        results.programs.retain(|row| !row.nanoseconds.is_empty());
        eprintln!("{}", report::programs(results));
        measured?;
    }
    for round in 1..=options.rounds {
        for (group, paths) in &ways.paths {
            for measure in Measure::ALL {
                progress(round, measure.title());
                let fitting = paths.iter().filter(|path| measure.fits(path));
                for path in fitting {
                    let sample = take(measure, path, &amount, processors, &mut results.notes)?;
                    results.add(*group, measure, path.way, sample);
                }
            }
        }
    }
    Ok(())
}

/// Takes a sample, once more where that fails: a machine that others use stalls at times.
fn take(
    measure: Measure,
    path: &Path,
    amount: &Amount,
    processors: Processors,
    notes: &mut Vec<String>,
) -> Result<Sample> {
    let what = || format!("{}, {}", measure.title(), path.way.title());
    for _ in 1..ATTEMPTS {
        mesh_tests::interrupt::check()?;
        match measure.take(path, amount, processors) {
            Ok(sample) => return Ok(sample),
            Err(error) => notes.push(format!("{}, measured again: {error:#}", what())),
        }
    }
    measure.take(path, amount, processors).with_context(what)
}
