//! No endpoint is lost: on a network that only loses packets, what is announced is seen, without a moment's gap.

use anyhow::{Result, ensure};

use super::{SETTLED, settled};
use crate::{ledger::Ledger, names::Number, world::World};

/// Whether `n` sees every endpoint that has been there for a while. For calm scenarios.
pub fn check(world: &World, ledger: &Ledger, n: Number) -> Result<()> {
    if !settled(world, n) {
        return Ok(());
    }
    for life in ledger.visible(world, n).filter(|life| world.now >= life.begin + SETTLED) {
        let there = settled(world, life.owner);
        ensure!(!there || world.sees(n, &life.endpoint), "{n} lost {:?}", life.endpoint.endpoint.name);
    }
    Ok(())
}
