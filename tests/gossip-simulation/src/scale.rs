//! How it grows: the same change, a death, and what it costs, in clusters of up to thousands.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mesh_gossip::{Interest, Liveness, MemberState};
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    invariants::bytes::Meter,
    names::{self, Number, network},
    wire::Wire,
    world::World,
};

/// What a size comes to. Times in milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Point {
    /// How many nodes, all on one network.
    pub nodes: u32,
    /// From the start of all at once until each takes all for alive.
    pub formed: f64,
    /// From a new entry until the last node has it, of each sample in order.
    pub told: Vec<f64>,
    /// From a node's death until the last node knows of it, of each sample in order.
    pub death: Vec<f64>,
    /// Bytes sent per node and second when nothing happens.
    pub at_rest: f64,
    /// The same with ten changes a second in the whole cluster.
    pub busy: f64,
    /// Seconds that it took to simulate, on whatever machine that was.
    pub simulated_in: f64,
}

/// Measures a cluster of `nodes`.
pub fn measure(nodes: u32, wire: Wire, seed: u64, samples: u32) -> Result<Point> {
    let start = Instant::now();
    let say = |world: &World, what: &str| {
        eprintln!(
            "{nodes} nodes: {what}, {:.1?} of virtual time, {:.1?} of work",
            world.now,
            start.elapsed()
        );
    };
    let mut world = World::new(seed, wire);
    world.asks_data_paths = false;
    world.add(nodes, &Interest::Networks([network(0)].into()));
    // Who takes tables only now and then does not pay for each node that comes.
    world.watched = false;
    (0..nodes).for_each(|n| world.start(n));
    say(&world, "started");
    while let Err(error) = all_alive(&mut world) {
        if world.now > Duration::from_secs(600) {
            bail!("{nodes} nodes do not form a cluster within ten minutes: {error:#}");
        }
        world.run(if nodes > 100 { Duration::from_millis(100) } else { Duration::from_millis(5) });
    }
    let formed = world.now.as_secs_f64() * 1000.0;
    say(&world, "formed");
    // Who came is told on for a while after all know.
    world.run(Duration::from_secs(20).max(Duration::from_millis(20) * nodes));
    let meter = Meter::start(&world);
    world.run(Duration::from_secs(20));
    let at_rest = meter.rate(&world);
    world.look();
    world.watched = true;
    say(&world, "at rest");
    let (mut told, mut death) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let pause = Duration::from_millis(world.rng.random_range(0..1_000));
        world.run(pause);
        let owner = world.rng.random_range(0..nodes);
        let entry = names::endpoint(owner, 0, u64::from(sample))?;
        let begin = world.now;
        world.announce(owner, vec![entry.clone()]);
        told.push(until(&mut world, begin, |world, n| world.sees(n, &entry))?);
    }
    say(&world, "told");
    let meter = Meter::start(&world);
    for change in 0..100 {
        let owner = world.rng.random_range(0..nodes);
        world.announce(owner, vec![names::endpoint(owner, 0, 1_000 + change)?]);
        world.run(Duration::from_millis(100));
    }
    let busy = meter.rate(&world);
    say(&world, "busy");
    if nodes > 2 {
        for _ in 0..samples.min(nodes / 3) {
            let pause = Duration::from_millis(world.rng.random_range(3_000..5_000));
            world.run(pause);
            let victim = loop {
                let n = world.rng.random_range(0..nodes);
                if world.runs(n) {
                    break n;
                }
            };
            world.destroy(victim);
            let begin = world.now;
            let gone = |world: &World, n| {
                world.state(n, victim).is_none_or(|state| MemberState::liveness(state) == Liveness::Gone)
            };
            death.push(until(&mut world, begin, gone)?);
        }
    }
    say(&world, "done");
    for times in [&mut told, &mut death] {
        times.sort_by(f64::total_cmp);
    }
    Ok(Point { nodes, formed, told, death, at_rest, busy, simulated_in: start.elapsed().as_secs_f64() })
}

fn all_alive(world: &mut World) -> Result<()> {
    let nodes = world.len();
    for n in 0..nodes {
        // One that does not know yet says so without asking the others, which is dear among thousands.
        world.look_at(n);
        let members = world.tables(n).map(|tables| tables.members.clone()).unwrap_or_default();
        let alive = members.values().filter(|member| member.state == MemberState::Alive).count();
        ensure!(alive == nodes as usize, "{n} sees {alive} of {nodes}");
    }
    Ok(())
}

/// Milliseconds until every running node has `reached` it.
fn until(world: &mut World, begin: Duration, reached: impl Fn(&World, Number) -> bool) -> Result<f64> {
    let mut waiting = world.running();
    waiting.retain(|n| !reached(world, *n));
    let limit = begin + Duration::from_secs(180);
    while !waiting.is_empty() {
        let Some(step) = world.step(limit) else {
            bail!("{} nodes do not know after {:?}", waiting.len(), limit - begin)
        };
        if let Some(n) = step.changed.filter(|n| waiting.contains(n) && reached(world, *n)) {
            waiting.remove(&n);
        }
    }
    Ok((world.now - begin).as_secs_f64() * 1000.0)
}
