//! The endpoints of the others as they were before a restart, believed until gossip has told anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use mesh_gossip::{EndpointKey, Liveness, MemberState, MemberStatus};
use mesh_types::{Endpoint, NetworkId, NodeId, SharedMap, TaskId};

use crate::heard::Told;

/// What is still believed. What gossip once told otherwise does not come back.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    endpoints: BTreeMap<Told, Arc<Endpoint>>,
    /// By table, network and address.
    holders: BTreeMap<(NetworkId, NetworkId, IpAddr), EndpointKey>,
    /// The nodes that nobody attended to when [`Remembered::forget`] was last called.
    unattended: BTreeSet<NodeId>,
}

impl Remembered {
    /// The endpoints of nodes other than `node`, by table.
    pub(super) fn new(node: NodeId, tables: BTreeMap<NetworkId, Vec<Arc<Endpoint>>>) -> Self {
        let mut all = Self::default();
        for (scope, endpoints) in tables {
            for endpoint in endpoints.into_iter().filter(|e| e.node != node) {
                let key = EndpointKey::from(&*endpoint);
                for address in &endpoint.addresses {
                    all.holders.insert((scope, endpoint.network, *address), key);
                }
                all.endpoints.insert((scope, key), endpoint);
            }
        }
        all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Told, &Arc<Endpoint>)> {
        self.endpoints.iter()
    }

    /// Forgets what stands against news in the table of `scope`: the same task, or another with one of its addresses.
    pub(super) fn supersede(&mut self, scope: NetworkId, news: &Endpoint) -> Vec<Arc<Endpoint>> {
        if self.endpoints.is_empty() {
            return Vec::new();
        }
        let key = |task: TaskId, node| (scope, EndpointKey { task, network: news.network, node });
        let first = key(news.task, NodeId::from_u128(0));
        let last = key(news.task, NodeId::from_u128(u128::MAX));
        let same: Vec<_> = self.endpoints.range(first..=last).map(|(told, _)| *told).collect();
        let holders = news.addresses.iter().filter_map(|a| self.holders.get(&(scope, news.network, *a)));
        let superseded: Vec<_> = same.into_iter().chain(holders.map(|key| (scope, *key))).collect();
        superseded.into_iter().filter_map(|told| self.remove(&told)).collect()
    }

    /// Forgets those of nodes of which gossip says that they are gone.
    pub(super) fn take_gone(
        &mut self,
        members: &SharedMap<NodeId, MemberStatus>,
    ) -> Vec<(Told, Arc<Endpoint>)> {
        let is_gone = |node| members.get(&node).is_some_and(|m| m.state.liveness() == Liveness::Gone);
        self.take(is_gone)
    }

    /// Forgets all but those of nodes that nobody attends to, or did when this was last called.
    pub(super) fn forget(&mut self, members: &SharedMap<NodeId, MemberStatus>) -> Vec<(Told, Arc<Endpoint>)> {
        let unattended = members.iter().filter(|(_, m)| m.state == MemberState::Unattended);
        let now = unattended.map(|(node, _)| *node).collect();
        let before = std::mem::replace(&mut self.unattended, now);
        let now = self.unattended.clone();
        self.take(|node| !now.contains(&node) && !before.contains(&node))
    }

    fn take(&mut self, meant: impl Fn(NodeId) -> bool) -> Vec<(Told, Arc<Endpoint>)> {
        let taken: Vec<_> = self.endpoints.keys().filter(|(_, key)| meant(key.node)).copied().collect();
        taken.into_iter().filter_map(|told| Some((told, self.remove(&told)?))).collect()
    }

    fn remove(&mut self, told: &Told) -> Option<Arc<Endpoint>> {
        let endpoint = self.endpoints.remove(told)?;
        for address in &endpoint.addresses {
            let holder = (told.0, endpoint.network, *address);
            if self.holders.get(&holder) == Some(&told.1) {
                self.holders.remove(&holder);
            }
        }
        Some(endpoint)
    }
}
