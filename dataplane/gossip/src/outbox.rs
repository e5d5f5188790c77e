//! Changes on their way: to a few members directly until they acknowledge, to many by relay.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_types::NodeId;

use crate::{Item, Key, Version, wire::ITEM_BUDGET};

/// Sendings of one update before the comparison of tables takes over.
const TRIES: u8 = 6;
/// Updates that wait for the acknowledgement of one member.
const BACKLOG: usize = 64;
/// Changes that wait to be relayed; the comparison of tables brings the rest.
const RELAYED: usize = 4096;
/// Changes that are relayed at a time.
const BATCH: usize = 256;

#[derive(Debug)]
struct Unacked {
    to: NodeId,
    items: Vec<Item>,
    tries: u8,
    due: Duration,
}

/// An update to send.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) to: NodeId,
    pub(crate) ticket: u64,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    tickets: u64,
    unacked: BTreeMap<u64, Unacked>,
    /// When updates are due to be sent again.
    due: BTreeSet<(Duration, u64)>,
    /// Updates that wait for each member.
    waiting: BTreeMap<NodeId, usize>,
    /// How often each change is yet to be relayed.
    relay: BTreeMap<Key, (Version, u8)>,
}

/// What is due to be sent again, and who does not answer.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) parcels: Vec<Parcel>,
    pub(crate) given_up: BTreeSet<NodeId>,
}

impl Outbox {
    /// Registers `items` for `to`, in portions that each fit into a datagram; `None` if too much waits for it.
    pub(crate) fn direct(
        &mut self,
        to: NodeId,
        items: Vec<Item>,
        now: Duration,
        resend: Duration,
    ) -> Option<Vec<Parcel>> {
        if self.waiting.get(&to).is_some_and(|waiting| *waiting >= BACKLOG) {
            return None;
        }
        let parcels = portions(items).into_iter().map(|items| {
            self.tickets += 1;
            let unacked = Unacked { to, items: items.clone(), tries: 1, due: now + resend };
            self.due.insert((unacked.due, self.tickets));
            *self.waiting.entry(to).or_default() += 1;
            self.unacked.insert(self.tickets, unacked);
            Parcel { to, ticket: self.tickets, items }
        });
        Some(parcels.collect())
    }

    fn remove(&mut self, ticket: u64) {
        let Some(Unacked { to, due, .. }) = self.unacked.remove(&ticket) else { return };
        self.due.remove(&(due, ticket));
        if let Some(waiting) = self.waiting.get_mut(&to) {
            *waiting -= 1;
            if *waiting == 0 {
                self.waiting.remove(&to);
            }
        }
    }

    pub(crate) fn acknowledged(&mut self, ticket: u64, by: NodeId) {
        if self.unacked.get(&ticket).is_some_and(|unacked| unacked.to == by) {
            self.remove(ticket);
        }
    }

    /// Nothing more is sent to `node`.
    pub(crate) fn forget(&mut self, node: NodeId) {
        if self.waiting.contains_key(&node) {
            let to = self.unacked.iter().filter(|(_, unacked)| unacked.to == node);
            to.map(|(ticket, _)| *ticket)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|ticket| self.remove(ticket));
        }
    }

    /// Updates that members have not acknowledged yet.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacked.len()
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.due.first().map(|(due, _)| *due)
    }

    /// What is to be sent again by `now`. Items that `current` denies have been overtaken and are left out.
    pub(crate) fn due(&mut self, now: Duration, resend: Duration, current: impl Fn(&Item) -> bool) -> Due {
        let mut due = Due::default();
        while let Some((at, ticket)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            let Some(unacked) = self.unacked.get_mut(&ticket) else {
                self.due.remove(&(at, ticket));
                continue;
            };
            unacked.items.retain(&current);
            if unacked.items.is_empty() {
                self.remove(ticket);
                continue;
            }
            if unacked.tries >= TRIES {
                due.given_up.insert(unacked.to);
                self.remove(ticket);
                continue;
            }
            unacked.due = now + resend * (1 << unacked.tries);
            unacked.tries += 1;
            due.parcels.push(Parcel { to: unacked.to, ticket, items: unacked.items.clone() });
            self.due.remove(&(at, ticket));
            self.due.insert((unacked.due, ticket));
        }
        due
    }

    /// Relays a change `times` times. Where too many wait, one of `own` takes the place of another's.
    pub(crate) fn relay(&mut self, key: Key, version: Version, times: u8, own: NodeId) {
        if self.relay.len() >= RELAYED && !self.relay.contains_key(&key) {
            let foreign = self.relay.iter().filter(|(key, _)| key.owner != own);
            let told_most = foreign.min_by_key(|(_, (_, left))| *left).map(|(key, _)| *key);
            match told_most.filter(|_| key.owner == own) {
                Some(place) => drop(self.relay.remove(&place)),
                None => return,
            }
        }
        self.relay.insert(key, (version, times));
    }

    /// Changes that wait to be relayed.
    pub(crate) fn relayed(&self) -> usize {
        self.relay.len()
    }

    pub(crate) fn relays(&self) -> bool {
        !self.relay.is_empty()
    }

    /// What to relay this time, of all or only of `fresh` ones: no more than a batch, those of `own` first, then those that
    /// were relayed least.
    pub(crate) fn take_relay(&mut self, fresh: Option<&BTreeSet<Key>>, own: NodeId) -> Vec<(Key, Version)> {
        let waiting = self.relay.iter().filter(|(key, _)| fresh.is_none_or(|fresh| fresh.contains(key)));
        let mut taken: Vec<(Key, Version, u8)> =
            waiting.map(|(key, (version, left))| (*key, *version, *left)).collect();
        if taken.len() > BATCH {
            taken.sort_by_key(|(key, _, left)| (key.owner != own, Reverse(*left)));
            taken.truncate(BATCH);
        }
        for (key, version, left) in &taken {
            match left.saturating_sub(1) {
                0 => drop(self.relay.remove(key)),
                left => drop(self.relay.insert(*key, (*version, left))),
            }
        }
        taken.into_iter().map(|(key, version, _)| (key, version)).collect()
    }
}

/// Cuts items into portions that fit into a datagram each; an item that is larger makes one of its own.
pub(crate) fn portions(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut portions: Vec<Vec<Item>> = Vec::new();
    let mut room = 0;
    for item in items {
        let size = item.encoded_len();
        match portions.last_mut() {
            Some(last) if size <= room => last.push(item),
            _ => {
                portions.push(vec![item]);
                room = ITEM_BUDGET;
            }
        }
        room = room.saturating_sub(size);
    }
    portions
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
