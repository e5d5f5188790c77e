//! Two managers over the real transport: gRPC, mutual TLS, loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_api::{
    transport::tls_incoming,
    v1::{
        RaftMessage,
        raft_server::{Raft, RaftServer},
    },
};
use mesh_ca::{DEFAULT_VALIDITY, Identity, IdentityCell, RootCa, client_config, server_config, server_name};
use mesh_raft::{GrpcTransport, RaftNode, RaftOptions};
use mesh_store::{Command, Rejection};
use mesh_types::{ClusterId, NodeId, Role};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Request, Response, Status, transport::Server};

struct Service(RaftNode);

#[tonic::async_trait]
impl Raft for Service {
    async fn call(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let RaftMessage { kind, payload, to } = request.into_inner();
        assert_eq!(to, self.0.node().to_string());
        let parsed =
            kind.parse().map_err(|e: mesh_raft::UnknownKind| Status::unimplemented(e.to_string()))?;
        let payload = self.0.handle(parsed, &payload).await.map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(RaftMessage { kind, payload, to: String::new() }))
    }
}

struct Manager {
    node: RaftNode,
    addr: SocketAddr,
    _dir: TempDir,
    _server: JoinSet<()>,
}

async fn manager(ca: &RootCa, number: u128) -> Manager {
    let (key, csr) = Identity::request().unwrap();
    let id = NodeId::from_u128(number);
    let chain = ca.issue(&csr, id, Role::Manager, SystemTime::now(), DEFAULT_VALIDITY).unwrap();
    let cell = IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let tls = client_config(cell.clone()).unwrap();
    let transport = Arc::new(GrpcTransport::new(server_name(Role::Manager), tls));
    let options = RaftOptions {
        dir: dir.path().to_owned(),
        node: id,
        advertise: addr,
        transport,
        cipher: None,
        newest_format: mesh_store::NEWEST_FORMAT,
    };
    let node = RaftNode::open(options).await.unwrap();
    let incoming = tls_incoming(listener, server_config(cell).unwrap());
    let service = RaftServer::new(Service(node.clone()))
        .max_decoding_message_size(GrpcTransport::MAX_MESSAGE)
        .max_encoding_message_size(GrpcTransport::MAX_MESSAGE);
    let mut server = JoinSet::new();
    server
        .spawn(async { Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap() });
    Manager { node, addr, _dir: dir, _server: server }
}

#[tokio::test]
async fn two_managers_agree_over_tls() {
    let ca = RootCa::generate(ClusterId::from_u128(1), SystemTime::now()).unwrap();
    let (first, second) = (manager(&ca, 1).await, manager(&ca, 2).await);
    first.node.initialize().await.unwrap();
    first.node.add_learner(NodeId::from_u128(2), second.addr).await.unwrap();
    first.node.promote(NodeId::from_u128(2)).await.unwrap();

    // The follower passes it on, and brings the answer back.
    let refused = second.node.propose(Command::RemoveNode(NodeId::from_u128(9))).await.unwrap_err();
    assert!(matches!(refused, mesh_raft::ProposeError::Rejected(Rejection::NotInitialized)), "{refused:?}");
    second.node.linearizable().await.unwrap();
    assert_eq!(second.node.managers(), first.node.managers());
    let leader = second.node.leader().unwrap();
    assert_eq!(leader, (NodeId::from_u128(1), first.addr));

    // One of two is no majority.
    second.node.shutdown().await;
    let begun = tokio::time::Instant::now();
    let refused = first.node.propose(Command::RemoveNode(NodeId::from_u128(9))).await.unwrap_err();
    assert!(!matches!(refused, mesh_raft::ProposeError::Rejected(_)), "{refused:?}");
    assert!(begun.elapsed() < mesh_raft::PROPOSE_TIMEOUT + Duration::from_secs(20));
    first.node.shutdown().await;
}
