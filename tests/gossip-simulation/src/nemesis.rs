//! What happens to a cluster: tasks come and go, machines die, the network parts.

use std::time::Duration;

use anyhow::Result;
use rand::{Rng, seq::IteratorRandom};

use crate::{
    ledger::{Ledger, some_networks},
    names::Number,
    scenario::Scenario,
    world::World,
};

/// Lets one thing happen, and says what.
pub fn act(world: &mut World, ledger: &mut Ledger, scenario: &Scenario) -> Result<String> {
    let awake: Vec<Number> = world.running().into_iter().filter(|n| !world.sleeps(*n)).collect();
    let Some(n) = awake.iter().copied().choose(&mut world.rng) else {
        return Ok(revive(world));
    };
    let scope = world.rng.random_range(0..scenario.networks);
    // A third of the machines at most is away at a time.
    let spare = awake.len() > scenario.nodes as usize * 2 / 3;
    Ok(match world.rng.random_range(0..if scenario.calm { 16 } else { 22 }) {
        0..4 => {
            for _ in 0..world.rng.random_range(1..=5) {
                ledger.begin(world, n, scope)?;
            }
            format!("{n} has new tasks on {scope}")
        }
        4..7 => {
            ledger.end_one(world, n);
            format!("a task of {n} ends")
        }
        7 | 8 => {
            ledger.change_one(world, n);
            format!("a task of {n} changes")
        }
        9 => {
            let interest = some_networks(world, scenario.networks);
            world.want(n, interest);
            format!("{n} wants other networks")
        }
        10 if spare => {
            world.destroy(n);
            format!("{n} dies")
        }
        11 if spare => {
            world.kill(n);
            world.start(n);
            format!("the daemon of {n} is restarted")
        }
        12 if spare => {
            ledger.end_all(world, n, None);
            world.leave(n);
            format!("{n} leaves")
        }
        13 => {
            let time = Duration::from_millis(world.rng.random_range(50..1000));
            world.suspend(n, time);
            format!("{n} stands still for {time:?}")
        }
        16 => {
            let count = world.rng.random_range(1..scenario.nodes) as usize;
            let island = (0..scenario.nodes).choose_multiple(&mut world.rng, count);
            let text = format!("{island:?} are cut off");
            world.wire.part(island);
            text
        }
        17 => {
            let to = world.rng.random_range(0..scenario.nodes);
            world.wire.close(n, to);
            format!("{n} does not reach {to} any more")
        }
        18 | 19 => {
            world.wire.heal();
            "all ways are open".to_owned()
        }
        20 => {
            let time = Duration::from_millis(world.rng.random_range(1000..8000));
            world.suspend(n, time);
            format!("{n} stands still for {time:?}")
        }
        _ => revive(world),
    })
}

/// Starts a machine that is down.
fn revive(world: &mut World) -> String {
    let down: Vec<Number> = (0..world.len()).filter(|n| !world.runs(*n)).collect();
    match down.into_iter().choose(&mut world.rng) {
        Some(n) => {
            world.start(n);
            format!("{n} is back")
        }
        None => "nothing".to_owned(),
    }
}

/// Ends all trouble. Some machines stay dead, the rest is back.
pub fn rest(world: &mut World) {
    world.wire.heal();
    for n in 0..world.len() {
        if !world.runs(n) && world.rng.random_bool(0.7) {
            world.start(n);
        }
    }
}
