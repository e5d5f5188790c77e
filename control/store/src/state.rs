//! The state and what can be read of it.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_ipam::{AddressPool, PortPool, SubnetPool, VniPool};
use mesh_types::{ClusterId, ClusterView, Network, NetworkId, Node, NodeId, Service, ServiceId};
use serde::{Deserialize, Serialize};

use crate::Secrets;

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
    /// Of IPv4 subnets.
    pub subnets: SubnetPool,
    /// Of IPv6 subnets.
    pub subnets6: SubnetPool,
    pub vnis: VniPool,
    pub ports: PortPool<ServiceId>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub networks: BTreeMap<NetworkId, NetworkEntry>,
    pub services: BTreeMap<ServiceId, Service>,
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
    /// A task on this node.
    Lease(NodeId),
}

/// The keys that seal gossip, the first one to send with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GossipKeys(pub Vec<[u8; 32]>);

impl std::fmt::Debug for GossipKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hidden>")
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
            gossip_keys: cluster.gossip_keys.0.clone(),
        })
    }

    /// The addresses that `node` may attach tasks with, in order; no entry for a network on which it has none.
    pub fn leases_of(&self, node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let networks = self.cluster.iter().flat_map(|c| &c.networks);
        networks
            .map(|(id, entry)| (*id, entry.leases_of(node)))
            .filter(|(_, leases)| !leases.is_empty())
            .collect()
    }

    /// What only managers may know; none before [`crate::Command::Init`].
    pub fn secrets(&self) -> Option<&Secrets> {
        self.cluster.as_ref().map(|c| &c.secrets)
    }
}

impl NetworkEntry {
    fn leases_of(&self, node: NodeId) -> Vec<IpAddr> {
        let its_own = AddressUse::Lease(node);
        let held = self.pools.iter().flat_map(AddressPool::held);
        held.filter(|(_, used)| **used == its_own).map(|(address, _)| *address).collect()
    }
}
