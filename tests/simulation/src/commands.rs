//! The commands that simulated clients propose.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use mesh_store::{
    Command, NewNetwork, NewService, NodeChange, Removable, Secrets, Sensitive, ServiceChange, State,
};
use mesh_types::{
    Availability, ClusterId, DEFAULT_DRAIN_SECS, EndpointMode, NetworkId, Node, NodeId, Role, ServiceId,
};

/// The label that holds a service's value.
const VALUE: &str = "value";

/// The network that services and leases are on.
pub const NETWORK: NetworkId = NetworkId::from_u128(2);

/// The service of a key.
pub fn service(key: usize) -> ServiceId {
    ServiceId::from_u128(1000 + key as u128)
}

/// Node `id`, known as `number`.
fn node(id: NodeId, number: u8, role: Role) -> Result<Node> {
    let address = std::net::IpAddr::from([192, 168, 0, number]);
    Ok(Node {
        id,
        name: format!("n{number}").parse().context("a node's name")?,
        role,
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    })
}

/// Makes the cluster.
pub fn init(first: NodeId) -> Result<Command> {
    Ok(Command::Init {
        cluster: ClusterId::from_u128(1),
        node: node(first, 1, Role::Manager)?,
        secrets: Box::new(Secrets {
            ca_cert_pem: String::new(),
            ca_key_pem: String::new(),
            worker_token: [1; 16],
            manager_token: [2; 16],
        }),
        gossip_key: Sensitive([3; 32]),
        pools: vec![],
        ingress: NetworkId::from_u128(1),
        ingress_subnets: vec![],
        ingress_ipv6: false,
        now: 0,
    })
}

/// Adds a member.
pub fn add_node(id: NodeId, number: u8, role: Role) -> Result<Command> {
    Ok(Command::AddNode(node(id, number, role)?))
}

/// Makes the network of [`NETWORK`], small enough to be used up.
pub fn network() -> Result<Command> {
    Ok(Command::CreateNetwork(NewNetwork {
        id: NETWORK,
        name: "net".parse().context("a network's name")?,
        subnets: vec![("10.9.0.0/27".parse().context("a subnet")?, None)],
        ipv6: false,
        ip_ranges: vec![],
        aux_addresses: BTreeMap::new(),
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        now: 0,
    }))
}

/// Makes the service of a key.
pub fn create(key: usize) -> Result<Command> {
    Ok(Command::CreateService(NewService {
        id: service(key),
        name: format!("s{key}").parse().context("a service's name")?,
        networks: vec![(NETWORK, vec![])],
        endpoint_mode: EndpointMode::Vip,
        ports: vec![],
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: DEFAULT_DRAIN_SECS,
        health: None,
        labels: BTreeMap::new(),
        now: 0,
    }))
}

/// Gives the service of a key a value.
pub fn write(key: usize, value: u64) -> Command {
    let set_labels = BTreeMap::from([(VALUE.to_owned(), value.to_string())]);
    Command::UpdateService {
        service: service(key),
        change: ServiceChange { set_labels, ..ServiceChange::default() },
    }
}

/// The value of a key: none if its service is not there, 0 if nothing was written.
pub fn value(state: &State, key: usize) -> Option<u64> {
    let labels = &state.service(service(key))?.labels;
    Some(labels.get(VALUE).and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Sets a label of a node.
pub fn mark(node: NodeId, mark: &str) -> Command {
    let set_labels = BTreeMap::from([(mark.to_owned(), String::new())]);
    Command::UpdateNode { node, change: NodeChange { set_labels, ..NodeChange::default() } }
}

/// Removes a node if it has this version: what the version before does not know.
pub fn remove_unchanged(node: NodeId, version: u64) -> Command {
    Command::RemoveUnchanged { object: Removable::Node(node), version }
}

/// Makes a node a manager or a worker.
pub fn set_role(node: NodeId, role: Role) -> Command {
    Command::UpdateNode { node, change: NodeChange { role: Some(role), ..NodeChange::default() } }
}
