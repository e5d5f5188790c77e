//! What packets pay while somebody watches, by test runs of the programs that the daemons have loaded.

use anyhow::Result;

use crate::{
    datapath::World,
    pinning::Processors,
    programs::{Looking, Programs},
    record::{Better, Bound, Figure, Record, Suite, Target, Who},
    stats::median,
};

/// What `meshctl monitor` may cost.
const AIM: f64 = 1.03;

/// Times each program in turn: while nobody watches, and while somebody does.
pub fn run(rounds: usize, record: &mut Record) -> Result<()> {
    let processors = Processors::pick()?;
    let world = World::start(processors, true)?;
    let measured = measure(&world, rounds, processors, record);
    measured.map_err(|error| world.explain(error))
}

fn measure(world: &World, rounds: usize, processors: Processors, record: &mut Record) -> Result<()> {
    let mut programs = Programs::prepare_watched(world, processors.server)?;
    let mut ratios = Vec::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}: packets that are watched");
        let taken = programs.watched()?;
        for (title, taken) in &taken {
            let figure = Figure::new(Suite::Seeing, format!("watched {title}"), title, "ns", Better::Lower);
            let figure = record.figure(figure.beside(Looking::Nobody.key()));
            for (looking, nanoseconds) in Looking::ALL.into_iter().zip(taken) {
                figure.add(Who::ours(looking.key(), looking.title()), *nanoseconds, None);
            }
        }
        // What is dropped is on no path.
        let paths = taken.iter().filter(|(title, _)| !title.contains("dropped"));
        let sum = paths.fold([0.0; 2], |[nobody, monitor], (_, [a, b, _])| [nobody + a, monitor + b]);
        ratios.push(sum[1] / sum[0]);
    }
    record.targets.push(Target {
        what: "all paths, while `meshctl monitor` watches".to_owned(),
        of: Looking::Nobody.title().to_owned(),
        bound: Bound::AtMost(AIM),
        measured: median(&ratios),
    });
    Ok(())
}
