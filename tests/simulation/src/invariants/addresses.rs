//! No address of a network has two uses: not in any state, and not on two nodes at once.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Result, ensure};
use mesh_store::State;
use mesh_types::{NetworkId, NodeId};

/// Checks one state: leases, virtual addresses and gateways.
pub fn check(state: &State) -> Result<()> {
    let mut uses: BTreeMap<(NetworkId, IpAddr), String> = BTreeMap::new();
    let mut take = |network: NetworkId, address: IpAddr, by: String| {
        let first = uses.insert((network, address), by.clone());
        ensure!(first.is_none(), "{address} of network {network} is used by {first:?} and {by}");
        Ok(())
    };
    for network in state.networks() {
        network.subnets.iter().try_for_each(|subnet| take(network.id, subnet.gateway(), "gateway".into()))?;
    }
    for service in state.services() {
        for on in &service.networks {
            on.vips.iter().try_for_each(|vip| take(on.network, *vip, format!("service {}", service.name)))?;
        }
    }
    for node in state.nodes() {
        for (network, addresses) in state.leases_of(node.id) {
            addresses
                .iter()
                .try_for_each(|address| take(network, *address, format!("node {}", node.name)))?;
        }
    }
    Ok(())
}

/// Which node uses which address, as the nodes themselves see it.
#[derive(Debug, Default)]
pub struct InUse(BTreeMap<(NetworkId, IpAddr), NodeId>);

impl InUse {
    /// `node` gives the address to a task.
    pub fn take(&mut self, node: NodeId, network: NetworkId, address: IpAddr) -> Result<()> {
        let holder = *self.0.entry((network, address)).or_insert(node);
        ensure!(holder == node, "{address} of network {network} is on tasks of {holder} and {node}");
        Ok(())
    }

    /// The task is gone.
    pub fn leave(&mut self, network: NetworkId, address: IpAddr) {
        self.0.remove(&(network, address));
    }

    /// How many are in use.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
