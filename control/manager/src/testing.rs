//! A cluster's state, for tests.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_store::{Command, Secrets, Sensitive, State};
use mesh_types::{Availability, ClusterId, NetworkId, Node, NodeId, Role};

/// The first manager.
pub(crate) const NODE: NodeId = NodeId::from_u128(1);

/// A cluster of one manager.
pub(crate) fn state() -> State {
    let address = IpAddr::from([127, 0, 0, 1]);
    let node = Node {
        id: NODE,
        name: "first".parse().unwrap(),
        role: Role::Manager,
        advertise_addr: address,
        data_path_addr: address,
        availability: Availability::Active,
        labels: BTreeMap::new(),
        joined_at: 0,
        version: 0,
    };
    let secrets = Secrets {
        ca_cert_pem: String::new(),
        ca_key_pem: String::new(),
        worker_token: [0; 16],
        manager_token: [0; 16],
    };
    let mut state = State::default();
    let init = Command::Init {
        cluster: ClusterId::from_u128(1),
        node,
        secrets: Box::new(secrets),
        gossip_key: Sensitive([0; 32]),
        pools: vec![],
        ingress: NetworkId::from_u128(1),
        ingress_subnets: vec![],
        ingress_ipv6: false,
        now: 0,
    };
    state.apply(init).unwrap();
    state
}
