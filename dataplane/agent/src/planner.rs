//! The pure planner: from what is decided and what runs to what the data path holds and gossip tells.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use mesh_gossip::{Announcement, Interest};
use mesh_lb::{
    Backend, BackendKey, Desired, EndpointEntry, Frontend, LocalEntry, NetworkEntry, NetworkPlan,
    NodeSettings, PeerEntry, PublishedOn, ServiceEntry, ServicePlan,
};
use mesh_types::{
    ClusterView, Endpoint, EndpointMode, EndpointState, Network, NetworkId, NodeId, Role, Service, ServiceId, Vni,
};

use crate::LocalTask;

/// Endpoints by table: the network itself, or the ingress network for those that published ports lead to.
pub type Tables = BTreeMap<NetworkId, Vec<Endpoint>>;

/// Everything that a plan follows from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// This node.
    pub node: NodeId,
    /// Its interfaces.
    pub settings: NodeSettings,
    /// Its addresses on which published ports are open.
    pub host_addresses: &'a BTreeSet<IpAddr>,
    /// What the managers decided.
    pub view: &'a ClusterView,
    /// The tasks of this node.
    pub tasks: &'a [LocalTask],
    /// The endpoints of all nodes, from [`tables`].
    pub tables: &'a Tables,
}

/// The endpoints of the others, and this node's from its own tasks, which it knows best.
pub fn tables(node: NodeId, view: &ClusterView, tasks: &[LocalTask], remote: &Tables) -> Tables {
    let mut all = remote.clone();
    all.values_mut().for_each(|endpoints| endpoints.retain(|e| e.node != node));
    for Announcement { scope, endpoint } in announcements(node, view, tasks) {
        all.entry(scope).or_default().push(endpoint);
    }
    all
}

/// What the data path should hold.
pub fn plan(inputs: &Inputs<'_>) -> Desired {
    let mut desired = Desired::new(inputs.settings);
    desired.host_addresses = inputs.host_addresses.clone();
    let others = inputs.view.nodes.values().filter(|n| n.id != inputs.node);
    desired.peers = others.map(|n| (n.data_path_addr, PeerEntry::default())).collect();
    let local_networks: BTreeSet<_> = networks_of(inputs.tasks).collect();
    for network in local_networks.iter().filter_map(|id| inputs.view.networks.get(id)) {
        plan_network(inputs, network, &mut desired);
    }
    plan_local(inputs, &mut desired);
    for service in inputs.view.services.values() {
        let mut frontends = BTreeMap::new();
        plan_vips(inputs, service, &local_networks, &mut frontends);
        plan_ports(inputs, service, &mut frontends);
        if !frontends.is_empty() {
            let plan = ServicePlan { number: number_of(service.id), frontends };
            desired.services.insert(service.id, Arc::new(plan));
        }
    }
    desired
}

/// A number that is the same on every node, and different for nearly all services.
fn number_of(service: ServiceId) -> u32 {
    let id = service.as_u128();
    (id ^ (id >> 32) ^ (id >> 64) ^ (id >> 96)) as u32
}

fn networks_of(tasks: &[LocalTask]) -> impl Iterator<Item = NetworkId> + '_ {
    tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.network))
}

fn plan_network(inputs: &Inputs<'_>, network: &Network, desired: &mut Desired) {
    let subnet = |v4: bool| network.subnets.iter().find(|s| s.net().addr().is_ipv4() == v4).copied();
    let entry = NetworkEntry { v4: subnet(true), v6: subnet(false), internal: network.internal };
    let mut endpoints = BTreeMap::new();
    for endpoint in endpoints_on(inputs, network.id, network.id) {
        let Some(place) = place_of(inputs, endpoint) else { continue };
        for &address in &endpoint.addresses {
            let entry = EndpointEntry { vtep: place.vtep, mac: endpoint.mac, ifindex: place.ifindex };
            endpoints.insert(address, entry);
        }
    }
    desired.networks.insert(network.vni, Arc::new(NetworkPlan { entry, endpoints }));
}

/// Where an endpoint is; none while its node is not known.
struct Place {
    vtep: IpAddr,
    ifindex: Option<u32>,
}

fn place_of(inputs: &Inputs<'_>, endpoint: &Endpoint) -> Option<Place> {
    let vtep = inputs.view.nodes.get(&endpoint.node)?.data_path_addr;
    if endpoint.node != inputs.node {
        return Some(Place { vtep, ifindex: None });
    }
    let attachments = inputs.tasks.iter().flat_map(|t| &t.attachments);
    let ifindex = attachments.into_iter().find(|a| a.local_id == endpoint.local_id)?.ifindex;
    Some(Place { vtep, ifindex: Some(ifindex) })
}

/// The endpoints in the table of `scope` that are on `network`.
fn endpoints_on<'a>(
    inputs: &Inputs<'a>,
    scope: NetworkId,
    network: NetworkId,
) -> impl Iterator<Item = &'a Endpoint> {
    inputs.tables.get(&scope).into_iter().flatten().filter(move |e| e.network == network)
}

