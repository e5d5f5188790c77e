//! Trouble, one after the other, and what an operator does about it.

use std::{collections::BTreeSet, time::Duration};

use anyhow::anyhow;
use mesh_raft::{RaftNode, simulation};
use mesh_types::{NodeId, Role};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    commands,
    network::Weather,
    run::vote,
    scenario::Trouble,
    world::{World, manager},
};

/// How long a membership change may take before it is left for later.
const CHANGE: Duration = Duration::from_secs(8);

/// Makes trouble.
pub struct Nemesis {
    world: World,
    rng: StdRng,
    /// Workers that have forgotten what they knew as managers.
    empty: BTreeSet<NodeId>,
}

impl Nemesis {
    /// No trouble yet.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), rng: world.fork(), empty: BTreeSet::new() }
    }

    /// Makes trouble as long as the scenario says, then puts everything right.
    pub async fn run(mut self) {
        let scenario = self.world.scenario().clone();
        let end = Instant::now() + scenario.length;
        while Instant::now() < end {
            sleep(scenario.pause.mul_f64(self.rng.random())).await;
            if let Some(&trouble) = scenario.troubles.choose(&mut self.rng) {
                self.make(trouble).await;
            }
            self.relieve().await;
        }
        self.world.tell(|| "the trouble is over".to_owned());
        self.calm();
        for id in self.world.machines() {
            self.upgrade(id).await;
            self.world.disk(id).into_iter().for_each(|disk| disk.defuse());
            if self.world.node(id).is_none_or(|node| failed(&node)) {
                self.restart(id).await;
            }
        }
        let patience = Instant::now() + Duration::from_secs(300);
        let machines = self.world.machines();
        while Instant::now() < patience {
            if let Some(leader) = self.leader() {
                let right = || workers(&leader, &machines).is_empty() && vote(&leader, &machines);
                // A change of roles that was given up may still stand in the log (seed 40100): what is decided now comes
                // behind it.
                if right() && self.is_decided(&leader).await && right() {
                    return;
                }
            }
            self.promote_again().await;
            sleep(Duration::from_millis(500)).await;
        }
        self.world
            .hold(Err(anyhow!("not all managers vote again: {:?}", self.leader().map(|l| l.managers()))));
    }

    async fn make(&mut self, trouble: Trouble) {
        let machines = self.world.machines();
        let Some(&victim) = machines.choose(&mut self.rng) else { return };
        self.world.tell(|| format!("{trouble:?}: {victim}"));
        match trouble {
            Trouble::PowerCut => self.world.crash(victim),
            Trouble::PowerCutAtWrite => {
                let changes = self.rng.random_range(0..60);
                self.world.disk(victim).into_iter().for_each(|disk| disk.cut_after(changes));
            }
            Trouble::Blackout => machines.iter().for_each(|id| self.world.crash(*id)),
            Trouble::Stop => self.world.stop(victim).await,
            Trouble::Partition => {
                let (one, other): (Vec<NodeId>, Vec<NodeId>) =
                    self.everyone().into_iter().partition(|_| self.rng.random_bool(0.5));
                for a in &one {
                    for b in &other {
                        self.world.network().cut(*a, *b);
                        self.world.network().cut(*b, *a);
                    }
                }
            }
            Trouble::OneWay => {
                for other in self.everyone() {
                    if other != victim && self.rng.random_bool(0.7) {
                        self.world.network().cut(victim, other);
                    }
                }
            }
            Trouble::SlowDisk => {
                let pace = Duration::from_millis(self.rng.random_range(200..5_000));
                self.world.set_pace(victim, pace);
            }
            Trouble::FullDisk => self.world.disk(victim).into_iter().for_each(|disk| disk.set_full(true)),
            Trouble::HandOver => {
                let leader = self.leader();
                if let Some(leader) = leader.filter(|leader| leader.node() != victim) {
                    let _ = timeout(CHANGE, leader.transfer_leader(victim)).await;
                }
            }
            Trouble::Demote => self.demote(victim).await,
            Trouble::Upgrade => self.upgrade(victim).await,
            Trouble::ChangeKeys => self.world.change_keys(victim),
            Trouble::Storm => {
                let ms = Duration::from_millis;
                let (delay, jitter) =
                    (ms(self.rng.random_range(0..200)), ms(self.rng.random_range(1..1_000)));
                let lost = self.rng.random_range(0.0..0.3);
                self.world.network().set_weather(Weather { delay, jitter, late: 0.1, lost, repeated: 0.2 });
            }
        }
    }

    /// Some of the trouble ends.
    async fn relieve(&mut self) {
        if self.rng.random_bool(0.5) {
            self.calm();
        }
        for id in self.world.machines() {
            let node = self.world.node(id);
            let lame = node.as_ref().is_none_or(failed);
            if lame && self.rng.random_bool(0.6) {
                self.restart(id).await;
            }
        }
        if self.rng.random_bool(0.5) {
            self.promote_again().await;
        }
    }

    /// The wire and the disks are well again.
    fn calm(&mut self) {
        self.world.network().heal();
        self.world.network().set_weather(self.world.scenario().weather);
        for id in self.world.machines() {
            self.world.set_pace(id, self.world.scenario().commit);
            self.world.disk(id).into_iter().for_each(|disk| disk.set_full(false));
        }
    }

    /// What an operator does with a manager that is down or whose Raft has failed.
    async fn restart(&mut self, id: NodeId) {
        self.world.crash(id);
        self.world.disk(id).into_iter().for_each(|disk| disk.set_full(false));
        let started = self.world.start(id).await;
        self.world.hold(started);
    }

    /// Makes a manager a worker; the loop on whoever leads takes it out of Raft.
    async fn demote(&mut self, victim: NodeId) {
        let Some(leader) = self.leader() else { return };
        // Of two, one that is down would leave none that decides.
        if leader.state().managers().count() < 3 {
            return;
        }
        let demoted = timeout(CHANGE, leader.propose(commands::set_role(victim, Role::Worker))).await;
        self.world.tell(|| format!("{victim} is to be a worker: {demoted:?}"));
    }

    /// Gives a machine of the version before this version.
    async fn upgrade(&mut self, id: NodeId) {
        if self.world.upgrade(id) {
            self.world.tell(|| format!("{id} gets the newest version"));
            self.world.stop(id).await;
            self.restart(id).await;
        }
    }

    /// What becomes of a worker that was a manager: it forgets its state once it is certainly out of Raft, and then is made a
    /// manager again.
    async fn promote_again(&mut self) {
        let Some(leader) = self.leader() else { return };
        let workers = workers(&leader, &self.world.machines());
        self.empty.retain(|id| workers.contains(id));
        let Some(&id) = workers.choose(&mut self.rng) else { return };
        if !self.empty.contains(&id) {
            if !self.is_out(&leader, id).await {
                return;
            }
            self.world.tell(|| format!("{id} is out; its disk is wiped"));
            self.world.crash(id);
            self.world.disk(id).into_iter().for_each(|disk| disk.wipe());
            self.empty.insert(id);
        }
        if self.world.node(id).is_none_or(|node| failed(&node)) {
            self.restart(id).await;
        }
        let promoted = timeout(CHANGE, leader.propose(commands::set_role(id, Role::Manager))).await;
        self.world.tell(|| format!("{id} is to be a manager again: {promoted:?}"));
    }

    /// Whether Raft goes on without this one for certain.
    async fn is_out(&self, leader: &RaftNode, id: NodeId) -> bool {
        let (before, members) = (simulation::now(leader), leader.managers());
        if before.changing || members.iter().any(|member| member.node == id) {
            return false;
        }
        let confirmed = self.is_decided(leader).await;
        let now = simulation::now(leader);
        let still = now.term == before.term && now.leads && !now.changing && self.world.is_current(leader);
        confirmed && still && leader.managers() == members
    }

    /// Commits a change, which stands behind all that is in this leader's log, changes of the members too.
    async fn is_decided(&self, leader: &RaftNode) -> bool {
        let change = leader.propose(commands::mark(manager(1), "look"));
        matches!(timeout(CHANGE, change).await, Ok(Ok(_)))
    }

    fn leader(&self) -> Option<RaftNode> {
        self.world.running().into_iter().find(RaftNode::is_leader)
    }

    /// Managers and agents.
    fn everyone(&self) -> Vec<NodeId> {
        let agents = (1..=self.world.scenario().agents).map(crate::agents::agent);
        self.world.machines().into_iter().chain(agents).collect()
    }
}

/// Those of `machines` that are no managers, as the leader knows.
fn workers(leader: &RaftNode, machines: &[NodeId]) -> Vec<NodeId> {
    let state = leader.state();
    let worker = |id: &&NodeId| state.node(**id).is_some_and(|node| node.role == Role::Worker);
    machines.iter().filter(worker).copied().collect()
}

fn failed(node: &RaftNode) -> bool {
    simulation::now(node).failed
}
