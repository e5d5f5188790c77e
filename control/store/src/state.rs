//! The state and what can be read of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_ipam::{AddressPool, PortPool, SubnetPool, VniPool};
use mesh_types::{ClusterId, ClusterView, Network, NetworkId, Node, NodeId, Role, Service, ServiceId};
use serde::{Deserialize, Serialize};

use crate::{Authority, GossipKeys, Secrets, Sensitive};

/// The cluster's decided state. Empty until [`crate::Command::Init`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct State {
    /// Counts the changes.
    pub(crate) version: u64,
    /// The version of the last change that [`State::view`] shows.
    pub(crate) view_version: u64,
    pub(crate) cluster: Option<Box<Cluster>>,
}

/// All that there is once a cluster was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub id: ClusterId,
    pub secrets: Secrets,
    pub gossip_keys: GossipKeys,
    pub authority: Authority,
    /// What managers are unlocked with when they start; none: they are not locked.
    pub unlock_key: Option<Sensitive<[u8; 32]>>,
    /// Of IPv4 subnets.
    pub subnets: SubnetPool,
    /// Of IPv6 subnets.
    pub subnets6: SubnetPool,
    pub vnis: VniPool,
    pub ports: PortPool<ServiceId>,
    pub nodes: BTreeMap<NodeId, Node>,
    /// Nodes that were managers and are not any more: their certificates may still say that they are.
    pub former_managers: BTreeSet<NodeId>,
    pub networks: BTreeMap<NetworkId, NetworkEntry>,
    pub services: BTreeMap<ServiceId, Service>,
    /// Of nodes that ever renewed their leases.
    pub renewals: BTreeMap<NodeId, Renewal>,
    /// What the next renewals are granted, in seconds.
    pub lease_grace_secs: u32,
}

/// How a node's term stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Renewal {
    /// How often the node has renewed its leases, and had them taken back.
    pub count: u64,
    /// How long it must be silent before they are taken back, in seconds.
    pub grace_secs: u32,
}

/// A network and the addresses it gives out, a pool per subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetworkEntry {
    pub network: Network,
    pub pools: Vec<AddressPool<AddressUse>>,
}

/// What an address was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AddressUse {
    /// The virtual address of a service.
    Vip(ServiceId),
    /// This node's, for tasks to come.
    Lease(NodeId),
    /// A task's on this node, as it said.
    Task(NodeId),
    /// Nothing of the mesh's: somebody keeps it out.
    Auxiliary,
}

impl AddressUse {
    /// The node that holds it.
    pub(crate) fn node(self) -> Option<NodeId> {
        match self {
            Self::Vip(_) | Self::Auxiliary => None,
            Self::Lease(node) | Self::Task(node) => Some(node),
        }
    }
}

impl State {
    /// How many commands changed something so far.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The version at which [`State::view`] last changed otherwise than in its version. Leases and secrets are no
    /// part of the view: whoever serves views may skip changes that leave this number and a node's leases alone.
    pub fn view_version(&self) -> u64 {
        self.view_version
    }

