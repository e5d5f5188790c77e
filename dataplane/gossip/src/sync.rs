//! Comparing tables with one member: fingerprints first, then owners, then entries of the owners that differ.
//!
//! Each step is a message of its own and no state is kept between them, so that a lost one costs a repetition only.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_types::NodeId;

use crate::{
    Core, Interest, Item, MAX_STREAM, Message, Table, Version,
    core::wanted,
    wire::{Group, ITEM_BUDGET, OwnerDigest},
};

/// A difference is looked at again after this, at most once in [`LOOKS`].
const LOOK_AGAIN: Duration = Duration::from_millis(500);
const LOOKS: Duration = Duration::from_secs(1);

/// Since when this node's tables are as others', as far as comparisons tell. For people.
#[derive(Debug, Default)]
pub(crate) struct Agreement {
    /// When a table was last found to be as another member's.
    pub(crate) equal: BTreeMap<Table, Duration>,
    /// Tables that were found to be otherwise since, and when that was first found.
    pub(crate) differing: BTreeMap<Table, Duration>,
    /// Owners whose entries were found to be otherwise, likewise.
    owners: BTreeMap<(NodeId, Table), Duration>,
    looks_at: Duration,
}

impl Agreement {
    fn agrees(&mut self, table: Table, now: Duration) {
        self.equal.insert(table, now);
        if self.differing.remove(&table).is_some() {
            self.owners.retain(|(_, of), _| *of != table);
        }
    }

    fn owner_differs(&mut self, owner: NodeId, table: Table, now: Duration) {
        self.owners.entry((owner, table)).or_insert(now);
    }

    /// Since when what is known of `owner` has been known to be otherwise than what another knows.
    pub(crate) fn behind(&self, owner: NodeId) -> Option<Duration> {
        let of_owner = self.owners.range((owner, Table::Interests)..).take_while(|((of, _), _)| *of == owner);
        of_owner.map(|(_, since)| *since).min()
    }

    fn differs(&mut self, table: Table, now: Duration) {
        self.differing.entry(table).or_insert(now);
    }

    fn may_look_again(&mut self, now: Duration) -> bool {
        let may = now >= self.looks_at;
        if may {
            self.looks_at = now + LOOKS;
        }
        may
    }

    pub(crate) fn retain_tables(&mut self, keep: impl Fn(Table) -> bool) {
        self.equal.retain(|table, _| keep(*table));
        self.differing.retain(|table, _| keep(*table));
        self.owners.retain(|(_, table), _| keep(*table));
    }
}

impl Core {
    fn own_interest(&self) -> Option<Item> {
        self.records.of(Table::Interests, self.node).pop()
    }

    /// The tables held here that both want; while the other's interest is not known, those wanted here.
    fn shared_tables(&self, interest: Option<&Interest>) -> BTreeSet<Table> {
        let shared = |table: &Table| self.wants(*table) && interest.is_none_or(|i| wanted(i, *table));
        self.records.tables().filter(shared).chain([Table::Interests]).collect()
    }

    /// Begins a comparison. `surely` by TCP; otherwise by one datagram if it fits, whose loss costs until the next comparison.
    pub(crate) fn start_sync(&mut self, node: NodeId, surely: bool) {
        let Some(interest) = self.own_interest() else { return };
        let tables = self
            .shared_tables(self.records.interest(node))
            .into_iter()
            .map(|table| (table, self.records.digest(table)))
            .collect();
        self.stats.syncs += 1;
        let digest = Message::Digest { interest, tables };
        let stream = surely || digest.encoded_len() > ITEM_BUDGET;
        self.send_to(node, digest, stream);
    }

    pub(crate) fn receive_digest(&mut self, from: NodeId, interest: Item, tables: Vec<(Table, u64)>) {
        self.accept_interest(from, interest);
        let told: BTreeMap<Table, u64> = tables.into_iter().collect();
        let mut compared = self.shared_tables(self.records.interest(from));
        compared.extend(told.keys().filter(|table| self.wants(**table)));
        let mut differing: Vec<(Table, Vec<OwnerDigest>)> = Vec::new();
        for table in compared {
            if self.records.digest(table) == told.get(&table).copied().unwrap_or(0) {
                self.agreement.agrees(table, self.now);
            } else {
                self.agreement.differs(table, self.now);
                differing.push((table, self.records.digests(table)));
            }
        }
        if differing.is_empty() {
            self.stats.syncs_equal += 1;
        } else if let Some(interest) = self.own_interest() {
            self.stats.syncs_differing += 1;
            self.send_to(from, Message::Owners { interest, tables: differing }, true);
            self.look_again(from);
        }
    }

