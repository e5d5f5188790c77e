//! Addresses that the managers leased to this node, and which of them tasks use.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
};

use mesh_types::NetworkId;

use crate::planner::Family;

/// The leases of a node. Freed addresses go to the end of the line, so that an address rests before it is used again.
#[derive(Debug, Clone, Default)]
pub struct Leases {
    networks: BTreeMap<NetworkId, Lease>,
}

#[derive(Debug, Clone, Default)]
struct Lease {
    free: VecDeque<IpAddr>,
    used: BTreeSet<IpAddr>,
    /// Being given back; what the managers say may not know of that yet.
    returning: BTreeSet<IpAddr>,
}

impl Leases {
    /// Takes over what the managers say this node holds. Addresses in use stay in use even where the managers no longer
    /// list them: they end with their task.
    pub fn replace(&mut self, held: &BTreeMap<NetworkId, Vec<IpAddr>>) {
        self.networks.retain(|network, lease| held.contains_key(network) || !lease.used.is_empty());
        for (network, lease) in &mut self.networks {
            let listed = held.get(network).map(Vec::as_slice).unwrap_or_default();
            lease.free.retain(|address| listed.contains(address));
            lease.returning.retain(|address| listed.contains(address));
        }
        for (&network, addresses) in held {
            let lease = self.networks.entry(network).or_default();
            let kept: Vec<_> = addresses.iter().filter(|a| !lease.returning.contains(a)).copied().collect();
            self.add(network, &kept);
        }
    }

    /// Adds newly leased addresses.
    pub fn add(&mut self, network: NetworkId, addresses: &[IpAddr]) {
        let lease = self.networks.entry(network).or_default();
        for &address in addresses {
            lease.returning.remove(&address);
            if !lease.used.contains(&address) && !lease.free.contains(&address) {
                lease.free.push_back(address);
            }
        }
    }

    /// Takes a free address of that family of the network.
    pub fn take(&mut self, network: NetworkId, family: Family) -> Option<IpAddr> {
        let lease = self.networks.get_mut(&network)?;
        let place = lease.free.iter().position(|a| Family::of(*a) == family)?;
        let address = lease.free.remove(place)?;
        lease.used.insert(address);
        Some(address)
    }

    /// Takes this address, if it is leased and free.
    pub fn take_address(&mut self, network: NetworkId, address: IpAddr) -> bool {
        let Some(lease) = self.networks.get_mut(&network) else { return false };
        let Some(place) = lease.free.iter().position(|&a| a == address) else { return false };
        lease.free.remove(place);
        lease.used.insert(address)
    }

    /// Whether a task of this node uses the address.
    pub fn is_used(&self, network: NetworkId, address: IpAddr) -> bool {
        self.networks.get(&network).is_some_and(|l| l.used.contains(&address))
    }

    /// Marks an address as used by a task that was there before the start, whether or not it is listed.
    pub fn adopt(&mut self, network: NetworkId, address: IpAddr) {
        let lease = self.networks.entry(network).or_default();
        lease.free.retain(|&a| a != address);
        lease.used.insert(address);
    }

    /// Gives a taken address back to the line.
    pub fn put_back(&mut self, network: NetworkId, address: IpAddr) {
        if let Some(lease) = self.networks.get_mut(&network)
            && lease.used.remove(&address)
        {
            lease.free.push_back(address);
        }
    }

    /// Takes out what should be given back to the managers: those of `fixed` that are free, which somebody else may want
    /// by their numbers, and what is free of a family beyond `keep` once that is more than twice as much. It is not given
    /// to tasks until [`Leases::add`] says so.
    pub fn give_back(&mut self, network: NetworkId, fixed: &[IpAddr], keep: usize) -> Vec<IpAddr> {
        let Some(lease) = self.networks.get_mut(&network) else { return Vec::new() };
        let mut given: Vec<_> = fixed.iter().copied().filter(|a| lease.free.contains(a)).collect();
        lease.free.retain(|a| !given.contains(a));
        for family in Family::ALL {
            let free: Vec<_> = lease.free.iter().copied().filter(|a| Family::of(*a) == family).collect();
            if free.len() > 2 * keep {
                given.extend(&free[keep..]);
            }
        }
        lease.free.retain(|a| !given.contains(a));
        lease.returning.extend(&given);
        given
    }

