//! Tasks and their names, as a node knows them.

use std::{collections::BTreeMap, sync::Arc};

use mesh_agent::{Attachment, Drain, LocalTask, NsIdentity, NsRef};
use mesh_types::{
    ClusterId, ClusterView, EndpointMode, Generation, Health, LocalEndpointId, Mac, Name, Network, NetworkId,
    Service, ServiceId, Subnet, TaskDns, TaskId, Vni,
};

fn name(text: String) -> Name {
    Name::new(text).unwrap()
}

/// So many tasks on one network, ten to a service.
pub fn tasks(count: u32) -> (Arc<ClusterView>, Vec<LocalTask>) {
    let network = Network {
        id: NetworkId::from_u128(1),
        name: name("prod".to_owned()),
        vni: Vni::FIRST,
        subnets: vec![Subnet::new("10.0.0.0/14".parse().unwrap(), None).unwrap()],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        created_at: 0,
        ip_ranges: Vec::new(),
        aux_addresses: BTreeMap::new(),
        version: 0,
    };
    let view = ClusterView {
        cluster: ClusterId::from_u128(1),
        version: 7,
        nodes: BTreeMap::new(),
        networks: [(network.id, network)].into(),
        services: (0..count.div_ceil(10)).map(service).map(|service| (service.id, service)).collect(),
        gossip_keys: Vec::new(),
        ca_generation: 0,
    };
    (Arc::new(view), (0..count).map(task).collect())
}

fn service(index: u32) -> Service {
    Service {
        id: ServiceId::from_u128(u128::from(index) + 1),
        name: name(format!("service{index}")),
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

fn task(index: u32) -> LocalTask {
    let place = Attachment {
        network: NetworkId::from_u128(1),
        addresses: vec![[10, 0, (index >> 8) as u8, index as u8].into()],
        fixed: Vec::new(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        local_id: LocalEndpointId(index + 1),
        generation: Generation(1),
        egress4: None,
        egress6: None,
        link: format!("msh{index:08}"),
        task_link: "eth0".to_owned(),
        ifindex: index,
        aliases: Vec::new(),
        by_service: false,
        owner: None,
        host_ports: Vec::new(),
    };
    LocalTask {
        id: TaskId::from_u128(u128::from(index) + 1),
        name: name(format!("web.{index}")),
        service: Some(ServiceId::from_u128(u128::from(index / 10) + 1)),
        aliases: Vec::new(),
        namespace: NsRef::Pid(1),
        namespace_id: NsIdentity { dev: 1, ino: index.into() },
        attachments: vec![place],
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
        follows_service: true,
        dns: TaskDns::default(),
        health: Health::None,
        health_note: None,
    }
}
