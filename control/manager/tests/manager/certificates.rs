//! Renewal of certificates, and the change of the root.

use std::sync::Arc;

use mesh_api::v1::{
    self, ConfirmRequest, GetCaRequest, RemoveNodeRequest, RenewRequest, RotateCaRequest,
    UpdateClusterRequest, cluster_server::Cluster, control_server::Control, identity_client::IdentityClient,
};
use mesh_ca::{Identity, IdentityCell, JoinToken, NodeKey, client_config, server_name};
use mesh_manager::Manager;
use tonic::{Code, Request, Status};

use crate::support::*;

fn identity_of(chain: Vec<Vec<u8>>, key: NodeKey) -> Identity {
    Identity::new(key, chain.into_iter().map(Into::into).collect()).unwrap()
}

async fn renew(manager: &Manager, cell: &Arc<IdentityCell>) -> Result<Identity, Status> {
    let (key, csr) = Identity::request().unwrap();
    let mut client = IdentityClient::new(dial(manager, cell.clone()).await);
    let answer = client.renew(RenewRequest { csr }).await?.into_inner();
    Ok(identity_of(answer.certificates, key))
}

/// Renews, uses the new certificate, and shows it.
async fn change_over(manager: &Manager, cell: &Arc<IdentityCell>) {
    cell.replace(renew(manager, cell).await.unwrap()).unwrap();
    let mut client = IdentityClient::new(dial(manager, cell.clone()).await);
    client.confirm(ConfirmRequest {}).await.unwrap();
}

async fn ca(manager: &Manager) -> v1::CaStatus {
    manager.cluster().get_ca(Request::new(GetCaRequest {})).await.unwrap().into_inner()
}

fn current(status: &v1::CaStatus) -> usize {
    status.nodes.iter().filter(|node| node.current).count()
}

#[tokio::test]
async fn a_renewed_certificate_says_what_was_decided() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let update = UpdateClusterRequest { cert_expiry_secs: Some(7200), ..Default::default() };
    manager.cluster().update_cluster(Request::new(update)).await.unwrap();
    let before = member.identity.current().own();
    let fresh = renew(&manager, &member.identity).await.unwrap();
    assert_eq!(fresh.own(), before);
    assert!(fresh.not_after() < member.identity.current().not_after(), "valid for two hours now");

    let client = &mut IdentityClient::new(member.channel.clone());
    let status = client.renew(RenewRequest { csr: vec![1; 20] }).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["csr"]);
    let update = UpdateClusterRequest { cert_expiry_secs: Some(60), ..Default::default() };
    let status = manager.cluster().update_cluster(Request::new(update)).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["60 s", "1 h"]);

    let remove = RemoveNodeRequest { reference: "second".into(), force: true, expected_version: None };
    manager.control().remove_node(Request::new(remove)).await.unwrap();
    let status = client.renew(RenewRequest::default()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["removed"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn the_root_changes_and_no_connection_ends() {
    let home = Home::new();
    let manager = home.init().await;
    let old_token: JoinToken = token(&manager, v1::Role::Worker, false).await.parse().unwrap();
    let (one, late) = (Member::join(&manager, "one").await, Member::join(&manager, "late").await);
    let mut session = one.session().await;
    session.next().await.unwrap();

    let begun = manager.cluster().rotate_ca(Request::new(RotateCaRequest {})).await.unwrap().into_inner();
    assert!(begun.rotating && begun.generation == 2 && current(&begun) == 0);
    let status = manager.cluster().rotate_ca(Request::new(RotateCaRequest {})).await.unwrap_err();
    assert_says(&status, Code::FailedPrecondition, &["rotated already", "meshctl ca"]);
    let told = session.until(|view, _| view.ca_generation == 2).await;
    assert_eq!(view(&told).nodes.len(), 3);

    // In every order of renewals each side accepts the other.
    change_over(&manager, &one.identity).await;
    assert_eq!(current(&ca(&manager).await), 1);
    dial(&manager, late.identity.clone()).await;
    let kept: JoinToken = token(&manager, v1::Role::Worker, false).await.parse().unwrap();
    assert_eq!(kept.digest(), old_token.digest(), "for as long as a manager shows only the old root");
    change_over(&manager, manager.identity()).await;
    dial(&manager, late.identity.clone()).await;
    let new_token: JoinToken = token(&manager, v1::Role::Worker, false).await.parse().unwrap();
    assert!(new_token.digest() != old_token.digest());
    for (token, name) in [(&old_token, "by-old"), (&new_token, "by-new")] {
        ask_to_join(&manager, token, |request| request.name = name.into()).await.unwrap();
        // They came with a certificate of this generation, but nobody has seen them use it; they are not waited for.
        let reference = name.to_owned();
        let remove = RemoveNodeRequest { reference, force: true, expected_version: None };
        manager.control().remove_node(Request::new(remove)).await.unwrap();
    }
    assert!(ca(&manager).await.rotating, "one is late");

    let (old_root_only, key) = (late.identity.current().chain().to_vec(), late.identity.current());
    assert_eq!((old_root_only.len(), key.roots().len()), (2, 1));
    let stale = Home::new();
    key.save(stale.dir.path()).unwrap();
    change_over(&manager, &late.identity).await;
    // The last one: the old root is dropped, and everybody is to renew once more.
    let dropped = ca(&manager).await;
    assert!(!dropped.rotating && dropped.generation == 3 && current(&dropped) == 0);
    for cell in [manager.identity(), &one.identity, &late.identity] {
        change_over(&manager, cell).await;
        assert_eq!(cell.current().roots().len(), 1);
    }
    assert_eq!(current(&ca(&manager).await), 3);

    session.until(|view, _| view.ca_generation == 3).await;
    one.dispatcher().report(v1::NodeReport::default()).await.unwrap();
    late.dispatcher().report(v1::NodeReport::default()).await.unwrap();
    let stale = IdentityCell::new(Identity::load(stale.dir.path()).unwrap()).unwrap();
    let config = client_config(stale).unwrap();
    let name = server_name(mesh_types::Role::Manager);
    let refused = mesh_api::transport::connect(manager.listen_addr(), name, config).await;
    assert!(refused.is_err(), "the old root is worth nothing any more");
    let pinned = JoinToken::new(*new_token.digest(), *old_token.secret());
    let old = old_token.to_string();
    let status = ask_to_join(&manager, &pinned, |request| request.token = old).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["CA digest"]);
    manager.shutdown().await;
    // What was decided is what a restart finds.
    let manager =
        Manager::open(home.options(), IdentityCell::new(Identity::load(home.dir.path()).unwrap()).unwrap());
    let manager = manager.await.unwrap();
    assert_eq!(ca(&manager).await.generation, 3);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_removed_node_is_not_waited_for() {
    let home = Home::new();
    let manager = home.init().await;
    let _gone = Member::join(&manager, "gone").await;
    manager.cluster().rotate_ca(Request::new(RotateCaRequest {})).await.unwrap();
    change_over(&manager, manager.identity()).await;
    assert!(ca(&manager).await.rotating);
    let remove = RemoveNodeRequest { reference: "gone".into(), force: true, expected_version: None };
    manager.control().remove_node(Request::new(remove)).await.unwrap();
    assert!(!ca(&manager).await.rotating);
    manager.shutdown().await;
}
