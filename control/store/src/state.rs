//! The state and what can be read of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use mesh_ipam::{AddressPool, PortPool, SubnetPool, VniPool};
use mesh_types::{
    ClusterId, ClusterView, Network, NetworkId, Node, NodeId, Role, Service, ServiceId, SharedMap, ViewChange,
};
use serde::{Deserialize, Serialize};

use crate::{Authority, GossipKeys, OLDEST_FORMAT, Secrets, Sensitive};

/// The cluster's decided state. Empty until [`crate::Command::Init`]. Copies share what did not change between them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// What all managers read. It is the first byte of the state's bytes, and none of a command that holds a state: a cluster
    /// that is made anew agrees anew.
    #[serde(skip, default = "oldest")]
    pub(crate) format: u8,
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
    pub nodes: SharedMap<NodeId, Arc<Node>>,
    /// Nodes that were managers and are not any more: their certificates may still say that they are.
    pub former_managers: BTreeSet<NodeId>,
    pub networks: SharedMap<NetworkId, Arc<Network>>,
    /// Of each network.
    pub pools: SharedMap<NetworkId, Arc<Pools>>,
    pub services: SharedMap<ServiceId, Arc<Service>>,
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

/// The addresses that a network gives out, a pool per subnet.
pub(crate) type Pools = Vec<AddressPool<AddressUse>>;

/// A network and its addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetworkEntry<'a> {
    pub network: &'a Network,
    pub pools: &'a Pools,
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

impl Default for State {
    fn default() -> Self {
        Self { format: OLDEST_FORMAT, version: 0, view_version: 0, cluster: None }
    }
}

fn oldest() -> u8 {
    OLDEST_FORMAT
}

