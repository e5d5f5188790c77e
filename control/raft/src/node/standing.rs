//! How the managers stand with the one that leads, and handing its part over.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_types::NodeId;
use openraft::async_runtime::{Instant as _, WatchReceiver};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::{RaftNode, Refusal};
use crate::{ProposeError, RpcKind, codec, types::RaftId};

/// A manager that has been silent towards the leader for longer counts as unreachable: three heartbeats and the longest
/// election.
const SILENCE: Duration = Duration::from_secs(3);
/// A learner that lacks no more entries than this has caught up: what was written since the last heartbeat.
const NEARLY: u64 = 200;
/// How long a voter has to take the lead that it is handed.
const HAND_OVER: Duration = Duration::from_secs(1);

/// A manager as the leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Whether it votes; the others only learn.
    pub voter: bool,
    /// Whether it has answered of late.
    pub reachable: bool,
    /// How many entries of the leader's log it is not known to have.
    pub behind: u64,
}

impl Standing {
    /// Whether it has nearly everything that the leader has.
    pub fn caught_up(&self) -> bool {
        self.reachable && self.behind <= NEARLY
    }
}

/// The leader's answer.
pub(super) type Answer = Result<Vec<Standing>, Refusal>;

impl RaftNode {
    /// How the managers stand, in the order of their ids; none if this one does not lead. One that is being taken out is
    /// among them until that is decided.
    pub fn standings(&self) -> Option<Vec<Standing>> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (heartbeat, replication) = (metrics.heartbeat.as_ref()?, metrics.replication.as_ref()?);
        let last = metrics.last_log_index.unwrap_or(0);
        let effective = &metrics.membership_config;
        let nodes = metrics.committed_membership_config.nodes().chain(effective.nodes());
        let nodes: BTreeMap<RaftId, SocketAddr> = nodes.map(|(id, member)| (*id, member.addr)).collect();
        let standing = |(id, addr): (RaftId, SocketAddr)| {
            let own = id.0 == self.inner.node;
            let heard = heartbeat.get(&id).copied().flatten().is_some_and(|at| at.elapsed() < SILENCE);
            let matched = replication.get(&id).copied().flatten().map_or(0, |log| log.index);
            Standing {
                node: id.0,
                addr,
                voter: effective.voter_ids().any(|voter| voter == id),
                reachable: own || heard,
                behind: if own { 0 } else { last.saturating_sub(matched) },
            }
        };
        Some(nodes.into_iter().map(standing).collect())
    }

    /// How the managers stand, as whoever leads sees it.
    pub async fn members(&self, limit: Duration) -> Result<Vec<Standing>, ProposeError> {
        let deadline = Instant::now() + limit;
        loop {
            // Whoever leads is asked whether it still does: one that was cut off does not know what was decided since.
            if self.is_leader()
                && let Some(standings) = self.standings()
                && self.read_index(deadline).await.is_ok()
            {
                return Ok(standings);
            }
            let answer = self.ask_leader(RpcKind::Members, Vec::new(), deadline).await?;
            let Some(answer) = answer else { continue };
            match codec::decode::<Answer>(&answer).map_err(super::stopped)? {
                Ok(standings) => return Ok(standings),
                Err(Refusal::NotLeader) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }

    /// How the managers stand, as the one at `addr` sees it; refused unless it leads.
    pub async fn members_by(
        &self,
        leader: NodeId,
        addr: SocketAddr,
        limit: Duration,
    ) -> Result<Vec<Standing>, ProposeError> {
        let call = self.inner.transport.call(leader, addr, RpcKind::Members, Vec::new());
        let answer = timeout(limit, call).await.map_err(|_| ProposeError::NoMajority)?;
        let answer = answer.map_err(|source| ProposeError::Leader { leader, source })?;
        Ok(codec::decode::<Answer>(&answer).map_err(super::stopped)??)
    }

    /// Hands leadership to the voter that has most of the log. Whether another leads when this returns; also if this one
    /// did not lead.
    pub async fn hand_over(&self) -> bool {
        let Some(mut heirs) = self.standings() else { return true };
        heirs.retain(|m| m.node != self.inner.node && m.voter && m.reachable);
        heirs.sort_by_key(|m| m.behind);
        for heir in heirs {
            if let Err(error) = self.transfer_leader(heir.node).await {
                tracing::debug!(to = %heir.node, %error, "hand leadership over");
                return false;
            }
            let mut leaders = self.inner.leaders.clone();
            let own = self.inner.node;
            let another = leaders.wait_for(|leader| leader.is_some_and(|(node, _)| node != own));
            if timeout(HAND_OVER, another).await.is_ok_and(|known| known.is_ok()) {
                tracing::info!(to = %heir.node, "leadership handed over");
                return true;
            }
        }
        false
    }
}
