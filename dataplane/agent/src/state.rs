//! What the agent knows, behind one lock that is never held across an await.

mod before;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use mesh_types::{ClusterView, Endpoint, Generation, LocalEndpointId, NetworkId, Owner, PortConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    Hold, Leases, LocalTask, NsIdentity,
    heard::HeardLog,
    kept::{self, Durability, Format, KeptError},
    leases::KeptLeases,
    uplinks::DataPathAddress,
};

/// Endpoints by table: that of their network, or the ingress network's.
pub type Remote = BTreeMap<NetworkId, Vec<Arc<Endpoint>>>;

/// Most endpoints of one node: as many as there are node-local egress addresses.
pub const MAX_ENDPOINTS: u32 = (1 << 14) - 2;

/// See the module.
#[derive(Debug)]
pub struct State {
    /// What the managers decided.
    pub view: Arc<ClusterView>,
    /// The tasks of this node. The planner knows by the allocation that nothing changed.
    pub tasks: Arc<Vec<LocalTask>>,
    /// Tasks of before a reboot whose namespaces have not come back yet; they keep names and addresses.
    pub absent: Vec<LocalTask>,
    /// The addresses leased to it.
    pub leases: Leases,
    /// Addresses that are kept for somebody.
    pub holds: Vec<Hold>,
    /// What attaches and detaches under way hold.
    pub reserved: BTreeMap<u64, Reservation>,
    /// Whether the node leaves its cluster; nothing is attached any more.
    pub leaving: bool,
    /// The last generation given out.
    pub generation: Generation,
    /// Until when what the others ran before this start is believed, where gossip has not told anew.
    pub remember_until: Option<Instant>,
    /// Where VXLAN packets come from and go to, as it was last.
    pub data_path: Option<DataPathAddress>,
    /// Since when no interface has had it.
    pub data_path_lost: Option<Instant>,
    /// Where other nodes reach this one, as it was last.
    pub advertise: Option<DataPathAddress>,
    /// Since when no interface has had it.
    pub advertise_lost: Option<Instant>,
}

/// What an attach or detach under way holds, so that no other takes it.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The namespace.
    pub namespace: NsIdentity,
    /// The task's name, on these networks.
    pub name: mesh_types::Name,
    /// The networks; none for a detach, whose name is free at once.
    pub networks: Vec<NetworkId>,
    /// Endpoint ids.
    pub ids: Vec<LocalEndpointId>,
    /// For whom it is done.
    pub owners: Vec<Owner>,
    /// Ports of the node.
    pub host_ports: Vec<PortConfig>,
}

impl Reservation {
    /// Whether a task is ended, not made or changed.
    pub fn is_detach(&self) -> bool {
        self.networks.is_empty()
    }
}

impl State {
    /// The tasks, to change them.
    pub fn tasks_mut(&mut self) -> &mut Vec<LocalTask> {
        Arc::make_mut(&mut self.tasks)
    }

    /// The networks of attaches under way.
    pub fn attaching(&self) -> BTreeSet<NetworkId> {
        self.reserved.values().flat_map(|r| r.networks.iter().copied()).collect()
    }

    /// The lowest endpoint ids that no task has, and a new generation for them.
    pub fn free_ids(&mut self, count: usize) -> Option<(Vec<LocalEndpointId>, Generation)> {
        let attached = self.tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.local_id));
        let reserved = self.reserved.values().flat_map(|r| r.ids.iter().copied());
        let used: BTreeSet<_> = attached.chain(reserved).collect();
        let ids: Vec<_> =
            (1..=MAX_ENDPOINTS).map(LocalEndpointId).filter(|id| !used.contains(id)).take(count).collect();
        self.generation = Generation(self.generation.0.wrapping_add(1));
        (ids.len() == count).then_some((ids, self.generation))
    }
}

/// Tells one boot of the machine from another.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Tasks as they were kept.
#[derive(Debug)]
pub struct Tasks {
    /// Those that ran when the daemon ended.
    pub running: Vec<LocalTask>,
    /// Those of before a reboot whose namespaces may come back by their names.
    pub absent: Vec<LocalTask>,
    /// Addresses that are kept for somebody.
    pub holds: Vec<Hold>,
    /// The last generation given out.
    pub generation: Generation,
}

