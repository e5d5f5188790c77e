//! How often an address may be wrong about a login.
//!
//! A token has 256 bits and two minutes: nobody guesses it. What is bounded is what guessing costs. A right token is
//! never refused, so that whoever guesses behind the same address locks nobody out.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Wrong guesses at once before an address has to wait.
const BURST: u32 = 10;
/// One guess is forgiven in this time.
const FORGIVE: Duration = Duration::from_secs(6);
/// Addresses remembered; all others share one allowance.
const ADDRESSES: usize = 1024;

/// Wrong guesses by address.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    by_address: HashMap<Option<IpAddr>, Record>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// Until then all of its guesses are forgiven.
    until: Instant,
}

impl Guesses {
    /// Notes a wrong guess; answers with how long its address has to wait, if it has guessed too often.
    pub fn wrong(&mut self, address: IpAddr, now: Instant) -> Option<Duration> {
        self.by_address.retain(|_, record| record.until > now);
        let known = self.by_address.contains_key(&Some(address));
        let place = (known || self.by_address.len() < ADDRESSES).then_some(address);
        let record = self.by_address.entry(place).or_insert(Record { until: now });
        let waits = record.until.saturating_duration_since(now);
        let full = FORGIVE * BURST;
        if waits + FORGIVE > full {
            return Some(waits + FORGIVE - full);
        }
        record.until = now + waits + FORGIVE;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_guesses_then_one_in_six_seconds() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let (here, there) = ([127, 0, 0, 1].into(), [10, 0, 0, 1].into());
        for _ in 0..BURST {
            assert_eq!(guesses.wrong(here, now), None);
        }
        assert_eq!(guesses.wrong(here, now), Some(FORGIVE));
        assert_eq!(guesses.wrong(there, now), None);
        assert_eq!(guesses.wrong(here, now + FORGIVE), None);
        assert!(guesses.wrong(here, now + FORGIVE).is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        for n in 0..10 * ADDRESSES {
            guesses.wrong(IpAddr::V4(u32::try_from(n).unwrap().into()), now);
        }
        assert_eq!(guesses.by_address.len(), ADDRESSES + 1);
        guesses.wrong([127, 0, 0, 1].into(), now + FORGIVE * BURST);
        assert_eq!(guesses.by_address.len(), 1);
    }
}
