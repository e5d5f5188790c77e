//! Who takes part in Raft: the roles that the state holds decide, and whoever leads brings Raft's members to them.
//!
//! One step at a time: a new manager learns first and votes once it has caught up; one that is no manager any more is
//! taken out, after it has handed leadership over if it leads. What cannot be done now is tried again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_api::v1;
use mesh_raft::{MembershipError, RaftNode, Standing};
use mesh_store::{Command, NodeChange, Response as Answer, State};
use mesh_types::{Lookup, MANAGER_PORT, Node, NodeId, Role};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{debug, info};

use crate::{
    identity::decided,
    shared::{Shared, unexpected},
    status::unresolved,
    versions,
};

/// How often the members are looked at when nothing changes: learners catch up, silent ones come back.
const PERIOD: Duration = Duration::from_millis(500);

/// Longest wait for the leader to tell how the managers stand.
const ASK: Duration = Duration::from_secs(3);

/// What the leader has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Adds a manager that learns.
    Add(NodeId, SocketAddr),
    /// Lets it vote.
    Promote(NodeId),
    /// Takes it out.
    Remove(NodeId),
    /// Notes that a manager has another address.
    Readdress(NodeId, SocketAddr),
    /// Lets another lead, which can then take this one out.
    HandOver,
    /// Ends a change of who votes that was begun and not ended.
    Finish,
}

/// The next step from `members` to `managers`, as the leader `own` sees it.
///
/// Whoever is to go goes first: what votes no more cannot be missed. A voter is only added when it has caught up, so
/// that a manager which never came up costs no majority; and only addresses that were given count, ports stay.
fn next(own: NodeId, managers: &BTreeMap<NodeId, IpAddr>, members: &[Standing]) -> Option<Step> {
    let gone = |m: &&Standing| !managers.contains_key(&m.node);
    if let Some(member) = members.iter().filter(gone).find(|m| m.node != own) {
        return Some(Step::Remove(member.node));
    }
    if !managers.contains_key(&own) {
        let heir = members.iter().any(|m| m.node != own && m.voter && m.reachable);
        // Without one the others have to catch up and vote first, below.
        if heir {
            return Some(Step::HandOver);
        }
    }
    for (&node, &address) in managers {
        let Some(member) = members.iter().find(|m| m.node == node) else {
            return Some(Step::Add(node, SocketAddr::new(address, MANAGER_PORT)));
        };
        if member.addr.ip() != address {
            return Some(Step::Readdress(node, SocketAddr::new(address, member.addr.port())));
        }
        if !member.voter && member.caught_up() {
            return Some(Step::Promote(node));
        }
    }
    None
}

/// Why taking `node` out of the managers would leave a cluster that cannot decide: how many of those that stay answer, of
/// how many. None if enough do.
pub(crate) fn lost_without(node: NodeId, members: &[Standing]) -> Option<(usize, usize)> {
    if !members.iter().any(|m| m.node == node && m.voter) {
        return None;
    }
    let stay = || members.iter().filter(|m| m.voter && m.node != node);
    let (all, reachable) = (stay().count(), stay().filter(|m| m.reachable).count());
    (reachable <= all / 2).then_some((reachable, all))
}

/// Brings Raft's members to the state's managers, whenever this node leads.
pub(crate) async fn run(raft: RaftNode, stop: CancellationToken) {
    let mut states = raft.watch();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
            changed = states.changed() => if changed.is_err() { return },
        }
        let state = states.borrow_and_update().clone();
        let Some(step) = raft.standings().and_then(|members| wanted(&raft, &state, &members)) else {
            continue;
        };
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = take(&raft, step) => done,
        };
        match done {
            Ok(()) => {
                info!(?step, "managers changed");
                ticks.reset_immediately();
            }
            Err(error) => {
                debug!(?step, %error, "managers not changed yet");
                ticks.reset();
            }
        }
    }
}

fn wanted(raft: &RaftNode, state: &Arc<State>, members: &[Standing]) -> Option<Step> {
    // Before there is a cluster nobody is a manager by the state.
    state.cluster()?;
    let managers = state.managers().map(|node| (node.id, node.advertise_addr)).collect();
    // One that is being taken out is nobody's task any more. To take it out again is done at once: until the change is decided,
    // which may be long without a majority, that would be all that this loop does.
    let present = raft.managers();
    let stays = |member: &&Standing| present.iter().any(|manager| manager.node == member.node);
    let step = next(raft.node(), &managers, &members.iter().filter(stays).copied().collect::<Vec<_>>());
    // Any other step ends a half change along with its own. Where none is to be taken it would stay half done, and the old
    // voters' majority would be needed for everything from then on.
    step.or_else(|| raft.is_half_changed().then_some(Step::Finish))
}

/// An error may have changed something all the same; the next look shows.
async fn take(raft: &RaftNode, step: Step) -> Result<(), MembershipError> {
    match step {
        Step::Add(node, addr) => raft.add_learner(node, addr).await,
        Step::Promote(node) => raft.promote(node).await,
        Step::Remove(node) => raft.remove(node).await,
        Step::Readdress(node, addr) => raft.readdress(node, addr).await,
        Step::HandOver => match raft.hand_over().await {
            true => Ok(()),
            false => Err(MembershipError::NoMajority),
        },
        Step::Finish => raft.finish_change().await,
    }
}

/// Makes a node a manager or a worker.
pub(crate) async fn set_role(shared: &Shared, request: v1::SetRoleRequest) -> Result<v1::Node, Status> {
    let role = Role::try_from(request.role())?;
    let state = decided(shared).await?;
    let node = Node::find(state.nodes(), &request.node).map_err(|e| unresolved(&e))?;
    if role == Role::Worker && !request.force {
        refuse_loss(shared, node).await?;
    }
    if role == Role::Manager && node.role != role {
        versions::check_promotion(shared, node).await?;
    }
    let expected_version = request.expected_version;
    let change = NodeChange { role: Some(role), expected_version, ..NodeChange::default() };
    match shared.propose(Command::UpdateNode { node: node.id, change }).await? {
        Answer::Node(node) => {
            info!(node = %node.id, name = %node.name, role = %node.role, "role changed");
            Ok((&node).into())
        }
        other => Err(unexpected(&other)),
    }
}

/// Refuses to let a manager go without which too few are left that can be reached.
pub(crate) async fn refuse_loss(shared: &Shared, node: &Node) -> Result<(), Status> {
    // That of the last one is refused by the state, with better words.
    if node.role != Role::Manager || shared.state().managers().count() < 2 {
        return Ok(());
    }
    let members = shared.raft.members(ASK).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let Some((reachable, all)) = lost_without(node.id, &members) else { return Ok(()) };
    Err(Status::failed_precondition(format!(
        "without {} the managers lose their majority: of the {all} others that vote, {reachable} can be reached; bring \
         them back or wait until new ones have caught up (`meshctl node ls`), or use --force",
        node.name
    )))
}

#[cfg(test)]
mod tests;
