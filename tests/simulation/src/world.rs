//! The cluster under simulation: managers that start and end, and what is noted of them.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use mesh_raft::{Cipher, RaftNode, RaftOptions, simulation};
use mesh_store::{NEWEST_FORMAT, OLDEST_FORMAT};
use mesh_types::NodeId;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::Disk,
    history::History,
    invariants::{
        addresses::{self, InUse},
        equal_states::States,
        lost_writes::Marks,
        one_leader::Leaders,
    },
    keys::Keys,
    network::{Link, Network},
    scenario::Scenario,
    trace::Trace,
};

/// All of it; clones are the same world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    scenario: Scenario,
    network: Network,
    trace: Trace,
    history: History,
    managers: Mutex<BTreeMap<NodeId, Manager>>,
    notes: Mutex<Notes>,
    rng: Mutex<StdRng>,
}

/// What the invariants need to know.
#[derive(Debug, Default)]
pub struct Notes {
    /// Who led.
    pub leaders: Leaders,
    /// States of the managers.
    pub states: States,
    /// Acknowledged marks.
    pub marks: Marks,
    /// Addresses on tasks.
    pub in_use: InUse,
    /// What did not hold, first things first.
    pub broken: Vec<anyhow::Error>,
}

/// A machine for a manager.
struct Manager {
    disk: Disk,
    /// How often it was started.
    starts: u64,
    /// What runs on it, if it is up.
    node: Option<RaftNode>,
    /// How long a commit takes at most.
    pace: Arc<Mutex<Duration>>,
    /// What its disk is encrypted with, if it is.
    keys: Option<Keys>,
    /// The newest format that its meshd reads.
    newest_format: u8,
    /// Ends the loops beside what runs.
    stop: CancellationToken,
}

impl World {
    /// A world with so many machines, all down, on empty disks.
    pub fn new(scenario: Scenario, trace: Trace) -> Self {
        let mut rng = StdRng::seed_from_u64(scenario.seed);
        let network = Network::new(scenario.weather, StdRng::from_rng(&mut rng));
        let managers = (1..=scenario.managers).map(|number| {
            let pace = Arc::new(Mutex::new(scenario.commit));
            let disk = Disk::new(StdRng::from_rng(&mut rng));
            let keys = scenario.encrypted.then(Keys::new);
            (
                manager(number),
                Manager {
                    disk,
                    starts: 0,
                    node: None,
                    pace,
                    keys,
                    newest_format: if number <= scenario.older { OLDEST_FORMAT } else { NEWEST_FORMAT },
                    stop: CancellationToken::new(),
                },
            )
        });
        let managers = Mutex::new(managers.collect());
        let (history, notes) = (History::default(), Mutex::default());
        Self(Arc::new(Inner { scenario, network, trace, history, managers, notes, rng: Mutex::new(rng) }))
    }

    /// What was chosen for this seed.
    pub fn scenario(&self) -> &Scenario {
        &self.0.scenario
    }

    /// The wire.
    pub fn network(&self) -> &Network {
        &self.0.network
    }

