//! Kept files as earlier versions wrote them, so that a node keeps its tasks when its daemon is upgraded in place.
//!
//! Format version 1: one address per attachment, no weight, no drain; ports and services without options.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use mesh_types::{
    ClusterId, ClusterView, DEFAULT_DRAIN_SECS, Endpoint, EndpointMode, EndpointState, Generation,
    LocalEndpointId, Mac, Name, Network, NetworkId, Node, NodeId, PortConfig, Protocol, Service, ServiceId,
    ServiceNetwork, TaskId,
};
use serde::{Deserialize, Serialize};

use crate::{
    Attachment, Drain, LocalTask, NsIdentity, NsRef, kept,
    state::{KeptRemote, KeptTasks, KeptView},
};

/// The tasks of a file of version 1.
pub(crate) fn tasks(bytes: &[u8]) -> Option<KeptTasks> {
    let Tasks1 { boot, tasks, generation } = kept::decode(bytes)?;
    Some(KeptTasks { boot, tasks: tasks.into_iter().map(task).collect(), generation })
}

/// The decided state of a file of version 1.
pub(crate) fn view(bytes: &[u8]) -> Option<KeptView> {
    let View1 { view, leases, managers } = kept::decode(bytes)?;
    let Cluster1 { cluster, version, nodes, networks, services, gossip_keys } = view;
    let services = services.into_iter().map(|(id, s)| (id, service(s))).collect();
    Some(KeptView {
        view: ClusterView { cluster, version, nodes, networks, services, gossip_keys },
        leases,
        managers,
    })
}

/// The others' endpoints of a file of version 1.
pub(crate) fn remote(bytes: &[u8]) -> Option<KeptRemote> {
    let tables: BTreeMap<NetworkId, Vec<Endpoint1>> = kept::decode(bytes)?;
    let table = |(scope, all): (NetworkId, Vec<Endpoint1>)| {
        (scope, all.into_iter().map(|e| Arc::new(endpoint(e))).collect())
    };
    Some(KeptRemote(tables.into_iter().map(table).collect()))
}

fn task(task: Task1) -> LocalTask {
    LocalTask {
        id: task.id,
        name: task.name,
        service: task.service,
        aliases: task.aliases,
        namespace: task.namespace,
        namespace_id: task.namespace_id,
        attachments: task.attachments.into_iter().map(attachment).collect(),
        weight: 1,
        drain_timeout_secs: None,
        drain: Drain::None,
    }
}

fn attachment(a: Attachment1) -> Attachment {
    Attachment {
        network: a.network,
        addresses: vec![a.address],
        fixed: if a.fixed { vec![a.address] } else { Vec::new() },
        mac: a.mac,
        local_id: a.local_id,
        generation: a.generation,
        egress4: a.egress,
        egress6: None,
        link: a.link,
        task_link: a.task_link,
        ifindex: a.ifindex,
    }
}

fn service(service: Service1) -> Service {
    let port = |p: Port1| PortConfig::new(p.published, p.target, p.protocol);
    Service {
        id: service.id,
        name: service.name,
        networks: service.networks,
        endpoint_mode: service.endpoint_mode,
        ports: service.ports.into_iter().map(port).collect(),
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: DEFAULT_DRAIN_SECS,
        labels: service.labels,
        created_at: service.created_at,
    }
}

fn endpoint(e: Endpoint1) -> Endpoint {
    Endpoint {
        network: e.network,
        node: e.node,
        task: e.task,
        name: e.name,
        service: e.service,
        addresses: e.addresses,
        mac: e.mac,
        local_id: e.local_id,
        generation: e.generation,
        aliases: e.aliases,
        state: e.state,
        weight: 1,
    }
}

#[derive(Serialize, Deserialize)]
struct Tasks1 {
    boot: String,
    tasks: Vec<Task1>,
    generation: Generation,
}

#[derive(Serialize, Deserialize)]
struct Task1 {
    id: TaskId,
    name: Name,
    service: Option<ServiceId>,
    aliases: Vec<Name>,
    namespace: NsRef,
    namespace_id: NsIdentity,
    attachments: Vec<Attachment1>,
}

#[derive(Serialize, Deserialize)]
struct Attachment1 {
    network: NetworkId,
    address: IpAddr,
    fixed: bool,
    mac: Mac,
    local_id: LocalEndpointId,
    generation: Generation,
    egress: Option<Ipv4Addr>,
    link: String,
    task_link: String,
    ifindex: u32,
}

#[derive(Serialize, Deserialize)]
struct View1 {
    view: Cluster1,
    leases: BTreeMap<NetworkId, Vec<IpAddr>>,
    managers: Vec<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
struct Cluster1 {
    cluster: ClusterId,
    version: u64,
    nodes: BTreeMap<NodeId, Node>,
    networks: BTreeMap<NetworkId, Network>,
    services: BTreeMap<ServiceId, Service1>,
    gossip_keys: Vec<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
struct Service1 {
    id: ServiceId,
    name: Name,
    networks: Vec<ServiceNetwork>,
    endpoint_mode: EndpointMode,
    ports: Vec<Port1>,
    labels: BTreeMap<String, String>,
    created_at: u64,
}

#[derive(Serialize, Deserialize)]
struct Port1 {
    published: u16,
    target: u16,
    protocol: Protocol,
    mode: Mode1,
}

#[derive(Serialize, Deserialize)]
enum Mode1 {
    Ingress,
}

#[derive(Serialize, Deserialize)]
struct Endpoint1 {
    network: NetworkId,
    node: NodeId,
    task: TaskId,
    name: Name,
    service: Option<ServiceId>,
    addresses: Vec<IpAddr>,
    mac: Mac,
    local_id: LocalEndpointId,
    generation: Generation,
    aliases: Vec<Name>,
    state: EndpointState,
}

#[cfg(test)]
mod tests;
