//! How it grows: the same change, a death, a newcomer, and what it costs, in clusters of up to thousands.
//!
//! Small clusters form by themselves. In large ones that is most of the work of simulating them, and grows with the cube of
//! their size, since each member hears of each other one and foca looks through all it has for each that it hears of: they begin
//! as members that have known each other for long ([`World::start_acquainted`]).

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mesh_gossip::{Announcement, Interest, Liveness, MemberState};
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
    /// From the start of all at once until each takes all for alive; none where they began together.
    pub formed: Option<f64>,
    /// From a new entry until the last node has it, of each sample in order.
    pub told: Vec<f64>,
    /// From an entry's end until the last node knows, of each sample in order.
    pub ended: Vec<f64>,
    /// From a node's death until the last node knows of it, of each sample in order.
    pub death: Vec<f64>,
    /// From the start of a new node until all know it and it knows all, of each sample in order.
    pub join: Vec<f64>,
    /// Bytes sent per node and second when nothing happens.
    pub at_rest: f64,
    /// Datagrams and TCP messages, likewise.
    pub packets_at_rest: f64,
    /// Bytes with ten changes a second in the whole cluster.
    pub busy: f64,
    /// Datagrams and TCP messages, likewise.
    pub packets_busy: f64,
    /// Bytes at 5 % loss, when nothing happens.
    pub lossy: f64,
    /// Bytes of memory for each pair of nodes at the end, of all that the simulation takes.
    pub memory: f64,
    /// Seconds that it took to simulate, on whatever machine that was.
    pub simulated_in: f64,
}

/// How a size is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many nodes.
    pub nodes: u32,
    /// Changes and deaths.
    pub samples: u32,
    /// Newcomers.
    pub joins: u32,
    /// Whether they form a cluster by themselves.
    pub forms: bool,
    /// For how long packets are lost.
    pub lossy: Duration,
    /// What the process held before it simulated anything, in bytes.
    pub resident: u64,
}

/// A cluster that is being measured.
struct Measured {
    world: World,
    nodes: u32,
    start: Instant,
}

/// Measures a cluster, and checks that at rest after all of it everybody knows exactly what is, that at 5 % loss nobody who lives
/// is taken for dead, and nothing that is there is missed.
pub fn measure(options: Options, wire: Wire, seed: u64) -> Result<Point> {
    let Options { nodes, samples, joins, forms, lossy, resident: before } = options;
    let mut world = World::new(seed, wire);
    world.asks_data_paths = false;
    world.add(nodes, &everything());
    // Who takes tables only now and then does not pay for each node that comes.
    world.watched = false;
    let mut measured = Measured { world, nodes, start: Instant::now() };
    let formed = if forms { Some(measured.form()?) } else { None };
    if !forms {
        measured.world.start_acquainted();
    }
    measured.say("together");
    let (at_rest, packets_at_rest) = measured.rest(forms);
    measured.world.look();
    measured.world.watched = true;
    measured.say("at rest");
    let (mut told, mut ended) = measured.tell(samples)?;
    measured.say("told");
    let (busy, packets_busy) = measured.change_often()?;
    measured.say("busy");
    let mut death = if nodes > 2 { measured.kill(samples.min(nodes / 3))? } else { Vec::new() };
    measured.say("deaths");
    let mut join = measured.join(joins)?;
    measured.say("joins");
    let lossy = measured.lose_packets(lossy)?;
    let memory = resident().saturating_sub(before) as f64 / f64::from(nodes).powi(2);
    measured.say(&format!("done, {memory:.0} bytes a pair"));
    for times in [&mut told, &mut ended, &mut death, &mut join] {
        times.sort_by(f64::total_cmp);
    }
    let simulated_in = measured.start.elapsed().as_secs_f64();
    Ok(Point {
        nodes,
        formed,
        told,
        ended,
        death,
        join,
        at_rest,
        packets_at_rest,
        busy,
        packets_busy,
        lossy,
        memory,
        simulated_in,
    })
}

fn everything() -> Interest {
    Interest::Networks([network(0)].into())
}

/// Bytes of memory that this process holds (`proc(5)`, `statm`, in pages of 4 KiB).
pub fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or_default() * 4096
}

impl Measured {
    fn say(&self, what: &str) {
        let Self { world, nodes, start } = self;
        eprintln!(
            "{nodes} nodes: {what}, {:.1?} of virtual time, {:.1?} of work",
            world.now,
            start.elapsed()
        );
    }

    /// Starts all at once, until each takes all for alive.
    fn form(&mut self) -> Result<f64> {
        let Self { world, nodes, .. } = self;
        let nodes = *nodes;
        (0..nodes).for_each(|n| world.start(n));
        while let Err(error) = all_alive(world) {
            if world.now > Duration::from_secs(600) {
                bail!("{nodes} nodes do not form a cluster within ten minutes: {error:#}");
            }
            world.run(if nodes > 100 { Duration::from_millis(100) } else { Duration::from_millis(5) });
        }
        Ok(world.now.as_secs_f64() * 1000.0)
    }

    /// What is sent when nothing happens: bytes and packets.
    fn rest(&mut self, formed: bool) -> (f64, f64) {
        // Who came is told on for a while after all know.
        let settling = Duration::from_secs(20).max(Duration::from_millis(20) * self.nodes);
        self.world.run(if formed { settling } else { Duration::from_secs(5) });
        let meter = Meter::start(&self.world);
        self.world.run(Duration::from_secs(20));
        (meter.rate(&self.world), meter.packets(&self.world))
    }

