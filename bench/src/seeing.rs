//! What looking costs: packets that are counted, lists of a million flows, and packets while somebody watches.

mod counting;
mod flows;
mod watching;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::record::Record;

/// What to measure, and how much of it.
#[derive(Args)]
pub struct Options {
    /// What to measure; all of it unless some are named.
    #[arg(value_enum)]
    what: Vec<Part>,
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Flows that are listed.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=4_000_000))]
    flows: u32,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Nanoseconds a packet of each tc program by test runs, beside the same programs without the counters of tasks and services.
    Counting,
    /// How long `meshctl flows` takes where a node knows many.
    Flows,
    /// Nanoseconds a packet of each program by test runs: while nobody watches, while `meshctl monitor` does, while another
    /// task's packets are captured.
    Watching,
}

impl Options {
    /// All of it in so many rounds.
    pub fn of(rounds: usize, quick: bool) -> Self {
        Self { what: Vec::new(), rounds, flows: if quick { 20_000 } else { 1_000_000 } }
    }
}

/// Measures.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let chosen = |part| options.what.is_empty() || options.what.contains(&part);
    if chosen(Part::Counting) {
        counting::run(options.rounds, record)?;
    }
    mesh_tests::interrupt::check()?;
    if chosen(Part::Flows) {
        flows::run(options.flows, options.rounds, record)?;
    }
    mesh_tests::interrupt::check()?;
    if chosen(Part::Watching) {
        watching::run(options.rounds, record)?;
    }
    Ok(())
}
