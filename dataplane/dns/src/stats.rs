//! What a server counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since a server was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// Queries answered from the task's networks, empty answers included.
    pub answered: u64,
    /// Of these, how many were told that there is no such name.
    pub unknown: u64,
    /// Of these, how many were cut to the client's size and sent to TCP.
    pub truncated: u64,
    /// Queries given to the node's name servers.
    pub forwarded: u64,
    /// Of these, how many got no answer (none set, none reachable, too many at once) and were told SERVFAIL.
    pub failed: u64,
    /// Messages that were no query.
    pub malformed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) malformed: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn read(&self) -> DnsStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DnsStats {
            answered: of(&self.answered),
            unknown: of(&self.unknown),
            truncated: of(&self.truncated),
            forwarded: of(&self.forwarded),
            failed: of(&self.failed),
            malformed: of(&self.malformed),
        }
    }
}
