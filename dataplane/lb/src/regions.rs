//! Which parts of the `MAGLEV` array are in use. A table is never changed in place: a new one is written to free space
//! and the services are then pointed to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_abi::TABLE_BLOCK;

use crate::{desired::BackendKey, maglev};

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

/// The table of these inputs, in whole blocks.
pub(crate) fn table_of(inputs: &Inputs) -> Vec<u32> {
    let weighted: Vec<(BackendKey, u16)> = inputs.iter().map(|(_, key, weight)| (*key, *weight)).collect();
    let owners = maglev::table(&weighted).into_iter().filter_map(|i| inputs.get(i as usize));
    let mut slots: Vec<u32> = owners.map(|(id, ..)| *id).collect();
    slots.resize(space(slots.len() as u32) as usize, 0);
    slots
}

/// The slots that a table of this length takes: whole blocks.
pub(crate) fn space(len: u32) -> u32 {
    len.checked_next_multiple_of(TABLE_BLOCK).unwrap_or(u32::MAX)
}

/// A part of the array that services point to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region {
    /// Its length, see [`space`].
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
    by_inputs: HashMap<Inputs, u32>,
    /// Those that nothing points to.
    unused: BTreeSet<u32>,
    /// Elements in use.
    taken: u32,
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
        self.taken
    }

    /// Where the last region written ended.
    pub(crate) fn cursor(&self) -> u32 {
        self.cursor
    }

    /// The regions that begin at `base` or behind it.
    pub(crate) fn from(&self, base: u32) -> impl Iterator<Item = (u32, &Region)> {
        self.used.range(base..).map(|(base, region)| (*base, region))
    }

    /// The regions that begin at `base` or before it, the last one first.
    pub(crate) fn back_from(&self, base: u32) -> impl Iterator<Item = (u32, &Region)> {
        self.used.range(..=base).rev().map(|(base, region)| (*base, region))
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
        let under: Vec<u32> = self
            .back_from(end.saturating_sub(1))
            .take_while(|(b, r)| b.saturating_add(r.len) > base)
            .filter(|(_, r)| r.users == 0)
            .map(|(b, _)| b)
            .collect();
        under.into_iter().for_each(|b| self.free(b));
        if let Known::Inputs(inputs) = &region.known {
            self.by_inputs.insert(inputs.clone(), base);
        }
        if region.users == 0 {
            self.unused.insert(base);
        }
        self.cursor = end;
        self.taken = self.taken.saturating_add(region.len);
        self.used.insert(base, region);
    }

    /// Records one more service that points to `base`.
    pub(crate) fn acquire(&mut self, base: u32) {
        if let Some(region) = self.used.get_mut(&base) {
            region.users += 1;
            self.unused.remove(&base);
        }
    }

    /// Records that a service no longer points to `base`.
    pub(crate) fn release(&mut self, base: u32) {
        if let Some(region) = self.used.get_mut(&base) {
            region.users = region.users.saturating_sub(1);
            if region.users == 0 {
                self.unused.insert(base);
            }
        }
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
        std::mem::take(&mut self.unused).into_iter().for_each(|base| self.free(base));
    }

    /// Records that nothing points to a region any more.
    fn free(&mut self, base: u32) {
        self.unused.remove(&base);
        let Some(region) = self.used.remove(&base) else { return };
        self.taken = self.taken.saturating_sub(region.len);
        if let Known::Inputs(inputs) = region.known
            && self.by_inputs.get(&inputs) == Some(&base)
        {
            self.by_inputs.remove(&inputs);
        }
    }
}
