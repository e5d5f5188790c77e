//! What name servers count.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Upper bounds of the buckets of [`DnsHistogram`], in microseconds.
pub const LATENCY_BOUNDS: [u64; 16] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    5_000_000,
];

/// Counts since a start: of a server, or of all servers of a node, those that ended included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsStats {
    /// Queries answered from the task's networks, empty answers included.
    pub answered: u64,
    /// Of these, how many were told that there is no such name.
    pub unknown: u64,
    /// Of these, how many were cut to the client's size and sent to TCP.
    pub truncated: u64,
    /// Queries given to the node's name servers, or answered as those did before.
    pub forwarded: u64,
    /// Of these, how many were answered from what is kept.
    pub kept: u64,
    /// Of these, how many name servers answered.
    pub relayed: u64,
    /// Of these, how many got no answer (none set, none reachable, too many at once) and were told SERVFAIL.
    pub failed: u64,
    /// Messages that were no query.
    pub malformed: u64,
    /// How long answers about our own names took, and those about others that were kept, from when the query was read from
    /// its socket to when the answer was given to the kernel; of queries by UDP.
    pub own: DnsHistogram,
    /// How long it took to have an answer, or none, from name servers outside; of queries by UDP and TCP.
    pub outside: DnsHistogram,
}

/// How many took how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsHistogram {
    /// Those that took no longer than the bound of [`LATENCY_BOUNDS`] at the same place, and longer than the one before;
    /// the last: longer than all.
    pub buckets: [u64; LATENCY_BOUNDS.len() + 1],
    /// All durations together, in nanoseconds.
    pub nanos: u64,
}

impl DnsHistogram {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) answered: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) forwarded: AtomicU64,
    pub(crate) kept: AtomicU64,
    pub(crate) relayed: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) own: Histogram,
    pub(crate) outside: Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; LATENCY_BOUNDS.len() + 1],
    nanos: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64) {
    add(counter, 1);
}

fn add(counter: &AtomicU64, many: u64) {
    counter.fetch_add(many, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Histogram {
    /// So many took this long each.
    pub(crate) fn observe(&self, took: Duration, many: u64) {
        let micros = u64::try_from(took.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            add(bucket, many);
        }
        add(&self.nanos, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).saturating_mul(many));
    }

    fn read(&self) -> DnsHistogram {
        DnsHistogram { buckets: std::array::from_fn(|at| self.buckets.get(at).map_or(0, read)), nanos: read(&self.nanos) }
    }

    fn add(&self, other: &DnsHistogram) {
        self.buckets.iter().zip(other.buckets).for_each(|(bucket, many)| add(bucket, many));
        add(&self.nanos, other.nanos);
    }
}

impl Counters {
    pub(crate) fn read(&self) -> DnsStats {
        DnsStats {
            answered: read(&self.answered),
            unknown: read(&self.unknown),
            truncated: read(&self.truncated),
            forwarded: read(&self.forwarded),
            kept: read(&self.kept),
            relayed: read(&self.relayed),
            failed: read(&self.failed),
            malformed: read(&self.malformed),
            own: self.own.read(),
            outside: self.outside.read(),
        }
    }

    /// Takes over what another one counted.
    pub(crate) fn add(&self, other: &DnsStats) {
        add(&self.answered, other.answered);
        add(&self.unknown, other.unknown);
        add(&self.truncated, other.truncated);
        add(&self.forwarded, other.forwarded);
        add(&self.kept, other.kept);
        add(&self.relayed, other.relayed);
        add(&self.failed, other.failed);
        add(&self.malformed, other.malformed);
        self.own.add(&other.own);
        self.outside.add(&other.outside);
    }
}

/// The counters of all servers of a node. What was counted stays when a server ends, so that sums never go down.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    running: Mutex<Vec<Arc<Counters>>>,
    ended: Counters,
}

impl Ledger {
    /// The counters of a server that begins.
    pub(crate) fn begin(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.lock().push(Arc::clone(&counters));
        counters
    }

    /// Takes leave of a server. What is still counted for it is not seen.
    pub(crate) fn end(&self, counters: &Arc<Counters>) {
        let mut running = self.lock();
        if let Some(at) = running.iter().position(|c| Arc::ptr_eq(c, counters)) {
            running.swap_remove(at);
            self.ended.add(&counters.read());
        }
    }

    /// All that was counted.
    pub(crate) fn read(&self) -> DnsStats {
        let sum = Counters::default();
        let running = self.lock();
        running.iter().for_each(|counters| sum.add(&counters.read()));
        sum.add(&self.ended.read());
        sum.read()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_reach() {
        let counters = Counters::default();
        let (micro, nano) = (Duration::from_micros, Duration::from_nanos);
        for (took, many) in
            [(nano(0), 1), (micro(10), 2), (nano(10_001), 4), (micro(5_000_000), 8), (micro(5_000_001), 16)]
        {
            counters.own.observe(took, many);
        }
        let own = counters.read().own;
        let found: Vec<_> = own.buckets.iter().enumerate().filter(|(_, many)| **many > 0).collect();
        assert_eq!(found, [(0, &3), (1, &4), (15, &8), (16, &16)]);
        assert_eq!(own.count(), 31);
        assert_eq!(own.nanos, 2 * 10_000 + 4 * 10_001 + 8 * 5_000_000_000 + 16 * 5_000_001_000);
    }

    #[test]
    fn what_was_counted_stays_when_a_server_ends() {
        let ledger = Ledger::default();
        let (one, other) = (ledger.begin(), ledger.begin());
        count(&one.answered);
        count(&one.malformed);
        one.outside.observe(Duration::from_millis(3), 5);
        count(&other.answered);
        let both = ledger.read();
        assert_eq!((both.answered, both.malformed, both.outside.count()), (2, 1, 5));
        assert_eq!(both.outside.nanos, 15_000_000);
        ledger.end(&one);
        assert_eq!(ledger.read(), both);
        // Twice is once.
        ledger.end(&one);
        assert_eq!(ledger.read(), both);
    }
}