/// Paths of the kept files.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    /// Whoever writes the leases.
    leases: Arc<Mutex<()>>,
    /// Told when there is something that the disk does not have.
    unsettled: Arc<Notify>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptTasks {
    pub boot: String,
    pub tasks: Vec<LocalTask>,
    pub generation: Generation,
    pub holds: Vec<Hold>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptView {
    pub view: ClusterView,
    pub managers: Vec<std::net::SocketAddr>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeasesOfBoot {
    pub boot: String,
    pub leases: KeptLeases,
}

const VIEW: &str = "view";
const LEASES: &str = "leases";
/// The log of what the others run.
const HEARD: &str = "heard";
/// The same as it was kept before it was a log.
const HEARD_BEFORE: &str = "endpoints";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct RemoteBefore(Remote);

impl Format for KeptTasks {
    fn before(payload: &[u8]) -> Option<Self> {
        postcard::from_bytes(payload).ok().map(|kept: before::TasksBefore| kept.into())
    }
}
impl Format for KeptView {}
impl Format for LeasesOfBoot {}
impl Format for RemoteBefore {}
impl Format for DataPathAddress {}

impl Files {
    /// Files below the daemon's state folder.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), leases: Arc::default(), unsettled: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn save_soon<T: Format>(&self, name: &str, value: &T) -> Result<(), KeptError> {
        kept::save(&self.path(name), value, Durability::Soon)?;
        self.unsettled.notify_one();
        Ok(())
    }

    /// Has the disk take what was saved, whenever something was.
    pub async fn keep_settled(self) {
        loop {
            self.settle().await;
            self.unsettled.notified().await;
        }
    }

    /// Has the disk take what was saved: a thread may wait for that, and the others need not.
    pub async fn settle(&self) {
        let files = self.clone();
        let settled = tokio::task::spawn_blocking(move || {
            [VIEW, LEASES].into_iter().try_for_each(|name| kept::settle(&files.path(name)))
        });
        if let Ok(Err(error)) = settled.await {
            warn!(%error, "have the disk take what is kept");
        }
    }

    /// Keeps the decided state.
    pub fn save_view(
        &self,
        view: &ClusterView,
        managers: Vec<std::net::SocketAddr>,
    ) -> Result<(), KeptError> {
        let kept = KeptView { view: view.clone(), managers };
        self.save_soon(VIEW, &kept)
    }

    /// The decided state as it was kept.
    pub fn load_view(&self) -> Result<Option<(ClusterView, Vec<std::net::SocketAddr>)>, KeptError> {
        Ok(kept::load(&self.path(VIEW))?.map(|k: KeptView| (k.view, k.managers)))
    }

    /// Keeps the leases. Of several callers at a time each looks when it is its turn: what was before never replaces what was
    /// after.
    pub fn save_leases(&self, now: impl FnOnce() -> KeptLeases) -> Result<(), KeptError> {
        let _turn = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = LeasesOfBoot { boot: boot_id(), leases: now() };
        self.save_soon(LEASES, &kept)
    }

    /// The leases as they were kept, and whether that was since the machine booted.
    pub fn load_leases(&self) -> Result<(KeptLeases, bool), KeptError> {
        let kept: Option<LeasesOfBoot> = kept::load(&self.path(LEASES))?;
        Ok(kept.map(|kept| (kept.leases, kept.boot == boot_id())).unwrap_or_default())
    }

    /// Keeps the tasks. They come back after a reboot only if their namespaces do, so this does not wait for the disk.
    pub fn save_tasks(
        &self,
        tasks: Vec<LocalTask>,
        holds: Vec<Hold>,
        generation: Generation,
    ) -> Result<(), KeptError> {
        let kept = KeptTasks { boot: boot_id(), tasks, generation, holds };
        kept::save(&self.path("tasks"), &kept, Durability::Process)
    }

    /// The tasks as they were kept.
    pub fn load_tasks(&self) -> Result<Tasks, KeptError> {
        let kept: Option<KeptTasks> = kept::load(&self.path("tasks"))?;
        let Some(KeptTasks { boot, tasks, generation, holds }) = kept else {
            let (running, absent, holds) = Default::default();
            return Ok(Tasks { running, absent, holds, generation: Generation(0) });
        };
        if boot == boot_id() {
            return Ok(Tasks { running: tasks, absent: Vec::new(), holds, generation });
        }
        // Pids and numbers of namespaces may be the same; they are others'.
        let absent = tasks.into_iter().filter(|task| task.namespace.pid().is_none()).collect();
        Ok(Tasks { running: Vec::new(), absent, holds, generation })
    }

    /// Keeps what the others run, as it is heard.
    pub fn heard_log(&self) -> HeardLog {
        HeardLog::new(self.path(HEARD), self.path(HEARD_BEFORE))
    }

    /// What the others ran.
    pub fn load_remote(&self) -> Result<Remote, KeptError> {
        if let Some(remote) = HeardLog::load(&self.path(HEARD))? {
            return Ok(remote);
        }
        Ok(kept::load::<RemoteBefore>(&self.path(HEARD_BEFORE))?.map(|kept| kept.0).unwrap_or_default())
    }

    /// Keeps the data path address.
    pub fn save_data_path(&self, address: &DataPathAddress) -> Result<(), KeptError> {
        kept::save(&self.path("data-path"), address, Durability::Disk)
    }

    /// The data path address of last time.
    pub fn load_data_path(&self) -> Result<Option<DataPathAddress>, KeptError> {
        kept::load(&self.path("data-path"))
    }

    /// Keeps the address at which other nodes reach this one.
    pub fn save_advertise(&self, address: &DataPathAddress) -> Result<(), KeptError> {
        kept::save(&self.path("advertise"), address, Durability::Disk)
    }

    /// That address as it was last time.
    pub fn load_advertise(&self) -> Result<Option<DataPathAddress>, KeptError> {
        kept::load(&self.path("advertise"))
    }

    /// Removes all of them; for a node that left its cluster.
    pub fn remove(&self) -> std::io::Result<()> {
        for name in [VIEW, "tasks", LEASES, HEARD, HEARD_BEFORE, "data-path", "advertise"] {
            kept::remove(&self.path(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
