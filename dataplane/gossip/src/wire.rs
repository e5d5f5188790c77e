//! The messages between members: a version byte, then postcard. Sealing is [`crate::Sealer`]'s.
//!
//! What a later release may do without a new version, since this one passes over it: add kinds of messages and of items at the
//! end of their lists, append fields to a message, and append fields to an endpoint or an interest whose default is encoded
//! as zeros (nothing, empty, the first variant), since this one reads what is cut short as if zeros followed.

use std::{net::SocketAddr, sync::Arc};

use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::Interest;

/// The largest UDP payload sent, seal included: with IPv6 and UDP headers a packet of 1,280 bytes, which every IPv6 link carries
/// whole (RFC 8200, section 5). Narrower IPv4 paths get it in fragments; see `docs/adr/0011-suspicion.md`.
pub const MAX_DATAGRAM: usize = 1232;
/// The largest message sent over TCP, before sealing.
pub const MAX_STREAM: usize = 4 << 20;
/// What items may take of a datagram, after the seal and the packet's own fields.
pub(crate) const ITEM_BUDGET: usize = 1092;
/// What a membership message may take of a datagram.
pub(crate) const SWIM_BUDGET: usize = 1092;

const VERSION: u8 = 3;
/// Kinds of messages that this release knows.
const KINDS: u32 = 12;
/// Zeros that may be missing at the end of an item.
const PADDING: usize = 32;

/// Why bytes are no packet.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Nothing there.
    #[error("empty packet")]
    Empty,
    /// Another wire version.
    #[error("packet of version {0}, this node speaks {VERSION}")]
    Version(u8),
    /// A kind of message that a later release has.
    #[error("message of unknown kind {0}")]
    Kind(u32),
    /// The body does not decode.
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
    /// Kinds that this release knows.
    const KINDS: u32 = 3;

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

    /// Bytes that it takes of a packet, its frame included.
    pub(crate) fn encoded_len(&self) -> usize {
        postcard::experimental::serialized_size(self).map_or(usize::MAX, |len| len + 2)
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
    /// These are all of the owner's entries as of this version, but for those that have changed since: others up to it are gone.
    /// Set by the owner, and by those to whom somebody told all before.
    pub complete: Option<Version>,
    /// The entries.
    #[serde(with = "framed")]
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
        #[serde(with = "framed")]
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
    /// The sender suspects a member: can the receiver reach it?
    Inquire {
        /// The suspect.
        node: NodeId,
        /// Where it is to be asked.
        addr: SocketAddr,
        /// What tells the receiver of the suspicion, as foca writes it.
        swim: Vec<u8>,
        /// Which question.
        ticket: u64,
    },
    /// The receiver is suspected: it is to say otherwise.
    Probe {
        /// The suspicion, as foca writes it.
        swim: Vec<u8>,
        /// Which question.
        ticket: u64,
    },
    /// The sender is there.
    Probed {
        /// That it is, as foca writes it.
        swim: Vec<u8>,
        /// Which question.
        ticket: u64,
    },
    /// Whether the sender can reach a suspect.
    Witness {
        /// That it is there, as foca writes it; empty if it did not answer in time.
        swim: Vec<u8>,
        /// Which question.
        ticket: u64,
    },
}

impl Message {
    pub(crate) fn encoded_len(&self) -> usize {
        postcard::experimental::serialized_size(self).unwrap_or(usize::MAX)
    }
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
            Some((&VERSION, body)) => Self::decode_body(body),
            Some((&version, _)) => Err(WireError::Version(version)),
        }
    }

    fn decode_body(body: &[u8]) -> Result<Self, WireError> {
        let malformed = |_| WireError::Malformed;
        let ((from, epoch, sequence), message) = postcard::take_from_bytes(body).map_err(malformed)?;
        let (kind, _) = postcard::take_from_bytes::<u32>(message).map_err(malformed)?;
        if kind >= KINDS {
            return Err(WireError::Kind(kind));
        }
        let (message, _appended) = postcard::take_from_bytes(message).map_err(malformed)?;
        Ok(Self { from, epoch, sequence, message })
    }
}

/// Items, each with its length before it.
mod framed {
    use std::fmt;

    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{self, SeqAccess, Visitor},
    };

    use super::{Item, PADDING};

    /// Items that are reserved for ahead, whatever a packet says how many follow.
    const AHEAD: usize = 64;

    pub(super) fn serialize<S: Serializer>(items: &[Item], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(items.iter().map(Frame))
    }

    struct Frame<'a>(&'a Item);

    impl Serialize for Frame<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let bytes = postcard::to_stdvec(self.0).map_err(serde::ser::Error::custom)?;
            to.serialize_bytes(&bytes)
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Item>, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Vec<Item>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Item>, A::Error> {
                let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(AHEAD));
                while let Some(Known(item)) = seq.next_element()? {
                    items.extend(item);
                }
                Ok(items)
            }
        }

        from.deserialize_seq(Items)
    }

    /// None of a kind that a later release has.
    struct Known(Option<Item>);

    impl<'de> Deserialize<'de> for Known {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Bytes;

            impl<'de> Visitor<'de> for Bytes {
                type Value = Known;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an item")
                }

                fn visit_borrowed_bytes<E: de::Error>(self, bytes: &'de [u8]) -> Result<Known, E> {
                    item(bytes).map(Known).map_err(E::custom)
                }
            }

            from.deserialize_bytes(Bytes)
        }
    }

    fn item(bytes: &[u8]) -> Result<Option<Item>, postcard::Error> {
        let (kind, _) = postcard::take_from_bytes::<u32>(bytes)?;
        if kind >= Item::KINDS {
            return Ok(None);
        }
        let read = |bytes: &[u8]| postcard::take_from_bytes(bytes).map(|(item, _appended)| Some(item));
        match read(bytes) {
            Err(postcard::Error::DeserializeUnexpectedEnd) => read(&[bytes, &[0; PADDING]].concat()),
            done => done,
        }
    }
}

#[cfg(test)]
#[path = "wire/tests.rs"]
pub(crate) mod tests;
