//! How long one change takes until every node knows it: the scenarios that moby's libnetwork measures of its networkdb in
//! virtual time (`networkdb/convergence_test.go`), played by our cores.
//!
//! As there, the cluster is quiet before the clock starts, one change of a known kind is made, and the clock stops when the
//! last node has it. Under churn, every 20 ms one of the other nodes writes eight more entries, 2,000 at most, and every
//! 100 ms the last node leaves the network or comes back to it; it is not waited for. There the churn begins with the
//! change; here it can have gone on for a while, which is harder. Their wire takes no time and loses nothing.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use mesh_gossip::{Announcement, Interest};
use mesh_types::EndpointState;
use rand::Rng;

use crate::{
    invariants::agreement,
    ledger::Ledger,
    names::{self, Number, network},
    wire::Wire,
    world::World,
};

/// Nothing takes longer, or it is a failure.
const CEILING: Duration = Duration::from_secs(180);
const CHURN_PAUSE: Duration = Duration::from_millis(20);
const CHURN_WRITES: u32 = 8;
const CHURN_ENTRIES: u32 = 2000;
const CHURN_STEPS_PER_FLAP: u32 = 5;

/// A change that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new entry.
    Create,
    /// A changed one.
    Update,
    /// One that ends.
    Delete,
    /// A node joins the network and writes to it in the same breath.
    WriteAfterJoin,
    /// A node joins a network in which there is an entry, and wants it.
    JoinPopulated,
    /// A node leaves the network with its entry.
    Leave,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Create, Self::Update, Self::Delete, Self::WriteAfterJoin, Self::JoinPopulated, Self::Leave];

    /// As it is called there.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create-entry",
            Self::Update => "update-entry",
            Self::Delete => "delete-entry",
            Self::WriteAfterJoin => "write-after-join",
            Self::JoinPopulated => "join-populated-network",
            Self::Leave => "leave-network",
        }
    }

    /// It makes no sense with fewer nodes.
    pub fn least_nodes(self) -> u32 {
        match self {
            Self::Create | Self::Update | Self::Delete => 2,
            Self::WriteAfterJoin | Self::JoinPopulated | Self::Leave => 3,
        }
    }

    fn holds_back_last(self) -> bool {
        matches!(self, Self::WriteAfterJoin | Self::JoinPopulated)
    }
}

fn everything() -> Interest {
    Interest::Networks([network(0)].into())
}

/// A formed and quiet cluster of `nodes`, all on one network but perhaps the last.
fn formed(nodes: u32, wire: Wire, seed: u64, hold_back_last: bool) -> Result<World> {
    let mut world = World::new(seed, wire);
    world.add(nodes, &everything());
    if hold_back_last {
        world.want(nodes - 1, Interest::default());
    }
    (0..nodes).for_each(|n| world.start(n));
    settle(&mut world, &Ledger::default())?;
    Ok(world)
}

/// Until all agree, and for some seconds more: rhythms are at any point when the clock starts.
fn settle(world: &mut World, ledger: &Ledger) -> Result<()> {
    let limit = world.now + CEILING;
    while let Err(error) = agreement::all_know(world, ledger) {
        ensure!(world.now < limit, "not quiet within {CEILING:?}: {error:#}");
        world.run(Duration::from_millis(10));
    }
    let more = Duration::from_millis(world.rng.random_range(3_000..8_000));
    world.run(more);
    agreement::all_know(world, ledger)
}

