//! What can be asked of the state machine, and what it answers.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use mesh_types::{
    Affinity, Availability, ClusterId, EndpointMode, Family, Name, Network, NetworkId, Node, NodeId,
    PortConfig, PortFilter, Role, Service, ServiceId,
};
use serde::{Deserialize, Serialize};

/// A value that must not appear in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sensitive<T>(pub T);

impl<T> fmt::Debug for Sensitive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// What only managers may know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The cluster's root certificate.
    pub ca_cert_pem: String,
    /// Its private key.
    pub ca_key_pem: String,
    /// The secret half of the token that workers join with.
    pub worker_token: [u8; 16],
    /// The secret half of the token that managers join with.
    pub manager_token: [u8; 16],
}

impl Secrets {
    /// The secret half of the token for `role`.
    pub fn token(&self, role: Role) -> &[u8; 16] {
        match role {
            Role::Worker => &self.worker_token,
            Role::Manager => &self.manager_token,
        }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// A new network, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewNetwork {
    /// A fresh random id.
    pub id: NetworkId,
    /// Its name.
    pub name: Name,
    /// Its subnets, at most one per family, each with the gateway asked for; empty: the next free one of the cluster's
    /// IPv4 pool.
    pub subnets: Vec<(IpNet, Option<IpAddr>)>,
    /// If there is no IPv6 subnet among them, the next free one of the cluster's IPv6 pool too.
    pub ipv6: bool,
    /// Parts of the subnets that addresses are given out of, at most one per family; addresses asked for by number may
    /// lie outside.
    pub ip_ranges: Vec<IpNet>,
    /// Free-standing tasks may join.
    pub attachable: bool,
    /// No way out of the network.
    pub internal: bool,
    /// The one network that carries published ports.
    pub ingress: bool,
    /// The tasks' MTU in bytes; follows the uplink unless set.
    pub mtu: Option<u16>,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// A new service, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewService {
    /// A fresh random id.
    pub id: ServiceId,
    /// Its name.
    pub name: Name,
    /// Its networks, each with the service's further names there; empty: the ingress network.
    pub networks: Vec<(NetworkId, Vec<Name>)>,
    /// How its name is answered.
    pub endpoint_mode: EndpointMode,
    /// Its published ports; 0 asks for a free one.
    pub ports: Vec<PortConfig>,
    /// What keeps a client with one task.
    pub affinity: Option<Affinity>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: bool,
    /// How long a draining task may keep its flows, in seconds.
    pub drain_timeout_secs: u32,
    /// Free text by key.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
}

/// What to change of a node; `None` leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeChange {
    /// A new name.
    pub name: Option<Name>,
    /// Another role.
    pub role: Option<Role>,
    /// Another address for manager API and gossip.
    pub advertise_addr: Option<IpAddr>,
    /// Another address for VXLAN.
    pub data_path_addr: Option<IpAddr>,
    /// Whether it takes tasks.
    pub availability: Option<Availability>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
}

/// What to change of a service; `None` leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServiceChange {
    /// Another affinity, or none.
    pub affinity: Option<Option<Affinity>>,
    /// Whether nodes send to their own tasks first.
    pub prefer_local: Option<bool>,
    /// How long a draining task may keep its flows, in seconds.
    pub drain_timeout_secs: Option<u32>,
    /// Ports to close: all that fit one of these. One that fits nothing refuses the whole change.
    pub remove_ports: Vec<PortFilter>,
    /// Ports to publish after that; 0 asks for a free one.
    pub add_ports: Vec<PortConfig>,
    /// Labels to set.
    pub set_labels: BTreeMap<String, String>,
    /// Labels to take away.
    pub remove_labels: Vec<String>,
}

/// A change of the cluster's state. Time and randomness come inside, so that every manager computes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes the cluster with its first manager and its ingress network. Answers [`Response::Node`].
    Init {
        /// A fresh random id.
        cluster: ClusterId,
        /// The first manager.
        node: Node,
        /// CA and tokens.
        secrets: Box<Secrets>,
        /// The key that seals gossip.
        gossip_key: Sensitive<[u8; 32]>,
        /// Where subnets come from when none is asked for, at most one per family; [`mesh_types::DEFAULT_POOL`] and
        /// [`mesh_types::DEFAULT_POOL6`] unless set.
        pools: Vec<IpNet>,
        /// A fresh random id for the ingress network.
        ingress: NetworkId,
        /// The ingress network's subnets; the first of the IPv4 pool unless set.
        ingress_subnets: Vec<IpNet>,
        /// Whether the ingress network has IPv6, out of the pool unless its subnet is set.
        ingress_ipv6: bool,
        /// Seconds since 1970-01-01 UTC.
        now: u64,
    },
    /// Adds a member. Answers [`Response::Node`].
    AddNode(Node),
    /// Takes a member out and frees its leases. Answers [`Response::Done`].
    RemoveNode(NodeId),
    /// Changes a member. Answers [`Response::Node`].
    UpdateNode {
        /// The node.
        node: NodeId,
        /// What to change.
        change: NodeChange,
    },
    /// Answers [`Response::Network`].
    CreateNetwork(NewNetwork),
    /// Takes a network away with all leases on it. Answers [`Response::Done`].
    RemoveNetwork(NetworkId),
    /// Answers [`Response::Service`].
    CreateService(NewService),
    /// Takes a service away with its virtual addresses and ports. Answers [`Response::Done`].
    RemoveService(ServiceId),
    /// Changes a service, its published ports among them. Answers [`Response::Service`].
    UpdateService {
        /// The service.
        service: ServiceId,
        /// What to change.
        change: ServiceChange,
    },
    /// Gives a node addresses to attach tasks with. Answers [`Response::Leased`] with one or more, often fewer than
    /// asked for (see [`crate::MAX_LEASE`]).
    Lease {
        /// To whom.
        node: NodeId,
        /// On which network.
        network: NetworkId,
        /// How many are wanted; 0 counts as 1.
        count: u32,
        /// Of which family; none: so many of each that the network has, or none at all.
        family: Option<Family>,
    },
    /// Gives a node this very address. Answers [`Response::Leased`]; again for an address it holds already.
    LeaseAddress {
        /// To whom.
        node: NodeId,
        /// On which network.
        network: NetworkId,
        /// Which.
        address: IpAddr,
    },
    /// Gives addresses back. Those the node does not hold (any more) are passed over, so that it may be said twice.
    /// Answers [`Response::Returned`].
    ReturnLease {
        /// By whom.
        node: NodeId,
        /// On which network.
        network: NetworkId,
        /// Which.
        addresses: Vec<IpAddr>,
    },
    /// Replaces the token that nodes of a role join with. Answers [`Response::Done`].
    RotateJoinToken {
        /// Whose token.
        role: Role,
        /// The new secret half.
        secret: Sensitive<[u8; 16]>,
    },
}

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Nothing to say.
    Done,
    /// The node as it is now.
    Node(Node),
    /// The network made.
    Network(Network),
    /// The service as it is now.
    Service(Service),
    /// The addresses that the node got.
    Leased(Vec<IpAddr>),
    /// The addresses that were freed.
    Returned(Vec<IpAddr>),
}
