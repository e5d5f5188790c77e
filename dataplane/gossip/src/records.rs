//! The tables: entries by table, owner and slot, each with its owner's version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_types::{Endpoint, NetworkId, NodeId};

use crate::{EndpointKey, Interest, Item, Key, Table, Version, nodes::NodeMap};

mod audience;
mod slots;
mod views;

pub(crate) use audience::Audience;
use audience::Audiences;
use slots::{Entry, Place, Slot, Slots};

/// How long the endpoints of a node whose daemon is a new one are told as they were, when it does not tell of them.
const FADE: Duration = Duration::from_secs(3);

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is newer than what was known.
    New,
    /// It was known.
    Same,
    /// Something newer is known, or that it is deleted.
    Stale,
    /// As old as entries already deleted and forgotten, and told by somebody who cannot know: the owner does.
    Doubtful,
}

/// Who tells of an entry, as far as that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Teller {
    /// Its owner.
    Owner,
    /// Somebody who knows all of the owner's entries of that age.
    Informed,
    /// Anybody.
    Other,
}

#[derive(Debug, Clone, Default)]
struct Owned {
    entries: Slots,
    /// Entries up to this counter that are not here may be deleted: some that were are forgotten.
    floor: u64,
    /// Entries up to this counter that are not here are deleted: the owner told all that it had, or somebody did whom it had
    /// told so. Never above `floor`.
    complete: u64,
}

/// What is known of an owner besides its entries.
#[derive(Debug, Clone, Copy, Default)]
struct Owner {
    /// Its newest known incarnation; entries of older ones are never kept.
    epoch: u64,
    /// It is another member, and there.
    is_live: bool,
    /// What it told counts.
    counts: bool,
}

#[derive(Debug, Default)]
struct Owners {
    owned: NodeMap<Owned>,
    /// The fingerprints of the entries that count together.
    digest: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    owners: NodeMap<Owner>,
    tables: BTreeMap<Table, Owners>,
    audiences: Audiences,
    /// Endpoints that may be otherwise than when [`Records::take_touched`] was last called, with their tables.
    touched: BTreeSet<(NetworkId, EndpointKey)>,
    /// Endpoints of an owner's past life, and since when they are known to be; see [`Records::raise_epoch`].
    fading: BTreeMap<(NetworkId, EndpointKey), Option<Duration>>,
    /// The interest that was told last: many members have the same, which is kept once.
    last_interest: Option<Interest>,
}

impl Records {
    pub(crate) fn epoch(&self, owner: NodeId) -> u64 {
        self.owners.get(owner).map_or(0, |known| known.epoch)
    }

    /// Learns of an incarnation of `owner`. A newer one makes ghosts of all older entries: they go. But a daemon that comes
    /// back has most often the same tasks as before, and its first packet is not the one that tells of them. So what they
    /// were is not touched until their owner has said otherwise, or had [`FADE`] for it.
    pub(crate) fn raise_epoch(&mut self, owner: NodeId, epoch: u64) {
        if !self.owners.contains(owner) {
            self.owners.insert(owner, Owner { epoch, ..Owner::default() });
        } else if epoch > self.epoch(owner) {
            let touched = std::mem::take(&mut self.touched);
            // While the older one is known yet, which their fingerprints are of.
            self.drop_entries(owner);
            for past in std::mem::replace(&mut self.touched, touched) {
                if !self.touched.contains(&past) {
                    self.fading.entry(past).or_insert(None);
                }
            }
            self.owners.or_default(owner).epoch = epoch;
        }
    }

    /// Whether `owner` is there, another than this node, and whether what it told counts.
    pub(crate) fn set_standing(&mut self, owner: NodeId, is_live: bool, counts: bool) {
        let known = self.owners.or_default(owner);
        let before = std::mem::replace(known, Owner { is_live, counts, ..*known });
        if before.counts != counts {
            for (table, owners) in &mut self.tables {
                let at = Place { table: *table, owner, epoch: before.epoch };
                owners.digest ^= owners.owned.get(owner).map_or(0, |owned| owned.entries.digest(at));
            }
        }
        if before.is_live != is_live {
            self.audiences.set_live(owner, is_live);
            if let Some(interest) = self.interest(owner).cloned() {
                self.audiences.set_interest(owner, &interest, is_live);
            }
        }
    }