/// How long `change` takes to be known to all of `nodes`.
pub fn quiet(change: Change, nodes: u32, wire: Wire, seed: u64) -> Result<Duration> {
    let mut world = formed(nodes, wire, seed, change.holds_back_last())?;
    let (first, last) = (0, nodes - 1);
    let mut entry = names::endpoint(if change == Change::Leave { last } else { first }, 0, 1)?;
    let seeded = matches!(change, Change::Update | Change::Delete | Change::JoinPopulated | Change::Leave);
    if seeded {
        world.announce(names::number(entry.endpoint.node), vec![entry.clone()]);
        let more = Duration::from_millis(world.rng.random_range(8_000..13_000));
        world.run(more);
    }
    let begin = world.now;
    let there = match change {
        Change::Create => {
            world.announce(first, vec![entry.clone()]);
            true
        }
        Change::Update => {
            entry.endpoint.state = EndpointState::Draining;
            world.announce(first, vec![entry.clone()]);
            true
        }
        Change::Delete => {
            world.announce(first, Vec::new());
            false
        }
        Change::WriteAfterJoin => {
            entry = names::endpoint(last, 0, 1)?;
            world.want(last, everything());
            world.announce(last, vec![entry.clone()]);
            true
        }
        Change::JoinPopulated => {
            world.want(last, everything());
            true
        }
        Change::Leave => {
            world.announce(last, Vec::new());
            world.want(last, Interest::default());
            false
        }
    };
    let waiting = (0..nodes).collect();
    until(&mut world, begin, waiting, |world, n| world.sees(n, &entry) == there, |_| Ok(()))
}

/// Lets time pass until all of `waiting` have `reached` it; `meanwhile` is called every 20 ms.
fn until(
    world: &mut World,
    begin: Duration,
    mut waiting: BTreeSet<Number>,
    reached: impl Fn(&World, Number) -> bool,
    mut meanwhile: impl FnMut(&mut World) -> Result<()>,
) -> Result<Duration> {
    waiting.retain(|n| !reached(world, *n));
    let mut next = world.now;
    while !waiting.is_empty() {
        ensure!(world.now < begin + CEILING, "not known to {waiting:?} within {CEILING:?}");
        if world.now >= next {
            meanwhile(world)?;
            next = world.now + CHURN_PAUSE;
            waiting.retain(|n| !reached(world, *n));
        }
        if let Some(n) = world.step(next).and_then(|step| step.changed)
            && waiting.contains(&n)
            && reached(world, n)
        {
            waiting.remove(&n);
        }
    }
    Ok(world.now - begin)
}

/// What goes on in the background.
struct Churn {
    steps: u32,
    written: u32,
    junk: Vec<Vec<Announcement>>,
    joined: bool,
}

impl Churn {
    fn step(&mut self, world: &mut World) -> Result<()> {
        self.steps += 1;
        let (sources, flapper) = (world.len() - 2, world.len() - 1);
        let source = 1 + self.steps % sources;
        if self.written < CHURN_ENTRIES
            && let Some(junk) = self.junk.get_mut(source as usize)
        {
            for _ in 0..CHURN_WRITES {
                self.written += 1;
                junk.push(names::endpoint(source, 0, 1_000 + u64::from(self.written))?);
                // One after the other, as tasks are attached.
                world.announce(source, junk.clone());
            }
        }
        if self.steps.is_multiple_of(CHURN_STEPS_PER_FLAP) {
            self.joined = !self.joined;
            world.want(flapper, if self.joined { everything() } else { Interest::default() });
        }
        Ok(())
    }
}

/// How long a new entry takes to be known to all of `nodes` but the last amid churn, which has gone on for `before`.
pub fn churn(nodes: u32, wire: Wire, seed: u64, before: Duration) -> Result<Duration> {
    let mut world = formed(nodes, wire, seed, false)?;
    let junk = (0..nodes).map(|_| Vec::new()).collect();
    let mut churn = Churn { steps: 0, written: 0, junk, joined: true };
    let end = world.now + before;
    while world.now < end {
        churn.step(&mut world)?;
        world.run(CHURN_PAUSE);
    }
    let entry = names::endpoint(0, 0, 1)?;
    let begin = world.now;
    world.announce(0, vec![entry.clone()]);
    let waiting = (0..nodes - 1).collect();
    until(&mut world, begin, waiting, |world, n| world.sees(n, &entry), |world| churn.step(world))
}
