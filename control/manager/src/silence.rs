//! Takes back what silent nodes hold and no task of theirs uses. The leader waits by its own clock, that of boot time: for
//! as long as each node was granted when it last renewed. Whoever begins to lead begins to wait.

use std::{collections::BTreeMap, time::Duration};

use mesh_raft::RaftNode;
use mesh_store::{Command, Response, State};
use mesh_types::NodeId;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::liveness::boot_time;

/// How often it is looked: often enough for the least grace.
const LOOK: Duration = Duration::from_secs(5);

/// How often each node had renewed its leases, and since when.
#[derive(Debug, Default)]
pub(crate) struct Silence {
    since: BTreeMap<NodeId, (u64, Duration)>,
}

impl Silence {
    /// The nodes that have been silent for as long as they were granted, with how often they had renewed.
    pub fn over(&mut self, state: &State, now: Duration) -> Vec<(NodeId, u64)> {
        let holders = state.nodes_with_spare_leases();
        self.since.retain(|node, _| holders.contains(node));
        let mut over = Vec::new();
        for node in holders {
            let renewal = state.renewal_of(node);
            let since = self.since.entry(node).or_insert((renewal.count, now));
            if since.0 != renewal.count {
                *since = (renewal.count, now);
            }
            // A node that never renewed was granted nothing, but may be about to.
            let grace = if renewal.count == 0 { state.lease_grace_secs() } else { renewal.grace_secs };
            if now.saturating_sub(since.1) >= Duration::from_secs(grace.into()) {
                over.push((node, renewal.count));
            }
        }
        over
    }

    /// Begins to wait anew.
    pub fn forget(&mut self) {
        self.since.clear();
    }
}

/// Looks until `stop`, on whoever leads.
pub(crate) async fn run(raft: RaftNode, stop: CancellationToken) {
    let mut silence = Silence::default();
    loop {
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
        if !raft.is_leader() {
            silence.forget();
            continue;
        }
        for (node, after) in silence.over(&raft.state(), boot_time()) {
            match raft.propose(Command::TakeBackLeases { node, after }).await {
                Ok(Response::Returned(addresses)) if !addresses.is_empty() => {
                    info!(%node, addresses = addresses.len(), "leases of a silent node taken back");
                }
                Ok(_) => {}
                Err(error) => warn!(%node, %error, "take leases back"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_store::DEFAULT_LEASE_GRACE;

    use super::*;
    use crate::testing::state;

    const NODE: NodeId = NodeId::from_u128(1);
    const GRACE: Duration = Duration::from_secs(DEFAULT_LEASE_GRACE as u64);

    fn renew(state: &mut State, after: u64) {
        let renew = Command::RenewLeases { node: NODE, after, changes: BTreeMap::new(), full: false };
        state.apply(renew).unwrap();
    }

    #[test]
    fn a_node_is_silent_from_its_last_renewal_on() {
        let mut state = state();
        let ingress = state.networks().next().unwrap().id;
        let start = Duration::from_secs(1000);
        let mut silence = Silence::default();
        assert!(silence.over(&state, start).is_empty());
        state.apply(Command::Lease { node: NODE, network: ingress, count: 2, family: None }).unwrap();
        let begun = start + GRACE;
        assert!(silence.over(&state, begun).is_empty(), "it is seen for the first time");
        assert_eq!(silence.over(&state, begun + GRACE), [(NODE, 0)]);
        renew(&mut state, 0);
        assert!(silence.over(&state, begun + GRACE).is_empty());
        state.apply(Command::SetLeaseGrace { secs: 10 }).unwrap();
        assert!(
            silence.over(&state, begun + GRACE + Duration::from_secs(11)).is_empty(),
            "as it was granted"
        );
        renew(&mut state, 1);
        let renewed = begun + GRACE + Duration::from_secs(12);
        assert!(silence.over(&state, renewed).is_empty());
        assert_eq!(silence.over(&state, renewed + Duration::from_secs(10)), [(NODE, 2)]);
        silence.forget();
        assert!(silence.over(&state, renewed + GRACE).is_empty(), "a new leader");
        state.apply(Command::TakeBackLeases { node: NODE, after: 2 }).unwrap();
        assert!(silence.over(&state, renewed + GRACE + GRACE).is_empty());
    }
}
