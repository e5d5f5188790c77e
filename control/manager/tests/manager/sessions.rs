//! What members see and lease.

use mesh_api::v1::{
    CreateNetworkRequest, IpFamily, LeaseRequest, LeaveRequest, Listener, NetworkLeaseChange, NodeListeners,
    NodeReport, ProgressRequest, Protocol, RemoveNodeRequest, RenewLeasesRequest, Subnet,
    control_server::Control,
};
use tonic::{Code, Request};

use crate::support::*;

fn network(name: &str) -> Request<CreateNetworkRequest> {
    let subnets = vec![Subnet { net: "10.10.3.0/24".into(), gateway: String::new() }];
    Request::new(CreateNetworkRequest { name: name.into(), subnets, ..Default::default() })
}

#[tokio::test]
async fn a_session_sees_every_change() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let mut session = member.session().await;
    let first = session.next().await.unwrap();
    let seen = view(&first);
    assert_eq!((seen.nodes.len(), seen.networks.len(), seen.gossip_keys.len()), (2, 1, 1));
    assert_eq!(first.managers, [manager.listen_addr().to_string()]);
    assert!(first.leases.is_empty());

    let prod = manager.control().create_network(network("prod")).await.unwrap().into_inner();
    let next = session.until(|view, _| view.network("prod").is_ok()).await;
    assert!(view(&next).version > seen.version);

    let lease = LeaseRequest { network_id: prod.id.clone(), count: 3, ..Default::default() };
    let leased = member.dispatcher().lease(lease).await.unwrap().into_inner().addresses;
    assert_eq!(leased, ["10.10.3.2", "10.10.3.3", "10.10.3.4"]);
    let next = session.until(|_, state| !state.leases.is_empty()).await;
    assert_eq!((next.leases[0].network_id.as_str(), &next.leases[0].addresses), (prod.id.as_str(), &leased));
    let back = NetworkLeaseChange { network_id: prod.id, returned: leased, ..Default::default() };
    let back = RenewLeasesRequest { changes: vec![back], ..Default::default() };
    assert!(member.dispatcher().renew_leases(back).await.unwrap().into_inner().done);
    session.until(|_, state| state.leases.is_empty()).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn the_leases_of_others_are_not_sent() {
    let home = Home::new();
    let manager = home.init().await;
    let (second, third) = (Member::join(&manager, "second").await, Member::join(&manager, "third").await);
    let prod = manager.control().create_network(network("prod")).await.unwrap().into_inner();
    let mut session = second.session().await;
    session.until(|view, _| view.network("prod").is_ok()).await;
    let lease =
        LeaseRequest { network_id: prod.id, count: 1, address: "10.10.3.9".into(), ..Default::default() };
    third.dispatcher().lease(lease.clone()).await.unwrap();
    let status = second.dispatcher().lease(lease).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["10.10.3.9", "prod", "node third"]);
    // The next thing that the session hears of is a change of the view.
    manager.control().create_network(network("more")).await.unwrap();
    let next = session.next().await.unwrap();
    assert!(view(&next).network("more").is_ok() && next.leases.is_empty());
    manager.shutdown().await;
}

#[tokio::test]
async fn leases_of_one_family() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let mut request = network("prod");
    request.get_mut().ipv6 = true;
    let network_id = manager.control().create_network(request).await.unwrap().into_inner().id;
    let lease = |family: IpFamily| LeaseRequest {
        network_id: network_id.clone(),
        count: 1,
        family: family.into(),
        ..Default::default()
    };
    for (family, addresses) in [
        (IpFamily::Unspecified, &["10.10.3.2", "fd6d:6573:6800::2"][..]),
        (IpFamily::V6, &["fd6d:6573:6800::3"]),
        (IpFamily::V4, &["10.10.3.3"]),
    ] {
        let leased = member.dispatcher().lease(lease(family)).await.unwrap().into_inner();
        assert_eq!(leased.addresses, addresses);
    }
    manager.shutdown().await;
}

