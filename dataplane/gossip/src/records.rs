//! The tables: entries by table, owner and slot, each with its owner's version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};

use crate::{
    EndpointKey, Interest, Item, Key, Table, Version,
    wire::{Group, OwnerDigest},
};

mod slots;

use slots::Slots;

/// How long the endpoints of a node whose daemon is a new one are told as they were, when it does not tell of them.
const FADE: Duration = Duration::from_secs(3);

type Slot = Option<(TaskId, NetworkId)>;

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

#[derive(Debug, Clone)]
struct Entry {
    item: Item,
    gone_since: Option<Duration>,
}

impl Entry {
    fn is_live(&self) -> bool {
        self.gone_since.is_none()
    }

    /// What it adds to its owner's fingerprint.
    fn fingerprint(&self) -> u64 {
        if self.is_live() { fingerprint(&self.item) } else { 0 }
    }
}

#[derive(Debug, Clone, Default)]
struct Owned {
    entries: Slots,
    /// Entries up to this counter that are not here may be deleted: some that were are forgotten.
    floor: u64,
    /// Entries up to this counter that are not here are deleted: the owner told all that it had, or somebody did whom it had
    /// told so. Never above `floor`.
    complete: u64,
    /// Entries that are no tombstones: how many, and their fingerprints together.
    live: usize,
    digest: u64,
}

impl Owned {
    fn put(&mut self, slot: Slot, entry: Entry) {
        self.digest ^= entry.fingerprint();
        self.live += usize::from(entry.is_live());
        if let Some(before) = self.entries.insert(slot, entry) {
            self.digest ^= before.fingerprint();
            self.live -= usize::from(before.is_live());
        }
    }

