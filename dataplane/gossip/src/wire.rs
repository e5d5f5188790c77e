//! The messages between members: a version byte, then postcard. Sealing is [`crate::Sealer`]'s.

use std::sync::Arc;

use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Interest;

/// The largest UDP payload sent, seal included: passes every link without fragments, tunnels included.
pub const MAX_DATAGRAM: usize = 1300;
/// The largest message sent over TCP, before sealing.
pub const MAX_STREAM: usize = 4 << 20;
/// What items may take of a datagram, after the seal and the packet's own fields.
pub(crate) const ITEM_BUDGET: usize = 1160;
/// What a membership message may take of a datagram.
pub(crate) const SWIM_BUDGET: usize = 1180;

const VERSION: u8 = 2;

/// Why bytes are no packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Nothing there.
    #[error("empty packet")]
    Empty,
    /// Another wire version.
    #[error("packet of version {0}, this node speaks {VERSION}")]
    Version(u8),
    /// The body does not decode, or bytes are left over.
    #[error("malformed packet")]
    Malformed,
}

/// Which statement of an owner is newer: first by the owner's incarnation, then by its count of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The owner's incarnation: higher after each restart.
    pub epoch: u64,
    /// Counts the owner's changes within one incarnation.
    pub counter: u64,
}

/// One of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Table {
    /// Who is interested in what; every member keeps it.
    Interests,
    /// The endpoints told in the scope of a network.
    Endpoints(NetworkId),
}

/// Names an entry in all tables of all owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The table.
    pub table: Table,
    /// The only member that changes it.
    pub owner: NodeId,
    /// Task and network; none for an interest, of which each member has one.
    pub slot: Option<(TaskId, NetworkId)>,
}

/// One entry, or its deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// The tables that a member wants.
    Interest {
        /// The member.
        owner: NodeId,
        /// Which statement of it.
        version: Version,
        /// What it wants.
        interest: Interest,
    },
    /// An endpoint, owned by its node.
    Endpoint {
        /// The table.
        scope: NetworkId,
        /// Which statement of its node.
        version: Version,
        /// The endpoint.
        endpoint: Arc<Endpoint>,
    },
    /// An endpoint that is no more: a tombstone.
    Gone {
        /// The table.
        scope: NetworkId,
        /// Which statement of the owner.
        version: Version,
        /// The owner.
        owner: NodeId,
        /// The task.
        task: TaskId,
        /// The network that the task was attached to.
        network: NetworkId,
    },
}

impl Item {
    /// Its name.
    pub fn key(&self) -> Key {
        match self {
            Item::Interest { owner, .. } => Key { table: Table::Interests, owner: *owner, slot: None },
            Item::Endpoint { scope, endpoint, .. } => Key {
                table: Table::Endpoints(*scope),
                owner: endpoint.node,
                slot: Some((endpoint.task, endpoint.network)),
            },
            Item::Gone { scope, owner, task, network, .. } => {
                Key { table: Table::Endpoints(*scope), owner: *owner, slot: Some((*task, *network)) }
            }
        }
    }

    /// Which statement of the owner it is.
    pub fn version(&self) -> Version {
        match self {
            Item::Interest { version, .. } | Item::Endpoint { version, .. } | Item::Gone { version, .. } => {
                *version
            }
        }
    }

    pub(crate) fn with_version(mut self, new: Version) -> Self {
        match &mut self {
            Item::Interest { version, .. } | Item::Endpoint { version, .. } | Item::Gone { version, .. } => {
                *version = new;
            }
        }
        self
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Item::Gone { .. })
    }

    pub(crate) fn encoded_len(&self) -> usize {
        postcard::experimental::serialized_size(self).unwrap_or(usize::MAX)
    }
}

/// A fingerprint of one owner's entries in a table; tombstones do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerDigest {
    /// The owner.
    pub owner: NodeId,
    /// Its incarnation, as known.
    pub epoch: u64,
    /// The fingerprint.
    pub digest: u64,
}

/// All that one member knows of one owner in one table, tombstones included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The table.
    pub table: Table,
    /// The owner.
    pub owner: NodeId,
    /// Set by the owner alone: these are all of its entries as of this version; others up to it are gone.
    pub complete: Option<Version>,
    /// The entries.
    pub items: Vec<Item>,
}

/// What a packet says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// SWIM, as foca writes it.
    Swim(Vec<u8>),
    /// Changes.
    Update {
        /// The receiver is to tell others what is new to it.
        relay: bool,
        /// To be acknowledged unless 0.
        ticket: u64,
        /// The changes.
        items: Vec<Item>,
    },
    /// An update has come.
    Ack {
        /// Which.
        ticket: u64,
    },
    /// The sender leaves the cluster.
    Leave,
    /// The receiver's incarnation is lower than what is known of it: it has to take a higher one.
    Outdated {
        /// What is known.
        epoch: u64,
    },
    /// First step of a comparison: a fingerprint per table that both may want. Equal ones end it here.
    Digest {
        /// The sender's interest.
        interest: Item,
        /// By table.
        tables: Vec<(Table, u64)>,
    },
    /// Second step: the owners of the tables that differ.
    Owners {
        /// The sender's interest.
        interest: Item,
        /// By table.
        tables: Vec<(Table, Vec<OwnerDigest>)>,
    },
    /// Third and fourth step: what the sender knows of the owners that differ, and what it wants to know.
    Records {
        /// Owners of tables, to be answered with their groups.
        wants: Vec<(Table, NodeId)>,
        /// What the sender knows.
        groups: Vec<Group>,
    },
}

/// One message and who sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// The sender.
    pub from: NodeId,
    /// Its incarnation.
    pub epoch: u64,
    /// Counts its datagrams, or its streams; tells replays.
    pub sequence: u64,
    /// What it says.
    pub message: Message,
}

impl Packet {
    /// The packet as bytes, yet to be sealed.
    pub fn encode(&self) -> Vec<u8> {
        // Serialization into a growing buffer fails only for types that postcard refuses, of which there are none.
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// Reads what [`Packet::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        match bytes.split_first() {
            None => Err(WireError::Empty),
            Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
                Ok((packet, [])) => Ok(packet),
                _ => Err(WireError::Malformed),
            },
            Some((&version, _)) => Err(WireError::Version(version)),
        }
    }
}

#[cfg(test)]
#[path = "wire/tests.rs"]
pub(crate) mod tests;
