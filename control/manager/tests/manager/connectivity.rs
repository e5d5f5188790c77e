//! Tests of connectivity, as the manager begins and ends them.

use std::{net::IpAddr, time::Duration};

use futures::StreamExt;
use mesh_api::v1::{
    TestConnectivityRequest, TestReport, control_server::Control, dispatcher_client::DispatcherClient,
};
use mesh_types::{Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, TaskId};
use tokio::time::{sleep, timeout};
use tonic::Request;

use crate::support::*;

#[tokio::test]
async fn network_and_service_of_a_test_wait_for_its_tasks() {
    let home = Home::new();
    let manager = home.init().await;
    let answered =
        manager.control().test_connectivity(Request::new(TestConnectivityRequest::default())).await;
    let mut reports = answered.unwrap().into_inner();
    let order = reports.next().await.unwrap().unwrap().order.unwrap();
    let address: IpAddr = "10.10.3.9".parse().unwrap();
    home.running.0.lock().unwrap().push(Endpoint {
        network: order.network_id.parse().unwrap(),
        node: manager.identity().current().own().node,
        task: TaskId::random(),
        name: "test".parse().unwrap(),
        service: None,
        addresses: vec![address],
        mac: Mac::of_address(address),
        local_id: LocalEndpointId(1),
        generation: Generation(0),
        aliases: vec![],
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    });
    let mut state = manager.state();
    let has_network = || manager.state().borrow().networks().any(|n| n.id.to_string() == order.network_id);
    let has_service = || manager.state().borrow().services().any(|s| s.id.to_string() == order.service_id);
    drop(reports);
    sleep(Duration::from_secs(1)).await;
    assert!(has_network() && has_service(), "the task is there");
    home.running.0.lock().unwrap().clear();
    let gone = state.wait_for(|state| !state.networks().any(|n| n.id.to_string() == order.network_id));
    timeout(Duration::from_secs(15), gone).await.unwrap().unwrap();
    assert!(!has_service());
    manager.shutdown().await;
}

#[tokio::test]
async fn a_test_is_over_when_all_nodes_are() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let asked = Request::new(TestConnectivityRequest::default());
    let mut reports = manager.control().test_connectivity(asked).await.unwrap().into_inner();
    let order = reports.next().await.unwrap().unwrap().order.unwrap();
    assert_eq!(order.nodes.len(), 2);
    for (channel, stage) in [(&member.channel, "ready"), (&member.channel, "done")] {
        let report = TestReport { test_id: order.id.clone(), stage: stage.to_owned(), ..Default::default() };
        DispatcherClient::new(channel.clone()).report_test(report).await.unwrap();
        assert_eq!(reports.next().await.unwrap().unwrap().stage, stage);
    }
    assert!(timeout(Duration::from_millis(300), reports.next()).await.is_err(), "the other has not said");
    let own = dial(&manager, manager.identity().clone()).await;
    let report = TestReport { test_id: order.id.clone(), stage: "failed".to_owned(), ..Default::default() };
    DispatcherClient::new(own).report_test(report).await.unwrap();
    assert_eq!(reports.next().await.unwrap().unwrap().stage, "failed");
    let end = timeout(Duration::from_secs(5), reports.next()).await.unwrap();
    assert!(end.is_none(), "{end:?}");
    manager.shutdown().await;
}
