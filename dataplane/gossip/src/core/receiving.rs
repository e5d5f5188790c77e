//! What packets bring.

use std::collections::BTreeSet;

use mesh_types::NodeId;

use super::{Core, rounds};
use crate::{Item, Message, Packet, WireError, replay::Window};

/// Which of a sender's packets were seen, in one of its incarnations.
#[derive(Debug, Default)]
pub(super) struct Windows {
    epoch: u64,
    datagrams: Window,
    /// Most members never send one.
    streams: Option<Box<Window>>,
}

impl Windows {
    pub(super) fn of(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }
}

impl Core {
    pub(super) fn receive(&mut self, bytes: &[u8], stream: bool) {
        let Packet { from, epoch, sequence, message } = match Packet::decode(bytes) {
            Ok(packet) => packet,
            Err(error) => {
                let counter = match error {
                    WireError::Version(_) => &mut self.stats.dropped_version,
                    WireError::Kind(_) => &mut self.stats.ignored_kind,
                    WireError::Empty | WireError::Malformed => &mut self.stats.dropped_malformed,
                };
                *counter += 1;
                return;
            }
        };
        if from == self.node || self.removed.contains(&from) {
            self.stats.dropped_stranger += 1;
            return;
        }
        let known = self.records.epoch(from);
        if epoch < known {
            self.stats.dropped_outdated += 1;
            return self.tell_outdated(from, known);
        }
        let windows = self.windows.or_default(from);
        if windows.epoch != epoch {
            *windows = Windows::of(epoch);
        }
        let window = match stream {
            true => windows.streams.get_or_insert_default(),
            false => &mut windows.datagrams,
        };
        if !window.accept(sequence) {
            self.stats.dropped_replayed += 1;
            return;
        }
        self.records.raise_epoch(from, epoch);
        match message {
            Message::Ack { ticket } => self.outbox.acknowledged(ticket, from),
            _ if self.has_left() => {}
            Message::Swim(bytes) => {
                let outcome = self.swim.data(&bytes, self.now);
                self.take_swim(outcome);
            }
            Message::Update { relay, ticket, items } => self.receive_update(from, relay, ticket, items),
            Message::Leave => self.member_left(from),
            Message::Outdated { epoch } if epoch > self.epoch => self.raise_own_epoch(epoch),
            Message::Outdated { .. } => {}
            Message::Digest { interest, tables } => self.receive_digest(from, interest, tables),
            Message::Owners { interest, tables } => self.receive_owners(from, interest, tables),
            Message::Records { wants, groups } => self.receive_records(from, wants, groups),
            Message::Inquire { node, addr, swim, ticket } => {
                self.receive_inquiry(from, node, addr, swim, ticket)
            }
            Message::Probe { swim, ticket } => self.receive_probe(from, &swim, ticket),
            Message::Probed { swim, ticket } => self.receive_probed(from, &swim, ticket),
            Message::Witness { swim, ticket } => self.receive_witness(from, &swim, ticket),
        }
    }

    fn tell_outdated(&mut self, node: NodeId, epoch: u64) {
        let addr = self.peers.get(node).map(crate::addr::SmallAddr::get);
        let addr = addr.or_else(|| self.members.get(&node).map(|member| member.addr));
        if let (Some(to), true) = (addr, self.told_outdated.insert(node, self.now).is_none()) {
            self.send(to, Message::Outdated { epoch }, false);
        }
    }

    fn receive_update(&mut self, from: NodeId, relay: bool, ticket: u64, items: Vec<Item>) {
        if ticket != 0 {
            self.send_to(from, Message::Ack { ticket }, false);
        }
        let mut fresh = BTreeSet::new();
        for item in items {
            let (key, version) = (item.key(), item.version());
            if self.accept(item, from, false) && relay {
                let times = rounds(self.records.audience(key.table).len());
                self.outbox.relay(key, version, times, self.node);
                fresh.insert(key);
            }
        }
        self.flush_relay(Some(&fresh));
    }
}
