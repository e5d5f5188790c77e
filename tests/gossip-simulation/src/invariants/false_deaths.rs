//! Nobody who lives is declared dead, as long as the network loses no more than one datagram in twenty.

use anyhow::{Result, ensure};
use mesh_gossip::{Liveness, MemberState};

use super::settled;
use crate::{names::Number, world::World};

/// Whether `n` takes no living member for gone. For calm scenarios.
pub fn check(world: &World, n: Number) -> Result<()> {
    if !settled(world, n) {
        return Ok(());
    }
    for of in (0..world.len()).filter(|of| *of != n && settled(world, *of)) {
        let state = world.state(n, of);
        let attended = state.map(MemberState::liveness) == Some(Liveness::Attended);
        ensure!(attended, "{n} takes {of} for {state:?}, which lives");
    }
    Ok(())
}
