//! The keys that seal gossip.

use std::{collections::BTreeSet, fmt};

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// How long a gossip key is sent with before the next one follows, in seconds, unless the cluster says otherwise: 12 hours.
pub const DEFAULT_GOSSIP_ROTATION: u64 = 12 * 3600;
/// The shortest such time, in seconds.
pub const MIN_GOSSIP_ROTATION: u64 = 60;
/// The longest, in seconds: a key is good for 2^32 packets of all nodes together (NIST SP 800-38D, section 8.3).
pub const MAX_GOSSIP_ROTATION: u64 = 30 * 24 * 3600;

/// How far a change of the key has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GossipPhase {
    /// There is one key.
    Settled,
    /// Nodes get the next key, which stands behind the one that is sent with: all of them can read both.
    Spreading,
    /// The next key is sent with; the one before stands behind it, for nodes that still send with it.
    Retiring,
}

/// The ring of keys and how far its change has come. All keys are read with, the first one is sent with.
///
/// Keys pass through it one after the other: added behind the first one, then put first, then the older one dropped. Whoever
/// has one ring reads what is sent by whoever has the ring before or after it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKeys {
    /// The keys, the first one to send with; three at most.
    pub ring: Vec<[u8; 32]>,
    /// How far it has come.
    pub phase: GossipPhase,
    /// The version of the state at which the ring became what it is: a node that has this version has this ring.
    pub version: u64,
    /// The nodes that are known to have it.
    pub holders: BTreeSet<NodeId>,
    /// Since when the first key is sent with, in seconds since 1970-01-01 UTC.
    pub since: u64,
    /// Whether a node that knew all keys is no member any more.
    pub leaked: bool,
    /// Whether the present change is because of that: the older keys are to go soon.
    pub urgent: bool,
    /// How long a key is sent with, in seconds; 0: until somebody asks for another or a node is removed.
    pub rotation_secs: u64,
}

impl GossipKeys {
    pub(crate) fn new(key: [u8; 32], version: u64, now: u64) -> Self {
        Self {
            ring: vec![key],
            phase: GossipPhase::Settled,
            version,
            holders: BTreeSet::new(),
            since: now,
            leaked: false,
            urgent: false,
            rotation_secs: DEFAULT_GOSSIP_ROTATION,
        }
    }
}

impl fmt::Debug for GossipKeys {
    /// Tells how many there are, never what they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GossipKeys")
            .field("keys", &self.ring.len())
            .field("phase", &self.phase)
            .field("version", &self.version)
            .field("holders", &self.holders.len())
            .field("since", &self.since)
            .field("leaked", &self.leaked)
            .field("urgent", &self.urgent)
            .field("rotation_secs", &self.rotation_secs)
            .finish()
    }
}
