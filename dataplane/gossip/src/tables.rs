//! What callers give and see.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mesh_types::{Endpoint, NetworkId, NodeId, TaskId};
use serde::{Deserialize, Serialize};

use crate::{CoreStats, NetworkSet, SharedMap, swim::Identity};

/// An endpoint of this node, and the table it is told in. One endpoint may be announced in two tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The network whose table holds it.
    pub scope: NetworkId,
    /// The endpoint; its `node` is set to the announcing node.
    pub endpoint: Endpoint,
}

/// The tables that a node wants to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interest {
    /// Those of these networks. A node is also interested in every table that it announces endpoints in.
    Networks(NetworkSet),
    /// Every table.
    All,
}

impl Default for Interest {
    fn default() -> Self {
        Interest::Networks(NetworkSet::default())
    }
}

impl Interest {
    /// Whether the table of `scope` is among them.
    pub fn includes(&self, scope: NetworkId) -> bool {
        match self {
            Interest::Networks(networks) => networks.contains(scope),
            Interest::All => true,
        }
    }
}

/// Whether a member is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer; it counts as there until the suspicion times out.
    Suspect,
    /// Its daemon is gone without a word, but its data path answers: what it told counts.
    Unattended,
    /// It is gone without a word.
    Down,
    /// It took its leave.
    Left,
}

/// What a state means for what runs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Liveness {
    /// Its daemon runs, or nothing speaks against it yet.
    Attended,
    /// Its tasks run on and keep their flows and addresses, though nobody attends to them.
    Unattended,
    /// Nothing is sent to it.
    Gone,
}

impl MemberState {
    /// What it means for what runs there.
    pub fn liveness(self) -> Liveness {
        match self {
            Self::Alive | Self::Suspect => Liveness::Attended,
            Self::Unattended => Liveness::Unattended,
            Self::Down | Self::Left => Liveness::Gone,
        }
    }
}

/// A member as this node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// Where it gossips.
    pub addr: SocketAddr,
    /// Whether it is there.
    pub state: MemberState,
    /// When that began, counted from the start of this node's gossip.
    pub since: Duration,
    /// Which of the node's lives is meant: that of the process, and how often it came back from being taken for dead.
    pub(crate) epoch: u64,
    pub(crate) renewal: u32,
}

impl MemberStatus {
    /// Of a member in its first life.
    pub fn new(addr: SocketAddr, state: MemberState, since: Duration) -> Self {
        Self { addr, state, since, epoch: 0, renewal: 0 }
    }

    pub(crate) fn of(identity: Identity, state: MemberState, since: Duration) -> Self {
        let Identity { addr, epoch, renewal, .. } = identity;
        Self { addr, state, since, epoch, renewal }
    }

    pub(crate) fn identity(&self, node: NodeId) -> Identity {
        Identity { node, addr: self.addr, epoch: self.epoch, renewal: self.renewal }
    }

    /// Whether its daemon is there, for all that is known.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, MemberState::Alive | MemberState::Suspect)
    }

    /// Whether what it told counts.
    pub(crate) fn counts(&self) -> bool {
        self.state.liveness() != Liveness::Gone
    }
}

/// Names an endpoint in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointKey {
    /// The task.
    pub task: TaskId,
    /// The network that the task is attached to.
    pub network: NetworkId,
    /// The node that announced it.
    pub node: NodeId,
}

impl From<&Endpoint> for EndpointKey {
    fn from(endpoint: &Endpoint) -> Self {
        Self { task: endpoint.task, network: endpoint.network, node: endpoint.node }
    }
}

/// The endpoints told in the scope of one network.
pub type EndpointTable = SharedMap<EndpointKey, Arc<Endpoint>>;

/// What this node knows. Endpoints are those of members that are not gone, its own included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    /// Every member seen and not forgotten, this node included.
    pub members: SharedMap<NodeId, MemberStatus>,
    /// The tables that are not empty, by network.
    pub endpoints: SharedMap<NetworkId, EndpointTable>,
}

impl Tables {
    /// Sets an endpoint, or removes it. Tells whether that changed anything.
    pub(crate) fn set(
        &mut self,
        scope: NetworkId,
        key: EndpointKey,
        endpoint: Option<Arc<Endpoint>>,
    ) -> bool {
        let before = self.endpoints.get(&scope).and_then(|table| table.get(&key));
        if before == endpoint.as_ref() {
            return false;
        }
        if self.endpoints.get(&scope).is_none() {
            self.endpoints.insert(scope, EndpointTable::default());
        }
        let Some(table) = self.endpoints.get_mut(&scope) else { return false };
        match endpoint {
            Some(endpoint) => drop(table.insert(key, endpoint)),
            None => drop(table.remove(&key)),
        }
        if table.is_empty() {
            self.endpoints.remove(&scope);
        }
        true
    }
}

/// Counters since the start. What is dropped is counted by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Datagrams received, dropped ones included.
    pub datagrams_in: u64,
    /// Bytes of UDP payload sent.
    pub bytes_out: u64,
    /// Bytes of UDP payload received.
    pub bytes_in: u64,
    /// TCP messages sent.
    pub streams_out: u64,
    /// TCP messages received whole.
    pub streams_in: u64,
    /// Bytes of TCP messages sent, before sealing.
    pub stream_bytes_out: u64,
    /// Bytes of TCP messages received whole, after opening.
    pub stream_bytes_in: u64,
    /// Datagrams or TCP messages that the kernel or the peer did not take.
    pub send_failed: u64,
    /// Dropped: too short, too long, or of another wire version.
    pub dropped_malformed: u64,
    /// Dropped: sealed with a key that is not in the ring.
    pub dropped_unknown_key: u64,
    /// Dropped: the seal is broken, or made for another cluster.
    pub dropped_forged: u64,
    /// Dropped: more TCP connections than are served, or more outgoing messages than are queued.
    pub dropped_overload: u64,
    /// What the core counted.
    pub core: CoreStats,
}

impl Stats {
    /// Packets that were not listened to, by reason.
    pub fn refused(&self) -> [(&'static str, u64); 9] {
        let core = self.core;
        [
            ("malformed", self.dropped_malformed + core.dropped_malformed),
            ("unknown_key", self.dropped_unknown_key),
            ("forged", self.dropped_forged),
            ("overload", self.dropped_overload),
            ("other_version", core.dropped_version),
            ("unknown_kind", core.ignored_kind),
            ("replayed", core.dropped_replayed),
            ("outdated", core.dropped_outdated),
            ("no_member", core.dropped_stranger),
        ]
    }
}
