//! Who the managers are, and how that changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    time::Duration,
};

use mesh_types::NodeId;
use openraft::{
    ChangeMembers,
    async_runtime::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use tokio::time::{Instant, sleep, timeout_at};

use super::{LEADER_PAUSE, PROPOSE_TIMEOUT, RaftNode};
use crate::{
    HandleError, MembershipError, RpcKind, codec,
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

    /// Lets a learner vote, once it has the log so far. Only the leader can.
    pub async fn promote(&self, node: NodeId) -> Result<(), MembershipError> {
        self.let_stand(node).await?;
        let voters = ChangeMembers::AddVoterIds(BTreeSet::from([RaftId(node)]));
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.change_membership(voters.clone(), true)).await
    }

    /// Tells a learner that it may stand for election when it votes: what it has of the log then is no older than this
    /// membership, in which it does not vote.
    async fn let_stand(&self, node: NodeId) -> Result<(), MembershipError> {
        let membership = self.inner.raft.server_metrics().borrow_watched().membership_config.clone();
        let (Some(member), Some(since)) = (membership.get_node(&RaftId(node)), membership.log_id().as_ref())
        else {
            return Err(MembershipError::Refused { reason: format!("{node} is no learner") });
        };
        let refused = |error: String| MembershipError::Refused {
            reason: format!("{node} does not say that it has the log so far: {error}"),
        };
        let message = codec::encode(&since.index).map_err(|error| refused(error.to_string()))?;
        let told = self.inner.transport.call(node, member.addr, RpcKind::Stand, message);
        match timeout_at(Instant::now() + PROPOSE_TIMEOUT, told).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(refused(error.to_string())),
            Err(_) => Err(refused("it does not answer".to_owned())),
        }
    }

    /// As a learner: stands for election from now on, once the log reaches to `since`.
    pub(super) async fn stand(&self, since: u64) -> Result<(), HandleError> {
        let has = self.inner.raft.wait(Some(PROPOSE_TIMEOUT));
        let reached = has.metrics(|metrics| metrics.last_log_index >= Some(since), "the log so far").await;
        reached.map_err(|_| HandleError::Behind)?;
        self.inner.raft.runtime_config().elect(true);
        Ok(())
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

    /// Whether a change of the voters is decided by half: Raft changes them in two steps, and whoever led, or the time, came to
    /// an end between them. Until the second, majorities of the old voters and of the new ones are needed.
    pub fn is_half_changed(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (members, decided) = (&metrics.membership_config, &metrics.committed_membership_config);
        members.membership().get_joint_config().len() > 1 && members.log_id() == decided.log_id()
    }

    /// Takes the second step of a change that is decided by half. Only the leader can.
    pub async fn finish_change(&self) -> Result<(), MembershipError> {
        // Nobody is added; openraft leaves the old voters behind with whatever is changed next.
        let nobody = ChangeMembers::AddVoterIds(BTreeSet::new());
        self.change(PROPOSE_TIMEOUT, || self.inner.raft.change_membership(nobody.clone(), false)).await
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
