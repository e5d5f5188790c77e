//! How far one manager is.

use openraft::async_runtime::WatchReceiver;

use super::RaftNode;

/// What one manager knows of itself, without asking anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Whether it leads, as far as it knows.
    pub leads: bool,
    /// Whether it knows who leads.
    pub has_leader: bool,
    /// The term, which grows with each election.
    pub term: u64,
    /// The last entry of its log; 0 before the first.
    pub last: u64,
    /// The last entry that it knows to be decided.
    pub committed: u64,
    /// The last entry that is in its state.
    pub applied: u64,
    /// The last entry of its newest snapshot.
    pub snapshot: u64,
}

impl RaftNode {
    /// How far this manager is.
    pub fn progress(&self) -> Progress {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<u64>| id.unwrap_or(0);
        Progress {
            leads: self.is_leader(),
            has_leader: self.leader().is_some(),
            term: metrics.current_term,
            last: index(metrics.last_log_index),
            committed: index(metrics.local_committed.as_ref().map(|id| id.index)),
            applied: index(metrics.last_applied.as_ref().map(|id| id.index)),
            snapshot: index(metrics.snapshot.as_ref().map(|id| id.index)),
        }
    }
}
