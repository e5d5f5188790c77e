//! The entries of one owner in one table. Most owners have a single one in the table of interests, which every node has of every
//! other: it stands alone, in a tenth of the memory that a tree's first node takes.

use std::collections::BTreeMap;

use super::{Entry, Slot};

#[derive(Debug, Clone, Default)]
pub(super) struct Slots {
    /// The only one. Never together with others.
    single: Option<Box<(Slot, Entry)>>,
    several: BTreeMap<Slot, Entry>,
}

impl Slots {
    pub(super) fn get(&self, slot: &Slot) -> Option<&Entry> {
        match self.single.as_deref() {
            Some((known, entry)) => (known == slot).then_some(entry),
            None => self.several.get(slot),
        }
    }

    /// Puts an entry in its place; what stood there is returned.
    pub(super) fn insert(&mut self, slot: Slot, entry: Entry) -> Option<Entry> {
        match self.single.as_deref_mut() {
            Some((known, before)) if *known == slot => return Some(std::mem::replace(before, entry)),
            None if self.several.is_empty() => {
                self.single = Some(Box::new((slot, entry)));
                return None;
            }
            _ => {}
        }
        if let Some(single) = self.single.take() {
            let (slot, entry) = *single;
            self.several.insert(slot, entry);
        }
        self.several.insert(slot, entry)
    }

    pub(super) fn remove(&mut self, slot: &Slot) -> Option<Entry> {
        match self.single.take_if(|single| single.0 == *slot) {
            Some(single) => Some(single.1),
            None => self.several.remove(slot),
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.single.take_if(|single| !keep(&single.1));
        self.several.retain(|_, entry| keep(entry));
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Slot, &Entry)> {
        let single = self.single.as_deref().map(|(slot, entry)| (slot, entry));
        single.into_iter().chain(&self.several)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Slot> {
        self.iter().map(|(slot, _)| slot)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Entry> {
        self.iter().map(|(_, entry)| entry)
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.single.is_some()) + self.several.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_types::{NetworkId, TaskId};
    use proptest::prelude::*;

    use super::*;
    use crate::{Interest, Item, Version};

    fn slot(n: u8) -> Slot {
        (n > 0).then(|| (TaskId::from_u128(n.into()), NetworkId::from_u128(1)))
    }

    fn entry(counter: u64) -> Entry {
        let version = Version { epoch: 1, counter };
        let owner = mesh_types::NodeId::from_u128(1);
        let item = Item::Interest { owner, version, interest: Interest::All };
        Entry { item, gone_since: counter.is_multiple_of(2).then_some(Duration::ZERO) }
    }

    fn of(entry: &Entry) -> u64 {
        entry.item.version().counter
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in proptest::collection::vec((0u8..4, 0u8..4, any::<u8>()), 0..60)) {
            let (mut slots, mut map) = (Slots::default(), BTreeMap::new());
            for (what, at, counter) in steps {
                let (at, counter) = (slot(at), u64::from(counter));
                match what {
                    0 | 1 => {
                        let before = slots.insert(at, entry(counter));
                        prop_assert_eq!(before.as_ref().map(of), map.insert(at, counter));
                    }
                    2 => prop_assert_eq!(slots.remove(&at).as_ref().map(of), map.remove(&at)),
                    _ => {
                        slots.retain(|entry| entry.is_live());
                        map.retain(|_, counter| *counter % 2 == 1);
                    }
                }
                prop_assert_eq!(slots.get(&at).map(of), map.get(&at).copied());
                prop_assert_eq!((slots.len(), slots.is_empty()), (map.len(), map.is_empty()));
                let all: Vec<(Slot, u64)> = slots.iter().map(|(slot, entry)| (*slot, of(entry))).collect();
                prop_assert_eq!(all, map.iter().map(|(slot, counter)| (*slot, *counter)).collect::<Vec<_>>());
            }
        }
    }
}
