//! What this node counted, as the API has it.

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use mesh_agent::{
    DnsStats, EndpointCounts, Frontend, FrontendCounts, MemberState, NetworkCounts, PublishedOn,
    ServiceCounts, SessionState, Snapshot, Traffic,
};
use mesh_api::v1;
use mesh_types::{EndpointState, Health};

/// The whole, or without the endpoints.
pub fn message(snapshot: &Snapshot, without_endpoints: bool) -> v1::NodeSnapshot {
    let data_path = &snapshot.data_path;
    let mut members: BTreeMap<&'static str, u32> = BTreeMap::new();
    for state in snapshot.members.values() {
        *members.entry(member_state(*state)).or_default() += 1;
    }
    let map = |(name, used): (&&str, &mesh_agent::MapUse)| v1::FlowTable {
        name: (*name).to_owned(),
        used: used.used.into(),
        capacity: used.capacity.into(),
    };
    let endpoints = match without_endpoints {
        true => Vec::new(),
        false => snapshot.endpoints.iter().map(endpoint).collect(),
    };
    let since = |at: std::time::SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
    v1::NodeSnapshot {
        unix_millis: u64::try_from(since(snapshot.at).as_millis()).unwrap_or(u64::MAX),
        node_id: snapshot.node.to_string(),
        node_name: snapshot.node_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        applied: snapshot.applied,
        known: snapshot.known,
        in_session: matches!(snapshot.session, SessionState::Connected(_)),
        fault: snapshot.fault.clone().unwrap_or_default(),
        tasks: small(snapshot.tasks),
        members: members.into_iter().map(|(state, count)| (state.to_owned(), count)).collect(),
        drops: data_path.drops.iter().map(|(reason, &n)| (reason.as_str().to_owned(), n)).collect(),
        packets: data_path.counters.iter().map(|(path, &n)| (path.as_str().to_owned(), n)).collect(),
        maps: data_path.maps.iter().map(map).collect(),
        networks: snapshot.networks.iter().map(network).collect(),
        services: snapshot.services.iter().map(|counts| service(counts, &snapshot.frontends)).collect(),
        endpoints,
        dns: Some(dns(&snapshot.dns)),
        certificate_expires: since(snapshot.certificate_expires).as_secs(),
        traffic: Some(traffic(&snapshot.traffic)),
    }
}

/// The word for it.
pub fn member_state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Unattended => "unattended",
        MemberState::Down => "down",
        MemberState::Left => "left",
    }
}

/// The word for it.
pub fn endpoint_state(state: EndpointState) -> &'static str {
    match state {
        EndpointState::Ready => "ready",
        EndpointState::Draining => "draining",
        EndpointState::Drained => "drained",
    }
}

fn network(counts: &NetworkCounts) -> v1::NetworkCounts {
    v1::NetworkCounts {
        network_id: counts.network.to_string(),
        name: counts.name.clone(),
        vni: counts.vni.get(),
        endpoints: small(counts.endpoints),
        flows: counts.flows,
        traffic: Some(traffic(&counts.traffic)),
    }
}

fn service(counts: &ServiceCounts, frontends: &[FrontendCounts]) -> v1::ServiceCounts {
    v1::ServiceCounts {
        service_id: counts.service.to_string(),
        name: counts.name.clone(),
        tasks: small(counts.tasks),
        ready: small(counts.ready),
        flows: counts.flows,
        frontends: of_service(frontends, counts).map(frontend).collect(),
    }
}

fn endpoint(counts: &EndpointCounts) -> v1::EndpointCounts {
    let (service_id, service) = match &counts.service {
        Some((id, name)) => (id.to_string(), name.clone()),
        None => Default::default(),
    };
    v1::EndpointCounts {
        task_id: counts.task.to_string(),
        task: counts.task_name.clone(),
        service_id,
        service,
        network_id: counts.network.to_string(),
        network: counts.network_name.clone(),
        addresses: counts.addresses.iter().map(ToString::to_string).collect(),
        state: endpoint_state(counts.state).to_owned(),
        health: if counts.health == Health::None { String::new() } else { counts.health.to_string() },
        flows: counts.flows,
        traffic: Some(traffic(&counts.traffic)),
    }
}

/// They are in the order of the services' names.
fn of_service<'a>(
    frontends: &'a [FrontendCounts],
    service: &ServiceCounts,
) -> impl Iterator<Item = &'a FrontendCounts> {
    let begin = frontends.partition_point(|f| f.service_name < service.name);
    let id = service.service;
    let same = frontends.get(begin..).unwrap_or_default().iter();
    let name = service.name.clone();
    same.take_while(move |f| f.service_name == name).filter(move |f| f.service == id)
}

fn frontend(counts: &FrontendCounts) -> v1::FrontendCounts {
    let (address, port, protocol) = match counts.frontend {
        Frontend::Vip { address, .. } => (address, 0, String::new()),
        Frontend::Published { on, port, protocol } => {
            let address = match on {
                PublishedOn::AnyV4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
                PublishedOn::AnyV6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
                PublishedOn::Address(address) => address,
            };
            (address, port, protocol.to_string())
        }
    };
    v1::FrontendCounts {
        network: counts.network_name.clone(),
        address: address.to_string(),
        port: port.into(),
        protocol,
        traffic: Some(traffic(&counts.traffic)),
    }
}

fn traffic(counted: &Traffic) -> v1::Traffic {
    v1::Traffic {
        packets_in: counted.packets_in,
        bytes_in: counted.bytes_in,
        packets_out: counted.packets_out,
        bytes_out: counted.bytes_out,
        new_flows: counted.new_flows,
        drops: counted.drops(),
    }
}

fn dns(stats: &DnsStats) -> v1::DnsCounts {
    v1::DnsCounts {
        answered: stats.answered,
        unknown: stats.unknown,
        truncated: stats.truncated,
        forwarded: stats.forwarded,
        kept: stats.kept,
        failed: stats.failed,
        malformed: stats.malformed,
        own_nanos: stats.own.nanos,
        own_count: stats.own.count(),
        outside_nanos: stats.outside.nanos,
        outside_count: stats.outside.count(),
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
