//! Who the managers are, and how that changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    sync::Weak,
    time::Duration,
};

use mesh_types::NodeId;
use openraft::{
    ChangeMembers,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Inner, LEADER_PAUSE, PROPOSE_TIMEOUT, RaftNode};
use crate::{
    MembershipError,
    types::{Member, RaftId, TypeConfig},
};

/// A manager as Raft's membership has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manager {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub addr: SocketAddr,
    /// Whether it votes; the others only learn.
    pub voter: bool,
}

impl RaftNode {
    /// The managers, in the order of their ids.
    pub fn managers(&self) -> Vec<Manager> {
        let membership = self.inner.raft.server_metrics().borrow_watched().membership_config.clone();
        let voters: BTreeSet<RaftId> = membership.voter_ids().collect();
        let nodes = membership.nodes();
        nodes
            .map(|(id, member)| Manager { node: id.0, addr: member.addr, voter: voters.contains(id) })
            .collect()
    }

    /// Adds a manager that learns and does not vote yet. Only the leader can.
    pub async fn add_learner(&self, node: NodeId, addr: SocketAddr) -> Result<(), MembershipError> {
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.add_learner(RaftId(node), Member { addr }, false))
            .await
    }

    /// Lets a learner vote. Only the leader can.
    pub async fn promote(&self, node: NodeId) -> Result<(), MembershipError> {
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([RaftId(node)]));
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.change_membership(voters.clone(), true)).await
    }

    /// Takes a manager out, voter or learner; no error if it was none. Only the leader can.
    pub async fn remove(&self, node: NodeId) -> Result<(), MembershipError> {
        let Some(manager) = self.managers().into_iter().find(|m| m.node == node) else { return Ok(()) };
        let id = BTreeSet::from([RaftId(node)]);
        let change =
            if manager.voter { ChangeMembers::RemoveVoters(id) } else { ChangeMembers::RemoveNodes(id) };
        // Not retained as learners: those who are no voters any more are forgotten.
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.change_membership(change.clone(), false)).await
    }

    /// Hands leadership to another voter, or does nothing if this manager does not lead.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), MembershipError> {
        let asked = self.inner.raft.trigger().transfer_leader(RaftId(to)).await;
        asked.map_err(|error| MembershipError::Stopped { reason: error.to_string() })
    }

    /// Notes that a manager is reached at another address. Only the leader can.
    pub async fn readdress(&self, node: NodeId, addr: SocketAddr) -> Result<(), MembershipError> {
        let nodes = BTreeMap::from([(RaftId(node), Member { addr })]);
        let change = ChangeMembers::SetNodes(nodes);
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.change_membership(change.clone(), true)).await
    }

    /// As the only voter: notes this manager's address if it is another one than before.
    pub(super) async fn readvertise(&self) -> Result<(), MembershipError> {
        let own = Manager { node: self.inner.node, addr: self.inner.advertise, voter: true };
        if self.managers().contains(&own) {
            return Ok(());
        }
        self.readdress(own.node, own.addr).await
    }

    /// Changes the members; tries again while this manager is only about to lead or busy with another change.
    async fn change<T, F>(&self, limit: Duration, change: impl Fn() -> F) -> Result<(), MembershipError>
    where
        F: Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    {
        let deadline = Instant::now() + limit;
        loop {
            let refused = match timeout_at(deadline, change()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(RaftError::APIError(refused))) => refused,
                Ok(Err(RaftError::Fatal(fatal))) => {
                    return Err(MembershipError::Stopped { reason: fatal.to_string() });
                }
                Err(_) => return Err(MembershipError::NoMajority),
            };
            match refused {
                ClientWriteError::ForwardToLeader(to) => {
                    let leader = to.leader_id.map(|id| id.0).filter(|leader| *leader != self.inner.node);
                    if leader.is_some() || !self.is_leader() {
                        return Err(MembershipError::NotLeader { leader });
                    }
                }
                ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
                ) => {}
                ClientWriteError::LogEntryDiscarded(_) => return Err(MembershipError::NoMajority),
                refused => return Err(MembershipError::Refused { reason: refused.to_string() }),
            }
            if Instant::now() >= deadline {
                return Err(MembershipError::NoMajority);
            }
            sleep(LEADER_PAUSE).await;
        }
    }
}

/// How often a manager on its way into a cluster asks whether it votes, and how long an answer may take.
const ON_ITS_WAY: Duration = Duration::from_millis(250);
const ANSWER: Duration = Duration::from_secs(2);

/// Waits until this manager votes by its own log and by what the leader says; then it may be elected.
pub(super) async fn await_vote(inner: Weak<Inner>) {
    loop {
        sleep(ON_ITS_WAY).await;
        let Some(inner) = inner.upgrade() else { return };
        let node = RaftNode { inner };
        if node.failure().is_some() {
            return;
        }
        let own = node.inner.node;
        let voters = node.managers().into_iter().filter(|manager| manager.voter);
        let voters: Vec<NodeId> = voters.map(|manager| manager.node).collect();
        if voters.len() < 2 || !voters.contains(&own) {
            continue;
        }
        let told = node.members(ANSWER).await;
        if told.is_ok_and(|members| members.iter().any(|member| member.node == own && member.voter)) {
            node.inner.raft.runtime_config().elect(true);
            return;
        }
    }
}
