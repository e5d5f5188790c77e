//! Telling changes: to a few members directly, to many by relay.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_types::NodeId;

use super::{Core, DIRECT, FANOUT, LATER_FANOUT, rounds};
use crate::{
    Item, Key, Message, Output, Packet, Table,
    outbox::{Parcel, portions},
    wire::ITEM_BUDGET,
};

impl Core {
    pub(super) fn disseminate(&mut self, items: Vec<Item>) {
        let mut direct: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        let mut fresh = BTreeSet::new();
        for item in items {
            let key = item.key();
            let audience = self.records.audience(key.table);
            if audience.len() > DIRECT {
                self.outbox.relay(key, item.version(), rounds(audience.len()), self.node);
                fresh.insert(key);
            } else {
                for node in audience.iter() {
                    direct.entry(node).or_default().push(item.clone());
                }
            }
        }
        for (node, items) in direct {
            self.send_direct(node, items);
        }
        self.flush_relay(Some(&fresh));
    }

    pub(crate) fn send_direct(&mut self, to: NodeId, items: Vec<Item>) {
        if items.is_empty() || !self.is_live(to) {
            return;
        }
        match self.outbox.direct(to, items, self.now, self.timing.resend) {
            Some(parcels) => parcels.into_iter().for_each(|parcel| self.send_parcel(parcel)),
            None => self.want_sync(to, Duration::ZERO, true),
        }
    }

    pub(super) fn send_parcel(&mut self, parcel: Parcel) {
        let Parcel { to, ticket, items } = parcel;
        let large = items.iter().any(|item| item.encoded_len() > ITEM_BUDGET);
        self.send_to(to, Message::Update { relay: false, ticket, items }, large);
    }

    /// Relays what is due, or only `fresh` changes at once: this node's own first, and no more than a batch.
    pub(super) fn flush_relay(&mut self, fresh: Option<&BTreeSet<Key>>) {
        let mut by_target: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        let mut targets: BTreeMap<Table, Vec<NodeId>> = BTreeMap::new();
        let fanout = if fresh.is_some() { FANOUT } else { LATER_FANOUT };
        if fresh.is_none_or(|fresh| !fresh.is_empty()) {
            for (key, version) in self.outbox.take_relay(fresh, self.node) {
                if self.records.version(&key) != Some(version) {
                    continue;
                }
                let Some(item) = self.records.get(&key) else { continue };
                let targets = targets
                    .entry(key.table)
                    .or_insert_with(|| self.records.audience(key.table).choose(fanout, &mut self.rng));
                for node in targets.iter().filter(|node| **node != key.owner) {
                    by_target.entry(*node).or_default().push(item.clone());
                }
            }
        }
        for (node, items) in by_target {
            for items in portions(items) {
                let large = items.iter().any(|item| item.encoded_len() > ITEM_BUDGET);
                self.send_to(node, Message::Update { relay: true, ticket: 0, items }, large);
            }
        }
        if fresh.is_none() || self.relay_at < self.now {
            self.relay_at = self.now + self.timing.gossip_interval / 2;
        }
    }

    pub(crate) fn send_to(&mut self, node: NodeId, message: Message, stream: bool) {
        if let Some(member) = self.members.get(&node) {
            self.send(member.addr, message, stream);
        }
    }

    pub(super) fn send(&mut self, to: SocketAddr, message: Message, stream: bool) {
        let counter = if stream { &mut self.sequences.1 } else { &mut self.sequences.0 };
        *counter += 1;
        let packet = Packet { from: self.node, epoch: self.epoch, sequence: *counter, message };
        let bytes = packet.encode();
        self.out.push(if stream { Output::Stream { to, bytes } } else { Output::Datagram { to, bytes } });
    }
}
