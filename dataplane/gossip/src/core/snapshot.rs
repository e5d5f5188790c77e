//! What this node knows, kept up to date entry by entry, so that a change costs no more among many.

use std::time::Duration;

use mesh_types::NodeId;

use super::Core;
use crate::{MemberState, MemberStatus, SharedMap, Tables};

impl Core {
    /// What this node knows, if that changed since the last call.
    pub fn take_tables(&mut self) -> Option<Tables> {
        let mut changed = false;
        if std::mem::take(&mut self.members_changed) {
            let members = self.member_statuses();
            changed = self.tables.members != members;
            if changed {
                self.tables.members = members;
            }
        }
        for (scope, key) in self.records.take_touched() {
            let endpoint = self.records.endpoint(scope, &key).filter(|_| self.counts(key.node)).cloned();
            changed |= self.tables.set(scope, key, endpoint);
        }
        changed.then(|| self.tables.clone())
    }

    /// A member, or this node, came or went: its endpoints count or do not.
    pub(super) fn liveness_changed(&mut self, node: NodeId) {
        self.members_changed = true;
        self.records.touch_all_of(node);
    }

    /// All members, this node among them.
    pub(super) fn member_statuses(&self) -> SharedMap<NodeId, MemberStatus> {
        let state = if self.has_left() { MemberState::Left } else { MemberState::Alive };
        let mut members = self.members.clone();
        members.insert(self.node, MemberStatus::new(self.swim.identity().addr, state, Duration::ZERO));
        members
    }

    /// What [`Core::take_tables`] tells, made from all records.
    #[cfg(test)]
    pub(crate) fn tables_anew(&self) -> Tables {
        self.records.check();
        let mut tables = Tables { members: self.member_statuses(), ..Tables::default() };
        for (scope, endpoint) in self.records.endpoints().filter(|(_, e)| self.counts(e.node)) {
            tables.set(scope, (&**endpoint).into(), Some(endpoint.clone()));
        }
        for (scope, key) in self.records.fading() {
            let told = self.tables.endpoints.get(scope).and_then(|table| table.get(key));
            tables.set(*scope, *key, told.cloned());
        }
        tables
    }
}
