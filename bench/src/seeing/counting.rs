//! What counting tasks' and services' packets costs, by test runs of programs that do and of the same ones that do not.

use anyhow::Result;

use crate::{
    datapath::World,
    pinning::Processors,
    programs::{Counting, Programs, build_uncounted},
    record::{Better, Bound, Figure, Record, Suite, Target, Who},
    stats::median,
};

/// What counting may cost on all paths together.
const AIM: f64 = 1.02;

/// Times each tc program in turn.
pub fn run(rounds: usize, record: &mut Record) -> Result<()> {
    let plain = build_uncounted()?;
    let processors = Processors::pick()?;
    let world = World::start(processors, true)?;
    let measured = measure(&world, &plain, rounds, processors, record);
    measured.map_err(|error| world.explain(error))
}

fn measure(
    world: &World,
    plain: &[u8],
    rounds: usize,
    processors: Processors,
    record: &mut Record,
) -> Result<()> {
    let mut programs = Programs::prepare(world, processors.server)?;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: packets that are counted");
        let taken = programs.counting(plain, round)?;
        for (title, taken) in &taken {
            let figure = Figure::new(Suite::Seeing, format!("counted {title}"), title, "ns", Better::Lower);
            let figure = record.figure(figure.beside(Counting::No.key()));
            for (counting, nanoseconds) in Counting::ALL.into_iter().zip(taken) {
                figure.add(Who::ours(counting.key(), counting.title()), *nanoseconds, None);
            }
        }
        let sum = |counts: bool| -> f64 {
            let of = |taken: &[f64; 4]| -> f64 {
                let kinds = Counting::ALL.into_iter().zip(taken).filter(|(kind, _)| kind.counts() == counts);
                kinds.map(|(_, taken)| taken).sum()
            };
            taken.iter().map(|(_, taken)| of(taken)).sum()
        };
        ratios.push(sum(true) / sum(false));
    }
    record.targets.push(Target {
        what: "all paths, packets of tasks and services counted".to_owned(),
        of: Counting::No.title().to_owned(),
        bound: Bound::AtMost(AIM),
        measured: median(&ratios),
    });
    Ok(())
}
