//! Published ports.

use std::{collections::BTreeMap, ops::RangeInclusive};

use mesh_types::{PortConfig, Protocol, PublishAt, SharedMap};
use serde::{Deserialize, Serialize};

use crate::number::in_turn;

/// The ports given when none is asked for, as in Swarm.
pub const AUTOMATIC_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The published ports of the cluster and who has each. Transports are apart, and one number may be held at several
/// places that do not overlap. Copies share what did not change between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "H: Clone + Deserialize<'de>"))]
pub struct PortPool<H> {
    held: SharedMap<(Protocol, u16), BTreeMap<PublishAt, H>>,
    last: BTreeMap<Protocol, u16>,
}

impl<H> Default for PortPool<H> {
    fn default() -> Self {
        Self { held: SharedMap::default(), last: BTreeMap::new() }
    }
}

impl<H: Clone + PartialEq> PortPool<H> {
    /// Who stands in the way of the port, and at which place.
    pub fn clash(&self, port: &PortConfig) -> Option<(PublishAt, &H)> {
        let places = self.held.get(&(port.protocol, port.published))?;
        places.iter().find(|(at, _)| at.overlaps(port.at)).map(|(at, holder)| (*at, holder))
    }

    /// The next port of [`AUTOMATIC_PORTS`] that is free at all places, if there is one. Changes nothing.
    pub fn pick(&self, protocol: Protocol) -> Option<u16> {
        let range = u128::from(*AUTOMATIC_PORTS.start())..=u128::from(*AUTOMATIC_PORTS.end());
        in_turn(range, self.last.get(&protocol).map(|port| u128::from(*port)))
            .filter_map(|number| u16::try_from(number).ok())
            .find(|port| !self.held.contains_key(&(protocol, *port)))
    }

    /// Gives `holder` a port that was picked; the next pick goes on behind it.
    pub fn take_picked(&mut self, port: &PortConfig, holder: H) {
        self.take(port, holder);
        self.last.insert(port.protocol, port.published);
    }

    /// Gives `holder` this very port, which must clash with none.
    pub fn take(&mut self, port: &PortConfig, holder: H) {
        let key = (port.protocol, port.published);
        let mut places = self.held.get(&key).cloned().unwrap_or_default();
        places.insert(port.at, holder);
        self.held.insert(key, places);
    }

    /// Frees the port at its place if `holder` has it; tells whether it had.
    pub fn release(&mut self, port: &PortConfig, holder: &H) -> bool {
        let key = (port.protocol, port.published);
        let Some(places) = self.held.get(&key).filter(|places| places.get(&port.at) == Some(holder)) else {
            return false;
        };
        let mut places = places.clone();
        places.remove(&port.at);
        match places.is_empty() {
            true => self.held.remove(&key),
            false => self.held.insert(key, places),
        };
        true
    }

    /// Frees all that `holder` has.
    pub fn release_all(&mut self, holder: &H) {
        let has = |places: &BTreeMap<PublishAt, H>| places.values().any(|h| h == holder);
        let held = self.held.iter().filter(|(_, places)| has(places));
        let held: Vec<_> = held.map(|(key, places)| (*key, places.clone())).collect();
        for (key, mut places) in held {
            places.retain(|_, h| h != holder);
            match places.is_empty() {
                true => self.held.remove(&key),
                false => self.held.insert(key, places),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(published: u16) -> PortConfig {
        PortConfig::new(published, 80, Protocol::Tcp)
    }

    fn read(text: &str) -> PortConfig {
        text.parse().unwrap()
    }

    #[test]
    fn picks_in_turn_per_protocol() {
        let mut p = PortPool::default();
        assert_eq!(p.pick(Protocol::Tcp), Some(30_000));
        p.take_picked(&tcp(30_000), 'a');
        p.take(&read("10.0.0.5:30001:80"), 'a');
        assert_eq!(p.pick(Protocol::Tcp), Some(30_002));
        assert_eq!(p.pick(Protocol::Udp), Some(30_000));
        assert!(!p.release(&tcp(30_000), &'b'));
        p.release_all(&'a');
        assert_eq!(p.pick(Protocol::Tcp), Some(30_001));
        assert_eq!(p, PortPool { held: SharedMap::default(), last: [(Protocol::Tcp, 30_000)].into() });
    }

    #[test]
    fn places_do_not_meet() {
        let mut p = PortPool::default();
        p.take(&read("10.0.0.5:80:80"), 'a');
        p.take(&read("[fd00::5]:80:80"), 'b');
        p.take(&read("eth0:80:80"), 'c');
        assert_eq!(p.clash(&read("10.0.0.5:80:1")).map(|(_, h)| *h), Some('a'));
        assert_eq!(p.clash(&read("eth0:80:1")).map(|(_, h)| *h), Some('c'));
        assert!(p.clash(&read("80:80")).is_some());
        for free in ["10.0.0.6:80:80", "eth1:80:80", "80:80/udp", "81:80"] {
            assert_eq!(p.clash(&read(free)), None, "{free}");
        }
        assert!(!p.release(&read("80:80"), &'a'));
        assert!(p.release(&read("10.0.0.5:80:80"), &'a'));
        assert_eq!(p.clash(&read("10.0.0.5:80:80")), None);
    }

    #[test]
    fn is_exhausted_in_the_end() {
        let mut p = PortPool::default();
        for _ in AUTOMATIC_PORTS {
            let port = p.pick(Protocol::Udp).unwrap();
            p.take_picked(&PortConfig::new(port, 1, Protocol::Udp), ());
        }
        assert_eq!(p.pick(Protocol::Udp), None);
    }
}
