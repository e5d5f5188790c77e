//! Agents: nodes that follow any manager, go on to another when it is gone, and give leased addresses to tasks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use mesh_api::{parse_id, v1};
use mesh_raft::RaftNode;
use mesh_store::{Command, LeaseChange, Response};
use mesh_types::{ClusterId, NodeId};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::{
    select,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::NETWORK,
    invariants::convergence::Seen,
    world::{World, address, lock},
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
                let followed = self.session(manager, start, node).await;
                self.world.hold(followed.with_context(|| format!("{} follows {manager}", self.id)));
            }
            sleep(Duration::from_millis(rng.random_range(50..1_000))).await;
        }
    }

    /// A session as managers hold it: the state, then what changed, one message at a time.
    async fn session(&self, manager: NodeId, start: u64, node: RaftNode) -> Result<()> {
        let network = self.world.network();
        let stop = CancellationToken::new();
        let _ended = stop.clone().drop_guard();
        let cluster = ClusterId::from_u128(1);
        let mut stream = mesh_manager::simulation::session(&node, cluster, address(manager), self.id, stop);
        let mut known: Option<Seen> = None;
        loop {
            let message = select! {
                biased;
                message = stream.recv() => message,
                () = sleep(PROBE) => match network.is_up(manager, start) && network.is_open(self.id, manager) {
                    true => continue,
                    false => return Ok(()),
                },
            };
            // A manager that is behind may not know the node yet.
            let Some(Ok(message)) = message else { return Ok(()) };
            if !network.carry(manager, start, self.id).await {
                return Ok(());
            }
            let seen = heard(known.take(), message)?;
            self.told(seen.clone());
            known = Some(seen);
            if !network.is_up(manager, start) || !network.is_open(self.id, manager) {
                return Ok(());
            }
        }
    }

    fn told(&self, new: Seen) {
        let mut seen = lock(&self.seen);
        let version = |seen: &Seen| seen.view.as_ref().map(|view| view.version);
        // As the agent does: another manager may be behind.
        if version(&new) >= version(&seen) {
            *seen = new;
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

/// What the node knows after a message.
fn heard(before: Option<Seen>, message: v1::NodeState) -> Result<Seen> {
    let mut leases = BTreeMap::new();
    for lease in message.leases {
        let addresses =
            lease.addresses.iter().map(|text| text.parse()).collect::<Result<Vec<IpAddr>, _>>()?;
        leases.insert(parse_id("lease.network_id", &lease.network_id)?, addresses);
    }
    match (message.view, message.change, before) {
        (Some(view), None, None) => Ok(Seen { view: Some(view.try_into()?), leases }),
        (None, Some(change), Some(Seen { view: Some(mut view), leases: before })) => {
            ensure!(view.change(change.try_into()?), "a change of another state than was told before");
            Ok(Seen { view: Some(view), leases: if message.same_leases { before } else { leases } })
        }
        _ => bail!("a session tells the state once, and then what changed"),
    }
}
