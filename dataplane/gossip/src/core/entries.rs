//! Entries: those of this node, which only it changes, and those that others tell of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mesh_types::{NetworkId, NodeId};

use super::{Core, PUSHED, wanted};
use crate::{
    Announcement, Interest, Item, Key, Table, Version,
    records::{Applied, Teller},
};

impl Core {
    pub(super) fn announce(&mut self, own: Vec<Announcement>) {
        let mut missing: BTreeMap<Key, Item> =
            self.records.all_of(self.node).into_iter().map(|item| (item.key(), item)).collect();
        missing.retain(|key, _| key.slot.is_some());
        let mut changes = Vec::new();
        let unset = Version { epoch: 0, counter: 0 };
        for Announcement { scope, mut endpoint } in own {
            endpoint.node = self.node;
            let item = Item::Endpoint { scope, version: unset, endpoint: Arc::new(endpoint) };
            let before = missing.remove(&item.key());
            if before.is_none_or(|before| before.with_version(unset) != item) {
                changes.push(item);
            }
        }
        for (key, item) in missing {
            if let (Table::Endpoints(scope), Some((task, network)), false) =
                (key.table, key.slot, item.is_gone())
            {
                changes.push(Item::Gone { scope, version: unset, owner: self.node, task, network });
            }
        }
        self.publish(changes);
        self.refresh_interest();
    }

    /// Gives own items new versions and tells everyone concerned.
    pub(crate) fn publish(&mut self, items: Vec<Item>) {
        let mut told = Vec::with_capacity(items.len());
        for item in items {
            let item = item.with_version(self.next_version());
            self.records.apply(item.clone(), self.now, Teller::Owner);
            told.push(item);
        }
        if !told.is_empty() {
            self.disseminate(told);
        }
    }

    /// Brings this node's stated interest in line with what it declared and what it owns.
    pub(super) fn refresh_interest(&mut self) {
        let mut interest = self.declared.clone();
        if let Interest::Networks(networks) = &mut interest {
            let own = self.records.tables().filter_map(|table| match table {
                Table::Endpoints(scope) if self.records.has(table, self.node) => Some(scope),
                _ => None,
            });
            let more: Vec<NetworkId> = own.filter(|scope| !networks.contains(*scope)).collect();
            if !more.is_empty() {
                *networks = networks.iter().copied().chain(more).collect();
            }
        }
        let before = self.records.interest(self.node).cloned().unwrap_or_default();
        if interest == before {
            return;
        }
        let version = Version { epoch: 0, counter: 0 };
        self.publish(vec![Item::Interest { owner: self.node, version, interest: interest.clone() }]);
        self.records.retain_tables(|table| wanted(&interest, table));
        self.agreement.retain_tables(|table| wanted(&interest, table));
        let mut known = BTreeSet::new();
        for node in std::iter::once(self.node).chain(self.members.keys().copied()) {
            if let Some(Interest::Networks(networks)) = self.records.interest(node) {
                known.extend(networks);
            }
        }
        let grown = known.into_iter().filter(|scope| interest.includes(*scope) && !before.includes(*scope));
        self.sync_tables(grown.map(Table::Endpoints).collect(), true);
    }

    /// Others know a life of this node that it does not: it goes on from there.
    pub(super) fn raise_own_epoch(&mut self, known: u64) {
        let own = self.records.all_of(self.node);
        self.epoch = known.saturating_add(1);
        self.records.raise_epoch(self.node, self.epoch);
        let outcome = self.swim.change_epoch(self.epoch, self.now);
        self.take_swim(outcome);
        self.try_all_peers();
        self.publish(own);
    }

    /// Another tells of an entry of this node: whatever is not so is put right.
    pub(super) fn own_entry_told(&mut self, item: &Item, by: NodeId) {
        let told = item.version();
        if told.epoch > self.epoch {
            return self.raise_own_epoch(told.epoch);
        }
        let mine = self.records.get(&item.key());
        match mine {
            _ if told.epoch < self.epoch => self.want_sync(by, Duration::ZERO, true),
            Some(mine) if told.counter > mine.version().counter => {
                self.counter = self.counter.max(told.counter);
                self.publish(vec![mine]);
            }
            Some(mine) if told.counter < mine.version().counter => self.send_direct(by, vec![mine]),
            Some(_) => {}
            None => {
                self.counter = self.counter.max(told.counter);
                if let Item::Endpoint { scope, version, endpoint } = item {
                    let (task, network) = (endpoint.task, endpoint.network);
                    let (scope, version) = (*scope, *version);
                    self.publish(vec![Item::Gone { scope, version, owner: self.node, task, network }]);
                }
            }
        }
    }

    /// Whether what others tell of `owner` in `table` is taken in.
    pub(crate) fn takes(&self, table: Table, owner: NodeId) -> bool {
        owner != self.node && !self.removed.contains(&owner) && self.wants(table)
    }

    /// Takes in an item that `by` told, who is `informed` if it knows all entries of that age. `true` if it was new.
    pub(crate) fn accept(&mut self, item: Item, by: NodeId, informed: bool) -> bool {
        let Key { table, owner, .. } = item.key();
        if owner == self.node {
            self.own_entry_told(&item, by);
            return false;
        }
        if self.removed.contains(&owner) {
            return false;
        }
        if !self.wants(table) {
            self.stats.ignored_uninteresting += 1;
            return false;
        }
        let before = match &item {
            Item::Interest { .. } => self.records.interest(owner).cloned(),
            _ => None,
        };
        let interest = match &item {
            Item::Interest { interest, .. } => Some(interest.clone()),
            _ => None,
        };
        let teller = match informed {
            _ if by == owner => Teller::Owner,
            true => Teller::Informed,
            false => Teller::Other,
        };
        match self.records.apply(item, self.now, teller) {
            Applied::New => {
                if let Some(interest) = interest {
                    self.interest_told(owner, &before.unwrap_or_default(), &interest);
                }
                true
            }
            Applied::Doubtful => {
                self.stats.ignored_doubtful += 1;
                self.want_sync(owner, Duration::ZERO, true);
                false
            }
            Applied::Same | Applied::Stale => false,
        }
    }

    /// A member wants more than before: it gets what this node owns of it, unless so many want it that it is
    /// cheaper to let it ask one of them.
    pub(super) fn interest_told(&mut self, node: NodeId, before: &Interest, now: &Interest) {
        if !self.is_live(node) {
            return;
        }
        let mut items = self.records.all_of(self.node);
        items.retain(|item| match item.key().table {
            Table::Endpoints(scope) => now.includes(scope) && !before.includes(scope),
            Table::Interests => false,
        });
        if items.len() <= PUSHED {
            self.send_direct(node, items);
        }
    }
}