    /// The cluster's id; none before [`crate::Command::Init`].
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.as_ref().map(|c| c.id)
    }

    /// The member with this id.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.cluster.as_ref()?.nodes.get(&id)
    }

    /// All members, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.cluster.iter().flat_map(|c| c.nodes.values())
    }

    /// Whether this node was a manager and is none any more, or was removed as one.
    pub fn was_manager(&self, id: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|c| c.former_managers.contains(&id))
    }

    /// The managers, in the order of their ids.
    pub fn managers(&self) -> impl Iterator<Item = &Node> {
        self.nodes().filter(|node| node.role == Role::Manager)
    }

    /// The network with this id.
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        self.cluster.as_ref()?.networks.get(&id).map(|entry| &entry.network)
    }

    /// All networks, in the order of their ids.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.cluster.iter().flat_map(|c| c.networks.values().map(|entry| &entry.network))
    }

    /// The service with this id.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.cluster.as_ref()?.services.get(&id)
    }

    /// All services, in the order of their ids.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.cluster.iter().flat_map(|c| c.services.values())
    }

    /// What every node may know; none before [`crate::Command::Init`]. Its version is [`State::version`].
    pub fn view(&self) -> Option<ClusterView> {
        let cluster = self.cluster.as_ref()?;
        Some(ClusterView {
            cluster: cluster.id,
            version: self.version,
            nodes: cluster.nodes.clone(),
            networks: cluster.networks.iter().map(|(id, entry)| (*id, entry.network.clone())).collect(),
            services: cluster.services.clone(),
            gossip_keys: cluster.gossip_keys.ring.clone(),
            ca_generation: cluster.authority.generation,
        })
    }

    /// The addresses that `node` may attach tasks with, in order; no entry for a network on which it has none.
    pub fn leases_of(&self, node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        self.cluster.as_ref().map(|cluster| cluster.leases_of(node)).unwrap_or_default()
    }

    /// Those of [`State::leases_of`] that tasks use, as the node said.
    pub fn task_addresses_of(&self, node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let networks = self.cluster.iter().flat_map(|c| &c.networks);
        networks
            .map(|(id, entry)| (*id, entry.held_as(|used| used == AddressUse::Task(node))))
            .filter(|(_, addresses)| !addresses.is_empty())
            .collect()
    }

    /// How the term of `node` stands.
    pub fn renewal_of(&self, node: NodeId) -> Renewal {
        self.cluster.as_ref().and_then(|c| c.renewals.get(&node)).copied().unwrap_or_default()
    }

    /// The nodes that hold addresses which no task uses.
    pub fn nodes_with_spare_leases(&self) -> BTreeSet<NodeId> {
        let pools = self.cluster.iter().flat_map(|c| c.networks.values()).flat_map(|entry| &entry.pools);
        let spare = |used: &AddressUse| if let AddressUse::Lease(node) = used { Some(*node) } else { None };
        pools.flat_map(AddressPool::held).filter_map(|(_, used)| spare(used)).collect()
    }

    /// How long a node must be silent before its unused addresses are taken back, in seconds: what is granted from now on.
    pub fn lease_grace_secs(&self) -> u32 {
        self.cluster.as_ref().map_or(crate::DEFAULT_LEASE_GRACE, |c| c.lease_grace_secs)
    }

    /// Whether a network has less left to give than there are nodes: what nobody uses is wanted back.
    pub fn is_scarce(&self, network: NetworkId) -> bool {
        let Some(cluster) = self.cluster.as_ref() else { return false };
        let nodes = cluster.nodes.len() as u128;
        let entry = cluster.networks.get(&network);
        entry.is_some_and(|entry| entry.pools.iter().any(|pool| pool.free() < nodes))
    }

    /// The keys that seal gossip; none before [`crate::Command::Init`].
    pub fn gossip_keys(&self) -> Option<&GossipKeys> {
        self.cluster.as_ref().map(|c| &c.gossip_keys)
    }

    /// Where the cluster's CA stands; none before [`crate::Command::Init`].
    pub fn authority(&self) -> Option<&Authority> {
        self.cluster.as_ref().map(|c| &c.authority)
    }

    /// What managers are unlocked with when they start; none if they are not locked.
    pub fn unlock_key(&self) -> Option<&[u8; 32]> {
        self.cluster.as_ref()?.unlock_key.as_ref().map(|key| &key.0)
    }

    /// What only managers may know; none before [`crate::Command::Init`].
    pub fn secrets(&self) -> Option<&Secrets> {
        self.cluster.as_ref().map(|c| &c.secrets)
    }
}

impl Cluster {
    /// See [`State::leases_of`].
    pub(crate) fn leases_of(&self, node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let leases = self.networks.iter().map(|(id, entry)| (*id, entry.leases_of(node)));
        leases.filter(|(_, leases)| !leases.is_empty()).collect()
    }
}

impl NetworkEntry {
    fn leases_of(&self, node: NodeId) -> Vec<IpAddr> {
        self.held_as(|used| used.node() == Some(node))
    }

    fn held_as(&self, wanted: impl Fn(AddressUse) -> bool) -> Vec<IpAddr> {
        let held = self.pools.iter().flat_map(AddressPool::held);
        held.filter(|(_, used)| wanted(**used)).map(|(address, _)| *address).collect()
    }
}
