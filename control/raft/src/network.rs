//! Messages to other managers.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    net::SocketAddr,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use mesh_store::OLDEST_FORMAT;
use mesh_types::NodeId;
use openraft::{
    RaftNetworkFactory, RaftNetworkV2,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
        TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    codec,
    machine::state_format,
    types::{Member, RaftId, Snapshot, TypeConfig, Vote, format_of},
};

/// Longest time for a snapshot to arrive and be installed.
pub(crate) const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a message between managers is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcKind {
    /// Log entries and heartbeats.
    Append,
    /// A request for a vote.
    Vote,
    /// Whether a vote would be given.
    PreVote,
    /// A whole snapshot.
    Snapshot,
    /// The leader hands its part over.
    TransferLeader,
    /// A command for the leader to propose.
    Propose,
    /// How far the leader's log is committed.
    ReadIndex,
    /// How the managers stand with the leader.
    Members,
    /// A learner that has the log so far may be elected when it votes.
    Stand,
    /// Which formats are read.
    Formats,
}

/// Not the name of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no kind of raft message")]
pub struct UnknownKind(pub String);

impl RpcKind {
    const ALL: [Self; 10] = [
        Self::Append,
        Self::Vote,
        Self::PreVote,
        Self::Snapshot,
        Self::TransferLeader,
        Self::Propose,
        Self::ReadIndex,
        Self::Members,
        Self::Stand,
        Self::Formats,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre-vote",
            Self::Snapshot => "snapshot",
            Self::TransferLeader => "transfer-leader",
            Self::Propose => "propose",
            Self::ReadIndex => "read-index",
            Self::Members => "members",
            Self::Stand => "stand",
            Self::Formats => "formats",
        }
    }
}

impl fmt::Display for RpcKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RpcKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

/// Why a message got no answer.
#[derive(Debug, Error)]
pub enum TransportError {
    /// No connection: the message was not sent. Raft tries again more slowly.
    #[error("node {node} at {addr} cannot be reached")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The message may have arrived.
    #[error("node {node} at {addr} does not answer")]
    Failed {
        /// The node.
        node: NodeId,
        /// Its address.
        addr: SocketAddr,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Carries messages to other managers.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Has `node` at `addr` handle a message ([`crate::RaftNode::handle`]) and gives its answer. The caller drops the
    /// future when it has waited enough.
    async fn call(
        &self,
        node: NodeId,
        addr: SocketAddr,
        kind: RpcKind,
        message: Vec<u8>,
    ) -> Result<Vec<u8>, TransportError>;
}

/// Where the members are, as the present membership has it. openraft keeps the client that it made of a member when that
/// is noted to have another address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses(Arc<Mutex<BTreeMap<NodeId, SocketAddr>>>);

impl Addresses {
    /// Replaces all of them.
    pub fn set(&self, all: BTreeMap<NodeId, SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = all;
    }

    fn of(&self, node: NodeId) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied()
    }
}

/// Makes openraft's clients.
pub(crate) struct Network {
    pub transport: Arc<dyn Transport>,
    pub addresses: Addresses,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: RaftId, node: &Member) -> Peer {
        let (transport, addresses) = (self.transport.clone(), self.addresses.clone());
        Peer { transport, addresses, node: target.0, made_at: node.addr }
    }
}

/// One other manager.
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    addresses: Addresses,
    node: NodeId,
    /// Where it was when this was made.
    made_at: SocketAddr,
}

impl Peer {
    async fn call<Q: Serialize, A: DeserializeOwned>(
        &self,
        kind: RpcKind,
        format: u8,
        request: &Q,
        limit: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let message =
            codec::encode_as(format, request).map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        let addr = self.addresses.of(self.node).unwrap_or(self.made_at);
        let call = self.transport.call(self.node, addr, kind, message);
        let answer = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ TransportError::Unreachable { .. })) => {
                return Err(RPCError::Unreachable(Unreachable::new(&error)));
            }
            Ok(Err(error @ TransportError::Failed { .. })) => {
                return Err(RPCError::Network(NetworkError::new(&error)));
            }
            Err(elapsed) => return Err(RPCError::Network(NetworkError::new(&elapsed))),
        };
        codec::decode(&answer).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Vec<u8>;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let format = rpc.entries.iter().map(format_of).max().unwrap_or(OLDEST_FORMAT);
        self.call(RpcKind::Append, format, &rpc, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RpcKind::Vote, OLDEST_FORMAT, &rpc, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RpcKind::PreVote, OLDEST_FORMAT, &rpc, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let format = state_format(&snapshot.snapshot);
        let message = (vote, snapshot.meta, snapshot.snapshot);
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = self.call(RpcKind::Snapshot, format, &message, SNAPSHOT_TIMEOUT) => Ok(answer?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call(RpcKind::TransferLeader, OLDEST_FORMAT, &request, option.hard_ttl()).await
    }
}
