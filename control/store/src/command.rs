//! What can be asked of the state machine, and what it answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use mesh_types::{
    Availability, ClusterId, Family, Name, Network, NetworkId, Node, NodeId, Role, Service, ServiceId,
};
use serde::{Deserialize, Serialize};

use crate::{NewRoot, OLDEST_FORMAT, State};

mod lease;
mod network;
mod service;

pub use lease::LeaseChange;
pub use network::{NetworkChange, NewNetwork};
pub use service::{AliasChange, NewService, ServiceChange};

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

/// What to change of a node; `None` leaves a thing as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeChange {
    /// Refuse the change unless the node has this version.
    pub expected_version: Option<u64>,
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

/// What can be removed only if nobody has changed it since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Removable {
    /// A network.
    Network(NetworkId),
    /// A service.
    Service(ServiceId),
    /// A node. Of format 5 on.
    Node(NodeId),
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
    /// Makes the cluster anew from what it had decided before, for managers that were lost. Answers [`Response::Done`].
    Restore(Box<State>),
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
    /// Changes a network. Answers [`Response::Network`].
    UpdateNetwork {
        /// The network.
        network: NetworkId,
        /// What to change.
        change: NetworkChange,
    },
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
    /// A node says what it does with its leases, and begins its term anew: within it, it may give addresses that no task
    /// uses to tasks without asking (see `docs/adr/0010-leases.md`). Answers [`Response::Renewed`].
    RenewLeases {
        /// Which node.
        node: NodeId,
        /// How often it had renewed before, as it knows; anything else changes nothing. So what is delayed on its way, or
        /// said twice, has no effect.
        after: u64,
        /// What changed, by network. Networks that are no more are passed over.
        changes: BTreeMap<NetworkId, LeaseChange>,
        /// Whether it wants to know all that it holds.
        full: bool,
    },
    /// Takes the addresses that no task uses from a node that is silent. Changes nothing if it has renewed since. Answers
    /// [`Response::Returned`].
    TakeBackLeases {
        /// Which node.
        node: NodeId,
        /// How often it had renewed when it fell silent.
        after: u64,
    },
    /// How long a node must be silent before its unused addresses are taken back; nodes get it with their next renewal.
    /// Answers [`Response::Done`].
    SetLeaseGrace {
        /// Seconds, at least [`crate::MIN_LEASE_GRACE`].
        secs: u32,
    },
    /// Replaces the token that nodes of a role join with. Answers [`Response::Done`].
    RotateJoinToken {
        /// Whose token.
        role: Role,
        /// The new secret half.
        secret: Sensitive<[u8; 16]>,
    },
    /// Begins to replace the CA's root. It ends by itself when every node has a new certificate. Answers
    /// [`Response::Done`].
    RotateCa(Box<NewRoot>),
    /// A node was seen with a certificate of this generation of the CA. Answers [`Response::Done`].
    CertificateInUse {
        /// The node.
        node: NodeId,
        /// What its certificate says.
        generation: u64,
    },
    /// Changes settings of the cluster; `None` leaves one as it is. Answers [`Response::Done`].
    UpdateCluster {
        /// How long certificates made from now on are valid, in seconds.
        cert_validity_secs: Option<u64>,
        /// What managers are unlocked with when they start; none: they are not locked.
        unlock_key: Option<Option<Sensitive<[u8; 32]>>>,
    },
    /// Begins to replace the key that seals gossip. Answers [`Response::Done`].
    RotateGossipKeys {
        /// The next key.
        fresh: Sensitive<[u8; 32]>,
        /// The version of the ring as it was seen, [`crate::GossipKeys::version`]; anything else is refused.
        after: u64,
    },
    /// Takes the change of the ring a step further. Answers [`Response::Done`].
    StepGossipKeys {
        /// The version of the ring as it was seen; anything else is refused.
        after: u64,
        /// Seconds since 1970-01-01 UTC.
        now: u64,
    },
    /// Nodes say that they have the ring of this version. Answers [`Response::Done`].
    GossipKeysInUse {
        /// The ring's version; nothing is noted of any but the present one.
        version: u64,
        /// Which nodes.
        nodes: BTreeSet<NodeId>,
    },
    /// How long a gossip key is sent with. Answers [`Response::Done`].
    SetGossipRotation {
        /// Seconds, from [`crate::MIN_GOSSIP_ROTATION`] to [`crate::MAX_GOSSIP_ROTATION`]; 0: until somebody asks for
        /// another or a node is removed.
        secs: u64,
    },
    /// Removes it, unless it has another version. Answers [`Response::Done`].
    RemoveUnchanged {
        /// What to remove.
        object: Removable,
        /// The version that it must have.
        version: u64,
    },
    /// From here on commands of this format may be decided: every manager reads it. Of format 5 on. Answers
    /// [`Response::Done`].
    RaiseFormat {
        /// The format; one that is agreed already, or a lower one, changes nothing.
        format: u8,
    },
}

impl Command {
    /// The first format that knows this command. Managers that read only older ones cannot take it out of the log.
    pub fn format(&self) -> u8 {
        match self {
            Self::RaiseFormat { format } => *format,
            Self::RemoveUnchanged { object: Removable::Node(_), .. } => 5,
            _ => OLDEST_FORMAT,
        }
    }
}

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Nothing to say.
    Done,
    /// The node as it is now.
    Node(Node),
    /// The network as it is now.
    Network(Network),
    /// The service as it is now.
    Service(Service),
    /// The addresses that the node got.
    Leased(Vec<IpAddr>),
    /// The addresses that were freed.
    Returned(Vec<IpAddr>),
    /// How a node's leases stand.
    Renewed {
        /// How often it has renewed; one more than before if this was done.
        renewal: u64,
        /// Whether it was done; else the node did not know how often it had renewed.
        done: bool,
        /// How long it must be silent from now on before its unused addresses are taken back, in seconds.
        grace_secs: u32,
        /// Addresses that it said tasks use, and that are others'.
        lost: Vec<(NetworkId, IpAddr)>,
        /// All that it holds, if it asked and it was done.
        held: Option<BTreeMap<NetworkId, Vec<IpAddr>>>,
        /// The state's version after that.
        version: u64,
    },
}
