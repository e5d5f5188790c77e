//! Changes of the cluster, by a manager's certificate and by the local socket's handle.

use std::net::IpAddr;

use mesh_api::v1::{self, control_client::ControlClient, control_server::Control};
use mesh_types::{
    Endpoint, EndpointState, Generation, Health, LocalEndpointId, Mac, NetworkId, NodeId, TaskId,
};
use tonic::{Code, Request};

use crate::support::*;

fn network(name: &str, subnet: &str) -> v1::CreateNetworkRequest {
    let subnets = vec![v1::Subnet { net: subnet.into(), gateway: String::new() }];
    v1::CreateNetworkRequest { name: name.into(), subnets, ..Default::default() }
}

fn port(published: u32, target: u32) -> v1::Port {
    v1::Port { published, target, protocol: v1::Protocol::Tcp.into(), ..v1::Port::default() }
}

fn remove(reference: &str) -> v1::RemoveRequest {
    v1::RemoveRequest { reference: reference.into(), expected_version: None }
}

#[tokio::test]
async fn a_network_and_a_service_come_and_go() {
    let home = Home::new();
    let manager = home.init().await;
    let mut control = ControlClient::new(dial(&manager, manager.identity().clone()).await);
    let prod = control.create_network(network("prod", "10.10.3.0/24")).await.unwrap().into_inner();
    assert_eq!((prod.vni, prod.subnets[0].gateway.as_str()), (4097, "10.10.3.1"));
    let status = control.create_network(network("prod", "10.10.4.0/24")).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["prod"]);
    for (subnet, part) in
        [("10.10.3.1/24", "10.10.3.0/24"), ("10.10.3", "\"10.10.3\""), ("fe80::/64", "fe80::/64")]
    {
        let status = control.create_network(network("other", subnet)).await.unwrap_err();
        assert_says(&status, Code::InvalidArgument, &[part]);
    }

    for (name, alias) in [("web", "a..b"), ("web", "a-.b"), ("we..b", "www")] {
        let (name, aliases) = (name.to_owned(), vec![alias.to_owned()]);
        let networks = vec!["prod".to_owned()];
        let asked = v1::CreateServiceRequest { name: name.clone(), networks, aliases, ..Default::default() };
        let status = control.create_service(asked).await.unwrap_err();
        let bad = if name == "web" { alias } else { "we..b" };
        assert_says(&status, Code::InvalidArgument, &[bad]);
    }
    let web = v1::CreateServiceRequest {
        name: "web".into(),
        networks: vec![prod.id[..12].to_owned()],
        aliases: vec!["www".into()],
        ports: vec![port(80, 80)],
        ..Default::default()
    };
    let web = control.create_service(web).await.unwrap().into_inner();
    assert_eq!(
        (web.networks[0].vips.as_slice(), web.networks[0].aliases.as_slice()),
        (["10.10.3.2".to_owned()].as_slice(), ["www".to_owned()].as_slice())
    );
    let publish = |published| v1::PublishRequest {
        service: "web".into(),
        ports: vec![port(published, 8080)],
        expected_version: None,
    };
    let web = control.publish(publish(0)).await.unwrap().into_inner();
    assert_eq!(web.ports.iter().map(|p| p.published).collect::<Vec<_>>(), [80, 30_000]);
    let status = control.publish(publish(80)).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["80/tcp", "web"]);
    let status = control.publish(publish(70_000)).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["70000"]);
    let status = control.remove_network(remove("prod")).await.unwrap_err();
    assert_says(&status, Code::FailedPrecondition, &["prod", "web"]);

    let unpublish = |port: &str, service: &str| v1::UnpublishRequest {
        service: service.into(),
        ports: vec![port.into()],
        expected_version: None,
    };
    let status = control.unpublish(unpublish("80/icmp", "")).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["icmp"]);
    let status = control.unpublish(unpublish("81", "")).await.unwrap_err();
    assert_says(&status, Code::NotFound, &["81/tcp"]);
    let web = control.unpublish(unpublish("80", "")).await.unwrap().into_inner();
    assert_eq!(web.ports.len(), 1);
    let status = control.unpublish(unpublish("80", "web")).await.unwrap_err();
    assert_says(&status, Code::NotFound, &["web", "80/tcp", "30000:8080/tcp"]);

    let status = control.remove_service(remove("nothing")).await.unwrap_err();
    assert_says(&status, Code::NotFound, &["no such service: nothing"]);
    control.remove_service(remove("web")).await.unwrap();
    let removed = control.remove_network(remove(&prod.id)).await.unwrap().into_inner();
    assert_eq!((removed.id, removed.name.as_str()), (prod.id, "prod"));
    manager.shutdown().await;
}

