//! What a member tells people of itself: how it stands, and all that it knows.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_types::NodeId;

use crate::{Item, MemberState, Table, Version};

/// How a member stands, as far as it can know.
///
/// Nobody can tell for sure that a member knows all: only comparisons do, with one other member at a time. So a table is *behind*
/// from the moment when a comparison found it to be otherwise than another's, until one finds it equal; in between, most often
/// within milliseconds, it is mended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// This node.
    pub node: NodeId,
    /// What this node said last: its incarnation, and how many statements it made in it.
    pub version: Version,
    /// Updates that other members have not acknowledged yet.
    pub unacknowledged: usize,
    /// Changes that wait to be relayed.
    pub relayed: usize,
    /// How slow this node seems to be itself, from 0 (well) to 3.
    pub slowness: u8,
    /// By table.
    pub tables: BTreeMap<Table, TableReport>,
    /// By member, this node included.
    pub members: BTreeMap<NodeId, MemberReport>,
}

/// A table as this member has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TableReport {
    /// Entries of members that are not gone.
    pub entries: usize,
    /// Deleted entries that are remembered.
    pub tombstones: usize,
    /// The fingerprint of those entries; equal ones are equal tables.
    pub digest: u64,
    /// Whether another member that is there wants it, too; else there is nothing to compare it with.
    pub shared: bool,
    /// How long ago another member's was found to be equal, if ever.
    pub equal: Option<Duration>,
    /// For how long it has been known to be otherwise than another member's.
    pub behind: Option<Duration>,
}

/// A member as this one knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberReport {
    /// Where it gossips.
    pub addr: SocketAddr,
    /// Whether it is there.
    pub state: MemberState,
    /// For how long.
    pub lasted: Duration,
    /// Its newest statement known here. It says others about tables that this node does not want.
    pub version: Version,
    /// Its entries here, interests included.
    pub entries: usize,
    /// For how long this node's knowledge of its entries has been known to be otherwise than another's.
    pub behind: Option<Duration>,
}

/// An entry as this member has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryReport {
    /// The entry.
    pub item: Item,
    /// For how long it has been deleted.
    pub gone: Option<Duration>,
    /// Whether it counts: its owner is not gone.
    pub counts: bool,
}

impl Report {
    /// The longest that any table has been behind.
    pub fn lag(&self) -> Option<Duration> {
        self.tables.values().filter_map(|table| table.behind).max()
    }
}

/// What passed in the last seconds, each second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Datagrams received, dropped ones included.
    pub datagrams_in: f64,
    /// Datagrams sent.
    pub datagrams_out: f64,
    /// Bytes received, of datagrams and of messages by TCP.
    pub bytes_in: f64,
    /// Bytes sent, likewise.
    pub bytes_out: f64,
}