    /// What clients did.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// What the invariants know.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.0.notes)
    }

    /// A source of randomness of its own.
    pub fn fork(&self) -> StdRng {
        StdRng::from_rng(&mut *lock(&self.0.rng))
    }

    /// Notes what happens.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        self.0.trace.tell(what);
    }

    /// Notes what did not hold, if it did not.
    pub fn hold(&self, held: Result<()>) {
        if let Err(error) = held {
            self.tell(|| format!("BROKEN: {error:#}"));
            self.notes().broken.push(error);
        }
    }

    /// All machines.
    pub fn machines(&self) -> Vec<NodeId> {
        lock(&self.0.managers).keys().copied().collect()
    }

    /// The managers that are up.
    pub fn running(&self) -> Vec<RaftNode> {
        lock(&self.0.managers).values().filter_map(|manager| manager.node.clone()).collect()
    }

    /// What runs on a machine, if it is up.
    pub fn node(&self, id: NodeId) -> Option<RaftNode> {
        lock(&self.0.managers).get(&id)?.node.clone()
    }

    /// Whether this start of a manager is up.
    pub fn is_current(&self, node: &RaftNode) -> bool {
        self.node(node.node()).is_some_and(|current| simulation::is_same(&current, node))
    }

    /// The disk of a machine.
    pub fn disk(&self, id: NodeId) -> Option<Disk> {
        lock(&self.0.managers).get(&id).map(|manager| manager.disk.clone())
    }

    /// How long a commit on a machine takes at most, from now on.
    pub fn set_pace(&self, id: NodeId, pace: Duration) {
        if let Some(manager) = lock(&self.0.managers).get(&id) {
            *lock(&manager.pace) = pace;
        }
    }

    /// A manager's disk is encrypted with another key from now on, if it is encrypted.
    pub fn change_keys(&self, id: NodeId) {
        if let Some(keys) = lock(&self.0.managers).get(&id).and_then(|manager| manager.keys.as_ref()) {
            keys.change();
        }
    }

    /// From its next start on a machine has the newest meshd; whether it had an older one.
    pub fn upgrade(&self, id: NodeId) -> bool {
        let mut managers = lock(&self.0.managers);
        let Some(manager) = managers.get_mut(&id) else { return false };
        std::mem::replace(&mut manager.newest_format, NEWEST_FORMAT) != NEWEST_FORMAT
    }

    /// Starts a machine that is down. Its file is made if it has none.
    pub async fn start(&self, id: NodeId) -> Result<()> {
        let (disk, start, pace, keys, newest_format) = {
            let mut managers = lock(&self.0.managers);
            let manager = managers.get_mut(&id).context("no such machine")?;
            manager.starts += 1;
            let Manager { disk, pace, keys, newest_format, .. } = manager;
            (disk.clone(), manager.starts, pace.clone(), keys.clone(), *newest_format)
        };
        let cipher = keys.clone().map(|keys| Arc::new(keys) as Arc<dyn Cipher>);
        let transport = Arc::new(Link { network: self.0.network.clone(), own: id, start });
        let (dir, advertise) = (PathBuf::from("/"), address(id));
        let options = RaftOptions { dir, node: id, advertise, transport, cipher, newest_format };
        if disk.is_empty() {
            // The real file is made under another name and then renamed: it is whole or not there.
            simulation::create(&options, disk.open())?;
            disk.settle();
        }
        let era = disk.era();
        let mut rng = self.fork();
        let commit = move || lock(&pace).mul_f64(rng.random::<f64>());
        let opened = simulation::open(options, disk.open(), commit, self.0.scenario.snapshots).await;
        let node = match opened {
            Ok(node) => node,
            Err(_) if disk.era() != era => {
                self.tell(|| format!("{id} lost power while it started"));
                return Ok(());
            }
            Err(error) => return Err(anyhow!(error).context(format!("{id} does not start"))),
        };
        if disk.era() != era {
            retire(node);
            return Ok(());
        }
        // What an earlier key had sealed was sealed anew and synced.
        keys.into_iter().for_each(|keys| keys.forget_earlier());
        let stop = CancellationToken::new();
        self.tell(|| format!("{id} is up, start {start}, version {}", node.state().version()));
        self.0.network.plug(start, node.clone());
        if let Some(manager) = lock(&self.0.managers).get_mut(&id) {
            manager.node = Some(node.clone());
            manager.stop = stop.clone();
        }
        if self.0.scenario.older > 0 {
            tokio::spawn(mesh_manager::simulation::follow_versions(node.clone(), stop.clone()));
        }
        tokio::spawn(mesh_manager::simulation::follow_roles(node.clone(), stop));
        self.observe(start, &node);
        self.watch_power(id, start, disk, era);
        Ok(())
    }

    /// A machine's power goes.
    pub fn crash(&self, id: NodeId) {
        if let Some(disk) = self.disk(id) {
            disk.cut();
            self.down(id, "power cut");
        }
    }

    /// A manager ends in order.
    pub async fn stop(&self, id: NodeId) {
        let Some(node) = self.node(id) else { return };
        self.tell(|| format!("{id} ends in order"));
        node.shutdown().await;
        if let Some(disk) = self.disk(id) {
            disk.settle();
        }
        self.down(id, "ended");
    }

    /// Waits until `done`, at most so long.
    pub async fn wait(&self, what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !done() {
            if Instant::now() > end {
                return Err(anyhow!("{what} did not happen within {limit:?}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn down(&self, id: NodeId, why: &str) {
        let node = lock(&self.0.managers).get_mut(&id).and_then(|manager| {
            manager.stop.cancel();
            manager.node.take()
        });
        self.0.network.unplug(id);
        if let Some(node) = node {
            self.tell(|| format!("{id} is down: {why}"));
            retire(node);
        }
    }

    /// Notes leaderships and states of one start of a manager, for as long as it is up.
    fn observe(&self, start: u64, node: &RaftNode) {
        let id = node.node();
        let mut vitals = simulation::vitals(node);
        let world = self.clone();
        tokio::spawn(async move {
            let mut led = None;
            while vitals.changed().await.is_ok() && world.network().is_up(id, start) {
                let now = *vitals.borrow_and_update();
                if now.leads && led != Some(now.term) {
                    led = Some(now.term);
                    world.tell(|| format!("{id} leads term {}", now.term));
                    let held = world.notes().leaders.leads(now.term, id);
                    world.hold(held);
                }
            }
        });
        let mut states = node.watch();
        let world = self.clone();
        tokio::spawn(async move {
            let mut version = 0;
            while world.network().is_up(id, start) {
                let state = states.borrow_and_update().clone();
                if state.version() < version {
                    world.hold(Err(anyhow!("{id} went from version {version} back to {}", state.version())));
                }
                version = state.version();
                let held = world.notes().states.seen(id, &state);
                world.hold(held);
                world.hold(addresses::check(&state));
                if states.changed().await.is_err() {
                    return;
                }
            }
        });
    }

    /// A machine whose fuse has burnt down is down from that moment.
    fn watch_power(&self, id: NodeId, start: u64, disk: Disk, era: u64) {
        let world = self.clone();
        tokio::spawn(async move {
            disk.lost_power(era).await;
            if world.network().is_up(id, start) {
                world.down(id, "power cut at a write");
            }
        });
    }
}

/// Ends the remains of a manager that is cut off from disk and wire already.
fn retire(node: RaftNode) {
    tokio::spawn(async move { node.shutdown().await });
}

/// The machine of this number.
pub fn manager(number: u8) -> NodeId {
    NodeId::from_u128(number.into())
}

/// Where its manager API would be.
pub fn address(id: NodeId) -> SocketAddr {
    let number = u8::try_from(id.as_u128() & 0xff).unwrap_or(u8::MAX);
    SocketAddr::from(([192, 168, 0, number], 2377))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
