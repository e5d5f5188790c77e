//! Agents: nodes that follow any manager, go on to another when it is gone, and give leased addresses to tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_raft::RaftNode;
use mesh_store::{Command, LeaseChange, Response};
use mesh_types::{NetworkId, NodeId};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::NETWORK,
    invariants::convergence::Seen,
    world::{World, lock},
};

/// How often a session looks whether the other side is still there.
const PROBE: Duration = Duration::from_secs(5);

/// An agent; what it was told can be read.
#[derive(Clone)]
pub struct Agent {
    world: World,
    /// Its node.
    pub id: NodeId,
    seen: Arc<Mutex<Seen>>,
}

/// The node of an agent.
pub fn agent(number: u8) -> NodeId {
    NodeId::from_u128(100 + u128::from(number))
}

impl Agent {
    /// Starts one that follows for ever and attaches tasks until `stop`.
    pub fn start(world: &World, number: u8, stop: CancellationToken) -> Self {
        let this = Self { world: world.clone(), id: agent(number), seen: Arc::default() };
        tokio::spawn(this.clone().follow(world.fork()));
        tokio::spawn(this.clone().attach(world.fork(), stop));
        this
    }

    /// What it was told last.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    async fn follow(self, mut rng: StdRng) {
        loop {
            let machines = self.world.machines();
            if let Some(&manager) = machines.choose(&mut rng)
                && let Some((start, node)) = self.world.network().reach(self.id, manager).await
            {
                self.session(manager, start, node).await;
            }
            sleep(Duration::from_millis(rng.random_range(50..1_000))).await;
        }
    }

    /// The manager tells of every change that concerns the node, one message at a time, the newest next.
    async fn session(&self, manager: NodeId, start: u64, node: RaftNode) {
        let network = self.world.network();
        let mut states = node.watch();
        let mut sent = None;
        loop {
            let state = states.borrow_and_update().clone();
            let says = (state.view_version(), state.leases_of(self.id));
            if sent.as_ref() != Some(&says) {
                if !network.carry(manager, start, self.id).await {
                    return;
                }
                self.told(state.view(), says.1.clone());
                sent = Some(says);
            }
            select! {
                biased;
                changed = states.changed() => if changed.is_err() { return },
                () = sleep(PROBE) => {}
            }
            if !network.is_up(manager, start) || !network.is_open(self.id, manager) {
                return;
            }
        }
    }

    fn told(&self, view: Option<mesh_types::ClusterView>, leases: BTreeMap<NetworkId, Vec<IpAddr>>) {
        let mut seen = lock(&self.seen);
        let version = |view: &Option<mesh_types::ClusterView>| view.as_ref().map(|view| view.version);
        // As the agent does: another manager may be behind.
        if version(&view) >= version(&seen.view) {
            *seen = Seen { view, leases };
        }
    }

    /// Leases addresses, uses them for a while and gives them back.
    async fn attach(self, mut rng: StdRng, stop: CancellationToken) {
        let mut used: BTreeSet<IpAddr> = BTreeSet::new();
        while !stop.is_cancelled() {
            sleep(Duration::from_millis(rng.random_range(50..2_000))).await;
            let running = self.world.running();
            let Some(node) = running.choose(&mut rng) else { continue };
            let give_back = used.first().copied().filter(|_| used.len() > 4 || rng.random_bool(0.4));
            match give_back {
                Some(address) => {
                    // No task has it before anybody else may.
                    used.remove(&address);
                    self.world.notes().in_use.leave(NETWORK, address);
                    let change = LeaseChange { returned: vec![address], ..LeaseChange::default() };
                    let after = node.state().renewal_of(self.id).count;
                    let changes = [(NETWORK, change)].into();
                    let command = Command::RenewLeases { node: self.id, after, changes, full: false };
                    let _ = timeout(PROBE, node.propose(command)).await;
                }
                None => {
                    let count = rng.random_range(1..4);
                    let command = Command::Lease { node: self.id, network: NETWORK, count, family: None };
                    let answer = timeout(PROBE, node.propose(command)).await;
                    if let Ok(Ok(Response::Leased(addresses))) = answer
                        && self.world.is_current(node)
                    {
                        for address in addresses {
                            let held = self.world.notes().in_use.take(self.id, NETWORK, address);
                            self.world.hold(held);
                            used.insert(address);
                        }
                    }
                }
            }
        }
    }
}
