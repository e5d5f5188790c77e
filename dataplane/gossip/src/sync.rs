//! Comparing tables with one member: fingerprints first, then owners, then entries of the owners that differ.
//!
//! Each step is a message of its own and no state is kept between them, so that a lost one costs a repetition only.

use std::collections::{BTreeMap, BTreeSet};

use mesh_types::NodeId;

use crate::{
    Core, Interest, Item, MAX_STREAM, Message, Table, Version,
    core::wanted,
    wire::{Group, OwnerDigest},
};

impl Core {
    fn own_interest(&self) -> Option<Item> {
        self.records.of(Table::Interests, self.node).pop()
    }

    /// The tables held here that both want; while the other's interest is not known, those wanted here.
    fn shared_tables(&self, interest: Option<&Interest>) -> BTreeSet<Table> {
        let shared = |table: &Table| self.wants(*table) && interest.is_none_or(|i| wanted(i, *table));
        self.records.tables().filter(shared).chain([Table::Interests]).collect()
    }

    pub(crate) fn start_sync(&mut self, node: NodeId) {
        let Some(interest) = self.own_interest() else { return };
        let tables = self
            .shared_tables(self.records.interest(node))
            .into_iter()
            .map(|table| (table, self.records.digest(table, |owner| self.counts(owner))))
            .collect();
        self.stats.syncs += 1;
        self.send_to(node, Message::Digest { interest, tables }, true);
    }

    pub(crate) fn receive_digest(&mut self, from: NodeId, interest: Item, tables: Vec<(Table, u64)>) {
        self.accept_interest(from, interest);
        let told: BTreeMap<Table, u64> = tables.into_iter().collect();
        let mut compared = self.shared_tables(self.records.interest(from));
        compared.extend(told.keys().filter(|table| self.wants(**table)));
        let differing: Vec<(Table, Vec<OwnerDigest>)> = compared
            .into_iter()
            .map(|table| (table, self.records.digests(table, |owner| self.counts(owner))))
            .filter(|(table, mine)| {
                let mine = mine.iter().fold(0, |sum, owner| sum ^ owner.digest);
                mine != told.get(table).copied().unwrap_or(0)
            })
            .collect();
        if let (Some(interest), false) = (self.own_interest(), differing.is_empty()) {
            self.send_to(from, Message::Owners { interest, tables: differing }, true);
        }
    }

    pub(crate) fn receive_owners(
        &mut self,
        from: NodeId,
        interest: Item,
        tables: Vec<(Table, Vec<OwnerDigest>)>,
    ) {
        self.accept_interest(from, interest);
        self.stats.syncs_differing += 1;
        let (mut wants, mut groups) = (Vec::new(), Vec::new());
        for (table, theirs) in tables {
            if !self.wants(table) {
                continue;
            }
            let mine = self.records.digests(table, |owner| self.counts(owner));
            let theirs: BTreeMap<NodeId, OwnerDigest> = theirs.into_iter().map(|d| (d.owner, d)).collect();
            let mine: BTreeMap<NodeId, OwnerDigest> = mine.into_iter().map(|d| (d.owner, d)).collect();
            let owners: BTreeSet<NodeId> = mine.keys().chain(theirs.keys()).copied().collect();
            for owner in owners {
                let (my, their) = (mine.get(&owner), theirs.get(&owner));
                if my == their {
                    continue;
                }
                // An owner is asked, never told: what it says is all there is.
                if owner == from || (their.is_some() && owner != self.node) {
                    wants.push((table, owner));
                }
                if owner != from {
                    groups.push(self.group(table, owner));
                }
            }
        }
        self.send_records(from, wants, groups);
    }

    pub(crate) fn receive_records(&mut self, from: NodeId, wants: Vec<(Table, NodeId)>, groups: Vec<Group>) {
        for Group { table, owner, complete, items } in groups {
            if items.iter().any(|item| item.key().table != table || item.key().owner != owner) {
                self.stats.ignored_invalid += items.len() as u64;
                continue;
            }
            let told = items.clone();
            for item in items {
                self.accept(item, from);
            }
            if let (Some(version), true) = (complete, owner == from && self.wants(table)) {
                self.records.complete(table, owner, version, &told);
            }
        }
        let asked: BTreeSet<(Table, NodeId)> = wants.into_iter().collect();
        let groups = asked.into_iter().map(|(table, owner)| self.group(table, owner)).collect();
        self.send_records(from, Vec::new(), groups);
    }

    fn accept_interest(&mut self, from: NodeId, interest: Item) {
        if interest.key().owner == from && interest.key().slot.is_none() {
            self.accept(interest, from);
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
