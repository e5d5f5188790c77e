use std::{
    error::Error,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mesh_ca::{
    DEFAULT_VALIDITY, DigestMismatch, Identity, IdentityCell, PeerIdentity, RootCa, client_config,
    join_client_config, server_config, server_name,
};
use mesh_types::{ClusterId, NodeId, Role};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
};
use tonic::{Request, Response, Status, transport::Server};

use super::*;
use crate::v1::{
    RaftMessage,
    raft_client::RaftClient,
    raft_server::{Raft, RaftServer},
};

const MANAGER: &str = server_name(Role::Manager);

/// Answers with the id of the node that asks.
struct Echo;

#[tonic::async_trait]
impl Raft for Echo {
    async fn call(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let certs = peer_info(&request).and_then(|peer| peer.certs.clone());
        let kind = match certs {
            Some(certs) => PeerIdentity::from_certs(&certs).unwrap().node.to_string(),
            None => "nobody".to_owned(),
        };
        Ok(Response::new(RaftMessage { kind, payload: request.into_inner().payload }))
    }
}

fn ca() -> RootCa {
    RootCa::generate(ClusterId::from_u128(1), SystemTime::now()).unwrap()
}

fn cell(ca: &RootCa, node: u128, role: Role) -> Arc<IdentityCell> {
    let (key, csr) = Identity::request().unwrap();
    let node = NodeId::from_u128(node);
    let chain = ca.issue(&csr, node, role, SystemTime::now(), DEFAULT_VALIDITY).unwrap();
    IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap()
}

/// A manager that serves for as long as the set lives.
async fn manager(ca: &RootCa) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = tls_incoming(listener, server_config(cell(ca, 1, Role::Manager)).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        Server::builder().add_service(RaftServer::new(Echo)).serve_with_incoming(incoming).await.unwrap();
    });
    (addr, tasks)
}

async fn ask(channel: tonic::transport::Channel) -> Result<String, Status> {
    let message = RaftMessage { kind: String::new(), payload: b"hello".to_vec() };
    let answer = RaftClient::new(channel).call(message).await?.into_inner();
    assert_eq!(answer.payload, b"hello");
    Ok(answer.kind)
}

#[tokio::test]
async fn requests_know_their_peer() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let worker = client_config(cell(&ca, 2, Role::Worker)).unwrap();
    let named = ask(channel(addr, MANAGER, worker)).await.unwrap();
    assert_eq!(named, NodeId::from_u128(2).to_string());
    let joining = join_client_config(ca.digest()).unwrap();
    let joining = connect(addr, MANAGER, joining).await.unwrap();
    assert_eq!(ask(joining).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_wrong_digest_is_found_behind_the_error() {
    let (addr, _server) = manager(&ca()).await;
    let joining = join_client_config(ca().digest()).unwrap();
    let error = connect(addr, MANAGER, joining).await.unwrap_err();
    assert!(DigestMismatch::find(&error).is_some(), "{error:?}");
    assert!(error.to_string().contains(&addr.to_string()));
}

#[tokio::test]
async fn bad_handshakes_do_not_end_the_listener() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let mut noise = TcpStream::connect(addr).await.unwrap();
    noise.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    noise.read_to_end(&mut answer).await.unwrap();
    drop(TcpStream::connect(addr).await.unwrap());
    // These say nothing, and hold up nobody.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(addr).await.unwrap());
    }
    let worker = client_config(cell(&ca, 2, Role::Worker)).unwrap();
    let begun = Instant::now();
    ask(channel(addr, MANAGER, worker)).await.unwrap();
    assert!(begun.elapsed() < CONNECT_TIMEOUT, "not behind the silent ones");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_listener() {
    let (addr, mut server) = manager(&ca()).await;
    server.shutdown().await;
    let closed = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.unwrap();
}

#[tokio::test]
async fn a_channel_comes_back_when_its_server_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meshd.sock");
    let channel = unix_channel(&path);
    ask(channel.clone()).await.unwrap_err();

    let incoming = unix_incoming(UnixListener::bind(&path).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        Server::builder().add_service(RaftServer::new(Echo)).serve_with_incoming(incoming).await.unwrap();
    });
    assert_eq!(ask(channel).await.unwrap(), "nobody");
    assert_eq!(ask(unix_connect(&path).await.unwrap()).await.unwrap(), "nobody");
}

#[tokio::test]
async fn a_missing_socket_is_named() {
    let error = unix_connect("/nonexistent/meshd.sock").await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/meshd.sock"));
    let mut deepest: &dyn Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    assert!(deepest.to_string().contains("No such file"), "{deepest}");
}
