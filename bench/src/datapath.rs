//! The data path beside its peers: what is compared, round by round, and what comes out.

mod targets;
mod ways;
mod world;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{
    load::{Amount, Measure, Sample, is_installed},
    path::{Path, Way},
    pinning::Processors,
    programs::Programs,
    record::{Better, Figure, Record, Suite, Who},
};

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

impl Group {
    /// All, in the order in which they are measured.
    pub const ALL: [Self; 3] = [Self::Programs, Self::Overlay, Self::Published];

    /// The suite of its figures.
    pub fn suite(self) -> Suite {
        match self {
            Self::Programs => Suite::Programs,
            Self::Overlay => Suite::Overlay,
            Self::Published => Suite::Mesh,
        }
    }

    /// What its ways are compared with.
    fn base(self) -> Way {
        if self == Self::Published { Way::Straight } else { Way::Underlay }
    }
}

impl Options {
    /// These groups in so many rounds.
    pub fn of(what: Vec<Group>, rounds: usize, quick: bool) -> Self {
        let round_trips = if quick { 2_000 } else { 20_000 };
        Self { what, rounds, seconds: 1, round_trips, congestion: None, unsteered: false }
    }
}

/// Measures. What was measured before an error is in the record.
pub fn run(options: &Options, record: &mut Record) -> Result<()> {
    let chosen = |group: &Group| options.what.is_empty() || options.what.contains(group);
    let groups: Vec<Group> = Group::ALL.into_iter().filter(chosen).collect();
    let processors = Processors::pick()?;
    let world = World::start(processors, !options.unsteered)?;
    let measured = measure(&world, &groups, options, processors, record).map_err(|e| world.explain(e));
    targets::tell(record);
    measured
}

fn measure(
    world: &World,
    groups: &[Group],
    options: &Options,
    processors: Processors,
    record: &mut Record,
) -> Result<()> {
    let progress = |round, what: &str| eprintln!("round {round} of {}: {what}", options.rounds);
    if groups.contains(&Group::Programs) {
        // Before there is traffic, so that the maps hold these flows alone.
        let measured = programs(world, options.rounds, processors.server, record);
        mesh_tests::interrupt::check()?;
        if let Err(error) = measured {
            eprintln!("programs by test runs: {error:#}");
            record.note(format!("programs by test runs, left out or not whole: {error:#}"));
        }
    }
    if groups == [Group::Programs] {
        return Ok(());
    }
    let ways = Ways::set_up(world, groups, processors, !options.unsteered)?;
    for note in &ways.notes {
        eprintln!("{note}");
        record.note(note);
    }
    let amount = Amount {
        length: Duration::from_secs(options.seconds),
        round_trips: options.round_trips,
        congestion: options.congestion.clone(),
    };
    let mut failed = None;
    let measures = measures(is_installed, record);
    for round in 1..=options.rounds {
        for (group, paths) in &ways.paths {
            for &measure in &measures {
                progress(round, measure.title());
                for path in paths.iter().filter(|path| measure.fits(path)) {
                    let taken = take(measure, path, &amount, processors, record);
                    mesh_tests::interrupt::check()?;
                    match taken {
                        Ok(sample) => add(record, *group, measure, path.way, sample),
                        Err(error) => {
                            eprintln!("{error:#}");
                            record.note(format!("left out in a round: {error:#}"));
                            // A peer that fails is its own affair.
                            failed = failed.or_else(|| path.way.is_ours().then_some(error));
                        }
                    }
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What can be measured with the programs that are there; what cannot is noted.
fn measures(is_there: impl Fn(&str) -> bool, record: &mut Record) -> Vec<Measure> {
    let (measures, lacking): (Vec<_>, Vec<_>) =
        Measure::ALL.into_iter().partition(|measure| measure.program().is_none_or(&is_there));
    for measure in lacking {
        let program = measure.program().unwrap_or_default();
        let note = format!("left out: {}: there is no {program} (`cargo xtask setup`)", measure.title());
        eprintln!("{note}");
        record.note(note);
    }
    measures
}

fn add(record: &mut Record, group: Group, measure: Measure, way: Way, sample: Sample) {
    let better = if measure.is_time() { Better::Lower } else { Better::Higher };
    let figure = Figure::new(group.suite(), measure.key(), measure.title(), measure.unit(), better);
    let (unit, scale) = measure.cpu_unit();
    let who = if way.is_ours() { Who::ours } else { Who::peer };
    let who = who(way.key(), way.title());
    record.figure(figure.beside(group.base().key())).add(who, sample.value, Some((unit, sample.cpu * scale)));
}

/// All programs' costs in one figure.
fn programs(world: &World, rounds: usize, processor: usize, record: &mut Record) -> Result<()> {
    let mut programs = Programs::prepare(world, processor)?;
    let measured = (1..=rounds).try_for_each(|round| {
        eprintln!("round {round} of {rounds}: programs by test runs");
        programs.round()
    });
    for absent in &programs.absent {
        record.note(format!("there is no program {absent} yet, so it is not measured"));
    }
    let figure = Figure::new(Suite::Programs, targets::PACKET, "a packet", "ns", Better::Lower);
    let figure = record.figure(figure);
    for row in &programs.rows {
        let title = format!("{}: {}", row.program, row.what);
        for nanoseconds in &row.nanoseconds {
            // What an empty program takes is subtracted; noise may make that more.
            figure.add(Who::ours(&title, &title), nanoseconds.max(0.0), None);
        }
    }
    targets::tell_programs(record, &programs.rows);
    measured
}

/// Takes a sample, once more where that fails: a machine that others use stalls at times.
fn take(
    measure: Measure,
    path: &Path,
    amount: &Amount,
    processors: Processors,
    record: &mut Record,
) -> Result<Sample> {
    let what = || format!("{}, {}", measure.title(), path.way.title());
    for _ in 1..ATTEMPTS {
        mesh_tests::interrupt::check()?;
        match measure.take(path, amount, processors) {
            Ok(sample) => return Ok(sample),
            Err(error) => record.note(format!("{}, measured again: {error:#}", what())),
        }
    }
    measure.take(path, amount, processors).with_context(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_tool_the_rest_is_measured() {
        let mut record = Record::begin(String::new(), true).unwrap();
        assert_eq!(measures(|_| true, &mut record), Measure::ALL);
        assert!(record.notes.is_empty());
        assert_eq!(measures(|program| program != "wrk", &mut record), Measure::ALL[..4]);
        assert_eq!(record.notes[0], "left out: HTTP keep-alive: there is no wrk (`cargo xtask setup`)");
        assert_eq!(record.notes.len(), 2);
    }
}