    /// All leased addresses, used or not, as [`Leases::replace`] takes them.
    pub fn held(&self) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let all = |lease: &Lease| lease.free.iter().chain(&lease.used).copied().collect();
        self.networks.iter().map(|(&network, lease)| (network, all(lease))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NET: NetworkId = NetworkId::from_u128(1);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 10, 3, last])
    }

    #[test]
    fn a_freed_address_rests() {
        let mut leases = Leases::default();
        leases.add(NET, &[ip(2), ip(3), ip(4)]);
        assert_eq!(leases.take(NET, Family::V4), Some(ip(2)));
        leases.put_back(NET, ip(2));
        assert_eq!(leases.take(NET, Family::V4), Some(ip(3)));
        assert_eq!(leases.take(NET, Family::V4), Some(ip(4)));
        assert_eq!(leases.take(NET, Family::V4), Some(ip(2)));
        assert_eq!(leases.take(NET, Family::V4), None);
    }

    #[test]
    fn what_is_used_outlives_the_list() {
        let mut leases = Leases::default();
        leases.add(NET, &[ip(2), ip(3)]);
        assert!(leases.take_address(NET, ip(3)));
        leases.replace(&BTreeMap::new());
        assert!(leases.is_used(NET, ip(3)));
        assert_eq!(leases.take(NET, Family::V4), None);
    }

    #[test]
    fn what_is_given_back_is_not_taken_until_it_is_leased_anew() {
        let mut leases = Leases::default();
        let held = BTreeMap::from([(NET, vec![ip(2), ip(3), ip(4), ip(5)])]);
        leases.replace(&held);
        assert_eq!(leases.give_back(NET, &[ip(3)], 1), [ip(3), ip(4), ip(5)]);
        // The managers have not heard of it yet.
        leases.replace(&held);
        assert!(!leases.take_address(NET, ip(3)));
        assert!(leases.give_back(NET, &[ip(3)], 1).is_empty());
        leases.add(NET, &[ip(3)]);
        assert!(leases.take_address(NET, ip(3)));
        // Used addresses stay.
        assert!(leases.give_back(NET, &[ip(3)], 1).is_empty());
        // Given back, and leased to this node again.
        leases.replace(&BTreeMap::from([(NET, vec![ip(2), ip(3), ip(4)])]));
        leases.replace(&held);
        assert!(leases.take_address(NET, ip(5)));
    }

    #[test]
    fn families_are_taken_and_given_back_apart() {
        let mut leases = Leases::default();
        let six = |last: u16| IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]);
        leases.add(NET, &[ip(2), six(2), six(3), six(4), six(5)]);
        assert_eq!(leases.take(NET, Family::V6), Some(six(2)));
        assert_eq!(leases.take(NET, Family::V4), Some(ip(2)));
        assert_eq!(leases.take(NET, Family::V4), None);
        leases.put_back(NET, ip(2));
        assert_eq!(leases.give_back(NET, &[], 1), [six(4), six(5)]);
        assert_eq!(leases.take(NET, Family::V6), Some(six(3)));
        assert_eq!(leases.take(NET, Family::V6), None);
    }

    proptest! {
        #[test]
        fn no_address_is_taken_twice(steps in proptest::collection::vec((0u8..6, 2u8..12), 0..80)) {
            let mut leases = Leases::default();
            let mut taken = BTreeSet::new();
            for (step, last) in steps {
                match step {
                    5 => for a in leases.give_back(NET, &[ip(last)], 1) { prop_assert!(!taken.contains(&a)); },
                    0 => leases.add(NET, &[ip(last)]),
                    1 => if let Some(a) = leases.take(NET, Family::V4) { prop_assert!(taken.insert(a)); },
                    2 => if leases.take_address(NET, ip(last)) { prop_assert!(taken.insert(ip(last))); },
                    3 => if taken.remove(&ip(last)) { leases.put_back(NET, ip(last)); },
                    _ => leases.replace(&BTreeMap::from([(NET, vec![ip(last), ip(last + 1)])])),
                }
                for &a in &taken { prop_assert!(leases.is_used(NET, a)); }
            }
        }
    }
}
