//! Whoever means no good: certificates that say too much or are out of date, and requests that are too much.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use mesh_api::{
    transport::connect,
    v1::{
        self, LeaseRequest, NetworkLeaseChange, RenewLeasesRequest, RenewRequest,
        dispatcher_client::DispatcherClient, identity_client::IdentityClient, join_client::JoinClient,
    },
};
use mesh_ca::{Identity, IdentityCell, JoinToken, RootCa, client_config, join_client_config, server_name};
use mesh_manager::Manager;
use mesh_types::{NodeId, Role};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::support::*;

const DAY: Duration = Duration::from_secs(86_400);

/// A certificate of the cluster's own CA, as nobody should have it.
fn forged(manager: &Manager, node: NodeId, role: Role, made: SystemTime) -> Arc<IdentityCell> {
    let state = manager.state().borrow().clone();
    let secrets = state.secrets().unwrap();
    let ca = RootCa::from_pem(&secrets.ca_cert_pem, &secrets.ca_key_pem).unwrap();
    by(&ca, node, role, made)
}

fn by(ca: &RootCa, node: NodeId, role: Role, made: SystemTime) -> Arc<IdentityCell> {
    let (key, csr) = Identity::request().unwrap();
    let chain = ca.issue(&csr, node, role, made, DAY).unwrap();
    IdentityCell::new(Identity::new(key, chain).unwrap()).unwrap()
}

async fn is_refused_by_tls(manager: &Manager, cell: Arc<IdentityCell>) -> bool {
    let config = client_config(cell).unwrap();
    match connect(manager.listen_addr(), server_name(Role::Manager), config).await {
        Err(_) => true,
        // In TLS 1.3 the client may be done before the server has looked at its certificate.
        Ok(channel) => {
            let answer = IdentityClient::new(channel).confirm(v1::ConfirmRequest {}).await;
            answer.is_err_and(|status| status.code() == Code::Unavailable || status.code() == Code::Unknown)
        }
    }
}

#[tokio::test]
async fn expired_and_foreign_certificates_do_not_pass() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let node = member.identity.current().own().node;
    let now = SystemTime::now();
    let expired = forged(&manager, node, Role::Worker, now - DAY * 2);
    assert!(is_refused_by_tls(&manager, expired).await);
    let early = forged(&manager, node, Role::Worker, now + DAY * 2);
    assert!(is_refused_by_tls(&manager, early).await);
    let cluster = member.identity.current().own().cluster;
    let foreign = RootCa::generate(cluster, now).unwrap();
    // It trusts the manager, and is not trusted: its own root goes with it.
    let foreign = by(&foreign, node, Role::Manager, now);
    assert!(is_refused_by_tls(&manager, foreign).await);
    let good = forged(&manager, node, Role::Worker, now);
    assert!(!is_refused_by_tls(&manager, good).await, "the test can tell");
    manager.shutdown().await;
}