#[tokio::test]
async fn a_nodes_report_is_followed_and_told() {
    let home = Home::new();
    let manager = home.init().await;
    let (second, third) = (Member::join(&manager, "second").await, Member::join(&manager, "third").await);
    let listener = Listener {
        port: 80,
        protocol: Protocol::Tcp.into(),
        address: "0.0.0.0".into(),
        process: "nginx".into(),
        pid: 123,
    };
    let report = |address: &str, listeners: &[Listener]| NodeReport {
        data_path_addr: address.into(),
        listeners: listeners.to_vec(),
        ..Default::default()
    };
    let own_session = second.session().await;
    let mut session = third.session().await;
    let told = report("192.168.9.2", std::slice::from_ref(&listener));
    second.dispatcher().report(told.clone()).await.unwrap();
    let node = second.identity.current().own().node;
    let state = session
        .until(|view, state| {
            let address = view.nodes[&node].data_path_addr;
            address.to_string() == "192.168.9.2" && !state.listeners.is_empty()
        })
        .await;
    assert_eq!(state.listeners, [NodeListeners { node_id: node.to_string(), listeners: vec![listener] }]);
    assert_eq!(manager.listeners().borrow()[&node].len(), 1);

    let version = manager.state().borrow().version();
    second.dispatcher().report(told).await.unwrap();
    assert_eq!(manager.state().borrow().version(), version, "said again");
    let status = third.dispatcher().report(report("192.168.9.2", &[])).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["192.168.9.2", "node second"]);
    let status = third.dispatcher().report(report("0.0.0.0", &[])).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["0.0.0.0"]);
    let status = third.dispatcher().report(report("nonsense", &[])).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["nonsense"]);

    drop(own_session);
    session.until(|_, state| state.listeners.is_empty()).await;
    manager.shutdown().await;
}

#[tokio::test]
async fn progress_is_what_nodes_in_session_say() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let programmed = async |version| {
        let progress =
            manager.control().get_progress(Request::new(ProgressRequest { version })).await.unwrap();
        let nodes = progress.into_inner().nodes;
        assert_eq!(nodes.len(), 2);
        assert!(nodes.iter().all(|node| node.status == "ready" || node.name == "second"), "{nodes:?}");
        nodes.into_iter().filter(|node| node.programmed).map(|node| node.name).collect::<Vec<_>>()
    };
    let mut session = member.session().await;
    session.next().await.unwrap();
    assert!(programmed(1).await.is_empty(), "it has said nothing");
    let report = NodeReport { applied_version: 5, ..Default::default() };
    member.dispatcher().report(report).await.unwrap();
    assert_eq!((programmed(5).await, programmed(6).await), (vec!["second".to_owned()], Vec::new()));
    // What does not say it says nothing other.
    member.dispatcher().report(NodeReport::default()).await.unwrap();
    assert_eq!(programmed(5).await, ["second"]);
    drop(session);
    while !programmed(5).await.is_empty() {
        tokio::task::yield_now().await;
    }
    manager.shutdown().await;
}

#[tokio::test]
async fn a_removed_node_hears_no_more() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let mut session = member.session().await;
    session.next().await.unwrap();
    let reference = "second".to_owned();
    manager
        .control()
        .remove_node(Request::new(RemoveNodeRequest { reference, force: true, expected_version: None }))
        .await
        .unwrap();
    let status = session.next().await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["removed"]);
    let status = member.dispatcher().lease(LeaseRequest::default()).await.unwrap_err();
    assert_says(&status, Code::PermissionDenied, &["removed"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_node_may_leave() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    member.dispatcher().leave(LeaveRequest {}).await.unwrap();
    assert_eq!(manager.state().borrow().nodes().count(), 1);
    Member::join(&manager, "second").await;
    manager.shutdown().await;
}

#[tokio::test]
async fn sessions_end_with_the_manager() {
    let home = Home::new();
    let manager = home.init().await;
    let member = Member::join(&manager, "second").await;
    let mut session = member.session().await;
    session.next().await.unwrap();
    manager.shutdown().await;
    let status = session.next().await.unwrap_err();
    assert_says(&status, Code::Unavailable, &["stops"]);
}
