//! What a node sends is bounded: each datagram, and all together in a second, at rest and in trouble.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_gossip::MAX_DATAGRAM;

use crate::world::{Traffic, World};

/// Bytes per node and second when nothing happens, and what each lost datagram in a hundred adds: suspicions, and their
/// refutation, go round. Above [`FEW`] nodes it grows with their number, since each may be suspected and everybody hears of it.
const AT_REST: f64 = 4_000.0;
const PER_PERCENT: f64 = 500.0;
const FEW: f64 = 25.0;
/// The same while something happens every second or so.
const IN_TROUBLE: f64 = 20_000.0;

/// Measures from one moment on.
pub struct Meter {
    from: Duration,
    before: Traffic,
}

impl Meter {
    /// From now on.
    pub fn start(world: &World) -> Self {
        Self { from: world.now, before: world.traffic() }
    }

    /// Bytes per node and second since.
    pub fn rate(&self, world: &World) -> f64 {
        let seconds = (world.now - self.from).as_secs_f64().max(1.0);
        (world.traffic().bytes - self.before.bytes) as f64 / seconds / f64::from(world.len().max(1))
    }

    /// Datagrams and TCP messages per node and second since.
    pub fn packets(&self, world: &World) -> f64 {
        let seconds = (world.now - self.from).as_secs_f64().max(1.0);
        let of = |traffic: Traffic| traffic.datagrams + traffic.streams;
        (of(world.traffic()) - of(self.before)) as f64 / seconds / f64::from(world.len().max(1))
    }

    /// Whether that is within bounds.
    pub fn check(&self, world: &World, at_rest: bool) -> Result<()> {
        let rate = self.rate(world);
        let suspects = (f64::from(world.len()) / FEW).max(1.0);
        let lossy = world.wire.loss * 100.0 * PER_PERCENT * suspects;
        let bound = if at_rest { AT_REST } else { IN_TROUBLE } + lossy;
        ensure!(rate <= bound, "{rate:.0} bytes per node and second, more than {bound}");
        let largest = world.traffic().largest;
        ensure!(largest <= MAX_DATAGRAM, "a datagram of {largest} bytes");
        Ok(())
    }
}
