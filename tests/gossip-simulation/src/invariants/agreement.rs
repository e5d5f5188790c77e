//! All living members agree: on who is there, and in each table on what is.

use anyhow::{Result, ensure};
use mesh_gossip::{Liveness, MemberState};

use crate::{ledger::Ledger, names::Number, world::World};

/// Whether `n` knows exactly what is true.
pub fn knows(world: &World, ledger: &Ledger, n: Number) -> Result<()> {
    for of in 0..world.len() {
        let state = world.state(n, of);
        // On a bad network there is always somebody suspected for a moment.
        let there = state.map(MemberState::liveness) == Some(Liveness::Attended);
        ensure!(there == world.runs(of), "{n} takes {of} for {state:?}");
    }
    let mut count = 0;
    for life in ledger.visible(world, n) {
        ensure!(world.sees(n, &life.endpoint), "{n} does not see {:?}", life.endpoint.endpoint.name.as_str());
        count += 1;
    }
    let tables = world.tables(n).into_iter().flat_map(|tables| tables.endpoints.iter());
    let seen: usize = tables.filter(|(scope, _)| world.wants(n, **scope)).map(|(_, table)| table.len()).sum();
    ensure!(seen == count, "{n} sees {seen} endpoints, not {count}");
    Ok(())
}

/// Whether everybody does.
pub fn all_know(world: &World, ledger: &Ledger) -> Result<()> {
    world.running().into_iter().try_for_each(|n| knows(world, ledger, n))
}