    pub(crate) fn receive_owners(
        &mut self,
        from: NodeId,
        interest: Item,
        tables: Vec<(Table, Vec<OwnerDigest>)>,
    ) {
        self.accept_interest(from, interest);
        let (mut wants, mut groups) = (Vec::new(), Vec::new());
        for (table, theirs) in tables {
            if !self.wants(table) {
                continue;
            }
            self.agreement.differs(table, self.now);
            let mine = self.records.digests(table);
            let theirs: BTreeMap<NodeId, OwnerDigest> = theirs.into_iter().map(|d| (d.owner, d)).collect();
            let mine: BTreeMap<NodeId, OwnerDigest> = mine.into_iter().map(|d| (d.owner, d)).collect();
            let owners: BTreeSet<NodeId> = mine.keys().chain(theirs.keys()).copied().collect();
            for owner in owners {
                let (my, their) = (mine.get(&owner), theirs.get(&owner));
                if my == their {
                    continue;
                }
                self.agreement.owner_differs(owner, table, self.now);
                // An owner is asked, never told: what it says is all there is. Others may know that an entry is deleted, so
                // that they are asked even if they have none.
                if owner != self.node {
                    wants.push((table, owner));
                }
                if owner != from {
                    groups.push(self.group(table, owner));
                }
            }
        }
        self.send_records(from, wants, groups);
        self.look_again(from);
    }

    /// After a difference was found: is it mended?
    fn look_again(&mut self, node: NodeId) {
        if self.agreement.may_look_again(self.now) {
            self.want_sync(node, LOOK_AGAIN, false);
        }
    }

    pub(crate) fn receive_records(&mut self, from: NodeId, wants: Vec<(Table, NodeId)>, groups: Vec<Group>) {
        for Group { table, owner, complete, items } in groups {
            if items.iter().any(|item| item.key().table != table || item.key().owner != owner) {
                self.stats.ignored_invalid += items.len() as u64;
                continue;
            }
            let told = items.clone();
            let known_as_of = complete.filter(|version| version.epoch >= self.records.epoch(owner));
            for item in items {
                let as_old = known_as_of.is_some_and(|complete| item.version() <= complete);
                self.accept(item, from, as_old);
            }
            if let (Some(version), true) = (known_as_of, self.takes(table, owner)) {
                self.records.complete(table, owner, version, &told);
            }
        }
        let asked: BTreeSet<(Table, NodeId)> = wants.into_iter().collect();
        let groups = asked.into_iter().map(|(table, owner)| self.group(table, owner)).collect();
        self.send_records(from, Vec::new(), groups);
    }

    fn accept_interest(&mut self, from: NodeId, interest: Item) {
        if interest.key().owner == from && interest.key().slot.is_none() {
            self.accept(interest, from, false);
        } else {
            self.stats.ignored_invalid += 1;
        }
    }

    fn group(&self, table: Table, owner: NodeId) -> Group {
        let version = Version { epoch: self.epoch, counter: self.counter };
        self.records.group(table, owner, (owner == self.node).then_some(version))
    }

    /// Sends groups in messages of bounded size; a group is never cut.
    fn send_records(&mut self, to: NodeId, wants: Vec<(Table, NodeId)>, groups: Vec<Group>) {
        let mut wants = wants;
        let mut portion: Vec<Group> = Vec::new();
        let mut size = 0;
        for group in groups {
            let more = postcard::experimental::serialized_size(&group).unwrap_or(MAX_STREAM);
            if size + more > MAX_STREAM / 2 && !portion.is_empty() {
                let (wants, groups) = (std::mem::take(&mut wants), std::mem::take(&mut portion));
                self.send_to(to, Message::Records { wants, groups }, true);
                size = 0;
            }
            size += more;
            portion.push(group);
        }
        if !wants.is_empty() || !portion.is_empty() {
            self.send_to(to, Message::Records { wants, groups: portion }, true);
        }
    }
}
