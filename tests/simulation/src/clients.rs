//! Clients: each asks one thing after the other, of any manager, and notes what it is told.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use mesh_raft::{ProposeError, RaftNode};
use mesh_store::{Command, Rejection, State};
use mesh_types::{NodeId, Role};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    commands,
    history::{Ask, Told},
    invariants::lost_writes,
    world::{World, manager},
};

/// Lets client `number` ask until `stop`.
pub fn start(world: &World, number: u8, stop: CancellationToken) -> JoinHandle<()> {
    let client = Client { world: world.clone(), number, rng: world.fork() };
    tokio::spawn(client.run(stop))
}

struct Client {
    world: World,
    number: u8,
    rng: StdRng,
}

impl Client {
    async fn run(mut self, stop: CancellationToken) {
        for turn in 0u64.. {
            if stop.is_cancelled() {
                return;
            }
            let running = self.world.running();
            if let Some(node) = running.choose(&mut self.rng) {
                let asked = self.ask(node, turn).await;
                self.world.hold(asked);
            }
            sleep(Duration::from_millis(self.rng.random_range(1..200))).await;
        }
    }

    async fn ask(&mut self, node: &RaftNode, turn: u64) -> Result<()> {
        if self.world.scenario().older > 0 && self.rng.random_bool(0.1) {
            return self.come_and_go(node).await;
        }
        let key = self.rng.random_range(0..self.world.scenario().keys);
        let value = u64::from(self.number) * 1_000_000 + turn;
        match self.rng.random_range(0..10) {
            0..3 => self.mark(node, turn).await,
            3 => self.change(node, key, Ask::Create, commands::create(key)?).await,
            4 => self.change(node, key, Ask::Remove, Command::RemoveService(commands::service(key))).await,
            5..7 => self.change(node, key, Ask::Write(value), commands::write(key, value)).await,
            _ => self.read(node, key).await,
        }
    }

    /// Adds a node of its own and removes it again by its version, which only managers of this version know.
    async fn come_and_go(&self, node: &RaftNode) -> Result<()> {
        let (id, number) = (NodeId::from_u128(u128::from(self.number) + 10_000), 200 + self.number);
        match self.propose(node, commands::add_node(id, number, Role::Worker)?).await {
            Outcome::Rejected(Rejection::IdTaken { .. }) => {}
            Outcome::Rejected(rejection) => return Err(anyhow!("add {id}: {rejection}")),
            Outcome::Done | Outcome::Never | Outcome::Unknown => {}
        }
        let Some(version) = node.state().node(id).map(|node| node.version) else { return Ok(()) };
        match self.propose(node, commands::remove_unchanged(id, version)).await {
            // What nobody knew the outcome of may have come about meanwhile.
            Outcome::Rejected(Rejection::Changed { .. } | Rejection::UnknownNode(_)) => Ok(()),
            Outcome::Rejected(rejection) => Err(anyhow!("remove {id}: {rejection}")),
            Outcome::Done | Outcome::Never | Outcome::Unknown => Ok(()),
        }
    }

    /// Sets a label that nobody takes away.
    async fn mark(&self, node: &RaftNode, turn: u64) -> Result<()> {
        let mark = format!("c{}-{turn}", self.number);
        match self.propose(node, commands::mark(manager(1), &mark)).await {
            Outcome::Done => {
                self.world.notes().marks.acknowledged(mark);
                Ok(())
            }
            Outcome::Rejected(rejection) => Err(anyhow!("{mark}: {rejection}")),
            Outcome::Never | Outcome::Unknown => Ok(()),
        }
    }

    async fn change(&self, node: &RaftNode, key: usize, ask: Ask, command: Command) -> Result<()> {
        let history = self.world.history();
        let asked = history.ask(key, ask);
        match self.propose(node, command).await {
            Outcome::Done => history.told(asked, Told::Done),
            Outcome::Rejected(Rejection::AddressesExhausted { .. }) | Outcome::Never => history.never(asked),
            Outcome::Rejected(Rejection::IdTaken { .. } | Rejection::UnknownService(_)) => {
                history.told(asked, Told::Refused)
            }
            Outcome::Rejected(rejection) => return Err(anyhow!("key {key}: {rejection}")),
            Outcome::Unknown => {}
        }
        Ok(())
    }

    async fn read(&self, node: &RaftNode, key: usize) -> Result<()> {
        let marks = self.world.notes().marks.so_far();
        let asked = self.world.history().ask(key, Ask::Read);
        let Some(state) = self.linearizable(node).await else { return Ok(()) };
        self.world.history().told(asked, Told::Value(commands::value(&state, key)));
        lost_writes::check(&marks, &state, manager(1), "a linearizable read")
    }

    async fn linearizable(&self, node: &RaftNode) -> Option<Arc<State>> {
        let state = node.linearizable().await.ok()?;
        self.world.is_current(node).then_some(state)
    }

    async fn propose(&self, node: &RaftNode, command: Command) -> Outcome {
        let answer = node.propose(command).await;
        match answer {
            // Whoever is down by now has told nobody.
            _ if !self.world.is_current(node) => Outcome::Unknown,
            Ok(_) => Outcome::Done,
            Err(ProposeError::Rejected(rejection)) => Outcome::Rejected(rejection),
            Err(ProposeError::NoLeader | ProposeError::NotAgreed) => Outcome::Never,
            Err(_) => Outcome::Unknown,
        }
    }
}

enum Outcome {
    Done,
    Rejected(Rejection),
    /// It was not and will not be carried out.
    Never,
    /// Nobody knows.
    Unknown,
}
