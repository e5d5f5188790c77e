//! The regions as a plan will leave them, while the plan is made: what it adds, moves and gives up lies over what is
//! there, which does not change until the writes are done.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::regions::{Inputs, Known, Region, Regions, table_of};

/// Regions to be.
pub(crate) struct Draft<'a> {
    regions: &'a Regions,
    /// Length of each region that the plan writes, by its base.
    added: BTreeMap<u32, u32>,
    /// Where the tables of these inputs are, found or written by the plan.
    by_inputs: HashMap<Inputs, u32>,
    /// How many services point to a region, where the plan changes it.
    users: HashMap<u32, usize>,
    /// Regions that nothing will point to once the writes so far are done.
    retired: BTreeSet<u32>,
    /// Those of them whose space has been given back.
    freed: BTreeSet<u32>,
    cursor: u32,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(regions: &'a Regions) -> Self {
        Self {
            regions,
            added: BTreeMap::new(),
            by_inputs: HashMap::new(),
            users: HashMap::new(),
            retired: BTreeSet::new(),
            freed: BTreeSet::new(),
            cursor: regions.cursor(),
        }
    }

    /// The region with the table of these inputs, which stays from now on.
    pub(crate) fn find(&mut self, inputs: &Inputs) -> Option<u32> {
        let there = || self.regions.find(inputs).filter(|base| !self.freed.contains(base));
        let base = self.by_inputs.get(inputs).copied().or_else(there)?;
        self.retired.remove(&base);
        Some(base)
    }

    /// Whether an earlier daemon wrote exactly the table of these inputs into the region at `base`.
    pub(crate) fn holds(&self, base: u32, inputs: &Inputs) -> bool {
        let there =
            self.regions.get(base).filter(|_| !self.freed.contains(&base)).map(|region| &region.known);
        matches!(there, Some(Known::Contents(there)) if *there == table_of(inputs))
    }

    /// Notes what a region was found to hold.
    pub(crate) fn learn(&mut self, base: u32, inputs: Inputs) {
        self.retired.remove(&base);
        self.by_inputs.insert(inputs, base);
    }

    /// Free space for a table of these inputs, if there is a gap large enough.
    pub(crate) fn take(&mut self, len: u32, inputs: Inputs) -> Option<u32> {
        let base = self.gap_from(self.cursor, len).or_else(|| self.gap_from(0, len))?;
        self.cursor = base.saturating_add(len);
        self.added.insert(base, len);
        self.users.insert(base, 0);
        self.by_inputs.insert(inputs, base);
        Some(base)
    }

    /// Gives back the space of what nothing points to any more; true when there was any.
    pub(crate) fn reuse(&mut self) -> bool {
        let retired = std::mem::take(&mut self.retired);
        self.by_inputs.retain(|_, base| !retired.contains(base));
        let any = !retired.is_empty();
        self.freed.extend(retired);
        any
    }

    /// Notes that a service will point to the region at `now`, and no longer to the one at `before`.
    pub(crate) fn point(&mut self, before: Option<u32>, now: Option<u32>) {
        if let Some(now) = now {
            *self.users(now) += 1;
        }
        if let Some(before) = before {
            let users = self.users(before);
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.retired.insert(before);
            }
        }
    }

    /// Elements that will be in use.
    pub(crate) fn in_use(&self) -> u32 {
        let freed = self.freed.iter().filter_map(|base| self.regions.get(*base)).map(|r| r.len).sum();
        let added: u32 = self.added.values().sum();
        self.regions.in_use().saturating_sub(freed).saturating_add(added)
    }

    fn users(&mut self, base: u32) -> &mut usize {
        let regions = self.regions;
        self.users.entry(base).or_insert_with(|| regions.get(base).map_or(0, |r| r.users))
    }

    fn gap_from(&self, start: u32, len: u32) -> Option<u32> {
        let kept = |(base, _): &(u32, &Region)| !self.freed.contains(base);
        let end = |base: u32, len: u32| base.saturating_add(len);
        let mut base = start;
        if let Some((before, region)) = self.regions.back_from(start).find(kept) {
            base = base.max(end(before, region.len));
        }
        if let Some((before, len)) = self.added.range(..=start).next_back() {
            base = base.max(end(*before, *len));
        }
        let mut there = self.regions.from(base).filter(kept).map(|(base, r)| (base, r.len)).peekable();
        let mut added = self.added.range(base..).map(|(base, len)| (*base, *len)).peekable();
        loop {
            let first = match (there.peek(), added.peek()) {
                (Some(one), Some(other)) if other < one => added.next(),
                (Some(_), _) => there.next(),
                (None, _) => added.next(),
            };
            let Some((next, taken)) = first else { break };
            if next.saturating_sub(base) >= len {
                return Some(base);
            }
            base = base.max(end(next, taken));
        }
        (self.regions.capacity().saturating_sub(base) >= len).then_some(base)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(len: u32) -> Region {
        Region { len, users: 1, known: Known::Contents(Vec::new()) }
    }

    fn inputs(n: u32) -> Inputs {
        use crate::desired::BackendKey;
        use mesh_types::{NetworkId, TaskId};
        [(n, BackendKey(TaskId::from_u128(1), NetworkId::from_u128(1)), 1)].into()
    }

    #[test]
    fn freed_space_rests() {
        let mut regions = Regions::new(10);
        regions.insert(0, region(3));
        regions.insert(3, region(3));
        regions.release(0);
        regions.sweep();
        let mut draft = Draft::new(&regions);
        assert_eq!(draft.take(3, inputs(1)), Some(6));
        assert_eq!(draft.take(3, inputs(2)), Some(0));
        assert_eq!(draft.take(4, inputs(3)), None);
        assert_eq!((draft.find(&inputs(1)), draft.find(&inputs(3))), (Some(6), None));
        assert_eq!(draft.in_use(), 9);
    }

    #[test]
    fn what_nothing_points_to_gives_its_space_when_asked() {
        let mut regions = Regions::new(4);
        regions.insert(0, region(3));
        let mut draft = Draft::new(&regions);
        draft.point(Some(0), None);
        assert_eq!(draft.take(3, inputs(1)), None);
        assert!(draft.reuse() && !draft.reuse());
        assert_eq!(draft.take(3, inputs(1)), Some(0));
        assert_eq!(draft.in_use(), 3);
    }

    proptest! {
        #[test]
        fn regions_never_overlap(steps in prop::collection::vec((1u32..40, any::<bool>(), any::<bool>()), 0..200)) {
            let mut regions = Regions::new(256);
            for (n, (len, free, write)) in steps.into_iter().enumerate() {
                let first = regions.from(0).next().map(|(base, _)| base).filter(|_| free);
                let mut draft = Draft::new(&regions);
                if let Some(first) = first {
                    draft.point(Some(first), None);
                    draft.reuse();
                }
                let base = draft.take(len, inputs(n as u32));
                prop_assert!(base.is_some() || draft.in_use() > 0);
                if let Some(base) = base.filter(|_| write) {
                    first.into_iter().for_each(|first| regions.release(first));
                    regions.insert(base, region(len));
                    regions.sweep();
                }
                let ends: Vec<_> = regions.from(0).map(|(base, r)| (base, base + r.len)).collect();
                prop_assert!(ends.windows(2).all(|w| w[0].1 <= w[1].0));
                prop_assert!(ends.iter().all(|(_, end)| *end <= 256));
                prop_assert_eq!(regions.in_use(), regions.from(0).map(|(_, r)| r.len).sum::<u32>());
            }
        }
    }
}
