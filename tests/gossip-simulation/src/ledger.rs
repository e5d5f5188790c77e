//! What is true: which endpoints there are and were, and since when.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use mesh_gossip::{Announcement, Interest};
use mesh_types::NetworkId;
use rand::{Rng, seq::IteratorRandom};

use crate::{
    names::{self, Number, network},
    world::World,
};

/// An endpoint's life.
#[derive(Debug, Clone)]
pub struct Life {
    /// Who announces it.
    pub owner: Number,
    /// The endpoint.
    pub endpoint: Announcement,
    /// Since when.
    pub begin: Duration,
    /// Until when, if it is over. Its task never comes back.
    pub end: Option<Duration>,
}

/// Every endpoint that there ever was, by its task.
#[derive(Debug, Default)]
pub struct Ledger {
    lives: BTreeMap<u64, Life>,
}

impl Ledger {
    /// A new endpoint of `owner` on the network numbered `scope`.
    pub fn begin(&mut self, world: &mut World, owner: Number, scope: u32) -> Result<()> {
        let task = self.lives.len() as u64;
        let endpoint = names::endpoint(owner, scope, task)?;
        self.lives.insert(task, Life { owner, endpoint, begin: world.now, end: None });
        self.tell(world, owner);
        Ok(())
    }

    /// One endpoint of `owner` ends, if it has any.
    pub fn end_one(&mut self, world: &mut World, owner: Number) {
        let own = self.lives.values_mut().filter(|life| life.owner == owner && life.end.is_none());
        if let Some(life) = own.choose(&mut world.rng) {
            life.end = Some(world.now);
            self.tell(world, owner);
        }
    }

    /// One endpoint of `owner` changes, if it has any.
    pub fn change_one(&mut self, world: &mut World, owner: Number) {
        let own = self.lives.values_mut().filter(|life| life.owner == owner && life.end.is_none());
        if let Some(life) = own.choose(&mut world.rng) {
            life.endpoint.endpoint.weight = world.rng.random_range(1..=100);
            life.begin = world.now;
            self.tell(world, owner);
        }
    }

    /// All endpoints of `owner` end, on one network or on all.
    pub fn end_all(&mut self, world: &mut World, owner: Number, scope: Option<u32>) {
        for life in self.lives.values_mut().filter(|life| life.owner == owner && life.end.is_none()) {
            if scope.is_none_or(|scope| life.endpoint.scope == network(scope)) {
                life.end = Some(world.now);
            }
        }
        self.tell(world, owner);
    }

    fn tell(&self, world: &mut World, owner: Number) {
        world.announce(owner, self.current(owner).map(|life| life.endpoint.clone()).collect());
    }

    /// The endpoints that `owner` has now.
    pub fn current(&self, owner: Number) -> impl Iterator<Item = &Life> {
        self.lives.values().filter(move |life| life.owner == owner && life.end.is_none())
    }

    /// All lives.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// The endpoints that a machine is to see: of the tables that it wants, of machines that are there.
    pub fn visible<'a>(&'a self, world: &'a World, to: Number) -> impl Iterator<Item = &'a Life> {
        self.lives.values().filter(move |life| {
            life.end.is_none() && world.runs(life.owner) && world.wants(to, life.endpoint.scope)
        })
    }
}

/// An interest in some of so many networks, at least one.
pub fn some_networks(world: &mut World, networks: u32) -> Interest {
    let count = world.rng.random_range(1..=networks) as usize;
    let chosen: BTreeSet<NetworkId> =
        (0..networks).choose_multiple(&mut world.rng, count).into_iter().map(network).collect();
    Interest::Networks(chosen.into())
}
