//! What this node tells people.

use super::Core;
use crate::{
    MemberStatus, Table, Version,
    report::{EntryReport, MemberReport, Report, TableReport},
};

impl Core {
    /// How this node stands.
    pub fn report(&self) -> Report {
        let ago = |at: &std::time::Duration| self.now.saturating_sub(*at);
        let table = |table: Table| {
            let (entries, tombstones) = self.records.sizes(table);
            let report = TableReport {
                entries,
                tombstones,
                digest: self.records.digest(table),
                shared: !self.records.audience(table).is_empty(),
                equal: self.agreement.equal.get(&table).map(ago),
                behind: self.agreement.differing.get(&table).map(ago),
            };
            (table, report)
        };
        let member = |(node, status): (&mesh_types::NodeId, &MemberStatus)| {
            let node = *node;
            let (counter, entries) = self.records.newest(node);
            let epoch = self.records.epoch(node);
            let report = MemberReport {
                addr: status.addr,
                state: status.state,
                lasted: ago(&status.since),
                version: Version { epoch, counter },
                entries,
                behind: self.agreement.behind(node).as_ref().map(ago),
            };
            (node, report)
        };
        Report {
            node: self.node,
            version: Version { epoch: self.epoch, counter: self.counter },
            unacknowledged: self.outbox.unacknowledged(),
            relayed: self.outbox.relayed(),
            slowness: self.stats.slowness,
            tables: self.records.tables().filter(|t| self.wants(*t)).map(table).collect(),
            members: self.member_statuses().iter().map(member).collect(),
        }
    }

    /// All entries, by table, owner and task.
    pub fn entries(&self) -> Vec<EntryReport> {
        let entry = |(item, gone_since): (crate::Item, Option<std::time::Duration>)| EntryReport {
            counts: self.counts(item.key().owner),
            item,
            gone: gone_since.map(|at| self.now.saturating_sub(at)),
        };
        self.records.entries().map(entry).collect()
    }
}
