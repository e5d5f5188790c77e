//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4):
//! a lookup table that every node computes alike from the same backends, and that changes little when one of them goes.

use crate::desired::BackendKey;

/// Table lengths: primes, each about twice the one before. Many slots for each backend keep the change caused by one of
/// them near its own share; the steps are wide because a new length moves most slots.
const LENGTHS: [u32; 14] = [
    251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071, 262_139, 524_287, 1_048_573, 2_097_143,
];

/// Slots of the lightest backend, from the paper's section 5.3.
const SLOTS_PER_BACKEND: usize = 100;

/// What uneven weights may lengthen a table to: beyond that, the lightest backends get fewer slots.
const LONGEST_FOR_WEIGHTS: usize = 65_521;

/// Largest ratio of weights that is kept.
pub(crate) const MAX_WEIGHT: u16 = 100;

/// Length of the table for backends of these weights: 0 for none, else a prime that gives the lightest of them a hundred
/// slots, so that each has its part of all slots within 2 % of what is due to it. When one backend is more than 655
/// times lighter than all together, or there are more than 20,971, the lightest get fewer.
pub fn table_len(weights: impl IntoIterator<Item = u16>) -> u32 {
    let (mut count, mut sum, mut least) = (0usize, 0usize, MAX_WEIGHT);
    for weight in weights {
        let weight = weight.clamp(1, MAX_WEIGHT);
        (count, sum, least) = (count + 1, sum + usize::from(weight), least.min(weight));
    }
    if count == 0 {
        return 0;
    }
    let even = count.saturating_mul(SLOTS_PER_BACKEND);
    let uneven = sum.saturating_mul(SLOTS_PER_BACKEND).div_ceil(usize::from(least));
    let wanted = even.max(uneven.min(LONGEST_FOR_WEIGHTS));
    let longest = LENGTHS[LENGTHS.len() - 1];
    LENGTHS.into_iter().find(|len| *len as usize >= wanted).unwrap_or(longest)
}

/// The table for `backends` (key and weight, each key once): each element is an index into `backends`. Which backend
/// has which slot does not depend on their order. Empty when there is none.
pub fn table(backends: &[(BackendKey, u16)]) -> Vec<u32> {
    let len = table_len(backends.iter().map(|(_, weight)| *weight));
    let mut order: Vec<u32> = (0..backends.len() as u32).collect();
    order.sort_by_key(|i| backends[*i as usize].0);
    fill(len, order.into_iter().map(|i| Turn::new(i, backends[i as usize], len)).collect())
}

/// One backend's place in the filling.
struct Turn {
    index: u32,
    /// The next slot of its permutation.
    next: u64,
    skip: u64,
    weight: u32,
    /// Weight gathered since it last took a slot.
    credit: u32,
}

impl Turn {
    fn new(index: u32, (key, weight): (BackendKey, u16), len: u32) -> Self {
        let len = u64::from(len);
        Self {
            index,
            next: hash(key, 0x6d65_7368_6f66_6673) % len,
            skip: hash(key, 0x6d65_7368_736b_6970) % (len - 1) + 1,
            weight: u32::from(weight.clamp(1, MAX_WEIGHT)),
            credit: 0,
        }
    }

    /// The first slot of its permutation that is free, which exists while any slot is: the length is prime, so the
    /// permutation visits all.
    fn take(&mut self, slots: &mut [u32]) {
        loop {
            let slot = self.next as usize;
            self.next = (self.next + self.skip) % slots.len() as u64;
            if slots[slot] == FREE {
                slots[slot] = self.index;
                return;
            }
        }
    }
}

const FREE: u32 = u32::MAX;

fn fill(len: u32, mut turns: Vec<Turn>) -> Vec<u32> {
    let mut slots = vec![FREE; len as usize];
    let heaviest = turns.iter().map(|t| t.weight).max().unwrap_or(1);
    let mut free = slots.len();
    while free > 0 {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            turn.take(&mut slots);
            free -= 1;
            if free == 0 {
                break;
            }
        }
    }
    slots
}

/// A hash that is the same on every node and in every version: both ids through the finalizer of SplitMix64.
fn hash(key: BackendKey, seed: u64) -> u64 {
    let BackendKey(task, network) = key;
    let words = [task.as_u128(), network.as_u128()].map(|id| [(id >> 64) as u64, id as u64]);
    words.as_flattened().iter().fold(seed, |state, word| mix(state ^ *word))
}

fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_types::{NetworkId, TaskId};
    use proptest::prelude::*;

    use super::*;

    fn key(n: u128) -> BackendKey {
        BackendKey(TaskId::from_u128(n), NetworkId::from_u128(7))
    }

    fn equal(ids: impl IntoIterator<Item = u128>) -> Vec<(BackendKey, u16)> {
        ids.into_iter().map(|n| (key(n), 1)).collect()
    }

    /// The owner of each slot by key.
    fn owners(backends: &[(BackendKey, u16)]) -> Vec<BackendKey> {
        table(backends).into_iter().map(|i| backends[i as usize].0).collect()
    }

    fn shares(backends: &[(BackendKey, u16)]) -> BTreeMap<BackendKey, usize> {
        let mut shares = BTreeMap::new();
        for owner in owners(backends) {
            *shares.entry(owner).or_insert(0) += 1;
        }
        shares
    }

    #[test]
    fn lengths_are_primes_that_grow() {
        for len in LENGTHS {
            assert!((2..).take_while(|d| d * d <= len).all(|d| len % d != 0), "{len}");
        }
        assert!(LENGTHS.is_sorted());
        let even = |count| table_len(std::iter::repeat_n(1, count));
        assert_eq!([0, 1, 3, 1000].map(even), [0, 251, 509, 131_071]);
        assert_eq!(table_len(std::iter::repeat_n(7, 3)), 509, "even is even");
        assert_eq!(table_len([1, 2]), 509);
        assert_eq!(table_len([1, 100]), 16_381);
        assert_eq!(table_len(std::iter::repeat_n(100, 99).chain([1])), 65_521);
        assert_eq!(table_len(std::iter::repeat_n(100, 999).chain([1])), 131_071);
    }

    #[test]
    fn no_backend_no_table() {
        assert!(table(&[]).is_empty());
    }

    /// All nodes of a cluster, of whatever version, must agree: this table must never change.
    #[test]
    fn the_table_is_fixed() {
        let table = table(&equal([1, 2, 3]));
        let sum = table.iter().fold(0u64, |sum, owner| mix(sum ^ u64::from(*owner)));
        assert_eq!((table.len(), &table[..12], sum), (509, FIXED_START.as_slice(), FIXED_SUM));
    }

    const FIXED_START: [u32; 12] = [2, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 2];
    const FIXED_SUM: u64 = 7_278_901_230_740_944_410;

    #[test]
    fn a_large_table_is_balanced_and_steady() {
        let before = equal(0..1000);
        let shares = shares(&before);
        let (low, high) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        assert!(high - low <= 1, "{low}..{high}");
        let moved = moved_besides(&before, key(500));
        assert!(moved < 0.02, "{moved}");
    }

    #[test]
    fn one_that_goes_moves_few_others() {
        for len in 12..=20u128 {
            let backends = equal(0..len);
            let moved: f64 = backends.iter().map(|(gone, _)| moved_besides(&backends, *gone)).sum();
            let mean = moved / len as f64;
            assert!(mean < 0.05, "{len} backends: {mean}");
        }
    }

    /// The part of the slots that changed hands although their owner is still there.
    fn moved_besides(before: &[(BackendKey, u16)], gone: BackendKey) -> f64 {
        let after: Vec<_> = before.iter().copied().filter(|(k, _)| *k != gone).collect();
        let (old, new) = (owners(before), owners(&after));
        assert_eq!(old.len(), new.len(), "choose sizes of one length");
        let moved = old.iter().zip(&new).filter(|(o, n)| **o != gone && o != n).count();
        moved as f64 / old.len() as f64
    }

    proptest! {
        #[test]
        fn complete_and_balanced(ids in prop::collection::btree_set(any::<u128>(), 1..60)) {
            let backends = equal(ids);
            let table = table(&backends);
            prop_assert_eq!(table.len(), table_len(backends.iter().map(|b| b.1)) as usize);
            prop_assert!(table.iter().all(|i| (*i as usize) < backends.len()));
            let shares = shares(&backends);
            prop_assert_eq!(shares.len(), backends.len());
            let (low, high) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            prop_assert!(high - low <= 1);
        }

        #[test]
        fn order_does_not_matter(ids in prop::collection::btree_set(any::<u128>(), 1..20), turn in 0usize..20) {
            let mut backends: Vec<_> =
                ids.into_iter().enumerate().map(|(i, n)| (key(n), (i % 3) as u16)).collect();
            let before = owners(&backends);
            let len = backends.len();
            backends.rotate_left(turn % len);
            backends.reverse();
            prop_assert_eq!(before, owners(&backends));
        }

        #[test]
        fn shares_follow_weights_within_two_per_cent(
            weights in prop_oneof![
                prop::collection::vec(1u16..=100, 1..12),
                prop::collection::vec(1u16..=5, 1..100),
            ],
        ) {
            let backends: Vec<_> = (0..).map(key).zip(weights.iter().copied()).collect();
            let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let len = f64::from(table_len(weights));
            let shares = shares(&backends);
            for (key, weight) in backends {
                let due = len * f64::from(weight) / total as f64;
                let share = shares[&key] as f64;
                prop_assert!((share - due).abs() <= 0.02 * due, "{} for {} of weight {}", share, due, weight);
            }
        }

        /// Heavier ones, too, that stay keep nearly all of their slots.
        #[test]
        fn with_weights_few_slots_move(weights in prop::collection::vec(1u16..=3, 24..30), gone in 0usize..24) {
            let mut backends: Vec<_> = (0..).map(key).zip(weights).collect();
            // The lightest and the heaviest stay, so that the length does.
            backends.extend([(key(1000), 1), (key(1001), 3)]);
            let after = [&backends[..gone], &backends[gone + 1..]].concat();
            let len = |all: &[(BackendKey, u16)]| table_len(all.iter().map(|b| b.1));
            prop_assume!(len(&backends) == len(&after));
            let moved = moved_besides(&backends, backends[gone].0);
            prop_assert!(moved < 0.1, "{moved}");
        }
    }
}