impl State {
    /// The format that all managers read: later commands ([`crate::Command::format`]) may not be decided yet.
    pub fn format(&self) -> u8 {
        self.format
    }

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
        self.cluster.as_ref()?.nodes.get(&id).map(AsRef::as_ref)
    }

    /// All members, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.cluster.iter().flat_map(|c| c.nodes.values()).map(AsRef::as_ref)
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
        self.cluster.as_ref()?.networks.get(&id).map(AsRef::as_ref)
    }

    /// All networks, in the order of their ids.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.cluster.iter().flat_map(|c| c.networks.values()).map(AsRef::as_ref)
    }

    /// The service with this id.
    pub fn service(&self, id: ServiceId) -> Option<&Service> {
        self.cluster.as_ref()?.services.get(&id).map(AsRef::as_ref)
    }

    /// All services, in the order of their ids.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.cluster.iter().flat_map(|c| c.services.values()).map(AsRef::as_ref)
    }

    /// What every node may know; none before [`crate::Command::Init`]. Its version is [`State::version`].
    pub fn view(&self) -> Option<ClusterView> {
        let cluster = self.cluster.as_ref()?;
        Some(ClusterView {
            nodes: whole(&cluster.nodes),
            networks: whole(&cluster.networks),
            services: whole(&cluster.services),
            ..self.view_without_objects()?
        })
    }

    /// What makes the view of `newer` of this state's; none if either has none, or they are of different clusters. Costs
    /// what changed, if one is a changed copy of the other.
    pub fn view_change(&self, newer: &Self) -> Option<ViewChange> {
        let (before, after) = (self.cluster.as_ref()?, newer.cluster.as_ref()?);
        let (nodes, removed_nodes) = difference(&before.nodes, &after.nodes);
        let (networks, removed_networks) = difference(&before.networks, &after.networks);
        let (services, removed_services) = difference(&before.services, &after.services);
        let now = ClusterView { nodes, networks, services, ..newer.view_without_objects()? };
        let change =
            ViewChange { from: self.version, now, removed_nodes, removed_networks, removed_services };
        (before.id == after.id).then_some(change)
    }

    fn view_without_objects(&self) -> Option<ClusterView> {
        let cluster = self.cluster.as_ref()?;
        Some(ClusterView {
            cluster: cluster.id,
            version: self.version,
            nodes: BTreeMap::new(),
            networks: BTreeMap::new(),
            services: BTreeMap::new(),
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
        let held = |cluster: &Cluster| cluster.held_as(|used| used == AddressUse::Task(node));
        self.cluster.as_deref().map(held).unwrap_or_default()
    }

    /// Whether `node` holds other addresses here than in `newer`. Costs what changed, if one is a changed copy of the other.
    pub fn leases_differ(&self, newer: &Self, node: NodeId) -> bool {
        let (Some(before), Some(after)) = (&self.cluster, &newer.cluster) else { return true };
        let its_own = |used: Option<&AddressUse>| used.is_some_and(|used| used.node() == Some(node));
        before.pools.changes(&after.pools).any(|(_, before, after)| {
            let held = |pools: Option<&Arc<Pools>>, at: usize| {
                pools.and_then(|pools| pools.get(at)).map(|pool| pool.held().clone()).unwrap_or_default()
            };
            let count = [before, after].into_iter().flatten().map(|pools| pools.len()).max().unwrap_or(0);
            (0..count).any(|at| {
                let (before, after) = (held(before, at), held(after, at));
                before.changes(&after).any(|(_, before, after)| its_own(before) != its_own(after))
            })
        })
    }

    /// How the term of `node` stands.
    pub fn renewal_of(&self, node: NodeId) -> Renewal {
        self.cluster.as_ref().and_then(|c| c.renewals.get(&node)).copied().unwrap_or_default()
    }

    /// The nodes that hold addresses which no task uses.
    pub fn nodes_with_spare_leases(&self) -> BTreeSet<NodeId> {
        let pools = self.cluster.iter().flat_map(|c| c.pools.values()).flat_map(|pools| pools.iter());
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
        let pools = cluster.pools.get(&network);
        pools.is_some_and(|pools| pools.iter().any(|pool| pool.free() < nodes))
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

fn whole<K: Ord + Copy, V: Clone>(objects: &SharedMap<K, Arc<V>>) -> BTreeMap<K, V> {
    objects.iter().map(|(id, object)| (*id, V::clone(object))).collect()
}

/// What is new or other in `newer`, and what is not there any more.
fn difference<K: Ord + Copy, V: Clone + Eq>(
    older: &SharedMap<K, Arc<V>>,
    newer: &SharedMap<K, Arc<V>>,
) -> (BTreeMap<K, V>, Vec<K>) {
    let (mut set, mut removed) = (BTreeMap::new(), Vec::new());
    for (id, _, now) in older.changes(newer) {
        match now {
            Some(now) => drop(set.insert(*id, V::clone(now))),
            None => removed.push(*id),
        }
    }
    (set, removed)
}

impl Cluster {
    /// See [`State::leases_of`].
    pub(crate) fn leases_of(&self, node: NodeId) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        self.held_as(|used| used.node() == Some(node))
    }

    fn held_as(&self, wanted: impl Fn(AddressUse) -> bool) -> BTreeMap<NetworkId, Vec<IpAddr>> {
        let of_pools = |pools: &Pools| {
            let held = pools.iter().flat_map(AddressPool::held);
            held.filter(|(_, used)| wanted(**used)).map(|(address, _)| *address).collect::<Vec<_>>()
        };
        let held = self.pools.iter().map(|(id, pools)| (*id, of_pools(pools)));
        held.filter(|(_, addresses)| !addresses.is_empty()).collect()
    }

    /// The network with its addresses.
    pub(crate) fn entry(&self, id: NetworkId) -> Option<NetworkEntry<'_>> {
        Some(NetworkEntry { network: self.networks.get(&id)?, pools: self.pools.get(&id)? })
    }

    /// The addresses of a network, to be changed.
    pub(crate) fn pools_mut(&mut self, id: NetworkId) -> &mut [AddressPool<AddressUse>] {
        self.pools.get_mut(&id).map_or(&mut [], |pools| Arc::make_mut(pools).as_mut_slice())
    }

    /// Frees all that anybody holds as one of `uses`. Networks without any stay shared with other copies of the state.
    pub(crate) fn release_everywhere(&mut self, uses: &[AddressUse]) {
        let any =
            |pools: &Pools| pools.iter().flat_map(AddressPool::held).any(|(_, used)| uses.contains(used));
        let networks = self.pools.iter().filter(|(_, pools)| any(pools)).map(|(id, _)| *id);
        for id in networks.collect::<Vec<_>>() {
            for pool in self.pools_mut(id) {
                for used in uses {
                    pool.release_all(used);
                }
            }
        }
    }
}
