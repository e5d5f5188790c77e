//! No ghosts: what its owner withdrew is seen nowhere, once both have been together for a while, nor ever after.

use anyhow::{Result, ensure};

use super::{SETTLED, settled};
use crate::{ledger::Ledger, names::Number, world::World};

/// Whether `n` sees nothing that is gone. `whole` tells since when nothing has been cut.
pub fn check(world: &World, ledger: &Ledger, n: Number, whole: std::time::Duration) -> Result<()> {
    if !settled(world, n) || world.now < whole + SETTLED {
        return Ok(());
    }
    for life in ledger.lives().filter(|life| life.end.is_some_and(|end| world.now >= end + SETTLED)) {
        let there = settled(world, life.owner);
        ensure!(
            !there || !world.sees(n, &life.endpoint),
            "{n} sees a ghost: {:?}",
            life.endpoint.endpoint.name
        );
    }
    Ok(())
}