    fn remove(&mut self, slot: &Slot) {
        if let Some(before) = self.entries.remove(slot) {
            self.digest ^= before.fingerprint();
            self.live -= usize::from(before.is_live());
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    /// The newest known incarnation of each owner; entries of older ones are never kept.
    epochs: BTreeMap<NodeId, u64>,
    tables: BTreeMap<Table, BTreeMap<NodeId, Owned>>,
    /// Endpoints that may be otherwise than when [`Records::take_touched`] was last called, with their tables.
    touched: BTreeSet<(NetworkId, EndpointKey)>,
    /// Endpoints of an owner's past life, and since when they are known to be; see [`Records::raise_epoch`].
    fading: BTreeMap<(NetworkId, EndpointKey), Option<Duration>>,
}

impl Records {
    pub(crate) fn epoch(&self, owner: NodeId) -> u64 {
        self.epochs.get(&owner).copied().unwrap_or(0)
    }

    /// Learns of an incarnation of `owner`. A newer one makes ghosts of all older entries: they go. But a daemon that comes
    /// back has most often the same tasks as before, and its first packet is not the one that tells of them. So what they
    /// were is not touched until their owner has said otherwise, or had [`FADE`] for it.
    pub(crate) fn raise_epoch(&mut self, owner: NodeId, epoch: u64) {
        let known = self.epochs.entry(owner).or_insert(epoch);
        if epoch > *known {
            *known = epoch;
            let touched = std::mem::take(&mut self.touched);
            self.drop_entries(owner);
            for past in std::mem::replace(&mut self.touched, touched) {
                if !self.touched.contains(&past) {
                    self.fading.entry(past).or_insert(None);
                }
            }
        }
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
        self.epochs.remove(&owner);
        self.drop_entries(owner);
    }

    /// Forgets the entries of `owner`, and not which of its lives was the last.
    pub(crate) fn drop_entries(&mut self, owner: NodeId) {
        self.touch_all_of(owner);
        self.tables.retain(|_, owners| {
            owners.remove(&owner);
            !owners.is_empty()
        });
    }

    /// Counts every endpoint of `owner` among the touched, since whether they count has changed.
    pub(crate) fn touch_all_of(&mut self, owner: NodeId) {
        self.end_fading(|_, key, _| key.node == owner);
        for (table, owners) in &self.tables {
            for slot in owners.get(&owner).into_iter().flat_map(|owned| owned.entries.keys()) {
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
        let owned = self.tables.entry(table).or_default().entry(owner).or_default();
        match owned.entries.get(&slot).map(|known| known.item.version().counter) {
            Some(known) if known > version.counter => return Applied::Stale,
            Some(known) if known == version.counter => return Applied::Same,
            None if teller == Teller::Owner => {}
            None if version.counter <= owned.complete => return Applied::Stale,
            None if version.counter <= owned.floor && teller == Teller::Other => return Applied::Doubtful,
            _ => {}
        }
        let gone_since = item.is_gone().then_some(now);
        owned.put(slot, Entry { item, gone_since });
        touch(&mut self.touched, table, owner, slot);
        Applied::New
    }

    /// After all entries of an owner in `table` as of `version` were told: whatever else is as old is deleted.
    pub(crate) fn complete(&mut self, table: Table, owner: NodeId, version: Version, told: &[Item]) {
        if version.epoch != self.epoch(owner) {
            return;
        }
        let owned = self.tables.entry(table).or_default().entry(owner).or_default();
        let told: BTreeSet<Slot> = told.iter().map(|item| item.key().slot).collect();
        let as_old =
            owned.entries.iter().filter(|(_, entry)| entry.item.version().counter <= version.counter);
        let deleted: Vec<Slot> = as_old.map(|(slot, _)| *slot).filter(|slot| !told.contains(slot)).collect();
        for slot in deleted {
            owned.remove(&slot);
            touch(&mut self.touched, table, owner, slot);
        }
        owned.complete = owned.complete.max(version.counter);
        owned.floor = owned.floor.max(owned.complete);
        self.end_fading(|scope, key, _| key.node == owner && Table::Endpoints(scope) == table);
    }

    /// Forgets tombstones older than `ttl`, and past lives that nobody speaks of any more.
    pub(crate) fn reap(&mut self, now: Duration, ttl: Duration) {
        self.end_fading(|_, _, since| since.is_some_and(|since| now.saturating_sub(since) >= FADE));
        self.fading.values_mut().for_each(|since| {
            since.get_or_insert(now);
        });
        let owned = self.tables.values_mut().flat_map(BTreeMap::values_mut);
        for owned in owned.filter(|owned| owned.entries.len() > owned.live) {
            let old = |entry: &Entry| entry.gone_since.is_some_and(|since| now.saturating_sub(since) >= ttl);
            let counters =
                owned.entries.values().filter(|entry| old(entry)).map(|e| e.item.version().counter);
            owned.floor = counters.max().unwrap_or(0).max(owned.floor);
            owned.entries.retain(|entry| !old(entry));
        }
    }

    /// Drops the tables that `keep` does not name.
    pub(crate) fn retain_tables(&mut self, keep: impl Fn(Table) -> bool) {
        self.end_fading(|scope, _, _| !keep(Table::Endpoints(scope)));
        let touched = &mut self.touched;
        self.tables.retain(|table, owners| {
            let kept = keep(*table);
            for (owner, owned) in owners.iter().filter(|_| !kept) {
                owned.entries.keys().for_each(|slot| touch(touched, *table, *owner, *slot));
            }
            kept
        });
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Item> {
        Some(&self.tables.get(&key.table)?.get(&key.owner)?.entries.get(&key.slot)?.item)
    }

    /// The endpoint of that name in the table of `scope`, unless it is gone.
    pub(crate) fn endpoint(&self, scope: NetworkId, key: &EndpointKey) -> Option<&Arc<Endpoint>> {
        let slot = Some((key.task, key.network));
        match self.get(&Key { table: Table::Endpoints(scope), owner: key.node, slot })? {
            Item::Endpoint { endpoint, .. } => Some(endpoint),
            _ => None,
        }
    }

    pub(crate) fn interest(&self, owner: NodeId) -> Option<&Interest> {
        match self.get(&Key { table: Table::Interests, owner, slot: None })? {
            Item::Interest { interest, .. } => Some(interest),
            _ => None,
        }
    }

    pub(crate) fn tables(&self) -> impl Iterator<Item = Table> {
        self.tables.keys().copied()
    }

    /// Everybody that something is known of, some more than once.
    pub(crate) fn owners(&self) -> impl Iterator<Item = NodeId> {
        self.tables.values().flat_map(BTreeMap::keys).chain(self.epochs.keys()).copied()
    }

    /// Whether `owner` has entries in `table`, tombstones included.
    pub(crate) fn has(&self, table: Table, owner: NodeId) -> bool {
        let owned = self.tables.get(&table).and_then(|owners| owners.get(&owner));
        owned.is_some_and(|owned| !owned.entries.is_empty())
    }

    /// All entries of `owner` in `table`, tombstones included.
    pub(crate) fn of(&self, table: Table, owner: NodeId) -> Vec<Item> {
        let owned = self.tables.get(&table).and_then(|owners| owners.get(&owner));
        owned.into_iter().flat_map(|owned| owned.entries.values()).map(|entry| entry.item.clone()).collect()
    }

    /// All entries of `owner`, tombstones included.
    pub(crate) fn all_of(&self, owner: NodeId) -> Vec<Item> {
        self.tables().flat_map(|table| self.of(table, owner)).collect()
    }

    /// What a comparison tells of one owner. Of another owner than this node it is all as of what that has told.
    pub(crate) fn group(&self, table: Table, owner: NodeId, complete: Option<Version>) -> Group {
        let owned = self.tables.get(&table).and_then(|owners| owners.get(&owner));
        let counter = owned.map_or(0, |owned| owned.complete);
        let told = (counter > 0).then(|| Version { epoch: self.epoch(owner), counter });
        Group { table, owner, complete: complete.or(told), items: self.of(table, owner) }
    }

    /// A fingerprint of the entries in `table` of the owners that `counts` names.
    pub(crate) fn digest(&self, table: Table, counts: impl Fn(NodeId) -> bool) -> u64 {
        self.digests(table, counts).iter().fold(0, |sum, owner| sum ^ owner.digest)
    }

    /// The same by owner; those without entries are left out.
    pub(crate) fn digests(&self, table: Table, counts: impl Fn(NodeId) -> bool) -> Vec<OwnerDigest> {
        let owners = self.tables.get(&table).into_iter().flatten();
        owners
            .filter(|(owner, owned)| owned.live > 0 && counts(**owner))
            .map(|(owner, owned)| OwnerDigest {
                owner: *owner,
                epoch: self.epoch(*owner),
                digest: owned.digest,
            })
            .collect()
    }

    /// Entries in `table` of the owners that `counts` names, and the tombstones of all.
    pub(crate) fn sizes(&self, table: Table, counts: impl Fn(NodeId) -> bool) -> (usize, usize) {
        let owners = || self.tables.get(&table).into_iter().flatten();
        let live = owners().filter(|(owner, _)| counts(**owner)).map(|(_, owned)| owned.live).sum();
        let tombstones = owners().map(|(_, owned)| owned.entries.len() - owned.live).sum();
        (live, tombstones)
    }

    /// The newest statement of `owner` that is known, and how many of its entries are.
    pub(crate) fn newest(&self, owner: NodeId) -> (u64, usize) {
        let of = self.tables.values().filter_map(|owners| owners.get(&owner));
        of.fold((0, 0), |(newest, live), owned| {
            let counters = owned.entries.values().map(|entry| entry.item.version().counter);
            (counters.chain([newest, owned.complete]).max().unwrap_or(newest), live + owned.live)
        })
    }

    /// Every entry, and since when it has been gone.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Item, Option<Duration>)> {
        let owned = self.tables.values().flat_map(BTreeMap::values);
        owned.flat_map(|owned| owned.entries.values()).map(|entry| (&entry.item, entry.gone_since))
    }

    /// Every endpoint with its table, owners in order.
    #[cfg(test)]
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (NetworkId, &Arc<Endpoint>)> {
        self.tables.values().flat_map(BTreeMap::values).flat_map(|owned| owned.entries.values()).filter_map(
            |entry| match &entry.item {
                Item::Endpoint { scope, endpoint, .. } => Some((*scope, endpoint)),
                _ => None,
            },
        )
    }
}

fn touch(touched: &mut BTreeSet<(NetworkId, EndpointKey)>, table: Table, node: NodeId, slot: Slot) {
    if let (Table::Endpoints(scope), Some((task, network))) = (table, slot) {
        touched.insert((scope, EndpointKey { task, network, node }));
    }
}

/// A version names its content, since only the owner makes one.
fn fingerprint(item: &Item) -> u64 {
    let key = item.key();
    let (task, network) = key.slot.map_or((0, 0), |(task, network)| (task.as_u128(), network.as_u128()));
    let version = item.version();
    let mut sum = 0;
    for wide in [key.owner.as_u128(), task, network] {
        sum = mix(sum ^ wide as u64);
        sum = mix(sum ^ (wide >> 64) as u64);
    }
    mix(mix(sum ^ version.epoch) ^ version.counter)
}

/// The finalizer of SplitMix64.
const fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
#[path = "records/tests.rs"]
mod tests;
