//! How often somebody may be wrong about a token.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Failures at once before an address has to wait.
const BURST: u32 = 10;
/// One failure is forgiven in this time.
const FORGIVE: Duration = Duration::from_secs(2);
/// Addresses remembered; beyond it all strangers share one allowance.
const ADDRESSES: usize = 4096;

/// Failed joins by address. Right tokens cost nothing, so many nodes behind one address join freely.
#[derive(Debug, Default)]
pub(crate) struct FailedJoins {
    by_address: HashMap<IpAddr, Record>,
    overflow: Option<Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u32,
    since: Instant,
}

impl Record {
    /// What is left of it at `now`.
    fn aged(self, now: Instant) -> Option<Self> {
        let forgiven = now.saturating_duration_since(self.since).as_secs() / FORGIVE.as_secs();
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        let failures = self.failures.checked_sub(forgiven).filter(|left| *left > 0)?;
        Some(Self { failures, since: self.since + FORGIVE * forgiven })
    }
}

impl FailedJoins {
    /// How long `address` must wait before it may try again; none if it may now.
    pub fn wait(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let record = self.by_address.get(&address).copied().or_else(|| self.shared())?.aged(now)?;
        let next = record.since + FORGIVE;
        (record.failures >= BURST).then(|| next.saturating_duration_since(now))
    }

    /// Remembers a failure.
    pub fn failed(&mut self, address: IpAddr, now: Instant) {
        self.by_address.retain(|_, record| record.aged(now).is_some());
        let full = self.by_address.len() >= ADDRESSES && !self.by_address.contains_key(&address);
        let old = if full { self.overflow } else { self.by_address.get(&address).copied() };
        let aged = old.and_then(|record| record.aged(now));
        let failures = aged.map_or(0, |record| record.failures).saturating_add(1).min(BURST);
        let record = Record { failures, since: aged.map_or(now, |record| record.since) };
        if full {
            self.overflow = Some(record);
        } else {
            self.by_address.insert(address, record);
        }
    }

    fn shared(&self) -> Option<Record> {
        self.overflow.filter(|_| self.by_address.len() >= ADDRESSES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn ten_failures_then_one_per_two_seconds() {
        let mut joins = FailedJoins::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert_eq!(joins.wait(ip(1), start), None);
            joins.failed(ip(1), start);
        }
        assert_eq!(joins.wait(ip(1), start), Some(FORGIVE));
        assert_eq!(joins.wait(ip(2), start), None);
        let later = start + FORGIVE;
        assert_eq!(joins.wait(ip(1), later), None);
        joins.failed(ip(1), later);
        assert!(joins.wait(ip(1), later).is_some());
        assert_eq!(joins.wait(ip(1), later + FORGIVE * BURST), None);
    }

    #[test]
    fn memory_is_bounded() {
        let mut joins = FailedJoins::default();
        let start = Instant::now();
        for number in 0..ADDRESSES as u32 + BURST {
            joins.failed(ip(number), start);
        }
        assert_eq!(joins.by_address.len(), ADDRESSES);
        assert!(joins.wait(ip(u32::MAX), start).is_some());
        joins.failed(ip(1), start + FORGIVE * 100);
        assert_eq!(joins.by_address.len(), 1);
    }
}
