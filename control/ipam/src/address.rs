//! The addresses of one subnet of a network.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_types::{SharedMap, Subnet};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::number::{address_of, in_turn, number_of};

/// A range that addresses cannot be given out of. Nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("range {range} does not lie in subnet {subnet} or holds no usable address")]
pub struct RangeError {
    /// The range.
    pub range: IpNet,
    /// The subnet.
    pub subnet: IpNet,
}

/// Why an address cannot be had. The pool is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError<H> {
    /// It is no host address of the subnet.
    #[error("{0} is not a usable address of the subnet")]
    Outside(IpAddr),
    /// It is the gateway's.
    #[error("{0} is the gateway's address")]
    Gateway(IpAddr),
    /// Someone has it.
    #[error("{address} is taken")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: H,
    },
}

/// The addresses of one subnet and who holds each. The gateway, the network's own and the broadcast address are
/// never given. Copies share what did not change between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "H: Clone + Deserialize<'de>"))]
pub struct AddressPool<H> {
    subnet: Subnet,
    range: IpNet,
    held: SharedMap<IpAddr, H>,
    last: Option<IpAddr>,
}

impl<H: Clone + PartialEq> AddressPool<H> {
    /// A pool of the whole subnet, or of `range` within it. An address asked for by number may lie outside `range`.
    pub fn new(subnet: Subnet, range: Option<IpNet>) -> Result<Self, RangeError> {
        let net = subnet.net();
        let range = range.map_or(net, |r| r.trunc());
        let pool = Self { subnet, range, held: SharedMap::default(), last: None };
        if !net.contains(&range) || pool.free() == 0 {
            return Err(RangeError { range, subnet: net });
        }
        Ok(pool)
    }

    /// The subnet.
    pub fn subnet(&self) -> &Subnet {
        &self.subnet
    }

    /// Who holds what, in the order of the addresses.
    pub fn held(&self) -> &SharedMap<IpAddr, H> {
        &self.held
    }

    /// How many addresses [`AddressPool::pick`] can still give.
    pub fn free(&self) -> u128 {
        let (first, last) = (self.range.network(), self.range.broadcast());
        let size = number_of(last) - number_of(first);
        let mut never = vec![self.subnet.net().network(), self.subnet.gateway()];
        if self.subnet.net().addr().is_ipv4() {
            never.push(self.subnet.net().broadcast());
        }
        let never = never.iter().filter(|a| self.range.contains(*a)).count();
        let gone = never + self.held.count_in(&first..=&last);
        // The size of ::/0 does not fit; no subnet is that large.
        size.saturating_add(1).saturating_sub(gone as u128)
    }

    /// The next `count` free addresses, fewer if there are no more. Changes nothing.
    pub fn pick(&self, count: usize) -> Vec<IpAddr> {
        let first = self.range.network();
        let range = number_of(first)..=number_of(self.range.broadcast());
        in_turn(range, self.last.map(number_of))
            .map(|number| address_of(number, first))
            .filter(|address| self.check(*address).is_ok())
            // Ends the search of an exhausted pool before it has walked a whole /64.
            .take(usize::try_from(self.free()).unwrap_or(usize::MAX).min(count))
            .collect()
    }

    /// Gives `holder` an address that was picked; the next pick goes on behind it.
    pub fn take_picked(&mut self, address: IpAddr, holder: H) -> Result<(), AddressError<H>> {
        self.take(address, holder)?;
        self.last = Some(address);
        Ok(())
    }

    /// Gives `holder` this very address.
    pub fn take(&mut self, address: IpAddr, holder: H) -> Result<(), AddressError<H>> {
        self.check(address)?;
        self.held.insert(address, holder);
        Ok(())
    }

    /// Frees the address if `holder` has it; tells whether it had.
    pub fn release(&mut self, address: IpAddr, holder: &H) -> bool {
        let its_own = self.held.get(&address) == Some(holder);
        if its_own {
            self.held.remove(&address);
        }
        its_own
    }

    /// Makes it another use, if `from` has the address; tells whether it had.
    pub fn change(&mut self, address: IpAddr, from: &H, to: H) -> bool {
        let its_own = self.held.get(&address) == Some(from);
        if its_own {
            self.held.insert(address, to);
        }
        its_own
    }

    /// Frees all that `holder` has; tells whether there was any.
    pub fn release_all(&mut self, holder: &H) -> bool {
        let held = self.held.iter().filter(|(_, h)| *h == holder).map(|(address, _)| *address);
        let held: Vec<IpAddr> = held.collect();
        for address in &held {
            self.held.remove(address);
        }
        !held.is_empty()
    }

