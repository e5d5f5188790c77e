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

/// Answers with the id of the node that asks, or refuses what is of the kind [`REFUSED`] at length.
struct Echo;

const REFUSED: &str = "refused";

#[tonic::async_trait]
impl Raft for Echo {
    async fn call(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        if request.get_ref().kind == REFUSED {
            return Err(Status::failed_precondition(long_words()));
        }
        let certs = peer_info(&request).and_then(|peer| peer.certs.clone());
        let kind = match certs {
            Some(certs) => PeerIdentity::from_certs(&certs).unwrap().node.to_string(),
            None => "nobody".to_owned(),
        };
        Ok(Response::new(RaftMessage { kind, payload: request.into_inner().payload, to: String::new() }))
    }
}

/// As of a network that thousands of services are on.
fn long_words() -> String {
    "service-of-a-long-name, ".repeat(5000)
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
    let message = RaftMessage { kind: String::new(), payload: b"hello".to_vec(), to: String::new() };
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
async fn a_long_refusal_arrives() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let worker = client_config(cell(&ca, 2, Role::Worker)).unwrap();
    let message = RaftMessage { kind: REFUSED.to_owned(), payload: Vec::new(), to: String::new() };
    let refusal = RaftClient::new(channel(addr, MANAGER, worker)).call(message).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (tonic::Code::FailedPrecondition, &*long_words()));
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

async fn stranger(addr: SocketAddr, digest: mesh_ca::CaDigest) -> tokio_rustls::client::TlsStream<TcpStream> {
    let config = join_client_config(digest).unwrap();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(MANAGER).unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn strangers_are_few_and_keep_no_member_out() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let mut strangers = Vec::new();
    for _ in 0..40 {
        strangers.push(stranger(addr, ca.digest()).await);
    }
    let worker = client_config(cell(&ca, 2, Role::Worker)).unwrap();
    ask(channel(addr, MANAGER, worker)).await.unwrap();
    // All of them are let go in the end, those that were too many at once.
    for mut stranger in strangers {
        let mut rest = Vec::new();
        let gone = tokio::time::timeout(Duration::from_secs(60), stranger.read_to_end(&mut rest)).await;
        assert!(gone.is_ok(), "it is still there");
    }
}

#[tokio::test]
async fn a_stranger_that_dribbles_is_let_go() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let mut stranger = stranger(addr, ca.digest()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stranger.write_all(preface).await.unwrap();
    // The head of a frame of headers, whose body comes a byte at a time.
    stranger.write_all(b"\0\x40\0\x01\x04\0\0\0\x01").await.unwrap();
    let (mut from, mut to) = tokio::io::split(stranger);
    let dribble = tokio::spawn(async move {
        while to.write_all(&[0]).await.is_ok() && to.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut rest = Vec::new();
    let gone = tokio::time::timeout(Duration::from_secs(60), from.read_to_end(&mut rest)).await;
    assert!(gone.is_ok(), "it is still there");
    dribble.abort();
}

#[tokio::test]
async fn a_member_that_says_nothing_is_let_go() {
    let ca = ca();
    let (addr, _server) = manager(&ca).await;
    let config = client_config(cell(&ca, 2, Role::Worker)).unwrap();
    let stream = TcpStream::connect(addr).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from(MANAGER).unwrap();
    let mut silent = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
    let used = channel(addr, MANAGER, client_config(cell(&ca, 3, Role::Worker)).unwrap());
    ask(used.clone()).await.unwrap();
    let mut rest = Vec::new();
    let gone = tokio::time::timeout(Duration::from_secs(60), silent.read_to_end(&mut rest)).await;
    assert!(gone.is_ok(), "it is still there");
    ask(used).await.unwrap();
}

#[tokio::test]
async fn thousands_that_say_nothing_to_the_socket_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meshd.sock");
    let incoming = unix_incoming(UnixListener::bind(&path).unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async {
        Server::builder().add_service(RaftServer::new(Echo)).serve_with_incoming(incoming).await.unwrap();
    });
    let used = unix_connect(&path).await.unwrap();
    ask(used.clone()).await.unwrap();
    // Both ends are of this process, which may have a thousand files open.
    let mut silent = Vec::new();
    for number in 0..300 {
        silent.push(tokio::net::UnixStream::connect(&path).await.unwrap());
        if number % 100 == 99 {
            assert_eq!(ask(unix_connect(&path).await.unwrap()).await.unwrap(), "nobody");
        }
    }
    // The first ones at once, the last ones after a while.
    let mut first = Vec::new();
    let gone = tokio::time::timeout(Duration::from_secs(1), silent[0].read_to_end(&mut first)).await;
    assert!(gone.is_ok(), "the first is still there");
    for mut silent in silent {
        let gone = tokio::time::timeout(Duration::from_secs(60), silent.read_to_end(&mut Vec::new())).await;
        assert!(gone.is_ok(), "it is still there");
    }
    ask(used).await.unwrap();
}
