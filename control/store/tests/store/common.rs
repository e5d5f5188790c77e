//! Builders of commands, so that tests say only what matters to them.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_store::{
    Command, LeaseChange, NewNetwork, NewService, Rejection, Response, Secrets, Sensitive, ServiceChange,
    State,
};
use mesh_types::{
    Availability, ClusterId, EndpointMode, Name, Network, NetworkId, Node, NodeId, PortConfig, Role, Service,
    ServiceId,
};

pub const INGRESS: NetworkId = NetworkId::from_u128(1000);

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Node `number` is called `n<number>`; only the first is a manager.
pub fn node(number: u8) -> Node {
    let address = IpAddr::from([192, 168, 7, number]);
    Node {
        id: NodeId::from_u128(number.into()),
        name: name(&format!("n{number}")),
        role: if number == 1 { Role::Manager } else { Role::Worker },
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 5,
        version: 0,
    }
}

pub fn init(pool: Option<&str>, ingress_subnet: Option<&str>) -> Command {
    Command::Init {
        cluster: ClusterId::from_u128(7),
        node: node(1),
        secrets: Box::new(Secrets {
            ca_cert_pem: "certificate".into(),
            ca_key_pem: "private key".into(),
            worker_token: [1; 16],
            manager_token: [2; 16],
        }),
        gossip_key: Sensitive([3; 32]),
        pools: pool.iter().map(|net| net.parse().unwrap()).collect(),
        ingress: INGRESS,
        ingress_subnets: ingress_subnet.iter().map(|net| net.parse().unwrap()).collect(),
        ingress_ipv6: false,
        now: 5,
    }
}

/// A cluster of so many nodes.
pub fn cluster(nodes: u8) -> State {
    let mut state = State::default();
    state.apply(init(None, None)).unwrap();
    for number in 2..=nodes {
        state.apply(Command::AddNode(node(number))).unwrap();
    }
    state
}

pub fn new_network(id: u128, text: &str, subnets: &[&str]) -> NewNetwork {
    NewNetwork {
        id: NetworkId::from_u128(id),
        name: name(text),
        subnets: subnets.iter().map(|net| (net.parse().unwrap(), None)).collect(),
        ipv6: false,
        ip_ranges: vec![],
        attachable: true,
        internal: false,
        ingress: false,
        mtu: None,
        labels: BTreeMap::new(),
        now: 6,
        aux_addresses: BTreeMap::new(),
    }
}

pub fn new_service(id: u128, text: &str, networks: &[NetworkId], ports: &[&str]) -> NewService {
    NewService {
        id: ServiceId::from_u128(id),
        name: name(text),
        networks: networks.iter().map(|network| (*network, Vec::new())).collect(),
        endpoint_mode: EndpointMode::Vip,
        ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        affinity: None,
        prefer_local: false,
        drain_timeout_secs: 30,
        health: None,
        labels: BTreeMap::new(),
        now: 6,
    }
}

pub fn create_network(state: &mut State, new: NewNetwork) -> Result<Network, Rejection> {
    match state.apply(Command::CreateNetwork(new))? {
        Response::Network(network) => Ok(network),
        other => panic!("{other:?}"),
    }
}

pub fn create_service(state: &mut State, new: NewService) -> Result<Service, Rejection> {
    match state.apply(Command::CreateService(new))? {
        Response::Service(service) => Ok(service),
        other => panic!("{other:?}"),
    }
}

/// Closes and opens published ports.
pub fn change(service: ServiceId, close: &[&str], open: &[&str]) -> Command {
    let change = ServiceChange {
        remove_ports: close.iter().map(|port| port.parse().unwrap()).collect(),
        add_ports: open.iter().map(|port| port.parse().unwrap()).collect(),
        ..ServiceChange::default()
    };
    Command::UpdateService { service, change }
}

/// Publishes one more port; answers with it as it is then.
pub fn publish(state: &mut State, service: &Service, port: &str) -> Result<PortConfig, Rejection> {
    match state.apply(change(service.id, &[], &[port]))? {
        Response::Service(service) => Ok(*service.ports.last().unwrap()),
        other => panic!("{other:?}"),
    }
}

pub fn lease(state: &mut State, node: u8, network: NetworkId, count: u32) -> Result<Vec<IpAddr>, Rejection> {
    let node = NodeId::from_u128(node.into());
    match state.apply(Command::Lease { node, network, count, family: None })? {
        Response::Leased(addresses) => Ok(addresses),
        other => panic!("{other:?}"),
    }
}

/// A node renews its leases and gives these back.
pub fn give_back(state: &mut State, node: u8, network: NetworkId, addresses: &[IpAddr]) {
    let node = NodeId::from_u128(node.into());
    let change = LeaseChange { returned: addresses.to_vec(), ..LeaseChange::default() };
    let after = state.renewal_of(node).count;
    let renewal = Command::RenewLeases { node, after, changes: [(network, change)].into(), full: false };
    assert!(matches!(state.apply(renewal), Ok(Response::Renewed { done: true, .. })));
}

pub fn lease_address(
    state: &mut State,
    node: u8,
    network: NetworkId,
    address: &str,
) -> Result<Response, Rejection> {
    let node = NodeId::from_u128(node.into());
    state.apply(Command::LeaseAddress { node, network, address: ip(address) })
}

/// Applies, expects a refusal that changes nothing, and gives its text.
pub fn refused(state: &mut State, command: Command) -> String {
    let before = state.encode();
    let text = state.apply(command).unwrap_err().to_string();
    assert_eq!(state.encode(), before, "{text}");
    text
}

#[track_caller]
pub fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}
