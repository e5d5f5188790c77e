//! The entries of one owner in one table. What follows from their place (owner, table, incarnation) is not kept in each: most owners
//! have a single entry in the table of interests, which every node has of every other.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};

use crate::{Interest, Item, Table, Version};

/// Which entry of an owner: task and network, or none for its interest.
pub(super) type Slot = Option<(TaskId, NetworkId)>;

/// Whose entries, of which of its lives, in which table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) table: Table,
    pub(super) owner: NodeId,
    pub(super) epoch: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) counter: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Interest(Interest),
    Endpoint(Arc<Endpoint>),
    /// Since when it has been gone.
    Gone(Duration),
}

impl Entry {
    /// What `item` says; it may be gone since `now`.
    pub(super) fn of(item: Item, now: Duration) -> Self {
        let counter = item.version().counter;
        let content = match item {
            Item::Interest { interest, .. } => Content::Interest(interest),
            Item::Endpoint { endpoint, .. } => Content::Endpoint(endpoint),
            Item::Gone { .. } => Content::Gone(now),
        };
        Self { counter, content }
    }

    pub(super) fn gone_since(&self) -> Option<Duration> {
        match self.content {
            Content::Gone(since) => Some(since),
            _ => None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.gone_since().is_none()
    }

    pub(super) fn interest(&self) -> Option<&Interest> {
        match &self.content {
            Content::Interest(interest) => Some(interest),
            _ => None,
        }
    }

    pub(super) fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        match &self.content {
            Content::Endpoint(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    /// What was said. None of an entry in a place where it cannot be.
    pub(super) fn item(&self, at: Place, slot: Slot) -> Option<Item> {
        let Place { table, owner, epoch } = at;
        let version = Version { epoch, counter: self.counter };
        Some(match (&self.content, table, slot) {
            (Content::Interest(interest), _, _) => {
                Item::Interest { owner, version, interest: interest.clone() }
            }
            (Content::Endpoint(endpoint), Table::Endpoints(scope), _) => {
                Item::Endpoint { scope, version, endpoint: endpoint.clone() }
            }
            (Content::Gone(_), Table::Endpoints(scope), Some((task, network))) => {
                Item::Gone { scope, version, owner, task, network }
            }
            _ => return None,
        })
    }

    /// What it adds to its owner's fingerprint.
    fn fingerprint(&self, at: Place, slot: Slot) -> u64 {
        if self.is_live() { fingerprint(at, slot, self.counter) } else { 0 }
    }
}

/// A version names its content, since only the owner makes one.
fn fingerprint(at: Place, slot: Slot, counter: u64) -> u64 {
    let (task, network) = slot.map_or((0, 0), |(task, network)| (task.as_u128(), network.as_u128()));
    let mut sum = 0;
    for wide in [at.owner.as_u128(), task, network] {
        sum = mix(sum ^ wide as u64);
        sum = mix(sum ^ (wide >> 64) as u64);
    }
    mix(mix(sum ^ at.epoch) ^ counter)
}

/// The finalizer of SplitMix64.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Entries by slot.
#[derive(Debug, Clone, Default)]
pub(super) enum Slots {
    #[default]
    None,
    /// An interest.
    Single(Entry),
    Several(Box<Several>),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Several {
    entries: BTreeMap<Slot, Entry>,
    /// Those that are no tombstones: how many, and their fingerprints together.
    live: usize,
    digest: u64,
}

impl Slots {
    pub(super) fn get(&self, slot: &Slot) -> Option<&Entry> {
        match self {
            Self::None => None,
            Self::Single(entry) => slot.is_none().then_some(entry),
            Self::Several(several) => several.entries.get(slot),
        }
    }

    /// Puts an entry in its place, instead of what stood there.
    pub(super) fn insert(&mut self, at: Place, slot: Slot, entry: Entry) {
        if slot.is_none() && !matches!(self, Self::Several(_)) {
            *self = Self::Single(entry);
            return;
        }
        self.make_several(at);
        let Self::Several(several) = self else { return };
        several.digest ^= entry.fingerprint(at, slot);
        several.live += usize::from(entry.is_live());
        if let Some(before) = several.entries.insert(slot, entry) {
            several.digest ^= before.fingerprint(at, slot);
            several.live -= usize::from(before.is_live());
        }
    }

    fn make_several(&mut self, at: Place) {
        let mut several = Several::default();
        match std::mem::take(self) {
            Self::None => {}
            Self::Single(entry) => {
                several.digest = entry.fingerprint(at, None);
                several.live = 1;
                several.entries.insert(None, entry);
            }
            known @ Self::Several(_) => {
                *self = known;
                return;
            }
        }
        *self = Self::Several(Box::new(several));
    }

    pub(super) fn remove(&mut self, at: Place, slot: &Slot) {
        match self {
            Self::Single(_) if slot.is_none() => *self = Self::None,
            Self::None | Self::Single(_) => {}
            Self::Several(several) => {
                if let Some(before) = several.entries.remove(slot) {
                    several.digest ^= before.fingerprint(at, *slot);
                    several.live -= usize::from(before.is_live());
                }
                if several.entries.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    /// Removes the tombstones that `keep` does not mean.
    pub(super) fn retain_gone(&mut self, keep: impl Fn(Duration) -> bool) {
        if let Self::Several(several) = self {
            several.entries.retain(|_, entry| entry.gone_since().is_none_or(&keep));
            if several.entries.is_empty() {
                *self = Self::None;
            }
        }
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &Entry)> {
        let (single, several) = match self {
            Self::None => (None, None),
            Self::Single(entry) => (Some((&None, entry)), None),
            Self::Several(several) => (None, Some(&several.entries)),
        };
        single.into_iter().chain(several.into_iter().flatten())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Slot> {
        self.iter().map(|(slot, _)| slot)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.iter().map(|(_, entry)| entry)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Single(_) => 1,
            Self::Several(several) => several.entries.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// How many are no tombstones.
    pub(super) fn live(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Single(_) => 1,
            Self::Several(several) => several.live,
        }
    }

    /// The fingerprints of those together.
    pub(super) fn digest(&self, at: Place) -> u64 {
        match self {
            Self::None => 0,
            Self::Single(entry) => entry.fingerprint(at, None),
            Self::Several(several) => several.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Place =
        Place { table: Table::Endpoints(NetworkId::from_u128(1)), owner: NodeId::from_u128(1), epoch: 1 };

    fn slot(n: u8) -> Slot {
        (n > 0).then(|| (TaskId::from_u128(n.into()), NetworkId::from_u128(1)))
    }

    /// An interest where one belongs, else a tombstone or an endpoint.
    fn entry(at: Slot, counter: u64) -> Entry {
        let content = match at {
            None => Content::Interest(Interest::All),
            Some(_) if counter.is_multiple_of(2) => Content::Gone(Duration::from_secs(counter)),
            Some(_) => Content::Endpoint(Arc::new(crate::simulation::endpoint(1, 1, 1))),
        };
        Entry { counter, content }
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in proptest::collection::vec((0u8..4, 0u8..4, any::<u8>()), 0..60)) {
            let (mut slots, mut map) = (Slots::default(), BTreeMap::new());
            for (what, at, counter) in steps {
                let (at, counter) = (slot(at), u64::from(counter));
                match what {
                    0 | 1 => {
                        slots.insert(AT, at, entry(at, counter));
                        map.insert(at, counter);
                    }
                    2 => {
                        slots.remove(AT, &at);
                        map.remove(&at);
                    }
                    _ => {
                        slots.retain_gone(|since| since.as_secs() > 100);
                        map.retain(|slot, counter| slot.is_none() || *counter % 2 == 1 || *counter > 100);
                    }
                }
                prop_assert_eq!(slots.get(&at).map(|e| e.counter), map.get(&at).copied());
                prop_assert_eq!((slots.len(), slots.is_empty()), (map.len(), map.is_empty()));
                let all: Vec<(Slot, u64)> = slots.iter().map(|(slot, entry)| (*slot, entry.counter)).collect();
                prop_assert_eq!(all, map.iter().map(|(slot, counter)| (*slot, *counter)).collect::<Vec<_>>());
                let live = || slots.iter().filter(|(_, entry)| entry.is_live());
                prop_assert_eq!(slots.live(), live().count());
                let digest = live().fold(0, |sum, (slot, entry)| sum ^ fingerprint(AT, *slot, entry.counter));
                prop_assert_eq!(slots.digest(AT), digest);
            }
        }
    }

    #[test]
    fn an_interest_takes_little_room() {
        assert!(size_of::<Slots>() <= 40);
    }
}
