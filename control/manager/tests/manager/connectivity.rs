//! Tests of connectivity, as the manager begins and ends them.

use std::{net::IpAddr, time::Duration};

use futures::StreamExt;
use mesh_api::v1::{TestConnectivityRequest, control_server::Control};
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