#[tokio::test]
async fn a_certificate_makes_nobody_more_than_was_decided() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let node = member.identity.current().own().node;
    let now = SystemTime::now();
    // A role that was taken away, or never given.
    let raised = dial(&manager, forged(&manager, node, Role::Manager, now)).await;
    let mut control = v1::control_client::ControlClient::new(raised.clone());
    let status = control.get_join_token(v1::JoinTokenRequest::default()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["no manager"]);
    let mut cluster = v1::cluster_client::ClusterClient::new(raised.clone());
    let status = cluster.get_unlock_key(v1::UnlockKeyRequest { rotate: false }).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["no manager"]);
    // What it renews is what was decided.
    let (key, csr) = Identity::request().unwrap();
    let answer = IdentityClient::new(raised).renew(RenewRequest { csr }).await.unwrap().into_inner();
    let chain = answer.certificates.into_iter().map(Into::into).collect();
    assert_eq!(Identity::new(key, chain).unwrap().own().role, Role::Worker);

    // Nobody the cluster knows.
    let nobody = dial(&manager, forged(&manager, NodeId::random(), Role::Worker, now)).await;
    let mut session = DispatcherClient::new(nobody.clone());
    let status = session.session(v1::SessionRequest::default()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["removed"]);
    let status = IdentityClient::new(nobody).renew(RenewRequest::default()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["removed"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_worker_gets_and_gives_back_only_its_own_leases() {
    let home = Home::new();
    let manager = home.init().await;
    let (one, other) = (Member::join(&manager, "one").await, Member::join(&manager, "other").await);
    let network = manager.state().borrow().networks().next().unwrap().id;
    let lease = LeaseRequest { network_id: network.to_string(), count: 1, ..Default::default() };
    let addresses = one.dispatcher().lease(lease).await.unwrap().into_inner().addresses;
    assert!(!addresses.is_empty());
    let back = NetworkLeaseChange {
        network_id: network.to_string(),
        returned: addresses.clone(),
        ..Default::default()
    };
    let back = RenewLeasesRequest { changes: vec![back], ..Default::default() };
    other.dispatcher().renew_leases(back).await.unwrap();
    let node = one.identity.current().own().node;
    let held = manager.state().borrow().leases_of(node);
    let held = held[&network].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(addresses.iter().all(|address| held.contains(address)), "{held:?}");
    let taken =
        LeaseRequest { network_id: network.to_string(), address: addresses[0].clone(), ..Default::default() };
    let status = other.dispatcher().lease(taken).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["leased to node one"]);
    let told = other.session().await.next().await.unwrap();
    assert!(told.leases.iter().all(|lease| !lease.addresses.contains(&addresses[0])));
    manager.shutdown().await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_unread() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, v1::Role::Worker, false).await.parse().unwrap();
    let config = join_client_config(*pinned.digest()).unwrap();
    let stranger = connect(manager.listen_addr(), server_name(Role::Manager), config).await.unwrap();
    let request = v1::JoinRequest { csr: vec![0; 1 << 20], ..Default::default() };
    let status = JoinClient::new(stranger).join(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let member = Member::join(&manager, "second").await;
    let request = RenewRequest { csr: vec![0; 1 << 20] };
    let status = IdentityClient::new(member.channel.clone()).renew(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    let report = v1::NodeReport { data_path_addr: "1".repeat(8 << 20), ..Default::default() };
    let status = member.dispatcher().report(report).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    member.dispatcher().report(v1::NodeReport::default()).await.unwrap();
    manager.shutdown().await;
}

/// A whole request, carried out.
async fn reported(member: &Member) {
    member.dispatcher().report(v1::NodeReport::default()).await.unwrap();
}

/// Requests that never end: each is kept in memory as far as it has come, so a caller has only so many of them.
#[tokio::test]
async fn requests_that_do_not_end_keep_only_their_own_caller_waiting() {
    let home = Home::new();
    let manager = home.init().await;
    let (slow, other) = (Member::join(&manager, "slow").await, Member::join(&manager, "other").await);
    let mut unfinished = JoinSet::new();
    for _ in 0..100 {
        let mut grpc = Grpc::new(slow.channel.clone());
        unfinished.spawn(async move {
            grpc.ready().await.unwrap();
            let report = v1::NodeReport { data_path_addr: "1".repeat(4 << 10), ..Default::default() };
            let body = futures::stream::iter([report]).chain(futures::stream::pending());
            let path = PathAndQuery::from_static("/mesh.v1.Dispatcher/Report");
            let codec = ProstCodec::<v1::NodeReport, v1::ReportResponse>::default();
            grpc.client_streaming(Request::new(body), path, codec).await.map(drop)
        });
    }
    // Once its places are taken, all further ones of this caller wait, whole ones too.
    let mut waits = false;
    for _ in 0..50 {
        waits = timeout(Duration::from_millis(500), reported(&slow)).await.is_err();
        if waits {
            break;
        }
    }
    assert!(waits, "it has as many requests on their way as it likes");
    for _ in 0..20 {
        timeout(Duration::from_secs(5), reported(&other)).await.expect("the other member is served");
    }
    assert!(unfinished.try_join_next().is_none(), "none of them was carried out");
    unfinished.shutdown().await;
    timeout(Duration::from_secs(10), reported(&slow)).await.expect("there is room again");
    manager.shutdown().await;
}