fn plan_local(inputs: &Inputs<'_>, desired: &mut Desired) {
    let attachments = inputs.tasks.iter().flat_map(|t| t.attachments.iter().map(move |a| (t, a)));
    for (task, attachment) in attachments {
        let Some(network) = inputs.view.networks.get(&attachment.network) else { continue };
        let entry = LocalEntry {
            vni: network.vni,
            v4: match attachment.address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            },
            v6: match attachment.address {
                IpAddr::V4(_) => None,
                IpAddr::V6(v6) => Some(v6),
            },
            mac: attachment.mac,
            ifindex: attachment.ifindex,
            generation: attachment.generation,
            egress4: attachment.egress,
            egress6: None,
            served: task.service.is_some(),
        };
        desired.local.insert(attachment.local_id, entry);
    }
}

/// What clients of one service speak to.
type Frontends = BTreeMap<Frontend, ServiceEntry>;

fn plan_vips(
    inputs: &Inputs<'_>,
    service: &Service,
    local: &BTreeSet<NetworkId>,
    frontends: &mut Frontends,
) {
    if service.endpoint_mode != EndpointMode::Vip {
        return;
    }
    for member in service.networks.iter().filter(|n| local.contains(&n.network)) {
        let Some(network) = inputs.view.networks.get(&member.network) else { continue };
        let endpoints = endpoints_on(inputs, network.id, network.id);
        let backends = backends(inputs, service, network.vni, endpoints);
        for &address in &member.vips {
            let frontend = Frontend::Vip { vni: network.vni, address };
            frontends.insert(frontend, entry(None, &backends));
        }
    }
}

fn plan_ports(inputs: &Inputs<'_>, service: &Service, frontends: &mut Frontends) {
    if service.ports.is_empty() {
        return;
    }
    let (Some(ingress), Some(network)) = (ingress_network(inputs.view), published_on(inputs.view, service))
    else {
        return;
    };
    let endpoints = endpoints_on(inputs, ingress, network.id);
    let backends = backends(inputs, service, network.vni, endpoints);
    for port in &service.ports {
        let frontend = Frontend::Published {
            on: PublishedOn::AnyV4,
            port: port.published,
            protocol: port.protocol,
        };
        frontends.insert(frontend, entry(Some(port.target), &backends));
    }
}

fn entry(target_port: Option<u16>, backends: &[Backend]) -> ServiceEntry {
    ServiceEntry { affinity: None, direct: false, target_port, backends: backends.to_vec() }
}

fn backends<'a>(
    inputs: &Inputs<'_>,
    service: &Service,
    vni: Vni,
    endpoints: impl Iterator<Item = &'a Endpoint>,
) -> Vec<Backend> {
    let backend = |endpoint: &Endpoint| {
        let place = place_of(inputs, endpoint)?;
        Some(Backend {
            key: BackendKey(endpoint.task, endpoint.network),
            vni,
            address: *endpoint.addresses.first()?,
            vtep: place.vtep,
            ifindex: place.ifindex,
            endpoint: endpoint.local_id,
            generation: endpoint.generation,
            draining: endpoint.state == EndpointState::Draining,
            weight: 1,
        })
    };
    endpoints.filter(|e| e.service == Some(service.id)).filter_map(backend).collect()
}

/// The network whose table carries the endpoints of published ports to every node.
pub fn ingress_network(view: &ClusterView) -> Option<NetworkId> {
    view.networks.values().find(|n| n.ingress).map(|n| n.id)
}

/// The network over which the published ports of a service reach its tasks: the one that holds their default route.
pub fn published_on<'a>(view: &'a ClusterView, service: &Service) -> Option<&'a Network> {
    let networks = || service.networks.iter().filter_map(|n| view.networks.get(&n.network));
    networks().find(|n| !n.internal).or_else(|| networks().next())
}

/// What this node tells the others: each endpoint in the table of its network, and those that published ports lead to
/// also in the table of the ingress network, which every node has.
pub fn announcements(node: NodeId, view: &ClusterView, tasks: &[LocalTask]) -> Vec<Announcement> {
    let mut all = Vec::new();
    for task in tasks {
        let service = task.service.and_then(|s| view.services.get(&s));
        let published =
            service.filter(|s| !s.ports.is_empty()).and_then(|s| published_on(view, s)).map(|n| n.id);
        for endpoint in task.endpoints(node) {
            if let Some(ingress) = ingress_network(view)
                && published == Some(endpoint.network)
                && ingress != endpoint.network
            {
                all.push(Announcement { scope: ingress, endpoint: endpoint.clone() });
            }
            all.push(Announcement { scope: endpoint.network, endpoint });
        }
    }
    all
}

/// The tables this node wants: those of its tasks' networks, of tasks that are just being attached, and the ingress
/// network's; a manager answers questions about every task, so it wants all.
pub fn interest(
    node: NodeId,
    view: &ClusterView,
    tasks: &[LocalTask],
    attaching: &BTreeSet<NetworkId>,
) -> Interest {
    if view.nodes.get(&node).is_some_and(|n| n.role == Role::Manager) {
        return Interest::All;
    }
    let networks = networks_of(tasks).chain(attaching.iter().copied());
    Interest::Networks(networks.chain(ingress_network(view)).collect())
}

/// The first address of the pool that stands for sandboxes outside, plus the endpoint's id.
pub fn egress_address(id: u32) -> Option<Ipv4Addr> {
    let (first, prefix) = mesh_lb::EGRESS_POOL;
    let size = 1u32 << (32 - u32::from(prefix));
    (id > 0 && id < size - 1).then(|| Ipv4Addr::from(u32::from_be_bytes(first) + id))
}

#[cfg(test)]
mod tests;
