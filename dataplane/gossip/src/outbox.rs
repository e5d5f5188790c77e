//! Changes on their way: to a few members directly until they acknowledge, to many by relay.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh_types::NodeId;

use crate::{Item, Key, Version, wire::ITEM_BUDGET};

/// Sendings of one update before the comparison of tables takes over.
const TRIES: u8 = 6;
/// Updates that wait for the acknowledgement of one member.
const BACKLOG: usize = 64;
/// Changes that are relayed at a time; the comparison of tables brings the rest.
const RELAYED: usize = 4096;

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
        if self.unacked.values().filter(|unacked| unacked.to == to).count() >= BACKLOG {
            return None;
        }
        let parcels = portions(items).into_iter().map(|items| {
            self.tickets += 1;
            let unacked = Unacked { to, items: items.clone(), tries: 1, due: now + resend };
            self.unacked.insert(self.tickets, unacked);
            Parcel { to, ticket: self.tickets, items }
        });
        Some(parcels.collect())
    }

    pub(crate) fn acknowledged(&mut self, ticket: u64, by: NodeId) {
        if self.unacked.get(&ticket).is_some_and(|unacked| unacked.to == by) {
            self.unacked.remove(&ticket);
        }
    }

    /// Nothing more is sent to `node`.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.unacked.retain(|_, unacked| unacked.to != node);
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.unacked.values().map(|unacked| unacked.due).min()
    }

    /// What is to be sent again by `now`. Items that `current` denies have been overtaken and are left out.
    pub(crate) fn due(&mut self, now: Duration, resend: Duration, current: impl Fn(&Item) -> bool) -> Due {
        let mut due = Due::default();
        self.unacked.retain(|ticket, unacked| {
            if unacked.due > now {
                return true;
            }
            unacked.items.retain(&current);
            if unacked.items.is_empty() {
                return false;
            }
            if unacked.tries >= TRIES {
                due.given_up.insert(unacked.to);
                return false;
            }
            unacked.due = now + resend * (1 << unacked.tries);
            unacked.tries += 1;
            due.parcels.push(Parcel { to: unacked.to, ticket: *ticket, items: unacked.items.clone() });
            true
        });
        due
    }

    /// Relays a change `times` times.
    pub(crate) fn relay(&mut self, key: Key, version: Version, times: u8) {
        if self.relay.len() < RELAYED || self.relay.contains_key(&key) {
            self.relay.insert(key, (version, times));
        }
    }

    pub(crate) fn relays(&self) -> bool {
        !self.relay.is_empty()
    }

    /// What to relay this time: all of it, or only `fresh` ones.
    pub(crate) fn take_relay(&mut self, fresh: Option<&BTreeSet<Key>>) -> Vec<(Key, Version)> {
        let mut taken = Vec::new();
        self.relay.retain(|key, (version, left)| {
            if fresh.is_some_and(|fresh| !fresh.contains(key)) {
                return true;
            }
            taken.push((*key, *version));
            *left = left.saturating_sub(1);
            *left > 0
        });
        taken
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
