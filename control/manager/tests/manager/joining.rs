//! Joining: good, wrong, mangled and foreign tokens.

use mesh_api::{transport::connect, v1::Role};
use mesh_ca::{
    CaDigest, DigestMismatch, Identity, JoinToken, PeerIdentity, RootCa, join_client_config, server_name,
};
use mesh_types::{ClusterId, NodeId};
use tonic::Code;

use crate::support::*;

#[tokio::test]
async fn a_good_token_makes_a_worker() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    let (response, key) = ask_to_join(&manager, &pinned, |_| ()).await.unwrap();
    let node = response.node.clone().unwrap();
    assert_eq!((node.name.as_str(), node.role()), ("second", Role::Worker));
    assert_eq!((node.advertise_addr.as_str(), node.data_path_addr.as_str()), ("127.0.0.2", "127.0.0.2"));
    assert_eq!(response.managers, [manager.listen_addr().to_string()]);
    let chain: Vec<_> = response.certificates.into_iter().map(Into::into).collect();
    let peer = PeerIdentity::from_certs(&chain).unwrap();
    assert_eq!(peer.node.to_string(), node.id);
    assert_eq!((peer.role, peer.cluster.to_string()), (mesh_types::Role::Worker, response.cluster_id));
    assert_eq!(Identity::new(key, chain).unwrap().digest().as_ref(), Some(pinned.digest()));
    assert_eq!(manager.state().borrow().nodes().count(), 2);
    manager.shutdown().await;
}

#[tokio::test]
async fn what_is_wrong_is_refused_and_adds_no_node() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    let good = pinned.to_string();

    let wrong = JoinToken::new(*pinned.digest(), [0; 16]).to_string();
    let status = ask_to_join(&manager, &pinned, |r| r.token = wrong).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["not valid", "meshctl join-token"]);
    let foreign = JoinToken::new(CaDigest::from_bytes([1; 32]), *pinned.secret()).to_string();
    let status = ask_to_join(&manager, &pinned, |r| r.token = foreign).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["another cluster"]);
    let cut = good[..good.len() - 1].to_owned();
    let status = ask_to_join(&manager, &pinned, |r| r.token = cut).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["secret", "cut off"]);
    let status = ask_to_join(&manager, &pinned, |r| r.csr.truncate(20)).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["csr"]);
    let status = ask_to_join(&manager, &pinned, |r| r.name = "first".into()).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["node name first", "--name"]);
    let status = ask_to_join(&manager, &pinned, |r| r.name = "no/name".into()).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["no/name"]);
    for bad in ["", "127.0.0", "0.0.0.0", "224.0.0.1"] {
        let status = ask_to_join(&manager, &pinned, |r| r.advertise_addr = bad.into()).await.unwrap_err();
        assert_says(&status, Code::InvalidArgument, &["advertise_addr", bad]);
    }
    assert_eq!(manager.state().borrow().nodes().count(), 1);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_token_with_another_digest_trusts_nobody_here() {
    let home = Home::new();
    let manager = home.init().await;
    let config = join_client_config(CaDigest::from_bytes([1; 32])).unwrap();
    let name = server_name(mesh_types::Role::Manager);
    let error = connect(manager.listen_addr(), name, config).await.unwrap_err();
    assert!(DigestMismatch::find(&error).is_some(), "{error:?}");
    manager.shutdown().await;
}

#[tokio::test]
async fn an_old_token_ends_with_its_rotation() {
    let home = Home::new();
    let manager = home.init().await;
    let old: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    let new: JoinToken = token(&manager, Role::Worker, true).await.parse().unwrap();
    assert!(old != new && old.digest() == new.digest());
    let status = ask_to_join(&manager, &old, |_| ()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["not valid"]);
    ask_to_join(&manager, &new, |_| ()).await.unwrap();
    manager.shutdown().await;
}

#[tokio::test]
async fn guessing_has_to_wait() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    let wrong = JoinToken::new(*pinned.digest(), [0; 16]).to_string();
    // Failures are forgiven one in two seconds, so on the slowest machine the limit still comes.
    let mut status = None;
    for _ in 0..200 {
        let refused = ask_to_join(&manager, &pinned, |r| r.token = wrong.clone()).await.unwrap_err();
        if refused.code() == Code::ResourceExhausted {
            status = Some(refused);
            break;
        }
    }
    assert_says(&status.unwrap(), Code::ResourceExhausted, &["127.0.0.1", "try again"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn the_request_claims_nothing() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    // A certificate of a CA that somebody made up does not pass TLS at all.
    let fake = RootCa::generate(ClusterId::random(), std::time::SystemTime::now()).unwrap();
    let (key, csr) = Identity::request().unwrap();
    let now = std::time::SystemTime::now();
    let role = mesh_types::Role::Manager;
    let chain = fake.issue(&csr, NodeId::random(), role, now, mesh_ca::DEFAULT_VALIDITY).unwrap();
    let identity = mesh_ca::IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap();
    let config = mesh_ca::client_config(identity).unwrap();
    assert!(connect(manager.listen_addr(), server_name(role), config).await.is_err());
    ask_to_join(&manager, &pinned, |_| ()).await.unwrap();
    manager.shutdown().await;
}
