//! The members that the managers know: those that are not there are tried for ever.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mesh_types::NodeId;
use rand::{Rng, seq::IndexedRandom};

use super::{Core, membership::MANY};

/// Peers that are not there and are tried at a time, and the pause until the next few.
const TRIED: usize = 16;
const TRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_MIN: Duration = Duration::from_millis(250);

/// When a peer that is not there is tried next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    at: Duration,
    pause: Duration,
}

impl Core {
    pub(super) fn set_peers(&mut self, listed: Vec<(NodeId, SocketAddr)>) {
        let listed: BTreeMap<NodeId, SocketAddr> =
            listed.into_iter().filter(|(node, _)| *node != self.node).collect();
        let known = self.peers.nodes().iter().copied();
        let unlisted: Vec<NodeId> = known.filter(|node| !listed.contains_key(node)).collect();
        for node in unlisted {
            self.peers.remove(node);
            self.absent.remove(&node);
            self.data_paths.remove(&node);
            self.asking.remove(&node);
            self.removed.insert(node);
            self.outbox.forget(node);
            self.syncs.remove(&node);
            self.windows.remove(node);
            self.records.forget(node);
            self.members_changed = true;
            if let Some(member) = self.members.remove(&node) {
                self.count_live(member.is_live(), false);
                let outcome = self.swim.declare_down(member.identity(node), self.now);
                self.take_swim(outcome);
            }
        }
        for (node, addr) in listed {
            let is_known = self.peers.get(node).is_some_and(|known| known.get() == addr);
            self.removed.remove(&node);
            if !is_known {
                self.peers.insert(node, addr.into());
                let after = self.after_others();
                self.try_at(node, self.now + after);
            }
        }
        if self.retry_at <= self.now {
            self.try_peers();
        }
    }

    /// When to try a peer that the managers have just listed: all others hear of it in the same moment. Among many a newcomer is
    /// known by its own word long before most of them would try it, and is spared thousands of packets at once.
    fn after_others(&mut self) -> Duration {
        match self.live > MANY {
            true => RETRY_MIN.mul_f64(self.live as f64 / MANY as f64 * self.rng.random_range(0.0..1.0)),
            false => Duration::ZERO,
        }
    }

    /// A peer is to be tried at `at`, unless it is there.
    fn try_at(&mut self, node: NodeId, at: Duration) {
        if !self.is_live(node) {
            self.absent.insert(node, Retry { at, pause: RETRY_MIN });
            self.retry_at = self.retry_at.min(at);
        }
    }

    /// A member is not there any more.
    pub(super) fn is_absent(&mut self, node: NodeId) {
        if self.peers.contains(node) {
            self.try_at(node, self.now + RETRY_MIN);
        }
    }

    /// Tries the peers that are due, a few at a time: each that answers names many others, which are not to be tried then.
    pub(super) fn try_peers(&mut self) {
        let due = self.absent.iter().filter(|(_, retry)| retry.at <= self.now);
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        let tried: Vec<NodeId> = due.choose_multiple(&mut self.rng, TRIED).copied().collect();
        for node in &tried {
            self.try_peer(*node);
        }
        self.retry_at = if tried.len() < due.len() {
            self.now + TRY_PAUSE
        } else {
            self.absent.values().map(|retry| retry.at).min().unwrap_or(Duration::MAX)
        };
    }

    fn try_peer(&mut self, node: NodeId) {
        let jitter = self.rng.random_range(0.75..1.25);
        let Some(addr) = self.peers.get(node).map(|addr| addr.get()) else { return };
        let Some(retry) = self.absent.get_mut(&node) else { return };
        retry.at = self.now + retry.pause.mul_f64(jitter);
        retry.pause = (retry.pause * 2).min(self.timing.retry_max);
        let outcome = self.swim.announce(node, addr, self.now);
        self.take_swim(outcome);
    }

    /// All peers that are not there are to be tried soon.
    pub(super) fn try_all_peers(&mut self) {
        let soon = Retry { at: self.now, pause: RETRY_MIN };
        self.absent.values_mut().for_each(|retry| *retry = soon);
        self.retry_at = self.now;
    }
}
