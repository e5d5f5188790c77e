//! Trouble, one after the other, and what an operator does about it.

use std::{collections::BTreeSet, time::Duration};

use mesh_raft::{RaftNode, simulation};
use mesh_types::NodeId;
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    commands,
    network::Weather,
    scenario::Trouble,
    world::{World, address, manager},
};

/// How long a membership change may take before it is left for later.
const CHANGE: Duration = Duration::from_secs(8);

/// Makes trouble.
pub struct Nemesis {
    world: World,
    rng: StdRng,
    /// Taken out of the cluster, to be added again.
    outside: BTreeSet<NodeId>,
    /// Perhaps taken out.
    unsure: BTreeSet<NodeId>,
}

impl Nemesis {
    /// No trouble yet.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), rng: world.fork(), outside: BTreeSet::new(), unsure: BTreeSet::new() }
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
            self.world.disk(id).into_iter().for_each(|disk| disk.defuse());
            if self.world.node(id).is_none_or(|node| failed(&node)) {
                self.restart(id).await;
            }
        }
        let patience = Instant::now() + Duration::from_secs(300);
        while (!self.outside.is_empty() || !self.unsure.is_empty()) && Instant::now() < patience {
            self.look().await;
            self.add_back().await;
            sleep(Duration::from_millis(500)).await;
        }
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
            Trouble::Replace => self.replace(victim).await,
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
            self.look().await;
            self.add_back().await;
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

    /// Takes a manager out; if that has worked, its disk is wiped and it starts anew.
    async fn replace(&mut self, victim: NodeId) {
        let Some(leader) = self.leader().filter(|leader| leader.node() != victim) else { return };
        // Others that are out count as lost already.
        if leader.managers().len() < 3 || self.outside.contains(&victim) || self.unsure.contains(&victim) {
            return;
        }
        let removed = timeout(CHANGE, leader.remove(victim)).await;
        if !matches!(removed, Ok(Ok(()))) || !self.world.is_current(&leader) {
            self.world.tell(|| format!("{victim} was perhaps taken out"));
            self.unsure.insert(victim);
            return;
        }
        self.wipe(victim).await;
    }

    /// What becomes of a manager that certainly was taken out.
    async fn wipe(&mut self, id: NodeId) {
        self.world.tell(|| format!("{id} was taken out; its disk is wiped"));
        self.world.crash(id);
        self.world.disk(id).into_iter().for_each(|disk| disk.wipe());
        self.outside.insert(id);
        self.restart(id).await;
    }

    /// Finds out what has become of one that was perhaps taken out.
    async fn look(&mut self) {
        let Some(&id) = self.unsure.first() else { return };
        let Some(leader) = self.leader() else { return };
        if simulation::now(&leader).changing {
            // Half of a change was made. Another one, that changes nothing, ends it.
            let _ = timeout(CHANGE, leader.promote(leader.node())).await;
            return;
        }
        // A change that this leader commits stands behind all that is in its log, changes of the members too.
        let (term, members) = (simulation::now(&leader).term, leader.managers());
        let confirmed = timeout(CHANGE, leader.propose(commands::mark(manager(1), "look"))).await;
        let still = simulation::now(&leader).term == term && self.world.is_current(&leader);
        if !matches!(confirmed, Ok(Ok(_))) || !still || leader.managers() != members {
            return;
        }
        self.world.tell(|| format!("{id} was perhaps taken out; now there are {members:?}"));
        self.unsure.remove(&id);
        if !members.iter().any(|member| member.node == id) {
            self.wipe(id).await;
        }
    }

    /// Adds one that is outside, as learner, then as voter.
    async fn add_back(&mut self) {
        let Some(&id) = self.outside.first() else { return };
        let Some(leader) = self.leader() else { return };
        if self.world.node(id).is_none_or(|node| failed(&node)) {
            self.restart(id).await;
        }
        let added = timeout(CHANGE, leader.add_learner(id, address(id))).await;
        let promoted = match added {
            Ok(Ok(())) => timeout(CHANGE, leader.promote(id)).await,
            other => other,
        };
        if matches!(promoted, Ok(Ok(()))) {
            self.world.tell(|| format!("{id} votes again"));
            self.outside.remove(&id);
        } else {
            self.world.tell(|| format!("{id} was perhaps not added: {promoted:?}"));
        }
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

fn failed(node: &RaftNode) -> bool {
    simulation::now(node).failed
}