    fn tell(&mut self, samples: u32) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut told, mut ended) = (Vec::new(), Vec::new());
        for sample in 0..samples {
            let owner = self.world.rng.random_range(0..self.nodes);
            let entry = names::endpoint(owner, 0, u64::from(sample))?;
            told.push(self.announce(owner, vec![entry.clone()], |world, n| world.sees(n, &entry))?);
            ended.push(self.announce(owner, Vec::new(), |world, n| !world.sees(n, &entry))?);
        }
        Ok((told, ended))
    }

    fn announce(
        &mut self,
        owner: Number,
        own: Vec<Announcement>,
        reached: impl Fn(&World, Number) -> bool,
    ) -> Result<f64> {
        let world = &mut self.world;
        let pause = Duration::from_millis(world.rng.random_range(0..1_000));
        world.run(pause);
        let begin = world.now;
        world.announce(owner, own);
        until(world, begin, reached)
    }

    /// Ten changes a second for ten seconds: bytes and packets.
    fn change_often(&mut self) -> Result<(f64, f64)> {
        let world = &mut self.world;
        let meter = Meter::start(world);
        for change in 0..100 {
            let owner = world.rng.random_range(0..self.nodes);
            world.announce(owner, vec![names::endpoint(owner, 0, 1_000 + change)?]);
            world.run(Duration::from_millis(100));
        }
        Ok((meter.rate(world), meter.packets(world)))
    }

    fn kill(&mut self, samples: u32) -> Result<Vec<f64>> {
        let world = &mut self.world;
        let mut death = Vec::new();
        for _ in 0..samples {
            let pause = Duration::from_millis(world.rng.random_range(3_000..5_000));
            world.run(pause);
            let victim = loop {
                let n = world.rng.random_range(0..self.nodes);
                if world.runs(n) {
                    break n;
                }
            };
            world.destroy(victim);
            let begin = world.now;
            death.push(until(world, begin, |world, n| {
                world.state(n, victim).is_none_or(|state| state.liveness() == Liveness::Gone)
            })?);
        }
        Ok(death)
    }

    /// New machines, which the managers list, and which know nobody.
    fn join(&mut self, samples: u32) -> Result<Vec<f64>> {
        let world = &mut self.world;
        let mut join = Vec::new();
        for _ in 0..samples {
            let newcomer = world.len();
            world.add(1, &everything());
            let begin = world.now;
            world.running().into_iter().for_each(|n| world.list(n));
            world.start(newcomer);
            let entries = announced(world).len();
            join.push(until(world, begin, |world, n| {
                if n != newcomer {
                    return world.state(n, newcomer) == Some(MemberState::Alive);
                }
                let Some(tables) = world.tables(n) else { return false };
                let alive =
                    tables.members.values().filter(|member| member.state == MemberState::Alive).count();
                let known = tables.endpoints.get(&network(0)).map_or(0, |table| table.len());
                alive == world.running().len() && known == entries
            })?);
            let pause = Duration::from_millis(world.rng.random_range(2_000..4_000));
            world.run(pause);
        }
        Ok(join)
    }

    /// At 5 % loss for some `time` nobody who lives is taken for dead and nothing is missed; afterwards all know exactly what
    /// is. Bytes sent meanwhile.
    fn lose_packets(&mut self, time: Duration) -> Result<f64> {
        let world = &mut self.world;
        world.run(Duration::from_secs(5));
        world.wire.loss = 0.05;
        let meter = Meter::start(world);
        for _ in 0..time.as_secs() {
            world.run(Duration::from_secs(1));
            nothing_missed(world)?;
        }
        let rate = meter.rate(world);
        world.wire.loss = 0.0;
        world.run(Duration::from_secs(10));
        nothing_missed(world)?;
        nothing_else(world)?;
        Ok(rate)
    }
}

/// What all running machines announce.
fn announced(world: &World) -> Vec<Announcement> {
    let running = world.running().into_iter().filter_map(|n| world.machine(n));
    running.flat_map(|machine| machine.announced.clone()).collect()
}

/// Whether everybody sees everybody who lives, and all that they announce.
fn nothing_missed(world: &World) -> Result<()> {
    let (running, announced) = (world.running(), announced(world));
    for n in running.iter().copied() {
        let Some(tables) = world.tables(n) else { continue };
        let attended = tables.members.iter().filter(|(_, m)| m.state.liveness() == Liveness::Attended);
        let attended = attended.filter(|(node, _)| running.contains(&names::number(**node))).count();
        ensure!(attended == running.len(), "{n} takes {} who live for dead", running.len() - attended);
        if let Some(missed) = announced.iter().find(|entry| !world.sees(n, entry)) {
            bail!("{n} misses {:?}", missed.endpoint.name.as_str());
        }
    }
    Ok(())
}

/// Whether nobody sees more than that.
fn nothing_else(world: &World) -> Result<()> {
    let (running, entries) = (world.running(), announced(world).len());
    for n in running.iter().copied() {
        let Some(tables) = world.tables(n) else { continue };
        let attended = tables.members.values().filter(|m| m.state.liveness() == Liveness::Attended).count();
        ensure!(attended == running.len(), "{n} sees {attended} members, not {}", running.len());
        let seen: usize = tables.endpoints.values().map(|table| table.len()).sum();
        ensure!(seen == entries, "{n} sees {seen} endpoints, not {entries}");
    }
    Ok(())
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
