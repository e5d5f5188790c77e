use std::collections::BTreeMap;

use mesh_types::{
    ClusterId, EndpointMode, Generation, Health, LocalEndpointId, Mac, Service, ServiceId, ServiceNetwork,
};

use super::*;
use crate::{Drain, NsIdentity, NsRef};

const WEB: ServiceId = ServiceId::from_u128(1);

fn id(network: u128) -> NetworkId {
    NetworkId::from_u128(network)
}

/// The service web on these networks.
fn view(networks: &[u128]) -> ClusterView {
    let place = |n: &u128| ServiceNetwork { network: id(*n), vips: vec![], aliases: vec![] };
    let web = Service {
        id: WEB,
        name: Name::new("web").unwrap(),
        networks: networks.iter().map(place).collect(),
        endpoint_mode: EndpointMode::Vip,
        ports: vec![],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        created_at: 0,
        version: 0,
    };
    ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 1,
        nodes: BTreeMap::new(),
        networks: BTreeMap::new(),
        services: BTreeMap::from([(WEB, web)]),
        gossip_keys: vec![],
        ca_generation: 0,
    }
}

/// A task of web: networks, and whether it is there because of the service.
fn task(follows_service: bool, places: &[(u128, bool)]) -> LocalTask {
    let place = |(n, by_service): &(u128, bool)| Attachment {
        network: id(*n),
        addresses: vec![],
        fixed: vec![],
        mac: Mac([2; 6]),
        local_id: LocalEndpointId(1),
        generation: Generation(1),
        egress4: None,
        egress6: None,
        link: String::new(),
        task_link: String::new(),
        ifindex: 1,
        aliases: vec![],
        by_service: *by_service,
        owner: None,
        host_ports: vec![],
    };
    LocalTask {
        id: TaskId::from_u128(1),
        name: Name::new("web.1").unwrap(),
        service: Some(WEB),
        aliases: vec![],
        namespace: NsRef::Pid(1),
        namespace_id: NsIdentity { dev: 0, ino: 0 },
        attachments: places.iter().map(place).collect(),
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        health: Health::None,
        health_note: None,
        follows_service,
        dns: mesh_types::TaskDns::default(),
    }
}

#[test]
fn a_task_goes_where_its_service_goes() {
    let whole = task(true, &[(1, true), (9, false)]);
    assert_eq!(steps(&view(&[1]), &whole), []);
    assert_eq!(steps(&view(&[1, 2]), &whole), [Step::Join(id(2))]);
    assert_eq!(steps(&view(&[2]), &whole), [Step::Join(id(2)), Step::Leave(id(1))]);
    // What somebody connected by hand stays.
    assert_eq!(steps(&view(&[1, 9]), &whole), []);
    assert_eq!(steps(&view(&[3]), &task(true, &[(3, true), (9, false)])), []);
    let gone = ClusterView { services: BTreeMap::new(), ..view(&[]) };
    assert_eq!(steps(&gone, &whole), [], "without its service it stays as it is");
}

#[test]
fn a_task_that_chose_its_networks_only_leaves() {
    let chosen = task(false, &[(1, true), (2, true)]);
    assert_eq!(steps(&view(&[1, 2, 3]), &chosen), []);
    assert_eq!(steps(&view(&[2, 3]), &chosen), [Step::Leave(id(1))]);
    // It is always on one network.
    assert_eq!(steps(&view(&[3]), &chosen), [Step::Leave(id(2))]);
    assert_eq!(steps(&view(&[3]), &task(false, &[(1, true)])), []);
}
