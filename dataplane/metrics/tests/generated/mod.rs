//! Nodes that never were.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use mesh_agent::{
    DataPathCounts, DnsStats, EndpointCounts, Frontend, FrontendCounts, GossipStatus, MapUse, MemberState,
    NetworkCounts, ProgramStats, PublishedOn, ServiceCounts, SessionState, Snapshot, Traffic,
};
use mesh_lb::{Counter, DropReason};
use mesh_types::{
    EndpointState, Health, LocalEndpointId, NetworkId, NodeId, Protocol, ServiceId, TaskId, Vni,
};

fn traffic(seed: u64) -> Traffic {
    Traffic {
        packets_in: seed * 1_001,
        bytes_in: seed * 1_000_003,
        packets_out: seed * 999,
        bytes_out: seed * 70_001,
        new_flows: seed * 10,
        drops_in: seed,
        drops_out: 1,
    }
}

/// A node with so many endpoints, ten to a service, all on one network, whose tasks are called `name` and a number.
pub fn snapshot(count: u32, name: &str) -> Snapshot {
    let network = NetworkId::from_u128(1);
    let service_of =
        |index: u32| (ServiceId::from_u128(u128::from(index / 10) + 1), format!("service{}", index / 10));
    let endpoint = |index: u32| EndpointCounts {
        task: TaskId::from_u128(u128::from(index) + 1),
        task_name: format!("{name}{index}"),
        service: Some(service_of(index)),
        network,
        network_name: "prod".to_owned(),
        local_id: LocalEndpointId(index + 1),
        addresses: Vec::new(),
        state: EndpointState::Ready,
        health: Health::None,
        flows: u64::from(index) % 7,
        traffic: traffic(u64::from(index)),
    };
    let services = (0..count.div_ceil(10)).map(|index| service_of(index * 10)).collect::<Vec<_>>();
    let port = |place: usize, (service, service_name): &(ServiceId, String)| FrontendCounts {
        service: *service,
        service_name: service_name.clone(),
        frontend: Frontend::Published {
            on: PublishedOn::AnyV4,
            port: place as u16 + 1,
            protocol: Protocol::Tcp,
        },
        network_name: String::new(),
        traffic: traffic(place as u64),
    };
    let vip = |(service, service_name): &(ServiceId, String)| FrontendCounts {
        service: *service,
        service_name: service_name.clone(),
        frontend: Frontend::Vip { vni: Vni::FIRST, address: [10, 0, 0, 2].into() },
        network_name: "prod".to_owned(),
        traffic: traffic(3),
    };
    let ports = services.iter().enumerate().map(|(place, service)| port(place, service));
    let node = NodeId::from_u128(1);
    let map = MapUse { used: 7, capacity: 100 };
    Snapshot {
        at: SystemTime::now(),
        node,
        node_name: "n1".to_owned(),
        applied: 7,
        known: 8,
        session: SessionState::Disconnected("no manager".to_owned()),
        fault: None,
        members: BTreeMap::from([(node, MemberState::Alive)]),
        tasks: count as usize,
        data_path: DataPathCounts {
            drops: DropReason::ALL.iter().map(|reason| (*reason, 1)).collect(),
            counters: Counter::ALL.iter().map(|counter| (*counter, 2)).collect(),
            maps: ["CHOICES_KEPT", "REVERSE_KEPT", "SERVICES"].map(|name| (name, map)).into(),
        },
        traffic: traffic(5),
        programs: vec![ProgramStats { program: "from_task", runs: 5, time: Duration::from_micros(9) }],
        networks: vec![NetworkCounts {
            network,
            name: "prod".to_owned(),
            vni: Vni::FIRST,
            endpoints: count as usize,
            flows: 3,
            traffic: traffic(11),
        }],
        frontends: services.first().map(vip).into_iter().chain(ports).collect(),
        services: services
            .into_iter()
            .map(|(service, name)| ServiceCounts { service, name, tasks: 10, ready: 9, flows: 4 })
            .collect(),
        endpoints: (0..count).map(endpoint).collect(),
        dns: DnsStats { answered: 5, unknown: 2, ..DnsStats::default() },
        gossip: Some(GossipStatus {
            report: mesh_gossip::Report {
                node,
                version: mesh_gossip::Version { epoch: 1, counter: 1 },
                unacknowledged: 0,
                relayed: 0,
                slowness: 0,
                tables: BTreeMap::new(),
                members: BTreeMap::new(),
            },
            rates: mesh_gossip::Rates::default(),
            counters: mesh_gossip::Stats::default(),
        }),
        lease_left: Duration::from_secs(3600),
        unconfirmed: 0,
        certificate_expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000),
        ca_expires: SystemTime::UNIX_EPOCH + Duration::from_secs(2_300_000_000),
    }
}
