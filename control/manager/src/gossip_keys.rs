//! Replaces the key that seals gossip: on a schedule, when somebody asks for it, and when a node is gone that knows it.
//!
//! Every manager notes in the state which of the nodes in session with it have the present ring. The leader takes the next
//! step when every node that is there has it, or has had time enough: then whatever is sent can be read by all of them
//! ([`mesh_store::GossipKeys`] says why).

use std::{sync::Arc, time::Duration};

use mesh_store::{Command, GossipKeys, GossipPhase, Sensitive, State};
use mesh_types::{Node, NodeId};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    liveness::{NodeStatus, boot_time},
    shared::{Shared, unix_now},
};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How long a step waits for nodes that seem to be there and get nothing from the managers: they read nothing afterwards
/// until a manager reaches them.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The same when a node is gone that knows the older keys.
const URGENT: Duration = Duration::from_secs(60);
/// How long a key is read after the last node has stopped to send with it: longer than a message may be on its way.
const ON_THE_WAY: Duration = Duration::from_secs(6);
/// Packets that a node seals in a second, more than it does.
const PACKETS: u64 = 64;
/// Packets that one key is to seal at most, half of what AES-GCM with random nonces allows (NIST SP 800-38D, section 8.3).
const PER_KEY: u64 = 1 << 31;

/// What the leader has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A next key comes into the ring.
    Rotate,
    /// The ring goes a step on.
    Advance,
}

/// Since when the ring has been what it is, by this manager's clock.
#[derive(Debug, Default)]
pub(crate) struct Rotation {
    /// The ring's version, since when it is seen, and since when nobody is waited for.
    seen: Option<(u64, Duration, Option<Duration>)>,
}

impl Rotation {
    /// The next step, as whoever leads sees it: at `now` by a clock that nobody sets, `wall` seconds after 1970-01-01.
    pub fn next(
        &mut self,
        state: &State,
        status: impl Fn(NodeId) -> NodeStatus,
        now: Duration,
        wall: u64,
    ) -> Option<Step> {
        let keys = state.gossip_keys()?;
        let seen = match &mut self.seen {
            Some(seen) if seen.0 == keys.version => seen,
            seen => seen.insert((keys.version, now, None)),
        };
        if keys.leaked {
            return Some(Step::Rotate);
        }
        let (patience, least) = match keys.phase {
            GossipPhase::Settled => return is_due(keys, state, wall).then_some(Step::Rotate),
            // A third key is one that retired when a node was removed: it goes with this step.
            GossipPhase::Spreading if keys.ring.len() > 2 => (patience(keys), ON_THE_WAY),
            GossipPhase::Spreading => (patience(keys), Duration::ZERO),
            GossipPhase::Retiring => (patience(keys), ON_THE_WAY),
        };
        let all = waited_for(state, keys, status).next().is_none();
        seen.2 = if all { seen.2.or(Some(now)) } else { None };
        let complete = seen.2.is_some_and(|since| now.saturating_sub(since) >= least);
        (complete || now.saturating_sub(seen.1) >= patience).then_some(Step::Advance)
    }

    /// Begins to wait anew.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

fn patience(keys: &GossipKeys) -> Duration {
    if keys.urgent { URGENT } else { PATIENCE }
}

/// Whether the key has been in use for long enough. One from the future is: the clock was set back by much, and nobody can
/// tell how old it is.
fn is_due(keys: &GossipKeys, state: &State, wall: u64) -> bool {
    let nodes = u64::try_from(state.nodes().count()).unwrap_or(u64::MAX);
    let most = (PER_KEY / PACKETS.saturating_mul(nodes.max(1))).max(mesh_store::MIN_GOSSIP_ROTATION);
    let rotation = keys.rotation_secs.min(most);
    keys.rotation_secs > 0 && wall.abs_diff(keys.since) >= rotation
}

/// The nodes that are there, or may be, and are not known to have the present ring. In a ring of one key nobody is waited
/// for.
pub(crate) fn waited_for<'a>(
    state: &'a State,
    keys: &'a GossipKeys,
    status: impl Fn(NodeId) -> NodeStatus,
) -> impl Iterator<Item = &'a Node> {
    let changes = keys.phase != GossipPhase::Settled;
    let late = state.nodes().filter(move |node| changes && !keys.holders.contains(&node.id));
    // What has no daemon, or a daemon that nobody hears, gets the ring by its next session.
    late.filter(move |node| matches!(status(node.id), NodeStatus::Ready | NodeStatus::Unknown))
}

/// The word for a phase.
pub(crate) fn word(phase: GossipPhase) -> &'static str {
    match phase {
        GossipPhase::Settled => "settled",
        GossipPhase::Spreading => "spreading",
        GossipPhase::Retiring => "retiring",
    }
}

/// Brings a next key into the ring; none if there is no cluster.
pub(crate) fn rotate(state: &State) -> Option<Command> {
    let after = state.gossip_keys()?.version;
    Some(Command::RotateGossipKeys { fresh: Sensitive(rand::random()), after })
}

/// What is to be noted: the nodes in session here that have the present ring.
fn noted(shared: &Shared, state: &State) -> Option<Command> {
    let keys = state.gossip_keys().filter(|keys| keys.phase != GossipPhase::Settled)?;
    let mut nodes = shared.reports.with_gossip_keys(keys.version);
    nodes.retain(|node| !keys.holders.contains(node) && state.node(*node).is_some());
    (!nodes.is_empty()).then_some(Command::GossipKeysInUse { version: keys.version, nodes })
}

/// Notes and steps until `stop`.
pub(crate) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut rotation = Rotation::default();
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        let state = shared.state();
        let mut commands = Vec::from_iter(noted(&shared, &state));
        if shared.raft.is_leader() {
            let step = rotation.next(&state, |node| shared.status_of(node), boot_time(), unix_now());
            commands.extend(step.and_then(|step| command(step, &state)));
        } else {
            rotation.forget();
        }
        for command in commands {
            match stop.run_until_cancelled(shared.raft.propose(command)).await {
                Some(Ok(_)) => {}
                // The ring has changed meanwhile, or there is no majority: the next look shows.
                Some(Err(error)) => debug!(%error, "gossip keys not changed"),
                None => return,
            }
        }
    }
}

fn command(step: Step, state: &State) -> Option<Command> {
    let keys = state.gossip_keys()?;
    info!(?step, phase = word(keys.phase), urgent = keys.urgent || keys.leaked, "gossip keys change");
    match step {
        Step::Rotate => rotate(state),
        Step::Advance => Some(Command::StepGossipKeys { after: keys.version, now: unix_now() }),
    }
}

#[cfg(test)]
mod tests;