#[tokio::test]
async fn a_service_changes() {
    let home = Home::new();
    let manager = home.init().await;
    let control = manager.control();
    for (name, at) in [("web", "10.0.0.5"), ("db", "10.0.0.6")] {
        let at = Some(v1::port::At::Address(at.into()));
        let ports = vec![v1::Port { at, ..port(80, 80) }];
        let request = v1::CreateServiceRequest { name: name.into(), ports, ..Default::default() };
        control.create_service(Request::new(request)).await.unwrap();
    }
    let unpublish =
        v1::UnpublishRequest { service: String::new(), ports: vec!["80".into()], expected_version: None };
    let status = control.unpublish(Request::new(unpublish)).await.unwrap_err();
    assert_says(&status, Code::InvalidArgument, &["80/tcp", "web", "db", "name the service"]);

    use v1::update_service_request::AffinityChange;
    let request = v1::UpdateServiceRequest {
        service: "web".into(),
        affinity_change: Some(AffinityChange::Affinity(v1::Affinity { timeout_secs: 60 })),
        prefer_local: Some(true),
        drain_timeout_secs: Some(5),
        remove_ports: vec!["80".into()],
        add_ports: vec![v1::Port { mode: v1::PublishMode::Host.into(), ..port(81, 81) }],
        ..Default::default()
    };
    let web = control.update_service(Request::new(request)).await.unwrap().into_inner();
    let web = mesh_types::Service::try_from(web).unwrap();
    assert_eq!(web.affinity.unwrap().timeout_secs, 60);
    assert_eq!((web.prefer_local, web.drain_timeout_secs), (true, 5));
    assert_eq!(web.ports, ["81:81,mode=host".parse().unwrap()]);
    let request = v1::UpdateServiceRequest {
        service: "web".into(),
        affinity_change: Some(AffinityChange::NoAffinity(true)),
        add_ports: vec![port(81, 82)],
        ..Default::default()
    };
    let status = control.update_service(Request::new(request)).await.unwrap_err();
    assert_says(&status, Code::AlreadyExists, &["81:81/tcp,mode=host", "meshctl unpublish 81/tcp web"]);
    assert!(manager.state().borrow().service(web.id).unwrap().affinity.is_some(), "all or nothing");
    manager.shutdown().await;
}

#[tokio::test]
async fn a_node_changes() {
    let home = Home::new();
    let manager = home.init().await;
    let control = manager.control();
    let request = v1::UpdateNodeRequest {
        node: "first".into(),
        availability: v1::Availability::Drain.into(),
        set_labels: [("zone".to_owned(), "a".to_owned())].into(),
        ..Default::default()
    };
    let node = control.update_node(Request::new(request)).await.unwrap().into_inner();
    assert_eq!((node.availability(), node.labels.len()), (v1::Availability::Drain, 1));
    let request = v1::UpdateNodeRequest {
        node: "first".into(),
        remove_labels: vec!["zone".into()],
        ..Default::default()
    };
    let node = control.update_node(Request::new(request)).await.unwrap().into_inner();
    assert_eq!((node.availability(), node.labels.len()), (v1::Availability::Drain, 0));
    let request = v1::UpdateNodeRequest { node: "other".into(), ..Default::default() };
    let status = control.update_node(Request::new(request)).await.unwrap_err();
    assert_says(&status, Code::NotFound, &["no such node: other"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_network_has_both_families() {
    let home = Home::new();
    let manager = home.init().await;
    let control = manager.control();
    let request = v1::CreateNetworkRequest {
        ipv6: true,
        ip_ranges: vec!["10.10.3.64/26".into()],
        ..network("prod", "10.10.3.0/24")
    };
    let prod = control.create_network(Request::new(request)).await.unwrap().into_inner();
    let nets: Vec<_> = prod.subnets.iter().map(|s| (s.net.as_str(), s.gateway.as_str())).collect();
    assert_eq!(nets, [("10.10.3.0/24", "10.10.3.1"), ("fd6d:6573:6800::/64", "fd6d:6573:6800::1")]);
    let request =
        v1::CreateServiceRequest { name: "web".into(), networks: vec!["prod".into()], ..Default::default() };
    let web = control.create_service(Request::new(request)).await.unwrap().into_inner();
    assert_eq!(web.networks[0].vips, ["10.10.3.64", "fd6d:6573:6800::2"]);
    manager.shutdown().await;
}

#[tokio::test]
async fn a_service_of_no_network_is_on_the_ingress_network() {
    let home = Home::new();
    let manager = home.init().await;
    let request =
        v1::CreateServiceRequest { name: "web".into(), aliases: vec!["www".into()], ..Default::default() };
    let web = manager.control().create_service(Request::new(request)).await.unwrap().into_inner();
    let ingress = manager.state().borrow().networks().next().unwrap().id.to_string();
    assert_eq!((web.networks[0].network_id.clone(), web.networks[0].aliases.len()), (ingress, 1));
    manager.shutdown().await;
}

#[tokio::test]
async fn a_network_with_tasks_stays_and_they_are_named() {
    let home = Home::new();
    let manager = home.init().await;
    let control = manager.control();
    let prod =
        control.create_network(Request::new(network("prod", "10.10.3.0/24"))).await.unwrap().into_inner();
    let (node, network): (NodeId, NetworkId) =
        (manager.identity().current().own().node, prod.id.parse().unwrap());
    let address: IpAddr = "10.10.3.9".parse().unwrap();
    let endpoint = |number: u32| Endpoint {
        network,
        node,
        task: TaskId::random(),
        name: format!("task{number}").parse().unwrap(),
        service: None,
        addresses: vec![address],
        mac: Mac::of_address(address),
        local_id: LocalEndpointId(number),
        generation: Generation(0),
        aliases: vec![],
        state: EndpointState::Ready,
        weight: 1,
        health: Health::None,
        health_note: None,
    };
    home.running.0.lock().unwrap().extend((1..=7).map(endpoint));
    let status = control.remove_network(Request::new(remove("prod"))).await.unwrap_err();
    let parts = ["network prod", "task1 on first", "task5 on first and 2 more"];
    assert_says(&status, Code::FailedPrecondition, &parts);
    home.running.0.lock().unwrap().clear();
    control.remove_network(Request::new(remove("prod"))).await.unwrap();
    manager.shutdown().await;
}

#[tokio::test]
async fn the_last_manager_stays() {
    let home = Home::new();
    let manager = home.init().await;
    let status = manager
        .control()
        .remove_node(Request::new(v1::RemoveNodeRequest {
            reference: "first".into(),
            force: true,
            expected_version: None,
        }))
        .await
        .unwrap_err();
    assert_says(&status, Code::FailedPrecondition, &["first", "last manager"]);
    manager.shutdown().await;
}
