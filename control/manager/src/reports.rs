//! What nodes say of themselves: kept in memory, for as long as a session of the node lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_types::{Listener, NodeId};
use tokio::sync::watch;

/// The listeners of all nodes that have any.
pub type Listeners = BTreeMap<NodeId, Vec<Listener>>;

/// See the module.
pub(crate) struct Reports {
    /// The number of each node's newest session: an older one may end after that has begun.
    sessions: Mutex<BTreeMap<NodeId, u64>>,
    listeners: watch::Sender<Arc<Listeners>>,
    /// The version of the state by which each node took its gossip keys.
    gossip_keys: Mutex<BTreeMap<NodeId, u64>>,
    /// The version of the state that each node follows.
    applied: Mutex<BTreeMap<NodeId, u64>>,
    /// The formats of the managers' state that each node reads.
    formats: Mutex<BTreeMap<NodeId, RangeInclusive<u32>>>,
}

impl Default for Reports {
    fn default() -> Self {
        let listeners = watch::channel(Arc::default()).0;
        Self {
            sessions: Mutex::default(),
            listeners,
            gossip_keys: Mutex::default(),
            applied: Mutex::default(),
            formats: Mutex::default(),
        }
    }
}

impl Reports {
    /// The listeners, as they change.
    pub fn watch(&self) -> watch::Receiver<Arc<Listeners>> {
        self.listeners.subscribe()
    }

    /// Replaces what `node` said before.
    pub fn set(&self, node: NodeId, mut listeners: Vec<Listener>) {
        listeners.sort();
        listeners.dedup();
        self.listeners.send_if_modified(|all| {
            let changed = all.get(&node).map_or(&[][..], Vec::as_slice) != listeners.as_slice();
            if changed {
                let all = Arc::make_mut(all);
                match listeners.is_empty() {
                    true => drop(all.remove(&node)),
                    false => drop(all.insert(node, listeners)),
                }
            }
            changed
        });
    }

    /// Notes by which version of the state `node` took its gossip keys.
    pub fn set_gossip_keys(&self, node: NodeId, version: u64) {
        self.gossip_keys.lock().unwrap_or_else(PoisonError::into_inner).insert(node, version);
    }

    /// The nodes whose gossip keys are of this version or a later one.
    pub fn with_gossip_keys(&self, version: u64) -> BTreeSet<NodeId> {
        let all = self.gossip_keys.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, has)| **has >= version).map(|(node, _)| *node).collect()
    }

    /// Notes which version of the state `node` follows.
    pub fn set_applied(&self, node: NodeId, version: u64) {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).insert(node, version);
    }

    /// The nodes that follow this version of the state or a later one.
    pub fn with_applied(&self, version: u64) -> BTreeSet<NodeId> {
        let all = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, has)| **has >= version).map(|(node, _)| *node).collect()
    }

    /// Notes which formats of the managers' state `node` reads.
    pub fn set_formats(&self, node: NodeId, formats: RangeInclusive<u32>) {
        self.formats.lock().unwrap_or_else(PoisonError::into_inner).insert(node, formats);
    }

    /// The same; none if it did not say.
    pub fn formats(&self, node: NodeId) -> Option<RangeInclusive<u32>> {
        self.formats.lock().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Whether a session of `node` lasts.
    pub fn has_session(&self, node: NodeId) -> bool {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&node)
    }

    /// A session of `node` begins; it ends when the answer is dropped.
    pub fn session(self: &Arc<Self>, node: NodeId) -> SessionGuard {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let number = sessions.entry(node).or_default();
        *number += 1;
        SessionGuard { reports: self.clone(), node, number: *number }
    }
}

/// Forgets what a node said when its last session ends.
pub(crate) struct SessionGuard {
    reports: Arc<Reports>,
    node: NodeId,
    number: u64,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        let mut sessions = self.reports.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(&self.node) == Some(&self.number) {
            sessions.remove(&self.node);
            drop(sessions);
            self.reports.gossip_keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
            self.reports.applied.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
            self.reports.formats.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.node);
            self.reports.set(self.node, Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::Protocol;

    use super::*;

    const NODE: NodeId = NodeId::from_u128(1);

    fn listener(port: u16) -> Listener {
        let address = [0, 0, 0, 0].into();
        Listener { port, protocol: Protocol::Tcp, address, process: None }
    }

    #[test]
    fn what_is_said_lasts_as_long_as_the_newest_session() {
        let reports = Arc::new(Reports::default());
        let mut seen = reports.watch();
        let old = reports.session(NODE);
        reports.set_gossip_keys(NODE, 7);
        reports.set_applied(NODE, 5);
        reports.set_formats(NODE, 4..=5);
        reports.set(NODE, vec![listener(81), listener(80), listener(80)]);
        assert_eq!(seen.borrow_and_update().get(&NODE).unwrap(), &[listener(80), listener(81)]);
        reports.set(NODE, vec![listener(80), listener(81)]);
        assert!(!seen.has_changed().unwrap(), "said again");
        let new = reports.session(NODE);
        drop(old);
        assert!(!seen.has_changed().unwrap());
        assert!(reports.has_session(NODE));
        assert_eq!((reports.with_gossip_keys(7).len(), reports.with_gossip_keys(8).len()), (1, 0));
        assert_eq!((reports.with_applied(5).len(), reports.with_applied(6).len()), (1, 0));
        assert_eq!(reports.formats(NODE), Some(4..=5));
        drop(new);
        assert_eq!(reports.formats(NODE), None);
        assert!(seen.borrow_and_update().is_empty() && !reports.has_session(NODE));
        assert!(reports.with_gossip_keys(0).is_empty() && reports.with_applied(0).is_empty());
    }
}
