//! Published ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use mesh_types::Protocol;
use serde::{Deserialize, Serialize};

use crate::number::in_turn;

/// The ports given when none is asked for, as in Swarm.
pub const AUTOMATIC_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The published ports of the cluster and who has each. TCP and UDP are apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPool<H> {
    held: BTreeMap<(Protocol, u16), H>,
    last: BTreeMap<Protocol, u16>,
}

impl<H> Default for PortPool<H> {
    fn default() -> Self {
        Self { held: BTreeMap::new(), last: BTreeMap::new() }
    }
}

impl<H: Clone + PartialEq> PortPool<H> {
    /// Who has the port.
    pub fn holder(&self, protocol: Protocol, port: u16) -> Option<&H> {
        self.held.get(&(protocol, port))
    }

    /// The next free port of [`AUTOMATIC_PORTS`] outside `but`, if there is one. Changes nothing.
    pub fn pick(&self, protocol: Protocol, but: &BTreeSet<(Protocol, u16)>) -> Option<u16> {
        let range = u128::from(*AUTOMATIC_PORTS.start())..=u128::from(*AUTOMATIC_PORTS.end());
        in_turn(range, self.last.get(&protocol).map(|port| u128::from(*port)))
            .filter_map(|number| u16::try_from(number).ok())
            .find(|port| !self.held.contains_key(&(protocol, *port)) && !but.contains(&(protocol, *port)))
    }

    /// Gives `holder` a port that was picked; the next pick goes on behind it.
    pub fn take_picked(&mut self, protocol: Protocol, port: u16, holder: H) {
        self.take(protocol, port, holder);
        self.last.insert(protocol, port);
    }

    /// Gives `holder` this very port, which must be free.
    pub fn take(&mut self, protocol: Protocol, port: u16, holder: H) {
        self.held.insert((protocol, port), holder);
    }

    /// Frees the port if `holder` has it; tells whether it had.
    pub fn release(&mut self, protocol: Protocol, port: u16, holder: &H) -> bool {
        let its_own = self.holder(protocol, port) == Some(holder);
        if its_own {
            self.held.remove(&(protocol, port));
        }
        its_own
    }

    /// Frees all that `holder` has.
    pub fn release_all(&mut self, holder: &H) {
        self.held.retain(|_, h| h != holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_in_turn_per_protocol() {
        let mut p = PortPool::default();
        let none = BTreeSet::new();
        assert_eq!(p.pick(Protocol::Tcp, &none), Some(30_000));
        p.take_picked(Protocol::Tcp, 30_000, 'a');
        p.take(Protocol::Tcp, 30_001, 'a');
        assert_eq!(p.pick(Protocol::Tcp, &none), Some(30_002));
        assert_eq!(p.pick(Protocol::Tcp, &[(Protocol::Tcp, 30_002)].into()), Some(30_003));
        assert_eq!(p.pick(Protocol::Udp, &none), Some(30_000));
        assert!(!p.release(Protocol::Tcp, 30_000, &'b'));
        p.release_all(&'a');
        assert_eq!(p.pick(Protocol::Tcp, &none), Some(30_001));
    }

    #[test]
    fn is_exhausted_in_the_end() {
        let mut p = PortPool::default();
        for _ in AUTOMATIC_PORTS {
            let port = p.pick(Protocol::Udp, &BTreeSet::new()).unwrap();
            p.take_picked(Protocol::Udp, port, ());
        }
        assert_eq!(p.pick(Protocol::Udp, &BTreeSet::new()), None);
    }
}
