//! What a manager says, as this node understands it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_api::{parse_id, v1};
use mesh_types::{ClusterView, Listener, NetworkId, NodeId, ViewChange};

use crate::leases::{Answer, Held};

/// What a manager says to this node.
#[derive(Debug, Clone)]
pub struct Told {
    /// The decided state.
    pub view: Arc<ClusterView>,
    /// The addresses leased to this node.
    pub leases: BTreeMap<NetworkId, Held>,
    /// Where managers are.
    pub managers: Vec<SocketAddr>,
    /// Processes of all nodes that published ports shadow.
    pub listeners: BTreeMap<NodeId, Vec<Listener>>,
}

fn held(lease: v1::NetworkLease) -> Result<(NetworkId, Held), String> {
    let network = parse_id("lease.network_id", &lease.network_id).map_err(|e| e.to_string())?;
    let addresses: Result<Vec<IpAddr>, _> = lease.addresses.iter().map(|a| a.parse()).collect();
    let addresses = addresses.map_err(|e| format!("lease.addresses: {e}"))?;
    Ok((network, Held { addresses, scarce: lease.scarce }))
}

/// What a manager answers to what this node does with its leases.
pub(super) fn renewal_answer(answer: v1::RenewLeasesResponse) -> Result<Answer, String> {
    let lost: BTreeMap<_, _> = answer.lost.into_iter().map(held).collect::<Result<_, _>>()?;
    let lost = lost.into_iter().flat_map(|(id, held)| held.addresses.into_iter().map(move |a| (id, a)));
    Ok(Answer {
        renewal: answer.renewal,
        done: answer.done,
        grace: Duration::from_secs(answer.grace_secs.into()),
        version: answer.version,
        held: answer.held.into_iter().map(held).collect::<Result<_, _>>()?,
        lost: lost.collect(),
    })
}

/// What a message says, after the one before.
pub(super) fn heard(last: Option<Told>, state: v1::NodeState) -> Result<Told, String> {
    let leases = state.leases.into_iter().map(held).collect::<Result<_, _>>()?;
    let managers: Result<Vec<SocketAddr>, _> = state.managers.iter().map(|m| m.parse()).collect();
    let managers = managers.map_err(|e| format!("managers: {e}"))?;
    let mut listeners = BTreeMap::new();
    for of_node in state.listeners {
        let node = parse_id("listeners.node_id", &of_node.node_id).map_err(|e| e.to_string())?;
        let all: Result<Vec<Listener>, _> = of_node.listeners.into_iter().map(Listener::try_from).collect();
        listeners.insert(node, all.map_err(|e| e.to_string())?);
    }
    match (state.view, state.change, last) {
        (Some(view), _, _) => {
            let view = Arc::new(ClusterView::try_from(view).map_err(|e| e.to_string())?);
            Ok(Told { view, leases, managers, listeners })
        }
        (None, Some(change), Some(last)) => {
            let change = ViewChange::try_from(change).map_err(|e| e.to_string())?;
            let mut view = last.view;
            if !Arc::make_mut(&mut view).change(change) {
                return Err("it tells of a change of another state than it told before".to_owned());
            }
            let leases = if state.same_leases { last.leases } else { leases };
            let listeners = if state.same_listeners { last.listeners } else { listeners };
            Ok(Told { view, leases, managers, listeners })
        }
        (None, Some(_), None) => Err("it tells of a change before it has told the state".to_owned()),
        (None, None, _) => Err("the state has no view".to_owned()),
    }
}

#[cfg(test)]
mod tests;
