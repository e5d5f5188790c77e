//! What time brings.

use std::{collections::BTreeSet, time::Duration};

use mesh_types::NodeId;
use rand::Rng;

use super::{Core, HOUSEKEEPING, membership, wanted};
use crate::{Item, Table};

/// Comparisons begun at a time; among many members fewer, and with a pause: where all are new to each other, the first few make
/// the others equal, which then cost one small message instead of all tables.
const SYNCS: usize = 8;
const SYNCS_OF_MANY: usize = 4;
const SYNC_PAUSE: Duration = Duration::from_millis(200);
/// In one of so many rounds of housekeeping everything is looked at anew, should it have changed unseen.
const ROUNDS_ANEW: u32 = 30;

impl Core {
    pub(super) fn tick(&mut self) {
        self.resend();
        if self.has_left() {
            return self.say_farewell();
        }
        let outcome = self.swim.timers(self.now);
        self.take_swim(outcome);
        self.ask_due();
        self.witnesses_due();
        if self.retry_at <= self.now {
            self.try_peers();
        }
        if self.outbox.relays() && self.relay_at <= self.now {
            self.flush_relay(None);
        }
        if self.sync_at <= self.now {
            self.sync_at = self.now + self.timing.sync_interval.mul_f64(self.rng.random_range(0.8..1.2));
            let tables: BTreeSet<Table> = self.records.tables().filter(|table| self.wants(*table)).collect();
            self.sync_tables(tables, false);
        }
        if self.introduce_at <= self.now {
            self.introduce();
        }
        if self.syncs_from <= self.now {
            self.start_syncs();
        }
        if self.housekeeping_at <= self.now {
            self.housekeeping_at = self.now + HOUSEKEEPING;
            self.keep_house();
        }
    }

    /// Begins the comparisons that have been due longest.
    fn start_syncs(&mut self) {
        let many = self.live.max(self.peers.len()) > membership::MANY;
        let due = self.syncs.iter().filter(|(_, (at, _))| *at <= self.now);
        let mut due: Vec<(Duration, NodeId, bool)> =
            due.map(|(node, (at, surely))| (*at, *node, *surely)).collect();
        due.sort_unstable();
        due.truncate(if many { SYNCS_OF_MANY } else { SYNCS });
        if many && !due.is_empty() {
            self.syncs_from = self.now + SYNC_PAUSE;
        }
        for (_, node, surely) in due {
            self.syncs.remove(&node);
            self.start_sync(node, surely);
        }
    }

    fn resend(&mut self) {
        let records = &self.records;
        let current = |item: &Item| records.version(&item.key()) == Some(item.version());
        let due = self.outbox.due(self.now, self.timing.resend, current);
        self.stats.resent += due.parcels.len() as u64;
        for parcel in due.parcels {
            self.send_parcel(parcel);
        }
        for node in due.given_up {
            self.want_sync(node, Duration::ZERO, true);
        }
    }

    fn keep_house(&mut self) {
        self.records.reap(self.now, self.timing.tombstone_ttl);
        self.stats.slowness = self.swim.health().get();
        self.housekeepings = self.housekeepings.wrapping_add(1);
        if self.housekeepings.is_multiple_of(ROUNDS_ANEW) {
            self.swim.resync();
        }
        self.observe_all();
        self.refresh_interest();
        let mut gone = Vec::new();
        for node in self.records.uncounted().filter(|node| !self.members.contains_key(node)) {
            self.unknown.entry(node).or_insert(self.now);
        }
        self.unknown.retain(|node, _| !self.members.contains_key(node));
        let absent = self.members.iter().filter(|(_, m)| !m.counts()).map(|(node, m)| (*node, m.since));
        for (node, since) in absent.chain(self.unknown.iter().map(|(node, since)| (*node, *since))) {
            if self.now.saturating_sub(since) >= self.timing.down_retention {
                gone.push(node);
            }
        }
        for node in gone {
            self.unknown.remove(&node);
            if self.peers.contains(node) {
                // What it said last stays known, or it could be said again by whoever has heard it.
                self.records.drop_entries(node);
            } else {
                self.records.forget(node);
                self.windows.remove(node);
                self.members_changed |= self.members.remove(&node).is_some();
            }
        }
        self.told_outdated.clear();
    }

    // Choosing whom to compare with; how is in `sync`.

    pub(crate) fn want_sync(&mut self, node: NodeId, after: Duration, surely: bool) {
        if self.is_live(node) {
            let at = self.now + after;
            let (due, sure) = self.syncs.entry(node).or_insert((at, surely));
            (*due, *sure) = (at.min(*due), surely || *sure);
        }
    }

    /// Compares `tables` with random members, as few as together want them all.
    pub(super) fn sync_tables(&mut self, mut tables: BTreeSet<Table>, surely: bool) {
        let mut chosen = 0;
        while let (Some(table), true) = (tables.pop_first(), chosen < SYNCS) {
            if let Some(node) = self.records.audience(table).choose(1, &mut self.rng).first().copied() {
                chosen += 1;
                self.want_sync(node, Duration::ZERO, surely);
                match self.records.interest(node) {
                    Some(interest) => tables.retain(|table| !wanted(interest, *table)),
                    None => tables.retain(|table| *table != Table::Interests),
                }
            }
        }
    }
}
