//! Real TLS handshakes between every kind of client and server, in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    error::Error,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_ca::{
    CertificateDer, DEFAULT_VALIDITY, DigestMismatch, Identity, IdentityCell, PeerIdentity, RootCa,
    client_config, join_client_config, server_config, server_name,
};
use mesh_types::{ClusterId, NodeId, Role};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{ClientConfig, ServerConfig, crypto::aws_lc_rs, version::TLS13},
};

fn ca() -> RootCa {
    RootCa::generate(ClusterId::from_u128(1), SystemTime::now()).unwrap()
}

fn identity(ca: &RootCa, node: u128, role: Role) -> Identity {
    identity_at(ca, node, role, SystemTime::now(), DEFAULT_VALIDITY)
}

fn identity_at(ca: &RootCa, node: u128, role: Role, now: SystemTime, validity: Duration) -> Identity {
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, NodeId::from_u128(node), role, now, validity).unwrap();
    Identity::new(key, chain).unwrap()
}

fn cell(ca: &RootCa, node: u128, role: Role) -> Arc<IdentityCell> {
    IdentityCell::new(identity(ca, node, role)).unwrap()
}

type Peers = (Option<PeerIdentity>, PeerIdentity);

/// Shakes hands and sends a byte each way (in TLS 1.3 a client learns of its refusal only by reading). Gives who the
/// server saw and who the client saw; the server's error, where there is one, is the second.
async fn handshake(
    server: &Arc<IdentityCell>,
    client: Arc<ClientConfig>,
) -> Result<Peers, (io::Error, Option<io::Error>)> {
    handshake_with(server_config(server.clone()).unwrap(), client).await
}

async fn handshake_with(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<Peers, (io::Error, Option<io::Error>)> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let acceptor = TlsAcceptor::from(server);
    let serve = async {
        let mut stream = acceptor.accept(near).await?;
        let chain = stream.get_ref().1.peer_certificates().map(<[CertificateDer]>::to_vec);
        stream.write_all(b"s").await?;
        stream.read_exact(&mut [0]).await?;
        Ok::<_, io::Error>(chain.map(|c| PeerIdentity::from_certs(&c).unwrap()))
    };
    let dial = async {
        let name = ServerName::try_from(server_name(Role::Manager)).unwrap();
        let mut stream = TlsConnector::from(client).connect(name, far).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
        stream.read_exact(&mut [0]).await?;
        stream.write_all(b"c").await?;
        Ok::<_, io::Error>(PeerIdentity::from_certs(&chain).unwrap())
    };
    match tokio::join!(serve, dial) {
        (Ok(seen_by_server), Ok(seen_by_client)) => Ok((seen_by_server, seen_by_client)),
        (server, Err(error)) => Err((error, server.err())),
        (Err(error), Ok(_)) => Err((io::Error::other("the server refused"), Some(error))),
    }
}

fn text(error: &(dyn Error + 'static)) -> String {
    error.to_string()
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let ca = ca();
    let manager = cell(&ca, 1, Role::Manager);
    let worker = cell(&ca, 2, Role::Worker);
    let (client, server) = handshake(&manager, client_config(worker).unwrap()).await.unwrap();
    let client = client.unwrap();
    assert_eq!((client.node, client.role), (NodeId::from_u128(2), Role::Worker));
    assert_eq!((server.node, server.role), (NodeId::from_u128(1), Role::Manager));
    assert_eq!(client.cluster, ca.cluster());
}

#[tokio::test]
async fn a_joining_node_needs_no_certificate() {
    let ca = ca();
    let manager = cell(&ca, 1, Role::Manager);
    let (client, server) = handshake(&manager, join_client_config(ca.digest()).unwrap()).await.unwrap();
    assert_eq!(client, None);
    assert_eq!(server.node, NodeId::from_u128(1));
}

#[tokio::test]
async fn a_wrong_digest_is_recognised() {
    let (ca, other) = (ca(), ca());
    let manager = cell(&ca, 1, Role::Manager);
    let (error, _) = handshake(&manager, join_client_config(other.digest()).unwrap()).await.unwrap_err();
    assert_eq!(DigestMismatch::find(&error).unwrap().expected, other.digest());
    assert!(text(&error).contains("does not match the token's digest"), "{error}");
}

#[tokio::test]
async fn a_worker_cannot_play_the_manager() {
    let ca = ca();
    let worker = cell(&ca, 2, Role::Worker);
    let (error, _) = handshake(&worker, join_client_config(ca.digest()).unwrap()).await.unwrap_err();
    assert!(DigestMismatch::find(&error).is_none());
    assert!(text(&error).contains("not valid for name"), "{error}");
    let client = client_config(cell(&ca, 3, Role::Worker)).unwrap();
    assert!(handshake(&worker, client).await.is_err());
}

#[tokio::test]
async fn the_root_alone_does_not_make_a_manager() {
    // Whoever has seen the root certificate can show it behind a leaf of their own making.
    let (ca, evil) = (ca(), ca());
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    let chain =
        evil.issue(csr.der(), NodeId::from_u128(1), Role::Manager, SystemTime::now(), DEFAULT_VALIDITY);
    let forged = vec![chain.unwrap()[0].clone(), evil.cert().clone(), ca.cert().clone()];
    let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(forged, key.into())
        .unwrap();
    let joining = handshake_with(Arc::new(server), join_client_config(ca.digest()).unwrap());
    let (error, _) = joining.await.unwrap_err();
    assert!(DigestMismatch::find(&error).is_none());
    assert!(text(&error).contains("invalid peer certificate"), "{error}");
}

#[tokio::test]
async fn a_foreign_or_expired_client_is_refused() {
    let (ca, other) = (ca(), ca());
    let manager = cell(&ca, 1, Role::Manager);
    let foreign = client_config(cell(&other, 2, Role::Manager)).unwrap();
    let (_, server) = handshake(&manager, foreign).await.unwrap_err();
    assert!(server.is_some());

    let past = SystemTime::now() - Duration::from_secs(86_400);
    let expired = identity_at(&ca, 3, Role::Worker, past, Duration::from_secs(60));
    let expired = client_config(IdentityCell::new(expired).unwrap()).unwrap();
    let (_, server) = handshake(&manager, expired).await.unwrap_err();
    assert!(text(&server.unwrap()).contains("expired"));
}

#[tokio::test]
async fn a_renewed_identity_is_used_by_the_next_handshake() {
    let ca = ca();
    let manager = cell(&ca, 1, Role::Manager);
    let node = cell(&ca, 2, Role::Worker);
    let config = client_config(node.clone()).unwrap();
    handshake(&manager, config.clone()).await.unwrap();
    node.replace(identity(&ca, 2, Role::Manager)).unwrap();
    let (client, _) = handshake(&manager, config).await.unwrap();
    assert_eq!(client.unwrap().role, Role::Manager);
}

#[tokio::test]
async fn a_new_root_changes_whom_both_sides_trust() {
    let (old, new) = (ca(), ca());
    let manager = cell(&old, 1, Role::Manager);
    let node = cell(&old, 2, Role::Worker);
    let config = client_config(node.clone()).unwrap();
    manager.replace(identity(&new, 1, Role::Manager)).unwrap();
    assert!(handshake(&manager, config.clone()).await.is_err());
    node.replace(identity(&new, 2, Role::Worker)).unwrap();
    handshake(&manager, config).await.unwrap();
}
