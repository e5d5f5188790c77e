//! What this node tells the others, and what it wants to be told.

use std::collections::BTreeSet;

use mesh_gossip::{Announcement, Interest};
use mesh_types::{ClusterView, Network, NetworkId, NodeId, PublishMode, Role, Service};

use super::Family;
use crate::LocalTask;

/// The network whose table carries the endpoints of published ports to every node.
pub fn ingress_network(view: &ClusterView) -> Option<NetworkId> {
    view.networks.values().find(|n| n.ingress).map(|n| n.id)
}

/// The network over which the published ports of a service reach its tasks in one family: the one that holds their
/// default route of that family.
pub fn published_on<'a>(view: &'a ClusterView, service: &Service, family: Family) -> Option<&'a Network> {
    let networks = service.networks.iter().filter_map(|n| view.networks.get(&n.network));
    let mut networks = networks.filter(|n| family.is_on(n));
    let first = networks.next()?;
    if !first.internal {
        return Some(first);
    }
    Some(networks.find(|n| !n.internal).unwrap_or(first))
}

/// What this node tells the others: each endpoint in the table of its network, and those that published ports of every
/// node lead to also in the table of the ingress network, which every node has.
pub fn announcements(node: NodeId, view: &ClusterView, tasks: &[LocalTask]) -> Vec<Announcement> {
    let ingress = ingress_network(view);
    let mut all = Vec::new();
    for task in tasks {
        let service = task.service.and_then(|s| view.services.get(&s));
        let published = service.filter(|s| s.ports.iter().any(|p| p.mode == PublishMode::Ingress));
        let ways = Family::ALL.map(|family| Some(published_on(view, published?, family)?.id));
        for endpoint in task.endpoints(node) {
            let network = endpoint.network;
            if let Some(scope) = ingress
                && scope != network
                && ways.contains(&Some(network))
            {
                all.push(Announcement { scope, endpoint: endpoint.clone() });
            }
            all.push(Announcement { scope: network, endpoint });
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

/// The networks of `tasks`, some more than once.
pub(super) fn networks_of(tasks: &[LocalTask]) -> impl Iterator<Item = NetworkId> + '_ {
    tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.network))
}
