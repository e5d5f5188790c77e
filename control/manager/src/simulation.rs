//! What of a manager needs no sockets and no clock of the machine's, for simulations.

use std::net::SocketAddr;

use mesh_api::v1;
use mesh_raft::RaftNode;
use mesh_types::{ClusterId, NodeId};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{dispatcher::Follower, membership, shared::Place, versions};

/// Brings Raft's members to the state's managers whenever `raft` leads, until `stop`.
pub async fn follow_roles(raft: RaftNode, stop: CancellationToken) {
    membership::run(raft, stop).await;
}

/// Has the newest format agreed on whenever `raft` leads, until `stop`.
pub async fn follow_versions(raft: RaftNode, stop: CancellationToken) {
    versions::run(raft, stop).await;
}

/// Begins a session of `node` with the manager of `raft`; ends with `stop` or the receiver.
pub fn session(
    raft: &RaftNode,
    cluster: ClusterId,
    advertise: SocketAddr,
    node: NodeId,
    stop: CancellationToken,
) -> mpsc::Receiver<Result<v1::NodeState, Status>> {
    let (states, stream) = mpsc::channel(1);
    let follower = Follower {
        place: Place { cluster, node: raft.node(), advertise },
        node,
        changes: true,
        tests: watch::channel(std::sync::Arc::default()).1,
        orders: watch::channel(std::sync::Arc::default()).1,
        traffic: watch::channel(0).1,
    };
    let changes = raft.watch();
    tokio::spawn(async move {
        let (_told, listeners) = watch::channel(Default::default());
        follower.serve(changes, listeners, states, stop).await;
    });
    stream
}