    /// Changes what is kept of `owner` in `table`, and what follows from it.
    fn change<R>(&mut self, table: Table, owner: NodeId, change: impl FnOnce(&mut Owned, Place) -> R) -> R {
        let Owner { epoch, is_live, counts } = self.owners.get(owner).copied().unwrap_or_default();
        let at = Place { table, owner, epoch };
        let owners = self.tables.entry(table).or_default();
        let owned = owners.owned.or_default(owner);
        let interest = |owned: &Owned| match owned.entries.get(&None) {
            Some(entry) if is_live => entry.interest().cloned(),
            _ => None,
        };
        let (digest, wanted) = (owned.entries.digest(at), interest(owned));
        let result = change(owned, at);
        if counts {
            owners.digest ^= digest ^ owned.entries.digest(at);
        }
        let wants = interest(owned);
        if wanted != wants {
            for (interest, is_new) in [(wanted, false), (wants, true)] {
                if let Some(interest) = interest {
                    self.audiences.set_interest(owner, &interest, is_new);
                }
            }
        }
        result
    }

    /// The other members that are there and want `table`.
    pub(crate) fn audience(&self, table: Table) -> Audience<'_> {
        self.audiences.of(table)
    }

    /// Counts what fades and is meant by `is_over` among the touched.
    fn end_fading(&mut self, is_over: impl Fn(NetworkId, &EndpointKey, Option<Duration>) -> bool) {
        let touched = &mut self.touched;
        self.fading.retain(|(scope, key), since| {
            let over = is_over(*scope, key, *since);
            if over {
                touched.insert((*scope, *key));
            }
            !over
        });
    }

    /// What is of a past life but still told.
    #[cfg(test)]
    pub(crate) fn fading(&self) -> impl Iterator<Item = &(NetworkId, EndpointKey)> {
        self.fading.keys().filter(|past| !self.touched.contains(past))
    }

    pub(crate) fn forget(&mut self, owner: NodeId) {
        self.set_standing(owner, false, false);
        self.drop_entries(owner);
        self.owners.remove(owner);
    }

    /// Forgets the entries of `owner`, and not which of its lives was the last.
    pub(crate) fn drop_entries(&mut self, owner: NodeId) {
        self.touch_all_of(owner);
        let having = self.tables.iter().filter(|(_, owners)| owners.owned.contains(owner));
        for table in having.map(|(table, _)| *table).collect::<Vec<_>>() {
            self.change(table, owner, |owned, _| *owned = Owned::default());
            let is_empty = self.tables.get_mut(&table).is_some_and(|owners| {
                owners.owned.remove(owner);
                owners.owned.is_empty()
            });
            if is_empty {
                self.tables.remove(&table);
            }
        }
    }

    /// Counts every endpoint of `owner` among the touched, since whether they count has changed.
    pub(crate) fn touch_all_of(&mut self, owner: NodeId) {
        self.end_fading(|_, key, _| key.node == owner);
        for (table, owners) in &self.tables {
            for slot in owners.owned.get(owner).into_iter().flat_map(|owned| owned.entries.keys()) {
                touch(&mut self.touched, *table, owner, *slot);
            }
        }
    }

    /// The endpoints that may have changed since the last call.
    pub(crate) fn take_touched(&mut self) -> BTreeSet<(NetworkId, EndpointKey)> {
        if !self.fading.is_empty() {
            self.fading.retain(|past, _| !self.touched.contains(past));
        }
        std::mem::take(&mut self.touched)
    }

    /// Takes in an item.
    pub(crate) fn apply(&mut self, item: Item, now: Duration, teller: Teller) -> Applied {
        let (Key { table, owner, slot }, version) = (item.key(), item.version());
        self.raise_epoch(owner, version.epoch);
        if version.epoch < self.epoch(owner) {
            return Applied::Stale;
        }
        let owned = self.tables.get(&table).and_then(|owners| owners.owned.get(owner));
        let known = owned.and_then(|owned| owned.entries.get(&slot)).map(|entry| entry.counter);
        let (floor, complete) = owned.map_or((0, 0), |owned| (owned.floor, owned.complete));
        match known {
            Some(known) if known > version.counter => return Applied::Stale,
            Some(known) if known == version.counter => return Applied::Same,
            None if teller == Teller::Owner => {}
            None if version.counter <= complete => return Applied::Stale,
            None if version.counter <= floor && teller == Teller::Other => return Applied::Doubtful,
            _ => {}
        }
        let item = self.share(item);
        let entry = Entry::of(item, now);
        self.change(table, owner, |owned, at| owned.entries.insert(at, slot, entry));
        touch(&mut self.touched, table, owner, slot);
        Applied::New
    }

    /// An interest like the last one shares its memory.
    fn share(&mut self, item: Item) -> Item {
        match item {
            Item::Interest { owner, version, interest } => {
                let last = self.last_interest.take().filter(|last| *last == interest);
                let interest = last.unwrap_or(interest);
                self.last_interest = Some(interest.clone());
                Item::Interest { owner, version, interest }
            }
            other => other,
        }
    }

    /// After all entries of an owner in `table` as of `version` were told: whatever else is as old is deleted.
    pub(crate) fn complete(&mut self, table: Table, owner: NodeId, version: Version, told: &[Item]) {
        if version.epoch != self.epoch(owner) {
            return;
        }
        let told: BTreeSet<Slot> = told.iter().map(|item| item.key().slot).collect();
        let deleted = self.change(table, owner, |owned, at| {
            let as_old = owned.entries.iter().filter(|(_, entry)| entry.counter <= version.counter);
            let deleted: Vec<Slot> =
                as_old.map(|(slot, _)| *slot).filter(|slot| !told.contains(slot)).collect();
            deleted.iter().for_each(|slot| owned.entries.remove(at, slot));
            owned.complete = owned.complete.max(version.counter);
            owned.floor = owned.floor.max(owned.complete);
            deleted
        });
        for slot in deleted {
            touch(&mut self.touched, table, owner, slot);
        }
        self.end_fading(|scope, key, _| key.node == owner && Table::Endpoints(scope) == table);
    }

    /// Forgets tombstones older than `ttl`, and past lives that nobody speaks of any more.
    pub(crate) fn reap(&mut self, now: Duration, ttl: Duration) {
        self.end_fading(|_, _, since| since.is_some_and(|since| now.saturating_sub(since) >= FADE));
        self.fading.values_mut().for_each(|since| {
            since.get_or_insert(now);
        });
        let owned = self.tables.values_mut().flat_map(|owners| owners.owned.values_mut());
        for owned in owned.filter(|owned| owned.entries.len() > owned.entries.live()) {
            let is_old = |since: Duration| now.saturating_sub(since) >= ttl;
            let gone = owned.entries.values().filter(|entry| entry.gone_since().is_some_and(is_old));
            owned.floor = gone.map(|entry| entry.counter).max().unwrap_or(0).max(owned.floor);
            // Tombstones are in no fingerprint.
            owned.entries.retain_gone(|since| !is_old(since));
        }
    }

    /// Drops the tables that `keep` does not name.
    pub(crate) fn retain_tables(&mut self, keep: impl Fn(Table) -> bool) {
        self.end_fading(|scope, _, _| !keep(Table::Endpoints(scope)));
        let touched = &mut self.touched;
        self.tables.retain(|table, owners| {
            let kept = keep(*table);
            for (owner, owned) in owners.owned.iter().filter(|_| !kept) {
                owned.entries.keys().for_each(|slot| touch(touched, *table, owner, *slot));
            }
            kept
        });
    }

    fn owned(&self, table: Table, owner: NodeId) -> Option<&Owned> {
        self.tables.get(&table)?.owned.get(owner)
    }

    fn place(&self, table: Table, owner: NodeId) -> Place {
        Place { table, owner, epoch: self.epoch(owner) }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Item> {
        let Key { table, owner, slot } = *key;
        self.owned(table, owner)?.entries.get(&slot)?.item(self.place(table, owner), slot)
    }

    /// Which statement of its owner the entry is.
    pub(crate) fn version(&self, key: &Key) -> Option<Version> {
        let counter = self.owned(key.table, key.owner)?.entries.get(&key.slot)?.counter;
        Some(Version { epoch: self.epoch(key.owner), counter })
    }

    /// The endpoint of that name in the table of `scope`, unless it is gone.
    pub(crate) fn endpoint(&self, scope: NetworkId, key: &EndpointKey) -> Option<&Arc<Endpoint>> {
        let slot = Some((key.task, key.network));
        self.owned(Table::Endpoints(scope), key.node)?.entries.get(&slot)?.endpoint()
    }

    pub(crate) fn interest(&self, owner: NodeId) -> Option<&Interest> {
        self.owned(Table::Interests, owner)?.entries.get(&None)?.interest()
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        self.tables.keys().copied()
    }

    /// Everybody that something is known of and that does not count.
    pub(crate) fn uncounted(&self) -> impl Iterator<Item = NodeId> {
        self.owners.iter().filter(|(_, known)| !known.counts).map(|(owner, _)| owner)
    }

    /// Whether `owner` has entries in `table`, tombstones included.
    pub(crate) fn has(&self, table: Table, owner: NodeId) -> bool {
        self.owned(table, owner).is_some_and(|owned| !owned.entries.is_empty())
    }
}

fn touch(touched: &mut BTreeSet<(NetworkId, EndpointKey)>, table: Table, node: NodeId, slot: Slot) {
    if let (Table::Endpoints(scope), Some((task, network))) = (table, slot) {
        touched.insert((scope, EndpointKey { task, network, node }));
    }
}

#[cfg(test)]
#[path = "records/tests.rs"]
mod tests;
