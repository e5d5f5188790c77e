//! What a core is given, and what it gives.

use std::net::SocketAddr;

use mesh_types::NodeId;

use crate::{Announcement, Interest, Timing};

/// Who this member is.
#[derive(Debug, Clone)]
pub struct CoreConfig {
    /// This node.
    pub node: NodeId,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Its incarnation; see [`crate::GossipConfig::incarnation`].
    pub incarnation: u64,
    /// How fast.
    pub timing: Timing,
    /// Of its random choices.
    pub seed: u64,
}

/// An event.
#[derive(Debug, Clone)]
pub enum Input {
    /// `Core::deadline` is reached.
    Tick,
    /// An opened datagram.
    Datagram(Vec<u8>),
    /// An opened TCP message.
    Stream(Vec<u8>),
    /// All endpoints of this node.
    Announce(Vec<Announcement>),
    /// The tables that this node wants.
    Interest(Interest),
    /// The members that the managers know.
    Peers(Vec<(NodeId, SocketAddr)>),
    /// Where the data paths of the other nodes can be asked whether they work.
    DataPaths(Vec<(NodeId, SocketAddr)>),
    /// A data path answers the question that bore this number.
    Answer {
        /// Who.
        from: SocketAddr,
        /// As it was asked.
        nonce: u64,
    },
    /// Others reach this node at another address from now on.
    Advertise(SocketAddr),
    /// This node leaves the cluster.
    Leave,
}

/// Something to send, yet to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// By UDP.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// By TCP, as one message.
    Stream {
        /// Where to.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// To a node's data path, from the address of this node's own.
    Question {
        /// Where to.
        to: SocketAddr,
        /// By which its answer is known.
        nonce: u64,
    },
}

/// Counters of a core since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CoreStats {
    /// Dropped: does not decode.
    pub dropped_malformed: u64,
    /// Dropped: of a wire version that this node does not speak.
    pub dropped_version: u64,
    /// Passed over: of a kind that a later release has.
    pub ignored_kind: u64,
    /// Dropped: seen before, or too old to tell.
    pub dropped_replayed: u64,
    /// Dropped: from a past incarnation of its sender.
    pub dropped_outdated: u64,
    /// Dropped: from a node that is no member any more, or that claims to be this one.
    pub dropped_stranger: u64,
    /// Items ignored: of a table that this node does not want.
    pub ignored_uninteresting: u64,
    /// Items ignored: told by another than the owner, and likely deleted long ago.
    pub ignored_doubtful: u64,
    /// Items ignored: not of the group they were told in.
    pub ignored_invalid: u64,
    /// Membership messages that foca refused.
    pub swim_refused: u64,
    /// Updates sent again for want of an acknowledgement.
    pub resent: u64,
    /// Comparisons of tables begun.
    pub syncs: u64,
    /// Comparisons that others began and that found a difference.
    pub syncs_differing: u64,
    /// Comparisons that others began and that found none.
    pub syncs_equal: u64,
    /// Times that this node was taken for dead and came back.
    pub renewals: u64,
    /// Members that did not answer this node's probes, and were asked about.
    pub suspicions: u64,
    /// How slow this node seems to be itself, from 0 (well) to 3; not a counter.
    pub slowness: u8,
}
