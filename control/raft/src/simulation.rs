//! Managers on simulated disks and in virtual time, for simulations: no threads, no files, and what is inside shown. And what
//! befalls a file.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use openraft::{RaftMetrics, SnapshotPolicy, async_runtime::WatchReceiver};
pub use redb::StorageBackend;
use tokio::sync::watch;

use crate::{OpenError, RaftNode, RaftOptions, disk, node, types::TypeConfig, vault::Vault, writer::Writer};

/// When snapshots are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshots {
    /// Entries between two.
    pub every: u64,
    /// Entries kept behind one.
    pub keep: u64,
}

/// What a manager's Raft says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vitals {
    /// The term that it is in.
    pub term: u64,
    /// Whether it leads that term.
    pub leads: bool,
    /// The index of its last entry.
    pub last: Option<u64>,
    /// The index of the last entry that was carried out.
    pub applied: Option<u64>,
    /// The index up to which entries are gone.
    pub purged: Option<u64>,
    /// Whether the managers are being changed: the change may still come to its end or be taken back.
    pub changing: bool,
    /// Whether it has stopped over a failure.
    pub failed: bool,
}

/// Makes the file of a manager that has none.
pub fn create(options: &RaftOptions, backend: impl StorageBackend) -> Result<(), OpenError> {
    disk::create_on(backend, &path(options), options.node)
}

/// The last log entry of the state in `dir`, whose manager must not run: its index, and its bytes as they stand in the file. None
/// if there is none.
pub fn last_entry(dir: &Path) -> Result<Option<(u64, Vec<u8>)>, OpenError> {
    disk::last_entry(&disk::path(dir))
}

/// What failing memory may do to it: one bit of that entry changes, and the file around it is whole.
pub fn change_last_entry(dir: &Path) -> Result<(), OpenError> {
    disk::change_last_entry(&disk::path(dir))
}

/// [`RaftNode::open`] on a file that [`create`] made. A commit takes as long as `pace` says.
pub async fn open(
    options: RaftOptions,
    backend: impl StorageBackend,
    pace: impl FnMut() -> Duration + Send + 'static,
    snapshots: Snapshots,
) -> Result<RaftNode, OpenError> {
    let config = openraft::Config {
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshots.every),
        max_in_snapshot_log_to_keep: snapshots.keep,
        replication_lag_threshold: snapshots.every + snapshots.keep,
        purge_batch_size: 1,
        ..node::config()
    };
    let path = path(&options);
    let vault = Vault(options.cipher.clone());
    let (database, loaded) = disk::open_on(backend, &path, options.node, &vault)?;
    let writer = Writer::start_task(database, path, vault, pace);
    RaftNode::start(options, config, loaded, writer).await
}

/// Follows what `node`'s Raft says of itself.
pub fn vitals(node: &RaftNode) -> watch::Receiver<Vitals> {
    let mut metrics = node.raft().metrics();
    let (tell, watcher) = watch::channel(Vitals::default());
    tokio::spawn(async move {
        loop {
            tell.send_replace(Vitals::of(&metrics.borrow_watched()));
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
    watcher
}

/// What `node`'s Raft says of itself now.
pub fn now(node: &RaftNode) -> Vitals {
    Vitals::of(&node.raft().metrics().borrow_watched())
}

/// Whether both are handles on the same part.
pub fn is_same(one: &RaftNode, other: &RaftNode) -> bool {
    std::ptr::eq(one.raft(), other.raft())
}

impl Vitals {
    fn of(metrics: &RaftMetrics<TypeConfig>) -> Self {
        Self {
            term: metrics.current_term,
            leads: metrics.state.is_leader(),
            last: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            changing: metrics.membership_config.membership().get_joint_config().len() > 1,
            failed: metrics.running_state.is_err(),
        }
    }
}

fn path(options: &RaftOptions) -> PathBuf {
    disk::path(&options.dir)
}
