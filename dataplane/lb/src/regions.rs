//! Which parts of the `MAGLEV` array are in use. A table is never changed in place: a new one is written to free space
//! and the services are then pointed to it.

use std::{collections::BTreeMap, sync::Arc};

use crate::desired::BackendKey;

/// What a table was computed from: backend ids, keys and weights, sorted by key. Two services with the same have the
/// same table and share it.
pub(crate) type Inputs = Arc<[(u32, BackendKey, u16)]>;

/// What is known of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// What it was computed from.
    Inputs(Inputs),
    /// Only what it holds: it was written by an earlier daemon.
    Contents(Vec<u32>),
}

/// A part of the array that services point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// Its length.
    pub(crate) len: u32,
    /// How many services point to it.
    pub(crate) users: usize,
    /// What is in it.
    pub(crate) known: Known,
}

/// The regions in use, by their first index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Regions {
    capacity: u32,
    used: BTreeMap<u32, Region>,
    by_inputs: BTreeMap<Inputs, u32>,
    /// Where the last region ended. Searching on from there gives freed space the longest rest, so that a packet that
    /// still reads an old table finds it whole.
    cursor: u32,
}

impl Regions {
    pub(crate) fn new(capacity: u32) -> Self {
        Self { capacity, ..Self::default() }
    }

    pub(crate) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How many elements are in use.
    pub(crate) fn in_use(&self) -> u32 {
        self.used.values().map(|r| r.len).sum()
    }

    pub(crate) fn get(&self, base: u32) -> Option<&Region> {
        self.used.get(&base)
    }

    /// The region computed from the same inputs.
    pub(crate) fn find(&self, inputs: &Inputs) -> Option<u32> {
        self.by_inputs.get(inputs).copied()
    }

    /// Records that a region is in use, in place of unused ones that lay there.
    pub(crate) fn insert(&mut self, base: u32, region: Region) {
        let end = base.saturating_add(region.len);
        let under = self.used.range(..end).filter(|(b, r)| r.users == 0 && b.saturating_add(r.len) > base);
        let under: Vec<u32> = under.map(|(b, _)| *b).collect();
        under.into_iter().for_each(|b| self.free(b));
        if let Known::Inputs(inputs) = &region.known {
            self.by_inputs.insert(inputs.clone(), base);
        }
        self.cursor = base.saturating_add(region.len);
        self.used.insert(base, region);
    }

    /// Records one more service that points to `base`.
    pub(crate) fn acquire(&mut self, base: u32) {
        if let Some(region) = self.used.get_mut(&base) {
            region.users += 1;
        }
    }

    /// Records that a service no longer points to `base`; true when none does any more.
    pub(crate) fn release(&mut self, base: u32) -> bool {
        self.used.get_mut(&base).is_some_and(|region| {
            region.users = region.users.saturating_sub(1);
            region.users == 0
        })
    }

    /// Records what a region has been found to hold.
    pub(crate) fn learn(&mut self, base: u32, inputs: Inputs) {
        if let Some(region) = self.used.get_mut(&base) {
            region.known = Known::Inputs(inputs.clone());
            self.by_inputs.insert(inputs, base);
        }
    }

    /// Frees the regions that nothing points to.
    pub(crate) fn sweep(&mut self) {
        let unused: Vec<u32> =
            self.used.iter().filter(|(_, r)| r.users == 0).map(|(base, _)| *base).collect();
        unused.into_iter().for_each(|base| self.free(base));
    }

    /// Records that nothing points to a region any more.
    pub(crate) fn free(&mut self, base: u32) {
        if let Some(Region { known: Known::Inputs(inputs), .. }) = self.used.remove(&base)
            && self.by_inputs.get(&inputs) == Some(&base)
        {
            self.by_inputs.remove(&inputs);
        }
    }

    /// The first gap of `len` elements after the last region written, or else from the start.
    pub(crate) fn gap(&self, len: u32) -> Option<u32> {
        self.gap_from(self.cursor, len).or_else(|| self.gap_from(0, len))
    }

    fn gap_from(&self, start: u32, len: u32) -> Option<u32> {
        let mut base = start;
        if let Some((before, region)) = self.used.range(..=start).next_back() {
            base = base.max(before.saturating_add(region.len));
        }
        for (next, region) in self.used.range(base..) {
            if next.saturating_sub(base) >= len {
                return Some(base);
            }
            base = base.max(next.saturating_add(region.len));
        }
        (self.capacity.saturating_sub(base) >= len).then_some(base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(len: u32) -> Region {
        Region { len, users: 1, known: Known::Contents(Vec::new()) }
    }

    #[test]
    fn freed_space_rests() {
        let mut regions = Regions::new(10);
        regions.insert(0, region(3));
        regions.insert(3, region(3));
        regions.free(0);
        assert_eq!(regions.gap(3), Some(6));
        regions.insert(6, region(3));
        assert_eq!(regions.gap(3), Some(0));
        assert_eq!(regions.gap(4), None);
    }

    proptest! {
        #[test]
        fn regions_never_overlap(steps in prop::collection::vec((1u32..40, any::<bool>()), 0..200)) {
            let mut regions = Regions::new(256);
            for (len, free) in steps {
                if free {
                    let first = regions.used.keys().next().copied();
                    first.into_iter().for_each(|base| regions.free(base));
                }
                if let Some(base) = regions.gap(len) {
                    regions.insert(base, region(len));
                } else {
                    prop_assert!(regions.in_use() > 0);
                }
                let ends: Vec<_> = regions.used.iter().map(|(base, r)| (*base, base + r.len)).collect();
                prop_assert!(ends.windows(2).all(|w| w[0].1 <= w[1].0));
                prop_assert!(ends.iter().all(|(_, end)| *end <= 256));
            }
        }
    }
}