    fn check(&self, address: IpAddr) -> Result<(), AddressError<H>> {
        if !self.subnet.is_host(address) {
            return Err(AddressError::Outside(address));
        }
        if address == self.subnet.gateway() {
            return Err(AddressError::Gateway(address));
        }
        match self.held.get(&address) {
            Some(holder) => Err(AddressError::Taken { address, holder: holder.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pool(net: &str) -> AddressPool<u8> {
        AddressPool::new(Subnet::new(net.parse().unwrap(), None).unwrap(), None).unwrap()
    }

    fn next(pool: &mut AddressPool<u8>) -> Option<String> {
        let address = *pool.pick(1).first()?;
        pool.take_picked(address, 0).unwrap();
        Some(address.to_string())
    }

    #[test]
    fn freed_addresses_rest() {
        let mut p = pool("10.1.0.0/29");
        assert_eq!(next(&mut p).unwrap(), "10.1.0.2");
        assert!(p.release("10.1.0.2".parse().unwrap(), &0));
        assert_eq!(next(&mut p).unwrap(), "10.1.0.3");
        for last in ["10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"] {
            assert_eq!(next(&mut p).unwrap(), last);
        }
        assert_eq!(next(&mut p), None);
        assert_eq!(p.free(), 0);
    }

    #[test]
    fn an_exhausted_v6_range_answers_at_once() {
        let subnet = Subnet::new("fd00::/64".parse().unwrap(), None).unwrap();
        let mut p = AddressPool::new(subnet, Some("fd00::/126".parse().unwrap())).unwrap();
        assert_eq!(next(&mut p).unwrap(), "fd00::2");
        assert_eq!(next(&mut p).unwrap(), "fd00::3");
        assert_eq!(next(&mut p), None);
        assert_eq!(pool("fd00::/64").free(), (1 << 64) - 2);
    }

    #[test]
    fn a_use_changes_only_from_what_it_was() {
        let mut p = pool("10.1.0.0/29");
        let address = "10.1.0.2".parse().unwrap();
        assert!(!p.change(address, &1, 2));
        p.take(address, 1).unwrap();
        assert!(!p.change(address, &2, 3));
        assert!(p.change(address, &1, 2));
        assert_eq!((p.held().get(&address), p.free()), (Some(&2), 4));
    }

    #[test]
    fn ranges_lie_inside() {
        let subnet = Subnet::new("10.1.0.0/24".parse().unwrap(), None).unwrap();
        for bad in ["10.2.0.0/24", "10.1.0.0/16", "10.1.0.0/32", "10.1.0.1/32", "10.1.0.255/32", "fd00::/64"]
        {
            assert!(AddressPool::<u8>::new(subnet, Some(bad.parse().unwrap())).is_err(), "{bad}");
        }
        let mut p = AddressPool::new(subnet, Some("10.1.0.64/30".parse().unwrap())).unwrap();
        assert_eq!(next(&mut p).unwrap(), "10.1.0.64");
        assert_eq!(p.take("10.1.0.9".parse().unwrap(), 1), Ok(()));
        assert_eq!(p.free(), 3);
    }

    #[test]
    fn refuses_what_cannot_be_had() {
        let mut p = pool("10.1.0.0/24");
        let mut take = |text: &str| p.take(text.parse().unwrap(), 7);
        assert!(matches!(take("10.1.0.1"), Err(AddressError::Gateway(_))));
        for bad in ["10.1.0.0", "10.1.0.255", "10.1.1.4", "fd00::1"] {
            assert!(matches!(take(bad), Err(AddressError::Outside(_))), "{bad}");
        }
        assert_eq!(take("10.1.0.4"), Ok(()));
        assert!(matches!(take("10.1.0.4"), Err(AddressError::Taken { holder: 7, .. })));
    }

    proptest! {
        #[test]
        fn a_64_is_never_walked(
            steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 0..60),
            low: u64,
            range in prop::option::of(64u8..=124),
        ) {
            let net: IpNet = "fd00:1::/64".parse().unwrap();
            let subnet = Subnet::new(net, None).unwrap();
            let place = address_of(number_of(net.network()) + u128::from(low), net.addr());
            let range = range.map(|prefix| IpNet::new(place, prefix).unwrap().trunc());
            let mut p = AddressPool::new(subnet, range).unwrap();
            let mut had: Vec<IpAddr> = Vec::new();
            for (step, at) in steps {
                match step {
                    0 if !had.is_empty() => { p.release(had.swap_remove(at.index(had.len())), &1); }
                    1 if p.take(place, 1).is_ok() => had.push(place),
                    _ => for address in p.pick(3) {
                        prop_assert!(range.is_none_or(|r| r.contains(&address)));
                        prop_assert!(address != subnet.gateway() && !had.contains(&address));
                        p.take_picked(address, 1).unwrap();
                        had.push(address);
                    },
                }
                let inside = had.iter().filter(|a| range.is_none_or(|r| r.contains(*a))).count() as u128;
                let never = [net.network(), subnet.gateway()];
                let never = never.iter().filter(|a| range.is_none_or(|r| r.contains(*a))).count() as u128;
                let size = 1u128 << (128 - range.unwrap_or(net).prefix_len());
                prop_assert_eq!(p.free(), size - never - inside);
                prop_assert_eq!(p.held().len(), had.len());
            }
        }

        #[test]
        fn free_counts_what_pick_gives(steps in prop::collection::vec((0u8..3, 0u32..16), 0..60)) {
            let mut p = pool("10.1.0.0/28");
            for (step, low) in steps {
                let address = IpAddr::V4((0x0a01_0000 + low).into());
                match step {
                    0 => { let _ = p.take(address, 1); }
                    1 => { p.release(address, &1); p.release(address, &0); }
                    _ => { next(&mut p); }
                }
                let all = p.pick(usize::MAX);
                prop_assert_eq!(all.len() as u128, p.free());
                prop_assert_eq!(all.len() + p.held().len(), 13);
                prop_assert!(all.iter().all(|a| !p.held().contains_key(a) && *a != p.subnet().gateway()));
            }
        }
    }
}
