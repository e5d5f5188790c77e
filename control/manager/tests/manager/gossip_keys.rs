//! The gossip key is replaced step by step, as the nodes in session confirm.

use std::time::Duration;

use mesh_api::v1::{
    GetClusterRequest, NodeReport, RemoveNodeRequest, RotateGossipKeysRequest, UpdateClusterRequest,
    cluster_server::Cluster, control_server::Control,
};
use mesh_manager::Manager;
use tonic::{Code, Request};

use crate::support::*;

type Ring = Vec<[u8; 32]>;

/// Takes what the manager says until the ring is another one, and confirms it.
async fn follow(member: &Member, session: &mut Session, before: &Ring) -> Ring {
    let state = session.until(|view, _| view.gossip_keys != *before).await;
    let view = view(&state);
    confirm(member, view.version).await;
    view.gossip_keys
}

async fn confirm(member: &Member, gossip_keys_version: u64) {
    let report = NodeReport { gossip_keys_version, ..NodeReport::default() };
    member.dispatcher().report(report).await.unwrap();
}

async fn waiting(manager: &Manager) -> Vec<String> {
    let settings = manager.cluster().get_cluster(Request::new(GetClusterRequest {})).await.unwrap();
    settings.into_inner().gossip_keys.unwrap().waiting
}

/// The manager's own node, as its agent talks to the manager.
async fn own(manager: &Manager) -> Member {
    let identity = manager.identity().clone();
    Member { channel: dial(manager, identity.clone()).await, identity }
}

#[tokio::test]
async fn a_step_is_taken_when_all_have_confirmed_the_one_before() {
    let home = Home::new();
    let manager = home.init().await;
    let (first, second) = (own(&manager).await, Member::join(&manager, "second").await);
    let (mut of_first, mut of_second) = (first.session().await, second.session().await);
    let old = view(&of_first.next().await.unwrap()).gossip_keys;
    assert_eq!((old.len(), waiting(&manager).await.len()), (1, 0));

    let asked = manager.cluster().rotate_gossip_keys(Request::new(RotateGossipKeysRequest {})).await;
    let keys = asked.unwrap().into_inner().gossip_keys.unwrap();
    assert_eq!((keys.phase.as_str(), keys.keys, keys.urgent), ("spreading", 2, false));
    assert_eq!(keys.waiting.len(), 2);
    let again = manager.cluster().rotate_gossip_keys(Request::new(RotateGossipKeysRequest {})).await;
    assert_says(&again.unwrap_err(), Code::FailedPrecondition, &["being replaced already"]);

    let both = follow(&first, &mut of_first, &old).await;
    assert_eq!((both.len(), both[0]), (2, old[0]));
    // Nothing happens for as long as the second node has not confirmed; a word about an older state is none.
    confirm(&second, 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(manager.state().borrow().gossip_keys().unwrap().ring, both);
    assert_eq!(waiting(&manager).await, ["second"]);

    assert_eq!(follow(&second, &mut of_second, &old).await, both);
    let turned = follow(&first, &mut of_first, &both).await;
    assert_eq!(turned, [both[1], both[0]]);
    assert_eq!(follow(&second, &mut of_second, &both).await, turned);
    assert_eq!(follow(&first, &mut of_first, &turned).await, [both[1]]);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_removed_node_is_not_told_the_next_key() {
    let home = Home::new();
    let manager = home.init().await;
    let (first, second) = (own(&manager).await, Member::join(&manager, "second").await);
    let (mut of_first, mut of_second) = (first.session().await, second.session().await);
    let old = view(&of_first.next().await.unwrap()).gossip_keys;
    assert_eq!(view(&of_second.next().await.unwrap()).gossip_keys, old);
    let request = RemoveNodeRequest { reference: "second".to_owned(), force: true, expected_version: None };
    manager.control().remove_node(Request::new(request)).await.unwrap();
    let both = follow(&first, &mut of_first, &old).await;
    let turned = follow(&first, &mut of_first, &both).await;
    let new = follow(&first, &mut of_first, &turned).await;
    assert!(new.len() == 1 && new != old);
    let told = loop {
        match of_second.next().await {
            Ok(state) => assert_eq!(view(&state).gossip_keys, old),
            Err(status) => break status,
        }
    };
    assert_says(&told, Code::PermissionDenied, &["removed"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn the_schedule_is_a_setting() {
    let home = Home::new();
    let manager = home.init().await;
    let set = |secs| {
        let cluster = manager.cluster();
        let request = UpdateClusterRequest { gossip_rotation_secs: Some(secs), ..Default::default() };
        async move { cluster.update_cluster(Request::new(request)).await }
    };
    let now = set(3600).await.unwrap().into_inner().gossip_keys.unwrap();
    assert_eq!((now.rotation_secs, now.phase.as_str(), now.keys), (3600, "settled", 1));
    assert_says(&set(5).await.unwrap_err(), Code::InvalidArgument, &["5 s", "60 s"]);
    assert_eq!(set(0).await.unwrap().into_inner().gossip_keys.unwrap().rotation_secs, 0);
    manager.shutdown().await;
}
