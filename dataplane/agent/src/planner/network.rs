//! A network's part of the plan.

use mesh_lb::{EndpointEntry, NetworkEntry, NetworkPlan};
use mesh_types::{Endpoint, Network};

use super::{Facts, Family};

/// A network with an endpoint on this node, and who is on it.
pub(super) fn network_plan(facts: &Facts, network: &Network) -> NetworkPlan {
    let entry = NetworkEntry {
        v4: Family::V4.subnet_of(network).copied(),
        v6: Family::V6.subnet_of(network).copied(),
        internal: network.internal,
    };
    let is_own = |e: &&Endpoint| e.node == facts.node();
    // What this node itself gave an address to has it here, whatever others say.
    let others = facts.on_network(network.id).filter(|e| !is_own(e));
    let all = others.chain(facts.on_network(network.id).filter(is_own));
    let entries = all.filter_map(|endpoint| {
        let place = facts.place_of(endpoint)?;
        let entry = EndpointEntry { vtep: place.vtep, mac: endpoint.mac, ifindex: place.ifindex };
        Some(endpoint.addresses.iter().map(move |address| (*address, entry)))
    });
    NetworkPlan { entry, endpoints: entries.flatten().collect() }
}
