//! The ring of keys that seal gossip, step by step.

use std::collections::BTreeSet;

use mesh_types::NodeId;

use super::{Change, Outcome};
use crate::{
    GossipPhase, MAX_GOSSIP_ROTATION, MIN_GOSSIP_ROTATION, Rejection, Response, Sensitive, state::Cluster,
};

impl Cluster {
    /// A next key comes behind the one that is sent with. While the ring changes that is refused, unless a node was removed
    /// that knows the next key, too: nobody sends with that one yet, or the ring is to change once more.
    pub(super) fn rotate_gossip_keys(
        &mut self,
        fresh: &Sensitive<[u8; 32]>,
        after: u64,
        version: u64,
    ) -> Outcome {
        let keys = &mut self.gossip_keys;
        let changes = keys.phase != GossipPhase::Settled && !keys.leaked;
        if keys.version != after || changes || keys.ring.contains(&fresh.0) {
            return Err(Rejection::GossipKeysChange);
        }
        // What was to come next is not sent with by anybody. What retires may be.
        match keys.phase {
            GossipPhase::Spreading => drop(keys.ring.splice(1..2, [fresh.0])),
            GossipPhase::Settled | GossipPhase::Retiring => keys.ring.insert(1, fresh.0),
        }
        keys.phase = GossipPhase::Spreading;
        keys.urgent |= keys.leaked;
        keys.leaked = false;
        self.gossip_ring_changed(version)
    }

    /// The next step of a change: every node that is there has the present ring, or has had the time to get it.
    pub(super) fn step_gossip_keys(&mut self, after: u64, now: u64, version: u64) -> Outcome {
        let keys = &mut self.gossip_keys;
        if keys.version != after {
            return Err(Rejection::GossipKeysChange);
        }
        match keys.phase {
            GossipPhase::Settled => return Err(Rejection::GossipKeysChange),
            GossipPhase::Spreading => {
                keys.ring.truncate(2);
                keys.ring.reverse();
                keys.phase = GossipPhase::Retiring;
                keys.since = now;
            }
            GossipPhase::Retiring => {
                keys.ring.truncate(1);
                keys.phase = GossipPhase::Settled;
                keys.urgent = false;
            }
        }
        self.gossip_ring_changed(version)
    }

    fn gossip_ring_changed(&mut self, version: u64) -> Outcome {
        self.gossip_keys.version = version;
        self.gossip_keys.holders.clear();
        Ok((Response::Done, Change::View))
    }

    /// These nodes have the ring of that version. Of another ring, or of nodes that are no members, nothing is noted.
    pub(super) fn gossip_keys_in_use(&mut self, version: u64, nodes: BTreeSet<NodeId>) -> (Response, Change) {
        let before = self.gossip_keys.holders.len();
        if version == self.gossip_keys.version {
            let members = nodes.into_iter().filter(|node| self.nodes.contains_key(node));
            self.gossip_keys.holders.extend(members);
        }
        let same = self.gossip_keys.holders.len() == before;
        (Response::Done, if same { Change::Nothing } else { Change::Hidden })
    }

    /// A node is gone that knows every key there is.
    pub(super) fn gossip_keys_leaked(&mut self, node: NodeId) {
        self.gossip_keys.leaked = true;
        self.gossip_keys.holders.remove(&node);
    }

    pub(super) fn set_gossip_rotation(&mut self, secs: u64) -> Outcome {
        if secs != 0 && !(MIN_GOSSIP_ROTATION..=MAX_GOSSIP_ROTATION).contains(&secs) {
            return Err(Rejection::GossipRotation { given: secs });
        }
        let before = std::mem::replace(&mut self.gossip_keys.rotation_secs, secs);
        Ok((Response::Done, if before == secs { Change::Nothing } else { Change::Hidden }))
    }
}
