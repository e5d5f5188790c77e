//! Forty seeds, or as many as `MESHD_GOSSIP_SEEDS` says, from `MESHD_GOSSIP_FROM` on.

use std::env;

use anyhow::{Context, Result};
use mesh_gossip_simulation::{
    run::{Outcome, run},
    scenario::Scenario,
};

/// The tests below take turns, so that they can run beside each other.
const PARTS: u64 = 2;

fn number(variable: &str, default: u64) -> Result<u64> {
    env::var(variable).map_or(Ok(default), |text| text.parse().with_context(|| format!("{variable}={text}")))
}

fn play(part: u64) -> Result<()> {
    let (seeds, from) = (number("MESHD_GOSSIP_SEEDS", 40)?, number("MESHD_GOSSIP_FROM", 0)?);
    let repeat = |seed| {
        format!(
            "repeat it with: cargo run -p mesh-gossip-simulation -- seeds --from {seed} --seeds 1 --trace"
        )
    };
    for seed in (from..from + seeds).filter(|seed| seed % PARTS == part) {
        run(Scenario::of(seed, None), false).with_context(|| repeat(seed))?;
    }
    Ok(())
}

#[test]
fn even_seeds() -> Result<()> {
    play(0)
}

#[test]
fn odd_seeds() -> Result<()> {
    play(1)
}

#[test]
fn a_seed_is_the_same_run_every_time() -> Result<()> {
    let once = || run(Scenario::of(4, None), false);
    let told = |o: Outcome| (o.agreed, o.at_rest, o.in_trouble, o.renewals);
    assert_eq!(told(once()?), told(once()?));
    Ok(())
}
