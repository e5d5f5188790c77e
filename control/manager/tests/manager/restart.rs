//! What survives, and what a damaged state folder says.

use std::fs;

use mesh_api::v1::{CreateNetworkRequest, LeaseRequest, Role, control_server::Control};
use mesh_manager::{Manager, ManagerError, NewCluster};
use tonic::Request;

use crate::support::*;

/// The whole chain of an error's sources, as a daemon prints it.
fn text(error: &ManagerError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

#[tokio::test]
async fn a_restart_keeps_all() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let request = CreateNetworkRequest { name: "prod".into(), ..Default::default() };
    let prod = manager.control().create_network(Request::new(request)).await.unwrap().into_inner();
    let lease = LeaseRequest { network_id: prod.id, count: 2, ..Default::default() };
    member.dispatcher().lease(lease).await.unwrap();
    let token_before = token(&manager, Role::Worker, false).await;
    let before = manager.state().borrow().encode();
    manager.shutdown().await;

    let manager = home.open().await.unwrap();
    assert_eq!(manager.state().borrow().encode(), before);
    assert_eq!(token(&manager, Role::Worker, false).await, token_before);
    assert_eq!(manager.join_token(mesh_types::Role::Worker), Some(token_before));
    let channel = dial(&manager, member.identity.clone()).await;
    let mut session = Member { identity: member.identity, channel }.session().await;
    let state = session.next().await.unwrap();
    assert_eq!((view(&state).nodes.len(), state.leases[0].addresses.len()), (2, 2));
    Member::join(&manager, "third").await;
    manager.shutdown().await;
}

#[tokio::test]
async fn a_cluster_is_not_made_twice() {
    let home = Home::new();
    home.init().await.shutdown().await;
    let error = Manager::init(home.options(), new_cluster()).await.err().unwrap();
    assert!(text(&error).contains(&home.dir.path().display().to_string()), "{}", text(&error));
    home.open().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_failed_init_leaves_nothing() {
    let home = Home::new();
    let bad = NewCluster { pools: vec!["10.0.0.1/8".parse().unwrap()], ..new_cluster() };
    let error = Manager::init(home.options(), bad).await.err().unwrap();
    assert!(text(&error).contains("10.0.0.1/8"), "{}", text(&error));
    // The keys are whoever's who made them.
    assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 1);

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = home.options();
    options.listen = taken.local_addr().unwrap();
    let error = Manager::init(options, new_cluster()).await.err().unwrap();
    assert!(text(&error).contains(&taken.local_addr().unwrap().to_string()), "{}", text(&error));
    assert_eq!(fs::read_dir(home.dir.path()).unwrap().count(), 1);
    home.init().await.shutdown().await;
}

#[tokio::test]
async fn damaged_files_are_named() {
    let home = Home::new();
    home.init().await.shutdown().await;
    let file = home.dir.path().join("raft/raft.redb");
    let good = fs::read(&file).unwrap();
    for length in [0, 100, good.len() / 2] {
        fs::write(&file, &good[..length]).unwrap();
        let error = home.open().await.err().unwrap();
        assert!(text(&error).contains("raft.redb"), "cut to {length}: {}", text(&error));
    }
    fs::write(&file, vec![0x5a; good.len()]).unwrap();
    let error = home.open().await.err().unwrap();
    assert!(text(&error).contains("raft.redb"), "noise: {}", text(&error));
    fs::remove_file(&file).unwrap();
    let error = home.open().await.err().unwrap();
    assert!(text(&error).contains("raft") && !file.exists(), "gone: {}", text(&error));
    fs::write(&file, good).unwrap();
    home.open().await.unwrap().shutdown().await;
}

#[tokio::test]
async fn a_foreign_state_is_refused() {
    let (home, other) = (Home::new(), Home::new());
    home.init().await.shutdown().await;
    other.init().await.shutdown().await;
    fs::copy(other.dir.path().join("raft/raft.redb"), home.dir.path().join("raft/raft.redb")).unwrap();
    let error = home.open().await.err().unwrap();
    assert!(text(&error).contains("raft"), "{}", text(&error));
}
