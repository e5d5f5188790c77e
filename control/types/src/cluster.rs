//! What the managers have decided, as every node keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ClusterId, Network, NetworkId, Node, NodeId, Service, ServiceId};

/// The decided state of a cluster at one version. Managers serve it; agents plan from it and keep it on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster.
    pub cluster: ClusterId,
    /// Grows with every change; a view with a lower version is older.
    pub version: u64,
    /// Members, alive or not.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Networks.
    pub networks: BTreeMap<NetworkId, Network>,
    /// Services.
    pub services: BTreeMap<ServiceId, Service>,
    /// Keys that seal gossip, the first one to send with: 32 bytes each (AES-256-GCM).
    pub gossip_keys: Vec<[u8; 32]>,
    /// The generation of the cluster's CA; a node whose certificate is of another one renews it.
    pub ca_generation: u64,
}

/// What makes a view of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewChange {
    /// The version of the earlier view.
    pub from: u64,
    /// The later view, but of its objects only those that are new or other than before.
    pub now: ClusterView,
    /// Members that are none any more.
    pub removed_nodes: Vec<NodeId>,
    /// Networks that are no more.
    pub removed_networks: Vec<NetworkId>,
    /// Services that are no more.
    pub removed_services: Vec<ServiceId>,
}

impl ClusterView {
    /// Makes the later view of this one; tells whether `change` is about this one. If not, nothing is changed.
    pub fn change(&mut self, change: ViewChange) -> bool {
        let ViewChange { from, now, removed_nodes, removed_networks, removed_services } = change;
        if from != self.version || now.cluster != self.cluster {
            return false;
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut networks = std::mem::take(&mut self.networks);
        let mut services = std::mem::take(&mut self.services);
        nodes.extend(now.nodes);
        networks.extend(now.networks);
        services.extend(now.services);
        removed_nodes.iter().for_each(|id| drop(nodes.remove(id)));
        removed_networks.iter().for_each(|id| drop(networks.remove(id)));
        removed_services.iter().for_each(|id| drop(services.remove(id)));
        *self = Self { nodes, networks, services, ..now };
        true
    }
}

/// Why a reference names no single object.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Nothing has that name, id or id prefix.
    #[error("no such {kind}: {reference}")]
    Unknown {
        /// `network`, `service`, `node`, `task`.
        kind: &'static str,
        /// What was asked for.
        reference: String,
    },
    /// The prefix fits more than one.
    #[error("{kind} {reference} is ambiguous: it fits {}", .candidates.join(", "))]
    Ambiguous {
        /// `network`, `service`, `node`, `task`.
        kind: &'static str,
        /// What was asked for.
        reference: String,
        /// The names it could mean.
        candidates: Vec<String>,
    },
}

/// An object that people refer to by name, id or unambiguous id prefix.
pub trait Lookup {
    /// The word for it in messages.
    const KIND: &'static str;
    /// Its id as text.
    fn id_text(&self) -> String;
    /// Its name.
    fn name_text(&self) -> &str;

    /// Finds the object that `reference` means: an exact name, else an exact id, else the only id with that prefix.
    fn find<'a>(all: impl IntoIterator<Item = &'a Self>, reference: &str) -> Result<&'a Self, LookupError>
    where
        Self: Sized + 'a,
    {
        let mut by_prefix = Vec::new();
        for item in all {
            if item.name_text() == reference || item.id_text() == reference {
                return Ok(item);
            }
            if !reference.is_empty() && item.id_text().starts_with(reference) {
                by_prefix.push(item);
            }
        }
        match by_prefix.as_slice() {
            [] => Err(LookupError::Unknown { kind: Self::KIND, reference: reference.to_owned() }),
            [one] => Ok(one),
            many => Err(LookupError::Ambiguous {
                kind: Self::KIND,
                reference: reference.to_owned(),
                candidates: many.iter().map(|i| i.name_text().to_owned()).collect(),
            }),
        }
    }
}

macro_rules! lookup {
    ($($object:ty = $kind:literal),*) => {$(
        impl Lookup for $object {
            const KIND: &'static str = $kind;
            fn id_text(&self) -> String {
                self.id.to_string()
            }
            fn name_text(&self) -> &str {
                self.name.as_str()
            }
        }
    )*};
}

lookup!(Node = "node", Network = "network", Service = "service");

impl Lookup for crate::Endpoint {
    const KIND: &'static str = "task";
    fn id_text(&self) -> String {
        self.task.to_string()
    }
    fn name_text(&self) -> &str {
        self.name.as_str()
    }
}

impl ClusterView {
    /// The network that `reference` means.
    pub fn network(&self, reference: &str) -> Result<&Network, LookupError> {
        Lookup::find(self.networks.values(), reference)
    }

    /// The service that `reference` means.
    pub fn service(&self, reference: &str) -> Result<&Service, LookupError> {
        Lookup::find(self.services.values(), reference)
    }

    /// The node that `reference` means.
    pub fn node(&self, reference: &str) -> Result<&Node, LookupError> {
        Lookup::find(self.nodes.values(), reference)
    }
}
