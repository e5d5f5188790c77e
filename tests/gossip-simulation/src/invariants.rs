//! What must hold, a file each.

pub mod agreement;
pub mod bytes;
pub mod false_deaths;
pub mod ghosts;
pub mod lost;

use std::time::Duration;

use crate::{names::Number, world::World};

/// So long after it started, or its wire was mended, a machine may still be catching up.
pub const SETTLED: Duration = Duration::from_secs(15);

/// Whether a machine's daemon has run for long enough, and runs now.
fn settled(world: &World, n: Number) -> bool {
    let since = world.machine(n).map(|machine| machine.since);
    world.runs(n) && !world.sleeps(n) && since.is_some_and(|since| world.now >= since + SETTLED)
}
