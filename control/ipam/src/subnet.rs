//! Subnets for networks that name none.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::number::{address_of, number_of};

/// The prefix length of the subnets that an IPv4 pool is cut into; a smaller pool is one subnet.
pub const CUT_PREFIX: u8 = 24;
/// The prefix length of the subnets that an IPv6 pool is cut into; a smaller pool is one subnet.
pub const CUT_PREFIX6: u8 = 64;

/// The range that subnets are cut from. It keeps no record of its own: what is in use is the caller's to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    pool: IpNet,
}

impl SubnetPool {
    /// A pool of this range.
    pub fn new(pool: IpNet) -> Self {
        Self { pool: pool.trunc() }
    }

    /// The range.
    pub fn range(&self) -> IpNet {
        self.pool
    }

    /// The first subnet of the pool that overlaps nothing in use, if there is one.
    pub fn pick(&self, used: impl IntoIterator<Item = IpNet>) -> Option<IpNet> {
        let cut = if self.pool.addr().is_ipv4() { CUT_PREFIX } else { CUT_PREFIX6 };
        let prefix = self.pool.prefix_len().max(cut);
        let size = 1u128.checked_shl(u32::from(self.pool.max_prefix_len() - prefix))?;
        let mut used: Vec<_> = used
            .into_iter()
            .filter(|net| net.addr().is_ipv4() == self.pool.addr().is_ipv4())
            .map(|net| (number_of(net.network()), number_of(net.broadcast())))
            .collect();
        used.sort_unstable();
        let mut start = number_of(self.pool.network());
        for (first, last) in used {
            if last < start {
                continue;
            }
            if first > start + (size - 1) {
                break;
            }
            start = (last / size).checked_add(1)?.checked_mul(size)?;
        }
        let end = number_of(self.pool.broadcast());
        if start > end {
            return None;
        }
        IpNet::new(address_of(start, self.pool.addr()), prefix).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn skips_what_is_in_use() {
        let p = SubnetPool::new(net("10.0.0.0/8"));
        assert_eq!(p.pick([]), Some(net("10.0.0.0/24")));
        assert_eq!(p.pick([net("10.0.0.0/24"), net("10.0.2.0/24")]), Some(net("10.0.1.0/24")));
        assert_eq!(p.pick([net("10.0.0.0/24"), net("10.0.1.128/30")]), Some(net("10.0.2.0/24")));
        assert_eq!(p.pick([net("10.0.0.0/9"), net("10.0.0.0/24")]), Some(net("10.128.0.0/24")));
        assert_eq!(p.pick([net("0.0.0.0/0")]), None);
        assert_eq!(p.pick([net("192.168.0.0/16"), net("fd00::/8")]), Some(net("10.0.0.0/24")));
    }

    #[test]
    fn ends_with_the_pool() {
        let p = SubnetPool::new(net("255.255.254.0/23"));
        assert_eq!(p.pick([net("255.255.254.0/24")]), Some(net("255.255.255.0/24")));
        assert_eq!(p.pick([net("255.255.254.0/24"), net("255.255.255.0/24")]), None);
        let small = SubnetPool::new(net("10.0.0.0/26"));
        assert_eq!(small.pick([]), Some(net("10.0.0.0/26")));
        assert_eq!(small.pick([net("10.0.0.0/26")]), None);
    }

    #[test]
    fn cuts_ipv6_into_64s() {
        let p = SubnetPool::new(net("fd00:1::/48"));
        assert_eq!(p.pick([net("10.0.0.0/8")]), Some(net("fd00:1::/64")));
        assert_eq!(p.pick([net("fd00:1::/64"), net("fd00:1:0:1::5/128")]), Some(net("fd00:1:0:2::/64")));
        assert_eq!(p.pick([net("fd00::/16")]), None);
        let last = SubnetPool::new(net("ffff:ffff:ffff:ffff::/63"));
        let last = |used: &[IpNet]| last.pick(used.iter().copied());
        assert_eq!(last(&[net("ffff:ffff:ffff:fffe::/64"), net("ffff:ffff:ffff:ffff::/64")]), None);
        assert_eq!(SubnetPool::new(net("fd00::/112")).pick([]), Some(net("fd00::/112")));
    }

    proptest! {
        #[test]
        fn ipv6_subnets_overlap_nothing(used in prop::collection::vec((any::<u128>(), 48u8..=128), 0..40)) {
            let pool = net("fd00:1:2::/56");
            let start = number_of(pool.network());
            let used: Vec<IpNet> = used.into_iter()
                .map(|(low, prefix)| (start + low % (1 << 72), prefix))
                .map(|(number, prefix)| IpNet::new(address_of(number, pool.addr()), prefix).unwrap())
                .collect();
            match SubnetPool::new(pool).pick(used.iter().copied()) {
                Some(got) => {
                    prop_assert!(pool.contains(&got) && got.prefix_len() == 64);
                    prop_assert!(used.iter().all(|u| !u.contains(&got) && !got.contains(u)));
                }
                None => {
                    for subnet in pool.subnets(64).unwrap() {
                        prop_assert!(used.iter().any(|u| u.contains(&subnet) || subnet.contains(u)));
                    }
                }
            }
        }

        #[test]
        fn overlaps_nothing(used in prop::collection::vec((0u32..1 << 16, 18u8..=32), 0..20)) {
            let pool = net("10.0.0.0/16");
            let used: Vec<IpNet> = used.into_iter()
                .map(|(low, prefix)| IpNet::new(address_of(u128::from(0x0a00_0000 + low), pool.addr()), prefix).unwrap())
                .collect();
            match SubnetPool::new(pool).pick(used.iter().copied()) {
                Some(got) => {
                    prop_assert!(pool.contains(&got) && got.prefix_len() == 24);
                    prop_assert!(used.iter().all(|u| !u.contains(&got) && !got.contains(u)));
                }
                None => {
                    for subnet in pool.subnets(24).unwrap() {
                        prop_assert!(used.iter().any(|u| u.contains(&subnet) || subnet.contains(u)));
                    }
                }
            }
        }
    }
}
