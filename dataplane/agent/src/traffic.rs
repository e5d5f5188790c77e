//! What the networks of this node carried since the daemon's start. Pure.
//!
//! The kernel counts by endpoint, and forgets an endpoint's numbers when it is gone. Sums of what is there would go down
//! then, which a counter must not: so the sums add what each endpoint counted from one look to the next.

use std::collections::BTreeMap;

use mesh_lb::Traffic;
use mesh_types::{NetworkId, TaskId};

/// A task's place on a network.
pub type Place = (TaskId, NetworkId);

/// See the module.
#[derive(Debug, Default)]
pub struct Totals {
    /// As of the last look; none before the first.
    before: Option<BTreeMap<Place, Traffic>>,
    networks: BTreeMap<NetworkId, Traffic>,
    node: Traffic,
}

impl Totals {
    /// Looks at what all endpoints that are there have counted. What they had counted before the first look is not of this
    /// daemon's time.
    pub fn look(&mut self, now: BTreeMap<Place, Traffic>) {
        if let Some(before) = &self.before {
            for (place, counted) in &now {
                let more = match before.get(place) {
                    Some(before) => since(counted, before),
                    None => *counted,
                };
                self.node += more;
                *self.networks.entry(place.1).or_default() += more;
            }
        }
        self.before = Some(now);
    }

    /// Whether there was a look.
    pub fn has_begun(&self) -> bool {
        self.before.is_some()
    }

    /// Of all tasks.
    pub fn node(&self) -> Traffic {
        self.node
    }

    /// Of the tasks on one network.
    pub fn of(&self, network: NetworkId) -> Traffic {
        self.networks.get(&network).copied().unwrap_or_default()
    }

    /// Forgets networks that are no more.
    pub fn keep(&mut self, there: impl Fn(NetworkId) -> bool) {
        self.networks.retain(|network, _| there(*network));
    }
}

/// What came since `before`; what went down has begun anew, as after a change of the maps' sizes.
pub fn since(now: &Traffic, before: &Traffic) -> Traffic {
    let anew = now.packets_in < before.packets_in
        || now.packets_out < before.packets_out
        || now.bytes_in < before.bytes_in
        || now.bytes_out < before.bytes_out;
    if anew {
        return *now;
    }
    Traffic {
        packets_in: now.packets_in - before.packets_in,
        bytes_in: now.bytes_in - before.bytes_in,
        packets_out: now.packets_out - before.packets_out,
        bytes_out: now.bytes_out - before.bytes_out,
        new_flows: now.new_flows.saturating_sub(before.new_flows),
        drops_in: now.drops_in.saturating_sub(before.drops_in),
        drops_out: now.drops_out.saturating_sub(before.drops_out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(packets: u64) -> Traffic {
        Traffic { packets_in: packets, bytes_in: packets * 100, new_flows: 1, ..Traffic::default() }
    }

    #[test]
    fn sums_only_grow() {
        let (web, db) = (TaskId::from_u128(1), TaskId::from_u128(2));
        let (front, back) = (NetworkId::from_u128(1), NetworkId::from_u128(2));
        let mut totals = Totals::default();
        totals.look(BTreeMap::from([((web, front), counted(1000))]));
        assert_eq!((totals.node(), totals.of(front)), (Traffic::default(), Traffic::default()), "an earlier daemon's");
        totals.look(BTreeMap::from([((web, front), counted(1010)), ((db, back), counted(5))]));
        assert_eq!((totals.of(front).packets_in, totals.of(back).packets_in), (10, 5));
        // It ends; its numbers go, the sum stays.
        totals.look(BTreeMap::from([((db, back), counted(6))]));
        assert_eq!((totals.of(front).packets_in, totals.of(back).packets_in), (10, 6));
        assert_eq!((totals.node().packets_in, totals.node().bytes_in), (16, 1600));
        // The maps are made anew.
        totals.look(BTreeMap::from([((db, back), counted(2))]));
        assert_eq!(totals.of(back).packets_in, 8);
        totals.keep(|network| network == back);
        assert_eq!((totals.of(front).packets_in, totals.of(back).packets_in), (0, 8));
    }
}
