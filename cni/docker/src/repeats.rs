//! Finds out that Docker asks for the same pool without end.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use mesh_types::{Family, NetworkId};

/// So many requests for one pool...
const STORM: u32 = 20;
/// ... within such a time are not people's.
const WINDOW: Duration = Duration::from_secs(2);

/// Requests for pools.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    asked: Mutex<HashMap<(NetworkId, Family), (Instant, u32)>>,
}

impl Repeats {
    /// Notes one more; tells whether it is one too many.
    pub fn is_storm(&self, network: NetworkId, family: Family) -> bool {
        self.note(network, family, Instant::now())
    }

    fn note(&self, network: NetworkId, family: Family, now: Instant) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        let (_, count) = asked.entry((network, family)).or_insert((now, 0));
        *count += 1;
        *count > STORM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_many_in_a_short_time() {
        let (repeats, network, begin) = (Repeats::default(), NetworkId::random(), Instant::now());
        let note = |after| repeats.note(network, Family::V4, begin + after);
        assert!((0..STORM).all(|_| !note(Duration::ZERO)));
        assert!(note(Duration::ZERO));
        assert!(!repeats.note(NetworkId::random(), Family::V4, begin));
        assert!(!note(WINDOW));
    }
}
