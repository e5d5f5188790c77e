//! Once all is well, every manager has the same state, and every agent's view and leases are those of that state.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Result, ensure};
use mesh_store::State;
use mesh_types::{ClusterView, NetworkId, NodeId};

/// What an agent was told last.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The decided state.
    pub view: Option<ClusterView>,
    /// Its addresses.
    pub leases: BTreeMap<NetworkId, Vec<IpAddr>>,
}

/// Whether an agent has what `state` says. The version may be an older one, of the last change that concerned it.
pub fn check(state: &State, node: NodeId, seen: &Seen) -> Result<()> {
    let wanted = state.view().map(|view| ClusterView { version: 0, ..view });
    let view = seen.view.clone().map(|view| ClusterView { version: 0, ..view });
    ensure!(view == wanted, "node {node} has another view than the managers at the end");
    ensure!(seen.leases == state.leases_of(node), "node {node} has other leases than the managers say");
    Ok(())
}
