use mesh_types::{EndpointMode, Name, Service, Subnet};

use super::*;
use crate::{Attachment, Drain, NsIdentity, NsRef};

fn name(text: &str) -> Name {
    Name::new(text.to_owned()).unwrap()
}

fn network(id: u128, text: &str) -> mesh_types::Network {
    let subnet = Subnet::new(format!("10.{id}.0.0/24").parse().unwrap(), None).unwrap();
    mesh_types::Network {
        id: NetworkId::from_u128(id),
        name: name(text),
        vni: Vni::new(4096 + id as u32).unwrap(),
        subnets: vec![subnet],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: Vec::new(),
        aux_addresses: BTreeMap::new(),
        version: 0,
    }
}

fn service(id: u128, text: &str) -> Service {
    Service {
        id: ServiceId::from_u128(id),
        name: name(text),
        networks: Vec::new(),
        endpoint_mode: EndpointMode::Vip,
        ports: Vec::new(),
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    }
}

fn view(networks: Vec<mesh_types::Network>, services: Vec<Service>) -> ClusterView {
    ClusterView {
        cluster: mesh_types::ClusterId::from_u128(1),
        version: 7,
        nodes: BTreeMap::new(),
        networks: networks.into_iter().map(|n| (n.id, n)).collect(),
        services: services.into_iter().map(|s| (s.id, s)).collect(),
        gossip_keys: Vec::new(),
        ca_generation: 0,
    }
}

fn task(id: u128, of: Option<u128>, places: &[(u128, u32)]) -> LocalTask {
    let place = |&(network, local_id): &(u128, u32)| Attachment {
        network: NetworkId::from_u128(network),
        addresses: vec![IpAddr::from([10, network as u8, 0, local_id as u8])],
        fixed: Vec::new(),
        mac: mesh_types::Mac([2, 0, 0, 0, 0, local_id as u8]),
        local_id: LocalEndpointId(local_id),
        generation: mesh_types::Generation(1),
        egress4: None,
        egress6: None,
        link: format!("msh{local_id:08}"),
        task_link: "eth0".to_owned(),
        ifindex: local_id,
        aliases: Vec::new(),
        by_service: false,
        owner: None,
        host_ports: Vec::new(),
    };
    LocalTask {
        id: TaskId::from_u128(id),
        name: name(&format!("task{id}")),
        service: of.map(ServiceId::from_u128),
        aliases: Vec::new(),
        namespace: NsRef::Pid(1),
        namespace_id: NsIdentity { dev: 1, ino: id as u64 },
        attachments: places.iter().map(place).collect(),
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        follows_service: true,
        dns: mesh_types::TaskDns::default(),
        health: Health::None,
        health_note: None,
    }
}

#[test]
fn places_have_the_names_that_people_know() {
    let view = view(vec![network(1, "prod"), network(2, "back")], vec![service(5, "web"), service(6, "idle")]);
    let mut draining = task(11, Some(5), &[(1, 2)]);
    draining.drain = Drain::Going { until: 1, least: 1, by_node: false };
    let tasks = [task(10, Some(5), &[(1, 1), (2, 3)]), draining, task(12, None, &[(9, 4)])];
    let flows = BTreeMap::from([(LocalEndpointId(1), 7), (LocalEndpointId(2), 2), (LocalEndpointId(3), 1)]);
    let traffic = BTreeMap::from([(LocalEndpointId(3), Traffic { bytes_in: 9, ..Traffic::default() })]);
    let endpoints = endpoints(&view, &tasks, &flows, &traffic);
    let shown: Vec<_> = endpoints
        .iter()
        .map(|e| (e.network_name.as_str(), e.service.as_ref().map(|s| s.1.as_str()), e.task_name.as_str(), e.flows))
        .collect();
    // A network that the managers have removed is called by its id.
    let removed = NetworkId::from_u128(9).to_string();
    assert_eq!(
        shown,
        [
            (removed.as_str(), None, "task12", 0),
            ("back", Some("web"), "task10", 1),
            ("prod", Some("web"), "task10", 7),
            ("prod", Some("web"), "task11", 2),
        ]
    );
    let bytes: Vec<_> = endpoints.iter().map(|e| e.traffic.bytes_in).collect();
    assert_eq!(bytes, [0, 9, 0, 0]);
    let networks = networks(&view, &endpoints);
    let shown: Vec<_> = networks.iter().map(|n| (n.name.as_str(), n.endpoints, n.flows)).collect();
    assert_eq!(shown, [("back", 1, 1), ("prod", 2, 9)]);
    let services = services(&view, &endpoints);
    let shown: Vec<_> = services.iter().map(|s| (s.name.as_str(), s.tasks, s.ready, s.flows)).collect();
    assert_eq!(shown, [("idle", 0, 0, 0), ("web", 2, 1, 10)]);
}

#[test]
fn a_task_that_fails_its_checks_is_not_ready() {
    let view = view(vec![network(1, "prod")], vec![service(5, "web")]);
    let mut sick = task(10, Some(5), &[(1, 1)]);
    sick.health = Health::Unhealthy;
    let endpoints = endpoints(&view, &[sick], &BTreeMap::new(), &BTreeMap::new());
    assert_eq!(services(&view, &endpoints).first().map(|s| (s.tasks, s.ready)), Some((1, 0)));
}
