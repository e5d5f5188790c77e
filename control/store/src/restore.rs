//! A cluster that goes on with one manager, after the others were lost.

use std::sync::Arc;

use mesh_types::{Name, Node, Role};

use crate::State;

/// How far the version is set forward: whatever was decided by those that are lost, and is not known here, is older then.
const AHEAD: u64 = 1 << 32;

impl State {
    /// The member with this name.
    pub fn node_named(&self, name: &Name) -> Option<&Node> {
        self.nodes().find(|node| node.name.as_str().eq_ignore_ascii_case(name.as_str()))
    }

    /// The same cluster with `manager` as its only manager, added if it is no member yet. The others that were managers are
    /// workers from now on.
    pub fn with_only_manager(mut self, manager: Node) -> Self {
        let Some(cluster) = self.cluster.as_mut() else { return self };
        self.version += AHEAD;
        let keep = manager.id;
        let lost = cluster.nodes.values().filter(|node| node.id != keep && node.role == Role::Manager);
        for node in lost.cloned().collect::<Vec<_>>() {
            let worker = Node { role: Role::Worker, version: self.version, ..Node::clone(&node) };
            cluster.former_managers.insert(node.id);
            cluster.nodes.insert(node.id, Arc::new(worker));
        }
        cluster.former_managers.remove(&keep);
        cluster.nodes.insert(keep, Arc::new(Node { role: Role::Manager, version: self.version, ..manager }));
        // Whoever was a member then and is none any more knows the keys; and no node has this ring under this version.
        cluster.gossip_keys.version = self.version;
        cluster.gossip_keys.holders.clear();
        cluster.gossip_keys.leaked = true;
        self.view_version = self.version;
        self
    }
}
