//! Where the cluster's CA stands.

use std::{collections::BTreeMap, fmt};

use mesh_types::NodeId;
use serde::{Deserialize, Serialize};

/// How long certificates are valid, in seconds, unless the cluster says otherwise: 90 days.
pub const DEFAULT_CERT_VALIDITY: u64 = 90 * 24 * 3600;
/// The shortest validity, in seconds: managers may be away for a fifth of it.
pub const MIN_CERT_VALIDITY: u64 = 3600;
/// The longest validity, in seconds.
pub const MAX_CERT_VALIDITY: u64 = 10 * 365 * 24 * 3600;

/// The state of the cluster's CA. What it signs with is in [`crate::Secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// Grows with every change of whom nodes are to trust: 1 at first. Every certificate says the generation that it was
    /// made in; a node whose one says another renews it.
    pub generation: u64,
    /// The root before, for as long as not every node has a certificate of the present one.
    pub previous: Option<PreviousRoot>,
    /// The generation of the certificate that each node was last seen with; 1 for the others.
    pub in_use: BTreeMap<NodeId, u64>,
    /// How long certificates made from now on are valid, in seconds.
    pub validity_secs: u64,
}

/// The root before a rotation, and the way from it to the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousRoot {
    /// Its certificate.
    pub cert_pem: String,
    /// The present root as signed by it.
    pub cross_pem: String,
}

/// A new root for the cluster's CA.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewRoot {
    /// Its certificate.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// The same root as signed by the present one.
    pub cross_pem: String,
    /// The certificate of the root that signed it: another rotation may have come in between.
    pub replaces_pem: String,
}

impl fmt::Debug for NewRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewRoot").finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self { generation: 1, previous: None, in_use: BTreeMap::new(), validity_secs: DEFAULT_CERT_VALIDITY }
    }
}

impl Authority {
    /// The generation of the certificate that `node` was last seen with.
    pub fn in_use(&self, node: NodeId) -> u64 {
        self.in_use.get(&node).copied().unwrap_or(1)
    }
}
