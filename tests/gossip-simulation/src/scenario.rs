//! What a seed stands for: how large, on what network, how rough.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::wire::Wire;

/// A story to be played.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its seed.
    pub seed: u64,
    /// How many machines.
    pub nodes: u32,
    /// How many networks they share.
    pub networks: u32,
    /// The network between them.
    pub wire: Wire,
    /// Nothing is cut and nobody stands still for more than a second, so that no living node may be missed.
    pub calm: bool,
    /// Whether the data paths of silent nodes are asked.
    pub data_paths: bool,
    /// How many things happen.
    pub events: u32,
}

impl Scenario {
    /// The story of a seed, of `nodes` machines or as many as the seed says.
    pub fn of(seed: u64, nodes: Option<u32>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6765_7373_6970);
        let few = rng.random_range(3..=9);
        let many = rng.random_range(10..=25);
        let nodes = nodes.unwrap_or(if rng.random_bool(0.8) { few } else { many });
        let calm = rng.random_bool(0.5);
        let losses: &[f64] = if calm { &[0.0, 0.01, 0.05, 0.05] } else { &[0.0, 0.05, 0.1, 0.2] };
        let loss = losses.choose(&mut rng).copied().unwrap_or_default();
        let (least, spread) =
            *[(100, 150), (500, 2_000), (10_000, 5_000)].choose(&mut rng).unwrap_or(&(100, 150));
        let mut wire = Wire::of(Duration::from_micros(least), Duration::from_micros(spread), loss);
        wire.twice = if rng.random_bool(0.5) { 0.02 } else { 0.0 };
        Self {
            seed,
            nodes,
            networks: rng.random_range(1..=4),
            wire,
            calm,
            data_paths: rng.random_bool(0.5),
            events: rng.random_range(10..30),
        }
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { nodes, networks, wire, calm, events, .. } = self;
        let mood = if *calm { "calm" } else { "rough" };
        write!(
            f,
            "{nodes} nodes, {networks} networks, {mood}, {} % loss, {:?} + {:?}, {events} events",
            wire.loss * 100.0,
            wire.least,
            wire.spread
        )
    }
}
