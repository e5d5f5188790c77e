//! What openraft is told about our types.

use std::{fmt, net::SocketAddr};

use mesh_store::{Command, OLDEST_FORMAT, Rejection, Response};
use mesh_types::NodeId;
use openraft::{EntryPayload, type_config::alias};
use serde::{Deserialize, Serialize};

/// A manager's id: its node's id. A type of its own because openraft's test suite wants conversions that a node id
/// should not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RaftId(pub NodeId);

impl fmt::Display for RaftId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What members know of each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where its manager API is reached.
    pub addr: SocketAddr,
}

/// A command on its way through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Proposal(pub Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("command")
    }
}

/// The format that an entry has on disk and between managers.
pub(crate) fn format_of(entry: &Entry) -> u8 {
    match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.format(),
        EntryPayload::Blank | EntryPayload::Membership(_) => OLDEST_FORMAT,
    }
}

/// What carrying out an entry gave; none for entries of Raft itself.
pub(crate) type Outcome = Option<Result<Response, Rejection>>;

openraft::declare_raft_types!(
    /// Our types.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = RaftId,
        Node = Member,
        // One leader a term, as everybody who knows Raft expects; openraft's own choice allows several, one after another.
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, RaftId>,
);

pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type Snapshot = alias::SnapshotOf<TypeConfig, Vec<u8>>;

#[cfg(test)]
mod for_the_suite {
    use super::*;

    impl From<u64> for RaftId {
        fn from(id: u64) -> Self {
            Self(NodeId::from_u128(id.into()))
        }
    }

    impl Default for Member {
        fn default() -> Self {
            Self { addr: SocketAddr::from(([127, 0, 0, 1], 2377)) }
        }
    }
}
