//! What the tables hold: of one owner, of all, and fingerprints of it.

#[cfg(test)]
use std::sync::Arc;
use std::time::Duration;

use mesh_types::NodeId;
#[cfg(test)]
use mesh_types::{Endpoint, NetworkId};

use super::{Owned, Owner, Owners, Records, slots::Place};
use crate::{
    Item, Table, Version,
    wire::{Group, OwnerDigest},
};

impl Records {
    /// All entries of `owner` in `table`, tombstones included.
    pub(crate) fn of(&self, table: Table, owner: NodeId) -> Vec<Item> {
        let at = self.place(table, owner);
        let entries = self.owned(table, owner).into_iter().flat_map(|owned| owned.entries.iter());
        entries.filter_map(|(slot, entry)| entry.item(at, *slot)).collect()
    }

    /// All entries of `owner`, tombstones included.
    pub(crate) fn all_of(&self, owner: NodeId) -> Vec<Item> {
        self.tables().flat_map(|table| self.of(table, owner)).collect()
    }

    /// What a comparison tells of one owner. Of another owner than this node it is all as of what that has told.
    pub(crate) fn group(&self, table: Table, owner: NodeId, complete: Option<Version>) -> Group {
        let counter = self.owned(table, owner).map_or(0, |owned| owned.complete);
        let told = (counter > 0).then(|| Version { epoch: self.epoch(owner), counter });
        Group { table, owner, complete: complete.or(told), items: self.of(table, owner) }
    }

    /// A fingerprint of the entries in `table` that count.
    pub(crate) fn digest(&self, table: Table) -> u64 {
        self.tables.get(&table).map_or(0, |owners| owners.digest)
    }

    /// The same by owner; those without entries are left out.
    pub(crate) fn digests(&self, table: Table) -> Vec<OwnerDigest> {
        let owned = self.tables.get(&table).into_iter().flat_map(|owners| owners.owned.iter());
        let live = owned.filter(|(_, owned)| owned.entries.live() > 0);
        live.filter_map(|(owner, owned)| {
            let Owner { epoch, counts, .. } = *self.owners.get(owner)?;
            let digest = owned.entries.digest(Place { table, owner, epoch });
            counts.then_some(OwnerDigest { owner, epoch, digest })
        })
        .collect()
    }

    /// Entries in `table` that count, and the tombstones of all.
    pub(crate) fn sizes(&self, table: Table) -> (usize, usize) {
        let owners = || self.tables.get(&table).into_iter().flat_map(|owners| owners.owned.iter());
        let counts = |owner: NodeId| self.owners.get(owner).is_some_and(|known| known.counts);
        let live = owners().filter(|(owner, _)| counts(*owner)).map(|(_, owned)| owned.entries.live()).sum();
        let tombstones = owners().map(|(_, owned)| owned.entries.len() - owned.entries.live()).sum();
        (live, tombstones)
    }

    /// The newest statement of `owner` that is known, and how many of its entries are.
    pub(crate) fn newest(&self, owner: NodeId) -> (u64, usize) {
        let of = self.tables.values().filter_map(|owners| owners.owned.get(owner));
        of.fold((0, 0), |(newest, live), owned| {
            let counters = owned.entries.values().map(|entry| entry.counter);
            (counters.chain([newest, owned.complete]).max().unwrap_or(newest), live + owned.entries.live())
        })
    }

    /// Every entry, and since when it has been gone.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Item, Option<Duration>)> {
        let owned = move |(table, owners): (&Table, &Owners)| {
            let of = |(owner, owned): (NodeId, &Owned)| {
                let at = self.place(*table, owner);
                let entries = owned.entries.iter();
                let items = entries.filter_map(move |(slot, e)| Some((e.item(at, *slot)?, e.gone_since())));
                items.collect::<Vec<_>>()
            };
            owners.owned.iter().flat_map(of).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(owned)
    }

    /// Every endpoint with its table, owners in order.
    #[cfg(test)]
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (NetworkId, &Arc<Endpoint>)> {
        self.tables.iter().flat_map(|(table, owners)| {
            let entries = owners.owned.values().flat_map(|owned| owned.entries.values());
            entries.filter_map(move |entry| match (table, entry.endpoint()) {
                (Table::Endpoints(scope), Some(endpoint)) => Some((*scope, endpoint)),
                _ => None,
            })
        })
    }

    /// Whether what is kept up to date is as it would be if it were made anew.
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for table in self.tables() {
            let digest = self.digests(table).iter().fold(0, |sum, owner| sum ^ owner.digest);
            assert_eq!(self.digest(table), digest, "{table:?}");
        }
        let live: Vec<NodeId> =
            self.owners.iter().filter(|(_, known)| known.is_live).map(|(owner, _)| owner).collect();
        let wanting = |table: Table| {
            let mut wanting = live.clone();
            if let Table::Endpoints(scope) = table {
                wanting.retain(|node| self.interest(*node).is_some_and(|interest| interest.includes(scope)));
            }
            wanting
        };
        for table in self.tables() {
            let mut audience: Vec<NodeId> = self.audience(table).iter().collect();
            audience.sort_unstable();
            assert_eq!(audience, wanting(table), "{table:?}");
        }
    }
}
