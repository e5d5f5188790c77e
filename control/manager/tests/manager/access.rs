//! Every method of every service asks for the right caller.

use std::time::Duration;

use mesh_api::{
    transport::connect,
    v1::{RemoveNodeRequest, Role, control_server::Control},
};
use mesh_ca::{JoinToken, join_client_config, server_name};
use tokio::time::timeout;
use tonic::{Code, Request, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::support::*;

/// Every method of the services between nodes: all but those of the unix socket.
fn methods() -> impl Iterator<Item = &'static str> {
    let methods = mesh_api::METHODS.iter().copied();
    methods.filter(|method| !method.starts_with("/mesh.v1.Local/"))
}

/// The code of an empty message's answer. Of what streams the head is the answer: it is there when the call was let in, and a
/// refusal stands in it.
async fn call(channel: &Channel, method: &str) -> Code {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(method).unwrap();
    let call = grpc.server_streaming::<(), (), _>(Request::new(()), path, ProstCodec::default());
    let answer = timeout(A_WHILE, call).await.unwrap_or_else(|_| panic!("{method} does not answer"));
    answer.err().map_or(Code::Ok, |status| status.code())
}

const A_WHILE: Duration = Duration::from_secs(20);
const REFUSED: [Code; 2] = [Code::Unauthenticated, Code::PermissionDenied];

#[tokio::test]
async fn every_method_asks_for_the_right_caller() {
    let home = Home::new();
    let manager = home.init().await;
    let pinned: JoinToken = token(&manager, Role::Worker, false).await.parse().unwrap();
    let config = join_client_config(*pinned.digest()).unwrap();
    let name = server_name(mesh_types::Role::Manager);
    let stranger = connect(manager.listen_addr(), name, config).await.unwrap();
    let worker = Member::join(&manager, "worker").await;
    let removed = Member::join(&manager, "removed").await;
    let reference = "removed".to_owned();
    manager
        .control()
        .remove_node(Request::new(RemoveNodeRequest { reference, force: true, expected_version: None }))
        .await
        .unwrap();
    let own = dial(&manager, manager.identity().clone()).await;

    for method in methods() {
        let service = method.split('/').nth(1).unwrap();
        let (stranger, removed) = (call(&stranger, method).await, call(&removed.channel, method).await);
        if service == "mesh.v1.Join" {
            // Past the table; the empty token is what is wrong then.
            assert_eq!((stranger, removed), (Code::InvalidArgument, Code::InvalidArgument), "{method}");
        } else {
            assert_eq!((stranger, removed), (Code::Unauthenticated, Code::PermissionDenied), "{method}");
        }
        if ["mesh.v1.Raft", "mesh.v1.Control", "mesh.v1.Cluster"].contains(&service) {
            assert_eq!(call(&worker.channel, method).await, Code::PermissionDenied, "{method}");
            // A change that needs no words.
            if method == "/mesh.v1.Cluster/RotateCa" {
                continue;
            }
            let code = call(&own, method).await;
            assert!(!REFUSED.contains(&code), "{method}: {code:?}");
        }
    }
    assert_eq!(call(&worker.channel, "/mesh.v1.Dispatcher/Lease").await, Code::InvalidArgument);
    // A service of the unix socket is not served here, not even to managers.
    assert_eq!(call(&own, "/mesh.v1.Local/Status").await, Code::Unimplemented);
    assert_eq!(manager.state().borrow().nodes().count(), 2);
    manager.shutdown().await;
}
